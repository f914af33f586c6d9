"""BAIT: sites that tell most about all the others, by Fisher information (Ash et al. 2021)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cb2_assist.learning.strategies.pool import Pool, Rows

RIDGE = 1.0
"""Prior precision of the head's weights, as in the paper."""


def bait(pool: Pool, k: int, _rng: np.random.Generator) -> Rows:
    """Greedy for the smallest trace(M^-1 F), M = RIDGE I + sum of asked w x x', w = s (1 - s).

    F is the mean of w x x' over all sites: the Fisher information of a logistic head on the
    embedding x (arXiv 2106.09675). One more site with v = M^-1 x takes v'F v / (1/w + x'v) off the
    trace (Sherman and Morrison). The paper takes 2 k and drops k again; this goes forward only.
    Both quadratic forms are kept for every site and mended after each choice, so that a choice
    costs O(n D); O(n D^2 + k (n D + D^2)) in all.
    """
    x = pool.column("embedding").astype(np.float32)
    score = pool.column("score").astype(np.float64)
    w = np.maximum(score * (1 - score), 1e-12)
    fisher = _information(x, w) / len(pool)
    asked = pool.labelled
    prior = RIDGE * np.eye(x.shape[1])
    inverse = np.asarray(np.linalg.inv(prior + _information(x[asked], w[asked])), np.float64)
    inner = inverse @ fisher @ inverse
    q, r = _quadratic(x, inner), _quadratic(x, inverse)
    taken = asked.copy()
    chosen: list[int] = []
    for _ in range(k):
        row = int(np.where(taken, -np.inf, q / (1 / w + r)).argmax())
        chosen.append(row)
        taken[row] = True
        u = inverse @ x[row].astype(np.float64)
        c = 1 / (1 / w[row] + float(x[row] @ u))
        v = inverse @ (fisher @ u)
        s = float(u @ fisher @ u)
        along, across = (x @ y.astype(np.float32) for y in (u, v))
        q += -2 * c * along.astype(np.float64) * across + c**2 * s * along.astype(np.float64) ** 2
        r -= c * along.astype(np.float64) ** 2
        inverse -= c * np.outer(u, u)
    return np.array(chosen, np.intp)


def _information(x: NDArray[np.float32], w: NDArray[np.float64]) -> NDArray[np.float64]:
    out: NDArray[np.float64] = (x * w[:, None].astype(np.float32)).T.astype(np.float64) @ x
    return out


def _quadratic(x: NDArray[np.float32], form: NDArray[np.float64]) -> NDArray[np.float64]:
    """The form's value x'A x at every row."""
    out: NDArray[np.float64] = np.einsum(
        "nd,nd->n", x @ form.astype(np.float32), x, dtype=np.float64
    )
    return out
