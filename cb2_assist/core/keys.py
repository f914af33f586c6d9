"""The one table of keys: which key does what, in which words, and whether holding it repeats.

The page fetches it as JSON, builds its help from it and matches key events against it; the server
checks it against the keys that Neuroglancer uses before it starts.

A letter is matched by the character it types (``KeyboardEvent.key``), so that `z` is `z` on a
German keyboard too. Where the layout types no Latin letters, the place on the keyboard
(``KeyboardEvent.code``) is matched instead.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cb2_assist.core.errors import UsageError
from cb2_assist.core.reasons import REASONS


@dataclass(frozen=True, slots=True)
class Chord:
    """One key with its modifiers."""

    key: str
    """``KeyboardEvent.key`` in lower case."""
    code: str
    """``KeyboardEvent.code`` of the key on a US keyboard, for layouts without Latin letters."""
    ctrl: bool = False
    """Control, or Command on a Mac."""
    shift: bool | None = False
    """None: with or without, because layouts put the character in different places."""

    @property
    def label(self) -> str:
        """As written on the page, e.g. ``Ctrl+Shift+Z``."""
        parts = [*(["Ctrl"] if self.ctrl else []), *(["Shift"] if self.shift else [])]
        return "+".join([*parts, self.key.upper() if parts else self.key])

    @property
    def pressed(self) -> tuple[tuple[str, bool, bool], ...]:
        """The character with Control and Shift, as the page tells keys apart."""
        shifts = (False, True) if self.shift is None else (self.shift,)
        return tuple((self.key, self.ctrl, shift) for shift in shifts)

    @property
    def neuroglancer_names(self) -> tuple[str, ...]:
        """The same key as Neuroglancer's binding maps write it: ``control+shift+keyz``."""
        head = "control+" if self.ctrl else ""
        plain, shifted = head + self.code.lower(), f"{head}shift+{self.code.lower()}"
        if self.shift is None:
            return (plain, shifted)
        return (shifted,) if self.shift else (plain,)

    def to_json(self) -> dict[str, Any]:
        """As the page reads it."""
        return {
            "key": self.key,
            "code": self.code,
            "ctrl": self.ctrl,
            "shift": self.shift,
            "label": self.label,
        }


@dataclass(frozen=True, slots=True)
class KeyBinding:
    """What one or more keys do."""

    action: str
    chords: tuple[Chord, ...]
    words: str
    """For the help panel."""
    repeats: bool = False
    """Whether a key that is held down acts again and again. Verdicts never do."""
    shadows: bool = False
    """Takes a key from Neuroglancer on purpose."""
    argument: str = ""
    """Tells bindings of one action apart, e.g. which reason a digit gives."""

    def to_json(self) -> dict[str, Any]:
        """As the page reads it."""
        return {
            "action": self.action,
            "chords": [c.to_json() for c in self.chords],
            "words": self.words,
            "repeats": self.repeats,
            "argument": self.argument,
        }


def _letter(letter: str, *, ctrl: bool = False, shift: bool = False) -> Chord:
    return Chord(letter, f"Key{letter.upper()}", ctrl, shift)


DEFAULT_KEYS: tuple[KeyBinding, ...] = (
    KeyBinding("propose", (_letter("p"),), "propose at the cursor"),
    KeyBinding("accept", (_letter("f"),), "accept: yes, make this edit"),
    KeyBinding("reject", (_letter("d"),), "reject: no, leave it as it is"),
    KeyBinding("unsure", (_letter("g"),), "unsure: cannot tell"),
    KeyBinding(
        "none",
        (Chord("0", "Digit0", shift=None),),
        "none of these: reject every open join at this end",
    ),
    KeyBinding("next", (_letter("j"),), "next suggestion", repeats=True),
    KeyBinding("previous", (_letter("k"),), "previous suggestion", repeats=True),
    KeyBinding("queue", (_letter("q"),), "next site of the queue; skips this one if undecided"),
    KeyBinding("flag", (_letter("w"),), "flag with a note: set it aside"),
    KeyBinding("undo", (_letter("u"), _letter("z", ctrl=True)), "undo the last verdict"),
    # the viewer would start a tool bound to Z with it, which nobody does
    KeyBinding(
        "redo", (_letter("z", ctrl=True, shift=True),), "redo what was undone", shadows=True
    ),
    KeyBinding("preview", (_letter("t"),), "preview the edit on or off"),
    KeyBinding("apply", (_letter("y"),), "apply staged edits, one by one"),
    KeyBinding("goto", (Chord("/", "Slash", shift=None),), "go to coordinates, a segment, a link"),
    KeyBinding("share_own", (Chord(";", "Semicolon", shift=None),), "copy a link to this site"),
    KeyBinding(
        "share_neuroglancer", (Chord("=", "Equal", shift=None),), "copy it for Neuroglancer"
    ),
    KeyBinding("help", (Chord("?", "Slash", shift=None),), "show or hide this help"),
    # the viewer switches its layers on and off with digits. These four are ours all the time, not
    # only while a reason can be given: else one and the same key would hide a layer now and be
    # stored on a label a moment later. The two layers that one wants to switch get 5 and 6.
    *(
        KeyBinding(
            "reason",
            (Chord(reason.key, f"Digit{reason.key}", shift=None),),
            f"why not: {reason.words}",
            shadows=True,
            argument=reason.name,
        )
        for reason in REASONS
    ),
    *(
        KeyBinding(
            "layer",
            (Chord(digit, f"Digit{digit}", shift=None),),
            f"{words} on or off",
            shadows=True,
            argument=name,
        )
        for digit, name, words in (("5", "em", "EM"), ("6", "segments", "segments"))
    ),
    KeyBinding(
        "harmless", (_letter("x"),), "nothing: it cannot clear the segments here", shadows=True
    ),
)

PRESETS: dict[str, tuple[KeyBinding, ...]] = {"default": DEFAULT_KEYS}
"""Tables by the name that ``--keys`` takes."""

NEUROGLANCER_KEYS: frozenset[str] = frozenset(
    [
        *(f"key{c}" for c in "abhlnosvx"),
        *(f"key{c}" for c in "erz"),
        *(
            f"{m}shift+key{c}"
            for m in ("", "control+", "alt+", "control+alt+")
            for c in "abcdefghijklmnopqrstuvwxyz"
        ),
        *(f"{m}digit{n}" for m in ("", "control+", "alt+") for n in range(1, 10)),
        *(f"arrow{d}" for d in ("left", "right", "up", "down")),
        *(f"shift+arrow{d}" for d in ("left", "right", "up", "down")),
        *("space", "shift+space", "backslash", "enter", "backspace", "comma", "period"),
        *("bracketleft", "bracketright"),
        *(f"{m}{k}" for m in ("control+", "alt+") for k in ("equal", "shift+equal", "minus")),
    ]
)
"""Keys that Neuroglancer 2.41.2 binds itself, by its own names (dumped from the running client;
a browser test compares). Shift and a letter, with or
without Control and Alt, starts a tool that the user bound."""


def check_keys(bindings: Iterable[KeyBinding]) -> None:
    """See that no key does two things and that none is Neuroglancer's.

    Raises:
        UsageError: An action or a key occurs twice, or a key is taken by the viewer.
    """
    owner: dict[tuple[str, bool, bool], str] = {}
    actions: set[tuple[str, str]] = set()
    for binding in bindings:
        action = (binding.action, binding.argument)
        if action in actions:
            raise UsageError(f"The key table lists the action {binding.action!r} twice.")
        actions.add(action)
        for chord in binding.chords:
            for pressed in chord.pressed:
                if pressed in owner:
                    raise UsageError(
                        f"The key {chord.label} is bound to both {owner[pressed]!r} and "
                        f"{binding.action!r}. Give one of them another key."
                    )
                owner[pressed] = binding.action
            for name in chord.neuroglancer_names:
                if name in NEUROGLANCER_KEYS and not binding.shadows:
                    raise UsageError(
                        f"The key {chord.label} for {binding.action!r} is used by the viewer "
                        f"({name}). Free letters: c d f g i j k m p q t u w y."
                    )


def keys_named(preset: str) -> tuple[KeyBinding, ...]:
    """The checked table of a preset.

    Raises:
        UsageError: There is no such preset, or it conflicts.
    """
    try:
        bindings = PRESETS[preset]
    except KeyError:
        raise UsageError(
            f"There is no key preset {preset!r}. Known: {', '.join(sorted(PRESETS))}."
        ) from None
    check_keys(bindings)
    return bindings
