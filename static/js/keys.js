/**
 * @file Finds what a key means in the server's key table, and listens in every window of the page
 * before Neuroglancer does.
 */

/** @typedef {import("./types.js").KeyBinding} KeyBinding */
/** @typedef {import("./types.js").Chord} Chord */

const TEXT_FIELDS =
  "input:not([type=checkbox], [type=radio], [type=range], [type=button]), textarea, select, " +
  "[contenteditable]:not([contenteditable=false])";

/**
 * Whether the person is typing text.
 * @param {Element|EventTarget|null|undefined} element
 */
export function isTextField(element) {
  const found = /** @type {Element|null|undefined} */ (element);
  return Boolean(found?.closest?.(TEXT_FIELDS));
}

/**
 * The binding that a key event means, or null. Letters go by the character that is typed; where the
 * layout types none of ours (Cyrillic, Greek, Arabic …), by the place on the keyboard.
 * @param {KeyboardEvent} event
 * @param {KeyBinding[]} bindings
 */
export function bindingFor(event, bindings) {
  // 229: the key belongs to an input method that is composing a character
  if (event.isComposing || event.keyCode === 229) return null;
  if (event.altKey || event.getModifierState?.("AltGraph")) return null;
  return bindings.find((b) => b.chords.some((chord) => isChord(event, chord))) ?? null;
}

/**
 * @param {KeyboardEvent} event
 * @param {Chord} chord
 */
function isChord(event, chord) {
  if ((event.ctrlKey || event.metaKey) !== chord.ctrl) return false;
  if (chord.shift !== null && event.shiftKey !== chord.shift) return false;
  const isOneCharacter = [...event.key].length === 1;
  if (isOneCharacter && event.key > "\x7f") {
    // where a US keyboard has ? and / on one key, Shift tells them apart
    const isUpper = chord.shift ?? chord.key === "?";
    return event.code === chord.code && event.shiftKey === isUpper;
  }
  return event.key.toLowerCase() === chord.key;
}

/**
 * Listen in a window, ahead of everything else in it. To be called again when its document is new.
 * @param {Window} window
 * @param {() => KeyBinding[]} bindings
 * @param {(binding: KeyBinding, event: KeyboardEvent, window: Window) => void} act
 */
export function listen(window, bindings, act) {
  window.addEventListener(
    "keydown",
    (event) => {
      if (isTextField(event.composedPath()[0])) return;
      const binding = bindingFor(event, bindings());
      if (binding === null) return;
      event.preventDefault();
      event.stopImmediatePropagation();
      if (!event.repeat || binding.repeats) act(binding, event, window);
    },
    { capture: true },
  );
}

/**
 * Take what is pasted outside a text field. To be called again when a window's document is new.
 * @param {Window} window
 * @param {(text: string) => void} act
 */
export function listenToPaste(window, act) {
  window.addEventListener(
    "paste",
    (event) => {
      if (isTextField(event.composedPath()[0])) return;
      event.preventDefault();
      event.stopImmediatePropagation();
      act(event.clipboardData?.getData("text/plain") ?? "");
    },
    { capture: true },
  );
}

/**
 * Keep the keyboard in a text field of the page while the mouse crosses the viewer, which would
 * otherwise take the focus on entering a panel and run the next letters as its own keys.
 * @param {Window} inner the viewer's window
 */
export function keepFocus(inner) {
  inner.addEventListener(
    "mouseenter",
    (event) => {
      if (isTextField(document.activeElement)) event.stopImmediatePropagation();
    },
    { capture: true },
  );
}
