"""Two models on the same decisions."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import binom

from cb2_assist.core.records import Kind
from cb2_assist.learning.compare import compare, compare_task, mcnemar
from cb2_assist.learning.judged import MODALITIES, SUBSETS, Judged

N = 200


def judged(score, *, answer=None, key=None, kind=Kind.JOIN) -> Judged:
    n = len(score)
    answer = np.arange(n) % 2 == 0 if answer is None else answer
    return Judged(
        kind,
        np.array([f"d{i}" for i in range(n)] if key is None else key),
        answer,
        np.array([f"body{i // 5}" for i in range(n)]),
        np.full(n, "mouse"),
        np.full(n, "merge_edit"),
        {name: np.array(score, float) for name in SUBSETS},
        {name: np.ones(n, bool) for name in MODALITIES},
    )


def scores(right: np.ndarray) -> np.ndarray:
    answer = np.arange(len(right)) % 2 == 0
    return np.where(right == answer, 0.8, 0.2)


def test_mcnemar_is_the_two_sided_binomial_test_of_what_only_one_gets_right() -> None:
    first = np.array([1] * 12 + [0] * 3 + [1] * 20 + [0] * 5, bool)
    second = np.array([0] * 12 + [1] * 3 + [1] * 20 + [0] * 5, bool)
    got = mcnemar(first, second)

    assert (got["only_first_right"], got["only_second_right"]) == (12, 3)
    assert (got["both_right"], got["both_wrong"]) == (20, 5)
    assert got["p"] == pytest.approx(2 * binom.cdf(3, 15, 0.5))


def test_models_that_are_right_alike_do_not_differ() -> None:
    right = np.random.default_rng(0).random(N) < 0.8
    got = compare_task(judged(scores(right)), judged(scores(right)), 50)

    assert got["mcnemar"]["p"] == 1.0
    assert got["difference"]["balanced_accuracy"]["value"] == 0
    assert got["difference"]["balanced_accuracy"]["ci95"] == [0, 0]


def test_a_better_model_is_found_better_and_the_other_way_round() -> None:
    rng = np.random.default_rng(1)
    good, bad = judged(scores(rng.random(N) < 0.95)), judged(scores(rng.random(N) < 0.7))
    there, back = compare_task(good, bad, 200), compare_task(bad, good, 200)

    low, high = there["difference"]["balanced_accuracy"]["ci95"]
    assert 0 < low < there["difference"]["balanced_accuracy"]["value"] < high
    assert there["mcnemar"]["p"] < 0.001
    assert back["difference"]["accuracy"]["value"] == -there["difference"]["accuracy"]["value"]


def test_pairing_is_narrower_than_two_intervals_apart() -> None:
    rng = np.random.default_rng(2)
    right = rng.random(N) < 0.8
    almost = right ^ (rng.random(N) < 0.02)
    first, second = judged(scores(right)), judged(scores(almost))
    low, high = compare_task(first, second, 200)["difference"]["accuracy"]["ci95"]
    alone = first.task(200)["accuracy"]["ci95"]

    assert high - low < (alone[1] - alone[0]) / 2


def test_only_decisions_that_both_were_asked_count_and_in_any_order() -> None:
    right = np.random.default_rng(0).random(N) < 0.8
    first = judged(scores(right))
    order = np.random.default_rng(1).permutation(N)[: N - 10]
    second = judged(scores(right)).take(order)
    got = compare_task(first, second, 20)

    assert (got["n"], got["only_first"], got["only_second"]) == (N - 10, 10, 0)
    assert got["mcnemar"]["p"] == 1.0, "the same decision is compared with itself"


def test_nothing_in_common_is_said() -> None:
    got = compare_task(judged([0.2, 0.7]), judged([0.2, 0.7], key=["x", "y"]), 20)
    assert got == {"n": 0, "only_first": 2, "only_second": 2, "other_answer": 0}


def test_decisions_whose_answers_differ_are_left_out() -> None:
    answer = np.array([True, False, True, False])
    other = np.array([True, False, True, True])
    got = compare_task(
        judged([0.9, 0.1, 0.9, 0.1], answer=answer),
        judged([0.9, 0.1, 0.9, 0.1], answer=other),
        20,
    )
    assert (got["n"], got["other_answer"]) == (3, 1)


def test_a_decision_without_a_score_is_wrong() -> None:
    got = compare_task(judged([np.nan, 0.1, 0.9, 0.1]), judged([0.9, 0.1, 0.9, 0.1]), 20)
    assert got["mcnemar"]["only_second_right"] == 1
    assert got["difference"]["accuracy"]["value"] == -0.25


def test_one_answer_alone_has_no_balanced_difference_and_is_json() -> None:
    one = judged([0.9, 0.2, 0.8], answer=np.ones(3, bool))
    got = compare([one], [one], 20)

    assert got["join"]["difference"]["balanced_accuracy"]["value"] is None
    json.dumps(got, allow_nan=False)


def test_a_task_of_one_model_only_is_not_compared() -> None:
    assert compare([judged([0.2, 0.7])], [judged([0.2, 0.7], kind=Kind.CUT)], 20) == {}
