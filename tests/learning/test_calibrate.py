"""Fitted scales recover known ones."""

import numpy as np
import pytest

from cb2_assist.core.errors import DatasetError
from cb2_assist.learning.calibrate import fit_scale


def decisions(n, temperature, bias, seed=0, positive=0.5):
    """Log-odds that are right after division by the temperature, at a prior of `positive`."""
    rng = np.random.default_rng(seed)
    answer = rng.random(n) < positive
    # two normals with unit spread: the true log-odds at even priors are 2 * x
    x = rng.normal(np.where(answer, 1.0, -1.0), 1.0)
    return (2 * x - bias) * temperature, answer, np.arange(n) // 4


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("positive", [0.5, 0.1])
def test_a_known_scale_is_recovered_whatever_the_base_rate(temperature, positive):
    fit = fit_scale(*decisions(6000, temperature, 0.4, positive=positive))

    assert fit["temperature"] == pytest.approx(temperature, rel=0.12)
    assert fit["bias"] == pytest.approx(0.4, abs=0.12)


def test_draws_surround_the_fit_and_narrow_with_data():
    few, many = (fit_scale(*decisions(n, 2.0, 0.0)) for n in (200, 5000))

    spreads = []
    for fit in (few, many):
        t = np.array(fit["draws"])[:, 0]
        assert t.min() < fit["temperature"] < t.max()
        spreads.append(t.std())
    assert spreads[0] > 2 * spreads[1]


def test_separable_answers_stay_finite():
    answer = np.arange(100) % 2 == 0
    fit = fit_scale(np.where(answer, 5.0, -5.0), answer, np.arange(100))

    assert 0.01 < fit["temperature"] < 100
    assert np.isfinite(fit["draws"]).all()


def test_few_answers_fit_no_bias():
    fit = fit_scale(*decisions(60, 1.0, 2.0, positive=0.2))

    assert fit["bias"] == 0.0
    assert fit["n"] == 60


def test_the_reference_keeps_the_scores_of_either_answer():
    logit, answer, group = decisions(3000, 1.0, 0.0, positive=0.1)
    true, false = (
        np.array(fit_scale(logit, answer, group)["reference"][k]) for k in ("true", "false")
    )

    assert (len(true), len(false)) == (int(answer.sum()), 400)
    np.testing.assert_allclose(np.sort(true), np.sort(logit[answer]), atol=0.001)
    for share in (0.1, 0.5, 0.9):
        assert np.quantile(false, share) == pytest.approx(
            np.quantile(logit[~answer], share), abs=0.05
        )


@pytest.mark.parametrize("answer", [True, False])
def test_one_answer_alone_is_refused_in_words(answer):
    with pytest.raises(DatasetError, match=r"same answer.*wider validation slab"):
        fit_scale(np.zeros(50), np.full(50, answer), np.arange(50))
