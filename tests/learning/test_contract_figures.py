"""The figures of metrics.json against scikit-learn, and what they say where there is nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn import metrics as reference

from cb2_assist.learning.contract_figures import (
    FIGURES,
    Ranked,
    cluster_weights,
    contract_figures,
    interval,
)
from cb2_assist.learning.metrics import at_base_rate, ece15


@pytest.fixture(scope="module")
def made():
    rng = np.random.default_rng(5)
    score = np.round(rng.beta(2, 2, 400), 2)  # rounded: ties occur
    answer = rng.random(400) < score
    return answer, score, rng.integers(0, 40, 400), rng.integers(0, 4, 400).astype(float)


def test_weighted_figures_are_those_of_scikit_learn(made) -> None:
    answer, score, _, w = made
    got = Ranked(answer, score).figures(w)
    rate = (w @ answer) / w.sum()
    confidence = at_base_rate(score, rate)
    said, yes = score > 0.5, confidence > 0.5
    expected = {
        "balanced_accuracy": reference.balanced_accuracy_score(answer, said, sample_weight=w),
        "accuracy": reference.accuracy_score(answer, said, sample_weight=w),
        "auroc": reference.roc_auc_score(answer, score, sample_weight=w),
        "average_precision": reference.average_precision_score(answer, score, sample_weight=w),
        "brier": reference.brier_score_loss(answer, confidence, sample_weight=w),
        "nll": reference.log_loss(answer, confidence, sample_weight=w),
        "brier_score": reference.brier_score_loss(answer, score, sample_weight=w),
        "nll_score": reference.log_loss(answer, score, sample_weight=w),
        "sensitivity": reference.recall_score(answer, yes, sample_weight=w),
        "specificity": reference.recall_score(~answer, ~yes, sample_weight=w),
        "precision": reference.precision_score(answer, yes, sample_weight=w),
    }
    assert {k: got[k] for k in expected} == pytest.approx(expected)


def test_a_weight_is_as_many_copies(made) -> None:
    answer, score, _, w = made
    copies = np.repeat(np.arange(len(w)), w.astype(int))
    got = Ranked(answer, score).figures(w, 0.3)
    again = Ranked(answer[copies], score[copies]).figures(np.ones(len(copies)), 0.3)

    assert got == pytest.approx(again)
    assert got["ece15_score"] == pytest.approx(ece15(answer[copies], score[copies]))


def test_confidence_is_at_the_sets_own_base_rate_unless_one_is_given(made) -> None:
    answer, score, _, _ = made
    ranked, one = Ranked(answer, score), np.ones(len(answer))

    assert ranked.figures(one) == ranked.figures(one, float(answer.mean()))
    assert ranked.figures(one, 0.05)["sensitivity"] < ranked.figures(one)["sensitivity"]
    assert ranked.figures(one, 0.05)["auroc"] == ranked.figures(one)["auroc"]


def test_a_decision_without_a_score_is_wrong_in_accuracy_and_half_in_auroc() -> None:
    answer = np.array([True, True, False, False])
    got = Ranked(answer, np.array([0.9, np.nan, 0.1, np.nan])).figures(np.ones(4), 0.5)
    half = Ranked(answer, np.array([0.9, 0.5, 0.1, 0.5])).figures(np.ones(4), 0.5)

    assert (got["accuracy"], got["balanced_accuracy"]) == (0.5, 0.5)
    assert got["auroc"] == half["auroc"] == 0.875
    assert (got["sensitivity"], got["specificity"], got["precision"]) == (0.5, 0.5, 1.0)
    assert got["brier"] == pytest.approx(0.01), "calibration is of what was answered"


def test_nothing_scored_is_all_wrong_and_has_no_calibration() -> None:
    answer = np.array([True, False, True])
    got = contract_figures(answer, np.full(3, np.nan), np.arange(3), draws=20)

    assert (got["n"], got["n_scored"]) == (3, 0)
    assert got["accuracy"]["value"] == 0
    assert got["auroc"]["value"] == 0.5
    assert got["ece15"] == {"value": None, "ci95": None}


@pytest.mark.parametrize("one", [True, False])
def test_one_answer_alone_has_an_accuracy_and_nothing_that_needs_both(one) -> None:
    got = contract_figures(np.full(6, one), np.linspace(0.1, 0.9, 6), np.arange(6), draws=20)

    assert got["accuracy"]["value"] == 0.5
    for name in ("balanced_accuracy", "auroc", "average_precision", "ece15", "precision"):
        assert got[name] == {"value": None, "ci95": None}, name
    json.dumps(got, allow_nan=False)


def test_one_cluster_has_figures_but_no_interval(made) -> None:
    answer, score, _, _ = made
    got = contract_figures(answer, score, np.zeros(len(answer)), draws=50)

    assert got["n_clusters"] == 1
    assert all(got[k]["value"] is not None and got[k]["ci95"] is None for k in FIGURES)


def test_no_decisions_are_said_and_not_divided_by() -> None:
    none = np.zeros(0)
    assert contract_figures(none.astype(bool), none, none)["n"] == 0


def test_intervals_hold_the_value_repeat_and_widen_with_clusters() -> None:
    rng = np.random.default_rng(1)
    answer = np.arange(400) % 2 == 0
    body = np.arange(400) // 20
    lucky = rng.random(20) < 0.7
    score = np.where(lucky[body] == answer, 0.9, 0.1)

    by_body = contract_figures(answer, score, body, draws=300)
    by_pair = contract_figures(answer, score, np.arange(400), draws=300)

    assert by_body == contract_figures(answer, score, body, draws=300)
    (low, high), value = by_body["accuracy"]["ci95"], by_body["accuracy"]["value"]
    assert low < value < high
    pair = by_pair["accuracy"]["ci95"]
    assert high - low > 2 * (pair[1] - pair[0])


def test_a_draw_takes_whole_clusters() -> None:
    cluster = np.repeat(["a", "b", "c"], [1, 4, 2])
    for w in cluster_weights(cluster, 20, 0):
        assert all(len(set(w[cluster == name])) == 1 for name in "abc")
        assert sum(w[cluster == name][0] for name in "abc") == 3


def test_an_interval_of_few_values_is_none() -> None:
    assert interval(np.array([0.5, np.nan, np.nan])) is None
    assert interval(np.zeros(0)) is None
    assert interval(np.array([0.5, 0.5, np.nan])) == [0.5, 0.5]
