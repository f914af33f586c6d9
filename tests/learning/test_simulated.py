"""The simulated proofreader, on rods in pieces."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise, permutations

import numpy as np
import pytest
from grounds import rod_ground

from cb2_assist.learning.ground import load, save
from cb2_assist.learning.simulate import pool_of
from cb2_assist.learning.simulated import Shares, Simulation
from cb2_assist.learning.strategies.registry import STRATEGIES

GROUND = rod_ground()
N = len(GROUND.pairs)


def simulation(seed: int = 0, noise: float = 0.2) -> Simulation:
    rng = np.random.default_rng(seed)
    score = np.clip(np.where(GROUND.is_true, 0.95, 0.05) + rng.normal(0, noise, N), 0.01, 0.99)
    pool = pool_of(GROUND, None)
    views = np.clip(score[:, None] + rng.normal(0, 0.1, (N, 3)), 0.01, 0.99)
    embedding = rng.normal(size=(N, 4)).astype(np.float32)
    return Simulation(
        GROUND, replace(pool, score=score, confidence=score, views=views, embedding=embedding)
    )


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_order_mends_the_volume_and_asks_nothing_twice(name: str) -> None:
    curve = simulation().run(STRATEGIES[name], N, seed=0)
    told = curve.to_json(name, GROUND)
    asked = [(a["segment"], a["partner"]) for a in told["asked"]]
    assert len(set(asked)) == len(asked) < N, "what follows from other answers is not asked"
    assert told["decisions"] == list(range(len(asked) + 1))
    lists = ("voi_split", "voi_merge", "erl_nm", "precision", "true_joins_found", "wrong_edits")
    assert {len(told[k]) for k in lists} == {len(asked) + 1}
    assert told["voi_split"][-1] < 0.3 * told["voi_split"][0]
    assert told["wrong_edits"][-1] == 0
    assert told["erl_nm"][-1] > told["erl_nm"][0]
    assert told["precision"][-1] == told["true_joins_found"][-1] / len(asked)
    assert all(0 < a["propensity"] <= 1 for a in told["asked"])
    json.dumps(told, allow_nan=False)


def test_all_orders_end_where_the_truth_ends() -> None:
    ends = {
        name: simulation().run(STRATEGIES[name], N, seed=1).voi[-1]
        for name in ("random", "margin", "value", "coreset")
    }
    assert max(ends.values()) == pytest.approx(min(ends.values()))


def test_the_propensity_of_a_random_order_is_one_in_those_that_are_left() -> None:
    curve = simulation().run(STRATEGIES["random"], 5, seed=3)
    chances = [a.propensity for a in curve.asked]
    assert chances[0] == pytest.approx(1 / N)
    assert all(b > a for a, b in pairwise(chances))


def test_errors_are_made_as_often_as_asked_and_wrong_joins_are_made_too() -> None:
    right = simulation().run(STRATEGIES["random"], 60, seed=4)
    curve = simulation().run(STRATEGIES["random"], 60, seed=4, error_rate=0.3)
    wrong = sum(a.accepted != a.is_true for a in curve.asked)
    assert pytest.approx(wrong, abs=4 * np.sqrt(60 * 0.21)) == 60 * 0.3
    assert curve.voi_merge[-1] > right.voi_merge[-1]
    assert curve.to_json("random", GROUND)["wrong_edits"][-1] > 0


def test_the_oracle_is_as_good_as_the_best_order_of_a_few() -> None:
    """Every order of five true joins, and the oracle's of the same five."""
    rows = np.flatnonzero(GROUND.is_true)[:5]
    few = replace(GROUND, pairs=GROUND.pairs.take(rows))
    on = Simulation(few, pool_of(few, None))
    oracle = on.oracle(5).voi.sum()
    areas = []
    for order in permutations(range(5)):
        rank = np.empty(5)
        rank[list(order)] = np.arange(5)
        pool = replace(on.pool, contact=-rank)
        areas.append(on.with_pool(pool).run(STRATEGIES["contact"], 5, seed=0).voi.sum())
    assert oracle == pytest.approx(min(areas))


def test_shares_are_the_areas_under_the_curves() -> None:
    on, n = simulation(), 40
    random = [on.run(STRATEGIES["random"], n, seed=k) for k in range(5)]
    oracle = on.oracle(n)
    shares = Shares(GROUND, random, oracle, n, draws=200)

    def area(curve) -> float:
        voi = curve.voi
        return float(np.concatenate([voi, np.full(n + 1 - len(voi), voi[-1])]).sum())

    zero = np.mean([area(c) for c in random])
    for name in ("contact", "confidence", "value"):
        curve = on.run(STRATEGIES[name], n, seed=0)
        share = shares.of(curve)
        assert share.value == pytest.approx((zero - area(curve)) / (zero - area(oracle)))
        assert share.low < share.value < share.high
    assert shares.of(oracle).value == pytest.approx(1)
    better = on.run(STRATEGIES["value"], n, seed=0)
    worse = on.run(STRATEGIES["margin"], n, seed=0)
    apart = shares.above(better, worse).value
    assert apart == pytest.approx(shares.of(better).value - shares.of(worse).value)


def test_a_model_that_knows_more_has_a_larger_share() -> None:
    n = 40
    on = simulation()
    random = [on.run(STRATEGIES["random"], n, seed=k) for k in range(10)]
    shares = Shares(GROUND, random, on.oracle(n), n, draws=20)
    by_noise = [
        shares.of(simulation(noise=noise).run(STRATEGIES["value"], n, seed=0)).value
        for noise in (0.01, 2.0)
    ]
    assert by_noise[0] > max(0.8, by_noise[1])


def test_ground_is_read_back_as_it_was_kept(tmp_path) -> None:
    path = tmp_path / "a" / "ground.npz"
    save(GROUND, path)
    got = load(path)
    for part in ("pairs", "overlaps", "skeletons"):
        mine, its = getattr(GROUND, part), getattr(got, part)
        for column in mine.__slots__:
            np.testing.assert_array_equal(getattr(mine, column), getattr(its, column))
