"""Opens arrays in files, one opener for each file ending. Nothing is ever unpickled."""

from __future__ import annotations

import glob
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cb2_assist.core.errors import AssistError, BadVolumeError
from cb2_assist.datasets.array_hdf5 import open_hdf5
from cb2_assist.datasets.array_numpy import open_npy, open_npz
from cb2_assist.datasets.array_tiff import SECTION_ENDINGS, open_sections, open_tiff
from cb2_assist.datasets.array_zarr import METADATA, open_zarr
from cb2_assist.datasets.stored import AnyArray, Hints, Index, StoredArray

Opener = Callable[[Path, str | None], StoredArray]
"""Takes the file and the name of the array inside it (None when none was given)."""

FILES: dict[str, Opener] = {
    ".npy": open_npy,
    ".npz": open_npz,
    ".h5": open_hdf5,
    ".hdf5": open_hdf5,
    ".hdf": open_hdf5,
    ".tif": open_tiff,
    ".tiff": open_tiff,
}
"""What can be read, by file ending."""

FOLDERS: dict[str, Opener] = {".zarr": open_zarr, ".n5": open_zarr}
"""The same for folders; one without such an ending holds sections, TIFF or PNG."""

_WILD = "*?["


def open_array(spec: str) -> StoredArray:
    """Open an array from ``FILE`` or, for files that hold several, ``FILE:KEY``.

    ``FOLDER`` and patterns such as ``'em/*.tif'`` name 2-D sections.

    Raises:
        BadVolumeError: The file is missing, damaged, or not of a known kind; also on reading.
        UsageError: The key is missing or wrong.
    """
    path, key, opener = _resolved(spec)
    guarded = _Guard(path)
    return _GuardedArray(guarded(lambda: opener(path, key)), guarded)


def _resolved(spec: str) -> tuple[Path, str | None, Opener]:
    path, key = _split(spec)
    suffix = path.suffix.lower()
    if suffix in FOLDERS and path.is_dir():
        return path, key, FOLDERS[suffix]
    if any(c in spec for c in _WILD) and not path.exists():
        return path, None, lambda _path, _key: open_sections(_matching(spec))
    if suffix in FILES and path.is_file():
        return path, key, FILES[suffix]
    if path.is_dir() and suffix not in FILES:
        if any((path / name).is_file() for name in METADATA):
            return path, key, open_zarr
        return path, None, lambda _path, _key: open_sections(_sections_in(path))
    if suffix not in FILES and suffix not in FOLDERS:
        raise BadVolumeError(
            f"Cannot tell how to read {spec!r}: a file ending in {', '.join(FILES)}, a folder "
            f"ending in {', '.join(FOLDERS)}, or a folder of {', '.join(SECTION_ENDINGS)} sections "
            "is needed."
        )
    if path.is_dir():
        raise BadVolumeError(f"{path} is a folder, not a file.")
    if path.is_file():
        raise BadVolumeError(f"{path} is a file, not a folder. Unpack it first.")
    raise BadVolumeError(f"{path} does not exist.")


def _split(spec: str) -> tuple[Path, str | None]:
    """The file or folder, and what stands after the colon or, for Zarr and N5, below it."""
    known = (*FILES, *FOLDERS)
    path = Path(spec).expanduser()
    head, colon, key = spec.rpartition(":")
    if colon and path.suffix.lower() not in FILES and Path(head).suffix.lower() in known:
        return Path(head).expanduser(), key
    if colon and not path.exists() and Path(head).expanduser().is_dir():
        return Path(head).expanduser(), key
    for above in path.parents:
        if above.suffix.lower() in FOLDERS and path.suffix.lower() not in known:
            return above, path.relative_to(above).as_posix()
    return path, None


def _matching(pattern: str) -> list[Path]:
    found = [Path(p) for p in glob.glob(str(Path(pattern).expanduser()))]  # noqa: PTH207
    wanted = [p for p in found if p.suffix.lower() in SECTION_ENDINGS]
    if not wanted:
        raise BadVolumeError(
            f"No section fits {pattern!r}; they end in {', '.join(SECTION_ENDINGS)}."
        )
    return wanted


def _sections_in(folder: Path) -> list[Path]:
    wanted = [p for p in folder.iterdir() if p.suffix.lower() in SECTION_ENDINGS]
    if not wanted:
        raise BadVolumeError(
            f"The folder {folder} holds no section; they end in {', '.join(SECTION_ENDINGS)}."
        )
    return wanted


class _Guard:
    """Runs what third parties' readers do, and says in our words what goes wrong there."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, work: Callable[[], Any]) -> Any:  # noqa: ANN401  what the work returns
        path = self._path
        try:
            return work()
        except BadVolumeError as e:
            text = str(e)
            # the readers of this package leave the name of the file to us
            if str(path) in text or text[:1].isupper():
                raise
            raise BadVolumeError(_damaged(path, text)) from e
        except AssistError:
            raise
        except MemoryError as e:
            raise BadVolumeError(
                f"A part of {path} does not fit into memory. Save it in smaller chunks."
            ) from e
        except OSError as e:
            if e.errno is not None and e.strerror:
                raise BadVolumeError(f"Cannot read {path}: {e.strerror}.") from e
            raise BadVolumeError(_damaged(path, _short(e))) from e
        except Exception as e:
            # on damaged files the parsers of NumPy, zipfile, HDF5 and TIFF fail in a dozen ways
            raise BadVolumeError(_damaged(path, _short(e))) from e


class _GuardedArray:
    def __init__(self, array: StoredArray, guarded: _Guard) -> None:
        self._array, self._guarded = array, guarded
        self.shape, self.chunk = array.shape, array.chunk
        self.dtype: np.dtype[Any] = array.dtype
        self.hints: Hints = array.hints

    def read(self, lo: Index, hi: Index) -> AnyArray:
        """Values of the box."""
        got = self._guarded(lambda: self._array.read(lo, hi))
        assert isinstance(got, np.ndarray)
        return got

    def close(self) -> None:
        """Let go of the file."""
        self._array.close()


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    # tensorstore adds its whole specification
    return text.split(" [", 1)[0][:300] or type(error).__name__


def _damaged(path: Path, why: str) -> str:
    kind = path.suffix or "readable"
    hint = ""
    if "filter" in why or "imagecodecs" in why or "codec" in why.lower():
        hint = _CODEC_HINT
    if why.startswith("is cut short"):
        return f"{path} is damaged: it {why}. Copy or save it again."
    return f"{path} is damaged or not a {kind} file ({why}). {hint or 'Save it again.'}"


_CODEC_HINT = (
    "If it is whole, it is compressed in a way that cannot be read here: "
    f"{Path(sys.executable).name} -m pip install 'cb2-assist[formats]' adds codecs for TIFF and "
    "HDF5, or save it with gzip or without compression."
)
