"""Going to a typed or pasted place, and copying the place on screen, with real keys."""

from __future__ import annotations

import json
from urllib.parse import unquote

import pytest
from browser_harness import ServerProcess, Tab
from page_fakes import BASE, RESOLUTION

pytestmark = pytest.mark.browser

CENTRE, CORNER = str(BASE + 13), str(BASE)


@pytest.fixture
def clipboard(listed: Tab):
    """The browser's own clipboard, as the person's other programs fill it."""
    listed.page.context.grant_permissions(["clipboard-read", "clipboard-write"])

    def put(text: str) -> None:
        listed.page.evaluate("(text) => navigator.clipboard.writeText(text)", text)

    yield put
    listed.page.context.clear_permissions()


def copied(tab: Tab) -> str:
    return tab.page.evaluate("() => navigator.clipboard.readText()")


def go(tab: Tab, text: str) -> None:
    tab.press("/")
    tab.page.keyboard.type(text)
    tab.press("Enter")
    tab.settle()


def arrive(tab: Tab, at_voxel: list[float]) -> None:
    tab.until(
        "(t) => [...cb2.page.viewer.client.position.value]"
        ".every((v, i) => Math.abs(v - t[i]) < 0.01)",
        at_voxel,
    )


def list_of(tab: Tab, segment: str) -> None:
    tab.until("(s) => cb2.page.view.list?.segment === s && !cb2.page.view.busy_with", segment)
    tab.settle()


def test_typed_coordinates_move_the_camera(listed: Tab) -> None:
    before = listed.snapshot["list"]
    for text, at in (
        ("80, 20, 30", [80.5, 20.5, 30.5]),
        ("700 200 300 nm", [70, 20, 30]),
        ("x (10nm) 60 y (10nm) 20 z (10nm) 30", [60.5, 20.5, 30.5]),
    ):
        go(listed, text)
        arrive(listed, at)
        assert listed.status.startswith("Taken as ")
    assert listed.snapshot["list"] == before
    assert listed.page.evaluate("document.activeElement.id") != "go"
    listed.press("d")
    listed.settle()
    assert "reject" in listed.verdicts.values(), "the keys are the page's again"


def test_letters_typed_into_the_field_do_nothing_else(listed: Tab) -> None:
    listed.press("/")
    listed.page.keyboard.type("fdxgu?/;=")
    assert listed.page.input_value("#go") == "fdxgu?/;="
    listed.press("Enter")
    listed.settle()
    assert listed.verdicts == {}
    assert "not understood" in listed.status or "no place" in listed.status
    assert listed.page.input_value("#go") == "fdxgu?/;=", "it can be mended"
    assert listed.page.get_attribute("#go", "aria-invalid") == "true"
    listed.press("Escape")
    assert listed.page.input_value("#go") == ""
    assert listed.page.evaluate("document.activeElement.id") != "go"


def test_a_clipboard_full_of_anything_is_refused(listed: Tab, clipboard) -> None:
    for text, words in (("\x01" * 400_000, "too long"), ("x " * 300_000, "characters long")):
        clipboard(text)
        listed.press("Control+v")
        listed.settle()
        assert words in listed.status
        listed.press("Escape")


def test_a_unit_that_is_missing_is_told_and_can_be_added(listed: Tab) -> None:
    go(listed, "480, 480, 200")
    assert "As nm it lies inside: write `480, 480, 200 nm`" in listed.status
    listed.press("End")
    listed.page.keyboard.type(" nm")
    listed.press("Enter")
    arrive(listed, [48, 48, 20])


def test_a_typed_segment_is_flown_to_and_looked_at(listed: Tab) -> None:
    go(listed, CORNER)
    list_of(listed, CORNER)
    assert listed.status == f"Taken as segment {CORNER}. 4 suggestions for …{CORNER[-6:]}."
    chosen = next(
        s for s in listed.snapshot["list"]["suggestions"] if s["id"] == listed.selected_id
    )
    arrive(listed, [v / r for v, r in zip(chosen["point_nm"], RESOLUTION, strict=True)])
    assert CORNER in listed.viewer_state()["segments"]


def test_a_pasted_place_is_gone_to_wherever_the_focus_is(listed: Tab, clipboard) -> None:
    clipboard("20\t30\t40")
    listed.press("Control+v")
    arrive(listed, [20.5, 30.5, 40.5])
    left, top, width, height = listed.panel()
    listed.page.mouse.click(left + width / 2, top + height / 2)
    assert listed.page.evaluate("document.activeElement.id") == "viewer"
    clipboard("[60, 50, 40]")
    listed.press("Control+v")
    arrive(listed, [60.5, 50.5, 40.5])


def test_a_copied_link_pasted_again_gives_the_same_site(listed: Tab, clipboard) -> None:
    listed.press("j")
    listed.press("j")
    listed.settle()
    shown, chosen = listed.snapshot["list"], listed.selected_id
    for key in (";", "="):
        clipboard("")
        listed.press(key)
        listed.until("() => navigator.clipboard.readText()")
        listed.until("() => document.querySelector('[role=status]').textContent.includes('copied')")
        link = copied(listed)
        go(listed, CORNER)
        list_of(listed, CORNER)
        clipboard(link)
        listed.press("Control+v")
        list_of(listed, CENTRE)
        assert listed.selected_id == chosen
        assert [s["id"] for s in listed.snapshot["list"]["suggestions"]] == [
            s["id"] for s in shown["suggestions"]
        ]


def test_buttons_copy_too_and_no_link_carries_the_token(
    listed: Tab, clipboard, shared_server: ServerProcess
) -> None:
    token = shared_server.url.partition("token=")[2]
    assert len(token) == 40
    for name, begins in (
        ("Copy a link to this site", shared_server.url.partition("?")[0] + "#at="),
        ("Copy this site as a Neuroglancer link", "https://neuroglancer-demo.appspot.com/#!"),
    ):
        clipboard("")
        listed.page.get_by_role("button", name=name).click()
        listed.until("() => navigator.clipboard.readText()")
        assert copied(listed).startswith(begins)
        assert token not in copied(listed)


def test_without_the_clipboard_the_link_is_there_to_be_copied_by_hand(listed: Tab) -> None:
    listed.page.evaluate(
        "() => (navigator.clipboard.writeText = () => Promise.reject(new Error('no')))"
    )
    listed.press(";")
    listed.until("() => document.querySelector('#go').value.includes('#at=')")
    assert "press Ctrl+C now" in listed.status
    selected = listed.page.evaluate(
        "() => { const f = document.querySelector('#go'); "
        "return f.value.slice(f.selectionStart, f.selectionEnd); }"
    )
    assert selected == listed.page.input_value("#go")
    listed.press("Escape")
    listed.page.evaluate("() => delete navigator.clipboard.writeText")


def test_our_link_opens_the_site_in_a_browser_that_was_let_in(
    browser, listed: Tab, clipboard, shared_server: ServerProcess
) -> None:
    clipboard("")
    listed.press("j")
    listed.settle()
    chosen = listed.selected_id
    listed.press(";")
    listed.until("() => navigator.clipboard.readText()")
    link = copied(listed)
    stranger = browser.new_context().new_page()
    stranger.goto(link)
    assert "Open the address that cb2-assist printed" in stranger.inner_text("body")
    stranger.context.close()
    go(listed, CORNER)
    list_of(listed, CORNER)
    listed.page.goto("about:blank")
    listed.go(link)
    list_of(listed, CENTRE)
    assert listed.selected_id == chosen
    assert listed.page.url == shared_server.url.partition("?")[0], "a reload does not go again"


def test_neuroglancers_own_client_shows_the_copied_state(listed: Tab, clipboard) -> None:
    """The last test of this module: it leaves another state in the viewer."""
    clipboard("")
    listed.press("=")
    listed.until("() => navigator.clipboard.readText()")
    state = json.loads(unquote(copied(listed).partition("#!")[2]))
    shown = listed.page.evaluate(
        """(state) => {
          const {state: whole} = cb2.page.viewer.client;
          whole.reset();
          whole.restoreState(state);
          return whole.toJSON();
        }""",
        state,
    )
    assert shown["position"] == state["position"]
    assert shown["layout"] == "xy-3d"
    layers = {layer["name"]: layer for layer in shown["layers"]}
    assert set(layers["segments"]["segments"]) == set(state["layers"][1]["segments"])
    assert layers["segments"]["segmentColors"] == state["layers"][1]["segmentColors"]
    marks = [a["id"] for a in layers["cb2-assist"]["annotations"]]
    assert marks == ["asked", listed.selected_id]
