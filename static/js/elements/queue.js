/** @file How many sites wait, and how the one on screen was chosen. */

/** @typedef {import("../types.js").View} View */

const WHY_RANDOM =
  "One site in ten is picked at random, whatever the model thinks of it, so that the labels also " +
  "tell how it does elsewhere.";

/** `<cb2-queue>`: hidden until the queue is used. */
export class Queue extends HTMLElement {
  connectedCallback() {
    this.hidden = true;
    const [open, chosen] = ["open", "chosen"].map((name) => {
      const span = document.createElement("span");
      span.className = name;
      return span;
    });
    this.replaceChildren(open, chosen);
    this.open = open;
    this.chosen = chosen;
  }

  /** @param {View} view */
  update({ queue, selected }) {
    this.hidden = queue === null;
    if (queue === null) return;
    const [done, total] = queue.filling ?? [0, 0];
    const more = queue.filling && (total ? ` · searching ${done}/${total}` : " · searching");
    write(this.open, `queue: ${queue.open} open${more ?? ""}`);
    const searched = total ? `; ${done} of ${total} places searched` : "";
    this.open.title = `in ${queue.words}${searched}`;
    const how = queue.explore ? "picked at random" : "picked by rank";
    // others on its list were not picked
    const isPicked = queue.site !== null && queue.site === selected;
    write(this.chosen, isPicked ? how : "");
    this.chosen.title = isPicked && queue.explore ? WHY_RANDOM : "";
  }
}

/**
 * @param {HTMLElement} element
 * @param {string} text
 */
function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

customElements.define("cb2-queue", Queue);
