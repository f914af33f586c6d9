"""What counts as a true join or cut, and whether the candidates hold it."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from beads import bead_volume

from cb2_assist.core.geometry import BoxVx, PointVoxel, Resolution
from cb2_assist.learning.examples import Volume
from cb2_assist.learning.recall import JOIN_SORTS, TruePair, trials, true_cuts, true_joins

ISO = Resolution(10.0, 10.0, 10.0)
A, B, C, D = (2**60 + n for n in (1, 2, 3, 4))


def volume_of(seg: np.ndarray, truth: np.ndarray) -> Volume:
    box = BoxVx(PointVoxel(0, 0, 0), PointVoxel(*seg.shape))
    return Volume("toy", box, ISO, np.zeros(seg.shape, np.uint8), seg, truth)


def rod(*parts: tuple[int, int, int, int]) -> Volume:
    """Square rods of 160 nm along x: from, to (voxels), segment and body of each."""
    seg, truth = (np.zeros((300, 60, 60), np.uint64, order="F") for _ in range(2))
    for lo, hi, segment, body in parts:
        seg[lo:hi, 22:38, 22:38] = segment
        truth[lo:hi, 22:38, 22:38] = body
    return volume_of(seg, truth)


def found(volume: Volume) -> list[tuple[tuple[int, int], int]]:
    return [(p.segments, round(p.gap_nm)) for p in true_joins(volume)]


def test_pieces_of_one_body_that_touch_are_a_true_join_and_others_are_not() -> None:
    volume = rod((0, 100, A, 1), (100, 200, B, 1), (200, 300, C, 2))
    assert found(volume) == [((A, B), 10)]
    (pair,) = true_joins(volume)
    assert np.abs(pair.places_nm[:, 0] - 1000).max() < 30


def test_across_a_gap_only_the_nearest_way_counts_and_none_beyond_the_reach() -> None:
    # A and C lie 1,000 nm apart; D is a body's piece out of reach
    volume = rod((0, 60, A, 1), (80, 150, B, 1), (170, 220, C, 1), (271, 300, D, 1))
    assert found(volume) == [((A, B), 210), ((B, C), 210)]


def test_pieces_below_the_size_that_counts_are_no_pieces() -> None:
    assert found(rod((0, 100, A, 1), (100, 103, B, 1))) == []


def test_a_gap_filled_by_a_fragment_of_the_body_is_counted_apart() -> None:
    through = true_joins(rod((0, 100, A, 1), (103, 106, C, 1), (109, 200, B, 1)))
    empty = true_joins(rod((0, 100, A, 1), (109, 200, B, 1)))
    foreign = true_joins(rod((0, 100, A, 1), (103, 106, C, 2), (109, 200, B, 1)))
    assert [[p.past_fragment for p in o] for o in (through, empty, foreign)] == [
        [True],
        [False],
        [False],
    ]


def test_a_segment_of_two_large_pieces_is_a_true_cut_where_they_meet() -> None:
    volume = rod((0, 150, A, 1), (150, 300, A, 2))
    (cut,) = true_cuts(volume)
    assert cut.segments == (A, A)
    assert np.allclose(cut.places_nm[:, 0], 1500)
    assert true_joins(volume) == []


def test_a_pair_is_near_when_any_of_its_places_is() -> None:
    pair = TruePair(1, (A, B), 10.0, np.array([[0.0, 0, 0], [5000, 0, 0]]))
    at = PointVoxel(500, 30, 0).to_nm(ISO)
    assert pair.is_near(at, 400)
    assert not pair.is_near(at, 200)


def test_tips_across_a_gap_are_among_the_candidates_and_no_contact_finds_them() -> None:
    said: list[str] = []
    asked = list(trials(rod((0, 130, A, 1), (150, 300, B, 1)), say=said.append))
    assert "1 across a gap" in said[0]
    assert {t.what for t in asked} == {"across a gap"}
    assert len(asked) == 4
    assert all(t.found["candidates"] and t.neighbours == 0 for t in asked)
    assert not any(t.found["every contact"] for t in asked)


def test_the_first_contacts_never_hold_more_than_all_of_them() -> None:
    asked = list(trials(bead_volume(), limit=4, say=lambda _: None))
    assert {t.what for t in asked} <= {*JOIN_SORTS, "cut"}
    number = defaultdict(int)
    for t in asked:
        number[t.what] += 1
        if t.what != "cut":
            assert t.found["largest"] <= t.found["every contact"]
            assert t.found["nearest"] <= t.found["every contact"]
    assert number["touching"] == 4 * 2 * 2, "two cursors on either side of each"


def test_the_same_seed_asks_the_same() -> None:
    one, again = (list(trials(bead_volume(), limit=3, say=lambda _: None)) for _ in range(2))
    assert one == again
    assert one


@pytest.mark.parametrize("limit", [0, 1])
def test_a_limit_bounds_what_is_asked(limit: int) -> None:
    asked = list(trials(bead_volume(), limit=limit, say=lambda _: None))
    assert len([t for t in asked if t.what == "touching"]) == limit * 4
