/** @file The field that takes a place, and the buttons that copy one. */

const MOST_SHOWN = 10_000;

/** `<cb2-go>`: fires `go` (detail: the text) and `share` (detail: own or neuroglancer). */
export class Go extends HTMLElement {
  connectedCallback() {
    this.field = document.createElement("input");
    this.field.type = "text";
    this.field.id = "go";
    this.field.autocomplete = "off";
    this.field.spellcheck = false;
    this.field.placeholder = "Go to x, y, z · segment · link";
    this.field.setAttribute("aria-label", "Go to coordinates, a segment or a link");
    this.field.title = "x, y, z as the viewer counts voxels · x, y, z nm · segment id · link ( / )";
    this.field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.isComposing) this.go(this.field.value);
      if (event.key === "Escape") this.leave();
    });
    this.field.addEventListener("input", () => this.#judge(true));
    this.replaceChildren(
      this.field,
      this.#button("own", "link", "Copy a link to this site ( ; )"),
      this.#button("neuroglancer", "NG", "Copy this site as a Neuroglancer link ( = )"),
    );
  }

  /** Put the caret into the field. */
  enter() {
    this.field.focus();
    this.field.select();
  }

  /** Give the keys back to the page. */
  leave() {
    this.#judge(true);
    this.field.value = "";
    this.field.blur();
  }

  /** @param {string} text */
  go(text) {
    // a field has one line, and what the clipboard holds may be anything
    this.field.value = text.slice(0, MOST_SHOWN).replace(/\s+/g, " ");
    this.dispatchEvent(new CustomEvent("go", { detail: text }));
  }

  /** The text was not understood and waits to be mended. */
  refuse() {
    this.#judge(false);
    this.enter();
  }

  /**
   * Show a text for copying by hand.
   * @param {string} text
   */
  offer(text) {
    this.field.value = text;
    this.enter();
  }

  /** @param {boolean} isGood */
  #judge(isGood) {
    this.field.setAttribute("aria-invalid", String(!isGood));
  }

  /**
   * @param {string} kind
   * @param {string} label
   * @param {string} words
   */
  #button(kind, label, words) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = label;
    button.title = words;
    button.setAttribute("aria-label", words.replace(/ \(.*/, ""));
    button.addEventListener("click", () => {
      this.dispatchEvent(new CustomEvent("share", { detail: kind }));
    });
    return button;
  }
}

customElements.define("cb2-go", Go);
