"""Edits that are taken back and made again: by their number, else by the opposite edit."""

from __future__ import annotations

from dataclasses import replace

from cb2_assist.core.edits import EditKind, EditRecord, EditState
from cb2_assist.core.records import SegmentId
from cb2_assist.datasets.source import GraphEditor
from cb2_assist.decisions.edit_book import EditBook
from cb2_assist.decisions.edit_facts import held, is_so, nodes
from cb2_assist.decisions.edit_requests import EditRequests


class EditTurns:
    """Stages and applies what turns an edit.

    Args:
        book: Keeps edits and steps.
        editor: The graph.
        requests: Sends them.
    """

    def __init__(self, book: EditBook, editor: GraphEditor, requests: EditRequests) -> None:
        self._book, self._editor, self._requests = book, editor, requests

    def take_back(self, original: EditRecord) -> EditRecord:
        """Stage the undo of an edit; the same again while that is open."""
        edit = original.edit
        open_one = self._book.open_turn(edit, EditKind.UNDO)
        return open_one or self._book.add(
            replace(
                edit,
                key=f"{edit.key}.undo{self._book.count(edit)}",
                kind=EditKind.UNDO,
                turns=edit.key,
                operation=original.step.operation,
                made_at=self._book.now(),
            )
        )

    def make_again(self, original: EditRecord) -> EditRecord:
        """Stage an edit that was taken back: a join by its operation id, a cut with a preview."""
        edit, is_join = original.edit, original.edit.kind is EditKind.JOIN
        is_redo = is_join and original.state is EditState.UNDONE
        again = replace(
            edit,
            key=f"{edit.key}.again{self._book.count(edit)}",
            kind=EditKind.REDO if is_redo else edit.kind,
            turns=edit.key if is_redo else None,
            operation=original.step.operation if is_redo else None,
            sides=original.sides,
            anchors=original.anchors,
            made_at=self._book.now(),
        )
        return self._book.open_turn(edit, EditKind.REDO) or self._book.add(again)

    def undo(self, record: EditRecord) -> EditRecord:
        """Take the undo of an edit one step further, or propose the opposite edit."""
        original = self._book.original(record)
        if original.state in (EditState.SENT, EditState.UNKNOWN):
            original = self._requests.look_up(original)
        if original.state is EditState.STAGED:
            self._requests.withdraw(original, "Taken back before it was applied.")
        if original.state in (EditState.SENT, EditState.UNKNOWN):
            return self._book.step_once(
                record,
                EditState.STAGED,
                "It is not known yet whether the edit was made; it is taken back once that is "
                "known.",
            )
        if original.state is not EditState.APPLIED:
            return self._book.step(
                record, EditState.WITHDRAWN, note="There is nothing of it to take back."
            )
        record = EditRecord(record.edit, replace(record.step, anchors=held(original)))
        roots = self._editor.roots(nodes(held(original)))
        if record.step.sends and (found := self._requests.find(record)) is not None:
            return self._requests.done(record, found)
        if not self._book.is_explained(original.step.new_roots, roots, undone_only=True):
            return self._propose_inverse(record, original, roots, "other edits came after it.")
        after = self._requests.send(record, roots)
        if after.state is EditState.REFUSED:
            return self._propose_inverse(after, original, roots, after.step.note)
        return after

    def _propose_inverse(
        self, undo: EditRecord, original: EditRecord, roots: tuple[SegmentId, ...], why: str
    ) -> EditRecord:
        edit, (a, b) = original.edit, held(original)
        if edit.kind is EditKind.CUT:
            pairs = [(p, q) for p in a for q in b]
            p, q = min(pairs, key=lambda pair: pair[0].point.distance_nm(pair[1].point))
            a, b = (p,), (q,)
            where = dict(zip(nodes(held(original)), roots, strict=True))
            segment, partner = where[p.supervoxel], where[q.supervoxel]
            is_back = segment == partner
        else:
            segment, partner = roots[0], roots[-1]
            is_back = segment != partner
        if is_back:
            done = self._book.step(
                undo, EditState.ALREADY, note="Somebody has taken it back already."
            )
            self._requests.turn_original(done)
            return done
        is_cut = edit.kind is EditKind.JOIN
        note = (
            f"Operation {original.step.operation} cannot be undone as it is: {why} The opposite "
            f"{'cut' if is_cut else 'join'} is proposed instead; press y to go on."
        )
        self._book.step(undo, EditState.WITHDRAWN, note=note)
        return self._book.add(
            replace(
                edit,
                key=f"{undo.edit.key}.inverse",
                kind=EditKind.CUT if is_cut else EditKind.JOIN,
                segment=segment,
                partner=None if is_cut else partner,
                anchors=(a, b),
                turns=edit.key,
                made_at=self._book.now(),
            ),
            note,
        )

    def redo(self, record: EditRecord) -> EditRecord:
        """Take the redo of an edit one step further."""
        original = self._book.original(record)
        if original.state is not EditState.UNDONE:
            return self._book.step(record, EditState.WITHDRAWN, note="It is in force already.")
        record = EditRecord(record.edit, replace(record.step, anchors=held(original)))
        roots = self._editor.roots(nodes(held(original)))
        if record.step.sends and (found := self._requests.find(record)) is not None:
            return self._requests.done(record, found)
        if is_so(record, roots):
            return self._requests.already(record)
        return self._requests.send(record, roots)
