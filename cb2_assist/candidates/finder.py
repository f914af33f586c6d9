"""Cursor to the places nearby that may be wrong, by geometry alone."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from cb2_assist.candidates import joins
from cb2_assist.candidates.cuts import Cut, cuts
from cb2_assist.candidates.joins import Contact, contacts, cutout_half_width_nm
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import Candidate, Kind, SegmentId, Site
from cb2_assist.datasets.source import Cutout
from cb2_assist.views import partition

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
) -> list[Candidate]:
    """Joins across contacts and cuts at necks around the cursor.

    Args:
        cutout: `cutout_half_width_nm` around the cursor, clipped by nothing but the dataset.
        segment: The segment under the cursor.
        at: The cursor.
        radius_nm: Farthest distance of a candidate's point.
        kinds: What to look for.
        limit: Candidates at most, of both kinds together.

    Returns:
        Joins, then cuts, each by falling prior; empty when there is nothing. Priors of the two
        kinds do not compare.
    """
    # both release the GIL for nearly all of their time
    with ThreadPoolExecutor(1, "cuts") as other:
        searching = (
            other.submit(cuts, cutout, segment, at, radius_nm) if Kind.CUT in kinds else None
        )
        found_joins = contacts(cutout, segment, at, radius_nm) if Kind.JOIN in kinds else []
        found_cuts = searching.result() if searching else []
    n_joins, n_cuts = _places(len(found_joins), len(found_cuts), limit)
    ranked = sorted(found_joins, key=lambda c: (-_join_prior(c), tuple(c.point), c.partner))
    return [
        *(_join(segment, c) for c in ranked[:n_joins]),
        *(_cut(segment, c) for c in found_cuts[:n_cuts]),
    ]


def warm_up() -> None:
    """Compile every loop that `find` needs."""
    joins.warm_up()
    partition.warm_up()


def _places(n_joins: int, n_cuts: int, limit: int) -> tuple[int, int]:
    """How many of each kind: its share first, then what the other leaves."""
    whole = JOIN_PLACES + CUT_PLACES
    for_cuts = min(n_cuts, max(limit * CUT_PLACES // whole, limit - n_joins))
    return min(n_joins, limit - for_cuts), for_cuts


def _join_prior(contact: Contact) -> float:
    return contact.area_nm2 / _NM2_PER_UM2 * contact.direct**DIRECT_POWER


def _join(segment: SegmentId, contact: Contact) -> Candidate:
    area = contact.area_nm2 / _NM2_PER_UM2
    return Candidate(
        site=Site(Kind.JOIN, segment, contact.partner, contact.point),
        reason=f"contact of {area:.2g} µm² {contact.distance_nm / 1000:.1f} µm from the cursor",
        prior=_join_prior(contact),
    )


def _cut(segment: SegmentId, cut: Cut) -> Candidate:
    small, large = (v / _NM3_PER_UM3 for v in cut.neck.side_nm3)
    what = "neck" if cut.neck.reason == "neck" else "arm of a junction"
    return Candidate(
        site=Site(Kind.CUT, segment, None, cut.point),
        reason=f"{what} of {cut.neck.radius_nm:.0f} nm radius between parts of {small:.2g} and "
        f"{large:.2g} µm³",
        prior=1.0 - cut.neck.ratio,
    )
