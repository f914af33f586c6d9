"""A strategy with a share of random choices, so that every site can be asked."""

from __future__ import annotations

import numpy as np

from cb2_assist.learning.strategies.pool import Floats, Pool, Rows
from cb2_assist.learning.strategies.sorting import worth

FLOOR = 0.1
"""Share of choices that take any open site."""


def mixture(pool: Pool, k: int, rng: np.random.Generator) -> Rows:
    """At each step the best by `sorting.value`, or, with probability `FLOOR`, any open site.

    An epsilon-greedy policy: a site among m open ones is next with probability FLOOR / m, plus
    1 - FLOOR if it is the best. That is known exactly, so that what is asked can be weighted by
    its inverse (Horvitz and Thompson 1952).
    """
    rows = pool.open
    left = rows[np.argsort(-worth(pool)[rows], kind="stable")].tolist()
    chosen = []
    for _ in range(k):
        explore = rng.random() < FLOOR
        chosen.append(left.pop(int(rng.integers(len(left))) if explore else 0))
    return np.array(chosen, np.intp)


def mixture_chances(pool: Pool) -> Floats:
    """Each row's probability of being the next one."""
    rows = pool.open
    out = np.zeros(len(pool))
    out[rows] = FLOOR / len(rows)
    out[rows[int(np.argmax(worth(pool)[rows]))]] += 1 - FLOOR
    return out
