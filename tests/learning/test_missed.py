"""The estimate of what is left: its interval holds as often as it says."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from what_was_missed import coverage, walk

from cb2_assist.learning.missed import FIRST_LOOK, RandomDraw, advice, remaining


def test_without_random_answers_anything_is_possible() -> None:
    left = remaining([], found=3, n_open=40)
    assert (left.low, left.high, left.draws) == (0, 40, 0)


def test_the_interval_is_clopper_and_pearsons_where_the_share_is_the_same_at_each_draw() -> None:
    """With nothing found and a pool that hardly changes, against the beta quantiles."""
    from scipy.stats import beta

    n, k, hits = 100_000, 50, 7
    draws = [RandomDraw(n, 0, i < hits) for i in range(k)]
    left = remaining(draws, found=0, n_open=n)
    low, high = beta.ppf(0.05, hits, k - hits + 1), beta.ppf(0.95, hits + 1, k - hits)
    assert left.value == pytest.approx(n * hits / k)
    assert left.low == pytest.approx(n * low, rel=1e-3)
    assert left.high == pytest.approx(n * high, rel=1e-3)


def test_the_tails_are_those_of_all_ways_it_can_come_out() -> None:
    """Unequal draws, every outcome enumerated."""
    draws = [RandomDraw(30, 2, True), RandomDraw(20, 5, False), RandomDraw(11, 6, False)]
    left = remaining(draws, found=6, n_open=10)

    def tails(remaining_now: int) -> tuple[float, float]:
        p = [min((6 + remaining_now - d.found_before) / d.n_open, 1) for d in draws]
        at_least = at_most = 0.0
        for came in product((0, 1), repeat=3):
            weight = math.prod(q if c else 1 - q for q, c in zip(p, came, strict=True))
            at_least += weight * (sum(came) >= 1)
            at_most += weight * (sum(came) <= 1)
        return at_least, at_most

    held = [m for m in range(11) if min(tails(m)) > 0.05]
    assert (left.low, left.high) == (held[0], held[-1])


def test_what_was_found_by_rank_is_not_counted_again() -> None:
    before = remaining([RandomDraw(100, 0, i < 5) for i in range(20)], found=5, n_open=95)
    after = remaining([RandomDraw(100, 0, i < 5) for i in range(20)], found=25, n_open=75)
    assert before.value == pytest.approx(20)
    assert after.value == pytest.approx(0)
    assert after.high == before.high - 20


def test_the_interval_holds_in_enough_runs() -> None:
    """120 queues here; `examples/what_was_missed.py` goes through 1,000."""
    told = coverage(runs=120, sites=400, decisions=200, seed=1)
    # 90 % less three standard errors of 120 runs
    assert told.held >= 0.9 - 3 * math.sqrt(0.09 / 120)
    assert told.width < 400, "narrower than knowing nothing"
    assert abs(told.bias) < 3 * told.bias_error


def test_stop_is_seldom_said_too_early() -> None:
    rng = np.random.default_rng(5)
    early = 0
    for _ in range(60):
        run = walk(rng, sites=400, decisions=380, floor=0.5)
        for k in range(FIRST_LOOK, len(run.draws) + 1, 30):
            found, n_open = run.found_at[k - 1], run.open_at[k - 1]
            said = advice(run.draws[:k], found, n_open)
            if said.stop:
                early += found < 0.95 * run.true
                break
    assert early <= 60 * 0.1 + 3 * math.sqrt(60 * 0.09)


def test_advice_is_given_at_looks_only() -> None:
    few = [RandomDraw(100, 0, False)] * (FIRST_LOOK - 1)
    assert advice(few, 4, 60).looked_at == 0
    more = [*few, RandomDraw(100, 0, False)]
    at = advice(more, 4, 60)
    assert (at.looked_at, at.next_look) == (FIRST_LOOK, 2 * FIRST_LOOK)
    assert not at.stop
    later = advice(more * 2, 4, 1)
    assert later.looked_at == 2 * FIRST_LOOK
    assert advice([], 4, 0).stop, "nothing waits"


def test_much_found_and_random_answers_without_a_hit_say_stop() -> None:
    draws = [RandomDraw(400, 300, False)] * 120
    said = advice(draws, found=300, n_open=100)
    assert said.stop
    assert 0.95 <= said.at_least < 1
