"""What keeping edits must do in every label store. A backend is done when its subclass passes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
from label_makers import BIG, DATASET, USER, VERSION

from cb2_assist.core.edits import (
    Anchor,
    Edit,
    EditKind,
    EditState,
    EditStep,
    Operation,
    Operations,
    SplitPreview,
)
from cb2_assist.core.errors import LabelError
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import segment_id
from cb2_assist.labels.edit_store import StaleEditError
from cb2_assist.labels.store import LabelStore

A, B = segment_id(BIG), segment_id(BIG + 1)


def edit(n: int = 0, **changes) -> Edit:
    """The n-th of a run of different edits, with ids above 2**63."""
    plain = Edit(
        key=f"edit-{n}",
        kind=EditKind.JOIN,
        user=USER,
        dataset=DATASET,
        version=VERSION,
        site=f"site-{n}",
        decision_key=f"decision-{n}",
        made_at="2026-01-02T03:04:05.000Z",
        point=PointNm(1.5, 2.0, 3.25),
        segment=A,
        partner=B,
    )
    return replace(plain, **changes)


ANCHORS = ((Anchor(A, PointNm(1.0, 2.0, 3.0)),), (Anchor(B, PointNm(4.0, 5.0, 6.5)),))
FULL = EditStep(
    EditState.APPLIED,
    note="µ – done",
    sides=((PointNm(1, 2, 3),), (PointNm(4, 5, 6), PointNm(7, 8, 9))),
    anchors=ANCHORS,
    roots=(A, B),
    preview=SplitPreview(A, (3, 4), 1, separates=True, points=((PointNm(1, 2, 3),), ())),
    sends=2,
    sent_at="2026-01-02T03:04:05.000Z",
    first_sent_at="2026-01-02T03:04:04.000Z",
    sent_roots=(A,),
    operation=2**62 + 1,
    new_roots=(B,),
)


class EditStoreContract:
    """Subclasses give ``reopen``: closes what was open and opens the same store again."""

    @pytest.fixture
    def reopen(self) -> Callable[[], LabelStore]:
        raise NotImplementedError

    def test_an_edit_is_staged_and_read_back_whole(self, reopen):
        whole = edit(
            1,
            kind=EditKind.CUT,
            partner=None,
            supervoxels=(A, None),
            sides=((PointNm(1, 2, 3),), (PointNm(4, 5, 6), PointNm(7, 8, 9))),
            anchors=ANCHORS,
            turns="edit-0",
            operation=7,
        )
        added = reopen().edits.add(whole, "a note")
        assert (added.edit, added.state, added.step.number) == (whole, EditState.STAGED, 1)
        assert added.step.note == "a note"
        assert added.step.at.endswith("Z")
        assert reopen().edits.get("edit-1") == added
        assert reopen().edits.get("another") is None

    def test_the_same_key_again_returns_what_became_of_the_first(self, reopen):
        edits = reopen().edits
        applied = edits.advance(edits.add(edit()), FULL)
        assert edits.add(edit(point=PointNm(9, 9, 9))) == applied
        assert len(edits.steps("edit-0")) == 2

    def test_a_step_is_read_back_whole_and_the_newest_counts(self, reopen):
        edits = reopen().edits
        sent = edits.advance(edits.add(edit()), EditStep(EditState.SENT))
        applied = edits.advance(sent, FULL)
        assert applied.step == replace(FULL, number=3, at=applied.step.at)
        edits = reopen().edits
        assert edits.get("edit-0") == applied
        assert [s.state for s in edits.steps("edit-0")] == ["staged", "sent", "applied"]

    def test_two_writers_cannot_both_take_a_step(self, reopen):
        edits = reopen().edits
        staged = edits.add(edit())
        done: list[object] = []

        def take(state: EditState) -> None:
            try:
                done.append(edits.advance(staged, EditStep(state)))
            except StaleEditError:
                done.append(None)

        states = [EditState.SENT, EditState.WITHDRAWN] * 4
        threads = [threading.Thread(target=take, args=(s,)) for s in states]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(d is not None for d in done) == 1
        assert len(edits.steps("edit-0")) == 2

    def test_edits_are_found_by_who_where_and_how_far(self, reopen):
        edits = reopen().edits
        for n in range(3):
            edits.add(edit(n, site="one" if n else "other"))
        edits.add(edit(3, user="ben"))
        edits.add(edit(4, dataset="elsewhere"))
        edits.advance(edits.get("edit-1"), EditStep(EditState.SENT))

        def keys(**given) -> list[str]:
            return [r.edit.key for r in edits.records(dataset=DATASET, **given)]

        assert keys() == ["edit-0", "edit-1", "edit-2", "edit-3"]
        assert keys(user=USER) == ["edit-0", "edit-1", "edit-2"]
        assert keys(user=USER, site="one") == ["edit-1", "edit-2"]
        assert keys(states=[EditState.SENT]) == ["edit-1"]
        assert keys(states=[EditState.SENT, EditState.STAGED], user="ben") == ["edit-3"]

    def test_operations_of_an_answer_are_told_in_order_and_which_is_in_force(self, reopen):
        edits, big = reopen().edits, 2**62 + 1
        made = edits.advance(edits.add(edit()), FULL)
        edits.add(edit(9))
        key = (DATASET, VERSION, "site-0", USER)
        first = Operation(big, EditKind.JOIN, None, made.step.at, (B,))
        assert edits.operations(DATASET) == {key: Operations((first,), big)}
        turn = {"site": "site-0", "turns": "edit-0", "operation": big}
        undo = edits.advance(
            edits.add(edit(1, kind=EditKind.UNDO, **turn)), replace(FULL, operation=5)
        )
        undone = edits.advance(made, replace(FULL, state=EditState.UNDONE))
        then = (first, Operation(5, EditKind.UNDO, big, undo.step.at, (B,)))
        assert edits.operations(DATASET) == {key: Operations(then, None)}
        redo = edits.advance(
            edits.add(edit(2, kind=EditKind.REDO, **turn)), replace(FULL, operation=6)
        )
        edits.advance(undone, FULL)
        then = (*then, Operation(6, EditKind.REDO, big, redo.step.at, (B,)))
        assert edits.operations() == {key: Operations(then, 6)}
        assert edits.operations("elsewhere") == {}

    def test_a_closed_store_records_nothing(self, reopen):
        store = reopen()
        store.close()
        with pytest.raises(LabelError):
            store.edits.add(edit())
        assert reopen().edits.records(dataset=DATASET) == []
