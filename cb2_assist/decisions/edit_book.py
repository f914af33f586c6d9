"""The edits of one person in one graph as they are stored: how they hang together, what is next."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime

from cb2_assist.core.edits import Edit, EditKind, EditRecord, EditState
from cb2_assist.core.records import SegmentId
from cb2_assist.labels.edit_store import EditStore


class EditBook:
    """Reads edits and appends steps to them.

    Args:
        store: Keeps both.
        user: Whose edits.
        dataset: Of which dataset.
        clock: This moment, aware.
    """

    def __init__(
        self, store: EditStore, *, user: str, dataset: str, clock: Callable[[], datetime]
    ) -> None:
        self._store, self._user, self._dataset, self.clock = store, user, dataset, clock

    def add(self, edit: Edit, note: str = "") -> EditRecord:
        """See `EditStore.add`."""
        return self._store.add(edit, note)

    def records(self) -> list[EditRecord]:
        """All of them, oldest first."""
        return self._store.records(dataset=self._dataset, user=self._user)

    def is_explained(
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

    def operation(self, record: EditRecord) -> int | None:
        """What an undo or redo turns; when it was staged, that may not have been known yet."""
        if record.edit.kind not in (EditKind.UNDO, EditKind.REDO):
            return None
        return self.original(record).step.operation

    def open_turn(self, edit: Edit, kind: EditKind) -> EditRecord | None:
        """What takes an edit back or makes it again and is not ended."""
        turns = [r for r in self.of_site(edit) if r.edit.turns == edit.key]
        return next((r for r in turns if r.is_open and r.edit.kind is kind), None)

    def count(self, edit: Edit) -> int:
        """Edits on its site, for a key of its own."""
        return len(self.of_site(edit))

    def of_site(self, edit: Edit) -> list[EditRecord]:
        """Edits on the site of one."""
        return self._store.records(dataset=self._dataset, user=self._user, site=edit.site)

    def original(self, record: EditRecord) -> EditRecord:
        """What an undo, a redo or an inverse edit turns."""
        found = self._store.get(record.edit.turns or "")
        assert found is not None, "an edit is turned by its key"
        return found

    def newest(self, record: EditRecord) -> EditRecord:
        """An edit with all that has happened to it by now."""
        return self._store.get(record.edit.key) or record

    def step(self, record: EditRecord, state: EditState, **changes: object) -> EditRecord:
        """Record a step that follows from the given one.

        Raises:
            StaleEditError: Something else has happened to the edit.
        """
        return self._store.advance(record, replace(record.step, state=state, **changes))  # type: ignore[arg-type]

    def step_once(self, record: EditRecord, state: EditState, note: str) -> EditRecord:
        """The same, unless it says so already."""
        if (record.state, record.step.note) == (state, note):
            return record
        return self.step(record, state, note=note)

    def now(self) -> str:
        """This moment, as steps keep it."""
        return self.clock().isoformat()
