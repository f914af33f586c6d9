"""A lattice of balls on thin bridges: joins and cuts of both answers at every depth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from dataset_makers import BIG

from cb2_assist.core.geometry import BoxVx, PointVoxel, Resolution
from cb2_assist.datasets.importer import grid_of
from cb2_assist.datasets.writer import Description, Volume, write_dataset
from cb2_assist.learning import examples

PITCH = 20
COUNT = (3, 2, 6)
PLANE = 60
"""Training lies below; validation above, up to `TOP`."""
TOP = 120


def beads() -> Volume:
    """Each ball with its half-bridges is a segment; the truth strings balls together in pairs."""
    shape = tuple(n * PITCH for n in COUNT)
    index = np.indices(shape)
    cell = [i // PITCH for i in index]
    off = [i % PITCH - (PITCH - 1) / 2 for i in index]
    inside = sum(o**2 for o in off) < 9**2
    for axis in range(3):
        inside |= sum(o**2 for k, o in enumerate(off) if k != axis) < 4**2
    number = cell[0] + COUNT[0] * (cell[1] + COUNT[1] * cell[2])
    pair = cell[0] // 2 + 2 * (cell[1] + COUNT[1] * cell[2])
    em = np.random.default_rng(0).normal(150, 15, shape)
    em[~inside] = 60
    em[(index[0] % (2 * PITCH) == 0) & (index[0] > 0)] = 50
    return Volume(
        grid_of((10.0, 10.0, 10.0), (0.0, 0.0, 0.0)),
        np.asfortranarray(em.clip(1, 255).astype(np.uint8)),
        np.asfortranarray(np.where(inside, BIG + 1 + number, 0).astype(np.uint64)),
        np.asfortranarray(np.where(inside, 1 + pair, 0).astype(np.uint64)),
    )


def bead_volume() -> examples.Volume:
    """The same in memory, as training reads it."""
    v = beads()
    box = BoxVx(PointVoxel(0, 0, 0), PointVoxel(*v.em.shape))
    assert v.truth is not None
    return examples.Volume("beads", box, Resolution(10, 10, 10), v.em, v.seg, v.truth)


def bead_dataset(out: Path) -> Path:
    """dataset.toml with truth."""
    return write_dataset(
        out, beads(), Description("beads", "fly", "CC0 1.0", "nobody"), mesh_min_voxels=100
    )
