"""Reads arrays from files, one reader for each file ending. Nothing is ever unpickled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.errors import AssistError, BadVolumeError, UsageError

AnyArray = NDArray[Any]
Reader = Callable[[Path, str | None], AnyArray]
"""Takes the file and the name of the array inside it (None when none was given)."""


def read_array(spec: str) -> AnyArray:
    """Read an array from ``FILE`` or, for files that hold several, ``FILE:KEY``.

    Raises:
        BadVolumeError: The file is missing, damaged, or not of a known kind.
        UsageError: The key is missing or wrong.
    """
    path, key = _split(spec)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise BadVolumeError(
            f"Cannot tell how to read {spec!r}: a file ending in {', '.join(READERS)} is needed."
        )
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise BadVolumeError(f"{path} {what}.")
    try:
        return reader(path, key)
    except AssistError:
        raise
    except MemoryError as e:
        raise BadVolumeError(
            f"{path} does not fit into memory. Cut it into smaller volumes."
        ) from e
    except OSError as e:
        raise BadVolumeError(f"Cannot read {path}: {e.strerror or e}.") from e
    except Exception as e:
        # on damaged files the parsers of NumPy, zipfile and zlib fail in a dozen ways
        raise BadVolumeError(_not_an_array(path, e)) from e


def _split(spec: str) -> tuple[Path, str | None]:
    path = Path(spec).expanduser()
    head, colon, key = spec.rpartition(":")
    if colon and path.suffix.lower() not in READERS and Path(head).suffix.lower() in READERS:
        return Path(head).expanduser(), key
    return path, None


def _not_an_array(path: Path, error: Exception) -> str:
    why = " ".join(str(error).split()) or type(error).__name__
    if "pickle" in why.lower():
        return (
            f"{path} holds Python objects or is not a NumPy file; it is not read, because reading "
            "such a file can run code. Save a plain array: np.save(FILE, array)."
        )
    return f"{path} is damaged or not a {path.suffix} file ({why}). Save it again."


def _read_npy(path: Path, key: str | None) -> AnyArray:
    if key is not None:
        raise UsageError(f"{path} holds one array without a name; leave ':{key}' out.")
    with path.open("rb") as file:
        loaded: object = np.load(file, allow_pickle=False)
    if not isinstance(loaded, np.ndarray):
        raise BadVolumeError(f"{path} is an .npz archive under another name; rename it.")
    return loaded


def _read_npz(path: Path, key: str | None) -> AnyArray:
    # opened here, since NumPy leaves the file open when an archive member is damaged
    with path.open("rb") as file:
        archive: object = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise BadVolumeError(f"{path} is an .npy file under another name; rename it.")
        names = list(archive.files)
        if key is None and len(names) == 1:
            key = names[0]
        if key is None or key not in names:
            asked = "Say which array" if key is None else f"There is no array {key!r}"
            raise UsageError(
                f"{asked} in {path}: give {path}:KEY. Arrays: {', '.join(names) or 'none'}."
            )
        array: object = archive[key]
    if not isinstance(array, np.ndarray):
        raise BadVolumeError(f"{path}:{key} is not an array.")
    return array


READERS: dict[str, Reader] = {".npy": _read_npy, ".npz": _read_npz}
"""What can be read, by file ending."""
