"""Places to cut that are no necks: a segment meets itself, or its thickness jumps.

Both are looked for along the segment's course, then put on a cell that does not depend on where
the course was begun.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from cb2_assist.candidates.course import (
    Course,
    ball,
    first_meeting,
    loop_length,
    narrow_between,
)
from cb2_assist.core.geometry import PointNm
from cb2_assist.views import basins
from cb2_assist.views.partition import BAND_NM

LOOP_NM = 1500.0
"""Two parts that meet are far apart when the way round is as long as this: longer than the way
round a mitochondrion that the segmentation left out."""
PINCH = 0.5
"""A segment meets itself where its cross-section is below this share of that on both sides ..."""
BESIDE_BANDS = 5
"""... within so many bands, 300 nm."""
JUMP = 2.0
"""A process jumps where its mean radius over `BESIDE_BANDS` grows by this factor ..."""
ABRUPT_BANDS = 3
"""... and as much from one band to the third next, 180 nm on, which a gentle cone does not."""
CRUMB_BANDS = 5
"""A corner of a shoulder is a branch of at most so many bands: a step of 200 nm in radius."""
THIN_CELLS = 1.5
"""Radii below so many cell edges are not followed: a cell more or less is a jump there."""
LOOK_NM = 200.0
"""Within this distance of what was found, its cell is chosen."""


class Suspect(StrEnum):
    """Why a segment without a neck is asked about."""

    SELF_CONTACT = "self-contact"
    JUMP = "jump"


@dataclass(frozen=True, slots=True)
class Spot:
    """One such place.

    Attributes:
        why: What it is.
        point: Centre of a cell of the segment.
        small_nm: Radius at the contact, or of the thinner part.
        large_nm: Radius beside the contact, or of the thicker part.
        around_nm: The way round from one side of a self-contact to the other; 0 for a jump.
    """

    why: Suspect
    point: PointNm
    small_nm: float
    large_nm: float
    around_nm: float

    @property
    def ratio(self) -> float:
        """Small over large, as of a neck: low is suspicious."""
        return self.small_nm / self.large_nm


def spots_near(
    course: Course, corner_nm: NDArray[np.float64], at: PointNm, radius_nm: float
) -> list[Spot]:
    """Self-contacts and thickness jumps within a radius of the cursor, by `Spot.ratio`.

    Args:
        course: Of the segment.
        corner_nm: What the grid's corner counts from, see `cells_of`.
        at: The cursor.
        radius_nm: Farthest distance of a spot.
    """
    grid = course.grid
    base = corner_nm + grid.corner * grid.voxel_nm
    thickest = np.zeros(course.n + 1, np.int64)
    order = np.lexsort((-np.arange(len(grid.depth)), grid.depth))
    thickest[course.level[order]] = order
    centre = base + (grid.place[thickest] + 0.5) * grid.cell_nm
    is_near = np.linalg.norm(centre - np.array(list(at)), axis=1) <= radius_nm + LOOK_NM
    is_near[0] = False
    look = _Look(course, base)
    found: dict[tuple[float, ...], Spot] = {}
    pinched = narrow_between(
        course.area_nm2, course.begin, course.beside, is_near, PINCH, BESIDE_BANDS
    )
    for k in pinched.tolist():
        bands = loop_length(course.begin, course.beside, k)
        if bands * BAND_NM >= LOOP_NM:
            look.keep(found, look.contact(k, int(thickest[k]), bands * BAND_NM))
    depth = grid.depth[thickest].astype(np.float64)
    for k, thin, thick in _jumps(course, depth, is_near):
        look.keep(found, look.jump(int(thickest[k]), thin, thick))
    kept = [s for s in found.values() if at.distance_nm(s.point) <= radius_nm]
    return sorted(kept, key=lambda s: (s.ratio, tuple(s.point)))


def _jumps(
    course: Course, radius: NDArray[np.float64], is_near: NDArray[np.bool_]
) -> list[tuple[int, float, float]]:
    """Level set on the thin side of each jump, and the mean radii in nm on either side."""
    trunk = _trunk(course)
    followed = THIN_CELLS * float(course.grid.cell_nm.max())
    found = []
    for k in np.flatnonzero(is_near & (radius >= followed)).tolist():
        if len(trunk[k]) != 2:
            continue
        for before, after in (trunk[k], trunk[k][::-1]):
            thin = [k, *_walk(trunk, k, before)]
            thick = _walk(trunk, k, after)
            if len(thin) < BESIDE_BANDS or len(thick) < BESIDE_BANDS:
                continue
            small = float(radius[thin].mean())
            large = float(radius[thick[ABRUPT_BANDS - 1 :]].mean())
            # a bead on a string is no jump: the thick part must go on
            least = float(radius[thick[ABRUPT_BANDS - 1 :]].min())
            if least >= JUMP * max(small, radius[k]):
                found.append((small / large, k, before, after, small, large))
    taken: set[int] = set()
    kept = []
    for _, k, before, after, small, large in sorted(found):
        if k not in taken:
            # the level set at the jump itself reaches into the shoulders of the thick part
            kept.append((before, small, large))
        taken |= {k, *_walk(trunk, after, k), *_walk(trunk, k, after)}
    return kept


def _trunk(course: Course) -> list[list[int]]:
    """Neighbours of each level set once the crumbs at shoulders and ends are taken off.

    Level sets of whole-number path lengths are askew, so that a corner of a thick part is cut off
    as a short branch of its own.
    """
    number = np.diff(course.begin)
    kept = np.ones(course.n + 1, bool)
    for _ in range(CRUMB_BANDS):
        tips = np.flatnonzero(kept & (number <= 1))
        kept[tips] = False
        for k in tips.tolist():
            number[course.around(k)] -= 1
    return [
        [j for j in course.around(k).tolist() if kept[j]] if kept[k] else []
        for k in range(course.n + 1)
    ]


def _walk(trunk: list[list[int]], start: int, first: int) -> list[int]:
    """Level sets one behind the other from `first` on, as long as nothing branches off."""
    way, before = [first], start
    while len(way) < BESIDE_BANDS and len(trunk[way[-1]]) == 2:
        a, b = trunk[way[-1]]
        way, before = [*way, b if a == before else a], way[-1]
    return way


class _Look:
    """Puts what the course shows on cells that do not depend on it."""

    def __init__(self, course: Course, base: NDArray[np.float64]) -> None:
        self._course, self._base = course, base
        self._seen = np.zeros(len(course.level), np.int32)
        self._mark = 0
        self._local = np.full(len(course.level), -1, np.int32)

    def keep(self, found: dict[tuple[float, ...], Spot], spot: Spot | None) -> None:
        """Add a spot, the more suspicious of two at one place."""
        if spot is None:
            return
        old = found.get(tuple(spot.point))
        if old is None or spot.ratio < old.ratio:
            found[tuple(spot.point)] = spot

    def contact(self, k: int, start: int, around_nm: float) -> Spot | None:
        """The thickest way through a narrow level set: where its two sides first meet."""
        course, grid = self._course, self._course.grid
        rows = self._ball(start, LOOK_NM)
        place = grid.place[rows]
        x, y, z = place.T
        rows = rows[np.lexsort((x, y, z, -grid.depth[rows]))]
        side = self._sides(rows, k)
        saddle = first_meeting(grid.beside, rows, side, self._local)
        if saddle < 0:
            return None
        small = float(np.sqrt(course.area_nm2[k] / np.pi))
        beside = max(float(course.area_nm2[j]) for j in course.around(k))
        large = float(np.sqrt(max(beside, course.area_nm2[k] / PINCH) / np.pi))
        return Spot(Suspect.SELF_CONTACT, self._point(saddle), small, large, around_nm)

    def _sides(self, rows: NDArray[np.int32], k: int) -> NDArray[np.int32]:
        """The two largest parts of some cells that a level set keeps apart: 1 and 2, others 0."""
        grid = self._course.grid
        inside = self._course.level[rows] != k
        number = np.full(len(grid.place), -1, np.int64)
        number[rows] = np.where(inside, np.arange(len(rows)), -1)
        beside = grid.beside[rows]
        linked = np.where(beside >= 0, number[beside], -1).astype(np.int32)
        linked[~inside] = -1
        part, n = basins.components(np.where(inside, 1, 0).astype(np.int32), linked)
        size = np.bincount(part, np.where(inside, grid.voxels[rows], 0), n + 1)
        first, second = np.argsort(-size, kind="stable")[:2]
        return np.where(part == first, 1, np.where(part == second, 2, 0)).astype(np.int32)

    def jump(self, start: int, thin_nm: float, thick_nm: float) -> Spot:
        """The cell on the thin part's axis from which most of what is near lies to one side."""
        grid = self._course.grid
        # level sets are askew: the thin part's is as far off as the thick part is wide
        rows = self._ball(start, 2 * LOOK_NM)
        beside = grid.beside[rows]
        around = np.where(beside >= 0, grid.depth[beside], 0.0)
        depth = grid.depth[rows]
        on_axis = (depth[:, None] >= around).sum(axis=1) >= 5
        is_thin = (depth >= 0.7 * thin_nm) & (depth <= 0.5 * (thin_nm + thick_nm))
        best = (0.0, 0, 0, 0, start)
        for i in rows[on_axis & is_thin].tolist():
            # the edge of a shoulder is thin as well, but thickens inward at once
            if grid.depth[self._ball(i, float(grid.depth[i]))].max() > 1.3 * grid.depth[i]:
                continue
            near = self._ball(i, LOOK_NM)
            off = (grid.place[near] - grid.place[i]).astype(np.int64)
            weight = grid.voxels[near].astype(np.int64)
            middle = (off * weight[:, None]).sum(axis=0) / weight.sum() * grid.cell_nm
            pull = round(float(np.linalg.norm(middle)), 3)
            x, y, z = (-grid.place[i]).tolist()
            best = max(best, (pull, z, y, x, i))
        return Spot(Suspect.JUMP, self._point(best[-1]), thin_nm, thick_nm, 0.0)

    def _point(self, cell: int) -> PointNm:
        grid = self._course.grid
        return PointNm.of(self._base + (grid.place[cell] + 0.5) * grid.cell_nm)

    def _ball(self, start: int, radius_nm: float) -> NDArray[np.int32]:
        grid = self._course.grid
        self._mark += 1
        rows: NDArray[np.int32] = ball(
            grid.beside, grid.place, grid.cell_nm, start, radius_nm, self._seen, self._mark
        )
        return rows
