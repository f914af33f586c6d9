"""Places where one segment may hold two neurons: narrow necks and the arms of junctions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cb2_assist.core.geometry import BoxVx, PointNm, PointVoxel
from cb2_assist.core.records import SegmentId
from cb2_assist.datasets.source import Cutout
from cb2_assist.views.partition import Neck, cell_voxels, necks

LEAST_SIDE_NM3 = 1e6
"""Smaller sides are dust. 1,000 voxels of 10 nm: real false mergers in the training part of FIB-25
(Takemura et al. 2015, PNAS 112:13711), counted from that size on, have smaller halves from 1,028
voxels up; of the necks found there 5 % have a smaller side below 1,400."""
SAME_NM = 150.0
"""Of two necks nearer to each other than this only the narrower is asked about."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A neck within reach of the cursor.

    Attributes:
        neck: Its measures; `neck.point_vx` counts from the mask that was searched.
        point: Centre of a voxel face inside the segment, on the interface.
        distance_nm: From the cursor to `point`.
    """

    neck: Neck
    point: PointNm
    distance_nm: float


def cuts(cutout: Cutout, segment: SegmentId, at: PointNm, radius_nm: float) -> list[Cut]:
    """Necks and junction arms of a segment within a radius of the cursor, narrowest first.

    All of the cutout is searched, on a grid of cells that is fixed in the dataset, so that another
    cursor nearby finds the same places. They can differ where the cutout's border cuts something
    that matters: a part that is dust only as far as it is seen, or the thickest place of the
    segment, from which the level sets of junctions are counted.

    Args:
        cutout: `joins.cutout_half_width_nm` around the cursor, clipped by nothing but the dataset.
        segment: The segment; it may be missing from the cutout.
        at: The cursor.
        radius_nm: Of the search sphere.
    """
    part = _aligned(cutout)
    resolution = part.resolution
    found = []
    for neck in necks(np.asfortranarray(part.seg == np.uint64(segment)), resolution):
        if neck.side_nm3[0] < LEAST_SIDE_NM3:
            continue
        point = PointNm.of(
            (v + o) * r for v, o, r in zip(neck.point_vx, part.box.lo, resolution, strict=True)
        )
        distance = at.distance_nm(point)
        if distance <= radius_nm:
            found.append(Cut(neck, point, distance))
    kept: list[Cut] = []
    for cut in sorted(found, key=lambda c: (c.neck.ratio, tuple(c.point))):
        if all(cut.point.distance_nm(k.point) >= SAME_NM for k in kept):
            kept.append(cut)
    return kept


def _aligned(cutout: Cutout) -> Cutout:
    """The cutout from the first whole cell of the dataset's grid on."""
    step = cell_voxels(cutout.resolution).tolist()
    lo = [-(-v // f) * f for v, f in zip(cutout.box.lo, step, strict=True)]
    if any(a >= b for a, b in zip(lo, cutout.box.hi, strict=True)):
        return cutout
    return cutout.crop(BoxVx(PointVoxel(*lo), cutout.box.hi))
