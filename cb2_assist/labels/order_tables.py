"""What the order of a queue rests on, in the tables of a label database."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime

from cb2_assist.core.records import Kind, Verdict
from cb2_assist.labels.database import Connection, OnWriter, Readers
from cb2_assist.labels.queue_store import Answered, DrawnAtRandom, Scope, SiteSignals


class OrderTables:
    """The part of a `QueueStore` that strategies and estimates need."""

    _readers: Readers
    _on_writer: OnWriter
    _ahead_s: Callable[[], float]

    def put_signals(self, dataset: str, version: str, signals: Mapping[str, SiteSignals]) -> None:
        """See `QueueStore.put_signals`."""
        rows = [
            (
                *(dataset, version, site, s.score, s.contact, s.small, s.big),
                *(json.dumps(s.views), s.embedding),
            )
            for site, s in signals.items()
        ]
        if not rows:
            return

        def task(conn: Connection) -> None:
            conn.executemany(
                "INSERT INTO queue_signals"
                " (dataset, version, site, score, contact, small, big, views, embedding)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (dataset, version, site) DO UPDATE SET"
                " score = excluded.score, contact = excluded.contact,"
                " small = excluded.small, big = excluded.big,"
                " views = excluded.views, embedding = excluded.embedding",
                rows,
            )

        self._on_writer(task)

    def signals(self, scope: Scope) -> dict[str, SiteSignals]:
        """See `QueueStore.signals`."""
        where, values = within(scope)
        rows = self._readers.rows(
            "SELECT s.site, s.score, s.contact, s.small, s.big, s.views, s.embedding"  # noqa: S608
            " FROM queue_items q JOIN queue_signals s"
            " ON s.dataset = q.dataset AND s.version = q.version AND s.site = q.site"
            f" WHERE {where} AND q.stale IS NULL",
            values,
        )
        return {
            site: SiteSignals(score, contact, small, big, tuple(json.loads(views)), embedding)
            for site, score, contact, small, big, views, embedding in rows
        }

    def set_order(self, scope: Scope, strategy: str, *, now: float) -> None:
        """See `QueueStore.set_order`."""
        now += self._ahead_s()

        def task(conn: Connection) -> None:
            conn.execute(
                "INSERT INTO queue_orders (at, dataset, version, scope, strategy)"
                " VALUES (?, ?, ?, ?, ?)",
                (now, scope.dataset, scope.version, scope.text, strategy),
            )

        self._on_writer(task)

    def order(self, scope: Scope) -> str | None:
        """See `QueueStore.order`."""
        rows = list(
            self._readers.rows(
                "SELECT strategy FROM queue_orders WHERE dataset = ? AND version = ? AND scope = ?"
                " ORDER BY id DESC LIMIT 1",
                (scope.dataset, scope.version, scope.text),
            )
        )
        return str(rows[0][0]) if rows else None

    def drawn_at_random(self, scope: Scope) -> list[DrawnAtRandom]:
        """See `QueueStore.drawn_at_random`."""
        rows = self._readers.rows(
            "SELECT site, at, n_open FROM queue_draws"
            " WHERE dataset = ? AND version = ? AND scope = ?"
            " AND (explore = 1 OR strategy = 'random') ORDER BY id",
            (scope.dataset, scope.version, scope.text),
        )
        return [DrawnAtRandom(*row) for row in rows]

    def answered(self, scope: Scope) -> list[Answered]:
        """See `QueueStore.answered`."""
        where, values = within(scope)
        rows = self._readers.rows(
            "SELECT q.site, q.kind, c.verdict, e.recorded_at"  # noqa: S608
            " FROM queue_items q JOIN current_labels c"
            " ON c.dataset = q.dataset AND c.version = q.version AND c.site = q.site"
            f" JOIN events e ON e.id = c.event_id WHERE {where} AND q.stale IS NULL"
            " AND c.verdict IN ('accept', 'reject') ORDER BY e.id",
            values,
        )
        # of several people's answers the last one counts
        last = {
            site: Answered(site, Kind(kind), Verdict(verdict), _unix(at))
            for site, kind, verdict, at in rows
        }
        return list(last.values())

    def last_added(self, scope: Scope) -> float | None:
        """See `QueueStore.last_added`."""
        where, values = within(scope)
        query = f"SELECT max(q.added_at) FROM queue_items q WHERE {where}"  # noqa: S608
        ((last,),) = self._readers.rows(query, values)
        return None if last is None else float(last)


def within(scope: Scope) -> tuple[str, dict[str, str | float]]:
    """A condition on ``q`` for the sites of a scope, and its values."""
    where = ["q.dataset = :dataset", "q.version = :version"]
    values: dict[str, str | float] = {"dataset": scope.dataset, "version": scope.version}
    if scope.segments:
        among = "IN (SELECT value FROM json_each(:segments))"
        where.append(f"(q.segment {among} OR q.partner {among})")
        values["segments"] = json.dumps([str(s) for s in scope.segments])
    if scope.box_nm is not None:
        for axis, low, high in zip("xyz", *scope.box_nm, strict=True):
            where.append(f"q.{axis}_nm >= :{axis}0 AND q.{axis}_nm < :{axis}1")
            values |= {f"{axis}0": low, f"{axis}1": high}
    if scope.source:
        where.append(
            "EXISTS (SELECT 1 FROM queue_asks a WHERE a.dataset = q.dataset"
            " AND a.version = q.version AND a.site = q.site AND a.source = :source)"
        )
        values["source"] = scope.source
    return " AND ".join(where), values


def _unix(recorded_at: str) -> float:
    return datetime.fromisoformat(recorded_at).timestamp()
