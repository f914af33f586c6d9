"""Keys work wherever the focus is, on any layout, and leave text and the viewer alone."""

from __future__ import annotations

import pytest
from browser_harness import Tab

from cb2_assist.core.keys import NEUROGLANCER_KEYS

pytestmark = pytest.mark.browser

CTRL, SHIFT, ALT = 2, 8, 1


def _type(tab: Tab, key: str, code: str, *, modifiers: int = 0, virtual: int = 0) -> None:
    """A real key press of a keyboard layout of our choice."""
    session = tab.page.context.new_cdp_session(tab.page)
    text = key if len(key) == 1 and not modifiers & (CTRL | ALT) else ""
    for kind in ("keyDown", "keyUp"):
        fields = {"type": kind, "key": key, "code": code, "modifiers": modifiers}
        if virtual:
            fields["windowsVirtualKeyCode"] = virtual
        if text and kind == "keyDown":
            fields["text"] = text
        session.send("Input.dispatchKeyEvent", fields)
    session.detach()
    tab.settle()


def test_x_clears_nothing_wherever_the_focus_is(listed: Tab) -> None:
    before = listed.viewer_state()["segments"]
    assert len(before) == 2
    listed.press("x")
    assert "does nothing" in listed.status
    left, top, width, height = listed.panel()
    listed.page.mouse.click(left + width / 2, top + height / 2)
    listed.press("x")
    listed.page.get_by_role("listbox").focus()
    listed.press("x")
    assert listed.viewer_state()["segments"] == before


def test_keys_work_from_the_list_and_from_the_viewer(listed: Tab) -> None:
    listed.page.get_by_role("listbox").focus()
    first = listed.decide("d")
    left, top, width, height = listed.panel(1)
    listed.page.mouse.click(left + width / 2, top + height / 2)
    assert listed.page.evaluate("document.activeElement.id") == "viewer"
    second = listed.decide("f")
    assert listed.verdicts == {first: "reject", second: "accept"}


def test_letters_go_by_character_on_qwertz(listed: Tab) -> None:
    """On a German keyboard z lies where y is on a US one."""
    chosen = listed.decide("f")
    _type(listed, "y", "KeyZ", modifiers=CTRL, virtual=89)
    assert listed.verdicts == {chosen: "accept"}, "Ctrl+Y is not ours"
    _type(listed, "z", "KeyY", modifiers=CTRL, virtual=90)
    assert listed.verdicts == {}
    _type(listed, "Z", "KeyY", modifiers=CTRL | SHIFT, virtual=90)
    assert listed.verdicts == {chosen: "accept"}


def test_a_layout_without_latin_letters_goes_by_place(listed: Tab) -> None:
    chosen = listed.selected_id
    _type(listed, "а", "KeyF", virtual=70)
    assert listed.verdicts == {chosen: "accept"}
    _type(listed, "г", "KeyU", virtual=85)
    assert listed.verdicts == {}


def test_letters_of_another_latin_layout_are_not_taken_by_place(listed: Tab) -> None:
    """On Dvorak the key that is f on a US keyboard types u."""
    listed.decide("f")
    _type(listed, "u", "KeyF", virtual=85)
    assert listed.verdicts == {}


def test_the_go_box_and_the_help_open_where_a_layout_has_their_characters(listed: Tab) -> None:
    """On a German keyboard / is Shift+7; on an Arabic one both are on the US key, by place."""
    help_panel = listed.page.get_by_role("region", name="Keys")
    for key, code, modifiers, virtual in (("/", "Digit7", SHIFT, 55), ("ظ", "Slash", 0, 191)):
        _type(listed, key, code, modifiers=modifiers, virtual=virtual)
        assert listed.page.evaluate("document.activeElement.id") == "go"
        listed.press("Escape")
        assert not help_panel.is_visible()
    _type(listed, "؟", "Slash", modifiers=SHIFT, virtual=191)
    assert help_panel.is_visible()
    listed.press("?")
    assert not help_panel.is_visible()


def test_modifiers_that_are_not_in_the_table_make_another_key(listed: Tab) -> None:
    for modifiers in (CTRL, ALT, SHIFT, CTRL | ALT):
        _type(listed, "F" if modifiers & SHIFT else "f", "KeyF", modifiers=modifiers, virtual=70)
    assert listed.verdicts == {}


def test_caps_lock_changes_nothing(listed: Tab) -> None:
    chosen = listed.selected_id
    _type(listed, "F", "KeyF", virtual=70)
    assert listed.verdicts == {chosen: "accept"}


def test_an_input_method_keeps_its_keys(listed: Tab) -> None:
    _type(listed, "Process", "KeyF", virtual=229)
    listed.page.evaluate(
        """() => {
          for (const target of [window, cb2.page.viewer.window]) {
            target.document.body.dispatchEvent(new target.KeyboardEvent("keydown", {
              key: "f", code: "KeyF", bubbles: true, isComposing: true}));
          }
        }"""
    )
    listed.settle()
    assert listed.verdicts == {}


def test_text_stays_in_its_field_while_the_mouse_crosses_the_viewer(listed: Tab) -> None:
    """The viewer takes the focus when the mouse enters a panel; x would then clear its segments."""
    listed.page.evaluate(
        """() => {
          const field = document.createElement("input");
          field.id = "note";
          document.querySelector("aside").append(field);
          field.addEventListener("blur", () => (window.wasBlurred = true));
        }"""
    )
    before = listed.viewer_state()["segments"]
    listed.page.mouse.move(40, 500)
    listed.page.click("#note")
    listed.page.keyboard.type("fd")
    left, top, width, height = listed.panel()
    listed.page.mouse.move(left + width / 2, top + height / 2, steps=12)
    listed.until("() => cb2.page.viewer.client.mouseState.active")
    listed.page.keyboard.type("lxfu")
    assert listed.page.input_value("#note") == "fdlxfu"
    assert listed.page.evaluate("window.wasBlurred") is None
    listed.settle()
    assert listed.verdicts == {}
    assert listed.viewer_state()["segments"] == before


def test_layers_are_switched_with_five_and_six(listed: Tab) -> None:
    """The viewer's own keys for it, 1 and 2, give reasons here."""
    shown = """() => Object.fromEntries(cb2.page.viewer.client.layerManager.managedLayers
      .map((l) => [l.name, l.visible]))"""
    before = listed.page.evaluate(shown)
    assert all(before.values())
    for key, name in (("5", "em"), ("6", "segments")):
        listed.press(key)
        assert listed.status == f"Layer {name} off."
        assert listed.page.evaluate(shown) == {**before, name: False}
        listed.press(key)
        assert listed.status == f"Layer {name} on."
    for key in "1234":
        listed.press(key)
    assert listed.page.evaluate(shown) == before


def test_help_lists_every_key(listed: Tab) -> None:
    panel = listed.page.get_by_role("region", name="Keys")
    assert not panel.is_visible()
    listed.press("?")
    assert panel.is_visible()
    for words in ("propose at the cursor", "Ctrl+Shift+Z", "undo the last verdict"):
        assert words in panel.inner_text()
    listed.press("?")
    assert not panel.is_visible()


def test_without_suggestions_keys_say_what_to_do(tab: Tab) -> None:
    for key in "fdgjkt":
        tab.press(key)
        assert "Point at a segment and press p" in tab.status
    tab.press("u")
    tab.settle()
    assert "no decision" in tab.status


def test_p_outside_and_on_background_says_so(tab: Tab) -> None:
    tab.point_away()
    tab.press("p")
    assert tab.status == "Point at a segment in the viewer, then press p."
    tab.page.evaluate("cb2.page.viewer.client.position.value = Float32Array.of(2, 48, 48)")
    tab.wait_for_viewer()
    left, top, width, height = tab.panel()
    tab.page.mouse.move(left + width / 2, top + height / 2, steps=3)
    tab.until("() => cb2.page.viewer.cursor(cb2.page.view.resolution_nm)?.segment === '0'")
    tab.press("p")
    assert "background" in tab.status
    assert tab.rows.count() == 0


def test_the_table_of_taken_keys_is_the_viewers_own(listed: Tab) -> None:
    """Reads the running client, so that a new version of it cannot take a key unnoticed."""
    taken = listed.page.evaluate(
        """() => {
          const names = new Set();
          const walk = (map) => {
            for (const [name] of map.bindings) names.add(name);
            for (const parent of map.parents) walk(parent);
          };
          const bindings = cb2.page.viewer.client.inputEventBindings;
          for (const part of ["global", "sliceView", "perspectiveView"]) walk(bindings[part]);
          return [...names];
        }"""
    )
    keys = {name.removeprefix("at:").removeprefix("bubble:") for name in taken}
    keys = {
        k
        for k in keys
        if "dblclick" not in k and "mouse" not in k and "wheel" not in k and "touch" not in k
    }
    assert len(keys) > 40, "the client's tables were read"
    assert keys <= NEUROGLANCER_KEYS, f"not in our table: {sorted(keys - NEUROGLANCER_KEYS)}"


def test_the_server_is_asked_nothing_while_a_key_is_held(listed: Tab) -> None:
    listed.page.evaluate(
        """() => {
          window.sent = 0;
          const send = cb2.page.api.send.bind(cb2.page.api);
          cb2.page.api.send = (request) => (window.sent++, send(request));
        }"""
    )
    for key in "fdgut":
        for _ in range(5):
            listed.page.keyboard.down(key)
        listed.page.keyboard.up(key)
    listed.settle()
    assert listed.page.evaluate("window.sent") == 5
