"""Cursor to the places nearby that may be wrong, by geometry alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from cb2_assist.candidates import joins
from cb2_assist.candidates.along import Odd, Whole, ends_along, odd_places
from cb2_assist.candidates.course import cells_of, course_of
from cb2_assist.candidates.cuts import Cut, cuts
from cb2_assist.candidates.ends import End, ends_near
from cb2_assist.candidates.facing import Facing, facing
from cb2_assist.candidates.joins import APART_NM, Contact, contacts, cutout_half_width_nm
from cb2_assist.candidates.suspects import Suspect
from cb2_assist.core.geometry import BoxVx, PointNm, PointVoxel, Resolution
from cb2_assist.core.records import Candidate, Kind, SegmentId, Site
from cb2_assist.datasets.source import Cutout
from cb2_assist.views import partition
from cb2_assist.views.partition import REACH_NM

RADIUS_NM = 800.0
"""Candidates lie within this distance of the cursor."""
LIMIT = 16
"""Candidates handed to the model at most."""
JOIN_PLACES = 12
CUT_PLACES = 6
"""Shares of `LIMIT` that either kind may fill before the other kind's unused places are given."""
DIRECT_POWER = 4
"""Contacts rank by area times the share that has no gap, to this power.

Best of the simple orders (area, distance, partner size, gaps, their products) on contacts below
z = 125 of FIB-25 (Takemura et al. 2015, PNAS 112:13711), partners of 100 voxels and more: among the
first 12 are 94 % of the true joins and 97 % of the volume that they add in the flood-filling
segmentation (by area alone 90 % and 62 %; 9.6 neighbours within 800 nm, 0.9 of them true), and
70 % and 73 % in the watershed, which has no gaps (13.4 neighbours, 5.8 of them true).
"""
FACING_PLACES = 2
"""Share of `JOIN_PLACES` that segments across a gap may fill."""
FACING_FIT = 0.1
"""What lies ahead of an end and fits it less well than this is not asked about."""
FACING_AREA_UM2 = 0.05
"""A certain continuation across a gap ranks like a contact of this area."""
AT_END_NM = 100.0
"""A contact is at an end when its point is no farther from it than the end is thick, and this."""
EDGE_PLACES = 2
"""Contacts that the automatic segmentation holds together most strongly get so many of the places
of joins, if their area alone gets them none."""
__all__ = ["RADIUS_NM", "cutout_half_width_nm", "find", "warm_up"]

_NM2_PER_UM2 = 1e6
_NM3_PER_UM3 = 1e9


def find(
    cutout: Cutout,
    segment: SegmentId,
    at: PointNm,
    *,
    radius_nm: float = RADIUS_NM,
    kinds: Sequence[Kind] = (Kind.JOIN, Kind.CUT),
    limit: int = LIMIT,
    whole: Callable[[], Whole] = Whole,
) -> list[Candidate]:
    """Joins across contacts and gaps, and cuts at necks and the like, around the cursor.

    Args:
        cutout: `cutout_half_width_nm` around the cursor, clipped by nothing but the dataset.
        segment: The segment under the cursor.
        at: The cursor.
        radius_nm: Farthest distance of a candidate's point.
        kinds: What to look for.
        limit: Candidates at most, of both kinds together.
        whole: What a graph says of the segment; asked when the voxels have been looked through.

    Returns:
        Joins, then cuts, each by falling prior; empty when there is nothing. Priors of the two
        kinds do not compare.
    """
    cells = cells_of(cutout, segment)
    if cells is None:
        return []
    seen = course_of(cells[0]), cells[1]
    # both release the GIL for nearly all of their time
    with ThreadPoolExecutor(1, "cuts") as other:
        searching = (
            other.submit(cuts, cutout, segment, at, radius_nm, seen) if Kind.CUT in kinds else None
        )
        touching = contacts(cutout, segment, at, radius_nm) if Kind.JOIN in kinds else []
        ends: list[End] = []
        if Kind.JOIN in kinds:
            ends = ends_near(*seen, at, radius_nm + AT_END_NM)
        known, odd = whole(), list[Odd]()
        across: list[Facing] = []
        if Kind.JOIN in kinds:
            ends += ends_along(known, *cells, at, radius_nm + AT_END_NM, ends)
            across = _only_apart(facing(cutout, segment, ends, at, radius_nm), touching)
        if Kind.CUT in kinds:
            odd = odd_places(known, *cells, at, radius_nm)
        found_cuts = _cuts(segment, searching.result() if searching else [], odd)
    n_joins, n_cuts = _places(len(touching) + len(across), len(found_cuts), limit)
    n_across = min(
        len(across), max(n_joins * FACING_PLACES // JOIN_PLACES, n_joins - len(touching))
    )
    held = known.affinity
    touching = _first(touching, held, n_joins - n_across)
    found_joins = [
        *(_contact(segment, c, _end_at(ends, c.point), held) for c in touching),
        *(_facing(segment, f, held) for f in across[:n_across]),
    ]
    found_joins.sort(key=lambda c: (-c.prior, tuple(c.site.point), c.site.partner or 0))
    return [*found_joins, *found_cuts[:n_cuts]]


def warm_up() -> None:
    """Compile every loop that `find` needs."""
    joins.warm_up()
    partition.warm_up()
    # a ring that is pinched, and two tubes that face each other
    at = np.indices((60, 60, 24)) * 20.0 + 10.0
    ring = np.hypot(np.hypot(at[0] - 600, at[1] - 600) - 350, at[2] - 240) < 120
    ring &= (at[0] < 600) | (abs(at[1] - 600) > 60) | (np.hypot(at[0] - 950, at[2] - 240) < 40)
    seg = np.zeros(ring.shape, np.uint64, order="F")
    seg[ring] = 1
    seg[:, 58:, 10:14] = 2
    seg[:20, 4:8, 10:14], seg[28:, 4:8, 10:14] = 3, 4
    box = BoxVx(PointVoxel(0, 0, 0), PointVoxel(*seg.shape))
    resolution = Resolution(20.0, 20.0, 20.0)
    cutout = Cutout(box, resolution, np.zeros(seg.shape, np.uint8, order="F"), seg)
    for segment, place in ((1, (950, 600, 240)), (3, (390, 120, 240))):
        find(cutout, SegmentId(segment), PointNm.of(place))


def _places(n_joins: int, n_cuts: int, limit: int) -> tuple[int, int]:
    """How many of each kind: its share first, then what the other leaves."""
    whole = JOIN_PLACES + CUT_PLACES
    for_cuts = min(n_cuts, max(limit * CUT_PLACES // whole, limit - n_joins))
    return min(n_joins, limit - for_cuts), for_cuts


def _only_apart(across: list[Facing], touching: list[Contact]) -> list[Facing]:
    """Those likely enough that are not asked about as contacts already."""
    return [
        f
        for f in across
        if f.fit >= FACING_FIT
        and not any(
            c.partner == f.partner and c.point.distance_nm(f.point) < APART_NM for c in touching
        )
    ]


def _end_at(ends: list[End], point: PointNm) -> End | None:
    """The end that a contact is at, the nearest of several."""
    near = []
    for end in ends:
        away = end.point.distance_nm(point)
        off = [b - a for a, b in zip(end.point, point, strict=True)]
        ahead = sum(a * b for a, b in zip(off, end.way, strict=True))
        if away <= end.radius_nm + AT_END_NM and ahead >= -end.radius_nm:
            near.append((away, end.name, end))
    return min(near)[2] if near else None


def _joint(segment: SegmentId, end: End | None) -> str | None:
    return None if end is None else f"{segment}@{end.name}"


def _contact_prior(contact: Contact) -> float:
    return contact.area_nm2 / _NM2_PER_UM2 * contact.direct**DIRECT_POWER


def _first(
    touching: list[Contact], affinity: Mapping[SegmentId, float], places: int
) -> list[Contact]:
    """The contacts that are asked about: by prior, and the strongest edges of the graph."""
    order = sorted(touching, key=lambda c: (-_contact_prior(c), tuple(c.point), c.partner))
    held = sorted(
        (c for c in order[places:] if c.partner in affinity), key=lambda c: -affinity[c.partner]
    )
    extra = held[: max(0, min(EDGE_PLACES, places - 1))]
    return [*order[: places - len(extra)], *extra]


def _contact(
    segment: SegmentId, contact: Contact, end: End | None, affinity: Mapping[SegmentId, float]
) -> Candidate:
    area = contact.area_nm2 / _NM2_PER_UM2
    reason = f"contact of {area:.2g} µm² {contact.distance_nm / 1000:.1f} µm from the cursor"
    return Candidate(
        site=Site(Kind.JOIN, segment, contact.partner, contact.point),
        reason=f"{reason}{_held(affinity.get(contact.partner))}",
        prior=_contact_prior(contact),
        joint=_joint(segment, end),
        affinity=affinity.get(contact.partner),
    )


def _held(affinity: float | None) -> str:
    return "" if affinity is None else f", affinity {affinity:.3g} in the graph"


def _facing(segment: SegmentId, found: Facing, affinity: Mapping[SegmentId, float]) -> Candidate:
    who = (
        "the end of another segment faces"
        if found.ends_too >= 0.5
        else "another segment lies ahead of"
    )
    what = " and a third segment" if found.foreign else ""
    return Candidate(
        site=Site(Kind.JOIN, segment, found.partner, found.point),
        reason=f"{who} this end, across a gap of {found.gap_nm:.0f} nm{what}"
        f"{_held(affinity.get(found.partner))}",
        prior=FACING_AREA_UM2 * found.prior,
        joint=_joint(segment, found.end),
        affinity=affinity.get(found.partner),
    )


def _cuts(segment: SegmentId, seen: list[Cut], odd: list[Odd]) -> list[Candidate]:
    """Cuts that the voxels show, with what the graph says of their places, and the graph's own."""
    found = []
    for cut in seen:
        said = [o.why for o in odd if o.point.distance_nm(cut.point) < REACH_NM]
        one = _cut(segment, cut)
        more = f"; in the whole object, {said[0]}" if said else ""
        found.append(replace(one, reason=f"{one.reason}{more}"))
    for o in odd:
        # the views of a cut nearby would show this place
        if all(o.point.distance_nm(cut.point) >= REACH_NM for cut in seen):
            reason = f"in the whole object, {o.why}"
            found.append(Candidate(Site(Kind.CUT, segment, None, o.point), reason, o.prior))
    return sorted(found, key=lambda c: (-c.prior, tuple(c.site.point)))


def _cut(segment: SegmentId, cut: Cut) -> Candidate:
    spot = cut.spot
    if cut.neck is None:
        assert spot is not None
        reason = f"thickness jumps from {spot.small_nm:.0f} to {spot.large_nm:.0f} nm radius"
        if spot.why is Suspect.SELF_CONTACT:
            reason = (
                f"self-contact of {spot.small_nm:.0f} nm radius between parts that are "
                f"{spot.around_nm / 1000:.1f} µm apart along the segment"
            )
        return Candidate(Site(Kind.CUT, segment, None, cut.point), reason, _cut_prior(cut))
    small, large = (v / _NM3_PER_UM3 for v in cut.neck.side_nm3)
    what = "neck" if cut.neck.reason == "neck" else "arm of a junction"
    reason = f"{what} of {cut.neck.radius_nm:.0f} nm radius between parts of {small:.2g} and " + (
        f"{large:.2g} µm³"
    )
    if spot is not None:
        reason += f", which also meet {spot.around_nm / 1000:.1f} µm round"
    return Candidate(Site(Kind.CUT, segment, None, cut.point), reason, _cut_prior(cut))


def _cut_prior(cut: Cut) -> float:
    return 1.0 - cut.ratio
