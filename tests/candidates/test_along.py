"""Places of a whole object's graph as candidates at the cursor, beside those of the voxels."""

from __future__ import annotations

import numpy as np
import pytest

from cb2_assist.candidates.along import Whole, next_end
from cb2_assist.candidates.arbour import Place, Why
from cb2_assist.candidates.finder import EDGE_PLACES, find
from cb2_assist.core.geometry import PointNm, Resolution
from cb2_assist.core.records import Candidate, Kind, SegmentId
from cb2_assist.datasets.source import Cutout
from tests.candidates.shapes import Grid, cutout_of

ID = SegmentId(2**62 + 1)
OTHER = SegmentId(ID + 1)
RES = Resolution(20.0, 20.0, 20.0)
CHUNK = (600.0, 600.0, 600.0)
TIP = 1200.0
AT = PointNm(1100, 1000, 600)
EAST = (1.0, 0.0, 0.0)


def tube(radius: float, *, gap: float = 200.0) -> Cutout:
    """A process that ends at `TIP`, and one that goes on beyond a gap."""
    grid = Grid((160, 100, 60), RES)
    seg = np.zeros((160, 100, 60), np.uint64, order="F")
    seg[grid.tube((TIP + 2 * radius + gap, 1000, 600), (4000, 1000, 600), radius)] = OTHER
    seg[grid.tube((-500, 1000, 600), (TIP, 1000, 600), radius)] = ID
    return cutout_of(seg, RES)


def found(cutout: Cutout, *places: Place, at: PointNm = AT, **affinity: float) -> list[Candidate]:
    known = {SegmentId(ID + int(k[1:])): v for k, v in affinity.items()}
    return find(cutout, ID, at, whole=lambda: Whole(places, CHUNK, known))


def end_at(x: float, way: tuple[float, float, float] = EAST) -> Place:
    return Place(PointNm(x, 1000, 600), Why.END, way)


THICK = 260.0
"""Too thick for the voxels around the cursor to tell an end from a surface."""


def test_an_end_that_only_the_graph_knows_looks_across_its_gap() -> None:
    cutout = tube(THICK)
    assert not [c for c in found(cutout) if c.site.partner == OTHER]
    (join,) = (c for c in found(cutout, end_at(1000)) if c.site.partner == OTHER)
    assert "across a gap" in join.reason
    assert join.joint is not None
    assert join.joint.startswith(f"{ID}@")


def test_the_same_end_is_found_from_another_cursor() -> None:
    cutout = tube(THICK)
    one, other = (
        {(c.site.point, c.joint) for c in found(cutout, end_at(1000), at=PointNm(x, 1000, 600))}
        for x in (1100.0, 1250.0)
    )
    assert one & other


def test_an_end_that_the_voxels_show_is_not_asked_about_twice() -> None:
    cutout = tube(80.0)
    alone = found(cutout)
    assert [c for c in alone if c.site.partner == OTHER]
    assert found(cutout, end_at(1000)) == alone


@pytest.mark.parametrize(
    "place",
    [
        end_at(1000, (-1.0, 0.0, 0.0)),
        Place(PointNm(1000, 1000, 600), Why.END, None),
        Place(PointNm(9000, 1000, 600), Why.END, EAST),
    ],
    ids=["towards-the-border", "no-direction", "far-away"],
)
def test_what_is_no_end_here_makes_no_join(place: Place) -> None:
    assert not [c for c in found(tube(THICK), place) if c.site.partner == OTHER]


def test_an_odd_place_stands_on_the_object_and_says_why() -> None:
    cutout = tube(80.0)
    assert not [c for c in found(cutout) if c.site.kind is Kind.CUT]
    (cut,) = (
        c
        for c in found(cutout, Place(PointNm(700, 1150, 600), Why.BRANCH))
        if c.site.kind is Kind.CUT
    )
    assert "whole object" in cut.reason
    assert Why.BRANCH.value in cut.reason
    assert abs(cut.site.point.y - 1000) <= 100
    x, y, z = cut.site.point.to_voxel(RES)
    assert cutout.seg[x, y, z] == ID


def test_of_odd_places_that_one_view_shows_the_most_telling_is_kept() -> None:
    places = [
        Place(PointNm(700, 1000, 600), Why.LONG_EDGE),
        Place(PointNm(800, 1000, 600), Why.BRANCH),
        Place(PointNm(380, 1000, 600), Why.BRANCH),
    ]
    cuts = [c for c in found(tube(80.0), *places) if c.site.kind is Kind.CUT]
    assert [Why.LONG_EDGE.value in c.reason for c in cuts] == [True, False]


def test_a_neck_that_the_graph_finds_odd_is_one_candidate_with_both_reasons() -> None:
    grid = Grid((160, 100, 60), RES)
    seg = np.zeros((160, 100, 60), np.uint64, order="F")
    for x in (700, 1500):
        seg[grid.ball((x, 1000, 600), 340)] = ID
    seg[grid.tube((700, 1000, 600), (1500, 1000, 600), 70)] = ID
    cutout = cutout_of(seg, RES)
    (alone,) = (c for c in found(cutout) if c.site.kind is Kind.CUT)
    both = found(cutout, Place(alone.site.point, Why.BRIDGE))
    (cut,) = (c for c in both if c.site.kind is Kind.CUT)
    assert cut.site == alone.site
    assert cut.reason == f"{alone.reason}; in the whole object, {Why.BRIDGE.value}"


def pads(n: int) -> Cutout:
    """A tube with pads of falling size on it."""
    grid = Grid((160, 60, 60), RES)
    seg = np.zeros((160, 60, 60), np.uint64, order="F")
    for i in range(n):
        x = 20 + 8 * i
        seg[x : x + 3, 24:36, 20 : 38 - i] = ID + i + 1
    seg[grid.tube((0, 600, 600), (3200, 600, 600), 100)] = ID
    return cutout_of(seg, RES)


def test_the_affinity_stands_with_a_join_and_gets_it_a_place() -> None:
    cutout, at = pads(16), PointNm(1600, 600, 600)
    everything = find(cutout, ID, at, limit=99)
    partners = [c.site.partner for c in everything if c.site.kind is Kind.JOIN]
    short = find(cutout, ID, at, limit=6, kinds=[Kind.JOIN])
    left_out = [p for p in partners if p not in {c.site.partner for c in short}]
    assert len(left_out) > EDGE_PLACES
    held = dict.fromkeys(left_out, 0.1) | {left_out[-1]: 0.9}
    with_graph = find(
        cutout, ID, at, limit=6, kinds=[Kind.JOIN], whole=lambda: Whole((), CHUNK, held)
    )
    assert len(with_graph) == len(short)
    (strongest,) = (c for c in with_graph if c.site.partner == left_out[-1])
    assert strongest.affinity == 0.9
    assert "affinity 0.9" in strongest.reason
    kept = [c.site.partner for c in with_graph if c.affinity is None]
    assert set(kept) <= {c.site.partner for c in short}
    assert len(kept) == len(short) - EDGE_PLACES


def test_the_next_end_is_the_nearest() -> None:
    places = (end_at(100), end_at(4000), Place(PointNm(2000, 1000, 600), Why.BRANCH))
    assert next_end(Whole(places), PointNm(2300, 1000, 600)) == places[1]
    assert next_end(Whole(places[2:]), AT) is None
