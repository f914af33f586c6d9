"""The list of edits on the page: what waits, what has ended lately, and the preview of a cut."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from cb2_assist.core.edits import EditRecord, EditState
from cb2_assist.decisions.edit_facts import words_of
from cb2_assist.labels.edit_store import EditStore

_ENDED_SHOWN = 4


class EditList:
    """Edits of one person in one graph as they are shown; may be used from any thread."""

    def __init__(self, store: EditStore, *, user: str, dataset: str, is_live: bool) -> None:
        """Empty before `refresh`.

        Args:
            store: Keeps edits.
            user: Whose edits.
            dataset: Of which dataset.
            is_live: Whether joins are applied after the grace, without a key.
        """
        self._store, self._user, self._dataset = store, user, dataset
        self._is_live = is_live
        self._lock = threading.Lock()
        self._ended: list[str] = []
        self._rows: dict[str, Any] = {"waiting": []}

    @property
    def n_waiting(self) -> int:
        """Edits that wait for something."""
        return len(self._rows["waiting"])

    def end(self, key: str) -> None:
        """Show an edit among those that have ended, from the next `refresh` on."""
        with self._lock:
            if key not in self._ended:
                self._ended = [*self._ended, key][-_ENDED_SHOWN:]

    def refresh(self) -> None:
        """Read it anew from the store.

        Raises:
            LabelError: It cannot be read.
        """
        open_states = [s for s in EditState if s.is_open]
        # read under the lock: whoever comes last shows what is newest
        with self._lock:
            opened = self._store.records(dataset=self._dataset, user=self._user, states=open_states)
            ended = [self._store.get(key) for key in self._ended]
            previewed = next((r for r in opened if r.step.preview is not None), None)
            points = previewed.step.preview.points if previewed and previewed.step.preview else None
            self._rows = {
                "mode": "live" if self._is_live else "stage",
                "waiting": [_row(r) for r in opened],
                "ended": [_row(r) for r in ended if r is not None and not r.is_open],
                "sides": points and [[p.to_json() for p in side] for side in points],
            }

    def to_json(self, due: Mapping[str, float]) -> dict[str, Any]:
        """As the page reads it.

        Args:
            due: When edits are applied by themselves, by key, on the monotonic clock.
        """
        rows, now = self._rows, time.monotonic()
        left_ms = {key: 1e3 * max(0.0, at - now) for key, at in due.items()}
        return {
            **rows,
            "waiting": [{**row, "due_in_ms": left_ms.get(row["edit"])} for row in rows["waiting"]],
        }


def _row(record: EditRecord) -> dict[str, Any]:
    edit, step = record.edit, record.step
    return {
        "edit": edit.key,
        "number": step.number,
        "kind": edit.kind.value,
        "state": step.state.value,
        "words": words_of(record),
        "note": step.note,
        "point_nm": edit.point.to_json(),
        "suggestion": edit.site,
        "operation": None if step.operation is None else str(step.operation),
        "previewed": step.preview is not None,
        "computing": record.needs_sides,
    }
