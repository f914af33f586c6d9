"""The course of a segment: level sets of the way from a far place, and how they hang together.

Cells and their neighbours are those of `cb2_assist.views.partition.grid_of`. A level set is a
connected set of cells in one band of path length (the Reeb graph of G. Reeb, 1946, of that length);
the graph of level sets has a leaf at every end of the segment, and a cycle where the segment meets
itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.geometry import BoxVx, PointVoxel
from cb2_assist.core.records import SegmentId
from cb2_assist.datasets.source import Cutout
from cb2_assist.views import basins
from cb2_assist.views.jit import kernel
from cb2_assist.views.partition import BAND_NM, Grid, cell_voxels, grid_of

_FROM = (1.0, 0.618, 0.382)
"""Where the root lies. Askew, so that the two ways round a loop seldom take equally long and meet
just where a segment touches itself."""


@dataclass(frozen=True, slots=True)
class Course:
    """Level sets of one segment. Those are named 1..n; row 0 of every array stands for none."""

    grid: Grid
    level: NDArray[np.int32]
    """Level set of each cell."""
    length: NDArray[np.int32]
    """Way of each cell from its root, in steps of the shortest cell edge."""
    band: NDArray[np.int64]
    """Number of each level set's band, growing with the distance from the root."""
    area_nm2: NDArray[np.float64]
    """Volume of each level set over the thickness of a band: about its cross-section."""
    begin: NDArray[np.int64]
    beside: NDArray[np.int64]
    """Neighbours of level set k are ``beside[begin[k]:begin[k + 1]]``."""
    root: NDArray[np.int32]
    """The cells from which lengths count, one a connected part."""

    @property
    def n(self) -> int:
        """How many level sets there are."""
        return len(self.band) - 1

    def around(self, k: int) -> NDArray[np.int64]:
        """Neighbours of a level set."""
        return self.beside[self.begin[k] : self.begin[k + 1]]


def course_of(grid: Grid) -> Course:
    """Follow each connected part of a segment from the cell that lies farthest out one way."""
    order = np.argsort(-(grid.place * grid.cell_nm) @ np.array(_FROM), kind="stable")
    unit = float(grid.cell_nm.min())
    step = np.maximum(1, np.rint(grid.cell_nm / unit)).astype(np.int64)
    length = basins.path_lengths(order, grid.beside, step)
    number = (length // max(1, round(BAND_NM / unit))).astype(np.int32)
    level, n = basins.components(number, grid.beside)
    band = np.zeros(n + 1, np.int64)
    band[level] = number
    area = np.bincount(level, grid.voxels, n + 1).astype(np.float64) * grid.voxel_nm3 / BAND_NM
    begin, beside = link_levels(level, n, grid.beside)
    return Course(
        grid, level, length, band, area, begin, beside, np.flatnonzero(length == 0).astype(np.int32)
    )


def cells_of(cutout: Cutout, segment: SegmentId) -> tuple[Grid, NDArray[np.float64]] | None:
    """A segment's cells on the dataset's fixed grid, and the corner in nm that they count from.

    None where the cutout does not hold the segment.
    """
    part = _aligned(cutout)
    grid = grid_of(np.asfortranarray(part.seg == np.uint64(segment)), part.resolution)
    return None if grid is None else (grid, np.array(list(part.box.lo)) * grid.voxel_nm)


def _aligned(cutout: Cutout) -> Cutout:
    """The cutout from the first whole cell of the dataset's grid on."""
    step = cell_voxels(cutout.resolution).tolist()
    lo = [-(-v // f) * f for v, f in zip(cutout.box.lo, step, strict=True)]
    if any(a >= b for a, b in zip(lo, cutout.box.hi, strict=True)):
        return cutout
    return cutout.crop(BoxVx(PointVoxel(*lo), cutout.box.hi))


@kernel
def link_levels(
    level: NDArray[np.int32], n: int, beside: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which level sets touch: begin (n + 2,) and neighbours, each pair once in either list."""
    most = 0
    for i in range(level.shape[0]):
        for axis in range(3):
            j = beside[i, 2 * axis]
            most += j >= 0 and level[j] != level[i]
    key = np.empty(2 * most, np.int64)
    m = 0
    for i in range(level.shape[0]):
        for axis in range(3):
            j = beside[i, 2 * axis]
            if j >= 0 and level[j] != level[i]:
                key[m] = np.int64(level[i]) * (n + 1) + level[j]
                key[m + 1] = np.int64(level[j]) * (n + 1) + level[i]
                m += 2
    key.sort()
    begin = np.zeros(n + 2, np.int64)
    out = np.empty(m, np.int64)
    used = 0
    for q in range(m):
        if q > 0 and key[q] == key[q - 1]:
            continue
        out[used] = key[q] % (n + 1)
        begin[key[q] // (n + 1) + 1] += 1
        used += 1
    return np.cumsum(begin), out[:used]


@kernel
def leaves(
    band: NDArray[np.int64], begin: NDArray[np.int64], beside: NDArray[np.int64], least: int
) -> NDArray[np.int64]:
    """Level sets in which a branch ends that is at least so many bands long.

    Level sets are added from far to near; where two branches meet, the one that reaches less far
    has its length (H. Edelsbrunner, D. Letscher, A. Zomorodian, Discrete Comput. Geom. 28 (2002)
    511).
    """
    n = band.shape[0] - 1
    parent = np.zeros(n + 1, np.int64)
    top = np.zeros(n + 1, np.int64)
    kept = np.zeros(n + 1, np.bool_)
    for k in np.argsort(-band[1:], kind="mergesort") + 1:
        parent[k] = k
        top[k] = k
        for q in range(begin[k], begin[k + 1]):
            j = beside[q]
            if parent[j] == 0:
                continue
            j, here = basins.root(parent, j), basins.root(parent, k)
            if j == here:
                continue
            low, high = (j, here) if band[top[j]] < band[top[here]] else (here, j)
            if top[low] != k and band[top[low]] - band[k] >= least:
                kept[top[low]] = True
            parent[low] = high
    for k in range(1, n + 1):
        if parent[k] == k and band[top[k]] >= least:
            kept[top[k]] = True
    return np.flatnonzero(kept)


@kernel
def ball(
    beside: NDArray[np.int32],
    place: NDArray[np.int32],
    edge_nm: NDArray[np.float64],
    start: int,
    radius_nm: float,
    seen: NDArray[np.int32],
    mark: int,
) -> NDArray[np.int32]:
    """Cells that hang together with one inside a ball around it.

    Args:
        beside: From `cells.link_cells`.
        place: The same.
        edge_nm: float64 (3,), edges of a cell.
        start: The cell in the middle.
        radius_nm: Of the ball.
        seen: int32 (n,), scratch; holds no `mark` yet.
        mark: A number not used before with this scratch.
    """
    found = np.empty(256, np.int32)
    found[0] = start
    seen[start] = mark
    n = 1
    at = 0
    while at < n:
        i = found[at]
        at += 1
        for d in range(6):
            j = beside[i, d]
            if j < 0 or seen[j] == mark:
                continue
            seen[j] = mark
            away = 0.0
            for a in range(3):
                away += ((place[j, a] - place[start, a]) * edge_nm[a]) ** 2
            if away > radius_nm**2:
                continue
            if n == found.shape[0]:
                found = np.concatenate((found, np.empty_like(found)))
            found[n] = j
            n += 1
    return found[:n]


@kernel
def narrow_between(
    area: NDArray[np.float64],
    begin: NDArray[np.int64],
    beside: NDArray[np.int64],
    wanted: NDArray[np.bool_],
    pinch: float,
    reach: int,
) -> NDArray[np.int64]:
    """Level sets that are narrow against what lies on at least two sides of them.

    Args:
        area: Of each level set.
        begin: See `Course`.
        beside: The same.
        wanted: Which ones to look at.
        pinch: Narrow is below this share of the largest area on a side.
        reach: Level sets that a side is followed.
    """
    n = area.shape[0] - 1
    seen = np.zeros(n + 1, np.int64)
    depth = np.zeros(n + 1, np.int64)
    queue = np.zeros(n + 1, np.int64)
    kept = np.zeros(n + 1, np.bool_)
    for k in np.flatnonzero(wanted):
        sides = 0
        seen[k] = k
        for q in range(begin[k], begin[k + 1]):
            first = beside[q]
            if seen[first] == k:
                continue
            seen[first] = k
            depth[first] = 1
            queue[0] = first
            size = 1
            at = 0
            widest = 0.0
            while at < size:
                here = queue[at]
                at += 1
                widest = max(widest, area[here])
                if depth[here] == reach:
                    continue
                for e in range(begin[here], begin[here + 1]):
                    if seen[beside[e]] != k:
                        seen[beside[e]] = k
                        depth[beside[e]] = depth[here] + 1
                        queue[size] = beside[e]
                        size += 1
            sides += area[k] < pinch * widest
        kept[k] = sides >= 2
    return np.flatnonzero(kept)


@kernel
def loop_length(begin: NDArray[np.int64], beside: NDArray[np.int64], k: int) -> int:
    """Level sets on the longest of the shortest ways round from one side of one to another.

    0 where its sides do not meet again.
    """
    n = begin.shape[0] - 2
    longest = 0
    queue = np.zeros(n + 1, np.int64)
    for q in range(begin[k], begin[k + 1]):
        far = np.full(n + 1, -1, np.int64)
        far[k] = 0
        far[beside[q]] = 1
        queue[0] = beside[q]
        size = 1
        at = 0
        while at < size:
            here = queue[at]
            at += 1
            for e in range(begin[here], begin[here + 1]):
                if far[beside[e]] < 0:
                    far[beside[e]] = far[here] + 1
                    queue[size] = beside[e]
                    size += 1
        for e in range(begin[k], begin[k + 1]):
            longest = max(longest, far[beside[e]] + 1)
    return longest if longest > 2 else 0


@kernel
def first_meeting(
    beside: NDArray[np.int32],
    rows: NDArray[np.int32],
    side: NDArray[np.int32],
    local: NDArray[np.int32],
) -> int:
    """The cell at which the two sides of a place hang together, taking thick cells first.

    Args:
        beside: From `cells.link_cells`.
        rows: Cells around the place, from thick to thin.
        side: Of each of those cells: 1, 2 or 0 for neither.
        local: int32, one a cell of the segment, -1 but for scratch.

    Returns:
        The cell, -1 where the sides do not meet.
    """
    parent = np.arange(rows.shape[0])
    holds = np.zeros((rows.shape[0], 3), np.bool_)
    met = -1
    for i in range(rows.shape[0]):
        local[rows[i]] = i
        holds[i, side[i]] = True
        for d in range(6):
            j = beside[rows[i], d]
            if j < 0 or local[j] < 0:
                continue
            a, b = basins.root(parent, i), basins.root(parent, local[j])
            if a == b:
                continue
            parent[max(a, b)] = min(a, b)
            for s in range(1, 3):
                holds[min(a, b), s] |= holds[max(a, b), s]
        a = basins.root(parent, i)
        if holds[a, 1] and holds[a, 2]:
            met = i
            break
    for i in range(rows.shape[0]):
        local[rows[i]] = -1
    return -1 if met < 0 else rows[met]
