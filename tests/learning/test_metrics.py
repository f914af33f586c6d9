"""Figures against scikit-learn, and intervals that mean something."""

import math

import numpy as np
import pytest
from sklearn import metrics as reference

from cb2_assist.learning.metrics import (
    auroc,
    balanced_accuracy,
    brier,
    ece15,
    figures,
)


@pytest.fixture(scope="module")
def made():
    rng = np.random.default_rng(5)
    p = np.round(rng.beta(2, 2, 400), 2)  # rounded: ties occur
    return rng.random(400) < p, p, rng.integers(0, 40, 400)


def test_balanced_accuracy(made):
    answer, p, _ = made
    assert balanced_accuracy(answer, p) == pytest.approx(
        reference.balanced_accuracy_score(answer, p > 0.5)
    )


def test_auroc_with_ties(made):
    answer, p, _ = made
    assert auroc(answer, p) == pytest.approx(reference.roc_auc_score(answer, p))


def test_brier(made):
    answer, p, _ = made
    assert brier(answer, p) == pytest.approx(reference.brier_score_loss(answer, p))


def test_calibrated_answers_have_a_small_calibration_error():
    rng = np.random.default_rng(0)
    p = rng.random(200_000)
    answer = rng.random(len(p)) < p

    assert ece15(answer, p) < 0.01
    assert ece15(answer, p**3) > 0.05


def test_calibration_error_of_a_known_case():
    answer = np.array([True, True, True, False])

    assert ece15(answer, np.full(4, 0.95)) == pytest.approx(0.2)


@pytest.mark.parametrize("answer", [np.ones(3, bool), np.zeros(3, bool)])
@pytest.mark.parametrize("metric", [auroc, balanced_accuracy])
def test_one_answer_alone_has_no_figure(metric, answer):
    assert math.isnan(metric(answer, np.array([0.1, 0.5, 0.9])))


def test_intervals_hold_the_value_and_repeat(made):
    first, again = figures(*made, draws=200), figures(*made, draws=200)

    assert first == again
    for figure in first.values():
        assert figure.low < figure.value < figure.high


def test_clusters_that_share_their_luck_widen_the_interval():
    rng = np.random.default_rng(1)
    answer = np.arange(400) % 2 == 0
    group = np.arange(400) // 20
    lucky = rng.random(20) < 0.7
    p = np.where(lucky[group] == answer, 0.9, 0.1)

    by_group = figures(answer, p, group, draws=300)["balanced_accuracy"]
    by_pair = figures(answer, p, np.arange(400), draws=300)["balanced_accuracy"]

    assert by_group.high - by_group.low >= by_pair.high - by_pair.low


def test_a_few_groups_of_one_answer_still_give_a_figure():
    answer = np.array([True, True, False, False])
    got = figures(answer, np.array([0.9, 0.8, 0.1, 0.2]), np.array([0, 0, 1, 1]), draws=50)

    assert got["auroc"].value == 1.0
