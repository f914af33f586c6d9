"""Tables of a label file, and the steps that bring an older file up to date.

Segment ids are text: SQLite integers have a sign bit. ``events`` is the truth; ``event_sites`` is
written in the same transaction and says which sites an event answers, so that the labels in force
are a plain view.

A step that has been released is never edited: files that it made are out there.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

from cb2_assist.labels.database import Connection
from cb2_assist.labels.edit_schema import EDIT_STATEMENTS, IS_OLD_EDIT, IS_OLD_STEP
from cb2_assist.labels.order_schema import ORDER_STATEMENTS
from cb2_assist.labels.queue_schema import ASK_STATEMENTS, FLAG_STATEMENTS, QUEUE_STATEMENTS

APPLICATION_ID = 0x43423241
"""``CB2A``, in the header of every label file."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema. Its place in `MIGRATIONS`, from 1, is the version that it makes."""

    name: str
    statements: tuple[str, ...]
    then: Callable[[Connection], None] | None = None


def _make_salt(conn: Connection) -> None:
    conn.execute("INSERT INTO about VALUES ('salt', ?)", (secrets.token_hex(32),))


_EVENTS = """
CREATE TABLE events (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  event TEXT NOT NULL CHECK (event IN ('decision', 'undo', 'redo')),
  target INTEGER REFERENCES events (id),
  recorded_at TEXT NOT NULL,
  idempotency_key TEXT NOT NULL UNIQUE CHECK (idempotency_key <> ''),
  user TEXT NOT NULL,
  dataset TEXT NOT NULL,
  version TEXT NOT NULL,
  suggestion TEXT,
  kind TEXT,
  segment TEXT,
  partner TEXT,
  verdict TEXT,
  score REAL,
  confidence REAL,
  model_sha256 TEXT,
  views_sha256 TEXT,
  decided_at TEXT,
  body TEXT,
  CHECK ((event = 'decision') = (target IS NULL)),
  CHECK ((event = 'decision') = (body IS NOT NULL AND suggestion IS NOT NULL
                                 AND kind IS NOT NULL AND segment IS NOT NULL
                                 AND verdict IS NOT NULL))
)"""

_EVENT_SITES = """
CREATE TABLE event_sites (
  event_id INTEGER NOT NULL REFERENCES events (id),
  place INTEGER NOT NULL,
  dataset TEXT NOT NULL,
  version TEXT NOT NULL,
  user TEXT NOT NULL,
  site TEXT NOT NULL,
  kind TEXT NOT NULL,
  segment TEXT NOT NULL,
  partner TEXT,
  verdict TEXT NOT NULL,
  is_answer INTEGER NOT NULL,
  PRIMARY KEY (event_id, place)
) WITHOUT ROWID"""

# the newest of a decision's undo and redo events says whether it counts
_IN_FORCE = """
CREATE VIEW decisions_in_force AS
SELECT e.* FROM events e
WHERE e.event = 'decision' AND 'undo' IS NOT (
  SELECT t.event FROM events t WHERE t.target = e.id ORDER BY t.id DESC LIMIT 1)"""

# per person and site the last answer counts; a skip is no answer and displaces none
_SITE_STATES = """
CREATE VIEW site_states AS
SELECT s.*, CASE
  WHEN NOT EXISTS (SELECT 1 FROM decisions_in_force d WHERE d.id = s.event_id) THEN 'undone'
  WHEN EXISTS (
    SELECT 1 FROM event_sites r JOIN decisions_in_force d ON d.id = r.event_id
    WHERE r.dataset = s.dataset AND r.version = s.version AND r.site = s.site
      AND r.user = s.user AND (r.is_answer, r.event_id) > (s.is_answer, s.event_id)
  ) THEN 'superseded'
  ELSE 'in force' END AS state
FROM event_sites s"""

_CURRENT_LABELS = """
CREATE VIEW current_labels AS
SELECT event_id, dataset, version, user, site, kind, segment, partner, verdict
FROM site_states WHERE state = 'in force'"""


def _append_only(table: str, is_old: str) -> tuple[str, ...]:
    """Triggers that let a table only grow, against INSERT OR REPLACE too."""
    refuse = f"BEGIN SELECT RAISE(ABORT, '{table} only grows'); END"
    return (
        f"CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table} {refuse}",
        f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} {refuse}",
        f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} WHEN {is_old} {refuse}",
    )


# left out on insert, an INTEGER PRIMARY KEY reads as -1 before it
_IS_OLD_EVENT = (
    "(NEW.id <> -1 AND NEW.id <= (SELECT max(id) FROM events)) OR EXISTS"
    " (SELECT 1 FROM events WHERE idempotency_key = NEW.idempotency_key)"
)

_EVENT_INDEXES = (
    # holds all that `steps` reads: the rows themselves are a page each
    "CREATE INDEX events_by_user ON events (dataset, user, id, event, target, version)",
    "CREATE INDEX events_by_target ON events (target, id, event) WHERE target IS NOT NULL",
    "CREATE INDEX events_by_segment ON events (dataset, segment)",
    "CREATE INDEX events_by_partner ON events (dataset, partner)",
)

_EVENT_COLUMNS = (
    "id, event, target, recorded_at, idempotency_key, user, dataset, version, suggestion, kind,"
    " segment, partner, verdict, score, confidence, model_sha256, views_sha256, decided_at, body"
)

# step 2; under its own name until the table of step 1 is gone
_EVENTS_WITH_REASONS = """
CREATE TABLE events_2 (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  event TEXT NOT NULL CHECK (event IN ('decision', 'undo', 'redo', 'reason')),
  target INTEGER REFERENCES events (id),
  recorded_at TEXT NOT NULL,
  idempotency_key TEXT NOT NULL UNIQUE CHECK (idempotency_key <> ''),
  user TEXT NOT NULL,
  dataset TEXT NOT NULL,
  version TEXT NOT NULL,
  suggestion TEXT,
  kind TEXT,
  segment TEXT,
  partner TEXT,
  verdict TEXT,
  score REAL,
  confidence REAL,
  model_sha256 TEXT,
  views_sha256 TEXT,
  decided_at TEXT,
  body TEXT,
  CHECK ((event = 'decision') = (target IS NULL)),
  CHECK ((event IN ('decision', 'reason')) = (body IS NOT NULL)),
  CHECK ((event = 'decision') = (suggestion IS NOT NULL AND kind IS NOT NULL
                                 AND segment IS NOT NULL AND verdict IS NOT NULL))
)"""

# a reason says nothing about whether its decision counts
_IN_FORCE_WITH_REASONS = """
CREATE VIEW decisions_in_force AS
SELECT e.* FROM events e
WHERE e.event = 'decision' AND 'undo' IS NOT (
  SELECT t.event FROM events t WHERE t.target = e.id AND t.event IN ('undo', 'redo')
  ORDER BY t.id DESC LIMIT 1)"""

MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        "events",
        (
            "CREATE TABLE migrations (version INTEGER PRIMARY KEY, name TEXT NOT NULL,"
            " applied_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')))",
            "CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
            _EVENTS,
            *_EVENT_INDEXES,
            _EVENT_SITES,
            "CREATE INDEX event_sites_by_site"
            " ON event_sites (dataset, version, site, user, is_answer, event_id)",
            *_append_only("events", _IS_OLD_EVENT),
            *_append_only(
                "event_sites",
                "EXISTS (SELECT 1 FROM event_sites"
                " WHERE event_id = NEW.event_id AND place = NEW.place)",
            ),
            _IN_FORCE,
            _SITE_STATES,
            _CURRENT_LABELS,
        ),
        _make_salt,
    ),
    Migration(
        "reasons",
        (
            # a CHECK can only be changed by making the table anew
            # (https://www.sqlite.org/lang_altertable.html#otheralter)
            "DROP VIEW current_labels",
            "DROP VIEW site_states",
            "DROP VIEW decisions_in_force",
            _EVENTS_WITH_REASONS,
            f"INSERT INTO events_2 ({_EVENT_COLUMNS}) SELECT {_EVENT_COLUMNS} FROM events"  # noqa: S608
            " ORDER BY id",
            # ids that were once given are not given again
            "DELETE FROM sqlite_sequence WHERE name = 'events_2'",
            "INSERT INTO sqlite_sequence (name, seq)"
            " SELECT 'events_2', seq FROM sqlite_sequence WHERE name = 'events'",
            "DROP TABLE events",
            "ALTER TABLE events_2 RENAME TO events",
            *_EVENT_INDEXES,
            *_append_only("events", _IS_OLD_EVENT),
            _IN_FORCE_WITH_REASONS,
            _SITE_STATES,
            _CURRENT_LABELS,
        ),
    ),
    Migration("queue", QUEUE_STATEMENTS),
    Migration("asks", ASK_STATEMENTS),
    Migration("order", ORDER_STATEMENTS),
    Migration("flags", FLAG_STATEMENTS),
    Migration(
        "edits",
        (
            *EDIT_STATEMENTS,
            *_append_only("edits", IS_OLD_EDIT),
            *_append_only("edit_steps", IS_OLD_STEP),
        ),
    ),
)

EDITS_SINCE = 1 + [m.name for m in MIGRATIONS].index("edits")
"""Files of an older schema keep no edits of a graph."""

QUEUE_SINCE = 1 + [m.name for m in MIGRATIONS].index("flags")
"""Files of an older schema have no queue, or one without what later versions look at."""

OLDEST_READABLE = 1
"""Files from this schema on can be read as they are; a writer brings them up to date."""


def schema_version(conn: sqlite3.Connection) -> int:
    """How many steps the file has had; 0 for a new one."""
    return int(conn.execute("PRAGMA user_version").fetchone()[0])


def is_foreign(conn: sqlite3.Connection) -> bool:
    """Whether another program made this database."""
    # in this order: between the two, another process may make the tables of a new file
    if not conn.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        return False
    return bool(conn.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID)


def migrate(conn: sqlite3.Connection, steps: tuple[Migration, ...] = MIGRATIONS) -> None:
    """Bring a file up to date; each step and the record of it are one transaction.

    Safe when several processes open a new file at the same moment.
    """
    if schema_version(conn) >= len(steps):
        return
    (enforced,) = conn.execute("PRAGMA foreign_keys").fetchone()
    # else a table that is made anew would take the rows that refer to it with it; has no effect
    # inside a transaction, so each step checks the references itself before it ends
    conn.execute("PRAGMA foreign_keys = OFF")
    try:
        while schema_version(conn) < len(steps):
            _migrate_once(conn, steps)
    finally:
        conn.execute(f"PRAGMA foreign_keys = {enforced}")


def _migrate_once(conn: sqlite3.Connection, steps: tuple[Migration, ...]) -> None:
    conn.execute("BEGIN IMMEDIATE")
    try:
        done = schema_version(conn)
        if done < len(steps):
            _apply(conn, done + 1, steps[done])
        conn.execute("COMMIT")
    except BaseException:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise


def _apply(conn: sqlite3.Connection, version: int, step: Migration) -> None:
    for statement in step.statements:
        conn.execute(statement)
    if step.then is not None:
        step.then(conn)
    lost = conn.execute("PRAGMA foreign_key_check").fetchone()
    if lost is not None:
        raise sqlite3.IntegrityError(f"{lost[0]} row {lost[1]} names a missing row of {lost[2]}")
    conn.execute("INSERT INTO migrations (version, name) VALUES (?, ?)", (version, step.name))
    conn.execute(f"PRAGMA user_version = {version}")
    conn.execute(f"PRAGMA application_id = {APPLICATION_ID}")
