/** @file The line that says what just happened. */

/** `<cb2-status>` */
export class StatusLine extends HTMLElement {
  connectedCallback() {
    this.line = document.createElement("p");
    this.line.setAttribute("role", "status");
    this.line.setAttribute("aria-live", "polite");
    this.replaceChildren(this.line);
  }

  /**
   * @param {string} text
   * @param {string} [level] info, good, warn or error
   */
  say(text, level = "info") {
    this.line.textContent = text;
    this.line.dataset.level = level;
  }
}

customElements.define("cb2-status", StatusLine);
