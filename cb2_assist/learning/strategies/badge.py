"""BADGE: uncertain and unlike each other, by gradients (Ash et al. 2020, arXiv 1906.03671)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cb2_assist.learning.strategies.pool import Floats, Pool, Rows
from cb2_assist.learning.strategies.spread import Spread


def gradients(pool: Pool) -> NDArray[np.float32]:
    """Gradient of the loss by the head's weights, if the likelier answer were true.

    For a logistic head on the embedding x it is (s - [s > 1/2]) x; the two-class softmax of the
    paper has it twice, with opposite signs.
    """
    score = pool.column("score")
    step = (score - (score > 0.5)).astype(np.float32)
    return step[:, None] * pool.column("embedding").astype(np.float32)


def badge(pool: Pool, k: int, rng: np.random.Generator) -> Rows:
    """k-means++ seeding on the gradients.

    The first is the one with the longest gradient, as in the authors' program; each next one is
    drawn with a probability proportional to its squared distance to the nearest one that has been
    chosen. Sites that have been asked are centres from the start, so that asking one at a time
    spreads as a batch does. O(n D (k + labelled)).
    """
    g = gradients(pool)
    spread = Spread(g)
    near = spread.to_nearest(np.flatnonzero(pool.labelled))
    is_first = not pool.labelled.any()
    chosen: list[int] = []
    for _ in range(k):
        p = _longest(pool, g) if is_first else _proportional(pool, near)
        row = int(np.searchsorted(np.cumsum(p), rng.random() * p.sum(), side="right"))
        row = min(row, int(np.flatnonzero(p)[-1]))
        chosen.append(row)
        is_first = False
        pool = pool.without(np.array([row]))
        near = np.minimum(near, spread.to(row))
    return np.array(chosen, np.intp)


def badge_chances(pool: Pool) -> Floats:
    """Each row's probability of being the next one."""
    g = gradients(pool)
    if not pool.labelled.any():
        return _longest(pool, g)
    return _proportional(pool, Spread(g).to_nearest(np.flatnonzero(pool.labelled)))


def _longest(pool: Pool, g: NDArray[np.float32]) -> Floats:
    length = np.where(pool.labelled, -1.0, (g.astype(np.float64) ** 2).sum(1))
    out = np.zeros(len(pool))
    out[int(length.argmax())] = 1.0
    return out


def _proportional(pool: Pool, near: Floats) -> Floats:
    p = np.where(pool.labelled, 0.0, near)
    if not p.any():  # all that is left lies on what has been asked
        p = (~pool.labelled).astype(np.float64)
    out: Floats = p / p.sum()
    return out
