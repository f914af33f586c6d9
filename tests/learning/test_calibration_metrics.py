"""Calibration errors, and what chance alone makes of them."""

import json
import math

import numpy as np
import pytest

from cb2_assist.learning.calibration_metrics import (
    bin_coverage,
    calibration_figures,
    debiased_ece,
    ece,
    perfect_ece,
    reliability,
    wilson,
)
from cb2_assist.learning.metrics import ece15


def made(n, seed=0, true=lambda p: p):
    rng = np.random.default_rng(seed)
    p = rng.beta(0.7, 1.5, n)
    return rng.random(n) < true(p), p


def test_without_weights_it_is_the_known_error():
    answer, p = made(700)
    assert ece(answer, p) == pytest.approx(ece15(answer, p))


def test_a_weight_counts_like_so_many_labels():
    answer, p = made(60)
    weight = np.random.default_rng(1).integers(1, 5, 60)
    again = np.repeat(np.arange(60), weight)

    assert ece(answer, p, weight.astype(float)) == pytest.approx(ece15(answer[again], p[again]))


def test_a_perfect_model_stays_below_its_quantile_as_often_as_it_says():
    below = []
    for seed in range(60):
        answer, p = made(300, seed)
        below.append(ece(answer, p) <= perfect_ece(p, draws=200, seed=seed))

    assert np.mean(below) >= 0.85


def test_an_overconfident_model_is_above_it():
    answer, p = made(2000, true=lambda p: 0.25 + 0.5 * p)
    assert ece(answer, p) > 2 * perfect_ece(p, draws=200)


def test_chance_is_taken_off_the_error():
    plain = [ece(*made(200, s)) for s in range(60)]
    debiased = [debiased_ece(*made(200, s)) for s in range(60)]

    assert np.mean(plain) > 0.05
    assert np.mean(debiased) < 0.6 * np.mean(plain)


def test_a_real_error_stays_after_chance_is_taken_off():
    def wrong(p):
        return np.clip(p + 0.15, 0, 1)

    true_error = ece(*made(400_000, true=wrong))
    debiased = np.mean([debiased_ece(*made(1000, s, true=wrong)) for s in range(20)])

    assert debiased == pytest.approx(true_error, abs=0.02)


def test_a_table_says_what_was_said_and_seen():
    p = np.array([0.05, 0.05, 0.95, 0.95, 0.95, 1.0])
    answer = np.array([False, True, True, True, True, True])
    low, high = reliability(answer, p)

    assert (low.low, low.high, low.n, low.seen) == (0.0, 0.1, 2, 0.5)
    assert (high.n, high.seen) == (4, 1.0)
    assert low.said == pytest.approx(0.05)
    assert low.interval[0] < 0.5 < low.interval[1]


def test_the_bins_of_a_perfect_model_are_covered_and_those_of_a_wrong_one_are_not():
    good = [bin_coverage(reliability(*made(400, s))) for s in range(40)]
    bad = bin_coverage(reliability(*made(4000, true=lambda p: 0.5 + 0 * p)))

    assert 0.9 <= np.mean(good) <= 0.99
    assert bad < 0.4
    assert math.isnan(bin_coverage([]))


def test_wilson_of_a_known_case():
    # Newcombe (1998), table I: 81 of 263
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0.0, 4) == pytest.approx((0.0, 0.490), abs=1e-3)


def test_fewer_effective_labels_widen_the_rows():
    answer, p = made(500)
    uneven = np.where(np.arange(500) % 10 == 0, 10.0, 1.0)
    plain, weighted = reliability(answer, p)[2], reliability(answer, p, uneven)[2]

    assert weighted.n == plain.n
    assert weighted.n_effective < plain.n_effective
    assert np.diff(weighted.interval) > np.diff(plain.interval)


def test_the_figures_are_json():
    document = calibration_figures(*made(200), draws=50)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
