"""SQLite connections with the settings that make a commit last."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from cb2_assist.core.errors import LabelError, LabelFileReadOnlyError
from cb2_assist.labels import filesystem
from cb2_assist.labels.failures import label_error
from cb2_assist.labels.idle import IdleConnections
from cb2_assist.labels.schema import MIGRATIONS, is_foreign, schema_version

BUSY_S = 10.0
"""How long a write waits for another program's write."""


def create_file(path: Path) -> None:
    """Make an empty file of mode 0600, durably; SQLite gives its -wal and -shm the same mode.

    Raises:
        LabelError: The folder cannot be made or written.
    """
    try:
        filesystem.make_private_folder(path.parent)
        if path.exists():
            return
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        filesystem.sync_folder(path.parent)
    except OSError as e:
        raise label_error(path, e, "No labels can be recorded there.") from e


def connect_writer(path: Path) -> tuple[sqlite3.Connection, str]:
    """A connection whose commits survive a kill and a power cut.

    Returns:
        The connection, and a notice for the person: empty where the write-ahead log is in use.

    Raises:
        LabelError: Made by another program or a newer version, damaged, or read-only.
    """
    conn = _connect(path, "rw")
    try:
        check_schema(conn, path)
        kind = filesystem.file_system_of(path)
        notice = _set_journal(conn, path, kind)
        # a no-op except on macOS, where fsync alone leaves data in the drive's cache
        conn.execute("PRAGMA fullfsync = ON")
        conn.execute("PRAGMA checkpoint_fullfsync = ON")
        conn.execute("PRAGMA foreign_keys = ON")
        _try_to_write(conn)
    except BaseException:
        conn.close()
        raise
    return conn, notice


def _try_to_write(conn: sqlite3.Connection) -> None:
    """A file that cannot be written is told now, not at the first decision."""
    conn.execute("BEGIN IMMEDIATE")
    # without a write SQLite quietly begins a read transaction on a read-only file
    conn.execute(f"PRAGMA user_version = {schema_version(conn)}")
    conn.execute("ROLLBACK")


def _set_journal(conn: sqlite3.Connection, path: Path, file_system: str) -> str:
    wanted = "wal" if filesystem.is_wal_safe(file_system) else "delete"
    got = _journal_mode(conn, wanted)
    if got == "wal" and wanted == "wal":
        # NORMAL does not sync the log at commit (https://www.sqlite.org/pragma.html#pragma_synchronous)
        conn.execute("PRAGMA synchronous = FULL")
        return ""
    if got == "wal":
        raise LabelError(
            f"{path} lies on a network file system ({file_system}) where its write-ahead log is "
            "not safe, and another program has it open. Close that program, then try again."
        )
    # EXTRA also syncs the folder after the journal is removed, which is the commit
    conn.execute("PRAGMA synchronous = EXTRA")
    where = f"on a network file system ({file_system})" if wanted == "delete" else "where it is"
    return (
        f"{path} lies {where}: labels are kept with a rollback journal in place of a write-ahead "
        "log, which is slower and as durable as that file system. Open it on one machine at a time."
    )


def _journal_mode(conn: sqlite3.Connection, wanted: str) -> str:
    """Set the journal mode; SQLite does not wait for other connections here, so we do."""
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            return str(conn.execute(f"PRAGMA journal_mode = {wanted}").fetchone()[0])
        except sqlite3.OperationalError as e:
            busy = getattr(e, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def check_schema(conn: sqlite3.Connection, path: Path) -> None:
    """Refuse a file that is not ours or is newer than this program.

    Raises:
        LabelError: It is.
    """
    if is_foreign(conn):
        raise LabelError(
            f"{path} is a database of another program. Name another file with "
            "--labels sqlite:///PATH."
        )
    version = schema_version(conn)
    if version > len(MIGRATIONS):
        raise LabelError(
            f"{path} was written by a newer cb2-assist (schema {version}; this one knows "
            f"{len(MIGRATIONS)}). Upgrade with `pip install -U cb2-assist`, or name another file "
            "with --labels."
        )


@contextmanager
def in_transaction(conn: sqlite3.Connection) -> Iterator[None]:
    """All that is written in the block, or none of it; on return it is on disk."""
    conn.execute("BEGIN IMMEDIATE")
    try:
        yield
        conn.execute("COMMIT")
    except BaseException:
        # a full disk may have rolled the transaction back already
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise


class FileReaders:
    """Read-only connections, handed out one a reader and kept for the next."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: IdleConnections[sqlite3.Connection] = IdleConnections(
            f"The label file {path} has been closed."
        )

    @contextmanager
    def borrow(self) -> Iterator[sqlite3.Connection]:
        """A connection for one reader; failures become `LabelError`.

        Raises:
            LabelError: The store is closed, or the file cannot be read.
        """
        try:
            conn = self._idle.take() or connect_reader(self._path)
            try:
                yield conn
            finally:
                self._idle.keep(conn)
        except sqlite3.Error as e:
            raise label_error(self._path, e) from e

    def rows(
        self,
        sql: str,
        values: Sequence[str | float] | Mapping[str, str | float | None] = (),
    ) -> Iterator[tuple[Any, ...]]:
        """Rows of a query, one at a time, on one connection and one snapshot."""
        # the cursor is closed first: an open one would keep its snapshot for the next borrower
        with self.borrow() as conn, closing(conn.execute(sql, values)) as cursor:
            yield from cursor

    stream = rows

    def close(self) -> None:
        """Close idle connections now and borrowed ones when they come back."""
        self._idle.close()


def connect_reader(path: Path) -> sqlite3.Connection:
    """A connection that cannot write, also in a folder that we may not write.

    Raises:
        LabelError: Missing, foreign, newer, damaged or unreadable.
    """
    if not path.is_file():
        raise LabelError(
            f"There is no label file {path}. `cb2-assist serve` makes one; name yours with "
            "--labels sqlite:///PATH."
        )
    conn = _connect(path, "ro")
    try:
        try:
            check_schema(conn, path)
        except sqlite3.OperationalError as e:
            code = getattr(e, "sqlite_errorcode", 0) & 0xFF
            if code not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
                raise
            conn.close()
            conn = _connect_unwritable(path, e)
            check_schema(conn, path)
        conn.execute("PRAGMA query_only = ON")
    except BaseException:
        conn.close()
        raise
    return conn


def _connect_unwritable(path: Path, cause: sqlite3.Error) -> sqlite3.Connection:
    """Read a closed file where SQLite cannot make its helper files.

    Raises:
        LabelFileReadOnlyError: A log of recent events lies beside it, which could not be included.
    """
    if not os.access(path, os.R_OK):
        raise label_error(path, cause)
    for suffix in ("-wal", "-journal"):
        beside = path.with_name(path.name + suffix)
        with suppress(OSError):
            if beside.stat().st_size > 0:
                raise LabelFileReadOnlyError(
                    f"{path} has recent events in {beside.name}, which cannot be read in a folder "
                    "that you may not write. Copy both files to a folder of yours and read that."
                )
    return _connect(path, "ro&immutable=1")


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    conn = sqlite3.connect(
        f"{path.as_uri()}?mode={mode}",
        uri=True,
        timeout=BUSY_S,
        isolation_level=None,
        check_same_thread=False,
    )
    conn.execute("PRAGMA trusted_schema = OFF")
    return conn
