"""Surface meshes of segments in Neuroglancer's legacy precomputed mesh format.

A segment's mask is averaged over blocks of 2 x 2 x 2 voxels (fewer along coarse axes), marching
cubes run on the averages, and Taubin's filter takes the stair steps off (Taubin 1995, "A signal
processing approach to fair surface design", SIGGRAPH). The surface is drawn at a level that even a
straight thread of single voxels exceeds, so thin necks stay connected; it lies about a voxel
outside the true one at most.

A volume larger than memory is meshed box by box, a fragment of a segment's mesh in each. Every box
is read with a margin, meshed and smoothed with it, and only the triangles of the box are kept, so
that two fragments meet where they were cut.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.geometry import BoxVx, PointVoxel
from cb2_assist.datasets.meter import Meter
from cb2_assist.datasets.precomputed import Grid, block_mean, isotropic_factors
from cb2_assist.datasets.segment_table import SegmentSizes
from cb2_assist.datasets.voxels import (
    BLOCK_VX,
    Shape,
    Voxels,
    as_voxels,
    blocks,
    cubes,
    whole,
)

Mesh = tuple[NDArray[np.float32], NDArray[np.uint32]]
"""Vertices in nm, shape (n, 3), and triangles, shape (m, 3)."""
Own = tuple[Sequence[float], Sequence[float]]
"""Half-open part of an array: first voxels along x, y, z, and those past the last."""

_FINE_BELOW_VX = 8_000
"""Smaller segments are meshed voxel by voxel: there is no time to save."""
_TAUBIN_ROUNDS = 8
_TAUBIN_STEPS = (0.5, -0.53)
_MARGIN_VX = 24
"""Read around a box. Smoothing reaches farther, but what lies beyond moves nothing visibly."""
_WORK = 5.0
"""Cost of meshing a voxel next to writing one of EM, for the progress."""


def write_meshes(
    folder: Path,
    seg: Voxels | NDArray[np.uint64],
    grid: Grid,
    min_voxels: int,
    *,
    sizes: SegmentSizes | None = None,
    meter: Meter | None = None,
    most_vx: int = BLOCK_VX,
) -> int:
    """Mesh every segment of at least `min_voxels`; the others get an empty manifest.

    An empty manifest tells the viewer that there is nothing to draw; without one each selection
    of a small segment would be a failed request.

    Args:
        folder: The segmentation's mesh folder, made here.
        seg: Segment ids, axes x, y, z.
        grid: Where `seg` lies; vertices are nm in the same frame.
        min_voxels: Segments with fewer voxels get no mesh.
        sizes: Voxels of each segment; None counts them.
        meter: Told about the progress.
        most_vx: Voxels in memory as one array.

    Returns:
        How many segments have a mesh.
    """
    folder.mkdir(parents=True)
    (folder / "info").write_text(json.dumps({"@type": "neuroglancer_legacy_mesh"}))
    voxels = as_voxels(seg)
    if sizes is None:
        sizes = SegmentSizes()
        for box in blocks(voxels.shape, voxels.layout, most_vx):
            sizes.see(voxels.read(box))
    ids, counts = sizes.table()
    wanted = {int(i): int(n) for i, n in zip(ids, counts, strict=True) if n >= min_voxels}
    fragments: dict[int, list[str]] = {i: [] for i in wanted}
    boxes = cubes(voxels.shape, most_vx)
    for number, box in enumerate(boxes):
        for segment, mesh in _meshes_in(voxels, box, grid, wanted, meter or Meter()):
            name = f"{segment}:0:{number}"
            _write_fragment(folder / f"{name}.gz", *mesh)
            fragments[segment].append(name)
    for segment in ids.tolist():
        _write_manifest(folder, segment, fragments.get(segment, []))
    return sum(1 for names in fragments.values() if names)


def work_of(shape: Shape) -> float:
    """What meshing a volume counts for in a `Meter`."""
    return math.prod(shape) * _WORK


def _meshes_in(
    voxels: Voxels, box: BoxVx, grid: Grid, wanted: Mapping[int, int], meter: Meter
) -> Iterator[tuple[int, Mesh]]:
    """The parts of the wanted segments' surfaces that lie in a box."""
    import fastremap
    from scipy import ndimage

    wide = BoxVx(
        PointVoxel(*(v - _MARGIN_VX for v in box.lo)), PointVoxel(*(v + _MARGIN_VX for v in box.hi))
    ).clip(whole(voxels.shape))
    block = voxels.read(wide)
    lo = PointVoxel(*(a + b for a, b in zip(grid.lo, wide.lo, strict=True)))
    own = None if wide == box == whole(voxels.shape) else _own_cells(box, wide, voxels.shape)
    small, ids_of = fastremap.renumber(block, preserve_zero=True, in_place=False)
    del block
    places = ndimage.find_objects(small)
    here = {int(new): int(old) for old, new in ids_of.items() if int(old) in wanted}
    total = math.prod(box.shape) * _WORK
    volumes = {n: math.prod(s.stop - s.start for s in places[n - 1]) for n in here}
    all_volumes = max(sum(volumes.values()), 1)
    for n, segment in here.items():
        place = places[n - 1]
        part = volumes[n] / all_volumes
        if own is None or _touches(place, own):
            mesh = mesh_of(small, n, place, wanted[segment], Grid(grid.resolution, lo), own)
            if len(mesh[1]):
                yield segment, mesh
        meter.add(total * part, math.prod(box.shape) * 8 * part)


def _own_cells(box: BoxVx, wide: BoxVx, shape: Shape) -> Own:
    """The box inside the one with margins; beyond every end where the volume ends too."""
    lo = [a - w if a > 0 else -math.inf for a, w in zip(box.lo, wide.lo, strict=True)]
    hi = [b - w if b < n else math.inf for b, w, n in zip(box.hi, wide.lo, shape, strict=True)]
    return lo, hi


def _touches(place: tuple[slice, slice, slice], own: Own) -> bool:
    # a surface lies up to two voxels outside of its segment
    return all(s.start - 2 < b and s.stop + 2 > a for s, a, b in zip(place, *own, strict=True))


def mesh_of(
    labels: NDArray[Any],
    label: int,
    box: tuple[slice, slice, slice],
    size_vx: int,
    grid: Grid,
    own: Own | None = None,
) -> Mesh:
    """Surface of one label, facing outwards; closed unless only a part of it is wanted.

    Args:
        labels: Labels, axes x, y, z.
        label: The one to mesh.
        box: Bounding box of the label, as indices into `labels`.
        size_vx: Voxels of the label.
        grid: Where `labels` lies.
        own: Only the surface in this part of `labels` is returned, as it is when the whole is.

    Returns:
        Vertices in nm, shape (n, 3), and triangles, shape (m, 3).
    """
    from skimage import measure

    marching_cubes: Any = measure.marching_cubes  # typed in some releases, untyped in others
    factors = (1, 1, 1) if size_vx < _FINE_BELOW_VX else isotropic_factors(grid.resolution)
    mask = labels[box] == label
    # whole blocks on one lattice for all segments, and an empty block all around closes the surface
    pad = [(s.start % f + f, -s.stop % f + f) for s, f in zip(box, factors, strict=True)]
    field = block_mean(np.pad(mask, pad), factors)
    # a straight thread of single voxels fills at least this part of its blocks
    thread = min(factors) / np.prod(factors)
    level = 0.5 if factors == (1, 1, 1) else 0.96 * thread
    if field.max() <= level:
        # a corner of a segment of which the rest lies elsewhere
        return np.empty((0, 3), np.float32), np.empty((0, 3), np.uint32)
    vertices, faces, _, _ = marching_cubes(field, level, gradient_direction="ascent")
    first = np.array([s.start - p[0] for s, p in zip(box, pad, strict=True)], float)
    scale = np.array(factors, float)
    kept = None if own is None else _faces_in(vertices, faces, first, scale, own)
    vertices = _taubin(vertices, faces)
    if kept is not None:
        used, flat = np.unique(faces[kept], return_inverse=True)
        vertices, faces = vertices[used], flat.reshape(-1, 3)
    # block k covers voxels [first + k f, first + (k + 1) f); its value belongs to its centre
    voxels = first + (vertices + 0.5) * scale + np.array(list(grid.lo), float)
    nm = voxels * np.array(list(grid.resolution))
    return nm.astype(np.float32), faces.astype(np.uint32)


def _faces_in(
    vertices: NDArray[Any],
    faces: NDArray[Any],
    first: NDArray[np.float64],
    scale: NDArray[np.float64],
    own: Own,
) -> NDArray[np.bool_]:
    """Which triangles belong to cells of the own part.

    Each triangle lies in one cell between eight centres of blocks, or in the wall of two; its
    middle tells which. The cell's lower corner decides, the same way in the neighbouring box.
    """
    cell = np.floor(vertices[faces].astype(np.float64).mean(axis=1) + 1e-6)
    corner = first + cell * scale
    inside: NDArray[np.bool_] = np.all((corner >= own[0]) & (corner < own[1]), axis=1)
    return inside


def _taubin(vertices: NDArray[Any], faces: NDArray[Any]) -> NDArray[np.float64]:
    """Smooth without shrinking: steps towards the neighbours' mean, in and out in turn."""
    from scipy import sparse

    n = len(vertices)
    start = faces.ravel()
    end = faces[:, [1, 2, 0]].ravel()
    # in a closed surface each edge occurs once in either direction
    links = sparse.csr_array((np.ones(len(start), np.float32), (start, end)), shape=(n, n))
    weight = 1.0 / np.maximum(links.sum(axis=1), 1.0)[:, None]
    smooth = np.asarray(vertices, np.float64)
    for _ in range(_TAUBIN_ROUNDS):
        for step in _TAUBIN_STEPS:
            smooth = smooth + step * (weight * (links @ smooth) - smooth)
    return smooth


def _write_manifest(folder: Path, segment: int, fragments: list[str]) -> None:
    (folder / f"{segment}:0").write_text(json.dumps({"fragments": fragments}))


def _write_fragment(path: Path, vertices: NDArray[np.float32], faces: NDArray[np.uint32]) -> None:
    body = (
        np.uint32(len(vertices)).tobytes()
        + vertices.astype("<f4").tobytes()
        + faces.astype("<u4").tobytes()
    )
    # level 1: a quarter off for little time; more effort saves little on float coordinates
    path.write_bytes(gzip.compress(body, compresslevel=1, mtime=0))
