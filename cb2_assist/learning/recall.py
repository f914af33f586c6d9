"""How many of the true joins and cuts near a cursor are among the candidates.

The truth is read as by `datasets.errors_count`: pieces of a body are overlaps of at least 1,000
voxels. A true join is a pair of pure pieces of one body that touch, or across a gap of up to 500 nm
the nearest way from one piece to the rest of its body. Counted apart is a gap in which a fragment
of the same body lies that is no pure piece: there the true joins lead over the fragment. A true cut
is a segment that holds large pieces of two bodies, where those meet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from cb2_assist.candidates.facing import REACH_NM
from cb2_assist.candidates.finder import LIMIT, RADIUS_NM, cutout_half_width_nm, find
from cb2_assist.candidates.joins import GAP_NM, contacts
from cb2_assist.core.errors import AssistError
from cb2_assist.core.geometry import BoxVx, PointNm, PointVoxel
from cb2_assist.core.records import Candidate, Kind, SegmentId
from cb2_assist.datasets.errors_count import MERGE_SHARE, PIECE_VX
from cb2_assist.learning.examples import Volume, cut_answer
from cb2_assist.views.site import build_window, window_box

PURITY = 0.9
"""Share of its majority body from which a segment is a pure piece."""
CURSORS = 2
"""Cursors on each side of a true join, and five times as many at a true cut."""
JOIN_SORTS = ("touching", "across a gap", "past a fragment")
_WINDOW_NM = 640.0
_PLACES = 64
"""Places kept of each pair: enough to tell whether any lies near a cursor."""


@dataclass(frozen=True, slots=True)
class TruePair:
    """Two segments that belong together, or two bodies within one segment."""

    body: int
    segments: tuple[int, int]
    """Equal for a cut."""
    gap_nm: float
    """Shortest way between the two; 0 for a cut."""
    places_nm: NDArray[np.float64]
    """Middles of short ways between the two, (n, 3), absolute, the shortest first."""
    past_fragment: bool = False
    """Whether another segment of the body lies in the middle of one of those ways."""

    def is_near(self, at: PointNm, radius_nm: float = RADIUS_NM) -> bool:
        """Whether one of the places lies within a radius."""
        away = np.linalg.norm(self.places_nm - np.array(list(at)), axis=1)
        return bool(away.min() <= radius_nm)


@dataclass(frozen=True, slots=True)
class Trial:
    """One true join or cut within the radius of one cursor, and whether it was found."""

    what: str
    """``touching``, ``across a gap``, ``past a fragment`` or ``cut``."""
    body: int
    """Clusters the interval."""
    neighbours: int
    """Segments that touch the asked one within the radius."""
    found: dict[str, bool]
    """By way of choosing: ``candidates``; of joins also ``largest`` and ``nearest``, the first
    `LIMIT` contacts, and ``every contact`` within the radius."""


def true_joins(volume: Volume) -> list[TruePair]:
    """Every true join of a volume, by body and ids."""
    pieces = _pieces(volume)
    ids = sorted({s for held in pieces.values() if len(held) > 1 for s in held})
    surface = _surfaces(volume, ids)
    found = []
    for body, held in sorted(pieces.items()):
        close: list[TruePair] = []
        trees = {s: cKDTree(surface[s]) for s in held} if len(held) > 1 else {}
        for i, a in enumerate(held):
            for b in held[i + 1 :]:
                pair = _pair(body, (a, b), surface[a], surface[b], trees[b])
                close += [pair] if pair else []
        found += [
            replace(p, past_fragment=_is_past_fragment(volume, p))
            for p in _direct(close, max(volume.resolution))
        ]
    return found


def _is_past_fragment(volume: Volume, pair: TruePair) -> bool:
    at = np.floor(pair.places_nm / np.array(list(volume.resolution))).astype(np.int64)
    at -= np.array(list(volume.box.lo))
    at = np.clip(at, 0, np.array(volume.seg.shape) - 1)
    seg, truth = volume.seg[tuple(at.T)], volume.truth[tuple(at.T)]
    is_other = (seg != 0) & ~np.isin(seg, np.array(pair.segments, np.uint64))
    return bool((is_other & (truth == np.uint64(pair.body))).any())


def true_cuts(volume: Volume) -> list[TruePair]:
    """Where two bodies meet in one segment of which each has a large piece."""
    s, t, n = _overlaps(volume)
    size = {int(b): int(n[t == b].sum()) for b in np.unique(t)}
    found = []
    for segment in np.unique(s):
        held = [
            int(b)
            for b, c in zip(t[s == segment], n[s == segment], strict=True)
            if c >= PIECE_VX and c >= MERGE_SHARE * size[int(b)]
        ]
        if len(held) < 2:
            continue
        (box,) = ndimage.find_objects((volume.seg == segment).astype(np.int8))
        inside = volume.seg[box] == segment
        corner = np.array([c.start for c in box]) + np.array(list(volume.box.lo))
        for i, a in enumerate(held):
            for b in held[i + 1 :]:
                places = _meeting(inside, volume.truth[box], (a, b))
                if len(places):
                    at = (places + corner) * np.array(list(volume.resolution))
                    found.append(TruePair(a, (int(segment),) * 2, 0.0, _thin_out(at)))
    return found


def trials(
    volume: Volume,
    *,
    seed: int = 0,
    limit: int | None = None,
    say: Callable[[str], None] = print,
) -> Iterator[Trial]:
    """Ask at cursors on the segments of every true join and cut.

    Args:
        volume: With its truth.
        seed: Draws the cursors.
        limit: Of each of `JOIN_SORTS`, and of the cuts, at most so many are drawn.
        say: Told how many there are.
    """
    rng = np.random.default_rng(seed)
    joins, cuts = true_joins(volume), true_cuts(volume)
    of_sort = {what: [p for p in joins if _sort(volume, p) == what] for what in JOIN_SORTS}
    known = ", ".join(f"{len(of_sort[what])} {what}" for what in JOIN_SORTS)
    say(f"{volume.name}: true joins: {known} (of up to {REACH_NM:.0f} nm); {len(cuts)} true cuts")
    for what in JOIN_SORTS:
        for pair in _drawn(of_sort[what], limit, rng):
            for segment in pair.segments:
                for at in _cursors(volume, segment, pair, rng, CURSORS):
                    yield _join_trial(volume, segment, pair, at)
    for pair in _drawn(cuts, limit, rng):
        for at in _cursors(volume, pair.segments[0], pair, rng, 5 * CURSORS):
            yield _cut_trial(volume, pair, at)


def _drawn(pairs: list[TruePair], limit: int | None, rng: np.random.Generator) -> list[TruePair]:
    if limit is None or len(pairs) <= limit:
        return pairs
    return [pairs[i] for i in np.sort(rng.permutation(len(pairs))[:limit])]


def _overlaps(
    volume: Volume,
) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.int64]]:
    """Segment, body and voxels of each overlap, without background."""
    s, t = volume.seg.ravel(order="F"), volume.truth.ravel(order="F")
    first = np.flatnonzero(np.concatenate([[True], (s[1:] != s[:-1]) | (t[1:] != t[:-1])]))
    length = np.diff(first, append=s.size)
    pair, at = np.unique(np.stack([s[first], t[first]], 1), axis=0, return_inverse=True)
    number = np.bincount(at.ravel(), length, len(pair)).astype(np.int64)
    known = (pair > 0).all(axis=1)
    return pair[known, 0], pair[known, 1], number[known]


def _pieces(volume: Volume) -> dict[int, list[int]]:
    """Pure segments of each body."""
    s, t, n = _overlaps(volume)
    ids, whole = np.unique(volume.seg, return_counts=True)
    size = dict(zip(ids.tolist(), whole.tolist(), strict=True))
    held: dict[int, list[int]] = {}
    for a, b, c in zip(s.tolist(), t.tolist(), n.tolist(), strict=True):
        if c >= PIECE_VX and c >= PURITY * size[a]:
            held.setdefault(b, []).append(a)
    return held


def _surfaces(volume: Volume, ids: Sequence[int]) -> dict[int, NDArray[np.float64]]:
    """Centres in nm of the surface voxels of some segments."""
    if not ids:
        return {}
    number = np.searchsorted(np.array(ids, np.uint64), volume.seg)
    number[number == len(ids)] = 0
    is_one = np.array(ids, np.uint64)[number] == volume.seg
    boxes = ndimage.find_objects(np.where(is_one, number + 1, 0).astype(np.int32))
    res, lo = np.array(list(volume.resolution)), np.array(list(volume.box.lo))
    out = {}
    for segment, box in zip(ids, boxes, strict=True):
        mask = np.pad(volume.seg[box] == np.uint64(segment), 1)
        edge = (mask & ~ndimage.binary_erosion(mask))[1:-1, 1:-1, 1:-1]
        corner = np.array([c.start for c in box]) + lo
        out[segment] = (np.argwhere(edge) + corner + 0.5) * res
    return out


def _pair(
    body: int,
    segments: tuple[int, int],
    mine: NDArray[np.float64],
    other: NDArray[np.float64],
    tree: cKDTree,
) -> TruePair | None:
    """How near two segments come; None beyond `REACH_NM`."""
    lo, hi = other.min(axis=0) - REACH_NM, other.max(axis=0) + REACH_NM
    mine = mine[((mine >= lo) & (mine <= hi)).all(axis=1)]
    if not len(mine):
        return None
    gap, at = tree.query(mine, distance_upper_bound=REACH_NM)
    if not np.isfinite(gap.min()):
        return None
    # all of a contact, and of a gap what is nearly as narrow as its narrowest place
    near = gap <= max(1.2 * gap.min(), GAP_NM)
    middles = (mine[near] + other[at[near]]) / 2
    return TruePair(body, segments, float(gap.min()), _thin_out(middles[np.argsort(gap[near])]))


def _direct(pairs: list[TruePair], voxel_nm: float) -> list[TruePair]:
    """Pairs that touch, and of the others those that join what nothing nearer joins (Kruskal)."""
    group: dict[int, int] = {}

    def root(s: int) -> int:
        while group.setdefault(s, s) != s:
            s = group[s]
        return s

    kept = []
    for pair in sorted(pairs, key=lambda p: (p.gap_nm, p.segments)):
        a, b = (root(s) for s in pair.segments)
        if a != b or _touches(pair, voxel_nm):
            kept.append(pair)
            group[a] = b
    return kept


def _touches(pair: TruePair, voxel_nm: float) -> bool:
    return pair.gap_nm <= GAP_NM + voxel_nm


def _sort(volume: Volume, pair: TruePair) -> str:
    """Which of `JOIN_SORTS`."""
    if _touches(pair, max(volume.resolution)):
        return "touching"
    return "past a fragment" if pair.past_fragment else "across a gap"


def _meeting(
    inside: NDArray[np.bool_], truth: NDArray[np.uint64], bodies: tuple[int, int]
) -> NDArray[np.float64]:
    """Voxel faces in a mask between two bodies, voxels from its corner."""
    a, b = (inside & (truth == np.uint64(t)) for t in bodies)
    out = []
    for axis in range(3):
        one, two = (np.moveaxis(m, axis, 0) for m in (a, b))
        at = np.argwhere((one[:-1] & two[1:]) | (two[:-1] & one[1:])) + np.array([1.0, 0.5, 0.5])
        order = [axis, *(k for k in range(3) if k != axis)]
        placed = np.empty_like(at)
        placed[:, order] = at
        out.append(placed)
    return np.concatenate(out)


def _thin_out(places: NDArray[np.float64]) -> NDArray[np.float64]:
    thin: NDArray[np.float64] = places[np.linspace(0, len(places) - 1, _PLACES).astype(int)]
    return thin


def _cursors(
    volume: Volume, segment: int, pair: TruePair, rng: np.random.Generator, n: int
) -> list[PointNm]:
    """Voxels of a segment, drawn within the radius of one place of the pair."""
    at = PointNm.of(pair.places_nm[0])
    box = BoxVx.around(at, RADIUS_NM, volume.resolution).clip(volume.box)
    part = volume.cutout.crop(box)
    voxels = np.argwhere(part.seg == np.uint64(segment))
    chosen = voxels[rng.permutation(len(voxels))[: 20 * n]] + np.array(list(box.lo))
    points = [PointVoxel(*map(int, v)).to_nm(volume.resolution) for v in chosen]
    return [p for p in points if pair.is_near(p)][:n]


def _ask(volume: Volume, segment: int, at: PointNm) -> tuple[list[Candidate], list[list[int]]]:
    """The candidates, and the partners of all contacts by area and by distance."""
    half = cutout_half_width_nm(RADIUS_NM)
    cutout = volume.cutout.crop(BoxVx.around(at, half, volume.resolution))
    asked = SegmentId(segment)
    touching = contacts(cutout, asked, at, RADIUS_NM)
    near = sorted(touching, key=lambda c: c.distance_nm)
    return find(cutout, asked, at), [[int(c.partner) for c in o] for o in (touching, near)]


def _join_trial(volume: Volume, segment: int, pair: TruePair, at: PointNm) -> Trial:
    got, (largest, nearest) = _ask(volume, segment, at)
    a, b = pair.segments
    other = b if a == segment else a
    found = {
        "candidates": other in {c.site.partner for c in got},
        "largest": other in largest[:LIMIT],
        "nearest": other in nearest[:LIMIT],
        "every contact": other in largest,
    }
    return Trial(_sort(volume, pair), pair.body, len(set(largest)), found)


def _cut_trial(volume: Volume, pair: TruePair, at: PointNm) -> Trial:
    got, (largest, _) = _ask(volume, pair.segments[0], at)
    found = any(_parts_bodies(volume, c) for c in got if c.site.kind is Kind.CUT)
    return Trial("cut", pair.body, len(set(largest)), {"candidates": found})


def _parts_bodies(volume: Volume, candidate: Candidate) -> bool:
    """Whether the two sides that the model would see are different bodies."""
    box = window_box(candidate.site.point, _WINDOW_NM, volume.resolution, volume.box)
    try:
        window = build_window(volume.cutout, candidate.site, _WINDOW_NM, volume.box)
    except AssistError:
        return False
    inside = tuple(
        slice(a - o, b - o) for a, b, o in zip(box.lo, box.hi, volume.box.lo, strict=True)
    )
    answer = cut_answer(window, volume.truth[inside])
    return answer is not None and answer[0]
