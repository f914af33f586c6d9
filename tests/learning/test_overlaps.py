"""VOI after joins, kept in step, is the VOI of the joined volume."""

from __future__ import annotations

import numpy as np
import pytest
from fixtures_fib25 import fib25_arrays
from grounds import rod_ground, rods

from cb2_assist.datasets.errors_count import count_errors
from cb2_assist.learning.overlaps import JoinedSegments, Overlaps


def test_joins_keep_the_voi_of_the_joined_volume() -> None:
    """Right and wrong joins, each against counting every voxel anew."""
    volume, ground = rods(), rod_ground()
    segments = ground.segments
    state, seg = JoinedSegments(ground.overlaps, segments), volume.seg.copy()
    rng = np.random.default_rng(1)
    for row in rng.permutation(len(ground.pairs))[:25]:
        a, b = (int(np.searchsorted(segments, p[row])) for p in (ground.pairs.a, ground.pairs.b))
        told, before = state.change(a, b), state.voi
        state.join(a, b)
        ids = seg[volume.seg == ground.pairs.a[row]][0], seg[volume.seg == ground.pairs.b[row]][0]
        seg[seg == ids[1]] = ids[0]
        counted = count_errors(seg, volume.truth)
        assert state.voi_split == pytest.approx(counted.voi_split, abs=1e-9)
        assert state.voi_merge == pytest.approx(counted.voi_merge, abs=1e-9)
        assert state.voi - before == pytest.approx(told, abs=1e-9)


def test_a_copy_goes_its_own_way() -> None:
    ground = rod_ground()
    state = JoinedSegments(ground.overlaps, ground.segments)
    other = state.copy()
    other.join(0, 1)
    assert state.group[0] != state.group[1]
    assert other.join(1, 0) is None
    assert (state.voi, other.voi) != (other.voi, other.voi)
    assert JoinedSegments(ground.overlaps, ground.segments).voi == state.voi


def test_background_is_left_out() -> None:
    seg = np.array([[[0, 1, 1, 2, 2, 0]]])
    truth = np.array([[[5, 5, 5, 5, 0, 0]]])
    counted = Overlaps.count(seg, truth)
    assert list(zip(counted.segment, counted.body, counted.voxels, strict=True)) == [
        (1, 5, 2),
        (2, 5, 1),
    ]


@pytest.mark.shared
@pytest.mark.parametrize(("which", "split", "merge"), [("ws", 2.376, 0.330), ("ffn", 0.613, 0.263)])
def test_fib25_starts_where_it_was_published_to(shared_data, which, split, merge) -> None:
    arrays = fib25_arrays(shared_data, which)
    overlaps = Overlaps.count(arrays["seg"], arrays["truth"])
    state = JoinedSegments(overlaps, np.unique(overlaps.segment))
    assert (round(state.voi_split, 3), round(state.voi_merge, 3)) == (split, merge)
