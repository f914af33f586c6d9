"""The event log in the tables of a label database, the same for SQLite and PostgreSQL."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import TypeVar

from cb2_assist.core.errors import LabelError
from cb2_assist.core.records import LabelEvent, Verdict
from cb2_assist.labels.codec import decision_from_text, reason_from_text
from cb2_assist.labels.database import Connection, Readers
from cb2_assist.labels.rows import (
    EVENT_COLUMNS,
    REASON_OF,
    append_rows,
    body_of,
    event_of,
    find_event,
)
from cb2_assist.labels.store import (
    Delivery,
    EventKind,
    EventStep,
    Flagged,
    Label,
    NewEvent,
    label_state,
)

T = TypeVar("T")


class EventTables(ABC):
    """The part of a `LabelStore` that is about events."""

    _name: str
    """For messages."""
    _readers: Readers

    @property
    def delivery(self) -> Delivery | None:
        """None: what cannot be written now is refused."""
        return None

    @abstractmethod
    def write(self, task: Callable[[Connection], T]) -> T:
        """See `OnWriter`."""

    def _now(self) -> datetime:
        """By the clock of the database, UTC."""
        return datetime.now(UTC)

    def append(self, event: NewEvent) -> LabelEvent:
        """See `LabelStore.append`."""
        return self.append_all([event])[0]

    def append_all(self, events: Sequence[NewEvent]) -> list[LabelEvent]:
        """See `LabelStore.append_all`."""
        rows = [(e, body_of(e)) for e in events]
        return self.write(lambda conn: append_rows(conn, rows, self._now()))

    def find(self, idempotency_key: str) -> LabelEvent | None:
        """See `LabelStore.find`."""
        with self._readers.borrow() as conn:
            return find_event(conn, "e.idempotency_key = ?", idempotency_key)

    def get(self, event_id: int) -> LabelEvent:
        """See `LabelStore.get`."""
        with self._readers.borrow() as conn:
            found = find_event(conn, "e.id = ?", event_id)
        if found is None:
            raise LabelError(f"There is no event {event_id} in {self._name}.")
        return found

    def events(
        self, *, dataset: str | None = None, user: str | None = None, after: int = 0
    ) -> Iterator[LabelEvent]:
        """See `LabelStore.events`."""
        where, values = _where({"e.dataset": dataset, "e.user": user})
        sql = f"SELECT {EVENT_COLUMNS} FROM events e WHERE e.id > ?{where} ORDER BY e.id"  # noqa: S608
        return map(event_of, self._readers.stream(sql, (after, *values)))

    def steps(self, *, dataset: str, user: str, after: int = 0) -> Iterator[EventStep]:
        """See `LabelStore.steps`."""
        rows = self._readers.stream(
            # bodies of reasons and flags alone: all else that is read here lies in one index
            "SELECT e.id, e.event, e.target, e.version, "
            "CASE WHEN e.event = 'reason' OR s.verdict = 'flag' THEN "
            "(SELECT r.body FROM events r WHERE r.id = e.id) END, s.site, s.is_answer, s.verdict "
            "FROM events e LEFT JOIN event_sites s ON s.event_id = e.id "
            "WHERE e.dataset = ? AND e.user = ? AND e.id > ? ORDER BY e.id, s.place",
            (dataset, user, after),
        )
        for (id_, event, target, version, body), group in groupby(rows, key=lambda row: row[:5]):
            found = [row[5:] for row in group if row[5] is not None]
            is_reason = event == EventKind.REASON
            yield EventStep(
                id_,
                EventKind(event),
                target,
                version,
                tuple(site for site, _, _ in found),
                any(answer for _, answer, _ in found),
                reason_from_text(body) if is_reason else None,
                None if is_reason or body is None else decision_from_text(body).note,
                Verdict(found[0][2]) if found else None,
            )

    def labels(self, *, dataset: str | None = None) -> Iterator[Label]:
        """See `LabelStore.labels`."""
        where, values = _where({"s.dataset": dataset})
        sql = (
            f"SELECT {EVENT_COLUMNS}, s.site, s.verdict, s.state, {REASON_OF} "  # noqa: S608
            "FROM site_states s "
            f"JOIN events e ON e.id = s.event_id WHERE TRUE{where} ORDER BY s.event_id, s.place"
        )
        rows = self._readers.stream(sql, values)
        for _, group in groupby(rows, key=lambda row: row[0]):
            event = None
            for *head, site, verdict, state, body in group:
                event = event or event_of(head)
                reason = None if body is None else reason_from_text(body)
                yield Label(event, site, Verdict(verdict), label_state(event, site, state), reason)

    def flags(self, *, dataset: str | None = None) -> Iterator[Flagged]:
        """See `LabelStore.flags`."""
        where, values = _where({"s.dataset": dataset})
        sql = (
            f"SELECT {EVENT_COLUMNS}, EXISTS (SELECT 1 FROM event_sites a "  # noqa: S608
            "JOIN decisions_in_force d ON d.id = a.event_id WHERE a.dataset = s.dataset "
            "AND a.version = s.version AND a.site = s.site AND a.is_answer = 1) "
            "FROM event_sites s JOIN decisions_in_force e ON e.id = s.event_id "
            f"WHERE s.verdict = 'flag'{where} ORDER BY e.id"
        )
        for *head, is_answered in self._readers.rows(sql, values):
            yield Flagged(event_of(head), bool(is_answered))


def _where(columns: dict[str, str | None]) -> tuple[str, tuple[str, ...]]:
    """`` AND a = ?`` for each value that is given, and the values."""
    given = {name: value for name, value in columns.items() if value is not None}
    return "".join(f" AND {name} = ?" for name in given), tuple(given.values())
