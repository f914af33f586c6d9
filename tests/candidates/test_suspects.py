"""Places to cut that are no necks: self-contacts and thickness jumps."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cb2_assist.candidates.course import cells_of, course_of
from cb2_assist.candidates.finder import find
from cb2_assist.candidates.suspects import Spot, Suspect, spots_near
from cb2_assist.core.geometry import BoxVx, PointNm, PointVoxel, Resolution
from cb2_assist.core.records import Kind, SegmentId
from cb2_assist.datasets.source import Cutout
from tests.candidates.shapes import Grid, cutout_of

ID = SegmentId(2**62 + 1)
RESOLUTIONS = [Resolution(10.0, 10.0, 10.0), Resolution(16.0, 16.0, 40.0)]
both_voxel_sizes = pytest.mark.parametrize("resolution", RESOLUTIONS, ids=["isotropic", "sections"])


def cutout_of_mask(mask: NDArray[np.bool_], resolution: Resolution) -> Cutout:
    seg = np.where(mask, np.uint64(ID), np.uint64(0))
    return cutout_of(np.asfortranarray(seg), resolution)


def grid_of(resolution: Resolution, size: tuple[int, int, int]) -> Grid:
    shape = tuple(round(s / r) for s, r in zip(size, resolution, strict=True))
    return Grid((shape[0], shape[1], shape[2]), resolution)


def ring(resolution: Resolution, *, touches: bool) -> Cutout:
    """A process that comes round to itself: the two ends of a C meet at a thin bridge, or not."""
    grid = grid_of(resolution, (2400, 2400, 800))
    mask = grid.ring((1200, 1200, 400), 700, 130)
    away = np.broadcast_to((grid.x > 1200) & (abs(grid.y - 1200) < 150), mask.shape)
    mask &= ~away
    if touches:
        mask |= grid.tube((1880, 1000, 400), (1880, 1400, 400), 50)
    return cutout_of_mask(mask, resolution)


def rod(resolution: Resolution, radius: list[tuple[float, float]]) -> Cutout:
    """A rod along x whose radius follows the given (x, radius) points."""
    grid = grid_of(resolution, (3200, 800, 800))
    at, thick = zip(*radius, strict=True)
    here = np.interp(grid.x.ravel(), at, thick)[:, None, None]
    mask = (grid.y - 400) ** 2 + (grid.z - 400) ** 2 <= here**2
    return cutout_of_mask(np.asfortranarray(mask), resolution)


def spots(cutout: Cutout, at: PointNm, radius_nm: float = 800.0) -> list[Spot]:
    cells = cells_of(cutout, ID)
    assert cells is not None
    return spots_near(course_of(cells[0]), cells[1], at, radius_nm)


AT_BRIDGE = PointNm(1880, 1200, 400)


@both_voxel_sizes
def test_a_segment_that_touches_itself_is_asked_about_at_the_contact(
    resolution: Resolution,
) -> None:
    found = [s for s in spots(ring(resolution, touches=True), AT_BRIDGE) if s.around_nm]
    assert {s.why for s in found} == {Suspect.SELF_CONTACT}
    assert found[0].point.distance_nm(AT_BRIDGE) < 180
    assert found[0].around_nm > 2000
    assert found[0].small_nm < 0.75 * found[0].large_nm


@both_voxel_sizes
def test_a_segment_that_comes_near_itself_without_touching_is_not(resolution: Resolution) -> None:
    cutout = ring(resolution, touches=False)
    assert [s for s in spots(cutout, AT_BRIDGE) if s.why is Suspect.SELF_CONTACT] == []


@both_voxel_sizes
def test_a_self_contact_is_a_cut_that_says_how_far_round_it_is(resolution: Resolution) -> None:
    got = find(ring(resolution, touches=True), ID, AT_BRIDGE, kinds=(Kind.CUT,))
    assert any("self-contact" in c.reason or "round" in c.reason for c in got)
    assert all(c.joint is None and c.site.partner is None for c in got)


THIN, THICK = 100.0, 300.0
STEP = [(0.0, THIN), (1600.0, THIN), (1610.0, THICK), (3200.0, THICK)]
TAPER = [(0.0, THIN), (3200.0, THICK)]
BEAD = [(0, THIN), (1500, THIN), (1510, THICK), (1690, THICK), (1700, THIN), (3200, THIN)]


@both_voxel_sizes
def test_a_thickness_jump_is_found_where_it_is(resolution: Resolution) -> None:
    (found,) = spots(rod(resolution, STEP), PointNm(1500, 400, 400))
    assert found.why is Suspect.JUMP
    assert found.point.distance_nm(PointNm(1600, 400, 400)) < 200
    assert 2 * found.small_nm < found.large_nm
    assert found.around_nm == 0
    (cut,) = find(rod(resolution, STEP), ID, PointNm(1500, 400, 400), kinds=(Kind.CUT,))
    assert cut.reason.startswith("thickness jumps from ")
    assert cut.reason.endswith(" nm radius")


@both_voxel_sizes
@pytest.mark.parametrize("radius", [TAPER, BEAD], ids=["taper", "bead"])
def test_what_only_swells_is_no_jump(
    resolution: Resolution, radius: list[tuple[float, float]]
) -> None:
    assert spots(rod(resolution, radius), PointNm(1600, 400, 400)) == []


@both_voxel_sizes
def test_another_cursor_finds_the_same_jump(resolution: Resolution) -> None:
    whole = rod(resolution, STEP)
    found = {s.point for x in (1300, 1550, 1700) for s in spots(whole, PointNm(x, 400, 400))}
    part = whole.crop(BoxVx(PointVoxel(9, 0, 0), whole.box.hi))
    assert {s.point for s in spots(part, PointNm(1500, 400, 400))} == found
    assert len(found) == 1


def test_only_spots_within_the_radius_count() -> None:
    cutout = rod(RESOLUTIONS[0], STEP)
    assert spots(cutout, PointNm(600, 400, 400), 500.0) == []
