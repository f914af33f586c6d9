"""What must hold in every label file besides what SQLite checks itself."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import groupby
from typing import Any

from cb2_assist.core.errors import AssistError
from cb2_assist.core.records import Decision
from cb2_assist.labels.codec import answered_sites
from cb2_assist.labels.edit_store import edit_from_row, step_from_row
from cb2_assist.labels.rows import EVENT_COLUMNS, decision_columns, event_of, site_columns
from cb2_assist.labels.schema import EDITS_SINCE, MIGRATIONS, migrate
from cb2_assist.labels.store import EventKind

Rows = Callable[[str], Iterator[tuple[Any, ...]]]
"""Runs a query."""

_DECISION_COLUMNS = (
    "suggestion",
    "kind",
    "segment",
    "partner",
    "verdict",
    "score",
    "confidence",
    "model_sha256",
    "views_sha256",
    "decided_at",
)
_SITE_COLUMNS = ("site", "kind", "segment", "partner", "verdict", "is_answer")


def problems_of(rows: Rows) -> Iterator[str]:
    """What is wrong, in words.

    Raises:
        LabelError: The file cannot be read.
    """
    yield from (f"database: {t}" for (t,) in rows("PRAGMA integrity_check") if t != "ok")
    for table, row, parent, _ in rows("PRAGMA foreign_key_check"):
        yield f"{table} row {row} names a missing row of {parent}"
    yield from _changed_layout(rows)
    yield from _missing_events(rows)
    ((version,),) = list(rows("PRAGMA user_version"))
    yield from problems_of_events(rows, version)


def problems_of_events(rows: Rows, version: int) -> Iterator[str]:
    """The part that is the same for every database.

    Args:
        rows: Runs a query.
        version: Of the tables.

    Raises:
        LabelError: It cannot be read.
    """
    yield from _wrong_targets(rows)
    yield from _unreadable_or_changed(rows)
    if version >= EDITS_SINCE:
        yield from _unreadable_edits(rows)


def _changed_layout(rows: Rows) -> Iterator[str]:
    """Tables, views and the triggers that let the events only grow, as this program makes them."""
    layout = "SELECT name, type, sql FROM sqlite_master WHERE sql IS NOT NULL"
    found = {name: (kind, sql) for name, kind, sql in rows(layout)}
    (version,) = next(iter(list(rows("PRAGMA user_version"))))
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as fresh:
        migrate(fresh, MIGRATIONS[:version])
        for name, kind, sql in fresh.execute(layout).fetchall():
            if name not in found:
                yield f"the {kind} {name} is missing"
            elif found[name] != (kind, sql):
                yield f"the {kind} {name} is not as cb2-assist made it"


def _missing_events(rows: Rows) -> Iterator[str]:
    ((n, given),) = list(
        rows(
            "SELECT count(*), max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'),"
            " 0), coalesce(max(id), 0)) FROM events"
        )
    )
    if n != given:
        yield f"{given - n} of {given} events are missing: the log has a gap or lost its end"


def _wrong_targets(rows: Rows) -> Iterator[str]:
    for id_, event, target in rows(
        "SELECT t.id, t.event, t.target FROM events t LEFT JOIN events d ON d.id = t.target "
        "WHERE t.target IS NOT NULL AND (d.id IS NULL OR d.event <> 'decision' OR d.id > t.id "
        "OR d.user <> t.user OR d.dataset <> t.dataset "
        "OR (t.event = 'reason' AND d.verdict NOT IN ('reject', 'unsure', 'none'))) ORDER BY t.id"
    ):
        yield f"event {id_} ({event}) names event {target}, which it cannot be about"
    for id_, event, target in rows(
        "SELECT id, event, target FROM (SELECT id, event, target, lag(event, 1, 'redo') "
        "OVER (PARTITION BY target ORDER BY id) AS earlier FROM events "
        "WHERE event IN ('undo', 'redo')) AS turns WHERE event = earlier ORDER BY id"
    ):
        yield f"event {id_} ({event} of event {target}) has no effect"


def _unreadable_or_changed(rows: Rows) -> Iterator[str]:
    columns = ", ".join(f"e.{name}" for name in (*_DECISION_COLUMNS, "user", "dataset", "version"))
    sites = ", ".join(f"s.{name}" for name in _SITE_COLUMNS)
    query = (
        f"SELECT {EVENT_COLUMNS}, {columns}, {sites} FROM events e "  # noqa: S608
        "LEFT JOIN event_sites s ON s.event_id = e.id ORDER BY e.id, s.place"
    )
    n_event, n_sites = EVENT_COLUMNS.count(",") + 1, len(_SITE_COLUMNS)
    for id_, group in groupby(rows(query), key=lambda row: row[0]):
        found = list(group)
        try:
            event = event_of(found[0][:n_event])
            if event.decision is None:
                continue
            kept = found[0][n_event:-n_sites]
            wrong = _differences(event.decision, kept, [row[-n_sites:] for row in found])
        except AssistError as e:
            yield f"event {id_}: {e}"
            continue
        if event.event == EventKind.DECISION and wrong:
            yield f"event {id_}: {', '.join(wrong)} not as in the decision that was recorded"


def _unreadable_edits(rows: Rows) -> Iterator[str]:
    edits = rows("SELECT key, kind, user, dataset, version, site, decision_key, body FROM edits")
    steps = rows("SELECT edit_key, number, state, operation, body FROM edit_steps")
    for read, found in ((edit_from_row, edits), (step_from_row, steps)):
        for row in found:
            try:
                read(*row)
            except AssistError as e:
                yield str(e)


def _differences(decision: Decision, kept: tuple[Any, ...], sites: list[Any]) -> list[str]:
    wanted = decision_columns(decision)
    names = (*_DECISION_COLUMNS, "user", "dataset", "version")
    wanted |= {name: getattr(decision, name) for name in names[len(_DECISION_COLUMNS) :]}
    wrong = [name for name, value in zip(names, kept, strict=True) if value != wanted[name]]
    expected = [
        tuple(site_columns(site)[name] for name in _SITE_COLUMNS)
        for site in answered_sites(decision)
    ]
    if [tuple(row) for row in sites if row[0] is not None] != expected:
        wrong.append("answered sites")
    return wrong
