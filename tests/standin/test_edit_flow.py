"""One edit from staged to applied and back, over real HTTP: what is checked, said and kept."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from edit_world import Person
from page_fakes import wait_until
from people import EDITOR, READER, SECOND

from cb2_assist.core.edits import EditKind, EditState
from cb2_assist.standin.faults import Fault


@pytest.fixture
def ada(cave, home, monkeypatch) -> Iterator[Person]:
    person = Person.of(cave, home, EDITOR.token, "ada", monkeypatch)
    yield person
    person.close()


@pytest.fixture
def ben(cave, home, monkeypatch, ada) -> Iterator[Person]:  # noqa: ARG001 - the first one's token is read first
    person = Person.of(cave, home, SECOND.token, "ben", monkeypatch)
    yield person
    person.close()


def test_a_join_is_applied_and_read_back_as_one_neuron(ada):
    edit = ada.join()
    before = ada.source.timestamp
    done = ada.flow().apply(ada.store.edits.add(edit))
    assert done.state is EditState.APPLIED
    assert [done.step.operation] == ada.operations()
    (merged,) = done.step.new_roots
    assert ada.source.timestamp > before
    assert {ada.source.segment_at(a.point) for side in done.anchors for a in side} == {merged}
    # asked for once more, nothing happens
    assert ada.flow().apply(done) == done
    assert len(ada.operations()) == 1


def test_a_cut_is_previewed_before_it_is_made(ada):
    flow, record = ada.flow(), ada.store.edits.add(ada.cut())
    shown = flow.apply(record)
    assert shown.state is EditState.STAGED
    assert shown.step.preview.separates
    assert min(shown.step.preview.n_sides) >= 1
    assert all(shown.step.preview.points)
    assert shown.step.note.startswith("Preview: ")
    assert ada.operations() == []
    done = flow.apply(shown)
    assert done.state is EditState.APPLIED
    assert len(done.step.new_roots) == 2


def test_without_a_cut_the_server_says_why_and_nothing_is_made(ada):
    a, _ = ada.anchors(2, 3)
    record = ada.store.edits.add(ada.cut(anchors=((a,), (a,)), supervoxels=None))
    refused = ada.flow().apply(record)
    assert refused.state is EditState.REFUSED
    assert "both sink and source" in refused.step.note
    assert ada.operations() == []


def test_a_cut_within_one_supervoxel_is_said_to_be_none(ada):
    point = ada.cut().point
    record = ada.store.edits.add(ada.cut(sides=((point,), (point,))))
    refused = ada.flow().apply(record)
    assert refused.state is EditState.REFUSED
    assert "share one supervoxel" in refused.step.note


@pytest.mark.parametrize(("here", "there", "is_possible"), [(1, 4, True), (1, 3, False)])
def test_a_supervoxel_that_reaches_over_the_cut_counts_where_nearly_all_of_it_is(
    ada, here, there, is_possible
):
    (a,), (b,) = ada.cut().sides
    record = ada.store.edits.add(ada.cut(sides=((a, *[b] * here), (b,) * there)))
    shown = ada.flow().apply(record)
    if is_possible:
        assert shown.step.preview.separates
        assert [[held.point for held in side] for side in shown.anchors] == [[a], [b]]
    else:
        assert shown.state is EditState.REFUSED
        assert "share one supervoxel" in shown.step.note
    assert ada.operations() == []


def test_what_others_changed_is_said_and_applied_only_when_asked_again(ada, ben):
    record = ada.store.edits.add(ada.join())
    theirs = ben.flow()
    theirs.apply(theirs.apply(ben.store.edits.add(ben.cut())))
    stale = ada.flow().apply(record)
    assert stale.state is EditState.STAGED
    assert "Edits have changed what is to be joined" in stale.step.note
    assert set(stale.step.roots) != {record.edit.segment, record.edit.partner}
    assert len(ada.operations()) == 1
    assert ada.flow().apply(stale).state is EditState.APPLIED


def test_what_ones_own_edits_changed_is_not_stale(ada):
    join, flow = ada.store.edits.add(ada.join()), ada.flow()
    flow.apply(flow.apply(ada.store.edits.add(ada.cut())))
    assert flow.apply(join).state is EditState.APPLIED


def test_two_people_accept_the_same_join_and_one_edit_is_made(ada, ben):
    mine, theirs = ada.store.edits.add(ada.join()), ben.store.edits.add(ben.join())
    assert ada.flow().apply(mine).state is EditState.APPLIED
    late = ben.flow().apply(theirs)
    assert late.state is EditState.ALREADY
    assert "one neuron already" in late.step.note
    assert late.step.operation is None
    assert len(ada.operations()) == 1


def test_an_answer_lost_to_somebody_elses_same_edit_is_not_taken_for_ones_own(ada, ben):
    mine, theirs = ada.store.edits.add(ada.join()), ben.store.edits.add(ben.join())
    ada.cave.faults.add(Fault("refused", "/merge$", 1, status=503))
    lost = ada.flow().apply(mine)
    assert lost.state is EditState.UNKNOWN
    made = ben.flow().apply(theirs)
    found = ada.flow().apply(lost)
    assert (made.state, found.state) == (EditState.APPLIED, EditState.ALREADY)
    assert found.step.operation is None


@pytest.mark.parametrize(
    ("status", "words"), [(401, "does not accept the token"), (403, "terms"), (429, "too many")]
)
def test_a_refusal_keeps_the_edit_and_says_what_to_do(ada, status, words):
    ada.cave.faults.add(Fault("refused", "/merge$", 1, status=status, seconds=0.0))
    kept = ada.flow().apply(ada.store.edits.add(ada.join()))
    assert kept.state is EditState.STAGED
    assert words in kept.step.note
    assert ada.flow().apply(kept).state is EditState.APPLIED
    assert len(ada.operations()) == 1


def test_who_may_only_look_is_told_so(cave, home, monkeypatch):
    person = Person.of(cave, home, READER.token, "eve", monkeypatch)
    kept = person.flow().apply(person.store.edits.add(person.join()))
    assert kept.state is EditState.STAGED
    assert "may not edit" in kept.step.note
    assert person.operations() == []
    person.close()


def test_an_edit_that_lands_after_it_was_given_up_is_found(ada):
    ada.source.editor.deadline_s = 0.3
    ada.cave.faults.add(Fault("latency", "/merge$", 1, seconds=0.8))
    unknown = ada.flow().apply(ada.store.edits.add(ada.join()))
    assert unknown.state is EditState.UNKNOWN
    assert "nothing is sent again" in unknown.step.note
    wait_until(ada.operations, 60)
    found = ada.flow().look_up(unknown)
    assert found.state is EditState.APPLIED
    assert [found.step.operation] == ada.operations()


def test_one_that_was_never_made_is_offered_again_and_not_before(ada):
    ada.cave.faults.add(Fault("refused", "/merge$", 1, status=504))
    unknown = ada.flow().apply(ada.store.edits.add(ada.join()))
    assert ada.flow().apply(unknown).state is EditState.UNKNOWN
    ada.ahead_s = 61.0
    again = ada.flow().apply(unknown)
    assert again.state is EditState.STAGED
    assert "has not made this edit" in again.step.note
    assert ada.flow().apply(again).state is EditState.APPLIED
    assert len(ada.operations()) == 1


class TestUndo:
    def test_the_latest_edit_is_undone_by_its_number_and_redone(self, ada):
        flow = ada.flow()
        done = flow.apply(ada.store.edits.add(ada.join()))
        undo = flow.apply(flow.take_back(done))
        assert (undo.state, undo.edit.kind) == (EditState.APPLIED, EditKind.UNDO)
        original = ada.store.edits.get("join")
        assert original.state is EditState.UNDONE
        again = flow.apply(flow.make_again(original))
        assert (again.state, again.edit.kind) == (EditState.APPLIED, EditKind.REDO)
        assert ada.store.edits.get("join").state is EditState.APPLIED
        last = flow.apply(flow.take_back(ada.store.edits.get("join")))
        assert last.state is EditState.APPLIED
        assert ada.operations() == [1, 2, 3, 4]
        (told,) = ada.store.edits.operations(ada.dataset).values()
        assert [(o.number, o.kind.value) for o in told.made] == [
            (1, "join"), (2, "undo"), (3, "redo"), (4, "undo"),
        ]  # fmt: skip
        assert told.in_force is None

    def test_own_edits_are_undone_one_after_the_other(self, ada):
        flow = ada.flow()
        first = flow.apply(ada.store.edits.add(ada.join()))
        second = flow.apply(flow.apply(ada.store.edits.add(ada.cut())))
        assert flow.apply(flow.take_back(second)).state is EditState.APPLIED
        undo = flow.apply(flow.take_back(first))
        assert (undo.state, undo.edit.kind) == (EditState.APPLIED, EditKind.UNDO)
        assert {r.state for r in ada.store.edits.records(dataset=ada.dataset)} == {
            EditState.UNDONE,
            EditState.APPLIED,
        }

    def test_under_somebody_elses_edit_the_opposite_is_proposed(self, ada, ben):
        flow, theirs = ada.flow(), ben.flow()
        done = flow.apply(ada.store.edits.add(ada.join()))
        theirs.apply(theirs.apply(ben.store.edits.add(ben.cut())))
        proposed = flow.apply(flow.take_back(done))
        assert (proposed.state, proposed.edit.kind) == (EditState.STAGED, EditKind.CUT)
        assert "cannot be undone as it is" in proposed.step.note
        assert len(ada.operations()) == 2
        shown = flow.apply(proposed)
        assert shown.step.preview.separates
        assert flow.apply(shown).state is EditState.APPLIED
        assert ada.store.edits.get("join").state is EditState.UNDONE

    def test_a_cut_under_somebody_elses_edit_is_joined_again(self, ada, ben):
        flow, theirs = ada.flow(), ben.flow()
        done = flow.apply(flow.apply(ada.store.edits.add(ada.cut())))
        theirs.apply(ben.store.edits.add(ben.join()))
        proposed = flow.apply(flow.take_back(done))
        assert (proposed.state, proposed.edit.kind) == (EditState.STAGED, EditKind.JOIN)
        assert flow.apply(proposed).state is EditState.APPLIED
        assert ada.store.edits.get("cut").state is EditState.UNDONE

    @pytest.mark.parametrize("kind", ["lost", "truncated"])
    def test_a_lost_undo_is_looked_up_also_by_a_new_program(self, ada, kind):
        flow = ada.flow()
        done = flow.apply(ada.store.edits.add(ada.join()))
        ada.cave.faults.add(Fault(kind, "/undo$", 1, status=502))
        ada.cave.faults.add(Fault("refused", "/lineage_graph_multiple$", 1, status=500))
        lost = flow.apply(flow.take_back(done))
        assert lost.state is EditState.UNKNOWN
        (found,) = ada.flow().recover()
        assert found.state is EditState.APPLIED
        assert ada.store.edits.get("join").state is EditState.UNDONE
        assert len(ada.operations()) == 2
