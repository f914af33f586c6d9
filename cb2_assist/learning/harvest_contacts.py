"""Which objects touch an edited one in the state before the edit, and where."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.geometry import PointNm
from cb2_assist.datasets.source import Cutout

Ids = NDArray[np.uint64]

LEAST_FACES = 10
"""Voxel faces of a contact below which a neighbour does not count as touching."""


@dataclass(frozen=True, slots=True)
class Seam:
    """A voxel face between two objects."""

    point: PointNm
    own_part: int
    other_part: int


@dataclass(frozen=True, slots=True, eq=False)
class Contacts:
    """Voxel faces between some objects and others, one a row; points in nm, (n, 3)."""

    own: Ids
    other: Ids
    own_part: Ids
    other_part: Ids
    point: NDArray[np.float64]

    def of(self, own: int, other: int) -> Contacts:
        """Those between two objects, in this order."""
        rows = (self.own == np.uint64(own)) & (self.other == np.uint64(other))
        return Contacts(
            self.own[rows],
            self.other[rows],
            self.own_part[rows],
            self.other_part[rows],
            self.point[rows],
        )

    def nearest(self, to: PointNm) -> Seam | None:
        """The face nearest to a point; None without faces."""
        if not len(self.own):
            return None
        k = int(((self.point - np.array(tuple(to))) ** 2).sum(1).argmin())
        return Seam(PointNm.of(self.point[k]), int(self.own_part[k]), int(self.other_part[k]))


def contacts_of(cut: Cutout, owners: Ids, bases: set[int]) -> Contacts:
    """Faces between the given objects and any other, background left out."""
    wanted = np.array(sorted(bases), np.uint64)
    is_base = np.isin(owners, wanted)
    size, lo = np.array(tuple(cut.resolution)), np.array(tuple(cut.box.lo))
    found: list[tuple[Ids, Ids, Ids, Ids, NDArray[np.float64]]] = []
    for axis in range(3):
        n = owners.shape[axis]
        for here, there in ((slice(0, n - 1), slice(1, n)), (slice(1, n), slice(0, n - 1))):
            a = tuple(here if k == axis else slice(None) for k in range(3))
            b = tuple(there if k == axis else slice(None) for k in range(3))
            touch = is_base[a] & (owners[a] != owners[b]) & (owners[b] != 0)
            voxels = np.argwhere(touch).astype(np.float64) + 0.5
            # the face lies on the later voxel's lower side
            voxels[:, axis] += 0.5
            place = (voxels + lo) * size
            found.append(
                (owners[a][touch], owners[b][touch], cut.seg[a][touch], cut.seg[b][touch], place)
            )
    return Contacts(*(np.concatenate(column) for column in zip(*found, strict=True)))


def neighbours(
    contacts: Contacts, taken: set[int], middle: PointNm, number: int, most: int
) -> Iterator[tuple[int, int, Seam]]:
    """Objects that touch one of the edited ones: each with the one that it touches, and where.

    At most so many, in an order that depends on nothing but their ids and the edit.
    """
    ids, faces = np.unique(contacts.other, return_counts=True)
    others = [o for o in ids[faces >= LEAST_FACES].tolist() if o not in taken]
    others.sort(key=lambda o: hashlib.sha256(f"{number}:{o}".encode()).digest())
    for other in others[:most]:
        bases = np.unique(contacts.own[contacts.other == np.uint64(other)]).tolist()
        seams = [(base, contacts.of(base, other).nearest(middle)) for base in bases]
        own, seam = min(
            ((b, s) for b, s in seams if s is not None),
            key=lambda found: found[1].point.distance_nm(middle),
        )
        yield own, other, seam
