"""Connections to a server that people share, with the settings that make a commit last."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

from cb2_assist.core.errors import LabelError, LabelsUnreachableError
from cb2_assist.labels.database import Cursor, Values
from cb2_assist.labels.idle import IdleConnections
from cb2_assist.labels.postgres_failures import is_lost, team_error
from cb2_assist.labels.postgres_schema import is_foreign, schema_version
from cb2_assist.labels.postgres_sql import to_postgres
from cb2_assist.labels.schema import MIGRATIONS
from cb2_assist.labels.team_url import TeamUrl, driver, password

if TYPE_CHECKING:
    import psycopg

CONNECT_S = 10
"""How long a server has to answer."""
BUSY_S = 30.0
"""How long a write waits for those of others."""
RETRY_S = 3.0
"""After a failure nobody waits for the server again before so long."""

_AT_ONCE = 1000
_numbers = count()


class TeamConnection:
    """A `database.Connection` to a server."""

    def __init__(self, raw: psycopg.Connection[Any]) -> None:
        self.raw = raw

    def execute(self, sql: str, values: Values = (), /) -> Cursor:
        """See `Connection.execute`."""
        return self.raw.execute(to_postgres(sql).encode(), values)

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> None:
        """See `Connection.executemany`."""
        with self.raw.cursor() as cursor:
            cursor.executemany(to_postgres(sql).encode(), rows)

    def stream(self, sql: str, values: Values = ()) -> Iterator[tuple[Any, ...]]:
        """Rows of a query in bounded memory, inside a transaction."""
        with self.raw.cursor(name=f"labels_{next(_numbers)}") as cursor:
            cursor.itersize = _AT_ONCE
            cursor.execute(to_postgres(sql).encode(), values)
            yield from cursor

    def close(self) -> None:
        """Never fails."""
        self.raw.close()


class Server:
    """Opens connections, and for a moment after a failure no more of them."""

    def __init__(self, team: TeamUrl) -> None:
        self.team = team
        self._down_until = 0.0
        self._why = ""

    def connect(self, *, read_only: bool) -> TeamConnection:
        """Open one; each statement is its own transaction.

        Raises:
            LabelsUnreachableError: The server does not answer.
            LabelError: It does not let us in.
        """
        if time.monotonic() < self._down_until:
            raise LabelsUnreachableError(self._why)
        psycopg = driver()
        team = self.team
        try:
            raw = psycopg.connect(team.url, autocommit=True, **_settings(team, password()))
            try:
                # a server may have been told to answer before a commit is on disk
                raw.execute("SET synchronous_commit = on")
                raw.execute(f"SET lock_timeout = {BUSY_S * 1000:.0f}")
                if read_only:
                    raw.execute("SET default_transaction_read_only = on")
            except BaseException:
                raw.close()
                raise
        except psycopg.Error as e:
            error = team_error(team, e)
            self.failed(error)
            raise error from e
        return TeamConnection(raw)

    def failed(self, error: LabelError) -> None:
        """Let nobody wait for the server for a moment."""
        if isinstance(error, LabelsUnreachableError):
            self._why, self._down_until = str(error), time.monotonic() + RETRY_S

    def try_again(self) -> None:
        """Wait no longer."""
        self._down_until = 0.0


def check_schema(conn: TeamConnection, team: TeamUrl) -> int:
    """Refuse a database that is not ours or is newer than this program; returns its schema.

    Raises:
        LabelError: It is.
    """
    if is_foreign(conn):
        raise LabelError(
            f"{team.name} hold tables of another program. Make an empty database (`createdb NAME`) "
            "and name it with --labels."
        )
    version = schema_version(conn)
    refuse_newer(version, team)
    return version


def refuse_newer(version: int, team: TeamUrl) -> None:
    """Refuse what a newer program has made.

    Raises:
        LabelError: It is newer.
    """
    if version > len(MIGRATIONS):
        raise LabelError(
            f"{team.name} are of a newer cb2-assist (schema {version}; this one knows "
            f"{len(MIGRATIONS)}). Upgrade with `pip install -U cb2-assist`. Nothing was changed."
        )


class TeamReaders:
    """Read-only connections, handed out one a reader and kept for the next."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._idle: IdleConnections[TeamConnection] = IdleConnections(
            f"{server.team.name} have been closed."
        )

    @contextmanager
    def borrow(self) -> Iterator[TeamConnection]:
        """A connection for one reader; failures become `LabelError`."""
        conn = self._take()
        try:
            yield conn
        except driver().Error as e:
            error = team_error(self._server.team, e)
            if is_lost(e):
                conn.close()
                self._server.failed(error)
            raise error from e
        finally:
            self._give_back(conn)

    def rows(self, sql: str, values: Values = ()) -> Iterator[tuple[Any, ...]]:
        """See `Readers.rows`."""
        with self.borrow() as conn:
            found = conn.execute(sql, values).fetchall()
        yield from found

    def stream(self, sql: str, values: Values = ()) -> Iterator[tuple[Any, ...]]:
        """See `Readers.stream`."""
        with self.borrow() as conn, conn.raw.transaction():
            yield from conn.stream(sql, values)

    def _take(self) -> TeamConnection:
        while (conn := self._idle.take()) is not None:
            if _answers(conn):
                return conn
            conn.close()
        return self._server.connect(read_only=True)

    def _give_back(self, conn: TeamConnection) -> None:
        idle = driver().pq.TransactionStatus.IDLE
        if not conn.raw.closed and conn.raw.info.transaction_status == idle:
            self._idle.keep(conn)
        else:
            conn.close()

    def close(self) -> None:
        """Close idle connections now and borrowed ones when they come back."""
        self._idle.close()


def _answers(conn: TeamConnection) -> bool:
    """Whether a connection that was idle is still one; that it is not is no outage."""
    try:
        conn.execute("SELECT 1")
    except driver().Error:
        return False
    return True


def _settings(team: TeamUrl, secret: str | None) -> dict[str, Any]:
    """What the URL leaves open: a server that is gone is told within seconds, not hours."""
    wanted: dict[str, Any] = {
        "connect_timeout": CONNECT_S,
        "application_name": "cb2-assist",
        "keepalives_idle": 15,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 15_000,
    }
    _, _, query = team.url.partition("?")
    given = {pair.partition("=")[0] for pair in query.split("&")}
    chosen = {name: value for name, value in wanted.items() if name not in given}
    chosen["client_encoding"] = "utf8"
    return chosen if secret is None else {**chosen, "password": secret}
