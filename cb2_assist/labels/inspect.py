"""Looks at a label file without changing it."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cb2_assist.labels.connections import connect_reader
from cb2_assist.labels.failures import label_error
from cb2_assist.labels.filesystem import file_system_of, is_wal_safe
from cb2_assist.labels.lock import holder_of
from cb2_assist.labels.schema import MIGRATIONS, schema_version


@dataclass(frozen=True, slots=True)
class LabelFileFacts:
    """What is known of a label file.

    Attributes:
        events: How many it holds; None when there is no file yet.
        schema: Version of its tables; a lower one than `newest` is brought up to date by `serve`.
        file_system: Type of what it lies on, empty when that cannot be told.
        is_wal_safe: Whether the write-ahead log may be used there.
        is_private: Whether nobody else may read it.
        is_writable: Whether we may write it, or its folder while there is none.
        holder: Who serves it (``pid``, ``host``, ``url``); None when nobody does.
    """

    events: int | None
    schema: int
    newest: int
    file_system: str
    is_wal_safe: bool
    is_private: bool
    is_writable: bool
    holder: dict[str, Any] | None


def look_at(path: Path) -> LabelFileFacts:
    """What is known of a label file, which need not exist.

    Raises:
        LabelError: It is damaged, of another program, newer than this one, or cannot be read.
    """
    try:
        exists = path.exists()
        place = path if exists else existing_parent(path)
        is_private = not exists or os.name == "nt" or not path.stat().st_mode & 0o077
    except OSError as e:
        raise label_error(path, e) from e
    kind = file_system_of(place)
    events, schema = _contents(path) if exists else (None, len(MIGRATIONS))
    return LabelFileFacts(
        events=events,
        schema=schema,
        newest=len(MIGRATIONS),
        file_system=kind,
        is_wal_safe=is_wal_safe(kind),
        is_private=is_private,
        is_writable=os.access(place, os.W_OK),
        holder=holder_of(path),
    )


def existing_parent(path: Path) -> Path:
    """The innermost folder above a path that is there."""
    return next(p for p in path.absolute().parents if p.exists())


def _contents(path: Path) -> tuple[int, int]:
    """Events and schema version."""
    try:
        conn = connect_reader(path)
        try:
            schema = schema_version(conn)
            count = "SELECT count(*) FROM events" if schema else "SELECT 0"
            return int(conn.execute(count).fetchone()[0]), schema
        finally:
            conn.close()
    except sqlite3.Error as e:
        raise label_error(path, e) from e
