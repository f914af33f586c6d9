"""A copy of a label file and its views, of one moment, beside a running server."""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cb2_assist.core.errors import LabelError, UsageError
from cb2_assist.labels import filesystem
from cb2_assist.labels.connections import connect_reader
from cb2_assist.labels.copying import copy_to_file
from cb2_assist.labels.failures import label_error
from cb2_assist.labels.sqlite import SqliteLabelStore
from cb2_assist.labels.store import label_file, labels_url
from cb2_assist.labels.team_url import is_team_url
from cb2_assist.labels.verify import verify_labels
from cb2_assist.labels.views_store import ViewsStore, copy_views

COPY_NAME = "labels.sqlite"


@dataclass(frozen=True, slots=True)
class Backup:
    """What was copied."""

    folder: Path
    url: str
    """Opens the copy."""
    events: int
    views: int
    problems: tuple[str, ...]
    """What is wrong with the copy, which is what is wrong with the labels; usually nothing."""

    def to_json(self) -> dict[str, Any]:
        """For `labels backup --json`."""
        return {
            "folder": str(self.folder),
            "url": self.url,
            "events": self.events,
            "views": self.views,
            "ok": not self.problems,
            "problems": list(self.problems),
        }


def back_up(url: str, out: Path) -> Backup:
    """Copy labels and the views beside them into a new folder, then check the copy.

    A team's labels become a label file.

    Views are kept before the decision that names them, so copying them second copies all that the
    events name. The folder appears once everything in it is on disk.

    Args:
        url: Of the labels; may be in use by servers.
        out: A folder that is not there yet, or empty.

    Raises:
        UsageError: The folder holds something.
        LabelError: The labels cannot be read or the copy cannot be written.
    """
    out = out.absolute()
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(
            f"--out names {out}, which is there already. A backup never overwrites anything: name "
            "a new folder."
        )
    work = out.with_name(f".{out.name}-{secrets.token_hex(4)}.part")
    is_team = is_team_url(url)
    path = out if is_team else label_file(url)
    try:
        views = _copy_team(url, work) if is_team else _copy_file(path, work)
        copy_views(ViewsStore(views), work / f"{COPY_NAME}.views")
        # an empty folder of that name gives way
        work.rename(out)
        filesystem.sync_folder(out.parent)
    except sqlite3.Error as e:
        raise label_error(path, e, "No backup was made.") from e
    except OSError as e:
        raise label_error(out, e, "No backup was made.") from e
    finally:
        shutil.rmtree(work, ignore_errors=True)
    with SqliteLabelStore(out / COPY_NAME, read_only=True) as copy:
        found = verify_labels(copy, views_elsewhere=is_team)
    return Backup(out, labels_url(out / COPY_NAME), found.events, found.views, found.problems)


def _copy_file(path: Path, work: Path) -> Path:
    """Returns where the views are."""
    SqliteLabelStore(path, read_only=True).close()  # says so if these are no labels
    with closing(connect_reader(path)) as source:
        filesystem.make_private_folder(work)
        _copy_database(source, work / COPY_NAME)
    return path.with_name(f"{path.name}.views")


def _copy_team(url: str, work: Path) -> Path:
    """Returns where those of the views are that are here."""
    from cb2_assist.labels.postgres import PostgresLabelStore

    with PostgresLabelStore(url, read_only=True) as store, store.snapshot() as rows:
        filesystem.make_private_folder(work)
        copy_to_file(rows, work / COPY_NAME)
        return store.views_folder


def _copy_database(source: sqlite3.Connection, path: Path) -> None:
    """One step of SQLite's backup: a reader's snapshot, for which no writer waits with a log."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    with closing(sqlite3.connect(path, isolation_level=None)) as copy:
        source.backup(copy)
        # one plain file, which opens where nothing can be written too
        (mode,) = copy.execute("PRAGMA journal_mode = DELETE").fetchone()
        if mode != "delete":
            raise LabelError(f"The copy {path} cannot leave its write-ahead log. Try again.")
    _sync(path)


def _sync(path: Path) -> None:
    with path.open("rb+") as f:
        os.fsync(f.fileno())
