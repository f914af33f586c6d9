"""What is known of a segmentation after one pass over its blocks: sizes, and its name."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.geometry import BoxVx, PointVoxel
from cb2_assist.datasets.voxels import CHUNK_VX, Shape, slices

Ids = NDArray[np.uint64]
_LOOSE = 2**20
"""Rows that may wait to be added up."""


class SegmentSizes:
    """Voxels of each segment, from blocks in any order; background is left out."""

    def __init__(self) -> None:
        self._ids: list[Ids] = []
        self._counts: list[NDArray[np.int64]] = []
        self._rows = self._settled = 0

    def see(self, block: Ids) -> None:
        """Count a block."""
        import fastremap

        ids, counts = fastremap.unique(block, return_counts=True)
        inside = ids != 0
        self._ids.append(ids[inside])
        self._counts.append(counts[inside].astype(np.int64))
        self._rows += int(inside.sum())
        # often enough to stay small, seldom enough that the sorting costs little
        if self._rows > self._settled + max(_LOOSE, self._settled):
            self._settle()

    def table(self) -> tuple[Ids, NDArray[np.int64]]:
        """Sorted ids and their voxels."""
        self._settle()
        if not self._ids:
            return np.empty(0, np.uint64), np.empty(0, np.int64)
        return self._ids[0], self._counts[0]

    def _settle(self) -> None:
        if not self._ids:
            return
        ids, place = np.unique(np.concatenate(self._ids), return_inverse=True)
        counts = np.zeros(len(ids), np.int64)
        np.add.at(counts, place, np.concatenate(self._counts))
        self._ids, self._counts = [ids], [counts]
        self._rows = self._settled = len(ids)


class VersionDigest:
    """The name of exactly one segmentation, whatever the blocks in which it was read.

    Args:
        place: What else tells it from others: voxel size and first voxel.
        shape: Voxels along x, y, z.
    """

    def __init__(self, place: str, shape: Shape) -> None:
        self._head = f"{place} {shape} chunks of {CHUNK_VX} x-fastest uint64 "
        cells = tuple(-(-n // CHUNK_VX) for n in reversed(shape))
        self._chunks = np.zeros((*cells, 16), np.uint8)

    def see(self, box: BoxVx, block: Ids) -> None:
        """Take a block that begins at a chunk's corner and ends at one or at the volume's end."""
        shape = box.shape
        for lo in np.ndindex(*(-(-n // CHUNK_VX) for n in shape)):
            start = PointVoxel(*(i * CHUNK_VX for i in lo))
            stop = PointVoxel(*(min(i + CHUNK_VX, n) for i, n in zip(start, shape, strict=True)))
            part = block[slices(BoxVx(start, stop))].astype("<u8", copy=False)
            digest = hashlib.sha256(part.tobytes(order="F")).digest()[:16]
            x, y, z = (a // CHUNK_VX + i for a, i in zip(box.lo, lo, strict=True))
            self._chunks[z, y, x] = np.frombuffer(digest, np.uint8)

    def hexdigest(self) -> str:
        """12 hex digits of SHA-256 over the place and all chunks."""
        digest = hashlib.sha256(self._head.encode())
        digest.update(self._chunks.tobytes())
        return digest.hexdigest()[:12]


class EmHistogram:
    """Mean and spread of grey values, from blocks in any order."""

    def __init__(self) -> None:
        self._counts = np.zeros(256, np.int64)

    def see(self, block: NDArray[np.uint8]) -> None:
        """Count a block."""
        self._counts += np.bincount(block.ravel(order="K"), minlength=256)

    def mean_std(self) -> tuple[float, float]:
        """Over everything seen."""
        values = np.arange(256)
        n = max(int(self._counts.sum()), 1)
        mean = float(self._counts @ values) / n
        return mean, max(0.0, float(self._counts @ values**2) / n - mean * mean) ** 0.5
