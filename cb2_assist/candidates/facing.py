"""Segments that lie ahead of an end, across a gap: background, a lost section, a foreign sheet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cb2_assist.candidates.ends import LOOK_NM, End
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import SegmentId
from cb2_assist.datasets.source import Cutout
from cb2_assist.views.jit import kernel
from cb2_assist.views.partition import cell_voxels

REACH_NM = 500.0
"""Widest gap that is looked across, from surface to surface."""
SLOPE = 0.7
"""The cone opens by so much per length: 35 degrees to each side."""
WIDE_NM = 40.0
"""Radius of the cone at the end itself, at least; thicker ends look out over their own width."""
CRUMB_NM3 = 1e5
"""Less than this in the cone is no continuation: 100 voxels of 10 nm."""
MOST_AHEAD = 8
"""Of the segments in the cone the nearest so many are looked at closely."""
FALL_NM = 200.0
"""A gap of this width makes a continuation 1/e as likely."""


@dataclass(frozen=True, slots=True)
class Facing:
    """A segment ahead of an end.

    Attributes:
        partner: The segment.
        end: The end that it lies ahead of.
        point: Middle of the gap: half way between the two voxels that are nearest to each other.
        gap_nm: Between those two voxels' centres.
        foreign: Whether the straight way between them runs through a third segment.
        ends_too: How clearly the partner ends there and faces back, 0..1.
        fit: How well it would go on, however wide the gap: 0..1, by direction, thickness,
            `ends_too` and how much of what lies straight ahead is the partner's.
        prior: Of a continuation, 0..1: `fit`, and less the wider the gap is.
        distance_nm: From the cursor to `point`.
    """

    partner: SegmentId
    end: End
    point: PointNm
    gap_nm: float
    foreign: bool
    ends_too: float
    fit: float
    prior: float
    distance_nm: float


def facing(
    cutout: Cutout, segment: SegmentId, ends: list[End], at: PointNm, radius_nm: float
) -> list[Facing]:
    """Segments in a cone ahead of each end, the likeliest continuation first.

    All that is looked at lies within `REACH_NM`, the end's own thickness and `LOOK_NM` of the end,
    and on grids that are
    fixed in the dataset, so that another cursor finds the same places.

    Args:
        cutout: Around the cursor.
        segment: The one that ends.
        ends: Its ends, from `ends_near`.
        at: The cursor.
        radius_nm: Farthest distance of a point from the cursor.

    Returns:
        One for each end and segment; of two ends that face one segment at one place the likelier.
    """
    search = _Search(cutout, segment)
    best: dict[tuple[float, ...], Facing] = {}
    for end in ends:
        for found in search.ahead_of(end, at):
            key = (found.partner, *found.point)
            if found.distance_nm <= radius_nm and (
                key not in best or found.prior > best[key].prior
            ):
                best[key] = found
    return sorted(best.values(), key=lambda f: (-f.prior, tuple(f.point), f.partner))


class _Search:
    """Looks through the labels of one cutout."""

    def __init__(self, cutout: Cutout, segment: SegmentId) -> None:
        self._seg = np.asfortranarray(cutout.seg)
        self._id = np.uint64(segment)
        self._voxel = np.array(list(cutout.resolution), np.float64)
        self._corner = np.array(list(cutout.box.lo), np.int64)
        self._factor = cell_voxels(cutout.resolution)

    def ahead_of(self, end: End, at: PointNm) -> list[Facing]:
        tip = np.array(list(end.point)) / self._voxel - self._corner
        wide = max(WIDE_NM, end.radius_nm)
        # the end is a cell inside the tip, about as deep as the tip is thick
        reach = REACH_NM + wide + float(np.linalg.norm(self._factor * self._voxel))
        ids, number, straight, nearest, gap = look_ahead(
            self._seg, self._id, tip, end.way, self._voxel, np.array([reach, SLOPE, wide])
        )
        share = straight / max(int(straight.sum()), 1)
        enough = np.flatnonzero(number * self._voxel.prod() >= CRUMB_NM3)
        order = enough[np.lexsort((ids[enough], gap[enough]))][:MOST_AHEAD]
        found = [
            self._look_closely(end, at, int(ids[k]), nearest[k], float(share[k]))
            for k in order.tolist()
        ]
        return [f for f in found if f is not None]

    def _look_closely(
        self, end: End, at: PointNm, partner: int, hit: NDArray[np.int64], share: float
    ) -> Facing | None:
        tip = np.floor(np.array(list(end.point)) / self._voxel).astype(np.int64) - self._corner
        pair = self._nearest_pair(tip, hit, partner)
        if pair is None:
            return None
        a, b = pair
        gap_nm = float(np.linalg.norm((b - a) * self._voxel))
        if gap_nm > REACH_NM + float(np.linalg.norm(self._voxel)):
            return None
        doubled = a + b + 1 + 2 * self._corner
        point = PointNm.of(doubled * (0.5 * self._voxel))
        number, middle, thick = look_round(
            self._seg, np.uint64(partner), b, self._factor, self._corner, self._voxel, LOOK_NM
        )
        if number == 0:
            return None
        far = float(np.linalg.norm(middle))
        over = ((b + 0.5) * self._voxel) - (np.array(list(end.point)) - self._corner * self._voxel)
        ahead = float(over @ end.way) / max(float(np.linalg.norm(over)), 1e-9)
        goes_on = float(middle @ end.way) / max(far, 1e-9)
        # half of the ball's radius is a thin tube that begins here
        ends_too = min(1.0, far / (0.4 * LOOK_NM)) * max(0.0, goes_on)
        alike = min(thick, end.radius_nm) / max(thick, end.radius_nm, 1e-9)
        straight = (share + 0.1) ** 0.5
        near = float(np.exp(-gap_nm / FALL_NM))
        fit = max(0.0, ahead) * ends_too * float(alike**0.5) * straight
        return Facing(
            partner=SegmentId(partner),
            end=end,
            point=point,
            gap_nm=gap_nm,
            foreign=self._is_foreign_between(a, b, partner),
            ends_too=ends_too,
            fit=fit,
            prior=near * fit,
            distance_nm=at.distance_nm(point),
        )

    def _nearest_pair(
        self, tip: NDArray[np.int64], hit: NDArray[np.int64], partner: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """Two voxels, one of either segment, each the nearest to the other; None: out of reach."""
        ids = (self._id, np.uint64(partner))
        # an end's cell may hold no more than a corner of the segment
        slack = float(np.linalg.norm(self._factor * self._voxel))
        pair = [tip, hit]
        for turn in range(8):
            mine = turn % 2
            near = float(np.linalg.norm((pair[0] - pair[1]) * self._voxel)) + slack
            new = nearest_voxel(self._seg, ids[mine], pair[1 - mine], self._voxel, near)
            if new[0] < 0:
                return None
            if turn > 1 and (new == pair[mine]).all():
                break
            pair[mine], slack = new, 0.0
        return pair[0], pair[1]

    def _is_foreign_between(self, a: NDArray[np.int64], b: NDArray[np.int64], partner: int) -> bool:
        steps = 2 * int(np.abs(b - a).max()) + 1
        way = np.rint(a + np.linspace(0, 1, steps)[:, None] * (b - a)).astype(np.int64)
        met = self._seg[tuple(way.T)]
        return bool(((met != 0) & (met != self._id) & (met != np.uint64(partner))).any())


@kernel
def look_ahead(  # noqa: C901 - one loop nest
    seg: NDArray[np.uint64],
    segment: np.uint64,
    tip: NDArray[np.float64],
    way: NDArray[np.float64],
    voxel_nm: NDArray[np.float64],
    cone: NDArray[np.float64],
) -> tuple[
    NDArray[np.uint64],
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.float64],
]:
    """Other segments in a cone.

    Args:
        seg: Labels, 0 is background.
        segment: The one that looks; never found.
        tip: float64 (3,), voxels from the array's corner, voxel 0 spans 0..1.
        way: Unit vector, nm frame.
        voxel_nm: Edges of a voxel.
        cone: Length in nm, opening per length, radius at the tip in nm.

    Returns:
        Ids; voxels of each in the cone; those straight ahead, within the radius at the tip of its
        axis; its voxel nearest the tip (n, 3), the lowest z, then y, then x of several; that
        distance, nm.
    """
    reach, slope, wide = cone
    lo = np.empty(3, np.int64)
    hi = np.empty(3, np.int64)
    for a in range(3):
        side = wide + slope * reach
        lo[a] = max(0, int(np.floor(tip[a] + (min(0.0, way[a] * reach) - side) / voxel_nm[a])))
        hi[a] = min(
            seg.shape[a],
            int(np.ceil(tip[a] + (max(0.0, way[a] * reach) + side) / voxel_nm[a])) + 1,
        )
    ids = np.zeros(64, np.uint64)
    number = np.zeros(64, np.int64)
    straight = np.zeros(64, np.int64)
    nearest = np.zeros((64, 3), np.int64)
    gap = np.full(64, np.inf)
    n = 0
    last = 0
    for z in range(lo[2], hi[2]):
        for y in range(lo[1], hi[1]):
            for x in range(lo[0], hi[0]):
                other = seg[x, y, z]
                if other == 0 or other == segment:
                    continue
                dx = (x + 0.5 - tip[0]) * voxel_nm[0]
                dy = (y + 0.5 - tip[1]) * voxel_nm[1]
                dz = (z + 0.5 - tip[2]) * voxel_nm[2]
                along = dx * way[0] + dy * way[1] + dz * way[2]
                far = dx * dx + dy * dy + dz * dz
                if along <= 0 or far > reach * reach:
                    continue
                if far - along * along > (wide + slope * along) ** 2:
                    continue
                if n == 0 or ids[last] != other:
                    last = 0
                    while last < n and ids[last] != other:
                        last += 1
                    if last == n:
                        if n == ids.shape[0]:
                            ids = np.concatenate((ids, np.zeros_like(ids)))
                            number = np.concatenate((number, np.zeros_like(number)))
                            straight = np.concatenate((straight, np.zeros_like(straight)))
                            nearest = np.concatenate((nearest, np.zeros_like(nearest)))
                            gap = np.concatenate((gap, np.full(n, np.inf)))
                        ids[n] = other
                        n += 1
                number[last] += 1
                straight[last] += far - along * along <= wide * wide
                if far < gap[last]:
                    gap[last] = far
                    nearest[last, 0], nearest[last, 1], nearest[last, 2] = x, y, z
    return ids[:n], number[:n], straight[:n], nearest[:n], np.sqrt(gap[:n])


@kernel
def nearest_voxel(
    seg: NDArray[np.uint64],
    segment: np.uint64,
    start: NDArray[np.int64],
    voxel_nm: NDArray[np.float64],
    radius_nm: float,
) -> NDArray[np.int64]:
    """A segment's voxel nearest to another voxel; -1 where there is none within the radius."""
    best = np.full(3, -1, np.int64)
    least = (radius_nm + 1e-6) ** 2
    lo = np.empty(3, np.int64)
    hi = np.empty(3, np.int64)
    for a in range(3):
        r = int(np.ceil(radius_nm / voxel_nm[a]))
        lo[a], hi[a] = max(0, start[a] - r), min(seg.shape[a], start[a] + r + 1)
    for z in range(lo[2], hi[2]):
        dz = ((z - start[2]) * voxel_nm[2]) ** 2
        for y in range(lo[1], hi[1]):
            dy = dz + ((y - start[1]) * voxel_nm[1]) ** 2
            if dy >= least:
                continue
            for x in range(lo[0], hi[0]):
                if seg[x, y, z] != segment:
                    continue
                far = dy + ((x - start[0]) * voxel_nm[0]) ** 2
                if far < least:
                    least = far
                    best[0], best[1], best[2] = x, y, z
    return best


@kernel
def look_round(
    seg: NDArray[np.uint64],
    segment: np.uint64,
    start: NDArray[np.int64],
    factor: NDArray[np.int64],
    corner: NDArray[np.int64],
    voxel_nm: NDArray[np.float64],
    radius_nm: float,
) -> tuple[int, NDArray[np.float64], float]:
    """What of a segment hangs together within a distance of one of its voxels.

    Seen through one voxel of each cell of a grid that is fixed in the dataset.

    Args:
        seg: Labels.
        segment: The segment.
        start: int64 (3,), a voxel of it.
        factor: Voxels per cell.
        corner: Absolute voxel of ``seg[0, 0, 0]``.
        voxel_nm: Edges of a voxel.
        radius_nm: The distance.

    Returns:
        Number of cells; their middle from the start, nm; radius in nm of the tube that holds as
        much within the same length.
    """
    half = np.empty(3, np.int64)
    edge = voxel_nm * factor
    home = np.empty(3, np.int64)
    for a in range(3):
        half[a] = int(np.ceil(radius_nm / edge[a]))
        home[a] = (start[a] + corner[a]) // factor[a]
    seen = np.zeros((2 * half[0] + 1, 2 * half[1] + 1, 2 * half[2] + 1), np.bool_)
    queue = np.empty((seen.size, 3), np.int64)
    queue[0] = home
    seen[half[0], half[1], half[2]] = True
    n = 1
    at = 0
    total = np.zeros(3)
    while at < n:
        here = queue[at].copy()
        at += 1
        for a in range(3):
            total[a] += (here[a] - home[a]) * edge[a]
        for d in range(6):
            there = here.copy()
            there[d // 2] += 1 - 2 * (d % 2)
            far = 0.0
            inside = True
            for a in range(3):
                far += ((there[a] - home[a]) * edge[a]) ** 2
                v = there[a] * factor[a] + factor[a] // 2 - corner[a]
                inside = inside and 0 <= v < seg.shape[a]
            if not inside or far > radius_nm * radius_nm:
                continue
            i, j, k = there - home + half
            if seen[i, j, k]:
                continue
            seen[i, j, k] = True
            v = there * factor + factor // 2 - corner
            if seg[v[0], v[1], v[2]] != segment:
                continue
            queue[n] = there
            n += 1
    thick = np.sqrt(n * edge[0] * edge[1] * edge[2] / (np.pi * radius_nm))
    return n, total / n, thick
