"""Stops from which every voxel of a segment is within reach, without one stop too many."""

from __future__ import annotations

import numpy as np
import pytest
from dataset_makers import BIG

from cb2_assist.core.errors import SegmentNotFoundError, UsageError
from cb2_assist.core.geometry import BoxVx, PointNm, PointVoxel, Resolution
from cb2_assist.core.records import SegmentId
from cb2_assist.datasets.source import Cutout
from cb2_assist.learning import cover
from cb2_assist.learning.cover import SLACK_NM, Stop, stops_in_box, stops_on_segments
from cb2_assist.settings import SEARCH_RADIUS_NM

HELIX, OTHER, DUST = SegmentId(BIG + 1), SegmentId(BIG + 2), SegmentId(BIG + 3)
REACH_NM = SEARCH_RADIUS_NM - SLACK_NM


class Volume:
    """Voxels in memory that remembers how much of it was read at once."""

    def __init__(self, seg: np.ndarray, resolution: Resolution, lo: PointVoxel) -> None:
        self.seg, self.resolution = seg, resolution
        self.bounds = BoxVx(lo, PointVoxel(*(a + n for a, n in zip(lo, seg.shape, strict=True))))
        self.largest = 0
        self.reads = 0

    def cutout(self, box: BoxVx) -> Cutout:
        whole = Cutout(self.bounds, self.resolution, self.seg.astype(np.uint8), self.seg)
        part = whole.crop(box)
        self.largest = max(self.largest, part.seg.size)
        self.reads += 1
        return part


@pytest.fixture(params=[(16.0, 16.0, 16.0), (8.0, 8.0, 40.0)], ids=["isotropic", "sections"])
def volume(request: pytest.FixtureRequest) -> Volume:
    """A tube that winds through 4.3 µm, a slab beside it, and a speck."""
    resolution = Resolution(*request.param)
    edge = np.array(tuple(resolution))
    shape = np.rint(np.array([3200.0, 3200.0, 4300.0]) / edge).astype(int)
    seg = np.zeros(shape, np.uint64, order="F")
    x, y, z = (np.arange(n) * e for n, e in zip(shape, edge, strict=True))
    cx, cy = 1600 + 1000 * np.cos(z / 900), 1600 + 1000 * np.sin(z / 900)
    away = (x[:, None, None] - cx) ** 2 + (y[None, :, None] - cy) ** 2
    seg[away < 150**2] = HELIX
    seg[:10][seg[:10] == 0] = OTHER
    seg[shape[0] // 2, shape[1] // 2, :2] = DUST
    return Volume(seg, resolution, PointVoxel(7, -30, 11))


def nm_of(volume: Volume, segment: int) -> np.ndarray:
    voxels = np.argwhere(volume.seg == np.uint64(segment)) + np.array(tuple(volume.bounds.lo))
    return (voxels + 0.5) * np.array(tuple(volume.resolution))


def farthest_nm(points: np.ndarray, stops: list[Stop]) -> float:
    at = np.array([tuple(s.at) for s in stops])
    return float(np.linalg.norm(points[:, None] - at, axis=2).min(1).max())


def test_every_voxel_of_a_segment_is_within_reach_of_a_stop(volume: Volume) -> None:
    stops = stops_on_segments(volume, [(HELIX, None)])
    points = nm_of(volume, HELIX)
    assert {s.segment for s in stops} == {HELIX}
    assert farthest_nm(points, stops) <= REACH_NM
    # a tube of 6.2 µm; stops half a micrometre apart would be 13
    assert len(stops) <= 20
    for stop in stops:
        assert np.linalg.norm(points - np.array(tuple(stop.at)), axis=1).min() < 1e-6, "on it"


def test_no_more_than_a_block_is_held(volume: Volume) -> None:
    stops_on_segments(volume, [(HELIX, None)])
    assert volume.largest <= cover.BLOCK_VX**3
    assert volume.largest < volume.seg.size


def test_a_segment_is_followed_from_a_point_on_or_near_it(volume: Volume) -> None:
    points = nm_of(volume, HELIX)
    every = volume.bounds.shape
    n_blocks = np.prod([-(-n // cover.BLOCK_VX) for n in every])
    for at in (points[0], points[len(points) // 2] + [0, 0, 30]):
        volume.reads = 0
        stops = stops_on_segments(volume, [(HELIX, PointNm.of(at))])
        assert farthest_nm(points, stops) <= REACH_NM
        assert volume.reads <= n_blocks
    assert stops == stops_on_segments(volume, [(HELIX, PointNm.of(at))]), "the same each time"


def test_only_blocks_that_the_segment_touches_are_read(volume: Volume) -> None:
    at = PointNm.of(nm_of(volume, OTHER)[0])
    stops_on_segments(volume, [(OTHER, at)])
    x, y, z = (-(-n // cover.BLOCK_VX) for n in volume.bounds.shape)
    assert volume.reads == y * z
    assert x > 1


def test_several_segments_are_covered_one_after_the_other(volume: Volume) -> None:
    stops = stops_on_segments(volume, [(OTHER, None), (HELIX, None)])
    ids = [s.segment for s in stops]
    assert ids == sorted(ids, reverse=True)
    assert farthest_nm(nm_of(volume, OTHER), [s for s in stops if s.segment == OTHER]) <= REACH_NM


def test_a_segment_that_is_not_there_is_said(volume: Volume) -> None:
    with pytest.raises(SegmentNotFoundError, match="12345 was not found"):
        stops_on_segments(volume, [(SegmentId(12345), None)])
    with pytest.raises(SegmentNotFoundError, match="12345 was not found"):
        stops_on_segments(volume, [(SegmentId(12345), PointNm.of(nm_of(volume, HELIX)[0]))])
    with pytest.raises(SegmentNotFoundError, match="outside the volume"):
        stops_on_segments(volume, [(HELIX, PointNm(-1e6, 0, 0))])


def test_a_large_volume_asks_for_a_point(volume: Volume, monkeypatch) -> None:
    monkeypatch.setattr(cover, "MOST_SCANNED_VX", 1000)
    with pytest.raises(UsageError, match="--at"):
        stops_on_segments(volume, [(HELIX, None)])
    at = PointNm.of(nm_of(volume, HELIX)[0])
    assert stops_on_segments(volume, [(HELIX, at)])


def test_a_box_covers_all_its_segments_but_dust(volume: Volume) -> None:
    stops = stops_in_box(volume, volume.bounds)
    assert {s.segment for s in stops} == {HELIX, OTHER}
    for segment in (HELIX, OTHER):
        mine = [s for s in stops if s.segment == segment]
        # thin places between the voxels that are looked at may lie half a step farther
        assert farthest_nm(nm_of(volume, segment), mine) <= REACH_NM + 40
    assert stops == stops_in_box(volume, volume.bounds)


def test_stops_lie_in_the_box(volume: Volume) -> None:
    lo = PointVoxel(*(a + n // 4 for a, n in zip(volume.bounds.lo, volume.seg.shape, strict=True)))
    box = BoxVx(lo, volume.bounds.hi)
    stops = stops_in_box(volume, box)
    assert stops
    assert all(box.contains(s.at.to_voxel(volume.resolution)) for s in stops)


def test_a_box_outside_the_volume_is_refused(volume: Volume) -> None:
    far = BoxVx(PointVoxel(10**6, 0, 0), PointVoxel(10**6 + 1, 1, 1))
    with pytest.raises(UsageError, match="outside the volume"):
        stops_in_box(volume, far)
