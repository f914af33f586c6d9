"""Facility location: sites such that every other one has one like it among them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cb2_assist.learning.strategies.pool import Pool, Rows

REFERENCES = 2000
"""Above so many sites, coverage is measured on so many drawn ones."""
_BLOCK = 1024
"""Sites whose gain is worked out at once: 8 MB of similarities."""
_SEED = 20150706

Singles = NDArray[np.float32]


def facility(pool: Pool, k: int, _rng: np.random.Generator) -> Rows:
    """Greedy for the largest sum over sites of the similarity to the most alike chosen one.

    f(S) = sum over i of max over j in S of (1 + cos(x_i, x_j)) / 2 (Wei, Iyer and Bilmes 2015,
    Submodularity in Data Subset Selection and Active Learning); greedy reaches at least 1 - 1/e of
    the best (Nemhauser, Wolsey and Fisher 1978). Sites that have been asked are chosen already.
    Gains only shrink, so stale ones are upper bounds and most are never worked out again (Minoux
    1978). Above `REFERENCES` sites, i runs over that many, always the same ones, so that memory
    stays bounded: O(n D REFERENCES) at most for each round of gains.
    """
    x = _unit(pool.column("embedding").astype(np.float32))
    at = x
    if len(x) > REFERENCES:
        rows = np.random.default_rng(_SEED).permutation(len(x))[:REFERENCES]
        at = x[np.sort(rows)]
    cover = np.zeros(len(at), np.float32)
    for start in range(0, int(pool.labelled.sum()), _BLOCK):
        part = x[pool.labelled][start : start + _BLOCK]
        cover = np.maximum(cover, _alike(part, at).max(axis=0))
    bound = np.where(pool.labelled, -np.inf, np.inf)
    chosen: list[int] = []
    for _ in range(k):
        row = _best(x, at, cover, bound)
        chosen.append(row)
        bound[row] = -np.inf
        cover = np.maximum(cover, _alike(x[row : row + 1], at)[0])
    return np.array(chosen, np.intp)


def _best(x: Singles, at: Singles, cover: Singles, bound: NDArray[np.float64]) -> int:
    """The row of the largest gain, the first of equals; mends the bounds that it works out."""
    fresh = np.zeros(len(x), bool)
    best, most = -1, -np.inf
    while True:
        waiting = np.flatnonzero(~fresh & (bound >= most) & (bound > -np.inf))
        if not len(waiting):
            return best
        part = waiting
        if len(waiting) > _BLOCK:
            part = np.sort(waiting[np.argpartition(-bound[waiting], _BLOCK)[:_BLOCK]])
        gains = np.maximum(_alike(x[part], at) - cover, 0).sum(axis=1, dtype=np.float64)
        bound[part], fresh[part] = gains, True
        top = int(gains.argmax())
        if gains[top] > most or (gains[top] == most and part[top] < best):
            best, most = int(part[top]), float(gains[top])


def _alike(a: Singles, b: Singles) -> Singles:
    out: Singles = np.float32(0.5) * (np.float32(1) + a @ b.T)
    return out


def _unit(x: Singles) -> Singles:
    length = np.maximum(np.sqrt((x**2).sum(axis=1, keepdims=True)), np.float32(1e-12))
    out: Singles = x / length
    return out
