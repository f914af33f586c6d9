"""Brings one edit of a graph from staged to applied, and knows at each moment how far it has come.

Each request is recorded before it leaves. One whose answer was lost, or whose sender was killed, is
looked up in the graph's own records and never sent again before that has settled it. Nothing is
applied to other objects than those that were shown, unless edits of one's own made the difference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from cb2_assist.core.edits import (
    EditKind,
    EditRecord,
    EditState,
    Sides,
)
from cb2_assist.core.errors import (
    EditRefusedError,
    SegmentNotFoundError,
)
from cb2_assist.core.records import SegmentId
from cb2_assist.datasets.source import GraphEditor
from cb2_assist.decisions.edit_book import EditBook
from cb2_assist.decisions.edit_facts import held, is_so, names, nodes
from cb2_assist.decisions.edit_requests import SETTLE_S, EditRequests
from cb2_assist.decisions.edit_turns import EditTurns
from cb2_assist.labels.edit_store import EditStore


class EditFlow:
    """Steps of the edits of one person in one graph. Blocks; one call after another.

    Args:
        store: Keeps edits and steps.
        editor: The graph.
        settle_s: See `SETTLE_S`.
        clock: This moment, aware.
    """

    def __init__(
        self,
        store: EditStore,
        editor: GraphEditor,
        *,
        user: str,
        dataset: str,
        settle_s: float = SETTLE_S,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._editor = editor
        self._book = EditBook(store, user=user, dataset=dataset, clock=clock)
        self._requests = EditRequests(self._book, editor, settle_s)
        self._turns = EditTurns(self._book, editor, self._requests)

    def apply(self, record: EditRecord) -> EditRecord:
        """Take an edit one step further: check, preview, send, or look up.

        Returns:
            What became of it, or of the inverse edit that is proposed in its place. When it is
            still `EditState.STAGED`, its note says what to look at before asking again.

        Raises:
            AssistError: The graph cannot be asked; nothing was sent.
        """
        record = self._book.newest(record)
        if record.state in (EditState.SENT, EditState.UNKNOWN):
            return self._requests.look_up(record)
        if record.state is not EditState.STAGED:
            return record
        if record.edit.kind is EditKind.UNDO:
            return self._turns.undo(record)
        if record.edit.kind is EditKind.REDO:
            return self._turns.redo(record)
        return self._apply_new(record)

    def look_up(self, record: EditRecord) -> EditRecord:
        """See `EditRequests.look_up`."""
        return self._requests.look_up(record)

    def give_sides(self, record: EditRecord, sides: Sides) -> EditRecord:
        """Keep the sides of a cut that was staged before they were known.

        Raises:
            StaleEditError: Something else has happened to it.
        """
        return self._book.step(record, EditState.STAGED, sides=sides, note="")

    def lack_sides(self, record: EditRecord, why: str, *, for_good: bool) -> EditRecord:
        """Say of such a cut that its sides cannot be computed; the answer is not touched.

        Args:
            record: A cut that needs them.
            why: A sentence.
            for_good: Whether another try would end the same.

        Raises:
            StaleEditError: Something else has happened to it.
        """
        if for_good:
            note = (
                f"The two sides of this cut cannot be computed, so that it is not applied: {why} "
                "The answer is kept as a label."
            )
            return self._book.step(record, EditState.REFUSED, note=note)
        note = f"Its two sides cannot be computed yet: {why} This is tried again by itself."
        return self._book.step_once(record, EditState.STAGED, note)

    def withdraw(self, record: EditRecord, note: str, *, by_hand: bool = False) -> EditRecord:
        """See `EditRequests.withdraw`."""
        return self._requests.withdraw(record, note, by_hand=by_hand)

    def take_back(self, original: EditRecord) -> EditRecord:
        """See `EditTurns.take_back`."""
        return self._turns.take_back(original)

    def make_again(self, original: EditRecord) -> EditRecord:
        """See `EditTurns.make_again`."""
        return self._turns.make_again(original)

    def recover(self) -> list[EditRecord]:
        """After a start: look up what was sent, and finish what was found; returns those."""
        records = self._book.records()
        out = [
            self._requests.look_up(r)
            for r in records
            if r.state in (EditState.SENT, EditState.UNKNOWN)
        ]
        ended = (EditState.APPLIED, EditState.ALREADY)
        for record in records:
            newest = self._book.newest(record)  # a look-up may have moved it on
            if newest.edit.turns is not None and newest.state in ended:
                self._requests.turn_original(newest)
        return out

    # -- a join or a cut

    def _apply_new(self, record: EditRecord) -> EditRecord:
        edit, step = record.edit, record.step
        if record.needs_sides:
            return record
        try:
            anchors = record.anchors or self._editor.anchors(
                edit.kind,
                edit.point,
                (edit.segment, edit.partner),
                edit.supervoxels,
                record.sides,
            )
        except SegmentNotFoundError as e:
            return self._book.step(record, EditState.REFUSED, note=str(e))
        roots = self._editor.roots(nodes(anchors))
        record = EditRecord(edit, replace(step, anchors=anchors))
        if step.sends and (found := self._requests.find(record)) is not None:
            return self._requests.done(record, found)
        if is_so(record, roots):
            return self._requests.already(record)
        if edit.kind is EditKind.JOIN:
            return self._apply_join(record, roots)
        return self._apply_cut(record, roots)

    def _apply_join(self, record: EditRecord, roots: tuple[SegmentId, ...]) -> EditRecord:
        edit, step = record.edit, record.step
        known = step.roots or tuple(s for s in (edit.segment, edit.partner) if s is not None)
        if not self._book.is_explained(known, roots):
            return self._book.step(
                record,
                EditState.STAGED,
                roots=roots,
                note=f"Edits have changed what is to be joined since it was shown: it is now "
                f"{names(roots)}, no longer {names(known)}. Nothing was applied; look again, "
                "then press y.",
            )
        return self._requests.send(record, roots)

    def _apply_cut(self, record: EditRecord, roots: tuple[SegmentId, ...]) -> EditRecord:
        edit, step = record.edit, record.step
        if len(set(roots)) > 1:
            return self._book.step(
                record,
                EditState.REFUSED,
                roots=roots,
                note=f"The points of this cut lie in {len(set(roots))} neurons by now: "
                f"{names(roots)}. Ask about the place again (p).",
            )
        root = roots[0]
        if step.preview is not None and step.preview.root == root:
            return self._requests.send(record, roots)
        try:
            preview = self._editor.preview(held(record), root, edit.point)
        except EditRefusedError as e:
            state = EditState.REFUSED if e.is_final else EditState.STAGED
            return self._book.step(record, state, note=str(e))
        a, b = preview.n_sides
        if not preview.separates:
            return self._book.step(
                record,
                EditState.REFUSED,
                preview=preview,
                note="The server's preview of this cut does not keep the two sides whole and "
                "apart. Nothing was applied; the answer is kept as a label.",
            )
        known = step.preview.root if step.preview else edit.segment
        changed = (
            ""
            if self._book.is_explained((known,), (root,))
            else (f"Edits have changed the neuron since it was shown: it is now {names((root,))}. ")
        )
        more = f", and {preview.n_others} further pieces would come off" * bool(preview.n_others)
        return self._book.step(
            record,
            EditState.STAGED,
            roots=(root,),
            preview=preview,
            note=f"{changed}Preview: {a} supervoxels on one side, {b} on the other{more}. Press y "
            "to cut, or u to leave it.",
        )
