"""Pools for the tests of the strategies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cb2_assist.learning.strategies.pool import Pool


def pool_of(n: int, *, labelled: int = 0, depth: int = 4, seed: int = 0) -> Pool:
    """A pool with every column; its embeddings lie in three clumps."""
    rng = np.random.default_rng(seed)
    clump = rng.normal(size=(3, depth)) * 3
    made = Pool(
        labelled=np.zeros(n, bool),
        score=rng.uniform(0.02, 0.98, n),
        confidence=rng.uniform(0.01, 0.9, n),
        views=rng.uniform(0.01, 0.99, (n, 5)),
        embedding=(clump[rng.integers(0, 3, n)] + rng.normal(size=(n, depth))).astype(np.float32),
        contact=rng.uniform(10, 1000, n),
        size=rng.uniform(100, 1e5, n),
        gain=rng.uniform(1, 100, n),
        seconds=rng.uniform(2, 9, n),
    )
    return made.without(rng.permutation(n)[:labelled]) if labelled else made


def with_unknown(pool: Pool, rows: list[int]) -> Pool:
    """The same pool, nothing known of some rows."""
    changed = {}
    for name in ("score", "confidence", "views", "embedding", "contact", "size", "gain", "seconds"):
        column = getattr(pool, name).copy()
        column[rows] = np.nan
        changed[name] = column
    return replace(pool, **changed)
