"""The second opinion: from trees that have not seen a decision's slab."""

import numpy as np
import pytest

from cb2_assist.learning.teacher import opinions


def quiet(_text):
    pass


def decisions(n=600, seed=0, wrong=0.0):
    """One number tells the answer, but for a share of wrong labels; five say nothing."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 6)).astype(np.float32)
    truth = x[:, 0] > 0
    answer = np.where(rng.random(n) < wrong, ~truth, truth)
    return x, truth, answer, rng.integers(0, 1000, n)


def asked(x, answer, z, task=None, weight=None, seed=0):
    n = len(x)
    return opinions(
        x,
        answer,
        np.zeros(n, np.int64) if task is None else task,
        np.ones(n, np.float32) if weight is None else weight,
        z,
        seed=seed,
        say=quiet,
    )


def test_wrong_labels_are_doubted():
    x, truth, answer, z = decisions(wrong=0.1)
    found = asked(x, answer, z)

    assert ((found >= 0) & (found <= 1)).all()
    odd = answer != truth
    assert odd.sum() > 30
    # what is far from the border is judged by what it looks like, whatever its own label says
    clear = odd & (np.abs(x[:, 0]) > 0.3)
    assert ((found[clear] > 0.5) == truth[clear]).mean() > 0.9


def test_a_decision_is_not_judged_by_trees_that_saw_it():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(500, 6)).astype(np.float32)
    answer = rng.random(500) < 0.5
    found = asked(noise, answer, rng.integers(0, 1000, 500))

    # trees that had seen them would have learnt the coin by heart
    assert abs(np.corrcoef(found, answer)[0, 1]) < 0.2


def test_half_of_the_weight_on_either_answer_is_an_opinion_at_equal_priors():
    rng = np.random.default_rng(1)
    n = 1500
    noise = rng.normal(size=(n, 6)).astype(np.float32)
    answer = rng.random(n) < 0.15
    weight = np.where(answer, 0.5 / answer.mean(), 0.5 / (~answer).mean()).astype(np.float32)
    z = rng.integers(0, 1000, n)

    assert asked(noise, answer, z).mean() == pytest.approx(0.15, abs=0.05)
    assert asked(noise, answer, z, weight=weight).mean() == pytest.approx(0.5, abs=0.15)


def test_tasks_have_trees_of_their_own_and_too_few_decisions_keep_their_answers():
    x, _, answer, z = decisions()
    # the second task means the opposite; the third is too small to say
    task = np.arange(len(x)) % 2
    task[:30] = 2
    answer = np.where(task == 1, ~answer, answer)
    found = asked(x, answer, z, task=task)

    sure = np.abs(x[:, 0]) > 0.3
    for t in (0, 1):
        m = sure & (task == t)
        assert ((found[m] > 0.5) == answer[m]).mean() > 0.95
    np.testing.assert_array_equal(found[task == 2], answer[task == 2])


def test_the_same_seed_gives_the_same_opinion():
    x, _, answer, z = decisions(300)

    np.testing.assert_array_equal(asked(x, answer, z), asked(x, answer, z))


def test_everything_at_one_depth_has_nothing_to_be_judged_by():
    x, _, answer, z = decisions(300)

    np.testing.assert_array_equal(asked(x, answer, np.zeros_like(z)), answer)
    assert asked(x[:0], answer[:0], z[:0]).shape == (0,)
