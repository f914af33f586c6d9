"""Whether the interval of what is left in a queue holds as often as it says.

What you will see: for some numbers of decisions, in how many of 1,000 generated queues the 90 %
interval held the true number of errors that were left, its mean width, and how far the estimate is
off on average. Each queue is walked through by rank, one draw in ten at random, by someone who
knows the answers; scores tell true sites from false ones as a fair model does.

    python examples/what_was_missed.py [RUNS]
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

import numpy as np

from cb2_assist.learning.missed import RandomDraw, remaining
from cb2_assist.learning.queue import FLOOR

SITES, RATE = 1000, 0.1


@dataclass(frozen=True)
class Run:
    """One queue, walked through for a while."""

    true: int
    """True sites that it held."""
    found: int
    n_open: int
    draws: list[RandomDraw]
    found_at: list[int]
    open_at: list[int]
    """After each random answer: true sites found, and sites waiting."""


@dataclass(frozen=True)
class Told:
    """What came of many queues."""

    held: float
    """Share of the intervals that held what was left."""
    width: float
    left: float
    """Means over queues."""
    bias: float
    bias_error: float
    """Mean of estimate minus truth, and its standard error."""


def walk(rng: np.random.Generator, *, sites: int, decisions: int, floor: float = FLOOR) -> Run:
    """Decide the most likely ones first, a share at random."""
    is_true = rng.random(sites) < RATE
    logit = rng.normal(np.where(is_true, 0.7, -0.7), 1.5)
    by_rank = np.argsort(-logit)
    is_open = np.ones(sites, bool)
    draws: list[RandomDraw] = []
    found_at: list[int] = []
    open_at: list[int] = []
    found, place = 0, 0
    for _ in range(min(decisions, sites)):
        explore = rng.random() < floor
        n_open = int(is_open.sum())
        if explore:
            site = int(rng.choice(np.flatnonzero(is_open)))
        else:
            while not is_open[by_rank[place]]:
                place += 1
            site = int(by_rank[place])
        is_open[site] = False
        if explore:
            draws.append(RandomDraw(n_open, found, bool(is_true[site])))
        found += int(is_true[site])
        if explore:
            found_at.append(found)
            open_at.append(n_open - 1)
    left = int(is_open.sum())
    return Run(int(is_true.sum()), found, left, draws, found_at, open_at)


def coverage(*, runs: int, sites: int, decisions: int, seed: int = 0) -> Told:
    """Walk through many queues."""
    rng = np.random.default_rng(seed)
    held, width, left, off = [], [], [], []
    for _ in range(runs):
        run = walk(rng, sites=sites, decisions=decisions)
        said, truth = remaining(run.draws, run.found, run.n_open), run.true - run.found
        held.append(said.low <= truth <= said.high)
        width.append(said.high - said.low)
        left.append(truth)
        off.append(said.value - truth)
    error = float(np.std(off) / np.sqrt(runs))
    return Told(
        float(np.mean(held)),
        float(np.mean(width)),
        float(np.mean(left)),
        float(np.mean(off)),
        error,
    )


def main(arguments: list[str]) -> None:
    """Print a line for each number of decisions."""
    ask = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    ask.add_argument("runs", type=int, nargs="?", default=1000, help="queues (1,000)")
    runs = ask.parse_args(arguments).runs
    print(f"{runs} queues of {SITES} sites, {RATE:.0%} of them true, {FLOOR:.0%} asked at random")
    for decisions in (100, 200, 400, 800):
        told = coverage(runs=runs, sites=SITES, decisions=decisions)
        print(
            f"{decisions:4} decisions: the 90 % interval held in {told.held:.1%}, "
            f"mean width {told.width:.0f}, {told.left:.0f} left, "
            f"estimate off by {told.bias:+.1f} ± {told.bias_error:.1f}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
