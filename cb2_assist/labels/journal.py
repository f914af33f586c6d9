"""Events that could not reach a team's labels yet, in a file on this machine.

An event is in the file before it is acknowledged, and leaves it once the server has it. The server
knows it by its idempotency key: whoever delivers it, and however often, it is recorded once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cb2_assist.core.errors import LabelError
from cb2_assist.labels.codec import decision_from_text, decision_to_text
from cb2_assist.labels.connections import BUSY_S, create_file, in_transaction
from cb2_assist.labels.failures import label_error
from cb2_assist.labels.store import EventKind, NewEvent

_APPLICATION_ID = 0x4342324A  # CB2J
_VERSION = 1
_TABLE = """
CREATE TABLE IF NOT EXISTS waiting (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  kept_at TEXT NOT NULL,
  idempotency_key TEXT NOT NULL UNIQUE,
  event TEXT NOT NULL,
  user TEXT NOT NULL,
  dataset TEXT NOT NULL,
  version TEXT NOT NULL,
  body TEXT,
  target_key TEXT,
  reason TEXT,
  refused TEXT
)"""


@dataclass(frozen=True, slots=True)
class Kept:
    """An event in the journal."""

    number: int
    """Only grows."""
    kept_at: str
    """ISO 8601 UTC."""
    event: NewEvent
    """Without its target, whose id is known to the server only."""
    target_key: str | None
    """Idempotency key of the decision that it is about."""


class Journal:
    """A file, made when it is first needed. Methods may be called from any thread and process."""

    def __init__(self, path: Path) -> None:
        """Nothing is read or written yet."""
        self.path = path

    def add(self, events: Sequence[tuple[NewEvent, str | None]]) -> list[Kept]:
        """Keep events with the keys of their targets, all or none; on return they are on disk.

        Raises:
            LabelError: They could not be kept.
        """
        create_file(self.path)
        kept_at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        done = []
        with self._open("Nothing was recorded.") as conn, in_transaction(conn):
            for event, target_key in events:
                body = None if event.decision is None else decision_to_text(event.decision)
                (number,) = conn.execute(
                    "INSERT INTO waiting (kept_at, idempotency_key, event, user, dataset, version,"
                    " body, target_key, reason) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
                    (
                        *(kept_at, event.idempotency_key, event.event.value, event.user),
                        *(event.dataset, event.version, body, target_key, event.reason),
                    ),
                ).fetchone()
                done.append(Kept(number, kept_at, event, target_key))
        return done

    def waiting(self) -> list[Kept]:
        """What the server has not got yet, oldest first.

        Raises:
            LabelError: The file cannot be read.
        """
        if not self.path.exists():
            return []
        with self._open() as conn:
            rows = conn.execute(
                "SELECT id, kept_at, idempotency_key, event, user, dataset, version, body,"
                " target_key, reason FROM waiting WHERE refused IS NULL ORDER BY id"
            ).fetchall()
        return [_kept(row) for row in rows]

    def delivered(self, number: int) -> None:
        """The server has it."""
        with self._open() as conn:
            conn.execute("DELETE FROM waiting WHERE id = ?", (number,))

    def refuse(self, number: int, why: str) -> None:
        """The server will not have it; it stays in the file."""
        with self._open() as conn:
            conn.execute("UPDATE waiting SET refused = ? WHERE id = ?", (why, number))

    def refused(self) -> list[tuple[str, str]]:
        """Idempotency keys of what the server would not have, and why."""
        if not self.path.exists():
            return []
        with self._open() as conn:
            return conn.execute(
                "SELECT idempotency_key, refused FROM waiting WHERE refused IS NOT NULL ORDER BY id"
            ).fetchall()

    @contextmanager
    def _open(self, outcome: str = "") -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None)) as conn:
                conn.execute("PRAGMA synchronous = EXTRA")
                conn.execute("PRAGMA fullfsync = ON")
                self._check(conn)
                yield conn
        except (sqlite3.Error, OSError) as e:
            raise label_error(self.path, e, outcome) from e

    def _check(self, conn: sqlite3.Connection) -> None:
        (version,) = conn.execute("PRAGMA user_version").fetchone()
        if version > _VERSION:
            raise LabelError(
                f"{self.path} was written by a newer cb2-assist. Upgrade with `pip install -U "
                "cb2-assist`: decisions wait in it."
            )
        if version < _VERSION:
            with in_transaction(conn):
                conn.execute(_TABLE)
                conn.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                conn.execute(f"PRAGMA user_version = {_VERSION}")


def _kept(row: tuple[Any, ...]) -> Kept:
    number, kept_at, key, event, user, dataset, version, body, target_key, reason = row
    decision = None if body is None else decision_from_text(body)
    new = NewEvent(EventKind(event), user, dataset, version, key, decision, reason=reason)
    return Kept(number, kept_at, new, target_key)
