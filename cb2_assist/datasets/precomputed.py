"""Writes volumes in Neuroglancer's precomputed format, losslessly, with coarser scales for zooming.

Format: https://github.com/google/neuroglancer, src/datasource/precomputed. Volumes are written with
cloud-volume; chunks are 64^3 and gzip-compressed on disk (`serving.resolve` says so over HTTP).
Volumes larger than memory are written block by block, coarser scales from the finer ones on disk.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.geometry import BoxVx, PointVoxel, Resolution
from cb2_assist.datasets.meter import Meter
from cb2_assist.datasets.voxels import (
    BLOCK_VX,
    CHUNK_VX,
    Layout,
    MemoryVoxels,
    Shape,
    Voxels,
    as_voxels,
    blocks,
    whole,
)

_COARSEST_VX = 64
_MAX_COARSER = 3

Array = NDArray[Any]
Watch = Callable[[BoxVx, Array], None]
"""Takes a block of the finest scale as it is written, and its box, counted from 0."""

_EM_WORK, _SEG_WORK = 1.0, 1.4
"""Cost of writing a voxel, for the progress."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Where a volume lies: voxel size and the absolute index of its first voxel."""

    resolution: Resolution
    lo: PointVoxel

    def box(self, array: NDArray[Any]) -> BoxVx:
        """Voxels that an array on this grid covers."""
        hi = (v + n for v, n in zip(self.lo, array.shape, strict=True))
        return BoxVx(self.lo, PointVoxel(*hi))


def write_em(
    folder: Path,
    em: Voxels | Array,
    grid: Grid,
    *,
    watch: Watch | None = None,
    meter: Meter | None = None,
    most_vx: int = BLOCK_VX,
) -> None:
    """Write EM (x, y, z) as raw chunks, block by block; coarser scales are block means.

    Args:
        folder: Folder of the volume, made when needed.
        em: uint8 voxels.
        grid: Where they lie.
        watch: Sees every block once.
        meter: Told about the progress.
        most_vx: Voxels in memory as one array.
    """
    kind = {"type": "image", "data_type": "uint8", "encoding": "raw"}
    _write(folder, as_voxels(em), grid, kind, _Work(watch, meter or Meter(), _EM_WORK, most_vx))


def write_segmentation(
    folder: Path,
    seg: Voxels | Array,
    grid: Grid,
    *,
    mesh: bool,
    watch: Watch | None = None,
    meter: Meter | None = None,
    most_vx: int = BLOCK_VX,
) -> Voxels:
    """Write segments (x, y, z) as compressed_segmentation; coarser scales take every n-th voxel.

    Args:
        folder: Folder of the volume, made when needed.
        seg: Segment ids.
        grid: Where they lie.
        mesh: Whether the info file says that meshes lie in the folder `mesh` below.
        watch: Sees every block once.
        meter: Told about the progress.
        most_vx: Voxels in memory as one array.

    Returns:
        The segments as they were written, to be read again.
    """
    info: dict[str, Any] = {
        "type": "segmentation",
        "data_type": "uint64",
        "encoding": "compressed_segmentation",
    }
    if mesh:
        info["mesh"] = "mesh"
    work = _Work(watch, meter or Meter(), _SEG_WORK, most_vx)
    return _write(folder, as_voxels(seg), grid, info, work)


def work_of(shape: Shape, grid: Grid, *, em: bool) -> float:
    """What writing a volume with its coarser scales counts for in a `Meter`."""
    voxels = sum(math.prod(level_shape) for level_shape, _ in _levels(shape, grid))
    return voxels * (_EM_WORK if em else _SEG_WORK)


class _WrittenVoxels:
    """A scale that is on disk already."""

    layout = Layout()

    def __init__(self, volume: Any, shape: Shape, grid: Grid) -> None:  # noqa: ANN401  untyped
        self._volume, self.shape, self._lo = volume, shape, grid.lo

    def read(self, box: BoxVx) -> Array:
        """Values of the box."""
        return np.asfortranarray(np.asarray(self._volume[_absolute(box, self._lo)])[..., 0])


@dataclass(frozen=True, slots=True)
class _Work:
    watch: Watch | None
    meter: Meter
    cost: float
    most_vx: int


def _write(folder: Path, voxels: Voxels, grid: Grid, kind: dict[str, Any], work: _Work) -> Voxels:
    from cloudvolume import CloudVolume

    levels = _levels(voxels.shape, grid)
    info = {k: v for k, v in kind.items() if k != "encoding"}
    info["num_channels"] = 1
    info["scales"] = [_scale(shape, g, kind["encoding"]) for shape, g in levels]
    path = f"precomputed://file://{folder.absolute()}"
    finest = finer = voxels
    for mip, (shape, level_grid) in enumerate(levels):
        volume = CloudVolume(path, mip=mip, info=info, progress=False, compress="gzip")
        if mip == 0:
            volume.commit_info()
            finest = finer = _put(volume, voxels, level_grid, work)
            continue
        average = kind["type"] == "image"
        level = _Coarser(finer, levels[mip - 1][1], shape, level_grid, average=average)
        # a block is made from one that is larger by the factors
        most_vx = max(work.most_vx // level.shrinks, CHUNK_VX**3)
        finer = _put(volume, level, level_grid, replace(work, watch=None, most_vx=most_vx))
    return finest


def _put(volume: Any, voxels: Voxels, grid: Grid, work: _Work) -> Voxels:  # noqa: ANN401  untyped
    """Write one scale; returns it to be read again, from memory where it is there."""
    parts = blocks(voxels.shape, voxels.layout, work.most_vx)
    for box in parts:
        block = voxels.read(box)
        if work.watch is not None:
            work.watch(box, block)
        volume[_absolute(box, grid.lo)] = np.asfortranarray(block)
        work.meter.add(block.size * work.cost, block.nbytes)
        if len(parts) == 1:
            return MemoryVoxels(block)
        del block
    if isinstance(voxels, MemoryVoxels):
        return voxels
    return _WrittenVoxels(volume, voxels.shape, grid)


def _absolute(box: BoxVx, lo: PointVoxel) -> tuple[slice, slice, slice]:
    x, y, z = (slice(a + o, b + o) for a, b, o in zip(box.lo, box.hi, lo, strict=True))
    return x, y, z


def _scale(shape: Shape, grid: Grid, encoding: str) -> dict[str, Any]:
    size_nm = [int(v) if float(v).is_integer() else float(v) for v in grid.resolution]
    scale: dict[str, Any] = {
        "key": "_".join(str(v) for v in size_nm),
        "resolution": size_nm,
        "voxel_offset": list(grid.lo),
        "size": list(shape),
        "chunk_sizes": [[CHUNK_VX] * 3],
        "encoding": encoding,
    }
    if encoding == "compressed_segmentation":
        scale["compressed_segmentation_block_size"] = [8, 8, 8]
    return scale


def _levels(shape: Shape, grid: Grid) -> list[tuple[Shape, Grid]]:
    """Shape and place of each scale: voxel w covers [w * f, (w + 1) * f) of the one before."""
    levels = [(shape, grid)]
    while len(levels) <= _MAX_COARSER and max(levels[-1][0]) > _COARSEST_VX:
        size, before = levels[-1]
        factors = isotropic_factors(before.resolution)
        lo = [v // f for v, f in zip(before.lo, factors, strict=True)]
        hi = [-(-(v + n) // f) for v, n, f in zip(before.lo, size, factors, strict=True)]
        x, y, z = (b - a for a, b in zip(lo, hi, strict=True))
        resolution = Resolution(*(v * f for v, f in zip(before.resolution, factors, strict=True)))
        levels.append(((x, y, z), Grid(resolution, PointVoxel(*lo))))
    return levels


def isotropic_factors(resolution: Resolution) -> tuple[int, int, int]:
    """2 along the axes that are fine next to the others, 1 along the rest.

    Halving only those brings anisotropic voxels nearer to cubes; cubes are halved along all axes.
    """
    fine = [v < math.sqrt(2) * resolution.finest for v in resolution]
    return (1 + fine[0], 1 + fine[1], 1 + fine[2])


class _Coarser:
    """The next scale, computed from the one before where it is asked for."""

    layout = Layout()

    def __init__(
        self, finer: Voxels, finer_grid: Grid, shape: Shape, grid: Grid, *, average: bool
    ) -> None:
        self.shape = shape
        self._finer, self._average = finer, average
        self._factors = isotropic_factors(finer_grid.resolution)
        self.shrinks = math.prod(self._factors)
        self._lo, self._finer_lo = grid.lo, finer_grid.lo

    def read(self, box: BoxVx) -> Array:
        """Values of the box."""
        f = self._factors
        # where the box begins and ends among the finer voxels, which start at 0 here
        lo, hi = (
            [(v + o) * k - p for v, o, k, p in zip(end, self._lo, f, self._finer_lo, strict=True)]
            for end in (box.lo, box.hi)
        )
        inside = BoxVx(PointVoxel(*lo), PointVoxel(*hi)).clip(whole(self._finer.shape))
        pad = [(i - a, b - j) for a, i, j, b in zip(lo, inside.lo, inside.hi, hi, strict=True)]
        fine = self._finer.read(inside)
        if np.any(pad):
            fine = np.pad(fine, pad, mode="edge")
        if not self._average:
            return fine[:: f[0], :: f[1], :: f[2]]
        return np.rint(block_mean(fine, f)).astype(np.uint8)


def block_mean(array: NDArray[Any], factors: tuple[int, int, int]) -> NDArray[np.float32]:
    """Mean over blocks of voxels; every axis is a multiple of its factor."""
    fx, fy, fz = factors
    total = np.zeros(
        tuple(n // f for n, f in zip(array.shape, factors, strict=True)), np.float32, order="F"
    )
    for x in range(fx):
        for y in range(fy):
            for z in range(fz):
                total += array[x::fx, y::fy, z::fz]
    total /= fx * fy * fz
    return total
