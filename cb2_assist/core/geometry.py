"""Points and boxes that carry their unit. Axis order is x, y, z throughout.

Voxel ``v`` at resolution ``r`` covers ``[v * r, (v + 1) * r)`` nm and its point is the centre,
``(v + 0.5) * r``. Voxel indices are absolute: a dataset's voxel offset is part of the index.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cb2_assist.core.errors import BadPointError


@dataclass(frozen=True, slots=True)
class Resolution:
    """Size of one voxel in nm along x, y, z."""

    x: float
    y: float
    z: float

    def __post_init__(self) -> None:
        if not all(math.isfinite(v) and v > 0 for v in self):
            raise BadPointError(
                f"A voxel size must be three positive numbers of nm, got {tuple(self)}."
            )

    def __iter__(self) -> Iterator[float]:
        return iter((self.x, self.y, self.z))

    @property
    def finest(self) -> float:
        """Smallest edge in nm."""
        return min(self.x, self.y, self.z)


@dataclass(frozen=True, slots=True)
class PointNm:
    """A place in the tissue, in nm."""

    x: float
    y: float
    z: float

    def __post_init__(self) -> None:
        if not all(math.isfinite(v) for v in (self.x, self.y, self.z)):
            raise BadPointError(
                f"A point must be three finite numbers, got {(self.x, self.y, self.z)}."
            )

    def __iter__(self) -> Iterator[float]:
        return iter((self.x, self.y, self.z))

    @classmethod
    def of(cls, values: Iterable[float]) -> PointNm:
        """Build from any three numbers.

        Raises:
            BadPointError: There are not exactly three finite numbers.
        """
        got = list(values)
        try:
            x, y, z = (float(v) for v in got)
        except (TypeError, ValueError, OverflowError):
            raise BadPointError(
                f"A point must be three numbers x, y, z in nm, got {got!r}."
            ) from None
        return cls(x, y, z)

    def to_voxel(self, resolution: Resolution) -> PointVoxel:
        """The voxel that holds this point."""
        return PointVoxel(
            math.floor(self.x / resolution.x),
            math.floor(self.y / resolution.y),
            math.floor(self.z / resolution.z),
        )

    def distance_nm(self, other: PointNm) -> float:
        """Euclidean distance in nm."""
        return math.dist((self.x, self.y, self.z), (other.x, other.y, other.z))

    @property
    def words(self) -> str:
        """For a message."""
        return f"({self.x:.0f}, {self.y:.0f}, {self.z:.0f}) nm"

    def to_json(self) -> list[float]:
        """``[x, y, z]`` in nm."""
        return [self.x, self.y, self.z]


@dataclass(frozen=True, slots=True)
class PointVoxel:
    """A voxel index; the resolution it belongs to is the caller's to know."""

    x: int
    y: int
    z: int

    def __iter__(self) -> Iterator[int]:
        return iter((self.x, self.y, self.z))

    def to_nm(self, resolution: Resolution) -> PointNm:
        """Centre of this voxel."""
        return PointNm(
            (self.x + 0.5) * resolution.x,
            (self.y + 0.5) * resolution.y,
            (self.z + 0.5) * resolution.z,
        )


@dataclass(frozen=True, slots=True)
class BoxVx:
    """Half-open box of voxels ``[lo, hi)``."""

    lo: PointVoxel
    hi: PointVoxel

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along x, y, z; 0 where the box is empty."""
        return (
            max(0, self.hi.x - self.lo.x),
            max(0, self.hi.y - self.lo.y),
            max(0, self.hi.z - self.lo.z),
        )

    @property
    def is_empty(self) -> bool:
        """Whether no voxel lies inside."""
        return 0 in self.shape

    def contains(self, p: PointVoxel) -> bool:
        """Whether the voxel lies inside."""
        return (
            self.lo.x <= p.x < self.hi.x
            and self.lo.y <= p.y < self.hi.y
            and self.lo.z <= p.z < self.hi.z
        )

    def covers(self, other: BoxVx) -> bool:
        """Whether every voxel of ``other`` lies inside."""
        return all(a <= b for a, b in zip(self.lo, other.lo, strict=True)) and all(
            a >= b for a, b in zip(self.hi, other.hi, strict=True)
        )

    def clip(self, other: BoxVx) -> BoxVx:
        """Intersection; empty boxes keep ``hi == lo``."""
        lo = PointVoxel(*(max(a, b) for a, b in zip(self.lo, other.lo, strict=True)))
        hi = PointVoxel(
            *(max(lo_, min(a, b)) for lo_, a, b in zip(lo, self.hi, other.hi, strict=True))
        )
        return BoxVx(lo, hi)

    @classmethod
    def around(cls, point: PointNm, half_width_nm: float, resolution: Resolution) -> BoxVx:
        """Box of an odd number of voxels, centred on the voxel that holds ``point``."""
        c = point.to_voxel(resolution)
        r = [math.ceil(half_width_nm / s) for s in resolution]
        return cls(
            PointVoxel(*(v - k for v, k in zip(c, r, strict=True))),
            PointVoxel(*(v + k + 1 for v, k in zip(c, r, strict=True))),
        )
