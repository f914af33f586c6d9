"""One event, one row: how events are written in a transaction and read back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from cb2_assist.core.errors import DecisionError
from cb2_assist.core.reasons import REASON_NAMES
from cb2_assist.core.records import Decision, LabelEvent, Verdict
from cb2_assist.labels.codec import (
    AnsweredSite,
    answered_sites,
    decision_from_text,
    decision_to_text,
    reason_from_text,
    reason_to_text,
)
from cb2_assist.labels.database import Connection, Cursor
from cb2_assist.labels.store import EventKind, NewEvent, StaleEventError

EVENT_COLUMNS = "e.id, e.event, e.target, e.recorded_at, e.user, e.idempotency_key, e.body"
"""What `event_of` reads, from a table or view ``e``."""

REASON_OF = (
    "(SELECT r.body FROM events r WHERE r.target = e.id AND r.event = 'reason'"
    " ORDER BY r.id DESC LIMIT 1)"
)
"""Body of the last reason of the decision ``e``. Finds none in a file of schema 1, and reads it."""


def append_rows(
    conn: Connection, rows: Sequence[tuple[NewEvent, str | None]], now: datetime
) -> list[LabelEvent]:
    """Append events with their `body_of`, inside a transaction that no other writer's overlaps.

    Raises:
        DecisionError: A key belongs to a different event, or a target cannot be undone or redone.
        StaleEventError: See `NewEvent.after`.
    """
    recorded_at = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return [_append(conn, event, body, recorded_at) for event, body in rows]


def _append(conn: Connection, new: NewEvent, body: str | None, recorded_at: str) -> LabelEvent:
    stored = find_event(conn, "e.idempotency_key = ?", new.idempotency_key)
    if stored is not None:
        _check_same(conn, new, stored)
        return stored
    if new.after is not None:
        newer = conn.execute(
            "SELECT 1 FROM events WHERE dataset = ? AND user = ? AND id > ? LIMIT 1",
            (new.dataset, new.user, new.after),
        ).fetchone()
        if newer:
            raise StaleEventError
    if new.target is not None:
        _check_target(conn, new)
    columns = {
        "event": new.event.value,
        "target": new.target,
        "recorded_at": recorded_at,
        "idempotency_key": new.idempotency_key,
        "user": new.user,
        "dataset": new.dataset,
        "version": new.version,
        "body": body,
        **({} if new.decision is None else decision_columns(new.decision)),
    }
    (event_id,) = _insert(conn, "events", columns, "RETURNING id").fetchone()
    _insert_sites(conn, new, event_id)
    return LabelEvent(
        event_id,
        new.event.value,
        new.target,
        recorded_at,
        new.user,
        new.idempotency_key,
        new.decision,
        new.reason,
    )


def decision_columns(d: Decision) -> dict[str, Any]:
    """What a row repeats of its decision, for queries."""
    s = d.suggestion
    return {
        "suggestion": s.id,
        "kind": s.site.kind.value,
        "segment": str(s.site.segment),
        "partner": None if s.site.partner is None else str(s.site.partner),
        "verdict": d.verdict.value,
        "score": s.score,
        "confidence": s.confidence,
        "model_sha256": d.model_sha256,
        "views_sha256": d.views_sha256,
        "decided_at": d.decided_at,
    }


def _insert_sites(conn: Connection, new: NewEvent, event_id: int) -> None:
    if new.decision is None:
        return
    for place, site in enumerate(answered_sites(new.decision)):
        columns = {
            "event_id": event_id,
            "place": place,
            "dataset": new.dataset,
            "version": new.version,
            "user": new.user,
            **site_columns(site),
        }
        _insert(conn, "event_sites", columns)


def site_columns(site: AnsweredSite) -> dict[str, Any]:
    """What a row of ``event_sites`` says about its site."""
    return {
        "site": site.id,
        "kind": site.kind.value,
        "segment": site.segment,
        "partner": site.partner,
        "verdict": site.verdict.value,
        "is_answer": int(site.verdict.is_answer),
    }


def _insert(conn: Connection, table: str, columns: dict[str, Any], then: str = "") -> Cursor:
    names = ", ".join(columns)
    marks = ", ".join("?" * len(columns))
    # table and columns are written in this module
    sql = f"INSERT INTO {table} ({names}) VALUES ({marks}) {then}"  # noqa: S608
    return conn.execute(sql, tuple(columns.values()))


def _check_same(conn: Connection, new: NewEvent, stored: LabelEvent) -> None:
    (dataset, version) = conn.execute(
        "SELECT dataset, version FROM events WHERE id = ?", (stored.id,)
    ).fetchone()
    check_same(new, stored, (dataset, version))


def check_same(new: NewEvent, stored: LabelEvent, place: tuple[str, str]) -> None:
    """A key that comes again must mean the same.

    Args:
        new: What came.
        stored: What was recorded with this key.
        place: Dataset and version of ``stored``.

    Raises:
        DecisionError: It means something else.
    """
    dataset, version = place
    same = (new.event.value, new.user, new.dataset) == (stored.event, stored.user, dataset)
    if same and new.decision is not None and stored.decision is not None:
        a, b = new.decision, stored.decision
        same = (a.suggestion.id, a.verdict, a.version) == (b.suggestion.id, b.verdict, version)
    if same and new.event is EventKind.REASON:
        same = (new.target, new.reason) == (stored.target, stored.reason)
    if not same:
        was = stored.event
        if stored.decision is not None:
            was = f"{stored.decision.verdict.value} on {stored.decision.suggestion.id}"
        raise DecisionError(
            f"The key {new.idempotency_key!r} was already used for another answer ({was}, event "
            f"{stored.id}). Nothing was recorded; send this answer with a key of its own."
        )


def _check_target(conn: Connection, new: NewEvent) -> None:
    """An undo needs a decision in force, a redo one that was undone, of the same person.

    A reason needs a reject, unsure or none in force.

    Raises:
        DecisionError: It is not so.
    """
    found = conn.execute(
        "SELECT EXISTS (SELECT 1 FROM decisions_in_force d WHERE d.id = e.id), e.verdict "
        "FROM events e "
        "WHERE e.id = ? AND e.event = 'decision' AND e.user = ? AND e.dataset = ?",
        (new.target, new.user, new.dataset),
    ).fetchone()
    fits = found is not None and bool(found[0]) is (new.event is not EventKind.REDO)
    if fits and new.event is EventKind.REASON:
        fits = found[1] in _WITH_REASON
    if not fits:
        raise DecisionError(
            f"Event {new.target} is no decision of {new.user} in {new.dataset} that can be "
            f"{_TURNED[new.event]} now. Nothing was recorded."
        )


_WITH_REASON = (Verdict.REJECT.value, Verdict.UNSURE.value, Verdict.NONE.value)
_TURNED = {
    EventKind.UNDO: "undone",
    EventKind.REDO: "redone",
    EventKind.REASON: "given a reason (a reject, unsure or none in force)",
}


def body_of(new: NewEvent) -> str | None:
    """Text of a decision or reason; made before the transaction, so that it stays short.

    Raises:
        DecisionError: The event contradicts itself.
    """
    if not new.idempotency_key:
        raise DecisionError("An event needs an idempotency key. Nothing was recorded.")
    is_decision = new.event is EventKind.DECISION
    if is_decision != (new.decision is not None) or is_decision != (new.target is None):
        raise DecisionError("Only decisions carry an answer, and only other events have a target.")
    if (new.event is EventKind.REASON) != (new.reason is not None):
        raise DecisionError("Reasons carry a reason, and only they.")
    if new.reason is not None:
        if new.reason not in REASON_NAMES:
            known = ", ".join(sorted(REASON_NAMES))
            raise DecisionError(f"There is no reason {new.reason!r}. Known: {known}.")
        return reason_to_text(new.reason)
    if new.decision is None:
        return None
    answered_sites(new.decision)
    return decision_to_text(new.decision)


def find_event(conn: Connection, where: str, value: str | int) -> LabelEvent | None:
    """The one event for which ``where``, an expression with one ``?``, is true."""
    row = conn.execute(f"SELECT {EVENT_COLUMNS} FROM events e WHERE {where}", (value,)).fetchone()  # noqa: S608
    return None if row is None else event_of(row)


def event_of(row: Sequence[Any]) -> LabelEvent:
    """Read the columns `EVENT_COLUMNS`.

    Raises:
        LabelError: The text of the decision or reason is damaged.
    """
    id_, event, target, recorded_at, user, key, body = row
    decision = decision_from_text(body) if event == EventKind.DECISION else None
    reason = reason_from_text(body) if event == EventKind.REASON else None
    return LabelEvent(id_, event, target, recorded_at, user, key, decision, reason)
