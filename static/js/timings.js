/** @file Times from keydown to acknowledgement and paint, for tests and benchmarks to read. */

/** @typedef {import("./types.js").KeyTiming} KeyTiming */

const KEPT = 1_000;

/** Keeps the last thousand key presses and proposals. */
export class Timings {
  /** @type {KeyTiming[]} */
  keys = [];
  /** @type {{type: string, asked: number, answered: number, painted: number|null}[]} */
  proposals = [];
  /** @type {{type: string, ms: number}[]} from asking to the server's answer */
  answers = [];
  /** @type {Record<string, number>} */
  marks = {};

  /**
   * A key was handled and its effect is in the document.
   * @param {string} action
   * @param {KeyboardEvent} event
   * @param {Window} window that the event came from
   * @param {number} started when our handler began
   */
  key(action, event, window, started) {
    // each window counts from its own origin
    const shift = /** @type {any} */ (window).performance.timeOrigin - performance.timeOrigin;
    const acknowledged = performance.now();
    /** @type {KeyTiming} */
    const timing = {
      action,
      keydown: event.timeStamp + shift,
      handlerMs: acknowledged - started,
      acknowledged,
      painted: null,
    };
    push(this.keys, timing);
    afterPaint((now) => (timing.painted = now));
  }

  /**
   * The answer to a proposal is in the document.
   * @param {string} type propose or queue
   * @param {number} asked
   */
  proposal(type, asked) {
    const timing = { type, asked, answered: performance.now(), painted: /** @type {any} */ (null) };
    push(this.proposals, timing);
    afterPaint((now) => (timing.painted = now));
  }

  /**
   * The server answered; a verdict is durable by then.
   * @param {string} type
   * @param {number} asked
   */
  answer(type, asked) {
    push(this.answers, { type, ms: performance.now() - asked });
  }

  /**
   * Something happened for the first time.
   * @param {string} name
   */
  mark(name) {
    this.marks[name] ??= performance.now();
  }
}

/**
 * @template T
 * @param {T[]} list
 * @param {T} item
 */
function push(list, item) {
  list.push(item);
  if (list.length > KEPT) list.shift();
}

/** @param {(now: number) => void} call */
function afterPaint(call) {
  requestAnimationFrame(() => setTimeout(() => call(performance.now())));
}
