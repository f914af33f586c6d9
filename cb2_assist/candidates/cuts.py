"""Places where one segment may hold two neurons: necks, junctions, self-contacts, jumps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cb2_assist.candidates.course import Course, cells_of, course_of
from cb2_assist.candidates.suspects import Spot, Suspect, spots_near
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import SegmentId
from cb2_assist.datasets.source import Cutout
from cb2_assist.views.partition import REACH_NM, Neck, necks_in

LEAST_SIDE_NM3 = 1e6
"""Smaller sides are dust. 1,000 voxels of 10 nm: real false mergers in the training part of FIB-25
(Takemura et al. 2015, PNAS 112:13711), counted from that size on, have smaller halves from 1,028
voxels up; of the necks found there 5 % have a smaller side below 1,400."""
SAME_NM = 150.0
"""Of two necks nearer to each other than this only the narrower is asked about."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A place within reach of the cursor where a segment may have to be cut.

    Attributes:
        neck: Its measures, where there is a neck or the arm of a junction; `neck.point_vx` counts
            from the mask that was searched.
        spot: A self-contact or jump: the place itself, or a self-contact that this neck is.
        point: In the segment; of a neck the centre of a voxel face on the interface.
        distance_nm: From the cursor to `point`.
    """

    neck: Neck | None
    spot: Spot | None
    point: PointNm
    distance_nm: float

    @property
    def ratio(self) -> float:
        """How narrow it is against what lies beside it; low is suspicious."""
        if self.neck is not None:
            return self.neck.ratio
        assert self.spot is not None
        return self.spot.ratio


def cuts(
    cutout: Cutout,
    segment: SegmentId,
    at: PointNm,
    radius_nm: float,
    seen: tuple[Course, NDArray[np.float64]] | None = None,
) -> list[Cut]:
    """Where a segment may have to be cut within a radius of the cursor, narrowest first.

    All of the cutout is searched, on a grid of cells that is fixed in the dataset, so that another
    cursor nearby finds the same places. They can differ where the cutout's border cuts something
    that matters: a part that is dust only as far as it is seen, or the thickest place of the
    segment, from which the level sets of junctions are counted.

    A self-contact or jump is a place of its own only where no neck is within `REACH_NM`: the views
    of a cut there would show the neck. A self-contact beside a neck is a reason more to ask about
    the neck.

    Args:
        cutout: `joins.cutout_half_width_nm` around the cursor, clipped by nothing but the dataset.
        segment: The segment; it may be missing from the cutout.
        at: The cursor.
        radius_nm: Of the search sphere.
        seen: Course and corner, when they are known already.
    """
    if seen is None:
        cells = cells_of(cutout, segment)
        if cells is None:
            return []
        seen = course_of(cells[0]), cells[1]
    course, corner_nm = seen
    all_necks = [
        (neck, PointNm.of(corner_nm + np.array(neck.point_vx) * course.grid.voxel_nm))
        for neck in necks_in(course.grid)
    ]
    kept: list[Cut] = []
    for neck, point in sorted(all_necks, key=lambda n: (n[0].ratio, tuple(n[1]))):
        distance = at.distance_nm(point)
        if neck.side_nm3[0] < LEAST_SIDE_NM3 or distance > radius_nm:
            continue
        if all(point.distance_nm(k.point) >= SAME_NM for k in kept):
            kept.append(Cut(neck, None, point, distance))
    for spot in spots_near(course, corner_nm, at, radius_nm):
        near = [p for _, p in all_necks if p.distance_nm(spot.point) < REACH_NM]
        if not near:
            kept.append(Cut(None, spot, spot.point, at.distance_nm(spot.point)))
        elif spot.why is Suspect.SELF_CONTACT:
            first = min(near, key=lambda p: (p.distance_nm(spot.point), tuple(p)))
            kept = [replace(k, spot=spot) if k.point == first else k for k in kept]
    return sorted(kept, key=lambda c: (c.ratio, tuple(c.point)))
