/** @file The ranked list. */

import { confidenceOf, jointSetOf, openAt, percent, percentRange, shortId, wordsOf } from "../model.js";

/** @typedef {import("../types.js").View} View */
/** @typedef {import("../types.js").Suggestion} Suggestion */

/** @type {Record<string, string>} */
const VERDICTS = { accept: "✓ accepted", reject: "✗ rejected", unsure: "? unsure", skip: "skipped", flag: "" };

/** `<cb2-suggestions>`: fires `choose` (detail: id) when a row is clicked. */
export class Suggestions extends HTMLElement {
  /** @type {Map<string, HTMLElement>} */
  #rows = new Map();
  #order = "";

  connectedCallback() {
    this.list = document.createElement("div");
    this.list.className = "list";
    this.list.setAttribute("role", "listbox");
    this.list.setAttribute("aria-label", "Suggestions");
    this.list.tabIndex = 0;
    this.empty = document.createElement("p");
    this.empty.className = "empty";
    this.replaceChildren(this.empty, this.list);
    // what lies below the list comes and goes
    new ResizeObserver(() => this.#showSelected()).observe(this);
    this.addEventListener("click", (event) => {
      const row = /** @type {Element} */ (event.target).closest("[role=option]");
      if (row) this.#fire("choose", row.getAttribute("data-id"));
    });
    this.list.addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      this.#fire("step", step);
    });
  }

  /** @param {View} view */
  update(view) {
    const suggestions = view.list?.suggestions ?? [];
    this.#arrange(suggestions);
    for (const s of suggestions) this.#paint(s, view);
    const isEmpty = suggestions.length === 0;
    this.empty.hidden = !isEmpty;
    this.empty.textContent = view.list
      ? view.list.note || "Nothing to suggest here."
      : "No suggestions yet. Point at a segment in the viewer and press p.";
    if (view.selected) this.list.setAttribute("aria-activedescendant", `option-${view.selected}`);
    else this.list.removeAttribute("aria-activedescendant");
  }

  /** @param {Suggestion[]} suggestions */
  #arrange(suggestions) {
    const order = suggestions.map((s) => s.id).join();
    if (order === this.#order) return;
    this.#order = order;
    this.#rows = new Map(suggestions.map((s) => [s.id, this.#rows.get(s.id) ?? makeRow(s.id)]));
    this.list.replaceChildren(...this.#rows.values());
  }

  /**
   * @param {Suggestion} s
   * @param {View} view
   */
  #paint(s, view) {
    const row = this.#rows.get(s.id);
    if (!row) return;
    const verdict = view.verdicts[s.id];
    const isSelected = s.id === view.selected;
    const wasSelected = row.getAttribute("aria-selected") === "true";
    set(row, "aria-selected", String(isSelected));
    set(row, "data-kind", s.kind);
    set(row, "data-segment", s.segment);
    set(row, "data-partner", s.partner ?? "");
    const isHidden = Boolean(s.score_hidden);
    set(row, "data-confidence", isHidden ? "" : String(s.confidence));
    set(row, "data-score", isHidden ? "" : String(s.score));
    set(row, "data-score-hidden", String(isHidden));
    set(row, "data-verdict", verdict ?? "");
    const reason = view.reasons?.[s.id] ?? "";
    set(row, "data-reason", reason);
    set(row, "data-pending", String(view.pending.has(s.id)));
    set(row, "data-unreliable", String(s.ood.flag));
    text(row, ".kind", s.kind);
    text(row, ".partner", s.partner === null ? `of ${shortId(s.segment)}` : `with ${shortId(s.partner)}`);
    text(row, ".confidence", confidenceOf(s));
    const isCalibrated = !view.list?.model.uncalibrated;
    const interval = isCalibrated ? !isHidden && percentRange(s.interval) : "uncalibrated";
    text(row, ".interval", interval || "");
    text(row, ".reason", s.reason);
    const why = reason && ` · ${wordsOf(reason)}`;
    const isImplied = s.id in (view.implied ?? {});
    set(row, "data-implied", String(isImplied));
    const said = verdict ? (VERDICTS[verdict] ?? verdict) + why : "";
    const note = view.flags?.[s.id];
    set(row, "data-flag", note ?? "");
    const flag = note === undefined ? "" : `⚑ ${note}`;
    const state = isImplied ? "closed: another was accepted" : said;
    text(row, ".verdict", [state, flag].filter(Boolean).join(" · "));
    this.#paintSet(row, s, view);
    row.title = `${s.kind} · segment ${s.segment}${s.partner ? ` · partner ${s.partner}` : ""}`;
    const [low, high] = isHidden ? [0, 0] : s.interval;
    row.style.setProperty("--confidence", String(isHidden ? 0 : s.confidence));
    row.style.setProperty("--low", String(low));
    row.style.setProperty("--high", String(high));
    if (isSelected && !wasSelected) row.scrollIntoView({ block: "nearest" });
  }

  #showSelected() {
    this.list.querySelector("[aria-selected=true]")?.scrollIntoView({ block: "nearest" });
  }

  /**
   * Which joins are one question, and how likely none of them is right.
   * @param {HTMLElement} row
   * @param {Suggestion} s
   * @param {View} view
   */
  #paintSet(row, s, view) {
    const mine = jointSetOf(view, s.id);
    const isMate = mine !== null && mine === jointSetOf(view, view.selected);
    const ends = (view.list?.joint_sets ?? []).filter((one) => one.joint !== null);
    const name = mine?.joint ? `end ${letter(ends.indexOf(mine))}` : "";
    set(row, "data-joint", mine?.joint ?? "");
    set(row, "data-mate", String(isMate));
    text(row, ".joint", name.replace("end ", ""));
    row.querySelector(".joint")?.setAttribute("title", name);
    const open = mine && s.id === view.selected ? openAt(view, s.id).length : 0;
    const where = name ? `at ${name}` : "at no end";
    // a share that is made of numbers which are not shown is not shown either
    const isKept = (/** @type {Suggestion} */ o) => o.ood.flag || o.score_hidden;
    const isShown = !view.list?.suggestions.some((o) => isKept(o) && mine?.members.includes(o.id));
    const share = open && mine && isShown ? ` · ${percent(mine.none_of_these)}` : "";
    text(row, ".none", open ? `0: none of ${open} ${where}${share}` : "");
  }

  /**
   * @param {string} name
   * @param {unknown} detail
   */
  #fire(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

/** @param {number} n */
function letter(n) {
  return n < 26 ? String.fromCharCode(65 + n) : String(n + 1);
}

/** @param {string} id */
function makeRow(id) {
  const row = document.createElement("div");
  row.setAttribute("role", "option");
  row.id = `option-${id}`;
  row.dataset.id = id;
  const parts = ["kind", "partner", "confidence", "bar", "reason", "interval", "joint", "none", "verdict"];
  for (const part of parts) {
    const span = document.createElement("span");
    span.className = part;
    row.append(span);
  }
  return row;
}

/**
 * @param {Element} element
 * @param {string} name
 * @param {string} value
 */
function set(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/**
 * @param {Element} row
 * @param {string} selector
 * @param {string} value
 */
function text(row, selector, value) {
  const element = row.querySelector(selector);
  if (element && element.textContent !== value) element.textContent = value;
}

customElements.define("cb2-suggestions", Suggestions);
