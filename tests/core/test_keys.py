from __future__ import annotations

from dataclasses import replace

import pytest

from cb2_assist.core.errors import UsageError
from cb2_assist.core.keys import (
    DEFAULT_KEYS,
    NEUROGLANCER_KEYS,
    PRESETS,
    Chord,
    KeyBinding,
    check_keys,
    keys_named,
)
from cb2_assist.core.reasons import REASONS, reason_offer

AGREED = {
    "propose": {"p"},
    "accept": {"f"},
    "reject": {"d"},
    "unsure": {"g"},
    "none": {"0"},
    "next": {"j"},
    "previous": {"k"},
    "queue": {"q"},
    "flag": {"w"},
    "undo": {"u", "Ctrl+Z"},
    "redo": {"Ctrl+Shift+Z"},
    "preview": {"t"},
    "apply": {"y"},
    "goto": {"/"},
    "share_own": {";"},
    "share_neuroglancer": {"="},
    "help": {"?"},
    "reason": {"1", "2", "3", "4"},
    "layer": {"5", "6"},
    "harmless": {"x"},
}


def test_the_default_keys_are_the_agreed_ones() -> None:
    found: dict[str, set[str]] = {}
    for b in DEFAULT_KEYS:
        found.setdefault(b.action, set()).update(c.label for c in b.chords)
    assert found == AGREED


def test_each_reason_has_the_digit_that_its_table_says() -> None:
    bound = {b.argument: b.chords[0].key for b in DEFAULT_KEYS if b.action == "reason"}
    assert bound == {
        "mitochondrion": "1",
        "other_neuron": "2",
        "artefact": "3",
        "cannot_see": "4",
    }
    assert bound == {r.name: r.key for r in REASONS}
    assert "1 mitochondrion, 2 other neuron, 3 artefact, 4 cannot see" in reason_offer()


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_no_preset_conflicts(name: str) -> None:
    assert keys_named(name)


def test_verdicts_never_repeat() -> None:
    repeats = {b.action for b in DEFAULT_KEYS if b.repeats}
    assert repeats == {"next", "previous"}


def test_only_x_redo_and_digits_take_a_key_from_the_viewer() -> None:
    taken = {
        b.action
        for b in DEFAULT_KEYS
        for c in b.chords
        if NEUROGLANCER_KEYS & set(c.neuroglancer_names)
    }
    assert taken == {"harmless", "redo", "reason", "layer"}


@pytest.mark.parametrize("letter", sorted("abehlnorsvxz"))
def test_a_key_of_the_viewer_is_refused(letter: str) -> None:
    mine = KeyBinding("mine", (Chord(letter, f"Key{letter.upper()}"),), "mine")
    with pytest.raises(UsageError, match="used by the viewer"):
        check_keys([mine])
    check_keys([replace(mine, shadows=True)])


def test_shift_and_a_letter_is_a_tool_of_the_viewer() -> None:
    with pytest.raises(UsageError, match=r"Shift\+P.*used by the viewer"):
        check_keys([KeyBinding("mine", (Chord("p", "KeyP", shift=True),), "mine")])


def test_one_key_for_two_actions_is_refused() -> None:
    extra = KeyBinding("mine", (Chord("p", "KeyP"),), "mine")
    with pytest.raises(UsageError, match="'propose' and 'mine'"):
        check_keys([*DEFAULT_KEYS, extra])


def test_one_action_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="'accept' twice"):
        check_keys([*DEFAULT_KEYS, KeyBinding("accept", (Chord("y", "KeyY"),), "again")])


def test_the_table_reads_as_json() -> None:
    row = next(b for b in DEFAULT_KEYS if b.action == "redo").to_json()
    assert row["chords"] == [
        {"key": "z", "code": "KeyZ", "ctrl": True, "shift": True, "label": "Ctrl+Shift+Z"}
    ]
