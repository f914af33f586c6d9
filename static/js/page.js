/** @file Holds the parts together: what the server says goes to the list, the status, the viewer. */

import { ACTIONS } from "./actions.js";
import { Activity } from "./activity.js";
import { Api } from "./api.js";
import { keepFocus, listen } from "./keys.js";
import { idsOf, project } from "./model.js";
import { Overlay } from "./overlay.js";
import { Timings } from "./timings.js";
import { Viewer } from "./viewer.js";

/** @typedef {import("./types.js").Snapshot} Snapshot */
/** @typedef {import("./types.js").View} View */
/** @typedef {import("./types.js").Request} Request */
/** @typedef {import("./types.js").KeyBinding} KeyBinding */

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
  #serverId = "";

  /** @param {Document} document */
  constructor(document) {
    const find = (/** @type {string} */ name) =>
      /** @type {any} */ (document.querySelector(name));
    this.header = find("cb2-header");
    this.queue = find("cb2-queue");
    this.list = find("cb2-suggestions");
    this.status = find("cb2-status");
    this.help = find("cb2-help");
    this.connection = find("cb2-connection");
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

  #connectParts() {
    const on = (/** @type {string} */ name, /** @type {(detail: any) => void} */ act) =>
      this.api.addEventListener(name, (event) => act(/** @type {CustomEvent} */ (event).detail));
    on("hello", (hello) => this.#greet(hello));
    on("snapshot", (message) => this.#paint(message.snapshot));
    on("ack", (ack) => this.#answered(ack));
    on("connection", () => this.#render());
    this.list.addEventListener("choose", (/** @type {CustomEvent} */ e) => this.choose(e.detail));
    this.list.addEventListener("step", (/** @type {CustomEvent} */ e) =>
      ACTIONS[e.detail > 0 ? "next" : "previous"](this, ""),
    );
    this.viewer.addEventListener("window", () => {
      this.#hear(this.viewer.window);
      keepFocus(this.viewer.window);
    });
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
    listen(
      inner,
      () => this.#keys,
      (binding, event, from) => {
        const started = performance.now();
        ACTIONS[binding.action](this, event.key, binding.argument);
        this.timings.key(binding.action, event, from, started);
      },
    );
  }

  /** @param {{server_id: string, viewer: string, keys: KeyBinding[]}} hello */
  #greet(hello) {
    this.#keys = hello.keys;
    this.help.update(hello.keys);
    // a server that started again counts its statuses from the beginning
    this.#lastStatus = -1;
    this.#serverId = hello.server_id;
    this.viewer.open(hello.viewer);
    this.timings.mark("greeted");
  }

  /** @param {Snapshot} snapshot */
  #paint(snapshot) {
    this.#snapshot = snapshot;
    this.#render();
    if (snapshot.status.number > this.#lastStatus) {
      this.#lastStatus = snapshot.status.number;
      this.say(snapshot.status.text, snapshot.status.level);
    }
    this.timings.mark("painted");
  }

  /** @param {{ok: boolean, error: string|null, request: Request}} ack */
  #answered({ ok, error, request }) {
    if (request.at !== undefined) this.timings.answer(request.type, request.at);
    this.#render();
    if (!ok && error) this.say(error, request.type === "decide" ? "error" : "warn");
    if ((request.type === "propose" || request.type === "queue") && request.at !== undefined) {
      this.timings.proposal(request.type, request.at);
    }
  }

  #render() {
    this.connection.update(this.api.isUp || this.#serverId === "", this.api.waitingVerdicts);
    if (this.#snapshot === null) return;
    const before = this.view?.selected;
    this.view = project(this.#snapshot, this.api.underWay.values());
    if (this.view.selected !== before) this.activity.restart();
    this.header.update(this.view);
    this.queue.update(this.view);
    this.list.update(this.view);
    this.overlay.show(this.view);
  }
}
