"""Solids for tests, drawn on a voxel grid; lengths in nm."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.geometry import BoxVx, PointVoxel, Resolution
from cb2_assist.datasets.source import Cutout

Point = tuple[float, float, float]


class Grid:
    """A box of voxels on which solids are drawn, corner at 0 nm."""

    def __init__(self, shape: tuple[int, int, int], resolution: Resolution) -> None:
        self.x, self.y, self.z = np.ogrid[: shape[0], : shape[1], : shape[2]]
        self.x, self.y, self.z = (
            ((v + 0.5) * r).astype(np.float32)
            for v, r in zip((self.x, self.y, self.z), resolution, strict=True)
        )

    def ball(self, centre: Point, radius: float) -> NDArray[np.bool_]:
        x, y, z = self.x - centre[0], self.y - centre[1], self.z - centre[2]
        return np.asfortranarray(x * x + y * y + z * z <= radius**2)

    def tube(self, start: Point, end: Point, radius: float) -> NDArray[np.bool_]:
        x, y, z = self.x - start[0], self.y - start[1], self.z - start[2]
        a, b, c = (q - p for p, q in zip(start, end, strict=True))
        along = np.clip((x * a + y * b + z * c) / (a * a + b * b + c * c), 0, 1)
        away = (x - along * a) ** 2 + (y - along * b) ** 2 + (z - along * c) ** 2
        return np.asfortranarray(away <= radius**2)

    def ring(self, centre: Point, ring_radius: float, radius: float) -> NDArray[np.bool_]:
        x, y, z = self.x - centre[0], self.y - centre[1], self.z - centre[2]
        return np.asfortranarray((np.hypot(x, y) - ring_radius) ** 2 + z * z <= radius**2)


def cutout_of(
    seg: NDArray[np.uint64], resolution: Resolution, lo: tuple[int, int, int] = (0, 0, 0)
) -> Cutout:
    """A cutout without EM, its corner at voxel ``lo``."""
    hi = PointVoxel(*(o + n for o, n in zip(lo, seg.shape, strict=True)))
    return Cutout(
        BoxVx(PointVoxel(*lo), hi), resolution, np.zeros(seg.shape, np.uint8, order="F"), seg
    )
