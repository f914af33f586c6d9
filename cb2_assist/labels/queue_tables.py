"""The queue in the tables of a label database, the same for SQLite and PostgreSQL."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cb2_assist.core.records import Draw, Kind
from cb2_assist.labels.database import Connection, OnWriter, Readers
from cb2_assist.labels.order_tables import OrderTables, within
from cb2_assist.labels.queue_rows import (
    AS_FOUND,
    AS_JUDGED,
    READ_DRAW,
    READ_FILL,
    READ_ITEM,
    columns_of,
    draw_of,
    fill_of,
    item_of,
)
from cb2_assist.labels.queue_store import (
    LEASE_S,
    NO_ENDS,
    ONE_SEGMENT_NOW,
    Added,
    Ask,
    Fill,
    Lease,
    NewDraw,
    QueueItem,
    QueueState,
    Scope,
    Tally,
    Waiting,
)

_IS_OPEN = "NOT q.is_decided AND NOT q.is_implied AND NOT q.is_flagged AND q.stale IS NULL"
_IS_OF = (
    "(NOT q.is_asked OR (NOT EXISTS (SELECT 1 FROM event_sites s JOIN decisions_in_force d"
    " ON d.id = s.event_id WHERE s.dataset = q.dataset AND s.version = q.version"
    " AND s.site = q.site AND s.user = :user AND s.is_answer = 1)"
    " AND NOT EXISTS (SELECT 1 FROM queue_open_asks a, json_each(a.not_of) n"
    " WHERE a.dataset = q.dataset AND a.version = q.version AND a.site = q.site"
    " AND n.value = :user)))"
)
"""Whether a person, the value ``:user``, may be asked: what is asked again is for those who have no
answer on it. Everybody may where it is NULL."""
_STATE = f"""CASE WHEN q.is_decided THEN 'decided'
 WHEN q.is_implied OR q.stale = '{ONE_SEGMENT_NOW}' THEN 'implied'
 WHEN q.stale IS NOT NULL THEN 'stale'
 WHEN q.is_flagged THEN 'flagged' WHEN NOT {_IS_OF} THEN 'decided'
 WHEN q.lease_until > :now THEN 'leased' WHEN q.is_asked AND q.has_answer THEN 'again'
 WHEN q.skips > 0 THEN 'skipped' ELSE 'open' END"""


class QueueTables(OrderTables):
    """A `QueueStore` that shares the connections of a label store."""

    def __init__(
        self,
        readers: Readers,
        on_writer: OnWriter,
        ahead_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """Nothing is read or written yet.

        Args:
            readers: To read with.
            on_writer: To write with.
            ahead_s: How much later it is by the clock of the database, which is that of the queue:
                with people's own clocks, one that is wrong would end the leases of the others.
        """
        self._readers = readers
        self._on_writer = on_writer
        self._ahead_s = ahead_s

    def begin_fill(
        self, scope: Scope, kind: Kind | None, judge: str, total: int, *, now: float
    ) -> Fill:
        """See `QueueStore.begin_fill`."""
        now += self._ahead_s()

        def task(conn: Connection) -> Fill:
            # one that reached its end, or ran with another model, starts again
            conn.execute(
                "INSERT INTO queue_fills"
                " (dataset, version, scope, kind, judge, done, total, updated_at)"
                " VALUES (?, ?, ?, ?, ?, 0, ?, ?)"
                " ON CONFLICT (dataset, version, scope, kind) DO UPDATE SET"
                " done = CASE WHEN queue_fills.judge = excluded.judge"
                "   AND queue_fills.total = excluded.total"
                "   AND queue_fills.done < queue_fills.total THEN queue_fills.done ELSE 0 END,"
                " judge = excluded.judge, total = excluded.total,"
                " updated_at = excluded.updated_at",
                (scope.dataset, scope.version, scope.text, kind or "", judge, total, now),
            )
            row = conn.execute(
                f"SELECT {READ_FILL} FROM queue_fills"  # noqa: S608
                " WHERE dataset = ? AND version = ? AND scope = ? AND kind = ?",
                (scope.dataset, scope.version, scope.text, kind or ""),
            ).fetchone()
            return fill_of(row)

        return self._on_writer(task)

    def put(
        self,
        fill_id: int,
        items: Sequence[QueueItem],
        *,
        done: int,
        now: float,
        ends: Mapping[str, str] = NO_ENDS,
    ) -> Added:
        """See `QueueStore.put`."""
        now += self._ahead_s()
        rows = [columns_of(i) for i in items]

        def task(conn: Connection) -> Added:
            what = [_put(conn, fill_id, row, now) for row in rows]
            (place,) = conn.execute(
                "UPDATE queue_fills SET done = ?, updated_at = ? WHERE id = ?"
                " RETURNING dataset, version",
                (done, now, fill_id),
            ).fetchall()
            _put_ends(conn, place, {**ends, **_own_ends(rows)})
            return Added(what.count("new"), what.count("updated"))

        return self._on_writer(task)

    def fills(self, dataset: str, version: str) -> list[Fill]:
        """See `QueueStore.fills`."""
        rows = self._readers.rows(
            f"SELECT {READ_FILL} FROM queue_fills WHERE dataset = ? AND version = ?"  # noqa: S608
            " ORDER BY updated_at DESC, id DESC",
            (dataset, version),
        )
        return [fill_of(row) for row in rows]

    def known(self, dataset: str, version: str, sites: Sequence[str], judge: str) -> set[str]:
        """See `QueueStore.known`."""
        rows = self._readers.rows(
            "SELECT site FROM queue_items WHERE dataset = ? AND version = ?"
            " AND site IN (SELECT value FROM json_each(?))"
            " AND model_sha256 || ' ' || calibrator = ? AND stale IS NULL",
            (dataset, version, json.dumps(list(sites)), judge),
        )
        return {site for (site,) in rows}

    def ask_again(self, asks: Sequence[Ask], *, now: float) -> int:
        """See `QueueStore.ask_again`."""
        now += self._ahead_s()

        def task(conn: Connection) -> int:
            return sum(_ask(conn, ask, now) for ask in asks)

        return self._on_writer(task)

    def waiting(self, scope: Scope, *, now: float, user: str | None = None) -> list[Waiting]:
        """See `QueueStore.waiting`."""
        now += self._ahead_s()
        where, values = within(scope)
        rows = self._readers.rows(
            "SELECT q.site, q.kind, q.score, q.confidence, q.skips, q.is_ood FROM queue_states q"  # noqa: S608
            f" WHERE {where} AND {_IS_OPEN} AND {_IS_OF}"
            " AND (q.lease_until IS NULL OR q.lease_until <= :now) ORDER BY q.site",
            {**values, "now": now, "user": user},
        )
        return [Waiting(s, Kind(k), score, c, skips, bool(o)) for s, k, score, c, skips, o in rows]

    def scores(
        self, dataset: str, kind: Kind, *, model_sha256: str, calibrator: str
    ) -> list[float]:
        """See `QueueStore.scores`."""
        rows = self._readers.rows(
            "SELECT score FROM queue_items WHERE dataset = ? AND kind = ? AND model_sha256 = ?"
            " AND substr(calibrator, 1, ?) = ? AND stale IS NULL ORDER BY version, site",
            (dataset, kind.value, model_sha256, len(calibrator), calibrator),
        )
        return [float(score) for (score,) in rows]

    def judged_by(self, dataset: str, version: str) -> Counter[str]:
        """See `QueueStore.judged_by`."""
        rows = self._readers.rows(
            "SELECT model_sha256, count(*) FROM queue_items"
            " WHERE dataset = ? AND version = ? AND stale IS NULL GROUP BY model_sha256",
            (dataset, version),
        )
        return Counter({str(sha256): int(n) for sha256, n in rows})

    def draws_made(self, dataset: str, version: str, user: str) -> int:
        """See `QueueStore.draws_made`."""
        with self._readers.borrow() as conn:
            return _draws_made(conn, dataset, version, user)

    def take(self, draw: NewDraw, *, now: float, lease_s: float = LEASE_S) -> Draw | None:
        """See `QueueStore.take`."""
        now += self._ahead_s()

        def task(conn: Connection) -> Draw | None:
            return _take(conn, draw, now, now + lease_s)

        return self._on_writer(task)

    def item(self, dataset: str, version: str, site: str) -> QueueItem | None:
        """See `QueueStore.item`."""
        with self._readers.borrow() as conn:
            row = conn.execute(
                f"SELECT {READ_ITEM} FROM queue_items"  # noqa: S608
                " WHERE dataset = ? AND version = ? AND site = ?",
                (dataset, version, site),
            ).fetchone()
        return None if row is None else item_of(row)

    def last_draw(self, dataset: str, version: str, user: str) -> Draw | None:
        """See `QueueStore.last_draw`."""
        with self._readers.borrow() as conn:
            row = conn.execute(
                f"SELECT {READ_DRAW} FROM queue_draws d"  # noqa: S608
                " WHERE d.dataset = ? AND d.version = ? AND d.user = ? ORDER BY d.id DESC LIMIT 1",
                (dataset, version, user),
            ).fetchone()
        return None if row is None else draw_of(row)

    def held(self, dataset: str, version: str, user: str) -> Draw | None:
        """See `QueueStore.held`."""
        with self._readers.borrow() as conn:
            row = conn.execute(
                f"SELECT {READ_DRAW} FROM queue_states q"  # noqa: S608
                " JOIN queue_draws d ON d.id = q.lease_draw"
                " WHERE q.dataset = :dataset AND q.version = :version AND q.lease_user = :user"
                f" AND {_IS_OPEN} AND {_IS_OF} ORDER BY d.id DESC LIMIT 1",
                {"dataset": dataset, "version": version, "user": user},
            ).fetchone()
        return None if row is None else draw_of(row)

    def renew(self, draw: Draw, *, now: float, lease_s: float = LEASE_S) -> None:
        """See `QueueStore.renew`."""
        now += self._ahead_s()

        def task(conn: Connection) -> None:
            conn.execute(
                "UPDATE queue_items SET lease_until = ? WHERE lease_draw = ?",
                (now + lease_s, draw.id),
            )

        self._on_writer(task)

    def release(self, dataset: str, version: str, user: str, *, now: float) -> None:
        """See `QueueStore.release`."""
        now += self._ahead_s()

        def task(conn: Connection) -> None:
            _release(conn, dataset, version, user, now)

        self._on_writer(task)

    def mark_stale(
        self,
        dataset: str,
        version: str,
        site: str,
        reason: str,
        *,
        user: str,
        now: float,
        instead: QueueItem | None = None,
    ) -> None:
        """See `QueueStore.mark_stale`."""
        now += self._ahead_s()
        row = None if instead is None else columns_of(instead)

        def task(conn: Connection) -> None:
            rows = conn.execute(
                "UPDATE queue_items SET stale = ?, lease_user = NULL, lease_until = NULL,"
                " lease_draw = NULL WHERE dataset = ? AND version = ? AND site = ?"
                " RETURNING id, fill",
                (reason, dataset, version, site),
            ).fetchall()
            for item, fill in rows:
                _note(conn, item, "stale", user, now, reason)
                if row is not None:
                    _put(conn, fill, row, now)
                    _put_ends(conn, (dataset, version), _own_ends([row]))

        self._on_writer(task)

    def tally(
        self, scope: Scope | None = None, *, now: float, user: str | None = None
    ) -> list[Tally]:
        """See `QueueStore.tally`."""
        now += self._ahead_s()
        where, values = ("TRUE", {}) if scope is None else within(scope)
        rows = self._readers.rows(
            f"SELECT q.dataset, q.version, q.kind, {_STATE} AS state, count(*),"  # noqa: S608
            f" min(q.scored_at) FROM queue_states q WHERE {where} GROUP BY 1, 2, 3, 4"
            " ORDER BY 1, 2, 3, 4",
            {**values, "now": now, "user": user},
        )
        return [Tally(d, v, Kind(k), QueueState(s), n, at) for d, v, k, s, n, at in rows]

    def leases(self, dataset: str, version: str, *, now: float) -> list[Lease]:
        """See `QueueStore.leases`."""
        now += self._ahead_s()
        rows = self._readers.rows(
            "SELECT q.site, q.lease_user, q.lease_until FROM queue_states q"
            " WHERE q.dataset = ? AND q.version = ? AND q.lease_until > ?"
            " AND NOT q.is_decided AND NOT q.is_implied AND NOT q.is_flagged"
            " ORDER BY q.lease_until, q.site",
            (dataset, version, now),
        )
        return [Lease(site, user, until - self._ahead_s()) for site, user, until in rows]


def _put(conn: Connection, fill_id: int, row: dict[str, Any], now: float) -> str:
    """Keep one site; returns what became of it."""
    known = conn.execute(
        f"SELECT id, segment, has_answer, stale, {', '.join(AS_JUDGED)} FROM queue_states"  # noqa: S608
        " WHERE dataset = ? AND version = ? AND site = ?",
        (row["dataset"], row["version"], row["site"]),
    ).fetchone()
    if known is None:
        _insert(conn, {**row, "fill": fill_id, "added_at": now, "scored_at": now})
        return "new"
    item, segment, has_answer, stale, *before = known
    # a join seen from its other side is the same site, judged as the first side saw it
    if has_answer or segment != row["segment"]:
        return "left"
    judged = {name: row[name] for name in AS_JUDGED}
    names = ", ".join(f"{name} = ?" for name in judged)
    conn.execute(
        f"UPDATE queue_items SET {names}, scored_at = ?, stale = NULL WHERE id = ?",  # noqa: S608
        (*judged.values(), now, item),
    )
    if stale is not None:
        _note(conn, item, "found", None, now, "")
    told = len(AS_FOUND)
    return "updated" if before[told:] != list(judged.values())[told:] else "left"


def _own_ends(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    return {r["site"]: r["joint"] for r in rows if r["joint"] is not None}


def _put_ends(conn: Connection, place: tuple[str, str], ends: Mapping[str, str]) -> None:
    conn.executemany(
        "INSERT INTO queue_ends (dataset, version, site, joint)"
        " VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        [(*place, site, joint) for site, joint in ends.items()],
    )


def _insert(conn: Connection, row: dict[str, Any]) -> None:
    names, marks = ", ".join(row), ", ".join("?" * len(row))
    conn.execute(
        f"INSERT INTO queue_items ({names}) VALUES ({marks})",  # noqa: S608 - our own names
        tuple(row.values()),
    )


def _take(conn: Connection, draw: NewDraw, now: float, until: float) -> Draw | None:
    scope = draw.scope
    where = (scope.dataset, scope.version)
    free = conn.execute(
        "SELECT q.id FROM queue_states q WHERE q.dataset = :dataset AND q.version = :version"  # noqa: S608
        f" AND q.site = :site AND {_IS_OPEN} AND {_IS_OF}"
        " AND (q.lease_until IS NULL OR q.lease_until <= :now)",
        {
            "dataset": scope.dataset,
            "version": scope.version,
            "site": draw.site,
            "now": now,
            "user": draw.user,
        },
    ).fetchone()
    if free is None or _draws_made(conn, *where, draw.user) != draw.number:
        return None
    _release(conn, *where, draw.user, now)
    (made,) = conn.execute(
        "INSERT INTO queue_draws (at, dataset, version, user, number, scope, strategy, floor,"
        " seed, n_open, place, explore, probability, site)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
        (
            now,
            *where,
            draw.user,
            draw.number,
            scope.text,
            draw.strategy,
            draw.floor,
            draw.seed,
            draw.n_open,
            draw.place,
            int(draw.explore),
            draw.probability,
            draw.site,
        ),
    ).fetchone()
    conn.execute(
        "UPDATE queue_items SET lease_user = ?, lease_until = ?, lease_draw = ? WHERE id = ?",
        (draw.user, until, made, free[0]),
    )
    _note(conn, free[0], "leased", draw.user, now, f"draw {made}")
    return draw_of(
        conn.execute(f"SELECT {READ_DRAW} FROM queue_draws d WHERE d.id = ?", (made,)).fetchone()  # noqa: S608
    )


def _release(conn: Connection, dataset: str, version: str, user: str, now: float) -> None:
    rows = conn.execute(
        "UPDATE queue_items SET lease_user = NULL, lease_until = NULL, lease_draw = NULL"
        " WHERE dataset = ? AND version = ? AND lease_user = ? RETURNING id",
        (dataset, version, user),
    ).fetchall()
    for (item,) in rows:
        _note(conn, item, "released", user, now, "")


def _note(
    conn: Connection, item: int, what: str, user: str | None, now: float, detail: str
) -> None:
    conn.execute(
        "INSERT INTO queue_trail (at, item, what, user, detail) VALUES (?, ?, ?, ?, ?)",
        (now, item, what, user, detail),
    )


def _draws_made(conn: Connection, dataset: str, version: str, user: str) -> int:
    (n,) = conn.execute(
        "SELECT count(*) FROM queue_draws WHERE dataset = ? AND version = ? AND user = ?",
        (dataset, version, user),
    ).fetchone()
    return int(n)


def _ask(conn: Connection, ask: Ask, now: float) -> int:
    """Ask unless that waits already; returns how many rows were written."""
    values = {
        "at": now,
        "dataset": ask.dataset,
        "version": ask.version,
        "site": ask.site,
        "source": ask.source,
        "people": ask.people,
        "after_event": ask.after_event,
        "not_of": json.dumps(list(ask.not_of)),
    }
    same = "dataset = :dataset AND version = :version AND site = :site"
    return conn.execute(
        "INSERT INTO queue_asks (at, dataset, version, site, source, people, after_event, not_of)"  # noqa: S608
        " SELECT :at, :dataset, :version, :site, :source, :people, :after_event, :not_of"
        f" WHERE EXISTS (SELECT 1 FROM queue_items WHERE {same})"
        f" AND NOT EXISTS (SELECT 1 FROM queue_open_asks WHERE {same} AND source = :source)",
        values,
    ).rowcount
