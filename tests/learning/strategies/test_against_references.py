"""Each strategy against an implementation that shares nothing with ours.

scikit-activeml (BSD-3) where it has the strategy, exhaustive search on small sets where a bound is
promised, and otherwise the formula written out naively.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from pools import pool_of
from skactiveml.pool import CoreSet, TypiClust, average_kl_divergence, uncertainty_scores

from cb2_assist.learning.strategies.badge import badge, badge_chances, gradients
from cb2_assist.learning.strategies.bait import RIDGE, bait
from cb2_assist.learning.strategies.coreset import coreset
from cb2_assist.learning.strategies.facility import facility
from cb2_assist.learning.strategies.gain import split_bits
from cb2_assist.learning.strategies.mixture import FLOOR, mixture
from cb2_assist.learning.strategies.registry import STRATEGIES
from cb2_assist.learning.strategies.sorting import disagreement, entropy, margin, value
from cb2_assist.learning.strategies.typicality import density, typicality

RNG = np.random.default_rng(0)


def two_sided(p: np.ndarray) -> np.ndarray:
    return np.stack([1 - p, p], axis=-1)


def by_utility(utility: np.ndarray, pool) -> list[int]:
    rows = pool.open
    return rows[np.argsort(-utility[rows], kind="stable")].tolist()


@pytest.mark.parametrize(
    ("strategy", "column", "method"),
    [(margin, "score", "margin_sampling"), (entropy, "confidence", "entropy")],
)
def test_uncertainty_is_scikit_activemls(strategy, column, method) -> None:
    pool = pool_of(80, labelled=9)
    utility = uncertainty_scores(two_sided(getattr(pool, column)), method=method)
    assert list(strategy(pool, 80, RNG)) == by_utility(utility, pool)


def test_disagreement_is_scikit_activemls() -> None:
    pool = pool_of(80, labelled=9)
    utility = average_kl_divergence(two_sided(pool.views.T))
    assert list(disagreement(pool, 80, RNG)) == by_utility(utility, pool)


def test_coreset_is_scikit_activemls_once_something_is_labelled() -> None:
    pool = pool_of(60, labelled=5)
    known = np.where(pool.labelled, 0.0, np.nan)
    wanted = CoreSet(random_state=0).query(pool.embedding, known, batch_size=15)
    assert list(coreset(pool, 15, RNG)) == list(wanted)


def test_the_density_of_typicality_is_scikit_activemls() -> None:
    # one cluster, nothing labelled: its utilities are the densities
    x = pool_of(50).embedding
    query = TypiClust(random_state=0, k=20)
    row, utility = query.query(x, np.full(50, np.nan), batch_size=1, return_utilities=True)
    assert list(typicality(pool_of(50), 1, RNG)) == list(row)
    order = np.argsort(-utility[0])
    np.testing.assert_array_equal(order, np.argsort(-density(x, x)))


def test_the_gradients_of_badge_are_those_of_the_loss() -> None:
    """Against the loss of a two-class softmax, differentiated by finite differences."""
    pool = pool_of(6, depth=3)
    g = gradients(pool)
    for i in range(6):
        x, s = pool.embedding[i].astype(float), pool.score[i]
        w = x * math.log(s / (1 - s)) / (x @ x)
        answer = s > 0.5

        def loss(w: np.ndarray, x=x, answer=answer) -> float:
            z = float(w @ x)
            return math.log1p(math.exp(-z)) if answer else math.log1p(math.exp(z))

        step = 1e-5 * np.eye(3)
        slope = [(loss(w + d) - loss(w - d)) / 2e-5 for d in step]
        np.testing.assert_allclose(g[i], slope, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("labelled", [1, 4])
def test_badge_draws_in_proportion_to_the_squared_distance(labelled: int) -> None:
    pool = pool_of(15, labelled=labelled)
    score = pool.score - (pool.score > 0.5)
    g = score[:, None] * pool.embedding
    near = [min(((a - b) ** 2).sum() for b in g[pool.labelled]) for a in g]
    wanted = np.where(pool.labelled, 0, near)
    np.testing.assert_allclose(badge_chances(pool), wanted / wanted.sum(), rtol=1e-4)


def test_badge_begins_with_the_longest_gradient_and_spreads() -> None:
    pool = pool_of(40, seed=2)
    score = pool.score - (pool.score > 0.5)
    length = np.linalg.norm(score[:, None] * pool.embedding, axis=1)
    assert badge(pool, 1, RNG)[0] == length.argmax()
    twins = pool.take(np.repeat(np.arange(40), 2))
    for seed in range(20):
        chosen = badge(twins, 10, np.random.default_rng(seed)) // 2
        assert len(set(chosen)) == 10, "of two equal sites one is enough"


def farthest(x: np.ndarray, centres: tuple[int, ...]) -> float:
    return max(min(np.linalg.norm(a - x[c]) for c in centres) for a in x)


@pytest.mark.parametrize("seed", range(8))
def test_coreset_leaves_at_most_twice_the_smallest_possible_distance(seed: int) -> None:
    pool = pool_of(12, seed=seed)
    best = min(farthest(pool.embedding, c) for c in combinations(range(12), 3))
    got = farthest(pool.embedding, tuple(coreset(pool, 3, RNG)))
    assert got <= 2 * best + 1e-6


def covered(x: np.ndarray, chosen: tuple[int, ...]) -> float:
    u = x / np.linalg.norm(x, axis=1, keepdims=True)
    return float(((1 + u @ u[list(chosen)].T) / 2).max(axis=1).sum())


@pytest.mark.parametrize("seed", range(8))
def test_facility_covers_what_greedy_must(seed: int) -> None:
    pool = pool_of(12, seed=seed, depth=3)
    best = max(covered(pool.embedding, c) for c in combinations(range(12), 3))
    got = covered(pool.embedding, tuple(facility(pool, 3, RNG)))
    assert got >= (1 - 1 / math.e) * best
    assert got <= best + 1e-4


def test_facility_chooses_as_without_its_short_cuts() -> None:
    pool = pool_of(1500, labelled=3, depth=6)
    chosen = tuple(np.flatnonzero(pool.labelled).tolist())
    x = pool.embedding / np.linalg.norm(pool.embedding, axis=1, keepdims=True)
    alike = (1 + x @ x.T) / 2
    for row in facility(pool, 12, RNG):
        gains = np.maximum(alike - alike[:, list(chosen)].max(axis=1)[:, None], 0).sum(axis=0)
        gains[list(chosen)] = -1
        assert gains[row] >= gains.max() - 1e-3
        chosen += (int(row),)


def trace_of(pool, rows: list[int]) -> float:
    x, w = pool.embedding.astype(float), pool.score * (1 - pool.score)
    fisher = sum(b * np.outer(a, a) for a, b in zip(x, w, strict=True)) / len(x)
    m = RIDGE * np.eye(x.shape[1]) + sum(w[r] * np.outer(x[r], x[r]) for r in rows)
    return float(np.trace(np.linalg.solve(m, fisher)))


@pytest.mark.parametrize("labelled", [0, 4])
def test_bait_takes_off_the_trace_what_it_can_at_every_step(labelled: int) -> None:
    pool = pool_of(40, labelled=labelled)
    rows = np.flatnonzero(pool.labelled).tolist()
    for row in bait(pool, 10, RNG):
        left = [r for r in range(40) if r not in rows]
        best = min(trace_of(pool, [*rows, r]) for r in left)
        rows.append(int(row))
        assert trace_of(pool, rows) == pytest.approx(best, rel=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_bait_comes_near_the_best_of_all_sets(seed: int) -> None:
    pool = pool_of(14, seed=seed, depth=3)
    best = min(trace_of(pool, list(c)) for c in combinations(range(14), 3))
    got = trace_of(pool, bait(pool, 3, RNG).tolist())
    assert best - 1e-9 <= got <= 1.5 * best


def test_typicality_asks_once_in_each_clump_and_avoids_those_asked_about() -> None:
    rng = np.random.default_rng(4)
    clump = np.repeat(np.arange(4), [40, 30, 20, 10])
    pool = pool_of(100)
    x = (50.0 * np.eye(4)[clump] + rng.normal(size=(100, 4))).astype(np.float32)
    pool = replace(pool, embedding=x)
    first = typicality(pool, 4, RNG)
    assert list(clump[first]) == [0, 1, 2, 3], "the largest first"
    centre = np.stack([x[clump == c].mean(axis=0) for c in range(4)])
    away = np.linalg.norm(x - centre[clump], axis=1)
    for row in first:
        assert away[row] <= np.median(away[clump == clump[row]]), "in the dense middle"
    after = typicality(pool.without(first[:2]), 2, RNG)
    assert set(clump[after]) == {2, 3}


def test_value_is_the_expected_gain_a_second() -> None:
    pool = pool_of(50, labelled=5)
    worth = [g * p / s for g, p, s in zip(pool.gain, pool.score, pool.seconds, strict=True)]
    assert list(value(pool, 50, RNG)) == by_utility(np.array(worth), pool)


def test_the_gain_of_a_join_is_the_entropy_that_it_takes_away() -> None:
    """Against H(segmentation | truth) of one body, computed before and after."""

    def entropy_of(*sizes: float) -> float:
        p = np.array(sizes) / sum(sizes)
        return float(-(p * np.log2(p)).sum())

    body = (50.0, 30.0, 20.0)
    before, after = entropy_of(*body), entropy_of(80.0, 20.0)
    gain = split_bits(np.array([50.0]), np.array([30.0]))[0]
    assert gain / sum(body) == pytest.approx(before - after)
    assert split_bits(np.array([0.0]), np.array([7.0]))[0] == 0


def test_the_mixture_explores_as_often_as_it_says_at_every_step() -> None:
    pool = pool_of(10)
    best_first = list(value(pool, 10, RNG))
    rng, draws, steps = np.random.default_rng(2), 4000, 3
    hits = np.zeros(steps)
    for _ in range(draws):
        left = list(best_first)
        for step, row in enumerate(mixture(pool, steps, rng)):
            hits[step] += row == left[0]
            left.remove(row)
    for step in range(steps):
        p = 1 - FLOOR + FLOOR / (10 - step)
        assert hits[step] / draws == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / draws))


def test_size_and_contact_take_the_largest_and_confidence_the_likeliest() -> None:
    pool = pool_of(30, labelled=2)
    for name, column in (("size", "size"), ("contact", "contact"), ("confidence", "confidence")):
        order = STRATEGIES[name].order(pool, 30, RNG)
        values = getattr(pool, column)[order]
        assert np.all(np.diff(values) <= 0)
