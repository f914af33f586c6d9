"""Labels in one SQLite file: the default store."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from cb2_assist.core.errors import LabelError, LabelFileReadOnlyError
from cb2_assist.core.records import LabelEvent, Verdict
from cb2_assist.labels.checks import problems_of
from cb2_assist.labels.codec import decision_from_text, reason_from_text
from cb2_assist.labels.connections import BUSY_S, Readers, connect_writer, create_file
from cb2_assist.labels.failures import label_error
from cb2_assist.labels.rows import (
    EVENT_COLUMNS,
    REASON_OF,
    append_in_one_transaction,
    body_of,
    event_of,
    find_event,
)
from cb2_assist.labels.schema import (
    EDITS_SINCE,
    MIGRATIONS,
    OLDEST_READABLE,
    QUEUE_SINCE,
    migrate,
    schema_version,
)
from cb2_assist.labels.sqlite_edits import SqliteEditStore
from cb2_assist.labels.sqlite_queue import SqliteQueueStore
from cb2_assist.labels.store import (
    EventKind,
    EventStep,
    Flagged,
    Label,
    NewEvent,
    label_state,
    labels_url,
)

T = TypeVar("T")

_WRITE_DEADLINE_S = 3 * BUSY_S


class SqliteLabelStore:
    """A `LabelStore` in one file.

    One thread writes; callers hand over and wait until the commit is on disk. Readers have their
    own connections and never wait for a writer.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open the file; creates it unless ``read_only``.

        Raises:
            LabelError: It cannot be used; says why and what to do.
        """
        self._path = path.resolve()
        self._writer: sqlite3.Connection | None = None
        self._notice = ""
        self._readers = Readers(self._path)
        self._thread: ThreadPoolExecutor | None = None
        self._queue = SqliteQueueStore(self._readers, self._on_writer)
        self._edits = SqliteEditStore(self._readers, self._on_writer)
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
    def queue(self) -> SqliteQueueStore:
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
    def edits(self) -> SqliteEditStore:
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

    def append(self, event: NewEvent) -> LabelEvent:
        """See `LabelStore.append`."""
        return self.append_all([event])[0]

    def append_all(self, events: Sequence[NewEvent]) -> list[LabelEvent]:
        """See `LabelStore.append_all`."""
        rows = [(e, body_of(e)) for e in events]
        return self._on_writer(lambda conn: append_in_one_transaction(conn, rows))

    def find(self, idempotency_key: str) -> LabelEvent | None:
        """See `LabelStore.find`."""
        with self._readers.borrow() as conn:
            return find_event(conn, "e.idempotency_key = ?", idempotency_key)

    def get(self, event_id: int) -> LabelEvent:
        """See `LabelStore.get`."""
        with self._readers.borrow() as conn:
            found = find_event(conn, "e.id = ?", event_id)
        if found is None:
            raise LabelError(f"There is no event {event_id} in {self._path}.")
        return found

    def events(
        self, *, dataset: str | None = None, user: str | None = None, after: int = 0
    ) -> Iterator[LabelEvent]:
        """See `LabelStore.events`."""
        where, values = _where({"e.dataset": dataset, "e.user": user})
        sql = f"SELECT {EVENT_COLUMNS} FROM events e WHERE e.id > ?{where} ORDER BY e.id"  # noqa: S608
        return map(event_of, self._readers.rows(sql, (after, *values)))

    def steps(self, *, dataset: str, user: str, after: int = 0) -> Iterator[EventStep]:
        """See `LabelStore.steps`."""
        rows = self._readers.rows(
            # bodies of reasons and flags alone: all else that is read here lies in one index
            "SELECT e.id, e.event, e.target, e.version, "
            "CASE WHEN e.event = 'reason' OR s.verdict = 'flag' THEN "
            "(SELECT r.body FROM events r WHERE r.id = e.id) END, s.site, s.is_answer "
            "FROM events e LEFT JOIN event_sites s ON s.event_id = e.id "
            "WHERE e.dataset = ? AND e.user = ? AND e.id > ? ORDER BY e.id, s.place",
            (dataset, user, after),
        )
        for (id_, event, target, version, body), group in groupby(rows, key=lambda row: row[:5]):
            found = [(site, answer) for *_, site, answer in group if site is not None]
            is_reason = event == EventKind.REASON
            yield EventStep(
                id_,
                EventKind(event),
                target,
                version,
                tuple(site for site, _ in found),
                any(answer for _, answer in found),
                reason_from_text(body) if is_reason else None,
                None if is_reason or body is None else decision_from_text(body).note,
            )

    def labels(self, *, dataset: str | None = None) -> Iterator[Label]:
        """See `LabelStore.labels`."""
        where, values = _where({"s.dataset": dataset})
        sql = (
            f"SELECT {EVENT_COLUMNS}, s.site, s.verdict, s.state, {REASON_OF} "  # noqa: S608
            "FROM site_states s "
            f"JOIN events e ON e.id = s.event_id WHERE 1{where} ORDER BY s.event_id, s.place"
        )
        rows = self._readers.rows(sql, values)
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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

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


def _where(columns: dict[str, str | None]) -> tuple[str, tuple[str, ...]]:
    """`` AND a = ?`` for each value that is given, and the values."""
    given = {name: value for name, value in columns.items() if value is not None}
    return "".join(f" AND {name} = ?" for name in given), tuple(given.values())
