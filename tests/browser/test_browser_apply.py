"""Edits of a graph from the page, with real keys: applied, seen in the viewer, taken back."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser_harness import ServerProcess, Tab
from cave_worlds import CaveWorld, cave_world, own_home

from cb2_assist.core.edits import EditState
from cb2_assist.labels.store import labels_url, open_store
from cb2_assist.learning.export_rows import label_rows

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

WAITING = """(state) => {
  const row = document.querySelector("cb2-edits li");
  return row && row.dataset.state === state;
}"""
ROOT = (
    "(old) => cb2.page.view.list && cb2.page.view.list.segment !== old && !cb2.page.view.busy_with"
)

COMPUTING = "(wanted) => cb2.page.view.edits.waiting[0]?.computing === wanted"
GATED = Path(__file__).with_name("gated_server.py")

Start = Callable[..., tuple[ServerProcess, str]]


@pytest.fixture
def world(tmp_path: Path, neurites_file: Path) -> Iterator[CaveWorld]:
    with own_home(tmp_path), cave_world(tmp_path, neurites_file) as made:
        yield made


@pytest.fixture
def start(tmp_path: Path, world: CaveWorld, tiny_model_folder: Path) -> Iterator[Start]:
    started: list[ServerProcess] = []

    def run(mode: str, *program: str) -> tuple[ServerProcess, str]:
        labels = labels_url(tmp_path / "labels.sqlite")
        program = program or ("-m", "cb2_assist")
        command = [sys.executable, *program, "--dataset-file", str(world.file)]
        options = ["--model", str(tiny_model_folder), "--device", "cpu", "--labels", labels]
        where = ["--at", "485,365,725", "--no-browser", "--user", "ada", "--apply", mode]
        process = ServerProcess([*command, *options, *where], tmp_path / "server.log").start()
        started.append(process)
        return process, labels

    yield run
    for process in started:
        process.stop()


def proposed(tab: Tab, kind: str = "join") -> str:
    """Ask about the dumbbell; its object, with its join to the partner or its cut selected."""
    tab.page.set_default_timeout(180_000)  # the first p waits for the network to be loaded
    tab.point_at()
    tab.propose()
    tab.page.locator(f'[role=option][data-kind="{kind}"]').first.click()
    tab.settle()
    return tab.snapshot["list"]["segment"]


def records(labels: str) -> list:
    with open_store(labels, read_only=True) as store:
        return store.edits.records(dataset="mini")


def rows(labels: str) -> list[dict]:
    with open_store(labels, read_only=True) as store:
        return list(label_rows(store))


def test_an_accepted_join_is_applied_seen_and_undone(browser, world, start) -> None:
    process, labels = start("live")
    tab = Tab.open(browser, process.url)
    before = proposed(tab)
    partner = tab.row(tab.selected_id)["partner"]
    tab.decide("f")
    assert "applied in 3 s" in tab.status
    # one neuron: in the graph, in the store, on the list, in the viewer
    tab.until(ROOT, before)
    tab.wait_for_viewer()
    (record,) = records(labels)
    (merged,) = record.step.new_roots
    assert record.state is EditState.APPLIED
    assert world.cave.deployment.editor.operations[record.step.operation].is_merge
    assert tab.snapshot["list"]["segment"] == str(merged)
    state = tab.viewer_state()
    assert str(merged) in state["segments"]
    assert not {before, partner} & set(state["segments"])
    # and two again
    tab.press("u")
    tab.until(ROOT, str(merged))
    tab.wait_for_viewer()
    undo = world.cave.deployment.editor.operations[max(world.cave.deployment.editor.operations)]
    assert undo.undoes == record.step.operation
    assert {r.state for r in records(labels)} == {EditState.UNDONE, EditState.APPLIED}
    now = tab.snapshot["list"]["segment"]
    assert int(now) in undo.after
    state = tab.viewer_state()
    assert now in state["segments"]
    assert str(merged) not in state["segments"]
    assert tab.verdicts == {}
    tab.page.close()
    assert tab.faults == []


def test_u_within_the_grace_sends_nothing_and_y_applies_what_is_staged(
    browser, world, start
) -> None:
    process, labels = start("live")
    tab = Tab.open(browser, process.url)
    proposed(tab)
    tab.decide("f")
    tab.decide("u")
    assert "was not applied" in tab.status
    assert world.cave.deployment.editor.operations == {}
    tab.page.close()
    process.stop()
    process, labels = start("stage")
    tab = Tab.open(browser, process.url)
    before = proposed(tab)
    tab.decide("f")
    tab.until(WAITING, "staged")
    assert world.cave.deployment.editor.operations == {}
    tab.press("y")
    tab.until(ROOT, before)
    assert [o.is_merge for o in world.cave.deployment.editor.operations.values()] == [True]
    assert records(labels)[-1].state is EditState.APPLIED
    tab.page.close()
    assert tab.faults == []


def test_an_accepted_cut_is_previewed_applied_and_undone(browser, world, start) -> None:
    process, labels = start("stage")
    tab = Tab.open(browser, process.url)
    operations = world.cave.deployment.editor.operations
    before = proposed(tab, "cut")
    tab.until("() => cb2.page.view.sides !== null")
    tab.decide("f")
    tab.until(WAITING, "staged")
    # the first y shows what the server would do, and does nothing
    tab.press("y")
    tab.until("() => cb2.page.view.edits.waiting[0]?.previewed")
    assert "Press y to cut" in tab.status
    tab.until("() => document.querySelector('cb2-edits li .state').textContent.includes('y cuts')")
    assert {p["properties"][0] for p in tab.viewer_state()["sides"]} == {0, 1}
    assert operations == {}
    # the second one cuts: two pieces, both on screen, and not proposed to be joined again
    tab.press("y")
    tab.until(ROOT, before)
    tab.wait_for_viewer()
    (cut,) = operations.values()
    assert not cut.is_merge
    (record,) = records(labels)
    pieces = {str(root) for root in record.step.new_roots}
    assert (record.state, record.step.operation) == (EditState.APPLIED, 1)
    assert len(pieces) == 2
    shown = tab.snapshot["list"]
    assert shown["segment"] in pieces
    assert not [s for s in shown["suggestions"] if s["partner"] in pieces]
    state = tab.viewer_state()
    assert pieces <= set(state["segments"])
    assert before not in state["segments"]
    assert state["sides"] == []
    # the number stands with the answer
    (told,) = rows(labels)
    assert (told["kind"], told["verdict"], told["operation_id"]) == ("cut", "accept", "1")
    # and one again
    tab.press("u")
    tab.until(ROOT, shown["segment"])
    tab.wait_for_viewer()
    assert operations[max(operations)].undoes == 1
    assert {r.state for r in records(labels)} == {EditState.UNDONE, EditState.APPLIED}
    state = tab.viewer_state()
    assert tab.snapshot["list"]["segment"] in state["segments"]
    assert not pieces & set(state["segments"])
    assert tab.verdicts == {}
    tab.page.close()
    assert tab.faults == []


def test_a_cut_that_is_accepted_before_its_sides_are_computed_counts_at_once(
    browser, world, start, tmp_path
) -> None:
    gate = tmp_path / "gate"
    process, labels = start("stage", str(GATED), str(gate))
    tab = Tab.open(browser, process.url)
    before = proposed(tab, "cut")
    cut = tab.decide("f")
    assert "once its two sides are computed" in tab.status
    # and on to the next one, without another key for the cut
    tab.page.locator('[role=option][data-kind="join"]').first.click()
    join = tab.decide("f")
    told = {row["suggestion_id"]: row["verdict"] for row in rows(labels)}
    assert told == {cut: "accept", join: "accept"}
    assert [(r.edit.site, r.needs_sides) for r in records(labels)] == [(cut, True), (join, False)]
    tab.until(COMPUTING, True)
    assert "sides are being computed" in tab.page.locator("cb2-edits li .state").first.inner_text()
    # y passes over it, to the edit that is ready
    tab.press("y")
    tab.until(ROOT, before)
    tab.settle()
    tab.press("y")
    tab.settle()
    assert "NOT applied" in tab.status
    tab.page.close()
    assert tab.faults == []
    # a kill loses nothing: the new program computes what was missing
    process.stop(signal.SIGKILL)
    tab = Tab.open(browser, process.start().url)
    tab.until(COMPUTING, True)
    assert len(rows(labels)) == 2
    gate.touch()
    tab.until(COMPUTING, False)
    tab.press("y")
    tab.until("() => cb2.page.view.edits.waiting[0]?.previewed")
    assert "Press y to cut" in tab.status
    early, applied = records(labels)
    assert (early.state, applied.state) == (EditState.STAGED, EditState.APPLIED)
    assert all(early.sides)
    assert early.step.preview.root in applied.step.new_roots, "of what the neuron is by now"
    assert [o.is_merge for o in world.cave.deployment.editor.operations.values()] == [True]
    tab.page.close()
    assert tab.faults == []
