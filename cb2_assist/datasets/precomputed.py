"""Writes volumes in Neuroglancer's precomputed format, losslessly, with coarser scales for zooming.

Format: https://github.com/google/neuroglancer, src/datasource/precomputed. Volumes are written with
cloud-volume; chunks are 64^3 and gzip-compressed on disk (`serving.resolve` says so over HTTP).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.geometry import BoxVx, PointVoxel, Resolution

CHUNK_VX = 64
_COARSEST_VX = 64
_MAX_COARSER = 3

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Grid:
    """Where a volume lies: voxel size and the absolute index of its first voxel."""

    resolution: Resolution
    lo: PointVoxel

    def box(self, array: NDArray[Any]) -> BoxVx:
        """Voxels that an array on this grid covers."""
        hi = (v + n for v, n in zip(self.lo, array.shape, strict=True))
        return BoxVx(self.lo, PointVoxel(*hi))


def write_em(folder: Path, em: NDArray[np.uint8], grid: Grid) -> None:
    """Write EM (x, y, z) as raw chunks; coarser scales are block means."""
    _write(folder, em, grid, {"type": "image", "data_type": "uint8", "encoding": "raw"})


def write_segmentation(folder: Path, seg: NDArray[np.uint64], grid: Grid, *, mesh: bool) -> None:
    """Write segments (x, y, z) as compressed_segmentation; coarser scales take every n-th voxel.

    Args:
        folder: Folder of the volume, made when needed.
        seg: Segment ids.
        grid: Where they lie.
        mesh: Whether the info file says that meshes lie in the folder `mesh` below.
    """
    info: dict[str, Any] = {
        "type": "segmentation",
        "data_type": "uint64",
        "encoding": "compressed_segmentation",
    }
    if mesh:
        info["mesh"] = "mesh"
    _write(folder, seg, grid, info)


def _write(folder: Path, array: Array, grid: Grid, kind: dict[str, Any]) -> None:
    from cloudvolume import CloudVolume

    levels = [(array, grid)]
    while len(levels) <= _MAX_COARSER and max(levels[-1][0].shape) > _COARSEST_VX:
        levels.append(_coarser(*levels[-1], average=kind["type"] == "image"))
    info = {k: v for k, v in kind.items() if k != "encoding"}
    info["num_channels"] = 1
    info["scales"] = [_scale(a, g, kind["encoding"]) for a, g in levels]
    path = f"precomputed://file://{folder.absolute()}"
    for mip, (level, _) in enumerate(levels):
        volume = CloudVolume(path, mip=mip, info=info, progress=False, compress="gzip")
        if mip == 0:
            volume.commit_info()
        volume[:, :, :] = np.asfortranarray(level)


def _scale(array: Array, grid: Grid, encoding: str) -> dict[str, Any]:
    size_nm = [int(v) if float(v).is_integer() else float(v) for v in grid.resolution]
    scale: dict[str, Any] = {
        "key": "_".join(str(v) for v in size_nm),
        "resolution": size_nm,
        "voxel_offset": list(grid.lo),
        "size": list(array.shape),
        "chunk_sizes": [[CHUNK_VX] * 3],
        "encoding": encoding,
    }
    if encoding == "compressed_segmentation":
        scale["compressed_segmentation_block_size"] = [8, 8, 8]
    return scale


def isotropic_factors(resolution: Resolution) -> tuple[int, int, int]:
    """2 along the axes that are fine next to the others, 1 along the rest.

    Halving only those brings anisotropic voxels nearer to cubes; cubes are halved along all axes.
    """
    fine = [v < math.sqrt(2) * resolution.finest for v in resolution]
    return (1 + fine[0], 1 + fine[1], 1 + fine[2])


def _coarser(array: Array, grid: Grid, *, average: bool) -> tuple[Array, Grid]:
    """Next scale: voxel w covers absolute voxels [w * f, (w + 1) * f) of the one before."""
    factors = isotropic_factors(grid.resolution)
    box = grid.box(array)
    lo = [v // f for v, f in zip(box.lo, factors, strict=True)]
    hi = [-(-v // f) for v, f in zip(box.hi, factors, strict=True)]
    pad = [
        (a - w * f, v * f - b)
        for a, b, w, v, f in zip(box.lo, box.hi, lo, hi, factors, strict=True)
    ]
    whole = np.pad(array, pad, mode="edge") if np.any(pad) else array
    coarse_grid = Grid(
        Resolution(*(v * f for v, f in zip(grid.resolution, factors, strict=True))),
        PointVoxel(*lo),
    )
    if average:
        coarse: Array = np.rint(block_mean(whole, factors)).astype(np.uint8)
    else:
        coarse = whole[:: factors[0], :: factors[1], :: factors[2]]
    return coarse, coarse_grid


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
