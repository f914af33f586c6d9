"""Contacts of one segment: exact areas, exact ids, points that stay put."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cb2_assist.candidates.joins import APART_NM, contacts, cutout_half_width_nm
from cb2_assist.core.geometry import BoxVx, PointNm, PointVoxel, Resolution
from cb2_assist.core.records import SegmentId
from tests.candidates.shapes import cutout_of

BIG = 2**60
FAR = 1e7


def labels(shape: tuple[int, int, int], seed: int, count: int = 6) -> NDArray[np.uint64]:
    """Blocky random labels above 2**53, some of them background."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, count, [-(-n // 2) for n in shape])
    fine = np.kron(coarse, np.ones((2, 2, 2), int))[: shape[0], : shape[1], : shape[2]]
    seg = np.where(rng.random(shape) < 0.1, rng.integers(0, count, shape), fine)
    return np.asfortranarray(np.where(seg > 0, seg + BIG, 0).astype(np.uint64))


def brute_force_area(
    seg: NDArray[np.uint64], segment: int, resolution: Resolution, reach: tuple[int, int, int]
) -> dict[int, float]:
    """Area per neighbour, looked up from each voxel along each axis in plain Python."""
    area: dict[int, float] = {}
    r = list(resolution)
    for at in np.argwhere(seg == np.uint64(segment)):
        for axis in range(3):
            for sign in (-1, 1):
                q = at.copy()
                for _ in range(reach[axis]):
                    q[axis] += sign
                    if not 0 <= q[axis] < seg.shape[axis]:
                        break
                    other = int(seg[tuple(q)])
                    if other == segment:
                        break
                    if other:
                        area[other] = area.get(other, 0) + r[0] * r[1] * r[2] / r[axis]
                        break
    return area


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("resolution", "gap_nm", "reach"),
    [
        (Resolution(10, 10, 10), 0.0, (2, 2, 2)),
        (Resolution(10, 10, 10), 60.0, (7, 7, 7)),
        (Resolution(8, 8, 40), 60.0, (8, 8, 2)),
        (Resolution(4, 16, 33), 30.0, (8, 2, 2)),
    ],
)
def test_areas_equal_a_brute_force_count(
    seed: int, resolution: Resolution, gap_nm: float, reach: tuple[int, int, int]
) -> None:
    seg = labels((13, 11, 9), seed)
    segment = BIG + 1
    middle = PointNm(0.0, 0.0, 0.0)
    found = contacts(cutout_of(seg, resolution), SegmentId(segment), middle, FAR, gap_nm)
    expected = brute_force_area(seg, segment, resolution, reach)
    assert {c.partner: pytest.approx(c.area_nm2) for c in found} == expected
    assert [c.area_nm2 for c in found] == sorted((c.area_nm2 for c in found), reverse=True)


@pytest.mark.parametrize("seed", range(6))
def test_both_segments_see_the_same_contact(seed: int) -> None:
    seg = labels((14, 12, 10), seed)
    cutout = cutout_of(seg, Resolution(8.0, 8.0, 40.0), (100, 2000, 30))
    at, one = PointNm(900, 16040, 1400), SegmentId(BIG + 1)
    found = contacts(cutout, one, at, FAR)
    assert len(found) == 4
    for contact in found:
        (back,) = (c for c in contacts(cutout, contact.partner, at, FAR) if c.partner == one)
        assert (back.point, back.area_nm2) == (contact.point, contact.area_nm2)
        assert back.direct == contact.direct


@pytest.mark.parametrize("seed", range(6))
def test_points_lie_on_a_face_between_the_two(seed: int) -> None:
    resolution, lo = Resolution(8.0, 8.0, 40.0), (100, 2000, 30)
    seg = labels((14, 12, 10), seed)
    seg[seg == 0] = BIG + 9
    one = SegmentId(BIG + 1)
    for contact in contacts(cutout_of(seg, resolution, lo), one, PointNm(0, 0, 0), FAR):
        at = np.array(list(contact.point)) / list(resolution) - lo
        (axis,) = np.flatnonzero(at % 1 == 0)
        above = np.floor(at).astype(int)
        below = above - np.eye(3, dtype=int)[axis]
        assert {int(seg[tuple(above)]), int(seg[tuple(below)])} == {one, contact.partner}


def test_ids_that_differ_in_the_last_bit_are_two_neighbours() -> None:
    seg = np.zeros((9, 4, 4), np.uint64, order="F")
    ids = [2**63 + 2**53 + k for k in range(3)]
    seg[:3], seg[3:6], seg[6:] = ids[1], ids[0], ids[2]
    cutout = cutout_of(seg, Resolution(10, 10, 10))
    at = PointNm(45, 20, 20)
    assert {c.partner for c in contacts(cutout, SegmentId(ids[0]), at, FAR)} == {ids[1], ids[2]}
    (only,) = contacts(cutout, SegmentId(ids[1]), at, FAR)
    assert only.partner == ids[0]
    assert only.area_nm2 == 16 * 100
    assert contacts(cutout, SegmentId(ids[0] + 3), at, FAR) == []


@pytest.mark.parametrize(
    ("gap", "resolution", "found"),
    [
        (0, Resolution(10, 10, 10), True),
        (6, Resolution(10, 10, 10), True),
        (7, Resolution(10, 10, 10), False),
        (1, Resolution(40, 10, 10), True),
        (2, Resolution(40, 10, 10), False),
        (1, Resolution(100, 10, 10), True),
    ],
)
def test_thin_background_does_not_hide_a_neighbour(
    gap: int, resolution: Resolution, found: bool
) -> None:
    seg = np.zeros((20, 5, 5), np.uint64, order="F")
    seg[:5], seg[5 + gap :] = 7, 8
    got = contacts(cutout_of(seg, resolution), SegmentId(7), PointNm(0, 0, 0), FAR)
    assert bool(got) is found
    if found:
        (contact,) = got
        assert contact.area_nm2 == 25 * resolution.y * resolution.z
        assert contact.direct == (1.0 if gap == 0 else 0.0)
        middle = ((5 + gap / 2) * resolution.x, 2.5 * resolution.y, 2.5 * resolution.z)
        assert tuple(contact.point) == pytest.approx(middle)


def test_a_third_segment_in_the_gap_hides_what_is_behind() -> None:
    seg = np.zeros((9, 1, 1), np.uint64, order="F")
    seg[:, 0, 0] = [5, 5, 0, 6, 0, 7, 7, 0, 5]
    cutout = cutout_of(seg, Resolution(10, 10, 10))
    assert [c.partner for c in contacts(cutout, SegmentId(5), PointNm(0, 0, 0), FAR)] == [6, 7]


def strip(places: list[int]) -> NDArray[np.uint64]:
    """A slab of segment 1 with pads of segment 2 on it at these places along x."""
    seg = np.zeros((200, 10, 10), np.uint64, order="F")
    seg[:, :, :5] = 1
    for i, x in enumerate(places):
        seg[x : x + 4 + i, 3:7, 5:] = 2
    return seg


@pytest.mark.parametrize(
    ("places", "areas"), [([10, 30], [36]), ([10, 90], [20, 16]), ([10, 80, 150], [24, 20])]
)
def test_patches_that_lie_apart_are_separate_and_the_largest_two_stay(
    places: list[int], areas: list[int]
) -> None:
    cutout = cutout_of(strip(places), Resolution(10, 10, 10))
    found = contacts(cutout, SegmentId(1), PointNm(1000, 50, 50), FAR, gap_nm=0)
    straight = [c for c in found if c.partner == 2]
    assert [c.area_nm2 for c in straight] == [100 * a for a in areas]
    if len(straight) == 2:
        assert straight[0].point.distance_nm(straight[1].point) > APART_NM


def test_only_contacts_within_the_radius_count() -> None:
    cutout = cutout_of(strip([10, 90, 150]), Resolution(10, 10, 10))
    at = PointNm(920, 50, 50)
    (near,) = contacts(cutout, SegmentId(1), at, 200.0)
    assert near.point.distance_nm(at) == near.distance_nm < 200
    assert contacts(cutout, SegmentId(1), PointNm(500, 50, 50), 200.0) == []


def sheet_stack() -> NDArray[np.uint64]:
    """Two slabs that touch over 3 x 3 µm at 20 nm, and pillars through the upper one."""
    seg = np.zeros((150, 150, 30), np.uint64, order="F")
    seg[:, :, :15], seg[:, :, 15:] = 1, 2
    for i, (x, y) in enumerate(((60, 70), (75, 75), (90, 62), (70, 90))):
        seg[x : x + 4, y : y + 4, 15:] = 10 + i
    return seg


def test_another_cursor_finds_the_same_sites() -> None:
    resolution = Resolution(20, 20, 20)
    whole = cutout_of(sheet_stack(), resolution, (1000, 0, 50))
    found = []
    for voxel in ((1075, 75, 64), (1073, 77, 62)):
        at = PointVoxel(*voxel).to_nm(resolution)
        cutout = whole.crop(BoxVx.around(at, cutout_half_width_nm(500.0), resolution))
        assert cutout.box != whole.box
        got = contacts(cutout, SegmentId(1), at, 500.0)
        found.append({c.partner: c.point for c in got})
        assert all(p.distance_nm(at) <= 500 for p in found[-1].values())
    # the pillars are seen whole; the endless contact of the slabs is asked about block by block
    assert found[0] == found[1]
    assert set(found[0]) == {2, 10, 11, 12, 13}


def test_a_contact_at_the_end_of_the_dataset_is_whole() -> None:
    seg = np.zeros((40, 40, 40), np.uint64, order="F")
    seg[:, :, :20], seg[:, :, 20:] = 1, 2
    cutout = cutout_of(seg, Resolution(10, 10, 10))
    for at in (PointNm(205, 205, 195), PointNm(100, 300, 150)):
        (contact,) = contacts(cutout, SegmentId(1), at, 800.0)
        assert tuple(contact.point) == (195.0, 195.0, 200.0)
