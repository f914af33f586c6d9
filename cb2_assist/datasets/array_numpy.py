"""Arrays in .npy and .npz files, read part by part. Nothing is ever unpickled."""

from __future__ import annotations

import contextlib
import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from cb2_assist.core.errors import BadVolumeError, UsageError
from cb2_assist.datasets.stored import AnyArray, Hints, Index, RawArray, StoredArray

_MAGIC = b"\x93NUMPY"
_ZIP = b"PK\x03\x04"


def open_npy(path: Path, key: str | None) -> StoredArray:
    """Open an .npy file.

    Raises:
        UsageError: A key was given.
        BadVolumeError: The file holds something else, or is cut short.
    """
    if key is not None:
        raise UsageError(f"{path} holds one array without a name; leave ':{key}' out.")
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(path.open("rb"))
        if file.read(4) == _ZIP:
            raise BadVolumeError(f"{path} is an .npz archive under another name; rename it.")
        file.seek(0)
        shape, reverse, dtype = _header(path, file)
        array = RawArray(file, file.tell(), shape, dtype, Hints(reverse=reverse))
        array.check_length()
        stack.pop_all()
    return array


def open_npz(path: Path, key: str | None) -> StoredArray:
    """Open one array of an .npz archive; the key may be left out where there is only one.

    Raises:
        UsageError: The key is missing or wrong.
        BadVolumeError: The file holds something else.
    """
    with path.open("rb") as file:
        if file.read(6) == _MAGIC:
            raise BadVolumeError(f"{path} is an .npy file under another name; rename it.")
    with contextlib.ExitStack() as stack:
        archive = stack.enter_context(zipfile.ZipFile(path))
        members = archive.namelist()
        names = [m.removesuffix(".npy") for m in members]
        if key is None and len(names) == 1:
            key = names[0]
        if key is None or key not in names:
            asked = "Say which array" if key is None else f"There is no array {key!r}"
            raise UsageError(
                f"{asked} in {path}: give {path}:KEY. Arrays: {', '.join(names) or 'none'}."
            )
        member = members[names.index(key)]
        if not member.endswith(".npy"):
            raise BadVolumeError(f"{path}:{key} is not an array.")
        with archive.open(member) as stream:
            shape, reverse, dtype = _header(path, stream)
            start = stream.tell()
        if start + math.prod(shape) * dtype.itemsize > archive.getinfo(member).file_size:
            raise BadVolumeError("is cut short")
        stack.pop_all()
    return _ArchivedArray(archive, member, start, shape, dtype, Hints(reverse=reverse))


def _header(path: Path, stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape in the order of the bytes, whether that is the reverse of the array's, and type."""
    magic, version = stream.read(6), stream.read(2)
    if len(version) < 2:
        raise BadVolumeError("it ends within its first bytes")
    if magic != _MAGIC:
        raise BadVolumeError(_pickled(path))
    major, minor = version
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get((major, minor))
    if read is None:
        raise BadVolumeError(f"its format version {major}.{minor} is not known")
    shape, fortran, dtype = read(stream)
    if dtype.hasobject:
        raise BadVolumeError(_pickled(path))
    turned = bool(fortran) and len(shape) > 1
    return tuple(shape[::-1] if turned else shape), turned, dtype


def _pickled(path: Path) -> str:
    return (
        f"{path} holds Python objects or is not a NumPy file; it is not read, because reading "
        "such a file can run code. Save a plain array: np.save(FILE, array)."
    )


class _ArchivedArray:
    """An array in a zip archive: can only be read forwards, so it starts anew to go back."""

    def __init__(
        self,
        archive: zipfile.ZipFile,
        member: str,
        start: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        hints: Hints,
    ) -> None:
        self.shape, self.dtype, self.hints = shape, dtype, hints
        self.chunk = (1, *shape[1:]) if shape else ()
        self._archive, self._member, self._start = archive, member, start
        self._stream: IO[bytes] | None = None
        self._next = 0

    def read(self, lo: Index, hi: Index) -> AnyArray:
        """Values of the box; whole pages along the first axis are decoded."""
        page = math.prod(self.shape[1:]) * self.dtype.itemsize
        self._go_to(lo[0], page)
        assert self._stream is not None
        out = np.empty([b - a for a, b in zip(lo, hi, strict=True)], self.dtype)
        inner = tuple(slice(a, b) for a, b in zip(lo[1:], hi[1:], strict=True))
        for k in range(len(out)):
            whole = np.frombuffer(self._exactly(page), self.dtype).reshape(self.shape[1:])
            out[k] = whole[inner]
        self._next = hi[0]
        if self._next == self.shape[0]:
            self._stream.read(1)  # the end: the archive's checksum is compared now
        return out

    def close(self) -> None:
        """Close the archive."""
        if self._stream is not None:
            self._stream.close()
        self._archive.close()

    def _go_to(self, first: int, page: int) -> None:
        if self._stream is None or first < self._next:
            if self._stream is not None:
                self._stream.close()
            self._stream = self._archive.open(self._member)
            self._exactly(self._start)
            self._next = 0
        for _ in range(self._next, first):
            self._exactly(page)

    def _exactly(self, n: int) -> bytes:
        assert self._stream is not None
        got = self._stream.read(n)
        if len(got) != n:
            raise BadVolumeError("is cut short")
        return got
