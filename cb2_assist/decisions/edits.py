"""Brings one edit of a graph from staged to applied, and knows at each moment how far it has come.

Each request is recorded before it leaves. One whose answer was lost, or whose sender was killed, is
looked up in the graph's own records and never sent again before that has settled it. Nothing is
applied to other objects than those that were shown, unless edits of one's own made the difference.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime

from cb2_assist.core.edits import (
    Anchors,
    Edit,
    EditDone,
    EditKind,
    EditRecord,
    EditState,
    Sides,
)
from cb2_assist.core.errors import (
    AssistError,
    EditRefusedError,
    LoginError,
    NoAnswerError,
    SegmentNotFoundError,
)
from cb2_assist.core.records import SegmentId
from cb2_assist.datasets.source import GraphEditor
from cb2_assist.labels.edit_store import EditStore

SETTLE_S = 60.0
"""An edit that the server's records do not have so long after it was sent was not made. A gateway
gives up before the server behind it does, so one look at once would not be enough."""


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
        self._store, self._editor = store, editor
        self._user, self._dataset = user, dataset
        self._settle_s, self._clock = settle_s, clock

    # -- what a person asks for

    def apply(self, record: EditRecord) -> EditRecord:
        """Take an edit one step further: check, preview, send, or look up.

        Returns:
            What became of it, or of the inverse edit that is proposed in its place. When it is
            still `EditState.STAGED`, its note says what to look at before asking again.

        Raises:
            AssistError: The graph cannot be asked; nothing was sent.
        """
        record = self._newest(record)
        if record.state in (EditState.SENT, EditState.UNKNOWN):
            return self.look_up(record)
        if record.state is not EditState.STAGED:
            return record
        if record.edit.kind is EditKind.UNDO:
            return self._apply_undo(record)
        if record.edit.kind is EditKind.REDO:
            return self._apply_redo(record)
        return self._apply_new(record)

    def look_up(self, record: EditRecord, why: str = "") -> EditRecord:
        """Find out what became of an edit whose answer is not known; sends nothing that changes.

        Args:
            record: One that was sent.
            why: What happened to its answer, in words.
        """
        record = self._newest(record)
        if record.state not in (EditState.SENT, EditState.UNKNOWN):
            return record
        lost = why or record.step.note
        try:
            # in this order: one that lands in between is found
            roots = self._editor.roots(_nodes(_held(record)))
            found = self._find(record)
        except AssistError as e:
            return self._step_once(
                record,
                EditState.UNKNOWN,
                f"It is not known whether this edit was made, and the graph cannot be asked: {e} "
                "It is looked up again by itself; nothing is sent again until it is known.",
            )
        if found is not None:
            return self._done(record, found)
        if record.edit.kind in (EditKind.JOIN, EditKind.CUT) and _is_so(record, roots):
            return self._already(record)
        age_s = (self._clock() - datetime.fromisoformat(record.step.sent_at)).total_seconds()
        if age_s < self._settle_s:
            return self._step_once(
                record,
                EditState.UNKNOWN,
                "The answer was lost, and the server has no record of this edit yet. It is looked "
                "up again by itself; nothing is sent again until it is known.",
            )
        return self._step(
            record,
            EditState.STAGED,
            note=f"The server has not made this edit{f' ({lost})' if why else ''}. Press y to try "
            "again.",
        )

    def give_sides(self, record: EditRecord, sides: Sides) -> EditRecord:
        """Keep the sides of a cut that was staged before they were known.

        Raises:
            StaleEditError: Something else has happened to it.
        """
        return self._step(record, EditState.STAGED, sides=sides, note="")

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
            return self._step(record, EditState.REFUSED, note=note)
        note = f"Its two sides cannot be computed yet: {why} This is tried again by itself."
        return self._step_once(record, EditState.STAGED, note)

    def withdraw(self, record: EditRecord, note: str, *, by_hand: bool = False) -> EditRecord:
        """Take an edit off the list that was not made; another one stays as it is."""
        record = self._newest(record)
        if record.state is not EditState.STAGED:
            return record
        if record.step.sends:
            with contextlib.suppress(AssistError):
                if (found := self._find(record)) is not None:
                    return self._done(record, found)
        return self._step(record, EditState.DROPPED if by_hand else EditState.WITHDRAWN, note=note)

    def take_back(self, original: EditRecord) -> EditRecord:
        """Stage the undo of an edit; the same again while that is open."""
        edit = original.edit
        open_one = self._open_turn(edit, EditKind.UNDO)
        return open_one or self._store.add(
            replace(
                edit,
                key=f"{edit.key}.undo{self._count(edit)}",
                kind=EditKind.UNDO,
                turns=edit.key,
                operation=original.step.operation,
                made_at=self._now(),
            )
        )

    def make_again(self, original: EditRecord) -> EditRecord:
        """Stage an edit that was taken back: a join by its operation id, a cut with a preview."""
        edit, is_join = original.edit, original.edit.kind is EditKind.JOIN
        is_redo = is_join and original.state is EditState.UNDONE
        again = replace(
            edit,
            key=f"{edit.key}.again{self._count(edit)}",
            kind=EditKind.REDO if is_redo else edit.kind,
            turns=edit.key if is_redo else None,
            operation=original.step.operation if is_redo else None,
            sides=original.sides,
            anchors=original.anchors,
            made_at=self._now(),
        )
        return self._open_turn(edit, EditKind.REDO) or self._store.add(again)

    def recover(self) -> list[EditRecord]:
        """After a start: look up what was sent, and finish what was found; returns those."""
        records = self._store.records(dataset=self._dataset, user=self._user)
        out = [self.look_up(r) for r in records if r.state in (EditState.SENT, EditState.UNKNOWN)]
        ended = (EditState.APPLIED, EditState.ALREADY)
        for record in records:
            newest = self._newest(record)  # a look-up may have moved it on
            if newest.edit.turns is not None and newest.state in ended:
                self._turn_original(newest)
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
            return self._step(record, EditState.REFUSED, note=str(e))
        roots = self._editor.roots(_nodes(anchors))
        record = EditRecord(edit, replace(step, anchors=anchors))
        if step.sends and (found := self._find(record)) is not None:
            return self._done(record, found)
        if _is_so(record, roots):
            return self._already(record)
        if edit.kind is EditKind.JOIN:
            return self._apply_join(record, roots)
        return self._apply_cut(record, roots)

    def _apply_join(self, record: EditRecord, roots: tuple[SegmentId, ...]) -> EditRecord:
        edit, step = record.edit, record.step
        known = step.roots or tuple(s for s in (edit.segment, edit.partner) if s is not None)
        if not self._is_explained(known, roots):
            return self._step(
                record,
                EditState.STAGED,
                roots=roots,
                note=f"Edits have changed what is to be joined since it was shown: it is now "
                f"{_names(roots)}, no longer {_names(known)}. Nothing was applied; look again, "
                "then press y.",
            )
        return self._send(record, roots)

    def _apply_cut(self, record: EditRecord, roots: tuple[SegmentId, ...]) -> EditRecord:
        edit, step = record.edit, record.step
        if len(set(roots)) > 1:
            return self._step(
                record,
                EditState.REFUSED,
                roots=roots,
                note=f"The points of this cut lie in {len(set(roots))} neurons by now: "
                f"{_names(roots)}. Ask about the place again (p).",
            )
        root = roots[0]
        if step.preview is not None and step.preview.root == root:
            return self._send(record, roots)
        try:
            preview = self._editor.preview(_held(record), root, edit.point)
        except EditRefusedError as e:
            state = EditState.REFUSED if e.is_final else EditState.STAGED
            return self._step(record, state, note=str(e))
        a, b = preview.n_sides
        if not preview.separates:
            return self._step(
                record,
                EditState.REFUSED,
                preview=preview,
                note="The server's preview of this cut does not keep the two sides whole and "
                "apart. Nothing was applied; the answer is kept as a label.",
            )
        known = step.preview.root if step.preview else edit.segment
        changed = (
            ""
            if self._is_explained((known,), (root,))
            else (
                f"Edits have changed the neuron since it was shown: it is now {_names((root,))}. "
            )
        )
        more = f", and {preview.n_others} further pieces would come off" * bool(preview.n_others)
        return self._step(
            record,
            EditState.STAGED,
            roots=(root,),
            preview=preview,
            note=f"{changed}Preview: {a} supervoxels on one side, {b} on the other{more}. Press y "
            "to cut, or u to leave it.",
        )

    # -- undo and redo

    def _apply_undo(self, record: EditRecord) -> EditRecord:
        original = self._original(record)
        if original.state in (EditState.SENT, EditState.UNKNOWN):
            original = self.look_up(original)
        if original.state is EditState.STAGED:
            self.withdraw(original, "Taken back before it was applied.")
        if original.state in (EditState.SENT, EditState.UNKNOWN):
            return self._step_once(
                record,
                EditState.STAGED,
                "It is not known yet whether the edit was made; it is taken back once that is "
                "known.",
            )
        if original.state is not EditState.APPLIED:
            return self._step(
                record, EditState.WITHDRAWN, note="There is nothing of it to take back."
            )
        record = EditRecord(record.edit, replace(record.step, anchors=_held(original)))
        roots = self._editor.roots(_nodes(_held(original)))
        if record.step.sends and (found := self._find(record)) is not None:
            return self._done(record, found)
        if not self._is_explained(original.step.new_roots, roots, undone_only=True):
            return self._propose_inverse(record, original, roots, "other edits came after it.")
        after = self._send(record, roots)
        if after.state is EditState.REFUSED:
            return self._propose_inverse(after, original, roots, after.step.note)
        return after

    def _propose_inverse(
        self, undo: EditRecord, original: EditRecord, roots: tuple[SegmentId, ...], why: str
    ) -> EditRecord:
        edit, (a, b) = original.edit, _held(original)
        if edit.kind is EditKind.CUT:
            pairs = [(p, q) for p in a for q in b]
            p, q = min(pairs, key=lambda pair: pair[0].point.distance_nm(pair[1].point))
            a, b = (p,), (q,)
            where = dict(zip(_nodes(_held(original)), roots, strict=True))
            segment, partner = where[p.supervoxel], where[q.supervoxel]
            is_so = segment == partner
        else:
            segment, partner = roots[0], roots[-1]
            is_so = segment != partner
        if is_so:
            done = self._step(undo, EditState.ALREADY, note="Somebody has taken it back already.")
            self._turn_original(done)
            return done
        is_cut = edit.kind is EditKind.JOIN
        note = (
            f"Operation {original.step.operation} cannot be undone as it is: {why} The opposite "
            f"{'cut' if is_cut else 'join'} is proposed instead; "
            "press y to go on."
        )
        self._step(undo, EditState.WITHDRAWN, note=note)
        return self._store.add(
            replace(
                edit,
                key=f"{undo.edit.key}.inverse",
                kind=EditKind.CUT if is_cut else EditKind.JOIN,
                segment=segment,
                partner=None if is_cut else partner,
                anchors=(a, b),
                turns=edit.key,
                made_at=self._now(),
            ),
            note,
        )

    def _apply_redo(self, record: EditRecord) -> EditRecord:
        original = self._original(record)
        if original.state is not EditState.UNDONE:
            return self._step(record, EditState.WITHDRAWN, note="It is in force already.")
        record = EditRecord(record.edit, replace(record.step, anchors=_held(original)))
        roots = self._editor.roots(_nodes(_held(original)))
        if record.step.sends and (found := self._find(record)) is not None:
            return self._done(record, found)
        if _is_so(record, roots):
            return self._already(record)
        return self._send(record, roots)

    # -- one request, and what comes of it

    def _send(self, record: EditRecord, roots: tuple[SegmentId, ...]) -> EditRecord:
        step, now = record.step, self._now()
        sent = self._step(
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
            done = self._editor.send(edit.kind, _held(sent), self._operation(sent))
        except LoginError as e:
            return self._step(sent, EditState.STAGED, note=f"Not applied: {e}")
        except EditRefusedError as e:
            return self._refused(sent, e)
        except NoAnswerError as e:
            return self.look_up(sent, str(e))
        return self._done(sent, done)

    def _refused(self, sent: EditRecord, error: EditRefusedError) -> EditRecord:
        """Not made; unless the way there has sent it twice, and the second one was refused."""
        try:
            roots = self._editor.roots(_nodes(_held(sent)))
            found = self._find(sent)
        except AssistError:
            return self._step(sent, EditState.UNKNOWN, note=str(error))
        if found is not None and found.is_ours:
            return self._done(sent, found)
        if _is_so(sent, roots):
            return self._already(sent)
        state = EditState.REFUSED if error.is_final else EditState.STAGED
        return self._step(sent, state, note=str(error))

    def _find(self, record: EditRecord) -> EditDone | None:
        step, edit = record.step, record.edit
        since = datetime.fromisoformat(step.first_sent_at)
        operation = self._operation(record)
        return self._editor.find(edit.kind, _held(record), operation, step.sent_roots, since)

    def _done(self, record: EditRecord, done: EditDone) -> EditRecord:
        is_new = record.edit.kind in (EditKind.JOIN, EditKind.CUT)
        if done.operation is None or (is_new and not done.is_ours):
            return self._already(record, done)
        made = self._step(
            record,
            EditState.APPLIED,
            operation=done.operation,
            new_roots=done.new_roots,
            note="",
        )
        self._editor.settle(done.new_roots)
        self._turn_original(made)
        return made

    def _already(self, record: EditRecord, done: EditDone | None = None) -> EditRecord:
        """It is as wanted, but not by an edit of ours, so that there is nothing to undo."""
        whose = "" if done is None or done.operation is None else f" (operation {done.operation})"
        so = {
            EditKind.JOIN: f"The two sides are one neuron already{whose}",
            EditKind.CUT: f"The two sides are separate neurons already{whose}",
            EditKind.UNDO: "It has been taken back already",
            EditKind.REDO: "It has been made again already",
        }[record.edit.kind]
        made = self._step(record, EditState.ALREADY, note=f"{so}; nothing was changed.")
        self._editor.settle(() if done is None else done.new_roots)
        self._turn_original(made)
        return made

    def _turn_original(self, record: EditRecord) -> None:
        """Say of an edit that was taken back or made again that it was; any number of times."""
        if record.edit.turns is None:
            return
        original = self._original(record)
        is_redo = record.edit.kind is EditKind.REDO
        fits = EditState.UNDONE if is_redo else EditState.APPLIED
        if original.state is not fits or original.step.at > record.step.at:
            return
        by = "" if record.step.operation is None else f" by operation {record.step.operation}"
        if is_redo:
            made = record.step.new_roots or original.step.new_roots
            self._step(original, EditState.APPLIED, note=f"Made again{by}.", new_roots=made)
        else:
            self._step(original, EditState.UNDONE, note=f"Taken back{by}.")

    # -- what is known

    def _is_explained(
        self, known: Iterable[SegmentId], now: Iterable[SegmentId], *, undone_only: bool = False
    ) -> bool:
        """Whether objects are those that were known, or what edits of one's own made of them.

        Args:
            known: As they were shown.
            now: As they are.
            undone_only: Follow only edits that have no effect any more, and their undoing.
        """
        after: dict[SegmentId, set[SegmentId]] = {}
        states = (EditState.APPLIED, EditState.UNDONE)
        for record in self._store.records(dataset=self._dataset, user=self._user, states=states):
            is_over = record.state is EditState.UNDONE or record.edit.kind is EditKind.UNDO
            if is_over or not undone_only:
                for root in record.step.roots:
                    after.setdefault(root, set()).update(record.step.new_roots)
        reached, waiting = set(known), list(known)
        while waiting:
            for root in after.get(waiting.pop(), set()) - reached:
                reached.add(root)
                waiting.append(root)
        return set(now) <= reached

    def _operation(self, record: EditRecord) -> int | None:
        """What an undo or redo turns; when it was staged, that may not have been known yet."""
        if record.edit.kind not in (EditKind.UNDO, EditKind.REDO):
            return None
        return self._original(record).step.operation

    def _open_turn(self, edit: Edit, kind: EditKind) -> EditRecord | None:
        turns = [r for r in self._of_site(edit) if r.edit.turns == edit.key]
        return next((r for r in turns if r.is_open and r.edit.kind is kind), None)

    def _count(self, edit: Edit) -> int:
        return len(self._of_site(edit))

    def _of_site(self, edit: Edit) -> list[EditRecord]:
        return self._store.records(dataset=self._dataset, user=self._user, site=edit.site)

    def _original(self, record: EditRecord) -> EditRecord:
        found = self._store.get(record.edit.turns or "")
        assert found is not None, "an edit is turned by its key"
        return found

    def _newest(self, record: EditRecord) -> EditRecord:
        return self._store.get(record.edit.key) or record

    def _step(self, record: EditRecord, state: EditState, **changes: object) -> EditRecord:
        """Record a step that follows from the given one.

        Raises:
            StaleEditError: Something else has happened to the edit.
        """
        return self._store.advance(record, replace(record.step, state=state, **changes))  # type: ignore[arg-type]

    def _step_once(self, record: EditRecord, state: EditState, note: str) -> EditRecord:
        """The same, unless it says so already."""
        if (record.state, record.step.note) == (state, note):
            return record
        return self._step(record, state, note=note)

    def _now(self) -> str:
        return self._clock().isoformat()


def words_of(record: EditRecord) -> str:
    """An edit in a few words."""
    edit = record.edit
    a = f"…{str(edit.segment)[-6:]}"
    if edit.kind in (EditKind.UNDO, EditKind.REDO):
        number = "" if edit.operation is None else f" of operation {edit.operation}"
        return f"{edit.kind.value}{number}"
    if edit.partner is None or edit.kind is EditKind.CUT:
        return f"cut of {a}"
    return f"join of {a} with …{str(edit.partner)[-6:]}"


def _held(record: EditRecord) -> Anchors:
    return record.anchors or ((), ())


def _nodes(anchors: Anchors) -> tuple[SegmentId, ...]:
    return tuple(a.supervoxel for side in anchors for a in side)


def _is_so(record: EditRecord, roots: tuple[SegmentId, ...]) -> bool:
    """Whether the graph is as a join, cut or redone join would make it."""
    n = len(_held(record)[0])
    left, right = set(roots[:n]), set(roots[n:])
    if record.edit.kind in (EditKind.JOIN, EditKind.REDO):
        return len(left | right) == 1
    return record.edit.kind is EditKind.CUT and not left & right


def _names(roots: Iterable[SegmentId]) -> str:
    return " and ".join(f"…{str(r)[-6:]}" for r in dict.fromkeys(roots))
