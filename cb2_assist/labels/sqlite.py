"""Labels in one SQLite file: the default store."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from cb2_assist.core.closing import Closing
from cb2_assist.core.errors import LabelError, LabelFileReadOnlyError
from cb2_assist.labels.checks import problems_of
from cb2_assist.labels.connections import (
    BUSY_S,
    FileReaders,
    connect_writer,
    create_file,
    in_transaction,
)
from cb2_assist.labels.database import Connection
from cb2_assist.labels.edit_tables import EditTables
from cb2_assist.labels.event_tables import EventTables
from cb2_assist.labels.failures import label_error
from cb2_assist.labels.queue_tables import QueueTables
from cb2_assist.labels.schema import (
    EDITS_SINCE,
    MIGRATIONS,
    OLDEST_READABLE,
    QUEUE_SINCE,
    migrate,
    schema_version,
)
from cb2_assist.labels.store import labels_url

T = TypeVar("T")

_WRITE_DEADLINE_S = 3 * BUSY_S


class SqliteLabelStore(EventTables, Closing):
    """A `LabelStore` in one file.

    One thread writes; callers hand over and wait until the commit is on disk. Readers have their
    own connections and never wait for a writer.
    """

    _readers: FileReaders

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open the file; creates it unless ``read_only``.

        Raises:
            LabelError: It cannot be used; says why and what to do.
        """
        self._path = path.resolve()
        self._writer: sqlite3.Connection | None = None
        self._notice = ""
        self._readers = FileReaders(self._path)
        self._thread: ThreadPoolExecutor | None = None
        self._name = str(self._path)
        self._queue = QueueTables(self._readers, self.write)
        self._edits = EditTables(self._readers, self.write)
        if not read_only:
            create_file(self._path)
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="labels-writer")
        try:
            if not read_only:
                self._on_writer(migrate)
            self._salt = self._read_salt()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """The file as a URL."""
        return labels_url(self._path)

    @property
    def place(self) -> str:
        """The path of the file."""
        return str(self._path)

    @property
    def notices(self) -> tuple[str, ...]:
        """Says when the file system does not allow a write-ahead log."""
        return (self._notice,) if self._notice else ()

    @property
    def views_folder(self) -> Path:
        """Beside the file, named after it."""
        return self._path.with_name(f"{self._path.name}.views")

    @property
    def salt(self) -> bytes:
        """Made with the file."""
        return self._salt

    @property
    def queue(self) -> QueueTables:
        """In the same file.

        Raises:
            LabelError: Opened for reading, and written before there was a queue.
        """
        with self._readers.borrow() as conn:
            version = schema_version(conn)
        if version < QUEUE_SINCE:
            raise LabelError(
                f"{self._path} was written by an older cb2-assist and has no queue. Fill one with "
                "`cb2-assist queue fill`, or open the file once with `cb2-assist serve`."
            )
        return self._queue

    @property
    def edits(self) -> EditTables:
        """In the same file.

        Raises:
            LabelError: Opened for reading, and written before edits were kept.
        """
        with self._readers.borrow() as conn:
            version = schema_version(conn)
        if version < EDITS_SINCE:
            raise LabelError(
                f"{self._path} was written by an older cb2-assist and keeps no edits of a graph. "
                "Open it once with `cb2-assist serve` to bring it up to date."
            )
        return self._edits

    @contextmanager
    def snapshot(self) -> Iterator[Callable[[str], Iterator[tuple[Any, ...]]]]:
        """Runs queries that all see the same moment."""
        with self._readers.borrow() as conn:
            conn.execute("BEGIN")
            try:
                yield conn.execute
            finally:
                conn.execute("ROLLBACK")

    def verify(self) -> list[str]:
        """See `LabelStore.verify`: all of `labels.checks`."""
        problems: list[str] = []
        try:
            problems.extend(problems_of(self._readers.rows))
        except LabelError as e:
            problems.append(f"database: {e}")
        return problems

    def close(self) -> None:
        """See `LabelStore.close`."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown(wait=True)
        # the writer goes last: only then does SQLite bring the log into the file and remove it
        self._readers.close()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _read_salt(self) -> bytes:
        with self._readers.borrow() as conn:
            version = schema_version(conn)
            if version == 0:
                raise LabelError(f"{self._path} is empty: no label has been recorded in it yet.")
            if version < OLDEST_READABLE:
                raise LabelError(
                    f"{self._path} was written by an older cb2-assist (schema {version} of "
                    f"{len(MIGRATIONS)}). Open it once with `cb2-assist serve` to bring it up to "
                    "date."
                )
            (text,) = conn.execute("SELECT value FROM about WHERE name = 'salt'").fetchone()
        return bytes.fromhex(text)

    def write(self, task: Callable[[Connection], T]) -> T:
        """See `OnWriter`."""

        def run(conn: sqlite3.Connection) -> T:
            with in_transaction(conn):
                return task(conn)

        return self._on_writer(run)

    def _on_writer(self, task: Callable[[sqlite3.Connection], T]) -> T:
        """Run a task on the writer thread and wait for it.

        Raises:
            LabelError: It failed. Nothing of it was recorded, unless the message says that this
                is not known.
        """
        thread = self._thread
        try:
            future = None if thread is None else thread.submit(self._run, task)
        except RuntimeError:  # closed by another thread just now
            future = None
        if future is None:
            raise LabelFileReadOnlyError(
                f"{self._path} is closed or was opened for reading. Nothing was recorded."
            )
        try:
            return future.result(_WRITE_DEADLINE_S)
        except FutureTimeoutError:
            known = "Nothing was recorded." if future.cancel() else "Whether it was is not known."
            raise LabelError(
                f"{self._path} has not answered for {_WRITE_DEADLINE_S:.0f} s. {known} Check the "
                "disk, then try again: the same decision is never recorded twice."
            ) from None

    def _run(self, task: Callable[[sqlite3.Connection], T]) -> T:
        """On the writer thread: a failed task leaves a connection that works, or none."""
        try:
            if self._writer is None:
                self._writer, self._notice = connect_writer(self._path)
            return task(self._writer)
        except (sqlite3.Error, OSError) as e:
            self._drop_writer()
            raise label_error(self._path, e, "Nothing was recorded.") from e

    def _drop_writer(self) -> None:
        """After a failure the next write starts on a fresh connection."""
        conn, self._writer = self._writer, None
        if conn is not None:
            conn.close()
