"""Decisions with a known answer, made from a segmentation and its truth.

Joins are the touching pairs of an automatic segmentation, answered by the truth. Real false merges
are too few to learn from (17 in FIB-25's two segmentations), so cuts are synthetic: two touching
neighbours of different truth are declared one segment, and necks inside one true body are the
counterexamples. Every figure made from them must say so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.errors import AssistError
from cb2_assist.core.geometry import BoxVx, PointNm, PointVoxel, Resolution
from cb2_assist.core.records import Kind, SegmentId, Site
from cb2_assist.datasets.source import Cutout
from cb2_assist.learning.pair_types import MERGED, WHOLE, Synapses, pair_types
from cb2_assist.views.partition import necks
from cb2_assist.views.site import SiteWindow, build_window, window_box

MIN_FACES = 10
MIN_VOXELS = 100
_NECK_REACH_NM = 150.0
"""A synthetic merge counts as one neck when a neck lies this near the contact."""
_SIDE_NM = 300.0
"""The two sides of a cut are compared with the truth within this distance of the point."""


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume with truth, x, y, z, Fortran order; ``box`` starts where the part was cut out."""

    name: str
    box: BoxVx
    resolution: Resolution
    em: NDArray[np.uint8]
    seg: NDArray[np.uint64]
    truth: NDArray[np.uint64]

    def below_z(self, plane: int) -> Volume:
        """The part with absolute z < ``plane``: nothing beyond it can be read any more."""
        hi = PointVoxel(self.box.hi.x, self.box.hi.y, min(self.box.hi.z, plane))
        n = max(0, hi.z - self.box.lo.z)
        return Volume(
            self.name,
            BoxVx(self.box.lo, hi),
            self.resolution,
            self.em[:, :, :n],
            self.seg[:, :, :n],
            self.truth[:, :, :n],
        )

    @property
    def cutout(self) -> Cutout:
        """EM and segments without the truth."""
        return Cutout(self.box, self.resolution, self.em, self.seg)


@dataclass(frozen=True, slots=True)
class PairTable:
    """Touching pairs of segments; all arrays have one row a pair, sorted by ids.

    Attributes:
        a, b: Segment ids, a < b.
        faces: Contact area in voxel faces.
        centroid_vx: Contact centroid, absolute voxels, shape (n, 3).
        point_nm: Face centre nearest the centroid, shape (n, 3).
        voxels_a, voxels_b: Sizes in the volume.
        truth_a, truth_b: Majority truth body.
        purity_a, purity_b: Share of the majority body.
    """

    a: NDArray[np.uint64]
    b: NDArray[np.uint64]
    faces: NDArray[np.int64]
    centroid_vx: NDArray[np.float64]
    point_nm: NDArray[np.float64]
    voxels_a: NDArray[np.int64]
    voxels_b: NDArray[np.int64]
    truth_a: NDArray[np.uint64]
    truth_b: NDArray[np.uint64]
    purity_a: NDArray[np.float64]
    purity_b: NDArray[np.float64]

    @property
    def same(self) -> NDArray[np.bool_]:
        """Whether both segments belong to one truth body."""
        return np.equal(self.truth_a, self.truth_b)

    def pure(self, least: float = 0.9) -> NDArray[np.bool_]:
        """Pairs whose answer is beyond doubt: both segments have a true, dominant body.

        Purity is rounded to 3 decimals first, as in the published pair tables.
        """
        known = (self.truth_a > 0) & (self.truth_b > 0)
        return known & (np.round(self.purity_a, 3) >= least) & (np.round(self.purity_b, 3) >= least)

    @property
    def contact_z(self) -> NDArray[np.int64]:
        """Voxel index of the contact's centroid along z, the axis that the splits use."""
        return np.rint(self.centroid_vx[:, 2] - 0.5).astype(np.int64)

    def take(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> PairTable:
        """A table of some rows."""
        return PairTable(*(getattr(self, k)[rows] for k in self.__slots__))

    def __len__(self) -> int:
        return len(self.a)


def _majority(
    index: NDArray[np.int64], truth: NDArray[np.uint64], n: int
) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.float64]]:
    """Voxels, majority truth body and its share for each segment index 0..n-1."""
    bodies, body = np.unique(truth, return_inverse=True)
    m = len(bodies)
    pair, count = np.unique(index * m + body.ravel(), return_counts=True)
    seg_of, body_of = pair // m, pair % m
    size = np.bincount(index, minlength=n)
    order = np.lexsort((body_of, -count, seg_of))
    first = np.unique(seg_of[order], return_index=True)[1]
    best = np.zeros(n, np.int64)
    top = np.zeros(n, np.int64)
    best[seg_of[order][first]] = body_of[order][first]
    top[seg_of[order][first]] = count[order][first]
    return size, bodies[best], top / np.maximum(size, 1)


def pure_bodies(volume: Volume, least: float = 0.9) -> dict[int, int]:
    """Truth body of each segment that mostly lies in one, by segment id."""
    ids, inverse = np.unique(volume.seg, return_inverse=True)
    _, body, purity = _majority(inverse.ravel().astype(np.int64), volume.truth.ravel(), len(ids))
    clear = (ids > 0) & (body > 0) & (np.round(purity, 3) >= least)
    return dict(zip(ids[clear].tolist(), body[clear].tolist(), strict=True))


def touching_pairs(volume: Volume) -> PairTable:
    """Every pair of segments with at least `MIN_FACES` common faces and `MIN_VOXELS` each."""
    ids, inverse = np.unique(volume.seg, return_inverse=True)
    index = inverse.reshape(volume.seg.shape).astype(np.int64)
    n = len(ids)
    size, body, purity = _majority(index.ravel(), volume.truth.ravel(), n)
    keys, places = [], []
    for axis in range(3):
        a = np.moveaxis(index, axis, 0)[:-1]
        b = np.moveaxis(index, axis, 0)[1:]
        m = (a != b) & (ids[a] > 0) & (ids[b] > 0)
        at = np.argwhere(m).astype(np.float64) + 0.5
        at[:, 0] += 0.5
        order = [axis, *(k for k in range(3) if k != axis)]
        xyz = np.empty_like(at)
        xyz[:, order] = at
        keys.append(np.minimum(a[m], b[m]) * n + np.maximum(a[m], b[m]))
        places.append(xyz)
    key, place = np.concatenate(keys), np.concatenate(places)
    pair, inv, faces = np.unique(key, return_inverse=True, return_counts=True)
    centroid = np.stack([np.bincount(inv, place[:, k]) / faces for k in range(3)], 1)
    far = ((place - centroid[inv]) ** 2).sum(1)
    nearest = np.lexsort((np.arange(len(far)), far, inv))
    medoid = place[nearest[np.unique(inv[nearest], return_index=True)[1]]]
    a, b = pair // n, pair % n
    lo, res = np.array(tuple(volume.box.lo)), np.array(tuple(volume.resolution))
    table = PairTable(
        ids[a],
        ids[b],
        faces,
        centroid + lo,
        (medoid + lo) * res,
        size[a],
        size[b],
        body[a],
        body[b],
        purity[a],
        purity[b],
    )
    return table.take((faces >= MIN_FACES) & (size[a] >= MIN_VOXELS) & (size[b] >= MIN_VOXELS))


@dataclass(frozen=True, slots=True)
class Example:
    """One decision with its answer, ready to be rendered."""

    window: SiteWindow
    answer: bool
    group: int
    """Truth body of the smaller side: intervals resample by it."""
    row: int
    """Row of the pair table for joins; -1 for cuts."""
    sample_type: str
    """See `pair_types`."""


def join_examples(
    volume: Volume,
    table: PairTable,
    half_width_nm: float,
    synapses: Synapses | None = None,
) -> Iterator[Example]:
    """One join a row of the table, in order, with the type of its contact."""
    cutout = volume.cutout
    types = pair_types(
        volume.seg,
        volume.box.lo,
        volume.resolution,
        (table.a, table.b),
        table.point_nm,
        synapses,
    )
    for i in range(len(table)):
        site = Site(
            Kind.JOIN,
            SegmentId(int(table.a[i])),
            SegmentId(int(table.b[i])),
            PointNm.of(table.point_nm[i]),
        )
        small_a = table.voxels_a[i] <= table.voxels_b[i]
        yield Example(
            build_window(cutout, site, half_width_nm, volume.box),
            bool(table.truth_a[i] == table.truth_b[i]),
            int(table.truth_a[i] if small_a else table.truth_b[i]),
            i,
            str(types[i]),
        )


def cut_examples(
    volume: Volume,
    table: PairTable,
    half_width_nm: float,
    *,
    rng: np.random.Generator,
    merges: int,
    necks_per_segment: int = 3,
) -> Iterator[Example]:
    """Synthetic cuts: merged neighbours, and necks within true bodies.

    Args:
        volume: Segments and truth.
        table: Touching pairs of ``volume``.
        half_width_nm: Half width of a site window.
        rng: Draws the pairs.
        merges: Neighbouring pairs of different truth that are declared one segment.
        necks_per_segment: Most necks taken from one window.

    Yields:
        Positives (a neck at the contact of a merged pair, its sides in different bodies) and
        negatives (other necks of the same windows, and of unmerged segments) as they come.
    """
    wrong = np.flatnonzero(table.pure() & ~table.same)
    for i in rng.permutation(wrong)[:merges]:
        a, b = table.a[i], table.b[i]
        at = PointNm.of(table.point_nm[i])
        part = crop_round(volume, at, half_width_nm * 2)
        seg = part.seg.copy(order="F")
        seg[seg == b] = a
        merged = Volume(part.name, part.box, part.resolution, part.em, seg, part.truth)
        sites = _neck_sites(merged, int(a), at, half_width_nm, necks_per_segment)
        yield from _answered(merged, sites, half_width_nm, volume.box, MERGED)
    right = np.flatnonzero(table.pure())
    for i in rng.permutation(right)[: merges // 2]:
        at = PointNm.of(table.point_nm[i])
        part = crop_round(volume, at, half_width_nm * 2)
        sites = _neck_sites(part, int(table.a[i]), at, half_width_nm, necks_per_segment)
        yield from _answered(part, sites, half_width_nm, volume.box, WHOLE)


def crop_round(volume: Volume, at: PointNm, half_width_nm: float) -> Volume:
    """The part within a site window's box."""
    box = window_box(at, half_width_nm, volume.resolution, volume.box)
    s = tuple(slice(i - o, j - o) for i, j, o in zip(box.lo, box.hi, volume.box.lo, strict=True))
    return Volume(volume.name, box, volume.resolution, volume.em[s], volume.seg[s], volume.truth[s])


def _neck_sites(
    part: Volume, segment: int, near: PointNm, half_width_nm: float, most: int
) -> list[Site]:
    """Necks of a segment around a point: the nearest one first, then the narrowest."""
    box = window_box(near, half_width_nm, part.resolution, part.box)
    window = part.cutout.crop(box)
    mask = window.seg == np.uint64(segment)
    res = np.array(tuple(part.resolution))
    lo = np.array(tuple(box.lo))
    found = [
        (PointNm.of((np.array(n.point_vx) + lo) * res), n.ratio)
        for n in necks(mask, part.resolution)
    ]
    if not found:
        return []
    found.sort(key=lambda f: f[0].distance_nm(near))
    head = found[:1] if found[0][0].distance_nm(near) <= _NECK_REACH_NM else []
    rest = sorted(found[len(head) :], key=lambda f: f[1])
    return [
        Site(Kind.CUT, SegmentId(segment), None, p) for p, _ in (*head, *rest[: most - len(head)])
    ]


def _answered(
    part: Volume, sites: list[Site], half_width_nm: float, bounds: BoxVx, sample_type: str
) -> Iterator[Example]:
    for site in sites:
        box = window_box(site.point, half_width_nm, part.resolution, bounds)
        if not part.box.covers(box):
            continue
        try:
            window = build_window(part.cutout, site, half_width_nm, bounds)
        except AssistError:
            continue
        answer = cut_answer(window, crop_round(part, site.point, half_width_nm).truth)
        if answer is not None:
            yield Example(window, answer[0], answer[1], -1, sample_type)


def cut_answer(
    window: SiteWindow, truth: NDArray[np.uint64], least: float = 0.75
) -> tuple[bool, int] | None:
    """Whether the two sides near the point are different bodies; None when it is unclear.

    Args:
        window: The site with its two sides.
        truth: The truth in the window, same shape.
        least: Share that the majority body must have on each side.

    Returns:
        The answer and the truth body of the smaller side.
    """
    res = np.array(tuple(window.resolution))
    at = np.array(window.point_vx)
    reach = np.ceil(_SIDE_NM / res).astype(int)
    lo = np.maximum(np.floor(at).astype(int) - reach, 0)
    hi = np.minimum(np.floor(at).astype(int) + reach + 1, truth.shape)
    s = tuple(slice(i, j) for i, j in zip(lo, hi, strict=True))
    label, body = window.label[s], truth[s]
    majority, sizes = [], []
    for side in (1, 2):
        values, counts = np.unique(body[(label == side) & (body > 0)], return_counts=True)
        total = int((label == side).sum())
        if not len(values) or counts.max() < least * total or total < MIN_VOXELS:
            return None
        majority.append(int(values[counts.argmax()]))
        sizes.append(total)
    smaller = majority[0] if sizes[0] <= sizes[1] else majority[1]
    return majority[0] != majority[1], smaller
