"""Two tabs of one browser: one has the viewer, the other asks, and nothing is lost."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser_harness import ServerProcess, Tab
from page_fakes import BASE

from cb2_assist.core.records import Decision
from cb2_assist.labels.store import labels_url, open_store

pytestmark = pytest.mark.browser

OPEN_ELSEWHERE = "This session is open in another tab. Take over here?"
TAKEN = "Taken over by another tab."


@pytest.fixture
def first(listed: Tab) -> Iterator[Tab]:
    """The tab that has the session, and has it again in the end."""
    yield listed
    if not listed.page.evaluate("cb2.page.api.holds"):
        listed.press("Enter")
        listed.wait_for_viewer()


@pytest.fixture
def second(first: Tab, shared_server: ServerProcess) -> Iterator[Tab]:
    made = Tab.beside(first, shared_server.url)
    yield made
    made.page.close()
    assert made.faults == []


@pytest.fixture
def decided(shared_server: ServerProcess):
    """The decisions that were recorded since the test began: suggestion and verdict."""
    labels = Path(shared_server.command[-1])

    def read() -> list[Decision]:
        with open_store(labels_url(labels), read_only=True) as store:
            return [e.decision for e in store.events() if e.decision]

    before = len(read())
    return lambda: [(d.suggestion.id, d.verdict.value) for d in read()[before:]]


def asks(tab: Tab) -> str:
    """What the tab asks when it has not the session; waits for it."""
    dialog = tab.page.get_by_role("alertdialog")
    dialog.wait_for()
    return dialog.locator("p").inner_text()


def has_viewer(tab: Tab) -> bool:
    return tab.page.evaluate("() => document.querySelector('#viewer').hasAttribute('src')")


def test_the_second_tab_asks_and_has_no_viewer_also_after_reloads(first: Tab, second: Tab) -> None:
    assert asks(second) == OPEN_ELSEWHERE
    assert not has_viewer(second)
    assert second.rows.count() == first.rows.count(), "it may look"
    first.reload()
    second.page.reload()
    assert asks(second) == OPEN_ELSEWHERE
    assert has_viewer(first)
    assert not first.page.get_by_role("alertdialog").is_visible()


def test_enter_takes_over_and_the_first_tabs_keys_do_nothing(
    first: Tab, second: Tab, decided
) -> None:
    before = first.decide("f")
    second.press("Enter")
    second.wait_for_viewer()
    assert asks(first) == TAKEN
    assert not has_viewer(first)
    for key in "fdgjup":
        first.press(key)
        assert first.status.startswith("Nothing was done: this session is open in another tab.")
    first.settle()
    after = second.decide("d")
    assert decided() == [(before, "accept"), (after, "reject")]
    first.press("Enter")
    first.wait_for_viewer()
    assert asks(second) == TAKEN
    assert first.verdicts == {before: "accept", after: "reject"}
    assert first.viewer_state()["segments"]


def test_enter_in_the_field_for_places_or_on_a_button_takes_nothing_over(
    first: Tab, second: Tab
) -> None:
    asks(second)
    second.page.get_by_label("Go to coordinates, a segment or a link").fill("160, 160, 160")
    second.press("Enter")
    assert second.status.startswith("Nothing was done: this session is open in another tab.")
    second.page.get_by_label("Copy a link to this site").focus()
    second.press("Enter")
    second.settle()
    assert asks(second) == OPEN_ELSEWHERE
    assert first.page.evaluate("cb2.page.api.holds")


def test_a_verdict_typed_just_before_a_take_over_is_recorded_once(
    first: Tab, second: Tab, decided
) -> None:
    """The verdict leaves the first tab only after the second one has the session."""
    first.page.evaluate(
        """() => {
          const socket = WebSocket.prototype, send = socket.send;
          window.letGo = () => { socket.send = send; window.late.forEach((f) => f()); };
          window.late = [];
          socket.send = function (text) { window.late.push(() => send.call(this, text)); };
        }"""
    )
    chosen = first.selected_id
    first.press("f")
    second.press("Enter")
    assert asks(first) == TAKEN
    first.page.evaluate("() => window.letGo()")
    first.settle()
    assert decided() == [(chosen, "accept")]
    second.until("(id) => cb2.page.view.verdicts[id] === 'accept'", chosen)


def test_our_link_in_a_second_tab_goes_there_once_it_has_taken_over(
    first: Tab, shared_server: ServerProcess
) -> None:
    corner = str(BASE)
    address = f"{shared_server.url.partition('?')[0]}#at=160,160,160&segment={corner}"
    second = Tab.beside(first, address)
    assert asks(second) == OPEN_ELSEWHERE
    assert second.snapshot["list"]["segment"] != corner
    second.page.get_by_role("button", name="Take over here").click()
    second.until("(s) => cb2.page.view.list?.segment === s", corner)
    second.page.close()


def test_verdicts_typed_without_a_server_count_and_the_holder_stays_the_holder(
    first: Tab, second: Tab, shared_server: ServerProcess, decided
) -> None:
    first.expect_restart()
    shared_server.stop(signal.SIGKILL)
    first.page.get_by_role("alert").wait_for()
    one = first.selected_id
    first.press("f")
    two = first.selected_id
    first.press("d")
    shared_server.start()
    first.wait_for_restart()
    second.until("() => cb2.page.api.isUp")
    assert asks(second) == OPEN_ELSEWHERE
    assert first.page.evaluate("cb2.page.api.holds")
    assert decided() == [(one, "accept"), (two, "reject")]


def test_undo_and_redo_pressed_without_a_server_are_about_the_verdicts_before_them(
    first: Tab, shared_server: ServerProcess, decided
) -> None:
    zero = first.decide("f")
    first.expect_restart()
    shared_server.stop(signal.SIGKILL)
    first.page.get_by_role("alert").wait_for()
    one = first.selected_id
    for key in ("f", "u", "u", "Control+Shift+Z"):
        first.press(key)
    two = first.selected_id
    first.press("d")
    shared_server.start()
    first.wait_for_restart()
    first.settle()
    assert decided() == [(zero, "accept"), (one, "accept"), (two, "reject")]
    assert first.verdicts == {zero: "accept", two: "reject"}


def test_a_closed_tab_leaves_the_session_to_the_other(first: Tab, second: Tab) -> None:
    asks(second)
    first.page.goto("about:blank")
    second.wait_for_viewer()
    assert not second.page.get_by_role("alertdialog").is_visible()
    assert second.decide("f")
    first.page.go_back()
    first.until("() => window.cb2?.page.view")
    assert asks(first) == OPEN_ELSEWHERE
