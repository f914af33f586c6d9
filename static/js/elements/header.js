/** @file What is being looked at, with which model, under which assumption. */

import { percent, shortId } from "../model.js";

/** @typedef {import("../types.js").View} View */

/** @type {Record<string, (n: number) => string>} */
const SOURCES = {
  labels: (n) => `from ${n} labels`,
  estimated: (n) => `estimated from ${n} sites`,
  default: () => "default",
};

/** @param {import("../types.js").BaseRate} rate */
const rateText = (rate) => `${percent(rate.value)} (${SOURCES[rate.source]?.(rate.n) ?? rate.source})`;

/** `<cb2-header>` */
export class Header extends HTMLElement {
  connectedCallback() {
    const parts = [
      ["h1", "dataset"],
      ["p", "segment"],
      ["p", "progress"],
      ["p", "model"],
      ["p", "rate"],
    ];
    this.replaceChildren(
      ...parts.map(([tag, name]) => {
        const element = document.createElement(tag);
        element.className = name;
        return element;
      }),
    );
  }

  /** @param {View} view */
  update(view) {
    const { dataset, list } = view;
    this.#write("dataset", dataset.name, `${dataset.citation || dataset.name}\nversion ${dataset.version}`);
    const busy = view.busy_with;
    const busyText = busy === "0" ? "looking …" : `looking at ${shortId(busy ?? "")} …`;
    this.toggleAttribute("data-busy", busy !== null);
    const segment = list ? `segment ${shortId(list.segment)}` : "";
    this.#write("segment", busy === null ? segment : busyText, list?.segment);
    const n = list?.suggestions.length ?? 0;
    const implied = Object.keys(view.implied ?? {}).length;
    const closed = implied ? `, ${implied} closed` : "";
    this.#write("progress", n ? `${Object.keys(view.verdicts).length} of ${n} decided${closed}` : "");
    const licence = dataset.licence ? `${dataset.species} · ${dataset.licence}` : dataset.species;
    const mark = list?.model.uncalibrated ? " (uncalibrated)" : "";
    const model = list ? `${list.model.name}${mark} · ` : "";
    const why = list?.model.uncalibrated ? `${list.model.uncalibrated}\n` : "";
    this.#write("model", model + licence, list && `${why}sha256 ${list.model.sha256}`);
    const rate = list?.base_rate;
    const each = Object.entries(rate?.by_kind ?? {}).map(([kind, r]) => `${kind}s ${rateText(r)}`);
    this.#write(
      "rate",
      rate ? `base rate ${rateText(rate)}` : "",
      ["Share of such sites that an expert accepts, as assumed in every confidence", ...each].join("\n"),
    );
  }

  /**
   * @param {string} name
   * @param {string} text
   * @param {string|null} [title]
   */
  #write(name, text, title) {
    const element = /** @type {HTMLElement} */ (this.querySelector(`.${name}`));
    if (element.textContent !== text) element.textContent = text;
    element.title = text && title ? title : "";
  }
}

customElements.define("cb2-header", Header);
