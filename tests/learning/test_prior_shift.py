"""A base rate from scores alone: right where only the prior moved, refused elsewhere."""

import numpy as np
import pytest

from cb2_assist.learning.calibrators import sample
from cb2_assist.learning.prior_shift import (
    BOUNDS,
    Reference,
    estimate_rate,
    mixture_distance,
    most_likely_rate,
)
from cb2_assist.suggestions.recalibration import sigmoid

STRENGTH = 4.0
"""Scores are normal with this variance and means +-half of it: calibrated log-odds at 50:50."""


def true_and_false(n_true, n_false, seed, strength=STRENGTH):
    rng = np.random.default_rng(seed)
    sd = np.sqrt(strength)
    return rng.normal(strength / 2, sd, n_true), rng.normal(-strength / 2, sd, n_false)


def target(n, rate, seed, **kind):
    k = round(n * rate)
    return np.concatenate(true_and_false(k, n - k, seed, **kind))


@pytest.fixture(scope="module")
def reference():
    return Reference(*true_and_false(300, 400, 1))


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.8])
def test_a_shift_of_prior_is_estimated(reference, rate):
    found = estimate_rate(target(1500, rate, 7), reference)

    assert found.refused == ""
    assert found.rate == pytest.approx(rate, abs=0.04)


def test_a_shift_of_prior_is_seldom_refused_and_its_interval_holds_the_rate():
    refused = held = 0
    for seed in range(30):
        reference = Reference(*true_and_false(200, 200, 100 + seed))
        found = estimate_rate(target(600, 0.2, seed), reference, draws=60, seed=seed)
        refused += bool(found.refused)
        held += found.interval[0] <= 0.2 <= found.interval[1]

    assert refused <= 5
    assert held >= 25


@pytest.mark.parametrize(
    "shifted",
    [
        lambda z: z + 2.0,  # all scores move: the covariates are others
        lambda z: 0.3 * z,  # a model that knows less here
        lambda z: np.where(z > 0, 0.2 * z, z),  # true sites look otherwise
    ],
    ids=["moved", "squeezed", "true sites differ"],
)
def test_another_shift_is_refused_in_words(reference, shifted):
    found = estimate_rate(shifted(target(1500, 0.3, 5)), reference)

    assert found.rate is None
    assert "not those of the reference" in found.refused or "bound" in found.refused


def test_a_change_of_the_answers_shows_in_labels_alone(reference):
    z = target(1500, 0.3, 3)
    rng = np.random.default_rng(0)
    asked = rng.choice(z, 60, replace=False)
    as_foretold = rng.random(60) < sigmoid(asked + np.log(0.3 / 0.7))
    otherwise = rng.random(60) < sigmoid(-asked)

    assert estimate_rate(z, reference, labels=sample(asked, as_foretold)).refused == ""
    assert (
        "labels contradict" in estimate_rate(z, reference, labels=sample(asked, otherwise)).refused
    )


def test_scores_of_one_kind_give_no_rate(reference):
    found = estimate_rate(np.full(500, -9.0), reference)

    assert found.rate is None
    assert "bound" in found.refused


def test_scores_that_say_little_give_no_rate():
    weak = Reference(*true_and_false(300, 300, 1, strength=0.02))
    found = estimate_rate(target(300, 0.4, 2, strength=0.02), weak)

    assert found.rate is None
    assert "sharp" in found.refused or "bound" in found.refused


@pytest.mark.parametrize(
    ("n", "k", "words"), [(99, 300, "99 unlabelled sites"), (500, 29, "29 sites of its rarer")]
)
def test_too_few_are_refused_in_words(n, k, words):
    found = estimate_rate(target(n, 0.3, 1), Reference(*true_and_false(k, 300, 1)))
    assert words in found.refused


def test_the_fixed_point_is_that_of_the_iteration():
    z = target(400, 0.15, 4)
    rate = 0.5
    for _ in range(3000):
        rate = sigmoid(z + np.log(rate / (1 - rate))).mean()

    assert most_likely_rate(z) == pytest.approx(rate, abs=1e-6)


@pytest.mark.parametrize("z", [-800.0, 800.0])
def test_extreme_scores_stay_within_the_bounds(z):
    assert BOUNDS[0] <= most_likely_rate(np.full(5, z)) <= BOUNDS[1]


def test_the_distance_of_a_mixture_from_itself_is_nothing():
    true, false = true_and_false(50, 50, 0)
    both = np.concatenate([true, false])

    assert mixture_distance(both, Reference(true, false), 0.5) == pytest.approx(0, abs=1e-12)
    assert mixture_distance(true, Reference(true, false), 0.0) > 0.5
