"""A small volume with something to join and something to cut, and its truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from dataset_makers import BIG

from cb2_assist.datasets.importer import grid_of
from cb2_assist.datasets.writer import Description, Volume, write_dataset

SHAPE = (96, 72, 112)
DUMBBELL, PARTNER, LONE = BIG + 1, BIG + 2, BIG + 3
"""Two balls on a thin bridge; the tube that its bridge runs into; a cube that touches nothing."""


def neurites() -> Volume:
    """10 nm voxels: PARTNER goes on where DUMBBELL ends; membranes are dark where bodies meet."""
    x, y, z = np.indices(SHAPE, np.float32)
    seg = np.zeros(SHAPE, np.uint64, order="F")
    truth = np.zeros(SHAPE, np.uint64, order="F")
    ball = lambda cx, cy, cz, r: (x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 < r * r  # noqa: E731
    tube = (x - 48) ** 2 + (y - 36) ** 2
    lower, upper = ball(48, 36, 22, 16), ball(48, 36, 62, 16)
    bridge = (tube < 25) & (z >= 22) & (z < 62)
    beyond = (tube < 100) & (z >= 76)
    seg[lower | upper | bridge] = DUMBBELL
    seg[beyond & (seg == 0)] = PARTNER
    seg[4:24, 4:24, 4:24] = LONE
    truth[lower | (bridge & (z < 42))] = 11
    truth[(upper | (bridge & (z >= 42)) | beyond) & (truth == 0)] = 12
    truth[4:24, 4:24, 4:24] = 13
    em = np.random.default_rng(0).normal(150, 12, SHAPE)
    em[seg == 0] = 60
    em[(truth == 12) & (z >= 41) & (z < 44)] = 60
    return Volume(
        grid_of((10.0, 10.0, 10.0), (0.0, 0.0, 0.0)),
        np.asfortranarray(em.clip(1, 255).astype(np.uint8)),
        seg,
        truth,
    )


def neurite_dataset(out: Path, name: str = "neurites") -> Path:
    """dataset.toml of the volume."""
    return write_dataset(
        out, neurites(), Description(name, "fly", "CC0 1.0", "nobody"), mesh_min_voxels=100
    )
