"""Variation of information of a segmentation while its segments are being joined.

VOI split is H(segmentation | truth), VOI merge H(truth | segmentation), in bits, over voxels with
truth > 0 and segmentation > 0 (Meila 2007, doi:10.1016/j.jmva.2006.11.013). Only the counts of
shared voxels are kept, so that a join costs as much as the shorter of two rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Overlaps:
    """How many voxels each segment shares with each body; rows with any, by ids.

    Attributes:
        segment: uint64, (n,).
        body: uint64, (n,).
        voxels: int64, (n,).
    """

    segment: NDArray[np.uint64]
    body: NDArray[np.uint64]
    voxels: NDArray[np.int64]

    @classmethod
    def count(cls, seg: NDArray[Any], truth: NDArray[Any]) -> Overlaps:
        """Of two volumes of one shape; 0 is left out in either."""
        s, t = seg.ravel(order="K"), truth.ravel(order="K")
        if seg.strides != truth.strides:
            s, t = seg.ravel(), truth.ravel()
        first = np.flatnonzero(np.concatenate([[True], (s[1:] != s[:-1]) | (t[1:] != t[:-1])]))
        length = np.diff(first, append=s.size)
        pair, at = np.unique(np.stack([s[first], t[first]], 1), axis=0, return_inverse=True)
        number = np.bincount(at.ravel(), length, len(pair)).astype(np.int64)
        known = (pair > 0).all(axis=1)
        return cls(
            pair[known, 0].astype(np.uint64), pair[known, 1].astype(np.uint64), number[known]
        )


class JoinedSegments:
    """Segments 0..n-1 and what they have been joined to."""

    def __init__(self, overlaps: Overlaps, segments: NDArray[np.uint64]) -> None:
        """Nothing is joined.

        Args:
            overlaps: Counts; every segment in it is among ``segments``.
            segments: Ids, sorted; their places number the segments.
        """
        n = len(segments)
        self.group: NDArray[np.intp] = np.arange(n)
        """Of each segment: the number of one segment that stands for all it is joined to."""
        self._members: list[list[int]] = [[k] for k in range(n)]
        self._rows: list[dict[int, int]] = [{} for _ in range(n)]
        self._size = [0] * n
        body: dict[int, int] = {}
        at = np.searchsorted(segments, overlaps.segment).tolist()
        for row, b, k in zip(at, overlaps.body.tolist(), overlaps.voxels.tolist(), strict=True):
            self._rows[row][b] = k
            self._size[row] += k
            body[b] = body.get(b, 0) + k
        self.voxels = sum(self._size)
        cells = sum(_x_log_x(k) for row in self._rows for k in row.values())
        self._split = sum(map(_x_log_x, body.values())) - cells
        self._merge = sum(map(_x_log_x, self._size)) - cells

    def copy(self) -> JoinedSegments:
        """The same state, to be changed apart."""
        other = object.__new__(JoinedSegments)
        other.group = self.group.copy()
        # lists and dicts of a group are replaced, never changed in place
        other._members, other._rows = list(self._members), list(self._rows)
        other._size, other.voxels = list(self._size), self.voxels
        other._split, other._merge = self._split, self._merge
        return other

    @property
    def voi_split(self) -> float:
        """H(segmentation | truth), bits."""
        return max(self._split / max(self.voxels, 1), 0.0)

    @property
    def voi_merge(self) -> float:
        """H(truth | segmentation), bits."""
        return max(self._merge / max(self.voxels, 1), 0.0)

    @property
    def voi(self) -> float:
        """Both together."""
        return self.voi_split + self.voi_merge

    def change(self, a: int, b: int) -> float:
        """What joining two segments would add to the VOI, bits; below 0 it gets better."""
        i, j = int(self.group[a]), int(self.group[b])
        if i == j:
            return 0.0
        split, merge = self._changes(i, j)
        return (split + merge) / max(self.voxels, 1)

    def join(self, a: int, b: int) -> tuple[int, int] | None:
        """Join two segments.

        Returns:
            The groups that were two, the one that stands for both now first; None: they were one.
        """
        i, j = int(self.group[a]), int(self.group[b])
        if i == j:
            return None
        if len(self._members[i]) < len(self._members[j]):
            i, j = j, i
        split, merge = self._changes(i, j)
        self._split += split
        self._merge += merge
        self._rows[i] = _added(self._rows[i], self._rows[j])
        self._rows[j] = {}
        self._size[i], self._size[j] = self._size[i] + self._size[j], 0
        self.group[self._members[j]] = i
        self._members[i] = self._members[i] + self._members[j]
        self._members[j] = []
        return i, j

    def _changes(self, i: int, j: int) -> tuple[float, float]:
        short, long = sorted((self._rows[i], self._rows[j]), key=len)
        cells = sum(
            _x_log_x(k + long[b]) - _x_log_x(k) - _x_log_x(long[b])
            for b, k in short.items()
            if b in long
        )
        m, n = self._size[i], self._size[j]
        return -cells, _x_log_x(m + n) - _x_log_x(m) - _x_log_x(n) - cells


def _x_log_x(x: int) -> float:
    return x * math.log2(x) if x else 0.0


def _added(a: dict[int, int], b: dict[int, int]) -> dict[int, int]:
    out = dict(a)
    for body, k in b.items():
        out[body] = out.get(body, 0) + k
    return out
