"""A folder that appears under its name only when everything in it is there."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cb2_assist.core.errors import DatasetError

_LOCK = ".importing"


@contextmanager
def appearing(out: Path) -> Iterator[Path]:
    """A sibling ``NAME.partial`` that becomes ``out`` at the end, or goes away on any failure.

    A process that is killed leaves its ``.partial``; the next one that wants the same name
    replaces it. While one process fills it, another is refused.

    Raises:
        DatasetError: The folder cannot be written, or another process is filling it.
    """
    folder = out.with_name(f"{out.name}.partial")
    held: int | None = None
    try:
        held = _claimed(folder)
        yield folder
        if sys.platform == "win32":
            os.close(held)
            held = None
        # over an empty folder this replaces it, over anything else it fails
        folder.rename(out)
        # only now: without it another process would take the folder for a leftover
        (out / _LOCK).unlink()
    except OSError as e:
        full = e.errno in (errno.ENOSPC, errno.EDQUOT)
        why = "the disk is full" if full else (e.strerror or str(e))
        raise DatasetError(
            f"Cannot write the dataset {out}: {why}. Nothing was kept; choose another --out or "
            "make room."
        ) from e
    finally:
        if held is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(held)


def _claimed(folder: Path) -> int:
    """Make the folder anew and hold its lock file."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        _drop_leftover(folder)
        folder.mkdir()
    held = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    _lock(held)
    return held


def _drop_leftover(folder: Path) -> None:
    """Remove what a killed process left.

    Raises:
        DatasetError: The process is alive, or the folder is not one of ours.
    """
    try:
        held = os.open(folder / _LOCK, os.O_RDWR)
    except FileNotFoundError:
        try:
            folder.rmdir()
        except OSError:
            raise DatasetError(
                f"{folder} is in the way and was not made by an import. Move it, or choose "
                "another --out."
            ) from None
        return
    try:
        _lock(held)
        shutil.rmtree(folder)
    except (BlockingIOError, PermissionError) as e:
        raise DatasetError(
            f"Another import is writing {folder}. Wait for it, stop it, or choose another --out."
        ) from e
    finally:
        os.close(held)


def _lock(descriptor: int) -> None:
    # on Windows an open file cannot be removed, which keeps others away as well
    if sys.platform != "win32":
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
