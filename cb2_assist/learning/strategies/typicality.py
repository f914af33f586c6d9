"""TypiClust: the most typical site of each cluster not yet asked about (Hacohen et al. 2022)."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from cb2_assist.learning.strategies.pool import Pool, Rows

NEIGHBOURS = 20
MOST_CLUSTERS = 500
REFERENCES = 2000
"""In larger clusters, the density is measured against so many of their sites."""
_FULL = 5000
"""Up to so many sites clusters are made from all of them, above from small batches."""
_SEED = 20220202
_BLOCK = 4096

Singles = NDArray[np.float32]


def typicality(pool: Pool, k: int, _rng: np.random.Generator) -> Rows:
    """From the largest clusters that hold nothing asked, the site in the densest place.

    The embeddings are parted by k-means into as many clusters as sites have been asked and are to
    be asked, at most `MOST_CLUSTERS`. Typicality is 1 / mean distance to the `NEIGHBOURS` nearest
    sites of the cluster (arXiv 2202.02794). With more to ask than clusters without an asked site,
    those with the fewest come next, as in the authors' program. Both approximations for many
    sites use a fixed seed: the same pool gives the same order. O(n D clusters) and
    O(n D REFERENCES).
    """
    x = pool.column("embedding").astype(np.float32)
    cluster = _clusters(x, min(int(pool.labelled.sum()) + k, MOST_CLUSTERS, len(x)))
    number = int(cluster.max()) + 1
    size = np.bincount(cluster, minlength=number)
    asked = np.bincount(cluster, pool.labelled, number).astype(int)
    by_density: dict[int, list[int]] = {}
    chosen: list[int] = []
    while len(chosen) < k:
        left = [c for c in range(number) if asked[c] < size[c]]
        c = min(left, key=lambda c: (asked[c], -size[c], c))
        if c not in by_density:
            rows = np.flatnonzero((cluster == c) & ~pool.labelled)
            dense = density(x[rows], x[cluster == c])
            by_density[c] = rows[np.argsort(-dense, kind="stable")].tolist()
        chosen.append(by_density[c].pop(0))
        asked[c] += 1
    return np.array(chosen, np.intp)


def density(points: Singles, among: Singles) -> NDArray[np.float64]:
    """Typicality of points (n, D), which are some of ``among`` (m, D)."""
    if len(among) > REFERENCES:
        rows = np.random.default_rng(_SEED).permutation(len(among))[:REFERENCES]
        among = among[rows]
    out = np.zeros(len(points))
    own = (among**2).sum(1)
    for start in range(0, len(points), _BLOCK):
        part = points[start : start + _BLOCK]
        far = np.maximum((part**2).sum(1)[:, None] - 2 * part @ among.T + own, 0)
        # the site itself is among the nearest, at distance 0
        near = min(NEIGHBOURS + 1, len(among))
        nearest = np.partition(far, near - 1, axis=1)[:, :near]
        mean = np.sqrt(nearest).sum(axis=1) / max(near - 1, 1)
        out[start : start + _BLOCK] = 1 / np.maximum(mean, 1e-12)
    return out


def _clusters(x: Singles, n: int) -> NDArray[np.int64]:
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    if n <= 1:
        return np.zeros(len(x), np.int64)
    kind = KMeans if len(x) <= _FULL else MiniBatchKMeans
    with warnings.catch_warnings():
        # equal sites may make fewer clusters, which is as well
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = kind(n, n_init=1, random_state=_SEED).fit_predict(x)
    # some may have stayed empty
    out: NDArray[np.int64] = np.unique(found, return_inverse=True)[1].ravel()
    return out
