"""Necks of a segment and the two sides at each."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from cb2_assist.core.geometry import Resolution
from cb2_assist.views import cells
from cb2_assist.views.partition import Neck, necks, partition, warm_up
from tests.candidates.shapes import Grid

ISO = Resolution(10.0, 10.0, 10.0)
ANISOTROPIC = Resolution(8.0, 8.0, 40.0)


def dumbbell(grid: Grid) -> np.ndarray:
    """Balls of 220 and 180 nm at x = 350 and 950 nm, joined by a tube of 40 nm."""
    return (
        grid.ball((350.0, 640.0, 640.0), 220.0)
        | grid.ball((950.0, 640.0, 640.0), 180.0)
        | grid.tube((350.0, 640.0, 640.0), (950.0, 640.0, 640.0), 40.0)
    )


def only_neck(mask: np.ndarray, resolution: Resolution) -> Neck:
    (neck,) = necks(mask, resolution)
    return neck


@pytest.mark.parametrize(
    ("shape", "resolution"),
    [((129, 129, 129), ISO), ((161, 161, 33), ANISOTROPIC), ((33, 33, 33), Resolution(40, 40, 40))],
)
def test_a_dumbbell_is_cut_in_its_handle(
    shape: tuple[int, int, int], resolution: Resolution
) -> None:
    grid = Grid(shape, resolution)
    mask = dumbbell(grid)
    neck = only_neck(mask, resolution)
    x, y, z = np.array(neck.point_vx) * list(resolution)
    assert 350 + 150 < x < 950 - 120
    assert (y, z) == pytest.approx((640, 640), abs=max(20.0, *resolution))
    assert neck.reason == "neck"
    sides = partition(mask, neck.point_vx, resolution)
    assert np.array_equal(sides > 0, mask)
    at = np.broadcast_to(grid.x, shape)
    assert (sides[mask & (at < 500)] == 1).all()
    assert (sides[mask & (at > 840)] == 2).all()


def test_a_neck_is_measured() -> None:
    neck = only_neck(dumbbell(Grid((129, 129, 129), ISO)), ISO)
    assert neck.radius_nm == pytest.approx(40, rel=0.08)
    assert neck.area_nm2 == pytest.approx(np.pi * 40**2, rel=0.15)
    # thickness is known to about a cell of 20 nm
    assert (40 - 25) / 180 < neck.ratio < (40 + 25) / 180
    # the handle may belong to either side
    balls = [4 / 3 * np.pi * r**3 for r in (180, 220)]
    assert neck.side_nm3 == pytest.approx(balls, rel=0.06)


def test_cutting_at_a_neck_gives_the_sides_that_it_names() -> None:
    rng = np.random.default_rng(7)
    checked = 0
    for _ in range(3):
        mask = np.asfortranarray(ndimage.gaussian_filter(rng.normal(size=(60, 70, 50)), 4) > 0.01)
        for neck in necks(mask, ISO)[:15]:
            sides = partition(mask, neck.point_vx, ISO)
            volumes = np.bincount(sides.ravel(), minlength=3)[1:] * 1000.0
            assert tuple(sorted(volumes)) == pytest.approx(neck.side_nm3)
            # the point is on a voxel face between the two sides
            axis = next(a for a in range(3) if neck.point_vx[a] % 1 == 0)
            above = np.floor(neck.point_vx).astype(int)
            below = above - np.eye(3, dtype=int)[axis]
            assert {sides[tuple(above)], sides[tuple(below)]} == {1, 2}
            checked += 1
    assert checked > 20


def test_the_nearest_of_two_necks_is_cut() -> None:
    grid = Grid((150, 60, 60), ISO)
    mask = grid.tube((200, 300, 300), (1300, 300, 300), 40)
    for x in (200, 750, 1300):
        mask |= grid.ball((x, 300, 300), 150)
    for x, alone in ((480.0, 200), (1020.0, 1300)):
        sides = partition(mask, (x / 10, 30, 30), ISO)
        assert sides[alone // 10, 30, 30] == 2
        assert sides[75, 30, 30] == 1


@pytest.mark.parametrize(
    "ends",
    [
        ((0, 640, 640), (1280, 200, 640), (1280, 1080, 640)),
        ((100, 640, 640), (1200, 640, 640), (640, 100, 700)),
        ((640, 640, 0), (640, 100, 1200), (640, 1200, 1200)),
    ],
)
def test_arms_of_a_junction_of_equal_tubes_can_be_cut(
    ends: tuple[tuple[float, float, float], ...],
) -> None:
    grid = Grid((129, 129, 129), ISO)
    mask = np.zeros((129, 129, 129), bool, order="F")
    for end in ends:
        mask |= grid.tube((640, 640, 640), end, 70)
    found = necks(mask, ISO)
    assert {n.reason for n in found} == {"junction"}
    tips = [tuple(int(min(v, 1280)) // 10 for v in end) for end in ends]
    cut_off = set()
    for neck in found:
        assert np.linalg.norm(np.array(neck.point_vx) * 10 - 640) < 300
        sides = partition(mask, neck.point_vx, ISO)
        at_tips = [int(sides[t]) for t in tips]
        assert sorted(at_tips) in ([1, 1, 2], [1, 2, 2])
        cut_off.add(at_tips.index(1 if at_tips.count(1) == 1 else 2))
    assert cut_off == {0, 1, 2}


@pytest.mark.parametrize("end", [(1290, 640, 640), (1290, 900, 700)])
def test_a_plain_tube_has_no_neck_where_the_window_cuts_it(end: tuple[float, ...]) -> None:
    grid = Grid((129, 129, 129), ISO)
    inside = grid.tube((0, 640, 640), end, 90)[20:-20, 10:-10, 10:-10]
    assert necks(np.asfortranarray(inside), ISO) == []


def test_without_a_neck_the_cut_is_a_plane_across_the_segment() -> None:
    grid = Grid((100, 40, 40), ISO)
    mask = grid.tube((0, 200, 200), (1000, 200, 200), 80)
    sides = partition(mask, (40.0, 20.0, 20.0), ISO)
    x = np.argwhere(sides == 2)[:, 0]
    assert (x.min(), x.max()) == (0, 39)
    assert np.array_equal(sides > 0, mask)


def test_a_ball_falls_into_halves_wherever_the_point_is() -> None:
    mask = Grid((60, 60, 60), ISO).ball((300, 300, 300), 200)
    for point in ((30.0, 30.0, 30.0), (0.0, 0.0, 0.0), (-500.0, 3.0, 90.0)):
        sides = partition(mask, point, ISO)
        assert (sides == 1).sum() >= (sides == 2).sum() > 0


def test_a_ring_of_two_bulbs_is_cut_into_its_bulbs() -> None:
    grid = Grid((120, 120, 40), ISO)
    mask = grid.ring((600, 600, 200), 400, 50)
    mask |= grid.ball((200, 600, 200), 160) | grid.ball((1000, 600, 200), 150)
    assert necks(mask, ISO)
    sides = partition(mask, (60.0, 100.0, 20.0), ISO)
    assert sides[20, 60, 20] == 1
    assert sides[100, 60, 20] == 2
    assert np.array_equal(sides > 0, mask)


def test_a_loop_of_three_bulbs_gives_each_bulb_to_the_nearer_side() -> None:
    grid = Grid((130, 130, 40), ISO)
    centres = [(250.0, 300.0, 200.0), (1050.0, 300.0, 200.0), (550.0, 1050.0, 200.0)]
    mask = np.zeros((130, 130, 40), bool, order="F")
    for i, centre in enumerate(centres):
        mask |= grid.ball(centre, 170 - 10 * i)
        mask |= grid.tube(centre, centres[i - 1], 40)
    sides = partition(mask, (65.0, 30.0, 20.0), ISO)
    a, b, c = (int(sides[tuple(int(v) // 10 for v in p)]) for p in centres)
    assert {a, b} == {1, 2}
    assert c == a  # the third is nearer to the first
    assert np.array_equal(sides > 0, mask)


def test_parts_that_do_not_touch_are_left_out() -> None:
    grid = Grid((129, 129, 129), ISO)
    apart = grid.ball((640, 200, 200), 100)
    sides = partition(dumbbell(grid) | apart, (64.0, 64.0, 64.0), ISO)
    assert not sides[apart].any()
    assert set(np.unique(sides)) == {0, 1, 2}


def test_a_gap_of_one_voxel_separates() -> None:
    mask = np.zeros((40, 20, 20), bool, order="F")
    mask[:20] = mask[21:] = True
    sides = partition(mask, (5.0, 10.0, 10.0), ISO)
    assert not sides[21:].any()
    assert sides[:20].all()


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_the_smallest_masks(count: int) -> None:
    mask = np.zeros((9, 9, 9), np.uint8, order="F")
    mask[3 : 3 + count, 4, 4] = 1
    for resolution in (ISO, ANISOTROPIC):
        sides = partition(mask, (4.5, 4.5, 4.5), resolution)
        assert np.array_equal(sides > 0, mask > 0)
        if count >= 2:
            assert (sides == 2).any()
        assert (sides == 1).sum() >= (sides == 2).sum()


def test_equal_sides_are_named_by_the_first_voxel() -> None:
    mask = np.zeros((8, 3, 3), bool, order="F")
    mask[:, 1, 1] = True
    sides = partition(mask, (4.0, 1.5, 1.5), ISO)
    assert sides[:, 1, 1].tolist() == [1, 1, 1, 1, 2, 2, 2, 2]


def test_a_full_window_is_cut_too() -> None:
    sides = partition(np.ones((20, 30, 20), bool, order="F"), (10.0, 15.0, 10.0), ISO)
    assert np.bincount(sides.ravel()).tolist() == [0, 6000, 6000]


def test_memory_order_and_dtype_do_not_matter() -> None:
    mask = dumbbell(Grid((129, 129, 129), ISO))
    neck = only_neck(mask, ISO)
    expected = partition(mask, neck.point_vx, ISO)
    for other in (
        np.ascontiguousarray(mask),
        mask.astype(np.uint8),
        np.pad(mask, 1)[1:-1, 1:-1, 1:-1],
    ):
        assert only_neck(other, ISO) == neck
        assert np.array_equal(partition(other, neck.point_vx, ISO), expected)
    assert expected.flags.f_contiguous


def test_thickness_is_the_distance_transform() -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        shape = rng.integers(2, 24, 3)
        mask = np.asfortranarray(ndimage.gaussian_filter(rng.normal(size=shape), 1.5) > -0.05)
        if mask.all() or not mask.any():
            continue
        edge = rng.uniform(5, 40, 3)
        got = cells.thickness(np.asfortranarray(mask.astype(np.int32)), 1, edge, 1e6)
        exact = ndimage.distance_transform_edt(mask, sampling=edge) - 0.5 * edge.min()
        assert np.abs(got - exact)[mask].max() <= 1.0  # 1 nm: thickness is kept above zero
        assert not got[~mask].any()


@pytest.mark.shared
@pytest.mark.benchmark
def test_a_window_of_real_neurites_is_partitioned_fast(
    shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load(shared_data / "fib25_medulla_ts2" / "labels_zyx.npz") as file:
        seg = file["ffn_seg"].transpose(2, 1, 0)[60:189, 40:169, :125]
    warm_up()
    for segment in np.unique(seg)[1:]:
        mask = np.asfortranarray(seg == segment)
        if not 100_000 <= mask.sum() <= 300_000:
            continue
        took = []
        for _ in range(5):
            start = time.perf_counter()
            partition(mask, (64.0, 64.0, 64.0), ISO)
            took.append(time.perf_counter() - start)
        with capsys.disabled():
            print(f"\npartition, {mask.sum()} of {mask.size} voxels: {1e3 * min(took):.0f} ms")
        assert min(took) < 0.3
