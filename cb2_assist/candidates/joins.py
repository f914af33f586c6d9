"""Neighbours of a segment: where they touch it, and over which area."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cb2_assist.candidates import faces
from cb2_assist.core.geometry import BoxVx, PointNm, PointVoxel, Resolution
from cb2_assist.core.records import SegmentId
from cb2_assist.datasets.source import Cutout

GAP_NM = 60.0
"""Widest stretch of background looked through: flood-filling segmentations leave membranes out."""
APART_NM = 400.0
"""Patches of contact with one partner that are farther apart than this are separate questions."""
CUBE_NM = APART_NM / 4
"""Patches are told apart on cubes of this edge, four steps to `APART_NM`."""
BLOCK_NM = 500.0
"""Patches that reach farther than one can see are asked about block by block."""
PATCHES = 2
"""At most so many patches, the largest, with one partner."""


_FAR = 1 << 40
"""Voxels beyond the end of every dataset."""
CONTEXT_NM = 640.0
"""Margin of the cutout around the search sphere, so that most contacts and necks are whole."""


def cutout_half_width_nm(radius_nm: float) -> float:
    """Half width of the cutout around the cursor that candidates within a radius are found in."""
    return radius_nm + CONTEXT_NM


@dataclass(frozen=True, slots=True)
class Contact:
    """One patch of contact between two segments.

    Attributes:
        partner: The neighbour.
        point: Centre of the voxel face nearest the patch's centroid; where background lies between
            the two, the middle of that gap.
        area_nm2: Area of the touching voxel faces, those across a gap included.
        direct: Share of the area without a gap, 0..1.
        distance_nm: From the cursor to `point`.
    """

    partner: SegmentId
    point: PointNm
    area_nm2: float
    direct: float
    distance_nm: float


def contacts(
    cutout: Cutout,
    segment: SegmentId,
    at: PointNm,
    radius_nm: float,
    gap_nm: float = GAP_NM,
) -> list[Contact]:
    """Contacts of a segment that come within a radius of the cursor.

    A patch that the cutout holds whole has one point, its middle, whatever the cursor, the cutout
    and the segment of the two from which one looks. Of a patch that reaches the cutout's border,
    or whose middle lies outside the search sphere, the point is the middle of its largest piece in
    the blocks of `BLOCK_NM` that lie inside the cutout, on a grid that is fixed in the dataset;
    another cursor finds the same one unless a larger piece comes into reach. Only where no block
    has its middle within the sphere, the point is the middle of what lies in the sphere and moves
    with the cursor. The area is what the cutout shows.

    Args:
        cutout: `cutout_half_width_nm` around the cursor, clipped by nothing but the dataset.
        segment: The segment; it may be missing from the cutout.
        at: The cursor.
        radius_nm: Of the search sphere; all points lie inside.
        gap_nm: Widest background looked through, along an axis; at least one voxel.

    Returns:
        At most `PATCHES` per partner, largest area first.
    """
    resolution = np.array(list(cutout.resolution), np.float64)
    cursor = np.array(list(at), np.float64)
    reach = 1 + np.maximum(1, np.floor(gap_nm / resolution + 1e-6)).astype(np.int64)
    corner = np.array(list(cutout.box.lo), np.int64)
    seg = np.asfortranarray(cutout.seg)
    face, neighbour = faces.touching_faces(seg, np.uint64(segment), corner, reach)
    rows, ids = faces.number_ids(neighbour)
    near = faces.near_cursor(face, 0.5 * resolution, cursor, float(radius_nm))
    reached = np.zeros(len(ids), bool)
    reached[rows[near]] = True
    use = reached[rows]
    if not use.any():
        return []
    face, rows = face[use], rows[use]
    patch, owner = faces.patches(faces.cubes_of(face, 0.5 * resolution / CUBE_NM), rows)
    whole = _whole_between(cutout, at, radius_nm, reach)
    search = _Search(
        face=face,
        half_nm=0.5 * resolution,
        face_nm2=resolution.prod() / resolution,
        cursor_nm=cursor,
        radius_nm=radius_nm,
        whole_from=whole[0],
        whole_to=whole[1],
    )
    chosen, area, direct = search.patch_points(patch, len(owner))

    found: dict[int, list[Contact]] = {}
    for k in np.flatnonzero(chosen >= 0):
        point = PointNm.of(face[chosen[k], :3] * search.half_nm)
        partner = SegmentId(int(ids[owner[k]]))
        contact = Contact(partner, point, float(area[k]), float(direct[k]), at.distance_nm(point))
        found.setdefault(partner, []).append(contact)
    largest = [sorted(mine, key=_largest_first)[:PATCHES] for mine in found.values()]
    return sorted((c for mine in largest for c in mine), key=_largest_first)


def _whole_between(
    cutout: Cutout, at: PointNm, radius_nm: float, reach: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Doubled voxels, lowest and highest, between which the cutout misses no face of a contact.

    Where the cutout ends nearer to the cursor than it was asked to, the dataset ends.
    """
    asked = BoxVx.around(at, cutout_half_width_nm(radius_nm), cutout.resolution)
    lo, hi = np.array(list(cutout.box.lo)), np.array(list(cutout.box.hi))
    # rays that look through a gap are whole this far from the border
    low = np.where(lo > np.array(list(asked.lo)), -_FAR, lo + reach)
    high = np.where(hi < np.array(list(asked.hi)), _FAR, hi - reach)
    return 2 * np.stack([low, high])


def _largest_first(contact: Contact) -> tuple[float, ...]:
    return (-contact.area_nm2, *contact.point)


@dataclass(frozen=True, slots=True)
class _Search:
    """Faces and the sphere in which points are wanted."""

    face: NDArray[np.int32]
    half_nm: NDArray[np.float64]
    face_nm2: NDArray[np.float64]
    cursor_nm: NDArray[np.float64]
    radius_nm: float
    whole_from: NDArray[np.int64]
    """Doubled voxels between which no face is missing."""
    whole_to: NDArray[np.int64]

    def patch_points(
        self, patch: NDArray[np.int32], patches: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Face that stands for each patch (-1: none in the sphere), its area, its direct share."""
        number, direct, _ = faces.sum_patches(self.face, patch, patches)
        area = number @ self.face_nm2
        chosen = self._middles(self.face, patch, patches)
        loose = ~self._in_sphere(chosen)
        position = self.face[:, :3]
        cut = ((position <= self.whole_from) | (position >= self.whole_to)).any(axis=1)
        loose[patch[cut]] = True
        if loose.any():
            chosen[loose] = self._block_points(patch, loose)[loose]
            lost = loose & (chosen < 0)
            within: NDArray[np.int32] = patch.copy()
            within[~(lost[patch] & self._in_sphere(np.arange(len(patch))))] = -1
            chosen[lost] = self._middles(self.face, within, patches)[lost]
        return chosen, area, direct @ self.face_nm2 / area

    def _block_points(
        self, patch: NDArray[np.int32], loose: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """For each loose patch, the middle of its largest piece in a whole block, or -1."""
        best = np.full(len(loose), -1, np.int64)
        block = np.floor(self.face[:, :3] * (self.half_nm / BLOCK_NM)).astype(np.int64)
        step = BLOCK_NM / self.half_nm
        inside = (block * step >= self.whole_from) & ((block + 1) * step <= self.whole_to)
        rows = np.flatnonzero(inside.all(axis=1) & loose[patch])
        if not len(rows):
            return best
        block = block[rows] - block[rows].min(axis=0)
        span = block.max(axis=0) + 1
        key = ((patch[rows] * span[2] + block[:, 2]) * span[1] + block[:, 1]) * span[0]
        names, of_face = np.unique(key + block[:, 0], return_inverse=True)
        piece: NDArray[np.int32] = of_face.reshape(-1).astype(np.int32)
        faces_of = np.ascontiguousarray(self.face[rows])
        number, _, _ = faces.sum_patches(faces_of, piece, len(names))
        middle = rows[self._middles(faces_of, piece, len(names))]
        area = np.where(self._in_sphere(middle), number @ self.face_nm2, 0.0)
        for k in np.argsort(area, kind="stable"):
            if area[k] > 0:
                best[patch[middle[k]]] = middle[k]
        return best

    def _middles(
        self, face: NDArray[np.int32], patch: NDArray[np.int32], patches: int
    ) -> NDArray[np.int64]:
        """The face nearest the area-weighted centroid of each patch; -1 for an empty one."""
        number, _, position = faces.sum_patches(face, patch, patches)
        area = np.maximum(number @ self.face_nm2, self.face_nm2.min())
        middle = np.einsum("a,kac->kc", self.face_nm2, position) / area[:, None] * self.half_nm
        return faces.nearest_faces(face, patch, middle, self.half_nm)

    def _in_sphere(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether faces lie within the radius of the cursor; false for row -1."""
        away = np.linalg.norm(self.face[rows, :3] * self.half_nm - self.cursor_nm, axis=1)
        inside: NDArray[np.bool_] = (away <= self.radius_nm) & (rows >= 0)
        return inside


def warm_up() -> None:
    """Compile the loops, so that the first question does not wait for it."""
    seg = np.zeros((4, 3, 3), np.uint64, order="F")
    seg[:2], seg[2:] = 1, 2
    box = BoxVx(PointVoxel(0, 0, 0), PointVoxel(4, 3, 3))
    cutout = Cutout(box, Resolution(10.0, 10.0, 10.0), seg.astype(np.uint8), seg)
    contacts(cutout, SegmentId(1), PointNm(20.0, 15.0, 15.0), 100.0)
