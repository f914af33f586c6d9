"""Agreement beyond chance, against published examples and other implementations."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from cb2_assist.learning.agreement_stats import (
    cohen_kappa,
    fleiss_kappa,
    krippendorff_alpha,
    marginal_homogeneity,
    raw_agreement,
)


def counted(*raters: str) -> np.ndarray:
    """(item, category) from one text a rater; a dot is a missing rating."""
    names = sorted({c for rater in raters for c in rater} - {"."})
    return np.array(
        [[sum(r[i] == c for r in raters) for c in names] for i in range(len(raters[0]))]
    )


class TestKrippendorff:
    """K. Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), examples A, B and C."""

    def test_binary_data_of_two_observers(self) -> None:
        found = krippendorff_alpha(counted("0100000010", "1110010000"))
        assert found.value == pytest.approx(0.095, abs=5e-4)
        assert found.n == 10

    def test_nominal_data_of_two_observers(self) -> None:
        found = krippendorff_alpha(counted("aabbdcccedda", "babbbccceddd"))
        assert found.value == pytest.approx(0.692, abs=5e-4)

    def test_nominal_data_of_any_number_with_missing_ones(self) -> None:
        found = krippendorff_alpha(
            counted("123321412...", "1233224125.3", ".3332342251.", "12332441251.")
        )
        assert found.value == pytest.approx(0.743, abs=5e-4)
        assert found.n == 11, "the twelfth has one rating"


# ten subjects by fourteen raters: the worked example of
# https://en.wikipedia.org/wiki/Fleiss%27_kappa
FOURTEEN_RATERS = np.array(
    [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]
)


def test_fleiss_kappa_of_a_worked_example() -> None:
    assert fleiss_kappa(FOURTEEN_RATERS).value == pytest.approx(0.210, abs=5e-4)


def test_fleiss_kappa_is_that_of_statsmodels() -> None:
    from statsmodels.stats import inter_rater

    rng = np.random.default_rng(1)
    for _ in range(5):
        counts = rng.multinomial(4, rng.dirichlet(np.ones(3)), size=40)
        assert fleiss_kappa(counts, draws=1).value == pytest.approx(
            inter_rater.fleiss_kappa(counts, method="fleiss")
        )


def test_cohen_kappa_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(2)
    for share in (0.1, 0.5, 0.9):
        first = rng.random(60) < share
        second = np.where(rng.random(60) < 0.8, first, rng.random(60) < share)
        found = cohen_kappa(first, second, draws=1).value
        assert found == pytest.approx(cohen_kappa_score(first, second))


def test_mcnemar_is_the_binomial_test_of_what_differs() -> None:
    first = np.repeat([True, True, False, False], [20, 12, 3, 9])
    second = np.repeat([True, False, True, False], [20, 12, 3, 9])
    found = marginal_homogeneity(first, second)
    assert (found["only_first_accepts"], found["only_second_accepts"]) == (12, 3)
    assert (found["both_accept"], found["neither_accepts"]) == (20, 9)
    # twice the lower tail of fifteen fair coins: (1 + 15 + 105 + 455) / 2**15
    assert found["p"] == pytest.approx(2 * 576 / 32768)


def test_two_raters_give_all_figures_the_same_sign_and_alpha_tends_to_kappa() -> None:
    rng = np.random.default_rng(3)
    first = rng.random(2000) < 0.3
    second = np.where(rng.random(2000) < 0.85, first, ~first)
    counts = np.column_stack([2 - first - second.astype(int), first + second.astype(int)])
    alpha, fleiss = krippendorff_alpha(counts, draws=1), fleiss_kappa(counts, draws=1)
    assert alpha.value == pytest.approx(fleiss.value, abs=1e-3)
    assert raw_agreement(counts).value == pytest.approx((first == second).mean())


def test_raters_that_always_say_the_same_have_no_kappa() -> None:
    everything = np.ones(20, bool)
    assert cohen_kappa(everything, everything).to_json() == {"value": None, "ci95": None, "n": 20}
    counts = np.column_stack([np.zeros(20, int), np.full(20, 3)])
    assert fleiss_kappa(counts).value is krippendorff_alpha(counts).value is None


def test_nothing_rated_twice_has_no_figure() -> None:
    counts = np.array([[1, 0], [0, 1]])
    for figure in (fleiss_kappa, krippendorff_alpha, raw_agreement):
        assert figure(counts).to_json() == {"value": None, "ci95": None, "n": 0}
    nobody = np.zeros(0, bool)
    assert cohen_kappa(nobody, nobody).n == 0


def test_an_interval_that_half_of_the_draws_cannot_have_is_none() -> None:
    # one item in twenty differs: most draws of two items have no reject at all
    first, second = np.array([True, True]), np.array([True, False])
    assert cohen_kappa(first, second).ci95 is not None
    rare = np.ones(30, bool)
    rare[0] = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cohen_kappa(rare, rare).value == 1.0


@pytest.mark.parametrize("figure", [krippendorff_alpha, fleiss_kappa])
def test_intervals_hold_the_truth_as_often_as_they_say(figure) -> None:
    """Two raters of fair coins that agree with probability 0.8: kappa and alpha are 0.6."""
    held = 0
    for seed in range(120):
        rng = np.random.default_rng(seed)
        first = rng.random(150) < 0.5
        second = np.where(rng.random(150) < 0.8, first, ~first)
        counts = np.column_stack([2 - first - second.astype(int), first + second.astype(int)])
        low, high = figure(counts, draws=300, seed=seed).ci95
        held += low <= 0.6 <= high
    assert 0.88 <= held / 120 <= 0.99
