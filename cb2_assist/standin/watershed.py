"""Supervoxels from a segmentation: its segments, cut at chunk borders and necks, and who touches.

Supervoxels of one segment that touch are one object at the start. The affinity of two says how
bright the image is where they touch, from 0 at membranes to 1 in cytoplasm, and how wide that is
for their size; nothing but the volume itself goes into it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.errors import BadVolumeError
from cb2_assist.core.geometry import BoxVx, PointVoxel
from cb2_assist.datasets.meter import Meter
from cb2_assist.datasets.precomputed import Grid, work_of, write_segmentation
from cb2_assist.datasets.source import Source
from cb2_assist.datasets.voxels import Layout, Shape
from cb2_assist.standin.graph import Indices, Watershed
from cb2_assist.standin.node_ids import SUPERVOXEL, Chunk, Ids, NodeIds
from cb2_assist.standin.pieces import pieces

_DARK_STDS, _BRIGHT_STDS = 1.5, 0.5
"""Grey levels this far below and above the mean of the image count as membrane and cytoplasm."""
_LEAST, _MOST = 0.02, 0.98
_BLOCK_VX = 2**22

Grey = NDArray[np.uint8]


def write_watershed(
    source: Source, folder: Path, chunk_vx: Shape, meter: Meter | None = None
) -> Watershed:
    """Write the supervoxels of a dataset as a precomputed volume.

    Args:
        source: EM and segments.
        folder: Folder of the volume, made when needed.
        chunk_vx: Voxels of a chunk, divisors of a stored chunk's.
        meter: Told about the progress.

    Returns:
        Supervoxels and edges.

    Raises:
        DatasetError: The data cannot be read.
        BadVolumeError: There is no segment.
    """
    counts = [-(-n // c) for n, c in zip(source.bounds.shape, chunk_vx, strict=True)]
    making = _Making(source, NodeIds.for_chunks(counts), chunk_vx)
    grid = Grid(source.resolution, source.bounds.lo)
    if meter is not None:
        meter.plan(work_of(making.shape, grid, em=False))
        meter.stage("making supervoxels")
    # in small blocks, so that the progress moves
    write_segmentation(folder, making, grid, mesh=False, meter=meter, most_vx=_BLOCK_VX)
    return making.watershed()


@dataclass(slots=True)
class _Contacts:
    """Faces between supervoxels, gathered piece by piece."""

    pairs: list[Ids] = field(default_factory=list)
    area: list[Indices] = field(default_factory=list)
    nm2: list[NDArray[np.float64]] = field(default_factory=list)
    grey: list[NDArray[np.float64]] = field(default_factory=list)

    def add(self, one: Ids, other: Ids, grey_one: Grey, grey_other: Grey, face_nm2: float) -> None:
        """Take the faces between voxels that lie side by side, two arrays of one shape."""
        touch = (one != other) & (one != 0) & (other != 0)
        if not touch.any():
            return
        a, b = one[touch], other[touch]
        pair = np.stack([np.minimum(a, b), np.maximum(a, b)], axis=1)
        darker = np.minimum(grey_one[touch], grey_other[touch])
        unique, which = np.unique(pair, axis=0, return_inverse=True)
        n = len(unique)
        self.pairs.append(unique)
        faces = np.bincount(which.ravel(), minlength=n)
        self.area.append(faces.astype(np.int64))
        self.nm2.append(faces.astype(np.float64) * face_nm2)
        self.grey.append(np.bincount(which.ravel(), darker, n).astype(np.float64))


class _Making:
    """The supervoxels as a volume that is made where it is read, each chunk once, in order."""

    layout = Layout()

    def __init__(self, source: Source, ids: NodeIds, chunk_vx: Shape) -> None:
        self._source, self._ids, self._chunk_vx = source, ids, chunk_vx
        self.shape = source.bounds.shape
        self._contacts = _Contacts()
        self._walls: dict[tuple[int, Chunk], tuple[Ids, Grey]] = {}
        self._supervoxels: list[Ids] = []
        self._segments: list[Ids] = []
        self._voxels: list[Indices] = []
        edge = np.array(list(source.resolution))
        self._voxel_nm3 = float(edge.prod())
        self._face_nm2 = (edge.prod() / edge).tolist()

    def read(self, box: BoxVx) -> Ids:
        """Supervoxels of a box of whole chunks, counted from 0."""
        lo = self._source.bounds.lo
        shift = BoxVx(_plus(box.lo, lo), _plus(box.hi, lo))
        cutout = self._source.cutout(shift)
        out = np.zeros(box.shape, np.uint64, order="F")
        for chunk, part in self._chunks(box):
            out[part] = self._chunk(chunk, cutout.seg[part], cutout.em[part])
        return out

    def watershed(self) -> Watershed:
        """What was made.

        Raises:
            BadVolumeError: There is no segment.
        """
        if not self._supervoxels or not sum(map(len, self._supervoxels)):
            raise BadVolumeError("The segmentation holds only background (0): there is no segment.")
        ids = np.concatenate(self._supervoxels)
        order = np.argsort(ids)
        ids, segments = ids[order], np.concatenate(self._segments)[order]
        nm3 = np.concatenate(self._voxels)[order] * self._voxel_nm3
        if not self._contacts.pairs:
            none = np.empty(0, np.int64)
            return Watershed(ids, none.reshape(0, 2), none.astype(np.float32), none, none > 0)
        pairs, which = np.unique(np.concatenate(self._contacts.pairs), axis=0, return_inverse=True)
        area = np.bincount(which.ravel(), np.concatenate(self._contacts.area)).astype(np.int64)
        grey = np.bincount(which.ravel(), np.concatenate(self._contacts.grey)) / area
        nm2 = np.bincount(which.ravel(), np.concatenate(self._contacts.nm2))
        ends = np.searchsorted(ids, pairs).astype(np.int64)
        same = segments[ends[:, 0]] == segments[ends[:, 1]]
        width = nm2 / nm3[ends].min(axis=1) ** (2 / 3)
        return Watershed(ids, ends, self._affinity(grey, width), area, same)

    def _affinity(
        self, grey: NDArray[np.float64], width: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        of = self._source.em_statistics
        dark, bright = of.mean - _DARK_STDS * of.std, of.mean + _BRIGHT_STDS * of.std
        share = (grey - dark) / max(bright - dark, 1.0)
        affinity = (share * width.clip(0, 1)).clip(_LEAST, _MOST)
        return np.asarray(affinity, np.float32)

    def _chunks(self, box: BoxVx) -> Iterator[tuple[Chunk, tuple[slice, slice, slice]]]:
        ranges = [
            range(a // c, -(-b // c))
            for a, b, c in zip(box.lo, box.hi, self._chunk_vx, strict=True)
        ]
        for z, y, x in itertools.product(*reversed(ranges)):
            sx, sy, sz = (
                slice(max(i * c, a) - a, min((i + 1) * c, b) - a)
                for i, c, a, b in zip((x, y, z), self._chunk_vx, box.lo, box.hi, strict=True)
            )
            yield (x, y, z), (sx, sy, sz)

    def _chunk(self, chunk: Chunk, seg: Ids, em: Grey) -> Ids:
        piece = pieces(seg, self._source.resolution)
        n = int(piece.max(initial=0))
        base = np.uint64(self._ids.base(SUPERVOXEL, chunk))
        ids = np.where(piece > 0, base + piece.astype(np.uint64), np.uint64(0))
        self._supervoxels.append(base + np.arange(1, n + 1, dtype=np.uint64))
        owner = np.zeros(n + 1, np.uint64)
        owner[piece] = seg
        self._segments.append(owner[1:])
        self._voxels.append(np.bincount(piece.ravel(), minlength=n + 1)[1:].astype(np.int64))
        for axis in range(3):
            before, after = _sides(axis)
            self._contacts.add(ids[before], ids[after], em[before], em[after], self._face_nm2[axis])
            self._across(axis, chunk, ids, em)
        return ids

    def _across(self, axis: int, chunk: Chunk, ids: Ids, em: Grey) -> None:
        """Meet the wall of the chunk before, and keep the far one for the chunk after."""
        previous = (
            chunk[0] - (axis == 0),
            chunk[1] - (axis == 1),
            chunk[2] - (axis == 2),
        )
        wall = self._walls.pop((axis, previous), None)
        first, last = ((slice(None),) * axis + (k,) for k in (0, -1))
        if wall is not None:
            self._contacts.add(wall[0], ids[first], wall[1], em[first], self._face_nm2[axis])
        self._walls[axis, chunk] = (ids[last].copy(), em[last].copy())


def _sides(axis: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    lead = (slice(None),) * axis
    return (*lead, slice(None, -1)), (*lead, slice(1, None))


def _plus(a: PointVoxel, b: PointVoxel) -> PointVoxel:
    return PointVoxel(a.x + b.x, a.y + b.y, a.z + b.z)
