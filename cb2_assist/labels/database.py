"""What the code that is the same for every database may expect of one.

SQL is written once, in the part of SQLite's that PostgreSQL has too: ``RETURNING`` in place of row
ids, ``ON CONFLICT`` in place of ``INSERT OR``, named or ``?`` values. What differs (the name of the
column ``user``, lists in JSON, types) is put in order by `labels.postgres_sql`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

Values = Sequence[Any] | Mapping[str, Any]


class Cursor(Protocol):
    """The answer to a statement."""

    @property
    def rowcount(self) -> int:
        """Rows that were written."""

    def fetchone(self) -> Any:  # noqa: ANN401 - a row, or None
        """The next row."""

    def fetchall(self) -> list[Any]:
        """All rows that are left."""


class Connection(Protocol):
    """Runs statements."""

    def execute(self, sql: str, values: Values = (), /) -> Cursor:
        """Run one."""

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> object:
        """Run one for each row."""


class Readers(Protocol):
    """Connections that only read. Every method may be called from any thread."""

    def borrow(self) -> AbstractContextManager[Connection]:
        """A connection for one reader; failures become `LabelError`."""

    def rows(self, sql: str, values: Values = ()) -> Iterator[tuple[Any, ...]]:
        """Rows of a query, of one moment; failures become `LabelError`."""

    def stream(self, sql: str, values: Values = ()) -> Iterator[tuple[Any, ...]]:
        """The same in bounded memory, however many there are."""


class OnWriter(Protocol):
    """Runs a task in one transaction that no other writer's overlaps.

    All that the task writes, or none of it; on return it is on disk.
    """

    def __call__(self, task: Callable[[Connection], T]) -> T:
        """What the task returned."""
