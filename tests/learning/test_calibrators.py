"""Fitted maps on data whose truth is known."""

import numpy as np
import pytest

from cb2_assist.learning.calibrators import (
    LEAST_RARER,
    allowed,
    effective_n,
    fit_best,
    fit_map,
    sample,
)
from cb2_assist.suggestions.recalibration import apply_map, sigmoid


def made(n, true, *, seed=0, spread=2.5):
    """Scores, and answers that follow `true` of the score's log-odds."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, spread, n)
    return z, rng.random(n) < sigmoid(true(z))


def straight(z):
    return 0.6 * z - 1.0


def bent(z):
    return apply_map("beta", (0.3, 1.6, -0.5), z)


def worst(family, parameters, true, at=(-3, 3)):
    z = np.linspace(*at, 61)
    return np.abs(sigmoid(apply_map(family, parameters, z)) - sigmoid(true(z))).max()


@pytest.mark.parametrize(
    ("family", "true", "most"),
    [("platt", straight, 0.02), ("beta", bent, 0.02), ("isotonic", bent, 0.05)],
)
def test_a_known_map_is_recovered(family, true, most):
    assert worst(family, fit_map(family, sample(*made(20_000, true))), true) < most


def test_a_temperature_keeps_the_base_rate_that_it_is_given():
    z, answer = made(20_000, lambda z: 0.5 * z)
    slope, offset = fit_map("temperature", sample(z, answer))

    assert slope == pytest.approx(0.5, abs=0.02)
    assert sigmoid(offset) == pytest.approx(answer.mean(), abs=1e-6)


def test_the_labels_say_how_many_parameters_there_are():
    assert allowed(50, 9.9) == ()
    assert allowed(50, 10) == ("none",)
    assert allowed(50, 15) == ("none", "temperature")
    assert allowed(200, 20) == ("none", "temperature", "platt")
    assert allowed(900, 120) == ("none", "temperature", "platt", "beta")
    assert allowed(1000, 100)[-1] == "isotonic"
    assert allowed(5000, 40)[-1] == "beta"


def test_too_few_labels_bear_no_map():
    z, answer = made(12, straight)
    assert fit_best(sample(z, answer)) is None
    assert fit_best(sample(z, np.ones(12, bool))) is None


@pytest.mark.parametrize(
    ("true", "family"), [(lambda z: z, "none"), (straight, "platt"), (bent, "beta")]
)
def test_with_many_labels_the_true_family_is_chosen(true, family):
    found = fit_best(sample(*made(6000, true)), draws=5)

    assert found.map.family == family
    assert worst(family, found.map.parameters, true) < 0.05


def test_a_shape_that_no_line_fits_gets_the_isotonic_map():
    def step(z):
        return np.where(z < 0, -2.0, 2.0)

    found = fit_best(sample(*made(6000, step)), draws=5)

    assert found.map.family == "isotonic"
    at = np.array([-2.0, -1.0, 1.0, 2.0])
    np.testing.assert_allclose(found.map.probability(at), sigmoid(step(at)), atol=0.06)


def ranked_sample(seed, pool=4000):
    """A pool of which the sites near 1/2 are mostly asked, with the chance of each."""
    z, answer = made(pool, straight, seed=seed)
    chance = np.where(np.abs(z - 1) < 0.7, 0.9, 0.05)
    asked = np.random.default_rng(seed + 1).random(pool) < chance
    return z[asked], answer[asked], 1 / chance[asked]


def test_propensity_weights_give_the_base_rate_of_the_whole_from_a_ranked_sample():
    _, answer = made(200_000, straight)
    truth = answer.mean()
    plain, weighted, covered = [], [], 0
    for seed in range(20):
        zs, a, w = ranked_sample(10 * seed)
        found = fit_best(sample(zs, a, w), draws=60, seed=seed)
        plain.append(a.mean())
        weighted.append(found.map.rate)
        low, high = found.rate_interval
        covered += low <= truth <= high

    assert abs(np.mean(plain) - truth) > 0.04
    assert np.mean(weighted) == pytest.approx(truth, abs=0.015)
    assert covered >= 16


def test_propensity_weights_recover_the_map_that_fits_the_whole():
    """A slope alone is the wrong family here, so that the sample decides what it settles on."""
    z, answer = made(200_000, bent)
    whole = fit_map("platt", sample(z, answer))
    biased = np.random.default_rng(3).random(len(z)) < np.where(np.abs(z) < 0.7, 0.5, 0.02)
    chance = np.where(np.abs(z) < 0.7, 0.5, 0.02)[biased]
    plain = fit_map("platt", sample(z[biased], answer[biased]))
    weighted = fit_map("platt", sample(z[biased], answer[biased], 1 / chance))

    assert weighted == pytest.approx(whole, abs=0.06)
    assert np.abs(np.subtract(plain, whole)).max() > 0.15


def test_unequal_weights_count_as_fewer_labels():
    assert effective_n(np.ones(7)) == pytest.approx(7)
    assert effective_n(np.array([1.0, 0.0, 0.0])) == pytest.approx(1)
    assert effective_n(np.array([10.0] + [1.0] * 10)) < 4
    assert effective_n(np.array([])) == 0


def test_the_drawn_maps_hold_the_truth_about_as_often_as_they_say():
    at, held = np.array([-2.0, 0.0, 2.0]), []
    for seed in range(40):
        found = fit_best(sample(*made(300, straight, seed=seed)), draws=60, seed=seed)
        for z in at:
            low, high = np.quantile(found.map.drawn_logits(z), (0.05, 0.95))
            held.append(low <= straight(z) <= high)

    assert 0.8 <= np.mean(held) <= 0.98


def test_answers_that_the_score_separates_stay_finite():
    z = np.concatenate([np.linspace(-3, -1, 60), np.linspace(1, 3, 60)])
    found = fit_best(sample(z, z > 0), draws=20)

    assert np.isfinite(found.map.parameters).all()
    assert 0.5 < found.map.probability(1.0) < 1


def test_clusters_widen_the_interval():
    z, answer = made(400, straight)
    order = np.argsort(answer, kind="stable")
    alone = fit_best(sample(z[order], answer[order]), draws=80)
    group = np.arange(400) // 20
    together = fit_best(sample(z[order], answer[order], group=group), draws=80)

    def width(found):
        return found.rate_interval[1] - found.rate_interval[0]

    assert width(together) > 2 * width(alone)


def test_the_same_labels_give_the_same_map():
    s = sample(*made(200, straight))
    assert fit_best(s, draws=10).map == fit_best(s, draws=10).map


def test_the_ladder_rises():
    assert list(LEAST_RARER.values()) == sorted(LEAST_RARER.values())
