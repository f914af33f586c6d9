"""Intervals hold in a place that the calibration has not seen, and are no wider than that takes."""

import numpy as np
import pytest

from cb2_assist.core.records import BaseRate, Kind
from cb2_assist.learning.calibrate import fit_scale
from cb2_assist.learning.elsewhere import LEAST_PLACES, between, elsewhere, places
from cb2_assist.suggestions.calibration import calibrator_from_card

EACH = 150
"""Decisions in a place."""
LOGITS = (-4.0, -1.5, 0.0, 1.5, 4.0)
EVEN = BaseRate(0.5, "default", 0)


def world(n_places, spread, seed, each=EACH):
    """Decisions in places along x, each with log temperature and bias of its own around 0."""
    rng = np.random.default_rng(seed)
    off = rng.normal(0, 1, (n_places, 2)) * spread
    place = np.repeat(np.arange(n_places), each)
    answer = np.arange(len(place)) % 2 == 0
    z = 2 * rng.normal(np.where(answer, 1.0, -1.0), 1.0)
    logit = (z - off[place, 1]) * np.exp(off[place, 0])
    return logit, answer, np.arange(len(place)) // 4, place


def calibrators(logit, answer, group, place):
    """With the variance between places, and without."""
    scale = fit_scale(logit, answer, group)
    found = elsewhere(logit, answer, place, scale)
    both = []
    for one in ({**scale, "elsewhere": found}, scale):
        card = {"name": "t", "calibration": {"join": one, "cut": one}}
        both.append(calibrator_from_card(card))
    return found, *both


def ends(calibrator):
    """Lower and upper end at `LOGITS`, (2, n)."""
    both = [calibrator.interval(Kind.JOIN, v, EVEN, reliable=True) for v in LOGITS]
    return np.array(both).T


def held(calibrator, spread, seed):
    """Share of 2000 places not seen whose true probability lies in the interval, mean of logits."""
    off = np.random.default_rng(seed).normal(0, 1, (2000, 2, 1)) * np.array(spread)[:, None]
    true = 1 / (1 + np.exp(-(np.array(LOGITS) * np.exp(-off[:, 0]) + off[:, 1])))
    low, high = ends(calibrator)
    return float(((low <= true) & (true <= high)).mean())


def test_the_interval_holds_in_a_place_that_was_not_seen():
    spread, shares = (0.2, 0.6), []
    for seed in range(6):
        _, wide, narrow = calibrators(*world(12, spread, seed, each=300))
        shares.append((held(wide, spread, 9), held(narrow, spread, 9)))
    with_places, without = np.mean(shares, 0)

    assert 0.85 <= with_places <= 0.97
    assert without < 0.4


def test_places_that_do_not_differ_leave_the_interval_nearly_what_it_was():
    ratios = []
    for seed in range(4):
        _, wide, narrow = calibrators(*world(16, (0.0, 0.0), seed))
        ratios.append((np.diff(ends(wide), axis=0) / np.diff(ends(narrow), axis=0)).mean())

    assert np.median(ratios) < 1.5
    assert min(ratios) > 0.85


def test_few_places_leave_the_interval_as_it_was_and_say_so():
    found, wide, narrow = calibrators(*world(LEAST_PLACES - 1, (0.2, 0.6), 0))

    assert found["draws"] == []
    assert found["places"] == LEAST_PLACES - 1
    assert f"only {LEAST_PLACES - 1} of the {LEAST_PLACES} blocks" in found["why"]
    np.testing.assert_array_equal(ends(wide), ends(narrow))
    assert wide.id == narrow.id


def test_the_spread_between_places_is_found():
    spreads = []
    for seed in range(2):
        logit, answer, _, place = world(24, (0.3, 0.6), seed, each=300)
        scale = {"temperature": 1.0, "bias": 0.0, "draws": [[1.0, 0.0]]}
        found = elsewhere(logit, answer, place, scale)
        spreads.append((found["sd_log_temperature"], found["sd_bias"]))

    np.testing.assert_allclose(np.mean(spreads, 0), (0.3, 0.6), rtol=0.2)


def test_the_same_decisions_give_the_same_draws():
    first, *_ = calibrators(*world(12, (0.2, 0.6), 3))
    again, *_ = calibrators(*world(12, (0.2, 0.6), 3))

    assert first == again
    assert np.array(first["draws"]).shape == (200, 2)


def test_a_place_without_an_error_is_not_taken_as_certain():
    logit, answer, group, place = world(12, (0.0, 0.0), 1)
    first = place == 0
    logit[first] = np.where(answer[first], 1, -1) * np.abs(logit[first])
    found, *_ = calibrators(logit, answer, group, place)

    assert found["places"] == 12
    assert found["sd_bias"] < 0.3
    assert np.isfinite(found["draws"]).all()


def test_places_of_one_log_odds_or_beyond_all_measure_do_not_stop_a_training():
    logit, answer, group, place = world(12, (0.0, 0.0), 1)
    logit[place < 2] = 0.25
    logit[place == 2] = np.where(answer[place == 2], 4000.0, -4000.0)
    scale = fit_scale(logit, answer, group)
    found = elsewhere(logit, answer, place, scale)

    assert found["places"] == 9
    assert np.isfinite(found["draws"]).all()
    assert np.array(found["draws"])[:, 0].min() > 0


def test_decisions_of_no_place_are_left_out():
    logit, answer, group, place = world(10, (0.2, 0.6), 2)
    scale = fit_scale(logit, answer, group)
    some = elsewhere(logit, answer, np.where(place == 9, -1, place), scale)
    rest = place < 9

    assert some["places"] == 9
    assert some == elsewhere(logit[rest], answer[rest], place[rest], scale)


def test_places_are_blocks_of_one_source_with_enough_of_either_answer():
    rng = np.random.default_rng(0)
    point = rng.random((3000, 3)) * (4000, 2000, 1000)
    answer = rng.random(3000) < 0.25
    source = np.where(np.arange(3000) < 2900, "large", "small")
    found = places(source, point, answer)
    most = places(source[:2900], point[:2900], answer[:2900])

    np.testing.assert_array_equal(found[:2900], most)
    assert (found[source == "small"] == -1).all(), "25 of 100 are too few"
    mine = source == "large"
    assert set(found[mine]) == set(range(found.max() + 1))
    assert found.max() + 1 >= 8
    for k in range(found.max() + 1):
        at = found == k
        assert min(answer[at].sum(), (~answer[at]).sum()) >= 40
        low, high = point[at].min(0), point[at].max(0)
        inside = ((point >= low) & (point <= high)).all(1) & mine
        assert (found[inside] == k).all()


@pytest.mark.parametrize("true", [0.0, 0.25])
def test_variance_between_estimates_is_told_from_their_noise(true):
    rng = np.random.default_rng(4)
    noise = rng.uniform(0.05, 0.5, 4000)
    estimate = rng.normal(3.0, np.sqrt(true + noise))

    assert between(estimate, noise) == pytest.approx(true, abs=0.02)


@pytest.mark.parametrize(("n", "least"), [(6000, 160), (2400, 80), (1200, 40)])
def test_places_are_as_large_as_leaves_enough_of_them(n, least):
    rng = np.random.default_rng(1)
    answer = np.arange(n) % 2 == 0
    found = places(np.full(n, "a part"), rng.random((n, 3)), answer)
    count = np.bincount(found)

    assert len(count) >= LEAST_PLACES
    assert 2 * least <= count.min()
