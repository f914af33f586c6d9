"""What every entry of the registry must do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pools import pool_of, with_unknown

from cb2_assist.core.errors import UsageError
from cb2_assist.learning.strategies.registry import STRATEGIES, Registry, Strategy

CONTRACT = (
    "random, contact, size, confidence, margin, entropy, disagreement, badge, coreset, bait, "
    "facility, typicality, value, mixture"
)
every = pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_all_strategies_of_the_contract_are_there() -> None:
    assert ", ".join(STRATEGIES) == CONTRACT


def test_a_name_is_given_once() -> None:
    known = Registry()
    known.add(STRATEGIES["margin"])
    with pytest.raises(ValueError, match="'margin' already"):
        known.add(replace(STRATEGIES["size"], name="margin"))


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"no order 'magic'.*random, contact.*mixture"):
        STRATEGIES.find("magic")


@every
def test_open_rows_come_once_each_and_labelled_ones_never(strategy: Strategy) -> None:
    pool = pool_of(60, labelled=10)
    order = strategy.order(pool, 60, rng())
    assert sorted(order) == list(pool.open)
    few = strategy.order(pool, 7, rng())
    assert len(set(few)) == 7
    assert not pool.labelled[few].any()


@every
def test_the_same_pool_and_generator_give_the_same_order(strategy: Strategy) -> None:
    pool = pool_of(40, labelled=3)
    assert list(strategy.order(pool, 9, rng(5))) == list(strategy.order(pool, 9, rng(5)))


@every
def test_the_pool_is_left_as_it_was(strategy: Strategy) -> None:
    pool, same = pool_of(30, labelled=4), pool_of(30, labelled=4)
    strategy.order(pool, 10, rng())
    for name in pool.__slots__:
        np.testing.assert_array_equal(getattr(pool, name), getattr(same, name))


@every
def test_sites_of_which_nothing_is_known_come_last(strategy: Strategy) -> None:
    pool = with_unknown(pool_of(30, labelled=4), [2, 11, 29])
    order = strategy.order(pool, 30, rng()).tolist()
    assert sorted(order) == list(pool.open)
    if strategy.needs:
        unknown = [r for r in (2, 11, 29) if not pool.labelled[r]]
        assert order[-len(unknown) :] == unknown


@every
def test_the_smallest_pools_are_no_trouble(strategy: Strategy) -> None:
    assert list(strategy.order(pool_of(1), 5, rng())) == [0]
    done = pool_of(3).without(np.arange(3))
    assert not len(strategy.order(done, 2, rng()))
    assert not strategy.chances(done).any()


@every
def test_sites_that_are_all_alike_are_ordered_too(strategy: Strategy) -> None:
    pool = pool_of(1).take(np.zeros(25, np.intp)).without(np.array([3]))
    assert sorted(strategy.order(pool, 24, rng())) == list(pool.open)
    assert strategy.chances(pool).sum() == pytest.approx(1)


@every
def test_a_column_that_is_absent_is_named(strategy: Strategy) -> None:
    for name in strategy.needs:
        with pytest.raises(UsageError, match=f"{strategy.name}.*{name}"):
            strategy.order(replace(pool_of(5), **{name: None}), 1, rng())


@every
@pytest.mark.parametrize("labelled", [0, 3])
def test_the_first_is_as_frequent_as_stated(strategy: Strategy, labelled: int) -> None:
    pool = pool_of(12, labelled=labelled, seed=3)
    stated = strategy.chances(pool)
    assert stated.sum() == pytest.approx(1)
    assert not stated[pool.labelled].any()
    generator, draws = rng(1), 3000 if strategy.first else 3
    first = [int(strategy.order(pool, 1, generator)[0]) for _ in range(draws)]
    seen = np.bincount(first, minlength=12) / draws
    # five standard errors
    assert np.all(np.abs(seen - stated) <= 5 * np.sqrt(stated * (1 - stated) / draws) + 1e-12)


@pytest.mark.parametrize("name", [n for n, s in STRATEGIES.items() if s.is_sorted and not s.first])
def test_a_sorted_order_in_one_go_is_the_order_step_by_step(name: str) -> None:
    strategy = STRATEGIES[name]
    pool = pool_of(20, labelled=2)
    whole, steps = strategy.order(pool, 8, rng()), []
    for _ in range(8):
        row = strategy.order(pool, 1, rng())
        steps.append(int(row[0]))
        pool = pool.without(row)
    assert steps == list(whole)
