"""What verdicts and keys mean for the edits of a graph: staged, after a grace, cancelled, kept."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from edit_world import Person
from label_makers import decision, suggestion
from page_fakes import wait_until
from people import EDITOR

from cb2_assist.core.edits import Edit, EditKind, EditState
from cb2_assist.core.errors import DecisionError, NoAnswerError, SegmentNotFoundError
from cb2_assist.core.records import Decision, Kind, Site, Verdict
from cb2_assist.review.applying import Applying, Hooks
from cb2_assist.review.evidence import CutSides, SidesNm
from cb2_assist.standin.faults import Fault

CHILD = Path(__file__).with_name("editing_child.py")


class Clock:
    """Calls things when it is told to."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, Callable[[], object]]] = []

    def __call__(self, seconds: float, call: Callable[[], object]) -> Callable[[], None]:
        entry = (seconds, call)
        self.calls.append(entry)
        return lambda: self.calls.remove(entry) if entry in self.calls else None

    def ring(self) -> None:
        calls, self.calls = self.calls, []
        for _, call in calls:
            call()


class Answers:
    """Verdicts in force."""

    def __init__(self) -> None:
        self.given: dict[str, Verdict] = {}

    def verdict(self, site: str) -> Verdict | None:
        return self.given.get(site)


class Slow:
    """Sides of cuts that come when they are let go; `fails` are raised first, one a time."""

    def __init__(self) -> None:
        self.sides: SidesNm = [[], []]
        self.fails: list[Exception] = []
        self.let_go = threading.Event()
        self.asked: list[Site] = []

    def __call__(self, site: Site) -> SidesNm:
        self.asked.append(site)
        assert self.let_go.wait(60)
        if self.fails:
            raise self.fails.pop(0)
        return self.sides


class Desk:
    """A person with verdicts and edits, as the session has them."""

    def __init__(self, person: Person, *, is_live: bool) -> None:
        self.person, self.answers, self.clock = person, Answers(), Clock()
        self.said: list[str] = []
        self.moved: list[tuple[frozenset[int], frozenset[int]]] = []
        self.is_live = is_live
        self.slow = Slow()
        self.applying = self._made()

    def _made(self) -> Applying:
        person = self.person
        made = Applying(
            person.flow(),
            person.store.edits,
            self.answers,
            CutSides(self.slow),
            user=person.user,
            dataset=person.dataset,
            is_live=self.is_live,
            later=self.clock,
        )
        made.hooks = Hooks(
            say=lambda text, _level: self.said.append(text),
            moved=lambda *told: self.moved.append(told[:2]),
        )
        return made

    def again(self) -> None:
        """Another program on the same store."""
        self.close()
        self.clock.calls.clear()
        self.applying = self._made()

    def accept(self, edit: Edit, *, key: str = "", early: bool = False) -> str:
        """As `f` does; early: before the sides of the cut are known."""
        made = self.decision(edit)
        made = replace(made, idempotency_key=key or made.idempotency_key)
        sides = [[list(p) for p in side] for side in edit.sides]
        if edit.kind is EditKind.CUT:
            self.slow.sides = sides
        self.applying.expect(made, None if early else sides)
        self.answers.given[edit.site] = Verdict.ACCEPT
        return self.applying.follow([edit.site])

    def decision(self, edit: Edit) -> Decision:
        kind = Kind.JOIN if edit.kind is EditKind.JOIN else Kind.CUT
        site = Site(kind, edit.segment, edit.partner, edit.point)
        shown = replace(suggestion(), id=edit.site, site=site, supervoxels=edit.supervoxels)
        return decision(
            1,
            suggestion=shown,
            verdict=Verdict.ACCEPT,
            idempotency_key=edit.key,
            user=self.person.user,
            dataset=self.person.dataset,
        )

    def take_back(self, edit: Edit) -> str:
        self.answers.given.pop(edit.site, None)
        return self.applying.follow([edit.site])

    def y(self) -> str:
        row = self.waiting[0]
        return self.applying.apply(row["edit"], row["number"]).result(60)

    @property
    def waiting(self) -> list[dict]:
        return self.applying.to_json()["waiting"]

    def states(self) -> list[EditState]:
        return [r.state for r in self.person.store.edits.records(dataset=self.person.dataset)]

    def ready(self) -> bool:
        """Whether the one edit that waits has all that `y` needs."""
        return [row["computing"] for row in self.waiting] == [False]

    def close(self) -> None:
        self.slow.let_go.set()
        self.applying.sides.close(60)
        assert self.applying.close(60)


@pytest.fixture
def person(cave, home, monkeypatch) -> Iterator[Person]:
    made = Person.of(cave, home, EDITOR.token, "ada", monkeypatch)
    yield made
    made.close()


@pytest.fixture
def stage(person) -> Iterator[Desk]:
    desk = Desk(person, is_live=False)
    yield desk
    desk.close()


@pytest.fixture
def live(person) -> Iterator[Desk]:
    desk = Desk(person, is_live=True)
    yield desk
    desk.close()


def test_a_staged_edit_waits_for_y_also_after_a_restart(stage, person):
    edit = person.join()
    assert stage.accept(edit) == "Its edit waits in the list; y applies."
    assert person.operations() == []
    stage.again()
    stage.applying.start().result(60)
    assert stage.said == ["1 edit waits in the list."]
    assert stage.y().startswith("Applied: join of ")
    assert stage.waiting == []
    (row,) = stage.applying.to_json()["ended"]
    assert (row["state"], row["operation"]) == ("applied", "1")
    assert stage.moved == [(frozenset({edit.segment, edit.partner}), frozenset())]
    assert person.operations() == [1]
    # accepted once more, it is not made once more
    stage.accept(edit)
    assert stage.waiting == []


def test_a_late_y_hits_nothing_else(stage, person):
    stage.accept(person.cut())
    (row,) = stage.waiting
    assert "Preview: " in stage.y()
    assert stage.waiting[0]["previewed"]
    assert all(stage.applying.to_json()["sides"])
    with pytest.raises(DecisionError, match="moved on"):
        stage.applying.apply(row["edit"], row["number"]).result(60)
    assert person.operations() == []
    assert stage.y().startswith("Applied: cut of ")
    assert person.operations() == [1]
    assert stage.applying.to_json()["sides"] is None
    ((_, pieces),) = stage.moved
    assert pieces == set(person.store.edits.get("cut").step.new_roots)
    assert len(pieces) == 2


def test_taking_the_answer_back_withdraws_and_dropping_keeps_the_answer(stage, person):
    join, cut = person.join(), person.cut()
    stage.accept(join)
    assert stage.take_back(join) == "Its edit was not applied."
    stage.accept(cut)
    assert "stays recorded" in stage.applying.drop(cut.key)
    assert stage.states() == [EditState.WITHDRAWN, EditState.DROPPED]
    assert stage.waiting == []
    with pytest.raises(DecisionError, match="does not wait"):
        stage.applying.drop(cut.key)
    # a restart offers neither again
    stage.again()
    stage.applying.start().result(60)
    assert stage.waiting == []
    # a redo does
    stage.answers.given[join.site] = Verdict.ACCEPT
    assert "y applies" in stage.applying.follow([join.site])
    assert [r["kind"] for r in stage.waiting] == ["join"]


def test_an_edit_whose_answer_was_never_recorded_is_not_applied(stage, person):
    stage.applying.expect(stage.decision(person.join()), None)
    stage.again()
    stage.applying.start().result(60)
    assert stage.states() == [EditState.WITHDRAWN]
    assert person.operations() == []


def test_a_live_join_is_applied_after_the_grace_and_a_cut_waits(live, person):
    assert "applied in 3 s; u cancels" in live.accept(person.join())
    (row,) = live.waiting
    assert 0 < row["due_in_ms"] <= 3000
    assert [seconds for seconds, _ in live.clock.calls] == [3.0]
    assert "y applies" in live.accept(person.cut())
    live.clock.ring()
    wait_until(lambda: len(live.waiting) == 1, 60)
    assert live.states() == [EditState.APPLIED, EditState.STAGED]
    assert person.operations() == [1]


def test_u_within_the_grace_sends_nothing(live, person):
    edit = person.join()
    live.accept(edit)
    assert live.take_back(edit) == "Its edit was not applied."
    assert live.clock.calls == []
    assert live.states() == [EditState.WITHDRAWN]
    # and a redo begins a new grace
    live.answers.given[edit.site] = Verdict.ACCEPT
    assert "applied in 3 s" in live.applying.follow([edit.site])
    live.clock.ring()
    wait_until(lambda: not live.waiting, 60)
    assert person.operations() == [1]


def test_u_after_the_grace_takes_the_operation_back_and_redo_makes_it_again(live, person):
    edit = person.join()
    live.accept(edit)
    live.clock.ring()
    wait_until(lambda: person.operations() == [1] and not live.waiting, 60)
    assert live.take_back(edit) == "Taking operation 1 back …"
    wait_until(lambda: live.states() == [EditState.UNDONE, EditState.APPLIED], 60)
    assert person.operations() == [1, 2]
    live.answers.given[edit.site] = Verdict.ACCEPT
    assert "applied in 3 s" in live.applying.follow([edit.site])
    live.clock.ring()
    wait_until(lambda: person.operations() == [1, 2, 3] and not live.waiting, 60)
    assert person.store.edits.get(edit.key).state is EditState.APPLIED


def test_a_lost_answer_is_looked_up_by_itself(live, person):
    edit = person.join()
    person.cave.faults.add(Fault("lost", "/merge$", 1, status=504))
    person.cave.faults.add(Fault("refused", "/lineage_graph_multiple$", 1, status=500))
    live.accept(edit)
    live.clock.ring()
    wait_until(lambda: [r["state"] for r in live.waiting] == ["unknown"] and live.clock.calls, 60)
    # taken back meanwhile: it is, once it is known
    assert "once it is known" in live.take_back(edit)
    wait_until(lambda: person.operations() == [1, 2] and not live.waiting, 60)
    assert EditState.UNDONE in live.states()


def test_a_cut_that_is_accepted_early_gets_its_sides_when_they_come(stage, person):
    edit = person.cut()
    assert stage.accept(edit, early=True) == (
        "Its edit waits in the list; y applies it once its two sides are computed."
    )
    assert [(r["state"], r["computing"]) for r in stage.waiting] == [("staged", True)]
    with pytest.raises(DecisionError, match=r"NOT applied.*are being computed.*Press y once"):
        stage.y()
    # accepted once more meanwhile, it is one edit, computed once
    stage.accept(edit, key="again", early=True)
    assert stage.states() == [EditState.STAGED]
    stage.slow.let_go.set()
    wait_until(stage.ready, 60)
    assert len(stage.slow.asked) == 1
    assert "Preview: " in stage.y()
    assert stage.y().startswith("Applied: cut of ")
    assert person.operations() == [1]


def test_sides_that_come_after_u_change_nothing_and_a_redo_has_them(stage, person):
    edit = person.cut()
    stage.accept(edit, early=True)
    assert stage.take_back(edit) == "Its edit was not applied."
    wait_until(lambda: stage.slow.asked, 60)
    future = stage.applying.sides.of(edit.site, stage.slow.asked[0])
    stage.slow.let_go.set()
    future.result(60)
    stage.answers.given[edit.site] = Verdict.ACCEPT
    assert "Its edit waits" in stage.applying.follow([edit.site])
    wait_until(stage.ready, 60)
    assert stage.states() == [EditState.WITHDRAWN, EditState.STAGED]
    assert "Preview: " in stage.y()


def test_a_restart_computes_the_sides_that_were_not_there_yet(stage, person):
    edit = person.cut()
    stage.accept(edit, early=True)
    wait_until(lambda: stage.slow.asked, 60)
    stage.slow.fails = [NoAnswerError("The server is down.")]
    stage.again()
    stage.slow.asked.clear()
    stage.applying.start().result(60)
    wait_until(stage.ready, 60)
    assert stage.slow.asked == [Site(Kind.CUT, edit.segment, None, edit.point)]
    assert "Preview: " in stage.y()


def test_sides_that_cannot_be_read_are_tried_again_by_themselves(stage, person):
    stage.slow.let_go.set()
    stage.slow.fails = [NoAnswerError("The server is down.")] * 2
    stage.accept(person.cut(), early=True)
    for pause in (2.0, 5.0):
        wait_until(lambda pause=pause: [s for s, _ in stage.clock.calls] == [pause], 60)
        (row,) = stage.waiting
        assert row["computing"]
        assert "The server is down. This is tried again by itself." in row["note"]
        with pytest.raises(DecisionError, match="NOT applied: Its two sides cannot be computed"):
            stage.y()
        stage.clock.ring()
    wait_until(stage.ready, 60)
    assert stage.waiting[0]["note"] == ""
    assert "Preview: " in stage.y()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (SegmentNotFoundError("The segment is not there."), "The segment is not there."),
        (ZeroDivisionError("oh"), "something went wrong inside cb2-assist"),
    ],
)
def test_sides_that_there_are_not_end_the_edit_in_words_and_keep_the_answer(
    stage, person, error, words
):
    stage.slow.let_go.set()
    stage.slow.fails = [error]
    edit = person.cut()
    stage.accept(edit, early=True)
    wait_until(lambda: not stage.waiting, 60)
    (row,) = stage.applying.to_json()["ended"]
    assert row["state"] == "refused"
    assert words in row["note"]
    assert "The answer is kept as a label." in row["note"]
    wait_until(lambda: stage.said and words in stage.said[-1], 60)
    assert stage.answers.given == {edit.site: Verdict.ACCEPT}
    # accepted anew, it is tried anew
    stage.accept(edit, key="anew", early=True)
    wait_until(stage.ready, 60)


def test_a_second_cut_of_one_neuron_is_applied_after_the_first(stage, person):
    edit = person.cut()
    other = person.join()
    stage.accept(edit, early=True)
    # its neuron has another id by the time that its sides are known
    stage.accept(other)
    assert stage.applying.apply(other.key, 1).result(60).startswith("Applied: join")
    stage.slow.let_go.set()
    wait_until(stage.ready, 60)
    assert "Preview: " in stage.y()
    assert stage.y().startswith("Applied: cut of ")
    assert person.operations() == [1, 2]


def test_a_server_that_is_down_leaves_the_edit_waiting(stage, person):
    stage.accept(person.join())
    person.cave.faults.add(Fault("refused", "/roots_binary$", status=500))
    with pytest.raises(DecisionError, match="goes on waiting"):
        stage.y()
    person.cave.faults.clear()
    assert stage.y().startswith("Applied")


def test_a_program_that_is_killed_while_an_edit_is_under_way_finds_it_again(
    stage, person, home, monkeypatch
):
    edit = person.join()
    stage.accept(edit)
    stage.close()
    person.store.close()
    person.cave.faults.add(Fault("latency", "/merge$", 1, seconds=1.5))
    words = [str(home / "ada.toml"), str(home / "ada.sqlite"), edit.key]
    with subprocess.Popen([sys.executable, str(CHILD), *words]) as child:
        # the server has the request, and whoever asked is gone before there is an answer
        wait_until(lambda: person.cave.faults.to_json()[0]["seen"] == 1, 120)
        assert person.operations() == []
        child.send_signal(signal.SIGKILL)
    wait_until(lambda: person.operations() == [1], 60)
    again = Person.of(person.cave, home, EDITOR.token, "ada", monkeypatch)
    (found,) = again.flow().recover()
    assert (found.state, found.step.operation) == (EditState.APPLIED, 1)
    assert person.operations() == [1]
    again.close()
