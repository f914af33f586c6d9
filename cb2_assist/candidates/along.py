"""What a graph knows of a whole object, brought to the voxels around the cursor.

A place of the graph is a point of a whole part, up to half a chunk off; here it is put where the
voxels show it, in a way that does not depend on the cursor. What the voxels have shown already is
not asked about twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cb2_assist.candidates.arbour import Place, Why
from cb2_assist.candidates.course import ball
from cb2_assist.candidates.ends import LOOK_NM, OPEN_NM, End
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import SegmentId
from cb2_assist.views.partition import REACH_NM, Grid

SAME_END_NM = 300.0
"""An end of the graph this near to one that the voxels show is that one."""
OFF_NM = 250.0
"""A place farther from the object's cells than this stands for a part that is not seen here."""
MOST_ENDS = 8
"""Ends of the graph that are looked for around one cursor, nearest first."""
_MOST_STEPS = 40


@dataclass(frozen=True, slots=True)
class Whole:
    """What a graph says of one object.

    Attributes:
        places: As `arbour.places_on` found them; empty where that is not known.
        chunk_nm: Edges of a chunk.
        affinity: How strongly the automatic segmentation holds neighbours near the cursor to it.
    """

    places: Sequence[Place] = ()
    chunk_nm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    affinity: Mapping[SegmentId, float] = field(default_factory=dict)

    @property
    def off_nm(self) -> float:
        """How far a place may be from what it stands for."""
        return float(np.linalg.norm(self.chunk_nm)) / 2


@dataclass(frozen=True, slots=True)
class Odd:
    """A place of the graph where an object may have to be cut.

    Attributes:
        why: What is odd there.
        point: Centre of a cell of the object.
    """

    why: Why
    point: PointNm

    @property
    def prior(self) -> float:
        """0..1 in the order of `Why`, most telling first."""
        order = list(Why)
        return 1.0 - (order.index(self.why) + 1) / (len(order) + 1)


def ends_along(
    whole: Whole,
    grid: Grid,
    corner_nm: NDArray[np.float64],
    at: PointNm,
    radius_nm: float,
    known: Iterable[End],
) -> list[End]:
    """Ends of the graph within a radius of the cursor that the voxels alone do not show as ends.

    From the cell nearest to the graph's point the object is followed in the direction in which it
    ends, to the last cell. Where it leaves the cutout it does not end here.

    Args:
        whole: What the graph says.
        grid: The object's cells.
        corner_nm: What the grid's corner counts from, see `course.cells_of`.
        at: The cursor.
        radius_nm: Farthest distance of an end.
        known: Ends that the voxels show.
    """
    near = [
        p
        for p in whole.places
        if p.why is Why.END
        and p.towards is not None
        and at.distance_nm(p.at) <= radius_nm + whole.off_nm
    ]
    near.sort(key=lambda p: (at.distance_nm(p.at), tuple(p.at)))
    climb = _Climb(grid, corner_nm)
    found: list[End] = []
    for place in near[:MOST_ENDS]:
        end = climb.end(place)
        if end is None or at.distance_nm(end.point) > radius_nm:
            continue
        if end.point.distance_nm(place.at) > 2 * whole.off_nm:  # out of the part: another branch
            continue
        if all(end.point.distance_nm(k.point) > SAME_END_NM for k in (*known, *found)):
            found.append(end)
    return found


def odd_places(
    whole: Whole, grid: Grid, corner_nm: NDArray[np.float64], at: PointNm, radius_nm: float
) -> list[Odd]:
    """Places of the graph within a radius of the cursor that are no ends, most telling first.

    Each stands on a cell of the object; of two that one view would show only the more telling one
    is kept.
    """
    found: list[Odd] = []
    for place in whole.places:
        if place.why is Why.END or at.distance_nm(place.at) > radius_nm + OFF_NM:
            continue
        row, away = _nearest(grid, corner_nm, place.at)
        point = _point(grid, corner_nm, row)
        if away > OFF_NM or at.distance_nm(point) > radius_nm:
            continue
        if all(point.distance_nm(other.point) >= REACH_NM for other in found):
            found.append(Odd(place.why, point))
    return found


def next_end(whole: Whole, at: PointNm) -> Place | None:
    """The end nearest to a point; None where none is known."""
    ends = [p for p in whole.places if p.why is Why.END]
    return min(ends, key=lambda p: (at.distance_nm(p.at), tuple(p.at)), default=None)


class _Climb:
    """Follows an object's cells in one direction."""

    def __init__(self, grid: Grid, corner_nm: NDArray[np.float64]) -> None:
        self._grid, self._corner_nm = grid, corner_nm
        self._seen = np.zeros(len(grid.place), np.int32)
        self._mark = 0
        shape = np.array(grid.whole)
        first = grid.corner + grid.place * grid.factor
        nm_left = np.minimum(first, shape - first - grid.factor) * grid.voxel_nm
        is_open = nm_left.min(axis=1) < OPEN_NM
        self._is_open = np.asarray(is_open, bool)

    def end(self, place: Place) -> End | None:
        """The last cell in the direction of an end; None where it is not seen."""
        grid, way = self._grid, np.array(place.towards)
        here, _ = _nearest(grid, self._corner_nm, place.at)
        for _ in range(_MOST_STEPS):
            self._mark += 1
            rows = ball(
                grid.beside, grid.place, grid.cell_nm, here, LOOK_NM, self._seen, self._mark
            )
            ahead = np.round((grid.place[rows] - grid.place[here]) * grid.cell_nm @ way, 3)
            x, y, z = grid.place[rows].T
            there = int(rows[np.lexsort((z, y, x, -ahead))[0]])
            if there == here:
                break
            here = there
        else:
            return None
        if self._is_open[here]:
            return None
        thick = float(grid.depth[rows].max())
        return End(_point(grid, self._corner_nm, here), way, thick)


def _nearest(grid: Grid, corner_nm: NDArray[np.float64], at: PointNm) -> tuple[int, float]:
    """Row of the cell nearest to a point, and how far it is."""
    base = corner_nm + grid.corner * grid.voxel_nm
    away = np.linalg.norm(base + (grid.place + 0.5) * grid.cell_nm - np.array(list(at)), axis=1)
    x, y, z = grid.place.T
    row = int(np.lexsort((z, y, x, np.round(away, 3)))[0])
    return row, float(away[row])


def _point(grid: Grid, corner_nm: NDArray[np.float64], row: int) -> PointNm:
    base = corner_nm + grid.corner * grid.voxel_nm
    return PointNm.of(base + (grid.place[row] + 0.5) * grid.cell_nm)
