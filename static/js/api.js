/**
 * @file The only module that talks to the server: one WebSocket, requests with answers, and a queue
 * that keeps what was typed while the connection was down.
 */

import { pageKey } from "./page_key.js";
import { tabName } from "./tabs.js";

/** @typedef {import("./types.js").Request} Request */
/** @typedef {import("./types.js").Ack} Ack */

const PING_MS = 10_000;
const SILENCE_MS = 25_000;
const LONGEST_WAIT_MS = 4_000;

/** A name that no other request of any page has. */
export function freshKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
}

/**
 * Fires `hello`, `snapshot`, `hold`, `models`, `ack` (detail: the message; for an ack also `request`) and `connection`
 * (detail: whether it is up).
 */
export class Api extends EventTarget {
  /** @type {Map<string, Request>} requests without an answer, oldest first */
  underWay = new Map();
  isUp = false;
  #attempts = 0;
  #heard = 0;
  /** @type {WebSocket|null} */
  #socket = null;
  /** Whether the session is in this tab; what is asked for meanwhile counts even if it leaves. */
  holds = false;
  #wasTold = false;
  #tab = tabName(freshKey());
  #load = freshKey();

  /** A connection that the server takes: a page can send its key only as a protocol. */
  dial() {
    const address = new URL("ws", location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    const waits = this.#wasTold && !this.holds ? "1" : "";
    address.search = String(new URLSearchParams({ tab: this.#tab, load: this.#load, waits }));
    address.hash = "";
    return new WebSocket(address, ["cb2-assist", `cb2-assist-key.${pageKey()}`]);
  }

  /** Connect, and connect again whenever the connection ends. */
  connect() {
    const socket = this.dial();
    this.#socket = socket;
    socket.addEventListener("message", (event) => this.#receive(JSON.parse(event.data)));
    socket.addEventListener("close", () => this.#closed(socket));
    this.#heard = performance.now();
    const beat = setInterval(() => {
      if (this.#socket !== socket) clearInterval(beat);
      else if (performance.now() - this.#heard > SILENCE_MS) socket.close();
      else if (this.isUp) this.#write({ type: "ping", id: freshKey() });
    }, PING_MS);
  }

  /**
   * Ask for something; the answer comes as an `ack` event. Without a connection the request waits.
   * @param {Request} request
   * @returns {Request} with its id
   */
  send(request) {
    const sent = { at: performance.now(), held: this.holds, ...request, id: freshKey() };
    if (sent.type === "propose") this.#forget("propose");
    this.underWay.set(sent.id, sent);
    if (this.isUp) this.#write(sent);
    return sent;
  }

  /** How many verdicts wait for an answer. */
  get waitingVerdicts() {
    return [...this.underWay.values()].filter((r) => r.type === "decide").length;
  }

  /** Idempotency keys of what changes verdicts and has no answer yet; the last verdict's apart. */
  turns() {
    const kinds = ["decide", "queue", "undo", "redo"];
    const turns = [...this.underWay.values()].filter((r) => kinds.includes(r.type));
    const last = turns.filter((r) => r.type === "decide").at(-1);
    return { own: turns.map((r) => r.idempotency_key), needs: last?.idempotency_key };
  }

  /** How many verdicts and reasons would be lost if the page went away now. */
  get waitingAnswers() {
    const kinds = ["decide", "reason"];
    return [...this.underWay.values()].filter((r) => kinds.includes(r.type)).length;
  }

  /** @param {string} type */
  #forget(type) {
    for (const [id, request] of this.underWay) if (request.type === type) this.underWay.delete(id);
  }

  /** @param {Request} request */
  #write({ at, ...fields }) {
    const age_ms = at === undefined ? undefined : Math.max(0, performance.now() - at);
    const isAnswer = fields.type === "decide" || fields.type === "queue";
    this.#socket?.send(JSON.stringify(isAnswer ? { ...fields, age_ms } : fields));
  }

  /** @param {{type: string} & Record<string, any>} message */
  #receive(message) {
    this.#heard = performance.now();
    if (message.type === "hello") {
      this.isUp = true;
      this.#attempts = 0;
      this.#hold(message.holds);
      this.#tell("hello", message);
      this.#tell("connection", true);
      // where the person was looking is the server's to know; what they decided is sent again,
      // under the same idempotency keys, so that what had arrived before counts once
      this.#forget("select");
      this.#forget("preview");
      this.#forget("look_at");
      for (const request of this.underWay.values()) this.#write(request);
      return;
    }
    if (message.type === "ack") {
      const request = message.id === null ? undefined : this.underWay.get(message.id);
      if (message.id !== null) this.underWay.delete(message.id);
      if (request !== undefined) this.#tell("ack", { ...message, request });
      return;
    }
    if (message.type === "hold") this.#hold(message.holds);
    this.#tell(message.type, message);
  }

  /** @param {boolean} holds */
  #hold(holds) {
    this.holds = holds;
    this.#wasTold = true;
  }

  /** @param {WebSocket} socket */
  #closed(socket) {
    if (this.#socket !== socket) return;
    this.#socket = null;
    this.isUp = false;
    this.#tell("connection", false);
    const wait = Math.min(LONGEST_WAIT_MS, 250 * 2 ** this.#attempts++);
    setTimeout(() => this.connect(), wait);
  }

  /**
   * @param {string} name
   * @param {unknown} detail
   */
  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}
