"""Core-set: as few sites as possible far from all that was asked (Sener and Savarese 2018)."""

from __future__ import annotations

import numpy as np

from cb2_assist.learning.strategies.pool import Pool, Rows
from cb2_assist.learning.strategies.spread import Spread


def coreset(pool: Pool, k: int, _rng: np.random.Generator) -> Rows:
    """k-centre greedy on the embeddings: each next one is the farthest from all centres.

    The farthest distance that is left is at most twice the smallest possible (arXiv 1708.00489).
    Sites that have been asked are centres; without any, the first is the one nearest the mean.
    O(n D (k + labelled)).
    """
    x = pool.column("embedding").astype(np.float32)
    spread, is_first = Spread(x), not pool.labelled.any()
    near = -spread.from_mean() if is_first else spread.to_nearest(np.flatnonzero(pool.labelled))
    chosen: list[int] = []
    taken = pool.labelled.copy()
    for _ in range(k):
        row = int(np.where(taken, -np.inf, near).argmax())
        chosen.append(row)
        taken[row] = True
        near = spread.to(row) if is_first else np.minimum(near, spread.to(row))
        is_first = False
    return np.array(chosen, np.intp)
