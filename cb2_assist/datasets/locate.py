"""Finds where a segment is, for a person who has its id and nothing else.

Its mesh tells at once. Without one the scales of the segmentation are searched, coarsest first,
for a limited time: what is lost between the samples of a coarse scale turns up in a finer one.
"""

from __future__ import annotations

import gzip
import itertools
import json
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.geometry import BoxVx, PointNm, PointVoxel, Resolution
from cb2_assist.core.records import SegmentId
from cb2_assist.datasets.layer import Layer
from cb2_assist.datasets.serving import resolve
from cb2_assist.datasets.source import Cutout

SEARCH_S = 10.0
"""How long the voxels are searched. A person waits for it with the hands on the keyboard."""

_BLOCK_VX = 128
_TRIES = 8
"""Places on a mesh that are looked at, for a mesh that reaches beyond the voxels that exist."""
_MESH_MARGIN_VX = 4
"""Smoothed surfaces lie within a block of two voxels of the segment."""
_MOST_MESH_BYTES = 2**28


def mesh_places(folder: Path, info: dict[str, Any], segment: SegmentId) -> Iterator[PointNm]:
    """Places on a segment's surface, its middle first.

    Args:
        folder: A precomputed segmentation on this machine.
        info: Its info file.
        segment: The one to look for.

    Yields:
        Points within a few voxels of the segment; none where it has no mesh in the legacy format.
    """
    name = info.get("mesh")
    if not isinstance(name, str):
        return
    fragments = _json(folder, f"{name}/{segment}:0").get("fragments")
    for fragment in fragments if isinstance(fragments, list) else ():
        vertices = _vertices(folder, f"{name}/{fragment}")
        if len(vertices):
            far = ((vertices - vertices.mean(0)) ** 2).sum(1)
            order = np.argsort(far, kind="stable")
            for i in order[:: max(1, len(order) // _TRIES)]:
                yield PointNm.of(vertices[i])


def scale_places(layer: Layer, segment: SegmentId, deadline: float) -> Iterator[BoxVx]:
    """Voxels of a coarse scale that show the segment, coarsest scale first.

    Args:
        layer: The segmentation.
        segment: The one to look for.
        deadline: Of `time.monotonic`; the search ends then.

    Yields:
        Boxes in voxels of the finest scale, each no larger than one voxel of its scale.

    Raises:
        DatasetError: The data cannot be read.
    """
    finest = layer.scales[0].resolution
    for number, scale in reversed(list(enumerate(layer.scales))):
        for box in _blocks(scale.bounds):
            if time.monotonic() > deadline:
                return
            found = layer.read(number, box) == segment
            if found.any():
                yield _in_fine(_deepest(found, scale.resolution), box, scale.resolution, finest)


def point_in(cutout: Cutout, segment: SegmentId) -> PointNm | None:
    """Centre of the voxel of a segment that lies deepest in it; None where it has none."""
    mask = cutout.seg == np.uint64(segment)
    if not mask.any():
        return None
    at = _deepest(mask, cutout.resolution)
    voxel = PointVoxel(*(int(v) + lo for v, lo in zip(at, cutout.box.lo, strict=True)))
    return voxel.to_nm(cutout.resolution)


def first_point(
    boxes: Iterator[BoxVx], read: Callable[[BoxVx], Cutout], segment: SegmentId
) -> PointNm | None:
    """The first point of a segment that lies in one of the boxes."""
    return next((p for box in boxes if (p := point_in(read(box), segment)) is not None), None)


def around(point: PointNm, resolution: Resolution) -> BoxVx:
    """Voxels in which a place on a mesh may have its segment."""
    return BoxVx.around(point, _MESH_MARGIN_VX * max(resolution), resolution)


def _deepest(mask: NDArray[np.bool_], resolution: Resolution) -> tuple[int, ...]:
    from scipy import ndimage

    where = ndimage.find_objects(mask.astype(np.uint8))[0]
    depth = ndimage.distance_transform_edt(np.pad(mask[where], 1), sampling=tuple(resolution))
    best = np.unravel_index(int(depth.argmax()), depth.shape)
    return tuple(int(b) - 1 + s.start for b, s in zip(best, where, strict=True))


def _blocks(bounds: BoxVx) -> Iterator[BoxVx]:
    starts = [range(a, b, _BLOCK_VX) for a, b in zip(bounds.lo, bounds.hi, strict=True)]
    for z, y, x in itertools.product(*reversed(starts)):
        far = PointVoxel(x + _BLOCK_VX, y + _BLOCK_VX, z + _BLOCK_VX)
        yield BoxVx(PointVoxel(x, y, z), far).clip(bounds)


def _in_fine(index: tuple[int, ...], box: BoxVx, coarse: Resolution, finest: Resolution) -> BoxVx:
    lo, hi = [], []
    for i, start, c, f in zip(index, box.lo, coarse, finest, strict=True):
        ratio = max(1, round(c / f))
        lo.append((start + i) * ratio)
        hi.append((start + i + 1) * ratio)
    return BoxVx(PointVoxel(*lo), PointVoxel(*hi))


def _json(folder: Path, relative: str) -> dict[str, Any]:
    try:
        got = json.loads(_bytes(folder, relative) or b"{}")
    except ValueError:
        return {}
    return got if isinstance(got, dict) else {}


def _vertices(folder: Path, relative: str) -> NDArray[np.float32]:
    data = _bytes(folder, relative) or b""
    n = int.from_bytes(data[:4], "little")
    if len(data) < 4 + 12 * n:
        return np.zeros((0, 3), np.float32)
    got = np.frombuffer(data, "<f4", 3 * n, offset=4).reshape(-1, 3)
    finite: NDArray[np.float32] = got[np.isfinite(got).all(1)]
    return finite


def _bytes(folder: Path, relative: str) -> bytes | None:
    served = resolve(folder, relative)
    if served is None:
        return None
    try:
        if served.content_encoding is None:
            return served.path.read_bytes()
        with gzip.open(served.path) as packed:
            return packed.read(_MOST_MESH_BYTES)
    except (OSError, EOFError, zlib.error):  # a damaged mesh is as good as none
        return None
