/** @file The views that the model saw of the selected suggestion, and what each says by itself. */

import { selectedOf } from "../model.js";

/** @typedef {import("../types.js").View} View */
/** @typedef {import("../types.js").Camera} Camera */
/** @typedef {import("../types.js").Suggestion} Suggestion */

/** `<cb2-views>`: fires `look` (detail: a camera, or null to turn back). */
export class Views extends HTMLElement {
  /** @type {Camera[]} */
  #cameras = [];
  /** @type {string|null} name of the view that the viewer is turned to */
  #looking = null;
  #site = "";
  #shown = "";
  #timer = 0;

  connectedCallback() {
    this.setAttribute("role", "group");
    this.setAttribute("aria-label", "Views that the model saw");
    this.hidden = true;
    const heading = document.createElement("p");
    heading.title =
      "Each view’s own score, not calibrated; they do not add up to the suggestion’s. Click a view " +
      "to turn the viewer to it.";
    heading.textContent = "seen by the model · own scores, uncalibrated";
    this.grid = document.createElement("div");
    this.replaceChildren(heading, this.grid);
  }

  /** @param {Camera[]} cameras */
  arrange(cameras) {
    this.#cameras = cameras;
    this.grid.replaceChildren();
    this.#shown = "";
    this.#looking = null;
  }

  /**
   * Show the selected suggestion's views, after what a key has changed is painted.
   * @param {View} view
   */
  update(view) {
    const chosen = selectedOf(view);
    // the same list asked for again turns the viewer back too
    const site = `${view.list_number} ${chosen?.id}`;
    if (this.#site !== site) {
      this.#site = site;
      this.#press(null);
    }
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#paint(chosen, view.views_sha256));
  }

  /**
   * @param {Suggestion|null} chosen
   * @param {string|null} sha256
   */
  #paint(chosen, sha256) {
    this.hidden = chosen === null;
    if (chosen === null) return;
    // an address with the content's hash is fetched once, so it is asked for only when known
    const shown = `${chosen.id} ${sha256}`;
    if (shown === this.#shown) return;
    this.#shown = shown;
    if (this.grid.childElementCount === 0) {
      this.grid.append(...this.#cameras.map((camera) => this.#makeButton(camera)));
    }
    for (const [i, camera] of this.#cameras.entries()) {
      const button = /** @type {HTMLElement} */ (this.grid.children[i]);
      const score = chosen.evidence.views.find((v) => v.name === camera.name)?.score;
      const number = score === undefined ? "" : score.toFixed(2);
      const image = /** @type {HTMLImageElement} */ (button.querySelector("img"));
      /** @type {HTMLElement} */ (button.querySelector(".score")).textContent = number;
      const what = camera.panel === "3d" ? "shape seen" : "section";
      image.alt = `${what} ${camera.words}${number && `, own score ${number}`}`;
      button.title = `${what} ${camera.words}: turn the viewer to it`;
      if (sha256 === null) image.removeAttribute("src");
      else image.src = `views/${chosen.id}/${camera.name}.png?sha256=${sha256}`;
    }
  }

  /** @param {Camera} camera */
  #makeButton(camera) {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.view = camera.name;
    button.setAttribute("aria-pressed", "false");
    const image = document.createElement("img");
    image.decoding = "async";
    image.width = image.height = 96;
    image.alt = camera.words;
    const caption = document.createElement("span");
    const words = document.createElement("span");
    words.textContent = camera.words;
    const score = document.createElement("span");
    score.className = "score";
    caption.append(words, score);
    button.append(image, caption);
    button.addEventListener("click", () => {
      const turnsBack = this.#looking === camera.name;
      this.#press(turnsBack ? null : camera.name);
      this.dispatchEvent(new CustomEvent("look", { detail: turnsBack ? null : camera }));
    });
    return button;
  }

  /** @param {string|null} name */
  #press(name) {
    this.#looking = name;
    for (const button of this.grid.children) {
      const isIt = /** @type {HTMLElement} */ (button).dataset.view === name;
      button.setAttribute("aria-pressed", String(isIt));
    }
  }
}

customElements.define("cb2-views", Views);
