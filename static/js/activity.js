/** @file How long a suggestion was looked at, and how much of that nobody touched anything. */

const IDLE_AFTER_MS = 1_000;
const INPUTS = ["pointermove", "pointerdown", "wheel", "keydown"];

/** Time since the selected suggestion was shown; gaps of over a second between inputs are idle. */
export class Activity {
  #shownAt = performance.now();
  #lastInput = performance.now();
  #idle = 0;

  /** A new suggestion is on show. */
  restart() {
    this.#shownAt = performance.now();
    this.#lastInput = this.#shownAt;
    this.#idle = 0;
  }

  /**
   * Take notice of inputs in a window.
   * @param {Window} window
   */
  watch(window) {
    for (const name of INPUTS) {
      window.addEventListener(name, () => this.#input(), { capture: true, passive: true });
    }
  }

  /** Milliseconds shown and idle up to now. */
  read() {
    this.#input();
    return { shown_ms: this.#lastInput - this.#shownAt, idle_ms: this.#idle };
  }

  #input() {
    const now = performance.now();
    const gap = now - this.#lastInput;
    if (gap > IDLE_AFTER_MS) this.#idle += gap;
    this.#lastInput = now;
  }
}
