"""Cursor points from which everything along a segment, or in a box, is within reach.

The volume is read block by block, and of each only a coarse grid of cells is kept while it is
worked on, so that memory does not grow with the volume.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cb2_assist.candidates.arbour import places_on
from cb2_assist.core.errors import SegmentNotFoundError, UsageError
from cb2_assist.core.geometry import BoxVx, PointNm, PointVoxel, Resolution
from cb2_assist.core.records import SegmentId
from cb2_assist.datasets.source import Cutout, GraphSource
from cb2_assist.settings import SEARCH_RADIUS_NM

CELL_NM = 120.0
"""Edge of the cells that stand for their voxels."""
SLACK_NM = 40.0
"""A join's point lies up to half a gap (`candidates.joins.GAP_NM`) and a voxel off its segment."""
BLOCK_VX = 128
"""Edge of the blocks that are read, about."""
LEAST_NM3 = 1e6
"""Of a box, smaller segments get no cursor of their own: as parts, cuts call them dust
(`candidates.cuts.LEAST_SIDE_NM3`). Joins of larger ones with them are found all the same."""
MOST_SCANNED_VX = 2**31
"""Volumes up to this size are searched for a segment as a whole, 20 GB of voxels."""
MOST_FOLLOWED_VX = 2**28
"""An object of a graph whose parts' chunks have more voxels than this is asked about where the
graph finds it odd, not all along: 2 GB of ids would have to be read."""
_STRIDE_NM = 40.0
"""In a box every voxel on a grid of about this step is looked at, for a named segment each one."""

Points = NDArray[np.float64]


class Ground(Protocol):
    """The part of an open dataset that is needed."""

    @property
    def resolution(self) -> Resolution:
        """Voxel size, nm."""

    @property
    def bounds(self) -> BoxVx:
        """Voxels that exist."""

    def cutout(self, box: BoxVx) -> Cutout:
        """EM and segments of a box."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Where to ask, and about which segment."""

    segment: SegmentId
    at: PointNm


def stops_on_segments(
    ground: Ground,
    seeds: Sequence[tuple[SegmentId, PointNm | None]],
    progress: Callable[[str], None] = lambda _text: None,
) -> list[Stop]:
    """Stops along segments, the same and in the same order each time.

    Args:
        ground: The dataset.
        seeds: Segments, and a point on or near each from which it is followed block by block;
            without one the whole volume is searched.
        progress: Told in words what is going on.

    Raises:
        UsageError: The volume is too large to be searched and a segment has no point.
        SegmentNotFoundError: A segment was not found.
    """
    lost = [s for s, at in seeds if at is None]
    x, y, z = ground.bounds.shape
    if lost and x * y * z > MOST_SCANNED_VX:
        raise UsageError(
            f"This volume is too large to be searched for segment {lost[0]}. Say where it is: "
            "--at X,Y,Z, or a line `ID X Y Z` (nm) in the --roots file."
        )
    finder = _Finder(ground, stride_nm=0.0)
    if lost:
        blocks = list(_blocks(ground, ground.bounds))
        for n, block in enumerate(blocks):
            progress(f"searching block {n + 1} of {len(blocks)}")
            finder.visit(block, set(lost))
    for segment, at in seeds:
        if at is not None:
            for n, block in enumerate(_follow(ground, segment, at, finder)):
                progress(f"following …{str(segment)[-6:]}, block {n + 1} at {tuple(block.lo)}")
    for segment, _ in seeds:
        if segment not in finder.stops:
            raise SegmentNotFoundError(
                f"Segment {segment} was not found. Check its id and version; with --at, name a "
                "point on it."
            )
    return [Stop(s, PointNm.of(p)) for s, _ in seeds for p in finder.stops[s]]


def stops_on_arbours(
    ground: GraphSource, segments: Sequence[SegmentId], near: PointNm | None = None
) -> list[Stop]:
    """Stops along whole objects of a graph without reading a voxel.

    Args:
        ground: The dataset.
        segments: Its objects.
        near: The nearest to it first; None is the most telling first, object by object.

    Raises:
        SegmentNotFoundError: There is no such object.
        DatasetError: The graph cannot be asked.
    """
    found = []
    for segment in segments:
        taken: list[Points] = []
        for place in places_on(ground.arbour(segment)):
            at = np.array(tuple(place.at))
            if all(np.linalg.norm(at - other) > SEARCH_RADIUS_NM / 2 for other in taken):
                taken.append(at)
                found.append(Stop(segment, place.at))
    if near is not None:
        found.sort(key=lambda s: (near.distance_nm(s.at), tuple(s.at)))
    return found


def stops_from_here(
    ground: Ground,
    segment: SegmentId,
    at: PointNm,
    progress: Callable[[str], None] = lambda _text: None,
) -> list[Stop]:
    """Stops along the segment on screen, from where a person is.

    A graph names the odd places of an object at once, however long it is, the nearest first; what
    is small enough is then gone over as a whole, as a segment without a graph is.

    Args:
        ground: The dataset.
        segment: The segment.
        at: On or near it.
        progress: Told in words what is going on.

    Raises:
        SegmentNotFoundError: The segment was not found.
        DatasetError: The data cannot be read.
    """
    stops: list[Stop] = []
    if isinstance(ground, GraphSource):
        progress("reading the graph of the whole object")
        stops = stops_on_arbours(ground, [segment], at)
        if ground.extent_vx(segment) > MOST_FOLLOWED_VX:
            return stops
    covered = stops_on_segments(ground, [(segment, at)], progress)
    known = set(stops)
    return [*stops, *(s for s in covered if s not in known)]


def stops_in_box(
    ground: Ground, box: BoxVx, progress: Callable[[str], None] = lambda _text: None
) -> list[Stop]:
    """Stops on every segment of `LEAST_NM3` in a box, block by block.

    Raises:
        UsageError: The box lies outside the volume.
    """
    inside = box.clip(ground.bounds)
    if inside.is_empty:
        lo, hi = tuple(ground.bounds.lo), tuple(ground.bounds.hi)
        raise UsageError(f"The box lies outside the volume, which has voxels {lo} to {hi}.")
    finder = _Finder(ground, stride_nm=_STRIDE_NM)
    blocks = list(_blocks(ground, inside))
    for n, block in enumerate(blocks):
        progress(f"looking through block {n + 1} of {len(blocks)}")
        finder.visit(block, None)
    large = [s for s, nm3 in finder.volume_nm3.items() if nm3 >= LEAST_NM3]
    found = [Stop(SegmentId(s), PointNm.of(p)) for s in sorted(large) for p in finder.stops[s]]
    # neighbours follow each other, so that what was read for one serves the next
    corner, edge = np.array(tuple(inside.lo)), np.array(tuple(ground.resolution))
    return sorted(found, key=lambda s: (_block_of(s.at, corner * edge, edge), s.segment))


def _block_of(at: PointNm, lo_nm: Points, edge: Points) -> tuple[int, ...]:
    return tuple(((np.array(tuple(at)) - lo_nm) // (BLOCK_VX * edge)).astype(int).tolist())


class _Finder:
    """Collects stops and volumes by segment, block by block."""

    def __init__(self, ground: Ground, *, stride_nm: float) -> None:
        self._ground = ground
        self._edge = np.array(tuple(ground.resolution))
        self._step = np.maximum(1, np.rint(stride_nm / self._edge)).astype(np.int64)
        self._cell = np.maximum(1, np.rint(CELL_NM / self._edge)).astype(np.int64)
        self._reach_nm = (
            SEARCH_RADIUS_NM - SLACK_NM - float(np.linalg.norm(self._cell * self._edge))
        )
        if self._reach_nm <= 0:
            raise UsageError(
                f"Voxels of {tuple(ground.resolution)} nm are too coarse for a search radius of "
                f"{SEARCH_RADIUS_NM:.0f} nm."
            )
        self.stops: dict[int, list[tuple[float, ...]]] = {}
        self.volume_nm3: dict[int, float] = {}

    def visit(self, block: BoxVx, wanted: set[SegmentId] | None) -> NDArray[np.uint64]:
        """Add the stops that the block needs beyond those there are; returns its segments."""
        seg = self._ground.cutout(block).seg
        lo = np.array(tuple(block.lo))
        first = -lo % self._step
        some = seg[tuple(slice(f, None, s) for f, s in zip(first, self._step, strict=True))]
        mask = some != 0 if wanted is None else np.isin(some, np.array(sorted(wanted), np.uint64))
        voxels = np.argwhere(mask)
        if not len(voxels):
            return seg
        ids = some[mask]
        voxels = voxels * self._step + first + lo
        for segment, its in _grouped(ids, voxels):
            nm3 = len(its) * float(np.prod(self._step * self._edge))
            self.volume_nm3[segment] = self.volume_nm3.get(segment, 0.0) + nm3
            self._cover(segment, self._standing_for_cells(its))
        return seg

    def _standing_for_cells(self, voxels: NDArray[np.int64]) -> Points:
        """One voxel of each cell, in nm, in the order of the cells."""
        cell = voxels // self._cell
        order = np.lexsort((cell[:, 2], cell[:, 1], cell[:, 0]))
        cell, voxels = cell[order], voxels[order]
        starts = np.flatnonzero(np.r_[True, (np.diff(cell, axis=0) != 0).any(axis=1)])
        ends = np.r_[starts[1:], len(cell)]
        middle: Points = (voxels[(starts + ends) // 2] + 0.5) * self._edge
        return middle

    def _cover(self, segment: int, points: Points) -> None:
        """Take points, first come first, until each has a stop within reach."""
        stops = self.stops.setdefault(segment, [])
        far = np.ones(len(points), bool)
        for stop in stops:
            far &= np.linalg.norm(points - stop, axis=1) > self._reach_nm
        while far.any():
            stop = points[int(np.argmax(far))]
            stops.append(tuple(stop.tolist()))
            far &= np.linalg.norm(points - stop, axis=1) > self._reach_nm


def _grouped(
    ids: NDArray[np.uint64], voxels: NDArray[np.int64]
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    order = np.argsort(ids, kind="stable")
    ids, voxels = ids[order], voxels[order]
    starts = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]])
    for a, b in zip(starts, np.r_[starts[1:], len(ids)], strict=True):
        yield int(ids[a]), voxels[a:b]


def _blocks(ground: Ground, box: BoxVx) -> Iterator[BoxVx]:
    """Blocks that tile a box, neighbours after each other; no more than one is held at a time."""
    lo, hi = tuple(ground.bounds.lo), tuple(ground.bounds.hi)
    starts = [
        range(b - (b - a) % BLOCK_VX, c, BLOCK_VX)
        for a, b, c in zip(lo, box.lo, box.hi, strict=True)
    ]
    for x, y, z in product(*starts):
        block = BoxVx(PointVoxel(x, y, z), PointVoxel(x + BLOCK_VX, y + BLOCK_VX, z + BLOCK_VX))
        clipped = block.clip(box).clip(BoxVx(PointVoxel(*lo), PointVoxel(*hi)))
        if not clipped.is_empty:
            yield clipped


def _follow(ground: Ground, segment: SegmentId, at: PointNm, finder: _Finder) -> Iterator[BoxVx]:
    """Visit the block at a point, then its neighbours through which the segment goes on."""
    lo = np.array(tuple(ground.bounds.lo))
    here = at.to_voxel(ground.resolution)
    if not ground.bounds.contains(here):
        raise SegmentNotFoundError(f"The point {tuple(at)} nm lies outside the volume.")
    start = tuple(int(v) for v in (np.array(tuple(here)) - lo) // BLOCK_VX)
    # the point may lie a little off the segment, beyond a block's face
    todo: list[tuple[int, ...]] = [start]
    seen = set(todo)
    found = False
    while todo:
        index = todo.pop(0)
        corner = PointVoxel(*(int(v) for v in lo + np.array(index) * BLOCK_VX))
        block = BoxVx(corner, PointVoxel(*(v + BLOCK_VX for v in corner))).clip(ground.bounds)
        if block.is_empty:
            continue
        inside = finder.visit(block, {segment}) == np.uint64(segment)
        yield block
        grows = found = found or bool(inside.any())
        for neighbour in _neighbours(index, inside, everywhere=not grows and index == start):
            if neighbour not in seen and min(neighbour) >= 0:
                seen.add(neighbour)
                todo.append(neighbour)


def _neighbours(
    index: tuple[int, ...], inside: NDArray[np.bool_], *, everywhere: bool
) -> Iterable[tuple[int, ...]]:
    """Blocks behind the faces that the segment touches, or behind all of them."""
    for axis in range(3):
        for side, step in ((0, -1), (-1, 1)):
            if everywhere or np.take(inside, side, axis).any():
                yield tuple(v + step * (a == axis) for a, v in enumerate(index))
