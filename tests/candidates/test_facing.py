"""Ends of a segment, and what lies ahead of them across a gap."""

from __future__ import annotations

import numpy as np
import pytest

from cb2_assist.candidates.course import cells_of, course_of
from cb2_assist.candidates.ends import End, ends_near
from cb2_assist.candidates.facing import REACH_NM, Facing, facing
from cb2_assist.candidates.finder import find
from cb2_assist.core.geometry import BoxVx, PointNm, PointVoxel, Resolution
from cb2_assist.core.records import Kind, SegmentId
from cb2_assist.datasets.source import Cutout
from tests.candidates.shapes import Grid, Point, cutout_of

ID = SegmentId(2**62 + 1)
OTHER, SHEET = SegmentId(ID + 1), SegmentId(ID + 2)
TIP = 1200.0
"""Where the asked tube's round cap has its middle, along x."""
RADIUS = 80.0
RESOLUTIONS = [Resolution(10.0, 10.0, 10.0), Resolution(16.0, 16.0, 40.0)]
both_voxel_sizes = pytest.mark.parametrize("resolution", RESOLUTIONS, ids=["isotropic", "sections"])


def grid_of(resolution: Resolution) -> Grid:
    size = (3200, 1600, 1200)
    shape = tuple(round(s / r) for s, r in zip(size, resolution, strict=True))
    return Grid((shape[0], shape[1], shape[2]), resolution)


def tubes(
    resolution: Resolution,
    partner: tuple[Point, Point],
    *,
    sheet: tuple[float, float] | None = None,
) -> Cutout:
    """A tube from the box's border along x to `TIP`, another tube, and a sheet across x."""
    grid = grid_of(resolution)
    mine = grid.tube((-500, 800, 600), (TIP, 800, 600), RADIUS)
    seg = np.zeros(mine.shape, np.uint64, order="F")
    if sheet is not None:
        seg[(grid.x.ravel() >= sheet[0]) & (grid.x.ravel() < sheet[1])] = SHEET
    seg[grid.tube(*partner, RADIUS)] = OTHER
    seg[mine] = ID
    return cutout_of(seg, resolution)


def straight_on(gap: float) -> tuple[Point, Point]:
    return (TIP + 2 * RADIUS + gap, 800, 600), (4000, 800, 600)


def ends_of(cutout: Cutout, at: PointNm = PointNm(1100, 800, 600)) -> list[End]:  # noqa: B008
    cells = cells_of(cutout, ID)
    assert cells is not None
    return ends_near(course_of(cells[0]), cells[1], at, 800.0)


def ahead(cutout: Cutout, at: PointNm = PointNm(1100, 800, 600)) -> dict[SegmentId, Facing]:  # noqa: B008
    return {f.partner: f for f in facing(cutout, ID, ends_of(cutout, at), at, 800.0)}


@both_voxel_sizes
def test_a_tube_ends_at_its_tip_and_points_along_its_axis(resolution: Resolution) -> None:
    (end,) = ends_of(tubes(resolution, straight_on(200)))
    assert end.point.distance_nm(PointNm(TIP + RADIUS, 800, 600)) < 80
    assert end.way[0] > 0.97
    assert end.radius_nm == pytest.approx(RADIUS, abs=30)


def test_where_the_segment_leaves_the_dataset_it_does_not_end() -> None:
    cutout = tubes(RESOLUTIONS[0], straight_on(200))
    assert ends_of(cutout, PointNm(100, 800, 600)) == []


def test_a_round_lump_ends_nowhere() -> None:
    grid = grid_of(RESOLUTIONS[0])
    seg = np.where(grid.ball((1200, 800, 600), 180), np.uint64(ID), np.uint64(0))
    assert ends_of(cutout_of(np.asfortranarray(seg), RESOLUTIONS[0])) == []


@both_voxel_sizes
@pytest.mark.parametrize("gap", [60, 200, 400])
def test_tips_face_each_other_across_a_gap(resolution: Resolution, gap: int) -> None:
    found = ahead(tubes(resolution, straight_on(gap)))[OTHER]
    # voxel centres on either side lie up to a voxel further apart than the gap is wide
    assert found.gap_nm == pytest.approx(gap, abs=35)
    middle = PointNm(TIP + RADIUS + gap / 2, 800, 600)
    assert found.point.distance_nm(middle) < 80
    assert (found.foreign, found.ends_too) == (False, pytest.approx(1.0, abs=0.1))


def test_a_wider_gap_than_the_reach_is_not_looked_across() -> None:
    assert ahead(tubes(RESOLUTIONS[0], straight_on(REACH_NM + 60))) == {}


@both_voxel_sizes
@pytest.mark.parametrize("gap", [300, 380, 440, 480])
def test_a_continuation_across_a_wide_gap_is_a_candidate(resolution: Resolution, gap: int) -> None:
    """Of all of `find`, not only looked at."""
    cutout = tubes(resolution, straight_on(gap))
    (join,) = (c for c in find(cutout, ID, PointNm(1150, 800, 600)) if c.site.partner == OTHER)
    assert "across a gap" in join.reason
    assert join.joint is not None


@both_voxel_sizes
def test_a_foreign_layer_between_does_not_hide_the_partner(resolution: Resolution) -> None:
    cutout = tubes(resolution, straight_on(200), sheet=(TIP + RADIUS + 80, TIP + RADIUS + 160))
    found = ahead(cutout)
    assert found[OTHER].foreign
    assert found[OTHER].prior > found[SHEET].prior
    (join,) = (c for c in find(cutout, ID, PointNm(1100, 800, 600)) if c.site.partner == OTHER)
    assert join.reason.endswith("nm and a third segment")


@both_voxel_sizes
@pytest.mark.parametrize(
    "partner",
    [
        ((1300, 1350, 600), (4000, 1350, 600)),
        ((0, 1200, 600), (900, 1200, 600)),
    ],
    ids=["far to the side", "behind the tip"],
)
def test_what_lies_outside_the_cone_is_not_found(
    resolution: Resolution, partner: tuple[Point, Point]
) -> None:
    assert ahead(tubes(resolution, partner)) == {}


@both_voxel_sizes
def test_a_tip_that_faces_back_is_likelier_than_a_tube_that_passes(resolution: Resolution) -> None:
    facing_back = ahead(tubes(resolution, straight_on(200)))[OTHER]
    x = TIP + 2 * RADIUS + 200
    passing = ahead(tubes(resolution, ((x, -500, 600), (x, 2500, 600))))[OTHER]
    assert passing.ends_too < 0.6 < 0.9 < facing_back.ends_too
    assert passing.prior < 0.5 * facing_back.prior


@both_voxel_sizes
def test_another_cursor_finds_the_same_gap(resolution: Resolution) -> None:
    whole = tubes(resolution, straight_on(200))
    cursors = [PointNm(900, 800, 600), PointNm(1184, 816, 640), PointNm(1010, 760, 590)]
    found = {(f.partner, f.point, f.end.name) for at in cursors for f in ahead(whole, at).values()}
    assert len(found) == 1
    part = whole.crop(BoxVx(PointVoxel(7, 3, 1), whole.box.hi))
    assert {(f.partner, f.point, f.end.name) for f in ahead(part).values()} == found


@both_voxel_sizes
def test_joins_at_one_end_are_one_question(resolution: Resolution) -> None:
    """Two tips ahead of the end and one contact on the flank far from it."""
    grid = grid_of(resolution)
    x = TIP + 2 * RADIUS + 150
    seg = tubes(resolution, ((x, 680, 600), (4000, 400, 600))).seg.copy(order="F")
    seg[grid.tube((x, 920, 600), (4000, 1200, 600), RADIUS)] = SHEET
    flank = SegmentId(ID + 3)
    beside = grid.tube((700, 800 + RADIUS + 60, 600), (700, 1800, 600), 90) & (seg == 0)
    seg[beside] = flank
    got = find(cutout_of(seg, resolution), ID, PointNm(1000, 800, 600), kinds=(Kind.JOIN,))
    joint = {c.site.partner: c.joint for c in got}
    assert set(joint) == {OTHER, SHEET, flank}
    assert joint[OTHER] is not None
    assert joint[OTHER] == joint[SHEET]
    assert joint[OTHER].startswith(f"{ID}@")
    assert joint[flank] is None
    reasons = {c.site.partner: c.reason for c in got}
    assert reasons[OTHER].startswith("the end of another segment faces this end, across a gap of 1")


def test_a_contact_right_at_the_end_belongs_to_the_question() -> None:
    cutout = tubes(RESOLUTIONS[0], ((TIP + RADIUS, 800, 600), (4000, 800, 600)))
    (join,) = find(cutout, ID, PointNm(1000, 800, 600), kinds=(Kind.JOIN,))
    assert join.reason.startswith("contact of")
    assert join.joint is not None
