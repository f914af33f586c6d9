"""The order of the queue, and that the stated probabilities are the true ones."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from label_makers import DATASET, USER, VERSION, decision, queue_item, suggestion

from cb2_assist.core.records import Kind, Verdict
from cb2_assist.labels.queue_store import Scope, Waiting
from cb2_assist.labels.sqlite import SqliteLabelStore
from cb2_assist.labels.store import NewEvent
from cb2_assist.learning.queue import (
    FLOOR,
    STRATEGIES,
    draw,
    next_draw,
    pick,
    probability,
    ranked,
    seed_of,
)

ALL = Scope(DATASET, VERSION)
NOW = 1000.0


def site(name: str, score: float, skips: int = 0) -> Waiting:
    return Waiting(name, Kind.JOIN, score, score / 3, skips)


def test_the_most_uncertain_comes_first() -> None:
    given = [site("a", 0.9), site("b", 0.45), site("c", 0.1), site("d", 0.52), site("e", 0.48)]
    assert [w.site for w in ranked(given)] == ["d", "e", "b", "a", "c"]


def test_sites_that_were_skipped_less_often_come_before_all_others() -> None:
    given = [site("a", 0.5, 1), site("b", 0.9), site("c", 0.5, 2), site("d", 0.8)]
    assert [w.site for w in ranked(given)] == ["d", "b"]
    assert [w.site for w in ranked([given[0], given[2]])] == ["a"]
    assert ranked([]) == []


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_sorts_whatever_is_given(strategy: str) -> None:
    rng = random.Random(1)
    given = [site(f"{n:03}", rng.random()) for n in range(50)]
    shuffled = rng.sample(given, len(given))
    order = ranked(given, strategy)
    assert ranked(shuffled, strategy) == order, "the order of reading does not matter"
    assert sorted(w.site for w in order) == [w.site for w in given]


@pytest.mark.parametrize("n", [1, 2, 3, 7, 20])
def test_the_probabilities_of_a_draw_add_up_exactly(n: int) -> None:
    """Enumerates the ways: by rank, or at random on each of the n places."""
    floor = Fraction(1, 10)
    ways: Counter[int] = Counter()
    ways[0] += 1 - floor
    for place in range(n):
        ways[place] += floor / n
    assert sum(ways.values()) == 1
    for place in range(n):
        assert probability(n, place, 0.1) == pytest.approx(float(ways[place]), abs=1e-15)


@pytest.mark.parametrize("n", [1, 4, 9])
def test_draws_are_as_frequent_as_they_say(n: int) -> None:
    draws = 40_000
    seen = Counter(pick(n, seed) for seed in range(draws))
    places = Counter()
    for got, times in seen.items():
        assert got.probability == probability(n, got.place)
        places[got.place] += times
    for place in range(n):
        p = probability(n, place)
        # five standard errors of a frequency over 40,000 draws
        assert places[place] / draws == pytest.approx(
            p, abs=5 * math.sqrt(p * (1 - p) / draws) + 1e-12
        )
    explored = sum(times for got, times in seen.items() if got.explore)
    assert explored / draws == pytest.approx(FLOOR, abs=5 * math.sqrt(0.09 / draws))


def test_seeds_differ_by_person_number_and_version() -> None:
    seeds = {
        seed_of(scope, user, n)
        for scope in (ALL, replace(ALL, version="v2"))
        for user in ("ada", "bob")
        for n in range(50)
    }
    assert len(seeds) == 200
    assert all(0 <= s < 2**63 for s in seeds)


@pytest.fixture
def store(tmp_path: Path):
    with SqliteLabelStore(tmp_path / "labels.sqlite") as opened:
        fill = opened.queue.begin_fill(ALL, None, "judge", 1, now=NOW)
        items = [queue_item(n, score=0.5 + 0.04 * n) for n in range(8)]
        opened.queue.put(fill.id, items, done=1, now=NOW)
        yield opened


def test_a_queue_is_walked_to_its_end_and_each_draw_can_be_made_again(store) -> None:
    import sqlite3

    seen = []
    for n in range(8):
        order = [w.site for w in ranked(store.queue.waiting(ALL, now=NOW))]
        expected = next_draw(store.queue, ALL, USER, now=NOW)
        got = draw(store.queue, ALL, USER, now=NOW)
        assert got.site == expected.site == order[expected.place]
        assert got.n_open == len(order) == 8 - n
        # from the log alone
        again = pick(got.n_open, expected.seed, got.floor)
        assert (again.place, again.explore) == (order.index(got.site), got.explore)
        assert again.probability == got.probability == got.propensity()["probability"]
        seen.append(got.site)
        number = next(k for k in range(8) if suggestion(k).id == got.site)
        store.append(NewEvent.of(decision(number)))
    assert sorted(seen) == sorted(suggestion(n).id for n in range(8))
    assert draw(store.queue, ALL, USER, now=NOW) is None
    conn = sqlite3.connect(store.url.removeprefix("sqlite:///"))
    rows = conn.execute("SELECT seed, n_open, floor, place, explore FROM queue_draws").fetchall()
    conn.close()
    assert len(rows) == 8
    for seed, n_open, floor, place, explore in rows:
        again = pick(n_open, seed, floor)
        assert (again.place, again.explore) == (place, bool(explore))


def test_two_people_are_never_led_to_the_same_site(store) -> None:
    mine = draw(store.queue, ALL, "ada", now=NOW)
    theirs = draw(store.queue, ALL, "bob", now=NOW)
    assert mine.site != theirs.site
    assert theirs.n_open == 7


def test_skipped_sites_come_round_again(store) -> None:
    shown = []
    for n in range(16):
        got = draw(store.queue, ALL, USER, now=NOW)
        shown.append(got.site)
        number = next(k for k in range(8) if suggestion(k).id == got.site)
        store.append(NewEvent.of(decision(number, Verdict.SKIP, key=f"skip-{n}")))
        store.queue.release(DATASET, VERSION, USER, now=NOW)
    assert sorted(shown[:8]) == sorted(shown[8:]) == sorted(suggestion(n).id for n in range(8))
