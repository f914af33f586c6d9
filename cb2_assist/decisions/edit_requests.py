"""One request for an edit and what comes of it: made, refused, or lost and looked up."""

from __future__ import annotations

import contextlib
from datetime import datetime

from cb2_assist.core.edits import EditDone, EditKind, EditRecord, EditState
from cb2_assist.core.errors import AssistError, EditRefusedError, LoginError, NoAnswerError
from cb2_assist.core.records import SegmentId
from cb2_assist.datasets.source import GraphEditor
from cb2_assist.decisions.edit_book import EditBook
from cb2_assist.decisions.edit_facts import held, is_so, nodes

SETTLE_S = 60.0
"""An edit that the server's records do not have so long after it was sent was not made. A gateway
gives up before the server behind it does, so one look at once would not be enough."""


class EditRequests:
    """Sends edits, at most once each, and settles what became of them.

    Args:
        book: Keeps edits and steps.
        editor: The graph.
        settle_s: See `SETTLE_S`.
    """

    def __init__(self, book: EditBook, editor: GraphEditor, settle_s: float) -> None:
        self._book, self._editor, self._settle_s = book, editor, settle_s

    def look_up(self, record: EditRecord, why: str = "") -> EditRecord:
        """Find out what became of an edit whose answer is not known; sends nothing that changes.

        Args:
            record: One that was sent.
            why: What happened to its answer, in words.
        """
        record = self._book.newest(record)
        if record.state not in (EditState.SENT, EditState.UNKNOWN):
            return record
        lost = why or record.step.note
        try:
            # in this order: one that lands in between is found
            roots = self._editor.roots(nodes(held(record)))
            found = self.find(record)
        except AssistError as e:
            return self._book.step_once(
                record,
                EditState.UNKNOWN,
                f"It is not known whether this edit was made, and the graph cannot be asked: {e} "
                "It is looked up again by itself; nothing is sent again until it is known.",
            )
        if found is not None:
            return self.done(record, found)
        if record.edit.kind in (EditKind.JOIN, EditKind.CUT) and is_so(record, roots):
            return self.already(record)
        age_s = (self._book.clock() - datetime.fromisoformat(record.step.sent_at)).total_seconds()
        if age_s < self._settle_s:
            return self._book.step_once(
                record,
                EditState.UNKNOWN,
                "The answer was lost, and the server has no record of this edit yet. It is looked "
                "up again by itself; nothing is sent again until it is known.",
            )
        return self._book.step(
            record,
            EditState.STAGED,
            note=f"The server has not made this edit{f' ({lost})' if why else ''}. Press y to try "
            "again.",
        )

    def withdraw(self, record: EditRecord, note: str, *, by_hand: bool = False) -> EditRecord:
        """Take an edit off the list that was not made; another one stays as it is."""
        record = self._book.newest(record)
        if record.state is not EditState.STAGED:
            return record
        if record.step.sends:
            with contextlib.suppress(AssistError):
                if (found := self.find(record)) is not None:
                    return self.done(record, found)
        return self._book.step(
            record, EditState.DROPPED if by_hand else EditState.WITHDRAWN, note=note
        )

    def send(self, record: EditRecord, roots: tuple[SegmentId, ...]) -> EditRecord:
        """Make an edit with one request, which is recorded before it leaves.

        Args:
            record: Staged, with its anchors.
            roots: The objects of its two sides now.
        """
        step, now = record.step, self._book.now()
        sent = self._book.step(
            record,
            EditState.SENT,
            roots=roots,
            sends=step.sends + 1,
            sent_at=now,
            first_sent_at=step.first_sent_at or now,
            sent_roots=step.sent_roots or tuple(dict.fromkeys(roots)),
            note="",
        )
        edit = record.edit
        try:
            done = self._editor.send(edit.kind, held(sent), self._book.operation(sent))
        except LoginError as e:
            return self._book.step(sent, EditState.STAGED, note=f"Not applied: {e}")
        except EditRefusedError as e:
            return self._refused(sent, e)
        except NoAnswerError as e:
            return self.look_up(sent, str(e))
        return self.done(sent, done)

    def _refused(self, sent: EditRecord, error: EditRefusedError) -> EditRecord:
        """Not made; unless the way there has sent it twice, and the second one was refused."""
        try:
            roots = self._editor.roots(nodes(held(sent)))
            found = self.find(sent)
        except AssistError:
            return self._book.step(sent, EditState.UNKNOWN, note=str(error))
        if found is not None and found.is_ours:
            return self.done(sent, found)
        if is_so(sent, roots):
            return self.already(sent)
        state = EditState.REFUSED if error.is_final else EditState.STAGED
        return self._book.step(sent, state, note=str(error))

    def find(self, record: EditRecord) -> EditDone | None:
        """An edit that was sent, in the server's own records."""
        step, edit = record.step, record.edit
        since = datetime.fromisoformat(step.first_sent_at)
        operation = self._book.operation(record)
        return self._editor.find(edit.kind, held(record), operation, step.sent_roots, since)

    def done(self, record: EditRecord, done: EditDone) -> EditRecord:
        """Record that an edit took place."""
        is_new = record.edit.kind in (EditKind.JOIN, EditKind.CUT)
        if done.operation is None or (is_new and not done.is_ours):
            return self.already(record, done)
        made = self._book.step(
            record,
            EditState.APPLIED,
            operation=done.operation,
            new_roots=done.new_roots,
            note="",
        )
        self._editor.settle(done.new_roots)
        self.turn_original(made)
        return made

    def already(self, record: EditRecord, done: EditDone | None = None) -> EditRecord:
        """It is as wanted, but not by an edit of ours, so that there is nothing to undo."""
        whose = "" if done is None or done.operation is None else f" (operation {done.operation})"
        so = {
            EditKind.JOIN: f"The two sides are one neuron already{whose}",
            EditKind.CUT: f"The two sides are separate neurons already{whose}",
            EditKind.UNDO: "It has been taken back already",
            EditKind.REDO: "It has been made again already",
        }[record.edit.kind]
        made = self._book.step(record, EditState.ALREADY, note=f"{so}; nothing was changed.")
        self._editor.settle(() if done is None else done.new_roots)
        self.turn_original(made)
        return made

    def turn_original(self, record: EditRecord) -> None:
        """Say of an edit that was taken back or made again that it was; any number of times."""
        if record.edit.turns is None:
            return
        original = self._book.original(record)
        is_redo = record.edit.kind is EditKind.REDO
        fits = EditState.UNDONE if is_redo else EditState.APPLIED
        if original.state is not fits or original.step.at > record.step.at:
            return
        by = "" if record.step.operation is None else f" by operation {record.step.operation}"
        if is_redo:
            made = record.step.new_roots or original.step.new_roots
            self._book.step(original, EditState.APPLIED, note=f"Made again{by}.", new_roots=made)
        else:
            self._book.step(original, EditState.UNDONE, note=f"Taken back{by}.")
