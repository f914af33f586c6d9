"""Distances to a growing set of centres."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

_BLOCK = 2**23
"""Distances in memory at once: 32 MiB."""
_ROUNDING = 1e-6
"""Squared distances below this share of the two squared lengths are rounding, and are 0."""


class Spread:
    """Squared distances of points (n, D) to each other, by the scalar product."""

    def __init__(self, points: Singles) -> None:
        self._points = points
        self._own = np.einsum("nd,nd->n", points, points)

    def to(self, row: int) -> Floats:
        """From one of the points, (n,)."""
        return self._apart(slice(None), np.array([row]))[:, 0]

    def to_nearest(self, rows: NDArray[np.intp]) -> Floats:
        """From the nearest of some of the points, (n,); infinite without one."""
        out = np.full(len(self._points), np.inf)
        step = max(1, _BLOCK // max(1, len(rows)))
        for start in range(0, len(out) if len(rows) else 0, step):
            part = slice(start, start + step)
            out[part] = self._apart(part, rows).min(axis=1)
        return out

    def from_mean(self) -> Floats:
        """From the mean of all points, (n,)."""
        mean = self._points.mean(axis=0)
        out: Floats = self._own - 2 * (self._points @ mean) + mean @ mean
        return out

    def _apart(self, some: slice, rows: NDArray[np.intp]) -> Floats:
        sums = self._own[some, None] + self._own[rows]
        far = sums - 2 * (self._points[some] @ self._points[rows].T)
        far[far < _ROUNDING * sums] = 0
        return np.asarray(far, np.float64)
