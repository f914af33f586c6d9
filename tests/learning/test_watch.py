"""Validation figures: at equal priors and at the natural one, and by sample type."""

from __future__ import annotations

import numpy as np
import pytest

from cb2_assist.learning.watch import line, validation_figures

RNG = np.random.default_rng(0)


def calibrated_at_equal_priors(n: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds whose likelihood ratio is what they say, in a set with few true decisions."""
    answer = RNG.random(n) < share
    # two normal curves 2 apart with unit variance: log likelihood ratio is 2 x
    return answer, 2 * (RNG.normal(size=n) + np.where(answer, 1.0, -1.0))


def test_both_priors_are_told_and_a_network_right_at_both_is_right_at_both() -> None:
    answer, logit = calibrated_at_equal_priors(40_000, 0.05)
    found = validation_figures(answer, logit, np.full(len(answer), "x"))

    assert found["n_positive"] == int(answer.sum())
    assert found["ece15"] < 0.01
    assert found["ece15_equal"] < 0.02
    # few true ones: what is uncertain at 50:50 is mostly settled at the natural prior
    assert found["nll"] < found["nll_equal"]


def test_a_network_that_leans_to_yes_is_shown_to_at_either_prior() -> None:
    answer, logit = calibrated_at_equal_priors(20_000, 0.05)
    found = validation_figures(answer, logit + 2, np.full(len(answer), "x"))

    assert found["ece15"] > 0.03
    assert found["ece15_equal"] > 0.05


def test_equal_priors_do_not_depend_on_the_mixture() -> None:
    answer = np.array([True, False])
    logit = np.array([1.0, -2.0])
    few = validation_figures(answer, logit, np.array(["a", "a"]))
    many = np.array([1, *[0] * 9]) > 0
    more = validation_figures(many, np.where(many, 1.0, -2.0), np.full(10, "a"))

    assert more["nll_equal"] == pytest.approx(few["nll_equal"], rel=1e-4)
    assert more["nll"] != pytest.approx(few["nll"], rel=0.1)


def test_each_type_has_its_own_figures() -> None:
    answer = np.array([True, False, False, False])
    logit = np.array([1.0, 1.0, -1.0, -1.0])
    found = validation_figures(answer, logit, np.array(["a", "parallel", "parallel", "a"]))

    assert found["by_type"] == {
        "a": {"n": 2, "n_positive": 1, "sensitivity": 1.0, "specificity": 1.0},
        "parallel": {"n": 2, "n_positive": 0, "sensitivity": None, "specificity": 0.5},
    }
    assert "parallel 0.50" in line("join-all", found)


def test_a_set_of_one_answer_has_no_balanced_figures_and_a_line_all_the_same() -> None:
    found = validation_figures(np.zeros(3, bool), np.array([-1.0, 0.5, 2]), np.full(3, "a"))

    assert found["balanced_accuracy"] is None
    assert found["auroc"] is None
    assert "none" in line("join-all", found)
