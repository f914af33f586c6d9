"""Volumes that are read box by box, axes x, y, z, and the boxes in which that is done."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.geometry import BoxVx, PointVoxel

Array = NDArray[Any]
Shape = tuple[int, int, int]

CHUNK_VX = 64
"""Edge of a stored chunk; boxes start at multiples of it."""

BLOCK_VX = 2**24
"""Most voxels that are in memory as one array, 128 MiB of ids; a few such arrays exist at once."""


class Voxels(Protocol):
    """A volume of which any box can be read; indices start at 0, whatever its place."""

    @property
    def shape(self) -> Shape:
        """Voxels along x, y, z."""

    @property
    def layout(self) -> Layout:
        """How it is best read."""

    def read(self, box: BoxVx) -> Array:
        """Values of the box, axes x, y, z, Fortran order where that costs nothing."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a volume lies on disk.

    Attributes:
        unit: Voxels along x, y, z that are best read together, multiples of `CHUNK_VX`.
        slowest_first: Axes 0, 1, 2 from the one whose neighbours lie farthest apart.
    """

    unit: Shape = (CHUNK_VX,) * 3
    slowest_first: Shape = (2, 1, 0)


class MemoryVoxels:
    """An array that is in memory as a whole, axes x, y, z."""

    layout = Layout()

    def __init__(self, array: Array) -> None:
        self._array = array
        self.shape: Shape = (array.shape[0], array.shape[1], array.shape[2])

    def read(self, box: BoxVx) -> Array:
        """The part as a view."""
        return self._array[slices(box)]


def slices(box: BoxVx) -> tuple[slice, slice, slice]:
    """Indices of a box that starts at or after 0."""
    (x0, y0, z0), (x1, y1, z1) = box.lo, box.hi
    return slice(x0, x1), slice(y0, y1), slice(z0, z1)


def whole(shape: Shape) -> BoxVx:
    """The box of a volume."""
    return BoxVx(PointVoxel(0, 0, 0), PointVoxel(*shape))


def blocks(shape: Shape, layout: Layout, most_vx: int = BLOCK_VX) -> list[BoxVx]:
    """Boxes that cover a volume once, each a whole number of chunks but at the far ends.

    Args:
        shape: Voxels along x, y, z.
        layout: How the volume is best read; the slowest axis advances last.
        most_vx: Voxels of a box at most, but never less than a unit.
    """
    if math.prod(shape) <= most_vx:
        return [whole(shape)]
    padded = [-(-n // CHUNK_VX) * CHUNK_VX for n in shape]
    edge = [min(u, p) for u, p in zip(layout.unit, padded, strict=True)]
    for axis in reversed(layout.slowest_first):
        times = max(1, most_vx // math.prod(edge))
        edge[axis] = min(padded[axis], edge[axis] * times)
    return list(_tiles(shape, (edge[0], edge[1], edge[2]), layout.slowest_first))


def _tiles(shape: Shape, edge: Shape, order: Shape) -> Iterator[BoxVx]:
    starts = [range(0, shape[a], edge[a]) for a in order]
    for place in itertools.product(*starts):
        lo = [0, 0, 0]
        for axis, start in zip(order, place, strict=True):
            lo[axis] = start
        hi = [min(a + e, n) for a, e, n in zip(lo, edge, shape, strict=True)]
        yield BoxVx(PointVoxel(*lo), PointVoxel(*hi))


def as_voxels(volume: Voxels | Array) -> Voxels:
    """An array in memory as a volume; a volume as it is."""
    return MemoryVoxels(volume) if isinstance(volume, np.ndarray) else volume


def cubes(shape: Shape, most_vx: int = BLOCK_VX) -> list[BoxVx]:
    """Boxes as near to cubes as chunks allow: the least surface between them.

    Where there are several, they have half of the voxels: each is read with a margin.
    """
    if math.prod(shape) <= most_vx:
        return [whole(shape)]
    most_vx //= 2
    edge = [CHUNK_VX] * 3
    while True:
        grow = sorted((a for a in range(3) if edge[a] < shape[a]), key=lambda a: edge[a])
        fits = [a for a in grow if math.prod(edge) // edge[a] * (edge[a] + CHUNK_VX) <= most_vx]
        if not fits:
            return list(_tiles(shape, (edge[0], edge[1], edge[2]), (2, 1, 0)))
        edge[fits[0]] += CHUNK_VX
