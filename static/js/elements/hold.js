/** @file Lies over the viewer while another tab has the session. */

import { isTextField } from "../keys.js";

/** `<cb2-hold>`: fires `take` when the person wants the session in this tab. */
export class Hold extends HTMLElement {
  #was = false;

  connectedCallback() {
    this.setAttribute("role", "alertdialog");
    this.setAttribute("aria-labelledby", "hold-words");
    this.hidden = true;
    this.words = document.createElement("p");
    this.words.id = "hold-words";
    this.button = document.createElement("button");
    this.button.type = "button";
    this.button.textContent = "Take over here";
    this.button.addEventListener("click", () => this.dispatchEvent(new Event("take")));
    this.replaceChildren(this.words, this.button);
    window.addEventListener("keydown", (event) => {
      // a button has its own Enter, and so has the field for places
      const from = /** @type {Element} */ (event.composedPath()[0]);
      const isTaken = isTextField(from) || from.closest?.("button, a");
      if (event.key !== "Enter" || this.hidden || isTaken) return;
      event.preventDefault();
      this.button.click();
    });
  }

  /** @param {boolean} holds whether the session is in this tab */
  update(holds) {
    this.hidden = holds;
    if (!holds) {
      this.words.textContent = this.#was
        ? "Taken over by another tab."
        : "This session is open in another tab. Take over here?";
      this.button.focus();
    }
    this.#was ||= holds;
  }
}

customElements.define("cb2-hold", Hold);
