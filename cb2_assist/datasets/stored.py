"""What an array in a file looks like before it is read, and arrays that lie raw in a file."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.errors import BadVolumeError

AnyArray = NDArray[Any]
Index = Sequence[int]


@dataclass(frozen=True, slots=True)
class Hints:
    """What a file says about its array, in the array's own order of axes.

    Attributes:
        axes: One lower-case letter a dimension, e.g. ``zyx`` or ``tczyx``; None when not said.
        voxel_nm: Voxel size a dimension; None where not said.
        told_by: Where it is said, in words, e.g. ``OME-Zarr``.
        reverse: Whether users know the array with its dimensions in the opposite order, because
            those of the file begin with the fastest one (N5, NumPy's Fortran order).
    """

    axes: str | None = None
    voxel_nm: tuple[float | None, ...] | None = None
    told_by: str = ""
    reverse: bool = False


class StoredArray(Protocol):
    """An array in a file, of which any box can be read."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each dimension."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""

    @property
    def chunk(self) -> tuple[int, ...]:
        """Smallest part that is decoded as a whole; ones where any part can be read alone."""

    @property
    def hints(self) -> Hints:
        """What the file says about the array."""

    def read(self, lo: Index, hi: Index) -> AnyArray:
        """Values of the half-open box, one bound a dimension."""

    def close(self) -> None:
        """Let go of the file."""


class RawArray:
    """An array in C order that lies raw in a file.

    It is read and written with seeks: a mapped file would end the process where the disk fails or
    the file is cut short meanwhile, and its pages would count as memory.

    Args:
        file: Open, unbuffered or not.
        offset: Byte of the first value.
        shape: Length of each dimension.
        dtype: Type of the values.
        hints: What the file says.

    Raises:
        BadVolumeError: The file is shorter than the array. Only files that are read are checked.
    """

    def __init__(
        self,
        file: BinaryIO,
        offset: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        hints: Hints | None = None,
    ) -> None:
        self.shape, self.dtype = shape, dtype
        self.chunk = (1,) * len(shape)
        self.hints = hints or Hints()
        self._file, self._offset = file, offset

    def check_length(self) -> None:
        """Refuse a file that ends before the array does.

        Raises:
            BadVolumeError: It does.
        """
        needed = self._offset + math.prod(self.shape) * self.dtype.itemsize
        has = self._file.seek(0, io.SEEK_END)
        if has < needed:
            raise BadVolumeError(f"is cut short: it has {has} bytes of {needed}")

    def read(self, lo: Index, hi: Index) -> AnyArray:
        """Values of the box."""
        out = np.empty([b - a for a, b in zip(lo, hi, strict=True)], self.dtype)
        for at, part in self._runs(lo, out):
            self._file.seek(at)
            view = part.view(np.uint8).data
            if self._file.readinto(view) != len(view):  # type: ignore[attr-defined]
                raise BadVolumeError("is cut short")
        return out

    def write(self, lo: Index, values: AnyArray) -> None:
        """Put values at a place."""
        for at, part in self._runs(lo, np.ascontiguousarray(values, self.dtype)):
            self._file.seek(at)
            self._file.write(part.view(np.uint8).data)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _runs(self, lo: Index, box: AnyArray) -> Iterator[tuple[int, AnyArray]]:
        """Bytes that lie together: where in the file, and the flat part of ``box``."""
        if not box.size:
            return
        strides = [
            math.prod(self.shape[k + 1 :]) * self.dtype.itemsize for k in range(len(self.shape))
        ]
        whole = len(self.shape)
        while whole > 1 and box.shape[whole - 1] == self.shape[whole - 1]:
            whole -= 1
        lead = max(whole - 1, 0)
        first = self._offset + sum(a * s for a, s in zip(lo, strides, strict=True))
        for index in itertools.product(*(range(n) for n in box.shape[:lead])):
            at = first + sum(i * s for i, s in zip(index, strides, strict=False))
            yield at, box[index].reshape(-1)


class Squeezed:
    """The same array without dimensions of length 1."""

    def __init__(self, array: StoredArray, kept: tuple[int, ...]) -> None:
        """Keep the named dimensions; all others must have length 1."""
        self._array, self._kept = array, kept
        self.shape = tuple(array.shape[d] for d in kept)
        self.chunk = tuple(array.chunk[d] for d in kept)
        self.dtype = array.dtype
        h, n = array.hints, len(array.shape)
        axes = "".join(h.axes[d] for d in kept) if h.axes and len(h.axes) == n else None
        sizes = h.voxel_nm if h.voxel_nm and len(h.voxel_nm) == n else None
        kept_sizes = tuple(sizes[d] for d in kept) if sizes else None
        self.hints = Hints(axes, kept_sizes, h.told_by, h.reverse)

    def read(self, lo: Index, hi: Index) -> AnyArray:
        """Values of the box."""
        n = len(self._array.shape)
        whole_lo, whole_hi = [0] * n, [1] * n
        for d, a, b in zip(self._kept, lo, hi, strict=True):
            whole_lo[d], whole_hi[d] = a, b
        got = self._array.read(whole_lo, whole_hi)
        return got.reshape([b - a for a, b in zip(lo, hi, strict=True)])

    def close(self) -> None:
        """Let go of the file."""
        self._array.close()
