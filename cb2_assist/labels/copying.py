"""Brings labels from a file to a team's database and back: every row as it is, of one moment.

Events keep their ids, times and keys, people their pseudonyms; the queue comes along with its
leases, draws and trail. The target is new: nothing is ever merged.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from cb2_assist.core.errors import LabelError, UsageError
from cb2_assist.labels import filesystem
from cb2_assist.labels.connections import connect_writer, create_file, in_transaction
from cb2_assist.labels.database import Connection
from cb2_assist.labels.failures import label_error
from cb2_assist.labels.postgres import PostgresLabelStore
from cb2_assist.labels.postgres_schema import columns, count_on
from cb2_assist.labels.schema import MIGRATIONS, migrate
from cb2_assist.labels.sqlite import SqliteLabelStore
from cb2_assist.labels.store import label_file, same_labels
from cb2_assist.labels.team_url import is_team_url
from cb2_assist.labels.verify import Verification, verify_labels
from cb2_assist.labels.views_store import ViewsStore, copy_views

Rows = Callable[[str], Iterator[tuple[Any, ...]]]
"""Runs a query on one snapshot, however often."""

_AT_ONCE = 500
_OF_THE_DATABASE = ("migrations",)
"""Tables that say how the target was made."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What was copied where."""

    url: str
    rows: dict[str, int]
    """By table."""
    found: Verification
    """Of the target."""

    def to_json(self) -> dict[str, Any]:
        """For `labels copy --json`."""
        return {"rows": self.rows, **self.found.to_json(), "url": self.url}


def copy_labels(source: str, target: str) -> Copied:
    """Copy labels, queue and the views that are here, then check the copy.

    Args:
        source: A labels URL; may be in use.
        target: One that holds nothing yet.

    Raises:
        UsageError: Not such URLs, both name the same labels, or the target is there already.
        LabelError: The source cannot be read or the target cannot be written; nothing was copied.
    """
    if same_labels(source) == same_labels(target):
        raise UsageError(f"The copy would go where the labels are: --to names {target} too.")
    with _reading(source) as opened:
        if is_team_url(target):
            with PostgresLabelStore(target) as store, opened.snapshot() as rows:
                copied = store.write(lambda conn: _fill_database(rows, conn, store.place))
                _copy_views(opened.views_folder, store.views_folder)
        else:
            path = label_file(target)
            with opened.snapshot() as rows:
                copied = copy_to_file(rows, path)
            _copy_views(opened.views_folder, path.with_name(f"{path.name}.views"))
        elsewhere = isinstance(opened, PostgresLabelStore)
    with _reading(target) as made:
        return Copied(made.url, copied, verify_labels(made, views_elsewhere=elsewhere))


def copy_to_file(rows: Rows, path: Path) -> dict[str, int]:
    """Make a label file of rows; it appears once everything in it is on disk.

    Raises:
        UsageError: The file is there already.
        LabelError: It cannot be written.
    """
    if path.exists():
        raise UsageError(
            f"{path} is there already. A copy never overwrites anything: name a new file."
        )
    part = path.with_name(f".{path.name}-{secrets.token_hex(4)}.part")
    try:
        create_file(part)
        conn, _ = connect_writer(part)
        with closing(conn):
            migrate(conn)
            with in_transaction(conn):
                copied = _fill(rows, conn)
            # one plain file, of which nothing is left beside it
            conn.execute("PRAGMA journal_mode = DELETE")
        part.rename(path)
        filesystem.sync_folder(path.parent)
    except (sqlite3.Error, OSError) as e:
        raise label_error(path, e, "Nothing was copied.") from e
    finally:
        part.unlink(missing_ok=True)
    return copied


def _reading(url: str) -> AbstractContextManager[SqliteLabelStore | PostgresLabelStore]:
    if is_team_url(url):
        return PostgresLabelStore(url, read_only=True)
    return SqliteLabelStore(label_file(url), read_only=True)


def _fill_database(rows: Rows, conn: Connection, place: str) -> dict[str, int]:
    for table in _tables():
        is_ours = table == "about"
        if not is_ours and conn.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone():  # noqa: S608
            raise LabelError(
                f"{place} hold something already (in {table}). Labels are copied into an empty "
                "database only: `createdb NAME` makes one. Nothing was copied."
            )
    copied = _fill(rows, conn)
    count_on(conn)
    return copied


def _fill(rows: Rows, conn: Connection) -> dict[str, int]:
    """Every row of every table."""
    ((version,),) = rows("SELECT max(version) FROM migrations")
    if version != len(MIGRATIONS):
        raise LabelError(
            f"The labels have schema {version}, and copies are made of {len(MIGRATIONS)}. Open "
            "them once with `cb2-assist serve` to bring them up to date. Nothing was copied."
        )
    return {table: _fill_table(rows, conn, table, names) for table, names in _tables().items()}


def _tables() -> dict[str, tuple[str, ...]]:
    found = columns(len(MIGRATIONS))
    return {table: names for table, names in found.items() if table not in _OF_THE_DATABASE}


def _fill_table(rows: Rows, conn: Connection, table: str, names: Sequence[str]) -> int:
    listed, marks = ", ".join(names), ", ".join("?" * len(names))
    put = f"INSERT INTO {table} ({listed}) VALUES ({marks})"  # noqa: S608 - our own names
    if table == "about":
        put += " ON CONFLICT (name) DO UPDATE SET value = excluded.value"
    found = rows(f"SELECT {listed} FROM {table} ORDER BY 1, 2")  # noqa: S608
    n = 0
    while some := list(islice(found, _AT_ONCE)):
        conn.executemany(put, some)
        n += len(some)
    return n


def _copy_views(source: Path, target: Path) -> None:
    if source.resolve() != target.resolve() and source.is_dir():
        copy_views(ViewsStore(source), target)
