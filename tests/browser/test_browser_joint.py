"""Joins that are one question: `0`, and what an accept closes, with real keys and a real store."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser_harness import Tab
from page_fakes import ENDING

from cb2_assist.core.records import Verdict
from cb2_assist.labels.store import LabelState, labels_url, open_store

pytestmark = pytest.mark.browser


def in_force(folder: Path) -> dict[str, Verdict]:
    with open_store(labels_url(folder / "labels.sqlite"), read_only=True) as store:
        return {x.site: x.verdict for x in store.labels() if x.state is LabelState.IN_FORCE}


def events(folder: Path) -> list[str]:
    with open_store(labels_url(folder / "labels.sqlite"), read_only=True) as store:
        return [e.decision.verdict.value if e.decision else e.event for e in store.events()]


@pytest.fixture
def at_an_end(tab: Tab) -> Tab:
    """The list of the segment whose three joins are one question, and one cut."""
    tab.page.evaluate("cb2.page.viewer.client.position.value = Float32Array.of(48, 48, 80)")
    tab.wait_for_viewer()
    assert tab.point_at()["segment"] == str(ENDING)
    tab.propose()
    return tab


def members(tab: Tab) -> list[str]:
    (one,) = (s for s in tab.snapshot["list"]["joint_sets"] if s["joint"])
    return one["members"]


def closed(tab: Tab) -> set[str]:
    rows = tab.page.locator('[role=option][data-implied="true"]')
    return {r.get_attribute("data-id") for r in rows.all()}


def test_0_rejects_what_is_open_at_the_end_in_one_event(at_an_end: Tab, tmp_path: Path) -> None:
    tab, mine = at_an_end, members(at_an_end)
    cut = next(s["id"] for s in tab.snapshot["list"]["suggestions"] if s["kind"] == "cut")
    assert tab.selected_id == mine[0]
    tab.press("0")
    assert tab.verdicts == dict.fromkeys(mine, "reject"), "shown before the server answers"
    tab.settle()
    assert tab.verdicts == dict.fromkeys(mine, "reject")
    assert tab.status.startswith("None of these: 3 joins at this end rejected. Why?")
    assert tab.selected_id == cut
    assert events(tmp_path) == ["none"]
    assert in_force(tmp_path) == dict.fromkeys(mine, Verdict.REJECT)

    tab.press("0")
    assert "a cut is selected" in tab.status
    tab.press("u")
    tab.settle()
    assert tab.verdicts == {}
    assert in_force(tmp_path) == {}
    tab.press("Control+Shift+Z")
    tab.settle()
    assert in_force(tmp_path) == dict.fromkeys(mine, Verdict.REJECT)
    assert events(tmp_path) == ["none", "undo", "redo"]


def test_an_accept_closes_its_rivals_and_undo_opens_them(at_an_end: Tab, tmp_path: Path) -> None:
    tab, mine = at_an_end, members(at_an_end)
    cut = next(s["id"] for s in tab.snapshot["list"]["suggestions"] if s["kind"] == "cut")
    first, *rivals = mine
    tab.press("f")
    assert closed(tab) == set(rivals), "shown before the server answers"
    tab.settle()
    assert closed(tab) == set(rivals)
    assert "closed: another was accepted" in tab.page.locator(f"#option-{rivals[0]}").inner_text()
    assert tab.selected_id == cut, "closed rows are passed over"
    assert in_force(tmp_path) == {first: Verdict.ACCEPT}

    tab.reload()
    assert closed(tab) == set(rivals)
    tab.press("u")
    tab.settle()
    assert closed(tab) == set()
    assert in_force(tmp_path) == {}

    tab.press("f")
    tab.settle()
    tab.page.locator(f"#option-{rivals[0]}").click()
    assert tab.decide("d") == rivals[0], "a closed row can still be answered"
    assert tab.verdicts == {first: "accept", rivals[0]: "reject"}
    assert closed(tab) == {rivals[1]}
    assert in_force(tmp_path) == {first: Verdict.ACCEPT, rivals[0]: Verdict.REJECT}
    tab.page.locator(f"#option-{rivals[1]}").click()
    tab.settle()
    tab.press("0")
    assert "No join is open here" in tab.status
    assert events(tmp_path) == ["accept", "undo", "accept", "reject"]


def test_rows_of_one_end_are_marked_together(at_an_end: Tab) -> None:
    tab, mine = at_an_end, members(at_an_end)
    marked = tab.page.locator('[role=option][data-mate="true"]')
    assert [r.get_attribute("data-id") for r in marked.all()] == mine
    selected = tab.page.locator('[role=option][aria-selected="true"]')
    assert "end A" in selected.inner_text()
    # one of the three confidences is not shown, so neither is what is made of them
    assert selected.locator(".none").inner_text() == "0: none of 3 at end A"
    assert "0: none of" not in tab.page.locator(f"#option-{mine[1]}").inner_text()
    tab.press("?")
    assert "none of these" in tab.page.get_by_role("region", name="Keys").inner_text()
