"""Labels of a team in one PostgreSQL database."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from cb2_assist.core.closing import Closing
from cb2_assist.core.errors import LabelError, LabelFileReadOnlyError
from cb2_assist.labels.database import Connection
from cb2_assist.labels.edit_tables import EditTables
from cb2_assist.labels.event_tables import EventTables
from cb2_assist.labels.postgres_checks import problems_of_database
from cb2_assist.labels.postgres_connections import (
    Server,
    TeamConnection,
    TeamReaders,
    check_schema,
    refuse_newer,
)
from cb2_assist.labels.postgres_failures import is_lost, team_error
from cb2_assist.labels.postgres_schema import LOCK, migrate
from cb2_assist.labels.queue_tables import QueueTables
from cb2_assist.labels.schema import MIGRATIONS
from cb2_assist.labels.team_url import TeamUrl, driver, team_url

T = TypeVar("T")

_CLOCK = "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"
_PATIENCE_S = 3.0
"""How long `close` waits for a write in progress, which a server may never answer."""
_SAME_TIME_S = 2.0
"""Clocks of two machines differ by so much without being wrong."""


def schema_at(team: TeamUrl) -> int:
    """Version of the tables of a database; 0 for one that is empty.

    Raises:
        LabelError: It cannot be reached, is of another program or newer than this one.
    """
    readers = TeamReaders(Server(team))
    try:
        with readers.borrow() as conn:
            return check_schema(conn, team)
    finally:
        readers.close()


class PostgresLabelStore(EventTables, Closing):
    """A `LabelStore` in a database that many programs share.

    They write one after the other, as they would in a file, so that what was checked still holds
    when it is written. Readers never wait.
    """

    _readers: TeamReaders

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        """Connect; makes the tables in an empty database unless ``read_only``.

        Raises:
            UsageError: The URL holds a password or cannot be understood.
            LabelsUnreachableError: The server does not answer.
            LabelError: The database cannot be used; says why and what to do.
        """
        self.team: TeamUrl = team_url(url)
        self._name = self.team.name
        self.server = Server(self.team)
        self._read_only = read_only
        self._readers = TeamReaders(self.server)
        self._writing = Lock()
        self._writer: TeamConnection | None = None
        self._is_closed = False
        self._ahead = 0.0
        self._notices: tuple[str, ...] = ()
        self._queue = QueueTables(self._readers, self.write, self.ahead_s)
        self._edits = EditTables(self._readers, self.write)
        try:
            self._salt = self._open()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """As it was given; there is no password in it."""
        return self.team.url

    @property
    def place(self) -> str:
        """Database and server."""
        return self._name

    @property
    def notices(self) -> tuple[str, ...]:
        """Says when the server may forget a commit, and when the clocks differ."""
        return self._notices

    @property
    def views_folder(self) -> Path:
        """Where the environment says, else on this machine."""
        return self.team.views_folder

    @property
    def salt(self) -> bytes:
        """Made with the tables."""
        return self._salt

    @property
    def queue(self) -> QueueTables:
        """In the same database."""
        return self._queue

    @property
    def edits(self) -> EditTables:
        """In the same database."""
        return self._edits

    def ahead_s(self) -> float:
        """How much later it is by the server's clock; 0 where the two are as good as equal."""
        return self._ahead

    def count(self) -> int:
        """How many events there are."""
        ((n,),) = self._readers.rows("SELECT count(*) FROM events")
        return int(n)

    def reach(self) -> None:
        """See whether the server answers.

        Raises:
            LabelError: It does not.
        """
        self.server.try_again()
        with self._readers.borrow() as conn:
            conn.execute("SELECT 1")

    @contextmanager
    def snapshot(self) -> Iterator[Callable[[str], Iterator[tuple[Any, ...]]]]:
        """Runs queries that all see the same moment."""
        with self._readers.borrow() as conn, conn.raw.transaction():
            conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            yield conn.stream

    def verify(self) -> list[str]:
        """See `LabelStore.verify`."""
        problems: list[str] = []
        try:
            problems.extend(problems_of_database(self._readers))
        except LabelError as e:
            problems.append(f"database: {e}")
        return problems

    def close(self) -> None:
        """See `LabelStore.close`."""
        self._is_closed = True
        if self._writing.acquire(timeout=_PATIENCE_S):
            try:
                self._drop_writer()
            finally:
                self._writing.release()
        self._readers.close()

    def _open(self) -> bytes:
        with self._readers.borrow() as conn:
            version = check_schema(conn, self.team)
            self._look_at_clock(conn)
            (syncs,) = conn.execute("SELECT current_setting('fsync')").fetchone()
        if syncs != "on":
            self._notices += (
                f"The server of {self._name} runs with fsync = {syncs}: a power cut there can lose "
                "decisions that were recorded.",
            )
        if version < len(MIGRATIONS) and self._read_only:
            what = "are empty: no label has been recorded in them yet"
            if version:
                what = "were made by an older cb2-assist"
            raise LabelError(
                f"{self._name} {what}. Open them once with `cb2-assist serve` to bring them up to "
                "date."
            )
        if version < len(MIGRATIONS):
            self.write(migrate)
        with self._readers.borrow() as conn:
            (text,) = conn.execute("SELECT value FROM about WHERE name = 'salt'").fetchone()
        return bytes.fromhex(text)

    def _look_at_clock(self, conn: Connection) -> None:
        before = time.time()
        (there,) = conn.execute(f"SELECT {_CLOCK}").fetchone()
        self._compare_clocks(there, (before + time.time()) / 2)
        if self._ahead:
            which = "behind" if self._ahead > 0 else "ahead of"
            self._notices += (
                f"The clock of this computer is {abs(self._ahead):.0f} s {which} that of the server"
                f" of {self._name}, which counts for leases and for when a label was recorded. Set "
                "it right: times at which you decide are taken from it.",
            )

    def _compare_clocks(self, there: float, here: float) -> None:
        ahead = there - here
        self._ahead = 0.0 if abs(ahead) < _SAME_TIME_S else ahead

    def _now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self._ahead)

    def write(self, task: Callable[[Connection], T]) -> T:
        """See `OnWriter`; waits for other writers as long as `BUSY_S`.

        Raises:
            LabelsUnreachableError: The connection is lost. Whether it was recorded is not known
                when it was lost at the very end.
            LabelError: It failed, and nothing was recorded.
        """
        with self._writing:
            if self._read_only or self._is_closed:
                raise LabelFileReadOnlyError(
                    f"{self._name} are closed or were opened for reading. Nothing was recorded."
                )
            psycopg = driver()
            is_new = self._writer is None
            while True:
                begun = False
                try:
                    conn = self._writer = self._writer or self.server.connect(read_only=False)
                    with conn.raw.transaction():
                        conn.execute("SELECT pg_advisory_xact_lock(?)", (LOCK,))
                        begun = True
                        if task is not migrate:
                            self._look_again(conn)
                        return task(conn)
                except psycopg.Error as e:
                    lost = is_lost(e)
                    self._drop_writer()
                    # one that was idle for long may be gone; nothing has been asked of it
                    if lost and not begun and not is_new:
                        is_new = True
                        continue
                    outcome = "" if lost and begun else "Nothing was recorded."
                    error = team_error(self.team, e, outcome)
                    self.server.failed(error)
                    raise error from e

    def _look_again(self, conn: Connection) -> None:
        """What may have changed: a newer program's tables, a clock here that was put back."""
        sql = f"SELECT max(version), {_CLOCK} FROM migrations"  # noqa: S608 - our own words
        version, there = conn.execute(sql).fetchone()
        refuse_newer(version, self.team)
        self._compare_clocks(there, time.time())

    def _drop_writer(self) -> None:
        conn, self._writer = self._writer, None
        if conn is not None:
            conn.close()
