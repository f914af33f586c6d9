"""Small volumes with known contents, and datasets made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cb2_assist.datasets.importer import grid_of
from cb2_assist.datasets.writer import Description, Volume, write_dataset

BIG = 2**60
"""Ids of the made segments start above it."""


def blocks(shape: tuple[int, int, int], edge: int = 20) -> NDArray[np.uint64]:
    """Segments that are boxes of `edge` voxels with ids from BIG + 1, with background between."""
    index = np.indices(shape)
    cells = [-(-n // edge) for n in shape]
    x, y, z = (i // edge for i in index)
    ids = BIG + 1 + (x + cells[0] * (y + cells[1] * z)).astype(np.uint64)
    wall = np.logical_or.reduce([i % edge == 0 for i in index])
    return np.asfortranarray(np.where(wall, np.uint64(0), ids))


def grey(shape: tuple[int, int, int], seed: int = 0) -> NDArray[np.uint8]:
    """EM of noise around 120."""
    rng = np.random.default_rng(seed)
    values = rng.normal(120, 30, shape).clip(1, 255)
    return np.asfortranarray(values.astype(np.uint8))


def make_volume(
    shape: tuple[int, int, int] = (70, 50, 90),
    voxel_nm: tuple[float, float, float] = (10.0, 10.0, 10.0),
    offset_nm: tuple[float, float, float] = (0.0, 0.0, 0.0),
    truth: bool = False,
) -> Volume:
    """Noise and boxes; the truth has boxes of twice the edge."""
    return Volume(
        grid_of(voxel_nm, offset_nm),
        grey(shape),
        blocks(shape),
        blocks(shape, 40) if truth else None,
    )


def make_dataset(out: Path, volume: Volume, name: str = "made") -> Path:
    """dataset.toml of the volume."""
    about = Description(name, "mouse", "CC0 1.0", "nobody")
    return write_dataset(out, volume, about, mesh_min_voxels=100)
