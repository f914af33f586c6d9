"""Strategies that sort by one number a site. Ties keep the order of the rows."""

from __future__ import annotations

import numpy as np

from cb2_assist.learning.strategies.pool import Floats, Pool, Rows


def random(pool: Pool, k: int, rng: np.random.Generator) -> Rows:
    """Every order with the same probability."""
    return rng.permutation(pool.open)[:k]


def random_chances(pool: Pool) -> Floats:
    """Uniform over the open rows."""
    out = np.zeros(len(pool))
    out[pool.open] = 1 / len(pool.open)
    return out


def contact(pool: Pool, k: int, _rng: np.random.Generator) -> Rows:
    """Largest contact first: what an agglomeration without a model would join."""
    return _largest(pool, pool.column("contact"), k)


def size(pool: Pool, k: int, _rng: np.random.Generator) -> Rows:
    """Largest smaller side first: where the most is at stake."""
    return _largest(pool, pool.column("size"), k)


def confidence(pool: Pool, k: int, _rng: np.random.Generator) -> Rows:
    """Most probable first: the most accepts a minute."""
    return _largest(pool, pool.column("confidence"), k)


def margin(pool: Pool, k: int, _rng: np.random.Generator) -> Rows:
    """Smallest |2 s - 1| of the score s first.

    The margin between the two answers (Scheffer et al. 2001, doi:10.1007/3-540-44816-0_31), at
    equal priors, so that it does not move with the base rate.
    """
    return _largest(pool, -np.abs(2 * pool.column("score") - 1), k)


def entropy(pool: Pool, k: int, _rng: np.random.Generator) -> Rows:
    """Largest entropy of the confidence p first: -p log p - (1 - p) log(1 - p).

    Shannon's entropy of the answer (Settles 2009, Active Learning Literature Survey, section
    3.1), at the base rate in force: where true sites are rare, sites of a high score come first.
    """
    return _largest(pool, binary_entropy(pool.column("confidence")), k)


def disagreement(pool: Pool, k: int, _rng: np.random.Generator) -> Rows:
    """Largest Jensen-Shannon divergence between the views first: H(mean p) - mean H(p).

    The mean divergence of the committee's members from their mean (McCallum and Nigam 1998), the
    committee being the views, each asked alone. A view that is absent has no vote.
    """
    views = pool.column("views")
    p = np.nanmean(views, axis=1)
    return _largest(pool, binary_entropy(p) - np.nanmean(binary_entropy(views), axis=1), k)


def value(pool: Pool, k: int, _rng: np.random.Generator) -> Rows:
    """Largest gain * score / seconds first: the gain to be expected a second.

    Greedy for the ratio of worth to cost, as for a knapsack (Settles, Craven and Friedland 2008,
    Active Learning with Real Annotation Costs). A rejected site gains nothing. The probability is
    the one at equal priors: a base rate that is too low would put many sure and small sites before
    a large and doubtful one.
    """
    return _largest(pool, worth(pool), k)


def worth(pool: Pool) -> Floats:
    """What `value` sorts by."""
    gain, p, seconds = (pool.column(c) for c in ("gain", "score", "seconds"))
    out: Floats = gain * p / seconds
    return out


def binary_entropy(p: np.ndarray) -> Floats:
    """Entropy in nats of an answer that is yes with probability p; NaN stays NaN."""
    q = np.clip(p, 1e-300, 1)
    r = np.clip(1 - p, 1e-300, 1)
    out: Floats = -(p * np.log(q) + (1 - p) * np.log(r))
    return out


def _largest(pool: Pool, key: np.ndarray, k: int) -> Rows:
    rows = pool.open
    return rows[np.argsort(-key[rows], kind="stable")[:k]]
