"""The order of the queue, and that the stated probabilities are the true ones."""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from label_makers import DATASET, USER, VERSION, decision, queue_item, suggestion

from cb2_assist.core.errors import UsageError
from cb2_assist.core.records import Kind, Verdict
from cb2_assist.labels.queue_store import Scope, SiteSignals, Waiting
from cb2_assist.labels.sqlite import SqliteLabelStore
from cb2_assist.labels.store import NewEvent
from cb2_assist.learning.missed_in_queue import missed_in
from cb2_assist.learning.queue import (
    FLOOR,
    draw,
    next_draw,
    pick,
    probability,
    ranked,
    seed_of,
)
from cb2_assist.learning.strategies.registry import STRATEGIES

ALL = Scope(DATASET, VERSION)
NOW = 1000.0


def site(name: str, score: float, skips: int = 0) -> Waiting:
    return Waiting(name, Kind.JOIN, score, score / 3, skips)


def order_of(waiting: Sequence[Waiting], *words) -> list[str]:
    return [w.site for w in ranked(waiting, *words).sites]


def test_the_most_uncertain_comes_first() -> None:
    given = [site("a", 0.9), site("b", 0.45), site("c", 0.1), site("d", 0.52), site("e", 0.48)]
    assert order_of(given) == ["d", "e", "b", "a", "c"]


def test_sites_that_were_skipped_less_often_come_before_all_others() -> None:
    given = [site("a", 0.5, 1), site("b", 0.9), site("c", 0.5, 2), site("d", 0.8)]
    assert order_of(given) == ["d", "b"]
    assert order_of([given[0], given[2]]) == ["a"]
    assert order_of([]) == []


def flagged(name: str, score: float) -> Waiting:
    return replace(site(name, score), ood=True)


@pytest.mark.parametrize("strategy", ["margin", "confidence", "entropy"])
def test_where_the_model_is_not_reliable_its_numbers_do_not_come_first(strategy: str) -> None:
    given = [flagged("a", 0.5), site("b", 0.9), flagged("c", 0.8), site("d", 0.7)]
    order = ranked(given, strategy)
    assert [w.site for w in order.sites] == [*order_of([given[1], given[3]], strategy), "a", "c"]
    assert order.chances == (1.0, 0.0, 0.0, 0.0)
    assert order_of([given[0], given[2]], strategy)[0] in "ac", "they come when no other is left"


def test_orders_without_a_model_do_not_mind_the_flag() -> None:
    given = [flagged("a", 0.5), site("b", 0.9), flagged("c", 0.8)]
    signals = {w.site: SiteSignals(w.score, n, 1.0, 1.0, (), None) for n, w in enumerate(given)}
    assert order_of(given, "contact", signals)[0] == "c"
    assert ranked(given, "random").chances == (1 / 3, 1 / 3, 1 / 3)


def test_a_strategy_of_chance_leaves_flagged_sites_to_the_random_draws() -> None:
    given = [flagged("a", 0.5), site("b", 0.9), site("c", 0.8)]
    signals = {w.site: SiteSignals(w.score, 1.0, 1.0, 2.0, (), None) for w in given}
    order = ranked(given, "mixture", signals)
    assert [w.site for w in order.sites] == ["b", "c", "a"]
    assert order.chances[2] == 0.0
    assert math.isclose(sum(order.chances), 1.0)
    assert probability(3, 2, FLOOR, order.chances) == pytest.approx(FLOOR / 3)


@pytest.mark.parametrize("strategy", ["margin", "confidence", "entropy"])
def test_every_strategy_sorts_whatever_is_given(strategy: str) -> None:
    rng = random.Random(1)
    given = [site(f"{n:03}", rng.random()) for n in range(50)]
    shuffled = rng.sample(given, len(given))
    order = order_of(given, strategy)
    assert order_of(shuffled, strategy) == order, "the order of reading does not matter"
    assert sorted(order) == [w.site for w in given]


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
        assert got.probability == probability(n, got.place, FLOOR)
        places[got.place] += times
    for place in range(n):
        p = probability(n, place, FLOOR)
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
        order = order_of(store.queue.waiting(ALL, now=NOW))
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


def signals_of(n: int) -> SiteSignals:
    rng = np.random.default_rng(n)
    embedding = rng.normal(size=6).astype("<f2").tobytes()
    score = 0.5 + 0.04 * n
    views = (score, 1 - score, 0.3)
    return SiteSignals(score, 10.0 + n, 100.0 * (n + 1), 5000.0, views, embedding)


@pytest.fixture
def known(store):
    """The same store with what every strategy needs."""
    by_site = {suggestion(n).id: signals_of(n) for n in range(8)}
    store.queue.put_signals(DATASET, VERSION, by_site)
    return store


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_leads_through_the_queue(known, name: str) -> None:
    seen = []
    for _ in range(8):
        got = draw(known.queue, ALL, USER, now=NOW, strategy=name)
        assert got.strategy == got.propensity()["strategy"] == name
        assert 0 < got.probability <= 1
        seen.append(got.site)
        number = next(k for k in range(8) if suggestion(k).id == got.site)
        known.append(NewEvent.of(decision(number)))
    assert sorted(seen) == sorted(suggestion(n).id for n in range(8))


def test_random_only_takes_every_site_alike(known) -> None:
    found = ranked(known.queue.waiting(ALL, now=NOW), "random")
    seen = Counter(pick(8, seed, FLOOR, found.chances) for seed in range(20_000))
    places = Counter()
    for got, times in seen.items():
        assert got.probability == pytest.approx(1 / 8)
        places[got.place] += times
    for place in range(8):
        assert places[place] / 20_000 == pytest.approx(1 / 8, abs=5 * math.sqrt(0.11 / 20_000))


def test_a_strategy_that_draws_itself_states_its_own_probabilities(known) -> None:
    known.append(NewEvent.of(decision(2)))
    waiting, signals = known.queue.waiting(ALL, now=NOW), known.queue.signals(ALL)
    for name in ("badge", "mixture"):
        found = ranked(waiting, name, signals)
        assert sum(found.chances) == pytest.approx(1)
        n = len(found.sites)
        seen = Counter(pick(n, seed, FLOOR, found.chances).place for seed in range(20_000))
        for place in range(n):
            p = probability(n, place, FLOOR, found.chances)
            error = math.sqrt(p * (1 - p) / 20_000)
            assert seen[place] / 20_000 == pytest.approx(p, abs=5 * error)


def test_spread_orders_keep_away_from_what_has_been_asked(known) -> None:
    """The first of a core-set changes with what is known; its twin in the pool never comes."""
    queue = known.queue
    before = order_of(queue.waiting(ALL, now=NOW), "coreset", queue.signals(ALL))[0]
    number = next(k for k in range(8) if suggestion(k).id == before)
    twin = (number + 1) % 8
    queue.put_signals(DATASET, VERSION, {suggestion(twin).id: signals_of(number)})
    known.append(NewEvent.of(decision(number)))
    for _ in range(6):
        got = order_of(queue.waiting(ALL, now=NOW), "coreset", queue.signals(ALL))[0]
        assert got != suggestion(twin).id
        number = next(k for k in range(8) if suggestion(k).id == got)
        known.append(NewEvent.of(decision(number)))


def test_a_strategy_without_its_signals_says_what_is_missing(store) -> None:
    with pytest.raises(UsageError, match=r"'badge' needs embedding.*Fill the queue"):
        draw(store.queue, ALL, USER, now=NOW, strategy="badge")
    with pytest.raises(UsageError, match="no order 'best'"):
        draw(store.queue, ALL, USER, now=NOW, strategy="best")


def test_a_part_is_asked_by_the_strategy_that_it_was_given_last(known) -> None:
    assert next_draw(known.queue, ALL, USER, now=NOW).strategy == "margin"
    known.queue.set_order(ALL, "size", now=NOW)
    known.queue.set_order(ALL, "contact", now=NOW)
    assert next_draw(known.queue, ALL, USER, now=NOW).strategy == "contact"
    other = replace(ALL, segments=(suggestion(0).site.segment,))
    assert next_draw(known.queue, other, USER, now=NOW).strategy == "margin"
    largest = order_of(known.queue.waiting(ALL, now=NOW), "size", known.queue.signals(ALL))
    assert largest == [suggestion(n).id for n in reversed(range(8))]


def test_what_is_left_is_told_from_the_random_draws(known) -> None:
    """Every draw at random; the joins with an even number are true."""
    known.queue.set_order(ALL, "random", now=NOW)
    later = time.time() - 1000
    for k in range(5):
        got = draw(known.queue, ALL, USER, now=later + k)
        number = next(n for n in range(8) if suggestion(n).id == got.site)
        verdict = Verdict.REJECT if number % 2 else Verdict.ACCEPT
        known.append(NewEvent.of(decision(number, verdict)))
    said = missed_in(known.queue, ALL, now=later + 9)
    found = said["join"]["found"]
    assert said["join"]["random_answers"] == 5
    assert said["join"]["of_them_true"] == found
    assert said["join"]["interval"][0] <= 4 - found <= said["join"]["interval"][1] <= 3
    assert said["cut"]["interval"] == [0, 0]
    assert not said["join"]["stop"]["stop"]
