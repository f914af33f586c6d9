"""Precision that is promised is kept."""

import json

import numpy as np
import pytest

from cb2_assist.learning.precision import (
    DELTA,
    NOT_ENOUGH,
    THRESHOLDS,
    dial,
    dial_document,
    precision_table,
)


def made(n, seed):
    """Scores of which the upper are right less often than they say."""
    rng = np.random.default_rng(seed)
    score = rng.beta(0.6, 0.6, n)
    return score, rng.random(n) < 0.9 * score


TRUTH = {t: made(400_000, 0)[1][made(400_000, 0)[0] >= t].mean() for t in THRESHOLDS}


def test_all_bounds_hold_together_as_often_as_they_say():
    wrong = 0
    for seed in range(300):
        table = precision_table(*made(200, seed + 1))
        wrong += any(row.guaranteed > TRUTH[row.score] for row in table)

    assert wrong / 300 <= DELTA


def test_with_many_labels_the_bound_comes_near_the_precision():
    for row in precision_table(*made(20_000, 1)):
        assert TRUTH[row.score] - 0.05 < row.guaranteed < row.accepted / row.n


def test_the_dial_takes_the_lowest_score_that_reaches_the_target():
    table = precision_table(*made(20_000, 1))
    row = dial(table, 0.8)

    assert row.guaranteed >= 0.8
    assert all(r.guaranteed < 0.8 for r in table if r.score < row.score)


@pytest.mark.parametrize("n", [0, 5, 20])
def test_few_labels_are_not_enough_even_when_all_are_right(n):
    document = dial_document(np.full(n, 0.999), np.ones(n, bool))

    assert {d["score"] for d in document["dial"] if d["precision"] >= 0.9} == {NOT_ENOUGH}
    assert document["n_random"] == n
    json.dumps(document, allow_nan=False)


def test_a_precision_above_what_there_is_is_never_promised():
    document = dial_document(*made(50_000, 2))
    assert next(d["score"] for d in document["dial"] if d["precision"] == 0.95) == NOT_ENOUGH
