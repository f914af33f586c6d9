/** @file Holds the parts together: what the server says goes to the list, the status, the viewer. */

import { ACTIONS } from "./actions.js";
import { Activity } from "./activity.js";
import { Api, freshKey } from "./api.js";
import { keepFocus, listen, listenToPaste } from "./keys.js";
import { idsOf, project } from "./model.js";
import { inVoxels, Overlay } from "./overlay.js";
import { Timings } from "./timings.js";
import { Viewer } from "./viewer.js";

/** @typedef {import("./types.js").Snapshot} Snapshot */
/** @typedef {import("./types.js").View} View */
/** @typedef {import("./types.js").Request} Request */
/** @typedef {import("./types.js").KeyBinding} KeyBinding */

/** Of a pasted link with a whole viewer state in it; the server takes no longer message. */
const MOST_CHARACTERS = 1_000_000;

/** The page, with nothing of its own that the server does not have but what is under way. */
export class Page {
  api = new Api();
  activity = new Activity();
  timings = new Timings();
  /** @type {View|null} */
  view = null;
  /** @type {Snapshot|null} */
  #snapshot = null;
  /** @type {KeyBinding[]} */
  #keys = [];
  #lastStatus = -1;
  #isDown = false;
  #wasGreeted = false;
  #viewerPath = "";
  /** @type {boolean|null} whether the session was in this tab; null before the server has said */
  #held = null;

  /** @param {Document} document */
  constructor(document) {
    const find = (/** @type {string} */ name) =>
      /** @type {any} */ (document.querySelector(name));
    this.header = find("cb2-header");
    this.models = find("cb2-models");
    this.queue = find("cb2-queue");
    this.edits = find("cb2-edits");
    this.list = find("cb2-suggestions");
    this.status = find("cb2-status");
    this.help = find("cb2-help");
    this.connection = find("cb2-connection");
    this.hold = find("cb2-hold");
    this.go = find("cb2-go");
    this.note = find("cb2-note");
    this.views = find("cb2-views");
    this.viewer = new Viewer(find("#viewer"));
    this.overlay = new Overlay(this.viewer);
    this.#connectParts();
    this.#hear(window);
    this.api.connect();
  }

  /** @param {string} text @param {string} [level] */
  say(text, level) {
    this.status.say(text, level);
  }

  /** @param {Request} request */
  send(request) {
    this.api.send(request);
    this.#render();
  }

  /** @param {string} id */
  choose(id) {
    this.send({ type: "select", suggestion: id });
    const ids = this.view ? idsOf(this.view) : [];
    this.say(`${ids.indexOf(id) + 1} of ${ids.length}`);
  }

  /**
   * Ask where a text leads, and go there.
   * @param {string} text
   */
  travel(text) {
    if (!this.api.holds) return this.#refuse();
    if (JSON.stringify(text).length > MOST_CHARACTERS) {
      this.go.refuse();
      return this.say("That is too long for a place or a link. Copy it again.", "warn");
    }
    this.send({ type: "goto", text });
    this.say("Looking for that place …");
  }

  /**
   * Copy a link to what is on screen.
   * @param {"own"|"neuroglancer"} link
   */
  share(link) {
    const camera_nm = this.view && this.viewer.camera(this.view.resolution_nm);
    this.send({ type: "share", link, camera_nm });
  }

  /** Of a large object of a graph only what lies near the camera is drawn. */
  #lookAround() {
    if (!this.view || !this.api.holds || !this.viewer.isGraph) return;
    const camera_nm = this.viewer.camera(this.view.resolution_nm);
    if (camera_nm) this.send({ type: "look_at", camera_nm });
  }

  /** @param {{suggestion: string, note: string, key: string}} flag */
  #flag(flag) {
    if (!flag.note) return this.say("A flag needs a note. Escape cancels.", "warn");
    this.note.leave();
    const fields = { ...flag, idempotency_key: freshKey(), ...this.activity.read() };
    this.send({ type: "decide", verdict: "flag", ...fields });
    this.say(`Flagging: ${flag.note} …`);
  }

  #refuse() {
    this.say(
      "Nothing was done: this session is open in another tab. The button in the middle takes it over.",
      "warn",
    );
  }

  #connectParts() {
    const on = (/** @type {string} */ name, /** @type {(detail: any) => void} */ act) =>
      this.api.addEventListener(name, (event) => act(/** @type {CustomEvent} */ (event).detail));
    on("hello", (hello) => this.#greet(hello));
    on("snapshot", (message) => this.#paint(message.snapshot));
    on("ack", (ack) => this.#answered(ack));
    on("connection", (isUp) => {
      this.#isDown = !isUp;
      this.#render();
    });
    on("hold", () => this.#changeHands());
    on("models", (message) => this.models.update(message.models));
    const held = (/** @type {(detail: any) => void} */ act) => (/** @type {CustomEvent} */ e) =>
      this.api.holds ? act(e.detail) : this.#refuse();
    this.list.addEventListener("choose", held((id) => this.choose(id)));
    this.list.addEventListener(
      "step",
      held((step) => ACTIONS[step > 0 ? "next" : "previous"](this, "")),
    );
    this.views.addEventListener("look", held((camera) => this.overlay.look(camera)));
    this.edits.addEventListener("look", held((at) => this.overlay.flyTo(at)));
    this.edits.addEventListener("drop", held((edit) => this.send({ type: "drop_edit", edit })));
    this.go.addEventListener("go", held((text) => this.travel(text)));
    this.note.addEventListener("flag", held((flag) => this.#flag(flag)));
    this.note.addEventListener("leave", () => this.say("No flag: nothing was recorded."));
    this.go.addEventListener("share", held((link) => this.share(link)));
    this.models.addEventListener("use", held((folder) => this.send({ type: "use_model", folder })));
    this.hold.addEventListener("take", () => this.send({ type: "take_over" }));
    window.addEventListener("hashchange", () => this.#followAddress());
    this.viewer.addEventListener("window", () => {
      this.#hear(this.viewer.window);
      keepFocus(this.viewer.window);
    });
    this.viewer.addEventListener("rest", () => this.#lookAround());
    for (const mark of ["attached", "complete"]) {
      this.viewer.addEventListener(mark, () => this.timings.mark(mark));
    }
    this.viewer.addEventListener("broken", () =>
      this.say(
        "This browser has no WebGL 2, which the viewer needs. Use a current Firefox, Chrome or " +
          "Edge, and turn hardware acceleration on in its settings.",
        "error",
      ),
    );
    window.addEventListener("beforeunload", (event) => {
      if (this.api.waitingAnswers) event.preventDefault();
    });
  }

  /** @param {Window} inner */
  #hear(inner) {
    this.activity.watch(inner);
    listenToPaste(inner, (text) => (this.api.holds ? this.go.go(text) : this.#refuse()));
    listen(
      inner,
      () => this.#keys,
      (binding, event, from) => {
        const started = performance.now();
        if (this.api.holds || binding.action === "help") {
          ACTIONS[binding.action](this, event.key, binding.argument);
        } else this.#refuse();
        this.timings.key(binding.action, event, from, started);
      },
    );
  }

  /**
   * @param {{server_id: string, viewer: string, keys: KeyBinding[],
   *   cameras: import("./types.js").Camera[], models: import("./types.js").ModelInUse[]}} hello
   */
  #greet(hello) {
    this.#keys = hello.keys;
    this.help.update(hello.keys);
    this.models.update(hello.models);
    // a server that started again counts its statuses from the beginning
    this.#lastStatus = -1;
    this.#wasGreeted = true;
    this.views.arrange(hello.cameras);
    this.#viewerPath = hello.viewer;
    this.#changeHands();
    this.timings.mark("greeted");
  }

  /** The session has come to this tab or left it; only its holder has a viewer. */
  #changeHands() {
    const { holds } = this.api;
    const had = this.#held;
    this.#held = holds;
    this.hold.update(holds);
    if (holds) {
      this.viewer.open(this.#viewerPath);
      if (had === false) this.say("This session is in this tab now.");
      this.#followAddress();
      return;
    }
    this.viewer.close();
    if (had === true) this.say("Taken over by another tab. What was typed here is recorded.");
    if (had === null) this.say("This session is open in another tab.");
  }

  /** Go where a link of ours has led this tab. */
  #followAddress() {
    const text = location.hash;
    if (!this.api.holds || !/^#(at|segment|site)=/.test(text)) return;
    history.replaceState(null, "", location.pathname);
    this.travel(text);
  }

  /** @param {Snapshot} snapshot */
  #paint(snapshot) {
    this.#snapshot = snapshot;
    this.#render();
    if (snapshot.status.number > this.#lastStatus) {
      this.#lastStatus = snapshot.status.number;
      if (this.api.holds) this.say(snapshot.status.text, snapshot.status.level);
    }
    this.timings.mark("painted");
  }

  /** @param {import("./types.js").Ack & {request: Request}} ack */
  #answered({ ok, text, error, data, request }) {
    if (request.at !== undefined) this.timings.answer(request.type, request.at);
    this.#render();
    if (!ok && error && request.type !== "look_at") this.say(error, request.type === "decide" ? "error" : "warn");
    if (request.type === "look_at" && data?.redraw) this.viewer.redrawSurfaces();
    if (request.type === "goto") this.#arrived(ok ? data : null, text);
    if (request.type === "use_model" && ok) this.models.leave();
    if (request.type === "share" && ok) this.#copy(data.link, text ?? "");
    if ((request.type === "propose" || request.type === "queue") && request.at !== undefined) {
      this.timings.proposal(request.type, request.at);
    }
  }

  /**
   * @param {Record<string, any>|null} place null: the text was not understood
   * @param {string|null} text
   */
  #arrived(place, text) {
    if (place === null) return this.go.refuse();
    this.go.leave();
    // the status of a proposal says it too
    if (!place.proposes) this.say(text ?? "");
    if (this.view && this.viewer.layer) this.viewer.fly(inVoxels(place.at_nm, this.view));
  }

  /**
   * @param {string} link
   * @param {string} text
   */
  async #copy(link, text) {
    try {
      await navigator.clipboard.writeText(link);
      this.say(text, "good");
    } catch {
      this.go.offer(link);
      this.say(`This browser keeps the clipboard to itself: press Ctrl+C now. ${text}`, "warn");
    }
  }

  #render() {
    this.connection.update(!this.#isDown, this.api.waitingVerdicts, this.#wasGreeted);
    if (this.#snapshot === null) return;
    const before = this.view?.selected;
    this.view = project(this.#snapshot, this.api.underWay.values());
    if (this.view.selected !== before) this.activity.restart();
    this.header.update(this.view);
    this.queue.update(this.view);
    this.edits.update(this.view);
    this.list.update(this.view);
    this.views.update(this.view);
    this.overlay.show(this.view);
  }
}
