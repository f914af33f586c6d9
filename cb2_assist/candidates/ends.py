"""Where a segment ends, and in which direction it would go on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cb2_assist.candidates.course import Course, ball, leaves
from cb2_assist.core.geometry import PointNm
from cb2_assist.views.partition import BAND_NM, Grid

BRANCH_NM = 240.0
"""Shorter branches are bumps. As long as the shortest arm of a junction."""
LOOK_NM = 300.0
"""An end is judged by what hangs together within this distance of it."""
ONE_SIDED = 0.3
"""Share of `LOOK_NM` by which the middle of what is seen lies behind an end: half for a long thin
tube, 3/8 for the flat face of a block, nothing where a process goes on."""
THICK_NM = 200.0
"""What is thicker than this around its axis has a surface, no end: `LOOK_NM` cannot tell it."""
CAP_NM = 50.0
"""The axis of an end runs through the middle of what lies within this length of its top."""
LONG = 1.5
"""Only what is this much longer than wide there, as variances, ends in a direction."""
CAP_SHARE = 0.9
"""The end lies on the axis where so much of what is seen lies behind it."""
OPEN_NM = 100.0
"""Nearer to its top than this, an end must not touch the border of what is known."""
_MOST_STEPS = 8


@dataclass(frozen=True, slots=True)
class End:
    """One end of a segment.

    Attributes:
        point: Centre of the cell that reaches farthest.
        way: Unit vector out of the segment, nm frame.
        radius_nm: Greatest distance to the surface near the end.
    """

    point: PointNm
    way: NDArray[np.float64]
    radius_nm: float

    @property
    def name(self) -> str:
        """The end's place as text, to tell ends of one segment apart."""
        return ",".join(f"{v:.0f}" for v in self.point)


def ends_near(
    course: Course, corner_nm: NDArray[np.float64], at: PointNm, radius_nm: float
) -> list[End]:
    """Ends of a segment within a radius of the cursor, nearest first.

    An end's point and direction follow from the cells within twice `LOOK_NM`, not from the way that
    led there, so that another cursor finds the same ones. Where the segment leaves the cutout, or
    the dataset, it does not end.

    Args:
        course: Of the segment.
        corner_nm: What the grid's corner counts from, see `cells_of`.
        at: The cursor.
        radius_nm: Farthest distance of an end.
    """
    grid = course.grid
    base = corner_nm + grid.corner * grid.voxel_nm
    tops = leaves(course.band, course.begin, course.beside, round(BRANCH_NM / BAND_NM))
    is_top = np.zeros(course.n + 1, bool)
    is_top[tops] = True
    tip_of = np.zeros(course.n + 1, np.int64)
    rows = np.flatnonzero(is_top[course.level])
    rows = rows[np.argsort(course.length[rows], kind="stable")]
    tip_of[course.level[rows]] = rows  # the last of each level set is its farthest cell
    starts = np.concatenate([tip_of[tops], course.root])
    away = base + (grid.place[starts] + 0.5) * grid.cell_nm - np.array(list(at))
    starts = starts[np.linalg.norm(away, axis=1) <= radius_nm + LOOK_NM]
    look = _Look(grid)
    found: dict[tuple[float, ...], End] = {}
    for start in starts.tolist():
        end = look.end(start, base)
        if end is not None and at.distance_nm(end.point) <= radius_nm:
            found[tuple(end.point)] = end
    return sorted(found.values(), key=lambda e: (at.distance_nm(e.point), tuple(e.point)))


class _Look:
    """Looks round at one cell after another."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._seen = np.zeros(len(grid.place), np.int32)
        self._mark = 0
        shape = np.array(grid.whole)
        first = grid.corner + grid.place * grid.factor
        is_open = np.minimum(first, shape - first - grid.factor).min(axis=1) <= 0
        self._is_open = np.asarray(is_open, bool)

    def end(self, start: int, base: NDArray[np.float64]) -> End | None:
        """The end that a cell belongs to; None where there is none."""
        grid = self._grid
        here, way = start, np.zeros(3)
        for _ in range(_MOST_STEPS):
            self._mark += 1
            rows = ball(
                grid.beside, grid.place, grid.cell_nm, here, LOOK_NM, self._seen, self._mark
            )
            # whole numbers, counted from the cell itself: the same from every cutout
            off = (grid.place[rows] - grid.place[here]).astype(np.int64)
            middle = _middle(off, grid.voxels[rows]) * grid.cell_nm
            pull = float(np.linalg.norm(middle))
            if pull < 0.5 * ONE_SIDED * LOOK_NM:
                return None
            ahead = off @ (-middle / pull * grid.cell_nm)
            cap = ahead >= ahead.max() - CAP_NM
            top = _middle(off[cap], grid.voxels[rows[cap]]) * grid.cell_nm
            way = (top - middle) / np.linalg.norm(top - middle)
            # the axis runs through both middles; the end is where it leaves the segment
            along = (off * grid.cell_nm - middle) @ way
            aside = np.linalg.norm(off * grid.cell_nm - middle - along[:, None] * way, axis=1)
            x, y, z = off.T
            there = int(rows[np.lexsort((z, y, x, np.round(aside - along, 3)))[0]])
            if there == here:
                break
            here = there
        thick = float(grid.depth[rows].max())
        if pull < ONE_SIDED * LOOK_NM or thick > THICK_NM:
            return None
        # an end that was cut off askew reaches farthest at a corner: look along the axis instead
        weight = grid.voxels[rows].astype(np.float64)
        away = off * grid.cell_nm - middle
        spread, axes = np.linalg.eigh((away * weight[:, None]).T @ away / weight.sum())
        if spread[2] < LONG * spread[1]:
            return None
        way = axes[:, 2] * np.sign(axes[:, 2] @ way)
        ahead = np.round(away @ way, 3)
        if self._is_open[rows[ahead >= ahead.max() - OPEN_NM]].any():
            return None
        top = middle + way * float(np.quantile(ahead, CAP_SHARE))
        x, y, z = off.T
        far = np.round(np.linalg.norm(off * grid.cell_nm - top, axis=1), 3)
        here = int(rows[np.lexsort((z, y, x, far))[0]])
        return End(PointNm.of(base + (grid.place[here] + 0.5) * grid.cell_nm), way, thick)


def _middle(off: NDArray[np.int64], weight: NDArray[np.int32]) -> NDArray[np.float64]:
    """Weighted mean of whole numbers, the same in any order."""
    weights = weight.astype(np.int64)
    middle: NDArray[np.float64] = (off * weights[:, None]).sum(axis=0) / weights.sum()
    return middle
