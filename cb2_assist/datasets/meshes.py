"""Surface meshes of segments in Neuroglancer's legacy precomputed mesh format.

A segment's mask is averaged over blocks of 2 x 2 x 2 voxels (fewer along coarse axes), marching
cubes run on the averages, and Taubin's filter takes the stair steps off (Taubin 1995, "A signal
processing approach to fair surface design", SIGGRAPH). The surface is drawn at a level that even a
straight thread of single voxels exceeds, so thin necks stay connected; it lies about a voxel
outside the true one at most.
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cb2_assist.datasets.precomputed import Grid, block_mean, isotropic_factors

Progress = Callable[[str], None]
"""Takes one line of text about how far the work is."""

_FINE_BELOW_VX = 8_000
"""Smaller segments are meshed voxel by voxel: there is no time to save."""
_TAUBIN_ROUNDS = 8
_TAUBIN_STEPS = (0.5, -0.53)


def write_meshes(
    folder: Path,
    seg: NDArray[np.uint64],
    grid: Grid,
    min_voxels: int,
    progress: Progress | None = None,
) -> int:
    """Mesh every segment of at least `min_voxels`; the others get an empty manifest.

    An empty manifest tells the viewer that there is nothing to draw; without one each selection
    of a small segment would be a failed request.

    Args:
        folder: The segmentation's mesh folder, made here.
        seg: Segment ids, axes x, y, z.
        grid: Where `seg` lies; vertices are nm in the same frame.
        min_voxels: Segments with fewer voxels get no mesh.
        progress: Takes lines about how far the work is.

    Returns:
        How many segments have a mesh.
    """
    import fastremap
    from scipy import ndimage

    folder.mkdir(parents=True)
    (folder / "info").write_text(json.dumps({"@type": "neuroglancer_legacy_mesh"}))
    small, ids_of = fastremap.renumber(seg, preserve_zero=True, in_place=False)
    id_of = {int(new): int(old) for old, new in ids_of.items() if new}
    sizes = np.bincount(small.ravel(order="K"), minlength=len(id_of) + 1)
    boxes = ndimage.find_objects(small)
    wanted = [n for n in id_of if sizes[n] >= min_voxels]
    for n in id_of:
        _write_manifest(folder, id_of[n], [])
    started = told = time.monotonic()
    for done, n in enumerate(wanted):
        if progress and time.monotonic() - told > 1:
            told = time.monotonic()
            left_s = (told - started) / max(done, 1) * (len(wanted) - done)
            progress(f"meshes: {done} of {len(wanted)}, about {left_s:.0f} s left")
        vertices, faces = mesh_of(small, n, boxes[n - 1], int(sizes[n]), grid)
        _write_mesh(folder, id_of[n], vertices, faces)
    return len(wanted)


def mesh_of(
    labels: NDArray[Any],
    label: int,
    box: tuple[slice, slice, slice],
    size_vx: int,
    grid: Grid,
) -> tuple[NDArray[np.float32], NDArray[np.uint32]]:
    """Closed surface of one label, facing outwards.

    Args:
        labels: Labels, axes x, y, z.
        label: The one to mesh.
        box: Bounding box of the label, as indices into `labels`.
        size_vx: Voxels of the label.
        grid: Where `labels` lies.

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
    vertices, faces, _, _ = marching_cubes(field, level, gradient_direction="ascent")
    vertices = _taubin(vertices, faces)
    first = np.array([s.start - p[0] for s, p in zip(box, pad, strict=True)], float)
    scale = np.array(factors, float)
    # block k covers voxels [first + k f, first + (k + 1) f); its value belongs to its centre
    voxels = first + (vertices + 0.5) * scale + np.array(list(grid.lo), float)
    nm = voxels * np.array(list(grid.resolution))
    return nm.astype(np.float32), faces.astype(np.uint32)


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


def _write_mesh(
    folder: Path, segment: int, vertices: NDArray[np.float32], faces: NDArray[np.uint32]
) -> None:
    name = f"{segment}:0:0"
    body = (
        np.uint32(len(vertices)).tobytes()
        + vertices.astype("<f4").tobytes()
        + faces.astype("<u4").tobytes()
    )
    # level 1: a quarter off for little time; more effort saves little on float coordinates
    (folder / f"{name}.gz").write_bytes(gzip.compress(body, compresslevel=1, mtime=0))
    _write_manifest(folder, segment, [name])
