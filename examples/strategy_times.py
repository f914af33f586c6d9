"""What every strategy of the queue costs on many candidates: seconds and memory.

What you will see: a line a strategy, with the processor time that one order of so many sites took,
and the most memory beyond its input. Each runs in a process of its own.

    python examples/strategy_times.py [SITES] [ASKED] [K]
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time

import numpy as np

from cb2_assist.learning.strategies.pool import Pool
from cb2_assist.learning.strategies.registry import STRATEGIES

DEPTH, VIEWS = 192, 7


def main(arguments: list[str]) -> None:
    """Time every strategy of the registry."""
    ask = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    ask.add_argument("sites", type=int, nargs="?", default=100_000, help="candidates (100,000)")
    ask.add_argument("asked", type=int, nargs="?", default=500, help="asked before (500)")
    ask.add_argument("k", type=int, nargs="?", default=50, help="to be ordered (50)")
    given = ask.parse_args(arguments)
    sites, asked, k = given.sites, given.asked, given.k
    print(f"{k} of {sites:,} sites, {asked} asked before, embeddings of {DEPTH} numbers")
    context = multiprocessing.get_context("spawn")
    for name in STRATEGIES:
        with context.Pool(1) as one:
            seconds, mib = one.apply(cost, (name, sites, asked, k))
        print(f"{name:14}{seconds:8.2f} s{mib:8.0f} MiB")


def cost(name: str, sites: int, asked: int, k: int) -> tuple[float, float]:
    """Processor seconds, and MiB above what the input takes."""
    rng = np.random.default_rng(0)
    pool = Pool(
        labelled=np.arange(sites) < asked,
        score=rng.uniform(0.01, 0.99, sites),
        confidence=rng.uniform(0.01, 0.99, sites),
        views=rng.uniform(0.01, 0.99, (sites, VIEWS)),
        embedding=rng.standard_normal((sites, DEPTH), np.float32),
        contact=rng.uniform(1, 1000, sites),
        size=rng.uniform(1, 1e6, sites),
        gain=rng.uniform(1, 1000, sites),
        seconds=np.full(sites, 4.0),
    )
    before, start = peak_mib(), time.process_time()
    STRATEGIES[name].order(pool, k, rng)
    return time.process_time() - start, peak_mib() - before


def peak_mib() -> float:
    """The most memory that this process has held."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


if __name__ == "__main__":
    main(sys.argv[1:])
