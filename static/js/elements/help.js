/** @file The key table, as the server sent it. */

/** @typedef {import("../types.js").KeyBinding} KeyBinding */

/** `<cb2-help>`: hidden until asked for. */
export class Help extends HTMLElement {
  connectedCallback() {
    this.setAttribute("role", "region");
    this.setAttribute("aria-label", "Keys");
  }

  /** @param {KeyBinding[]} bindings */
  update(bindings) {
    const rows = bindings.map(({ chords, words }) => {
      const row = document.createElement("div");
      const keys = document.createElement("dt");
      for (const { label } of chords) {
        const key = document.createElement("kbd");
        key.textContent = label;
        keys.append(key);
      }
      const meaning = document.createElement("dd");
      meaning.textContent = words;
      row.append(keys, meaning);
      return row;
    });
    const table = document.createElement("dl");
    table.append(...rows);
    this.replaceChildren(table);
  }
}

customElements.define("cb2-help", Help);
