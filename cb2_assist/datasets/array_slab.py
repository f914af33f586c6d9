"""A part of an array unpacked to disk, for files whose parts cannot be read alone.

A compressed page of a large TIFF stack, or a member of an .npz archive, is decoded as a whole. To
take boxes out of such an array would decode everything again for each box; to hold a slab of
sections would need memory for it. So one slab at a time lies decoded in a file without a name,
which the system removes when it is closed.
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import numpy as np

from cb2_assist.datasets.stored import AnyArray, Index, RawArray, StoredArray


class SlabArray:
    """An array with its current slab along the first dimension on disk.

    Args:
        array: Where the values come from.
        thickness: Of a slab, in steps along the first dimension.
        folder: Where the unnamed file goes.
    """

    def __init__(self, array: StoredArray, thickness: int, folder: Path) -> None:
        self.shape, self.dtype, self.hints = array.shape, array.dtype, array.hints
        self.chunk = (1,) * len(self.shape)
        self._array, self._thickness, self._folder = array, thickness, folder
        self._slab: RawArray | None = None
        self._first = -1

    def read(self, lo: Index, hi: Index) -> AnyArray:
        """Values of the box.

        Raises:
            OSError: The slab cannot be written, e.g. because the disk is full.
        """
        parts = []
        start = lo[0]
        while start < hi[0]:
            first = start // self._thickness * self._thickness
            slab = self._slab if first == self._first and self._slab else self._load(first)
            stop = min(hi[0], first + self._thickness)
            parts.append(slab.read((start - first, *lo[1:]), (stop - first, *hi[1:])))
            start = stop
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def close(self) -> None:
        """Let go of both files."""
        if self._slab is not None:
            self._slab.close()
        self._array.close()

    def _load(self, first: int) -> RawArray:
        if self._slab is None:
            file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed with this
            shape = (self._thickness, *self.shape[1:])
            self._slab = RawArray(file, 0, shape, self.dtype)
        self._first = -1
        end = (min(first + self._thickness, self.shape[0]), *self.shape[1:])
        begin = (first, *(0 for _ in self.shape[1:]))
        chunk = self._array.chunk
        for lo in itertools.product(*map(range, begin, end, chunk)):
            hi = [min(i + c, e) for i, c, e in zip(lo, chunk, end, strict=True)]
            self._slab.write((lo[0] - first, *lo[1:]), self._array.read(lo, hi))
        self._first = first
        return self._slab
