"""Blocks cover a volume once, keep to memory and to chunks; what is counted in blocks adds up."""

from __future__ import annotations

import math

import numpy as np
import pytest
from dataset_makers import BIG
from dataset_makers import blocks as boxes_of_segments

from cb2_assist.datasets import segment_table
from cb2_assist.datasets.importer import grid_of
from cb2_assist.datasets.segment_table import EmHistogram, SegmentSizes, VersionDigest
from cb2_assist.datasets.voxels import Layout, blocks, cubes, slices
from cb2_assist.datasets.writer import content_version

CASES = [
    ((300, 200, 130), Layout(), 64**3),
    ((300, 200, 130), Layout(), 2 * 64**3),
    ((300, 200, 130), Layout((128, 64, 64), (0, 1, 2)), 3 * 64**3),
    ((64, 64, 64), Layout(), 64**3),
    ((5000, 70, 3), Layout(), 64**3),
    ((10, 900, 900), Layout((64, 64, 64), (0, 2, 1)), 64**3),
]


@pytest.mark.parametrize(("shape", "layout", "most"), CASES)
def test_blocks_cover_every_voxel_once_from_chunk_to_chunk(shape, layout, most):
    for parts in (blocks(shape, layout, most), cubes(shape, most)):
        seen = np.zeros(shape, np.uint8)
        for box in parts:
            seen[slices(box)] += 1
            assert all(v % 64 == 0 for v in box.lo)
            assert math.prod(box.shape) <= max(most, math.prod(layout.unit))
        assert (seen == 1).all()


def test_the_slowest_axis_advances_last():
    parts = blocks((300, 200, 130), Layout(slowest_first=(1, 2, 0)), 64**3)
    places = [(b.lo.y, b.lo.z, b.lo.x) for b in parts]
    assert places == sorted(places)


def test_sizes_from_blocks_are_those_of_the_whole(monkeypatch):
    monkeypatch.setattr(segment_table, "_LOOSE", 20)
    seg = boxes_of_segments((150, 90, 100), 17)
    sizes = SegmentSizes()
    for box in blocks(seg.shape, Layout(), 64**3):
        sizes.see(seg[slices(box)])
    ids, counts = sizes.table()
    wanted = np.unique(seg[seg > 0], return_counts=True)
    np.testing.assert_array_equal(ids, wanted[0])
    np.testing.assert_array_equal(counts, wanted[1])
    assert ids.min() > BIG
    assert len(SegmentSizes().table()[0]) == 0


def test_the_version_does_not_depend_on_blocks_and_changes_with_any_voxel():
    seg = boxes_of_segments((150, 90, 100), 17)
    grid = grid_of((8, 8, 40))

    def version(volume):
        digest = VersionDigest(f"{tuple(grid.resolution)} {tuple(grid.lo)}", volume.shape)
        for box in reversed(blocks(volume.shape, Layout(), 64**3)):
            digest.see(box, volume[slices(box)])
        return digest.hexdigest()

    whole = content_version(seg, grid)
    assert version(seg) == whole
    for place in ((0, 0, 0), (149, 89, 99), (64, 63, 64)):
        other = seg.copy(order="F")
        other[place] += np.uint64(1)
        assert version(other) != whole


def test_grey_statistics_from_blocks_are_those_of_the_whole():
    em = np.random.default_rng(0).integers(0, 256, (90, 70, 80), np.uint8)
    histogram = EmHistogram()
    for box in blocks(em.shape, Layout(), 64**3):
        histogram.see(em[slices(box)])
    mean, std = histogram.mean_std()
    assert mean == pytest.approx(float(em.mean()), abs=1e-9)
    assert std == pytest.approx(float(em.std()), abs=1e-9)
