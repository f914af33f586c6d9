"""Small volumes with truth for the tests of the simulation."""

from __future__ import annotations

import numpy as np

from cb2_assist.core.geometry import BoxVx, PointVoxel, Resolution
from cb2_assist.learning.examples import Volume
from cb2_assist.learning.ground import Ground, boil_down


def rods(seed: int = 0) -> Volume:
    """Nine rods along z, each cut into pieces of uneven length, side by side without a gap.

    One piece reaches over two rods: a false merge.
    """
    rng = np.random.default_rng(seed)
    edge, length = 8, 60
    x, y, z = np.indices((3 * edge, 3 * edge, length))
    rod = x // edge + 3 * (y // edge)
    piece = np.zeros(rod.shape, int)
    for r in range(9):
        cuts = np.sort(rng.choice(np.arange(6, length - 6), 5, replace=False))
        piece = np.where(rod == r, np.searchsorted(cuts, z, side="right"), piece)
    seg = 1 + piece + 10 * rod
    seg[seg == 11] = 1
    em = rng.integers(90, 160, seg.shape).astype(np.uint8)
    box = BoxVx(PointVoxel(0, 0, 0), PointVoxel(*seg.shape))
    return Volume(
        "rods",
        box,
        Resolution(40, 40, 40),
        np.asfortranarray(em),
        np.asfortranarray(seg.astype(np.uint64)),
        np.asfortranarray((101 + rod).astype(np.uint64)),
    )


def rod_ground(seed: int = 0) -> Ground:
    """Nine rods, boiled down."""
    return boil_down(rods(seed), (0, 60), lambda _text: None)
