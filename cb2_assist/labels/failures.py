"""What a failing disk or database means, in words that say what to do."""

from __future__ import annotations

import errno
import shutil
import sqlite3
from pathlib import Path

from cb2_assist.core.errors import LabelError, LabelFileReadOnlyError

_NEARLY_FULL_BYTES = 1_000_000


def label_error(path: Path, cause: sqlite3.Error | OSError, outcome: str = "") -> LabelError:
    """The error for a person.

    Args:
        path: The label file, or a file that is kept beside it.
        cause: As SQLite or the system raised it.
        outcome: What became of what was being done, e.g. ``Nothing was recorded.``
    """
    kind, text = _os(path, cause) if isinstance(cause, OSError) else _sqlite(path, cause)
    return kind(f"{text} {outcome}".rstrip())


def _os(path: Path, cause: OSError) -> tuple[type[LabelError], str]:
    if cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return _full(path)
    if cause.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return _read_only(path)
    return LabelError, f"{path} cannot be used: {cause.strerror or cause}."


def _sqlite(path: Path, cause: sqlite3.Error) -> tuple[type[LabelError], str]:
    code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and _is_nearly_full(path)):
        return _full(path)
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return _read_only(path)
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return LabelError, (
            f"{path} is damaged or is not a label file ({cause}). Move it away together with its "
            "-wal file and keep both (`sqlite3 FILE .recover` often saves the rows), restore a "
            "backup, or name another file with --labels."
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return LabelError, (
            f"Another program has kept {path} locked for too long. Close what is writing to it, "
            "then try again."
        )
    if code == sqlite3.SQLITE_IOERR:
        return LabelError, (
            f"The disk reported an error at {path} ({cause}). Check the disk and its free space, "
            "then try again."
        )
    return LabelError, f"{path} cannot be used: {cause}."


def _full(path: Path) -> tuple[type[LabelError], str]:
    return LabelFileReadOnlyError, (
        f"The disk is full, or a quota or file size limit is reached, at {path}. "
        "Free some space, then try again."
    )


def _read_only(path: Path) -> tuple[type[LabelError], str]:
    return LabelFileReadOnlyError, (
        f"{path} or its folder cannot be written or opened. Allow yourself to write to both, or "
        "name another file with --labels sqlite:///PATH."
    )


def _is_nearly_full(path: Path) -> bool:
    try:
        return shutil.disk_usage(path.parent).free < _NEARLY_FULL_BYTES
    except OSError:
        return False
