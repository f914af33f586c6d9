"""Expected run length: by hand on small skeletons, and kept in step with joins."""

from __future__ import annotations

import numpy as np
import pytest
from grounds import rod_ground

from cb2_assist.core.geometry import Resolution
from cb2_assist.learning.overlaps import JoinedSegments
from cb2_assist.learning.run_length import MERGED_NM, Runs, Skeletons, skeletonise


def chain(*segments: int, step_nm: float = 100.0, body: int = 7) -> Skeletons:
    n = len(segments)
    return Skeletons(
        np.array(segments, np.uint64),
        np.full(n, body, np.uint64),
        np.stack([np.arange(n - 1), np.arange(1, n)], 1),
        np.full(n - 1, step_nm),
    )


def both(one: Skeletons, two: Skeletons) -> Skeletons:
    return Skeletons(
        np.concatenate([one.segment, two.segment]),
        np.concatenate([one.body, two.body]),
        np.concatenate([one.edge, two.edge + len(one.segment)]),
        np.concatenate([one.length_nm, two.length_nm]),
    )


IDS = np.array([1, 2, 3], np.uint64)


def test_a_body_in_two_pieces_has_two_runs_until_they_are_joined() -> None:
    runs = Runs(chain(1, 1, 1, 2, 2), IDS)
    assert runs.expected_nm == pytest.approx((200**2 + 100**2) / 400)
    runs.join(0, 1)
    assert runs.expected_nm == pytest.approx(400**2 / 400)


def test_background_breaks_a_run_for_good() -> None:
    runs = Runs(chain(1, 1, 0, 2, 2), IDS)
    runs.join(1, 0)
    assert runs.expected_nm == pytest.approx(2 * 100**2 / 400)


def test_a_segment_that_holds_cable_of_two_bodies_counts_nothing() -> None:
    n = int(MERGED_NM / 100) + 1
    runs = Runs(both(chain(*[1] * n), chain(*[2] * n, body=8)), IDS)
    whole = runs.expected_nm
    assert whole == pytest.approx(MERGED_NM)
    runs.join(0, 1)
    assert runs.expected_nm == 0
    touch = Runs(both(chain(*[1] * n), chain(*[2] * (n - 1), body=8)), IDS)
    before = touch.expected_nm
    touch.join(0, 1)
    assert touch.expected_nm == pytest.approx(before), "less than that is a touch"


def test_joins_in_any_order_end_alike_and_a_copy_goes_its_own_way() -> None:
    ground = rod_ground()
    segments = ground.segments
    start = Runs(ground.skeletons, segments)
    ends = []
    for seed in range(3):
        joined, runs = JoinedSegments(ground.overlaps, segments), start.copy()
        for row in np.random.default_rng(seed).permutation(np.flatnonzero(ground.is_true)):
            at = (np.searchsorted(segments, p[row]) for p in (ground.pairs.a, ground.pairs.b))
            groups = joined.join(*map(int, at))
            if groups:
                runs.join(*groups)
        ends.append(runs.expected_nm)
    assert ends[1:] == pytest.approx(ends[:2])
    assert start.expected_nm == Runs(ground.skeletons, segments).expected_nm < ends[0]


def test_the_skeleton_of_a_rod_is_about_as_long_as_the_rod() -> None:
    truth = np.zeros((40, 40, 200), np.uint64)
    truth[12:28, 12:28, 10:190] = 9
    found = skeletonise(truth, truth, Resolution(10, 10, 10))
    assert set(found.body.tolist()) == {9}
    assert found.length_nm.sum() == pytest.approx(1800, rel=0.1)
    assert len(found.edge) == len(found.segment) - 1, "a tree"
    nothing = skeletonise(truth * 0, truth * 0, Resolution(10, 10, 10))
    assert Runs(nothing, IDS).expected_nm == 0
