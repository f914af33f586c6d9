/** @file Edits of the graph that wait, are under way or were made: what `y` would apply next. */

import { nextEdit } from "../model.js";

/** @typedef {import("../types.js").View} View */
/** @typedef {import("../types.js").EditRow} EditRow */

const TICK_MS = 200;

/** @type {Record<string, string>} */
const STATES = {
  staged: "waits",
  sent: "under way …",
  unknown: "not known",
  applied: "applied",
  already: "already so",
  refused: "refused",
  withdrawn: "withdrawn",
  dropped: "taken off",
  undone: "taken back",
};

/**
 * `<cb2-edits>`: hidden while there are none. Fires `look` (detail: a point in nm) when a row is
 * clicked, and `drop` (detail: key of the edit) by its button.
 */
export class Edits extends HTMLElement {
  #timer = 0;
  #shown = "";
  /** @type {Map<string, {element: Element, until: number}>} */
  #due = new Map();

  connectedCallback() {
    this.hidden = true;
    this.setAttribute("role", "region");
    this.setAttribute("aria-label", "Edits");
    this.heading = document.createElement("p");
    this.list = document.createElement("ul");
    this.replaceChildren(this.heading, this.list);
  }

  /** @param {View} view */
  update(view) {
    const { edits, revision } = view;
    const rows = edits ? [...edits.waiting, ...edits.ended] : [];
    this.hidden = rows.length === 0;
    const text = JSON.stringify([revision, rows]);
    if (text === this.#shown) return;
    this.#shown = text;
    const n = edits?.waiting.length ?? 0;
    this.heading.textContent = n ? `${n} edit${n === 1 ? "" : "s"} to apply: y` : "edits";
    this.#due.clear();
    const next = nextEdit(view);
    this.list.replaceChildren(...rows.map((row) => this.#row(row, row.edit === next?.edit)));
    this.#tick();
  }

  /**
   * @param {EditRow} row
   * @param {boolean} isNext
   */
  #row(row, isNext) {
    const item = document.createElement("li");
    Object.assign(item.dataset, { edit: row.edit, state: row.state, kind: row.kind });
    item.dataset.operation = row.operation ?? "";
    item.toggleAttribute("data-next", isNext);
    const state = document.createElement("span");
    state.className = "state";
    const number = row.operation ? ` · operation ${row.operation}` : "";
    state.textContent = `${stateOf(row)}${number}`;
    const words = document.createElement("span");
    words.className = "words";
    words.textContent = row.words;
    item.append(words, state);
    if (row.state === "staged") {
      const drop = document.createElement("button");
      drop.type = "button";
      drop.textContent = "×";
      drop.title = "Take it off this list; your answer stays recorded";
      drop.addEventListener("click", (event) => {
        event.stopPropagation();
        this.dispatchEvent(new CustomEvent("drop", { detail: row.edit }));
      });
      item.append(drop);
    }
    if (row.note) {
      const note = document.createElement("span");
      note.className = "note";
      note.textContent = row.note;
      item.append(note);
    }
    item.addEventListener("click", () =>
      this.dispatchEvent(new CustomEvent("look", { detail: row.point_nm })),
    );
    if (row.due_in_ms !== null && row.due_in_ms !== undefined) {
      this.#due.set(row.edit, { element: state, until: performance.now() + row.due_in_ms });
    }
    return item;
  }

  /** Count down to what is applied by itself. */
  #tick() {
    clearTimeout(this.#timer);
    for (const { element, until } of this.#due.values()) {
      const left = Math.max(0, until - performance.now());
      element.textContent = `applied in ${Math.ceil(left / 1000)} s · u cancels`;
    }
    if (this.#due.size) this.#timer = setTimeout(() => this.#tick(), TICK_MS);
  }
}

/** @param {EditRow} row */
function stateOf(row) {
  if (row.computing) return "sides are being computed …";
  return row.state === "staged" && row.previewed ? "previewed, y cuts" : STATES[row.state];
}

customElements.define("cb2-edits", Edits);
