/** @file The field for the note of a flag. */

/** Of a note; the server takes no longer one. */
const MOST_CHARACTERS = 500;

/**
 * `<cb2-note>`: hidden until `enter`; fires `flag` (detail: suggestion, note, key) on Enter and
 * `leave` on Escape.
 */
export class Note extends HTMLElement {
  #suggestion = "";
  #key = "";

  connectedCallback() {
    this.field = document.createElement("input");
    this.field.type = "text";
    this.field.autocomplete = "off";
    this.field.maxLength = MOST_CHARACTERS;
    this.field.placeholder = "Why is this set aside?";
    this.field.setAttribute("aria-label", "Note of the flag");
    this.field.addEventListener("keydown", (event) => {
      if (event.isComposing) return;
      if (event.key === "Enter") this.#fire();
      if (event.key === "Escape") {
        this.leave();
        this.dispatchEvent(new CustomEvent("leave"));
      }
    });
    this.replaceChildren(this.field);
  }

  /**
   * Ask for a note.
   * @param {string} suggestion
   * @param {string} key what was pressed
   */
  enter(suggestion, key) {
    this.#suggestion = suggestion;
    this.#key = key;
    this.field.value = "";
    this.hidden = false;
    this.field.focus();
  }

  /** Give the keys back to the page. */
  leave() {
    this.field.blur();
    this.hidden = true;
  }

  #fire() {
    // tabs may be pasted into a field of one line
    const note = this.field.value.replace(/\s+/g, " ").trim();
    const detail = { suggestion: this.#suggestion, note, key: this.#key };
    this.dispatchEvent(new CustomEvent("flag", { detail }));
  }
}

customElements.define("cb2-note", Note);
