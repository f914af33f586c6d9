from __future__ import annotations

import numpy as np
import pytest

from cb2_assist.core.errors import DatasetError
from cb2_assist.learning.finetune_fit import Prior, check_enough, fit_head, folds_of, level_for
from cb2_assist.learning.finetune_report import before_and_after, verdict
from cb2_assist.learning.finetune_split import components, split_labels
from cb2_assist.learning.finetune_tokens import Tokens
from cb2_assist.model.network import N_TOKENS, N_VIEWS


def tokens(joins: tuple[int, int] = (0, 0), cuts: tuple[int, int] = (0, 0)) -> Tokens:
    """So many accepted and rejected."""
    task = np.repeat([0, 1], [sum(joins), sum(cuts)])
    answer = np.repeat([True, False, True, False], [*joins, *cuts])
    n = len(task)
    return Tokens(
        np.zeros((n, N_VIEWS, 2), np.float32),
        np.zeros((n, 1), np.float32),
        np.zeros((n, 0), np.float32),
        np.ones((n, N_TOKENS), bool),
        task,
        answer,
        np.zeros((n, 0), np.float32),
    )


@pytest.mark.parametrize(
    ("labels", "base", "level"),
    [
        (tokens((500, 500)), None, "head"),
        (tokens((10, 9)), tokens((9, 9)), "head"),
        (tokens((5, 15)), tokens((9, 9)), "decision"),
        (tokens((100, 300)), tokens((9, 9)), "measured"),
        # two questions: the one that knows less decides, unless it is not fitted at all
        (tokens((200, 300), (10, 10)), tokens((9, 9), (9, 9)), "decision"),
        (tokens((200, 300), (4, 90)), tokens((9, 9), (9, 9)), "measured"),
        # base data of one question cannot hold the other
        (tokens((200, 300), (200, 200)), tokens((9, 9)), "head"),
    ],
)
def test_few_labels_fit_few_weights_and_without_base_data_heads_alone(labels, base, level):
    assert level_for(labels, base) == level


def test_too_few_labels_of_one_answer_are_refused_with_their_numbers():
    check_enough(tokens((5, 5)))
    with pytest.raises(DatasetError, match="13 joins, 9 of them accepted; 5 cuts, 0 of them"):
        check_enough(tokens((9, 4), (0, 5)))
    with pytest.raises(DatasetError, match="no labels"):
        check_enough(tokens())


def test_a_head_moves_where_labels_carry_it_and_stays_where_they_are_chance():
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (120, 12))
    before = np.append(rng.normal(0, 1, 12), 0.0)
    fold = np.arange(120) % 5
    told = x[:, 0] > 0
    moved = fit_head(before, x, told, fold)
    right = ((np.c_[x, np.ones(120)] @ moved > 0) == told).mean()
    assert right > 0.9
    # answers that are as likely as the head says
    p = 1 / (1 + np.exp(-(x @ before[:-1])))
    stayed = fit_head(before, x, rng.random(120) < p, fold)
    assert np.abs(1 / (1 + np.exp(-(np.c_[x, np.ones(120)] @ stayed))) - p).mean() < 0.1


def test_answers_where_a_head_doubts_move_it_though_most_are_the_same():
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (400, 12))
    before = np.append(rng.normal(0, 1, 12), 0.0)
    # likelier by three units of log-odds than the head says
    answer = rng.random(400) < 1 / (1 + np.exp(-(x @ before[:-1] + 3.0)))
    doubted = np.argsort(np.abs(x @ before[:-1]))[:60]
    assert 0.8 < answer[doubted].mean() < 1
    fold = np.arange(60) % 5
    after = fit_head(before, x[doubted], answer[doubted], fold)
    z = np.c_[x, np.ones(400)] @ after
    was = ((x @ before[:-1] > 0) == answer).mean()
    assert ((z > 0) == answer).mean() > was + 0.05
    # the same answers in a sample that is known to be lopsided say less
    known = Prior(shift=float(np.log(answer[doubted].mean() / (1 - answer[doubted].mean()))))
    less = fit_head(before, x[doubted], answer[doubted], fold, known)
    assert less[-1] < after[-1]


def test_folds_keep_groups_together_and_spread_both_answers():
    group = np.repeat(np.arange(20), 6)
    answer = np.arange(120) % 6 < 3
    fold = folds_of(group, answer, 0)
    assert all(len(np.unique(fold[group == g])) == 1 for g in range(20))
    assert [int(answer[fold == k].sum()) for k in range(5)] == [12] * 5


def test_no_segment_is_on_both_sides_of_the_split():
    rng = np.random.default_rng(1)
    names = rng.integers(0, 90, (60, 2)).astype(str)
    point, answer = rng.random((60, 3)), rng.random(60) < 0.5
    for hub in (False, True):
        if hub:
            names[:, 0] = "hub"
            names[30:, 0] = rng.integers(100, 999, 30).astype(str)
        split = split_labels(names, point, answer, 0.25, 0)
        assert not set(names[split.held].ravel()) & set(names[split.learnt].ravel())
        assert split.held.any()
        assert not (split.held & split.learnt).any()
    assert components(np.array([["a", "b"], ["c", ""], ["b", "d"]])).tolist() == [0, 1, 0]


def test_labels_that_all_hang_together_are_split_by_space():
    names = np.stack([np.full(64, "big"), np.arange(64).astype(str)], 1)
    names[:16, 0] = "other"
    point = np.zeros((64, 3))
    point[:, 2] = np.arange(64)
    split = split_labels(names, point, np.arange(64) % 2 == 0, 0.25, 0)
    assert split.by == "space"
    # what shares a segment with a held-out label is in neither part
    assert not set(names[split.held].ravel()) & set(names[split.learnt].ravel())


def compared(before: float, after: float) -> dict:
    """40 decisions in 20 groups; probability of the right answer before and after."""
    answer = np.arange(40) % 2 == 0
    p = [np.where(answer, v, 1 - v) + 0.01 * np.sin(np.arange(40)) for v in (before, after)]
    return before_and_after(np.zeros(40, np.int64), answer, np.arange(40) // 2, *p)


def test_a_model_is_called_better_or_worse_only_by_more_than_the_interval():
    assert verdict(compared(0.6, 0.9), {})[0] == "better"
    assert verdict(compared(0.9, 0.6), {})[0] == "worse"
    assert verdict(compared(0.6, 0.6), {})[0] == "no better"
    what, why = verdict(compared(0.6, 0.9), compared(0.9, 0.3))
    assert (what, why) == ("worse", "it has forgotten joins of the base data")
    # less sure of base data, and right all the same
    assert verdict(compared(0.6, 0.9), compared(0.9, 0.8))[0] == "better"
