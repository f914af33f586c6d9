/** @file Which model answers, and how another one is taken up while the server runs. */

/** @typedef {import("../types.js").ModelInUse} ModelInUse */

/**
 * `<cb2-models>`: hidden where the server cannot change its model. Fires `use` (detail: a folder,
 * or null for the same model with the calibration that is saved now).
 */
export class Models extends HTMLElement {
  connectedCallback() {
    this.hidden = true;
    this.innerHTML = `
      <details>
        <summary></summary>
        <ul aria-label="Models that have answered"></ul>
        <form>
          <label>model folder <input name="folder" spellcheck="false" autocomplete="off"></label>
          <button type="submit">use</button>
        </form>
        <button type="button" class="again">take up the new calibration</button>
      </details>`;
    const find = (/** @type {string} */ name) => /** @type {any} */ (this.querySelector(name));
    this.details = find("details");
    this.summary = find("summary");
    this.known = find("ul");
    this.field = find("input");
    find("form").addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      const folder = this.field.value.trim();
      if (folder) this.#fire(folder);
    });
    find(".again").addEventListener("click", () => this.#fire(null));
  }

  /** @param {ModelInUse[]} models every model that has answered, one of them in use */
  update(models) {
    const now = models.find((model) => model.in_use);
    this.hidden = now === undefined;
    if (now === undefined) return;
    this.summary.textContent = `answers: ${now.name} · use another …`;
    this.summary.title = `${now.folder}\nsha256 ${now.sha256}\ncalibrator ${now.calibrator}`;
    this.known.replaceChildren(...models.map((model) => this.#row(model)));
  }

  /** The one that was asked for answers: nothing is left to do here. */
  leave() {
    this.details.open = false;
    this.field.value = "";
  }

  /** @param {ModelInUse} model */
  #row(model) {
    const row = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    const doubt = model.verdict && model.verdict !== "better" ? ` (${model.verdict})` : "";
    button.textContent = `${model.name} ${model.sha256.slice(0, 8)}${doubt}`;
    button.title = model.folder;
    button.disabled = model.in_use;
    button.setAttribute("aria-pressed", String(model.in_use));
    button.addEventListener("click", () => this.#fire(model.folder));
    row.append(button);
    return row;
  }

  /** @param {string|null} folder */
  #fire(folder) {
    this.dispatchEvent(new CustomEvent("use", { detail: folder }));
  }
}

customElements.define("cb2-models", Models);
