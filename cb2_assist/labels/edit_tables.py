"""Edits and their steps in the tables of a label database, SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from cb2_assist.core.edits import (
    Edit,
    EditRecord,
    EditState,
    EditStep,
    Operation,
    Operations,
)
from cb2_assist.core.errors import LabelError
from cb2_assist.labels.database import Connection, OnWriter, Readers
from cb2_assist.labels.edit_store import (
    AnswerKey,
    StaleEditError,
    edit_from_row,
    edit_to_text,
    step_from_row,
    step_to_text,
)

_EDIT = "e.key, e.kind, e.user, e.dataset, e.version, e.site, e.decision_key, e.body"
_STEP = "s.number, s.state, s.operation, s.body"
_NEWEST = (
    f"SELECT {_EDIT}, {_STEP} FROM edits e JOIN edit_steps s ON s.edit_key = e.key"  # noqa: S608
    " AND s.number = (SELECT max(n.number) FROM edit_steps n WHERE n.edit_key = e.key)"
)


class EditTables:
    """An `EditStore` in the label database."""

    def __init__(self, readers: Readers, on_writer: OnWriter) -> None:
        self._readers, self._on_writer = readers, on_writer

    def add(self, edit: Edit, note: str = "") -> EditRecord:
        """See `EditStore.add`."""
        body = edit_to_text(edit)
        first = replace(EditStep(EditState.STAGED, note=note), number=1, at=_now())

        def task(conn: Connection) -> bool:
            known = conn.execute("SELECT 1 FROM edits WHERE key = ?", (edit.key,)).fetchone()
            if known:
                return False
            conn.execute(
                "INSERT INTO edits (key, kind, user, dataset, version, site, decision_key, body)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(edit.key, edit.kind.value, edit.user, edit.dataset, edit.version),
                    *(edit.site, edit.decision_key, body),
                ),
            )
            _insert(conn, edit.key, first)
            return True

        if self._on_writer(task):
            return EditRecord(edit, first)
        stored = self.get(edit.key)
        if stored is None:
            raise LabelError(f"The edit {edit.key} could not be read back. Nothing was recorded.")
        return stored

    def advance(self, record: EditRecord, step: EditStep) -> EditRecord:
        """See `EditStore.advance`."""
        key, made = record.edit.key, replace(step, number=record.step.number + 1, at=_now())

        def task(conn: Connection) -> bool:
            (newest,) = conn.execute(
                "SELECT max(number) FROM edit_steps WHERE edit_key = ?", (key,)
            ).fetchone()
            if newest != record.step.number:
                return False
            _insert(conn, key, made)
            return True

        if not self._on_writer(task):
            raise StaleEditError
        return EditRecord(record.edit, made)

    def get(self, key: str) -> EditRecord | None:
        """See `EditStore.get`."""
        rows = list(self._readers.rows(f"{_NEWEST} WHERE e.key = ?", (key,)))
        return _record(rows[0]) if rows else None

    def steps(self, key: str) -> list[EditStep]:
        """See `EditStore.steps`."""
        rows = self._readers.rows(
            f"SELECT {_STEP} FROM edit_steps s WHERE s.edit_key = ? ORDER BY s.number",  # noqa: S608
            (key,),
        )
        return [step_from_row(key, *row) for row in rows]

    def records(
        self,
        *,
        dataset: str,
        user: str | None = None,
        site: str | None = None,
        states: Collection[EditState] | None = None,
    ) -> list[EditRecord]:
        """See `EditStore.records`."""
        given = {"e.dataset": dataset, "e.user": user, "e.site": site}
        known = {name: value for name, value in given.items() if value is not None}
        where, values = [f"{name} = ?" for name in known], [*known.values()]
        if states is not None:
            where.append(f"s.state IN ({', '.join('?' * len(states))})")
            values += sorted(state.value for state in states)
        query = f"{_NEWEST} WHERE {' AND '.join(where)} ORDER BY e.id"
        return [_record(row) for row in self._readers.rows(query, values)]

    def operations(self, dataset: str | None = None) -> dict[AnswerKey, Operations]:
        """See `EditStore.operations`."""
        where, values = ("", ()) if dataset is None else (" AND e.dataset = ?", (dataset,))
        rows = self._readers.rows(
            f"SELECT {_EDIT}, {_STEP} FROM edits e JOIN edit_steps s ON s.edit_key = e.key"  # noqa: S608
            f" WHERE s.operation IS NOT NULL AND s.state IN ('applied', 'undone'){where}"
            " ORDER BY e.id, s.number",
            values,
        )
        steps: dict[AnswerKey, list[EditRecord]] = {}
        for record in map(_record, rows):
            e = record.edit
            steps.setdefault((e.dataset, e.version, e.site, e.user), []).append(record)
        return {key: _operations(records) for key, records in steps.items()}


def _insert(conn: Connection, key: str, step: EditStep) -> None:
    conn.execute(
        "INSERT INTO edit_steps (edit_key, number, state, operation, body) VALUES (?, ?, ?, ?, ?)",
        (
            key,
            step.number,
            step.state.value,
            None if step.operation is None else str(step.operation),
            step_to_text(step),
        ),
    )


def _operations(records: list[EditRecord]) -> Operations:
    """Of the steps of one answer's edits that have a number, in order."""
    made: dict[int, Operation] = {}
    stands: dict[str, bool] = {}
    forward: int | None = None
    for record in records:
        edit, step = record.edit, record.step
        assert step.operation is not None, "the query asks for those that have one"
        if step.operation not in made:
            made[step.operation] = Operation(
                step.operation, edit.kind, edit.operation, step.at, step.new_roots
            )
            forward = step.operation if record.is_forward else forward
        if edit.turns is None:
            stands[edit.key] = step.state is EditState.APPLIED
    return Operations(tuple(made.values()), forward if any(stands.values()) else None)


def _record(row: tuple[Any, ...]) -> EditRecord:
    edit = edit_from_row(*row[:8])
    return EditRecord(edit, step_from_row(edit.key, *row[8:]))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
