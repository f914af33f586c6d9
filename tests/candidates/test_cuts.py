"""Cut candidates: necks near the cursor, at places of the dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from cb2_assist.candidates.cuts import SAME_NM, cuts
from cb2_assist.core.geometry import BoxVx, PointNm, PointVoxel, Resolution
from cb2_assist.core.records import SegmentId
from cb2_assist.datasets.source import Cutout
from cb2_assist.views.partition import partition
from tests.candidates.shapes import Grid, cutout_of

ISO = Resolution(10.0, 10.0, 10.0)
ID = SegmentId(2**62 + 1)


def chain(lo: tuple[int, int, int] = (0, 0, 0)) -> Cutout:
    """Four balls in a row, 400 nm apart, on tubes of 30, 50 and 40 nm; a second segment beside."""
    grid = Grid((160, 60, 60), ISO)
    mask = np.zeros((160, 60, 60), bool, order="F")
    for x in (200, 600, 1000, 1400):
        mask |= grid.ball((x, 300, 300), 140)
    for x, radius in ((200, 30), (600, 50), (1000, 40)):
        mask |= grid.tube((x, 300, 300), (x + 400, 300, 300), radius)
    seg = np.where(mask, np.uint64(ID), np.uint64(ID + 1))
    return cutout_of(np.asfortranarray(seg), ISO, lo)


def test_necks_come_narrowest_first() -> None:
    found = cuts(chain(), ID, PointNm(800, 300, 300), 2000.0)
    places = [round(c.point.x / 400) for c in found]
    assert places == [1, 3, 2]
    assert [c.neck.ratio for c in found] == sorted(c.neck.ratio for c in found)
    assert all(c.distance_nm == c.point.distance_nm(PointNm(800, 300, 300)) for c in found)


def test_only_necks_within_the_radius_count() -> None:
    (near,) = cuts(chain(), ID, PointNm(400, 300, 300), 200.0)
    assert near.distance_nm <= 200
    assert cuts(chain(), ID, PointNm(400, 300, 300), 1.0) == []
    assert cuts(chain(), SegmentId(5), PointNm(400, 300, 300), 2000.0) == []


def test_the_point_lies_in_the_segment_and_cuts_there() -> None:
    cutout = chain((7, 20, -3))
    for cut in cuts(cutout, ID, PointNm(0, 0, 0), 1e6):
        voxel = cut.point.to_voxel(ISO)
        assert cutout.crop(BoxVx.around(cut.point, 1.0, ISO)).seg[1, 1, 1] == ID
        window = cutout.crop(BoxVx.around(cut.point, 400.0, ISO))
        at = tuple(v / 10 - o for v, o in zip(cut.point, window.box.lo, strict=True))
        sides = partition(window.seg == ID, at, ISO)
        here = [v - o for v, o in zip(voxel, window.box.lo, strict=True)]
        around = sides[tuple(slice(v - 2, v + 3) for v in here)]
        assert {1, 2} <= set(np.unique(around))


def test_another_cursor_finds_the_same_places() -> None:
    whole = chain((3, 5, 9))
    found = []
    for dx in (0, 1, 2, 3):
        at = PointVoxel(83 + dx, 35, 39).to_nm(ISO)
        box = BoxVx(PointVoxel(3 + dx, 5 + dx, 9), whole.box.hi)
        found.append({tuple(c.point) for c in cuts(whole.crop(box), ID, at, 2000.0)})
    assert len(found[0]) == 3
    assert all(f == found[0] for f in found)


def test_necks_that_nearly_coincide_are_one_question() -> None:
    rng = np.random.default_rng(5)
    field = ndimage.gaussian_filter(rng.normal(size=(90, 90, 60)), 4) > 0.0
    seg = np.asfortranarray(field.astype(np.uint64) * np.uint64(ID))
    points = [c.point for c in cuts(cutout_of(seg, ISO), ID, PointNm(450, 450, 300), 1e6)]
    assert len(points) > 5
    for i, a in enumerate(points):
        assert all(a.distance_nm(b) >= SAME_NM for b in points[:i])


def test_a_side_of_dust_is_not_proposed() -> None:
    grid = Grid((80, 60, 60), ISO)
    mask = grid.ball((250, 300, 300), 200) | grid.ball((600, 300, 300), 55)
    mask |= grid.tube((250, 300, 300), (600, 300, 300), 25)
    seg = np.asfortranarray(mask.astype(np.uint64))
    assert cuts(cutout_of(seg, ISO), SegmentId(1), PointNm(400, 300, 300), 1e6) == []


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_cutout_smaller_than_a_cell_has_no_necks(size: int) -> None:
    seg = np.ones((size, size, size), np.uint64, order="F")
    cutout = cutout_of(seg, Resolution(4, 4, 4), (1, 1, 1))
    assert cuts(cutout, SegmentId(1), PointNm(0, 0, 0), 1e6) == []


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "segment", "body"),
    [("ffn_seg", 8, 135602), ("ffn_seg", 104, 58758), ("ws_segment", 8591, 60683)],
)
def test_real_false_mergers_are_cut_where_the_truth_parts_them(
    name: str, segment: int, body: int, shared_data: Path
) -> None:
    with np.load(shared_data / "fib25_medulla_ts2" / "labels_zyx.npz") as file:
        if name == "ffn_seg":
            seg = file["ffn_seg"][:125].transpose(2, 1, 0)
        else:
            of_supervoxel = np.zeros(2**16, np.uint64)
            of_supervoxel[file["ws_sv_to_segment"][:, 0]] = file["ws_sv_to_segment"][:, 1]
            seg = of_supervoxel[file["ws_supervoxel"][:125].transpose(2, 1, 0)]
        truth = file["gt_body"][:125].transpose(2, 1, 0)
    cutout = cutout_of(np.asfortranarray(seg.astype(np.uint64)), ISO)
    mask = cutout.seg == segment
    other = mask & (truth == body)
    at = PointNm.of((np.argwhere(other).mean(axis=0) + 0.5) * 10)
    overlap = []
    for cut in cuts(cutout, SegmentId(segment), at, 800.0)[:6]:
        window = BoxVx.around(cut.point, 640.0, ISO).clip(cutout.box)
        inside = tuple(slice(a, b) for a, b in zip(window.lo, window.hi, strict=True))
        point = tuple(v / 10 - o for v, o in zip(cut.point, window.lo, strict=True))
        sides = partition(mask[inside], point, ISO)
        known = truth[inside] > 0
        for side in (1, 2):
            one, two = (sides == side) & known, other[inside]
            overlap.append(float((one & two).sum() / (one | two).sum()))
    assert max(overlap) > 0.8
