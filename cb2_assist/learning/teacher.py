"""A second opinion on the training decisions, from trees that have not seen their slab.

Trees on what is measured are better calibrated than a network fitted to hard answers: they know
which decisions look like what was mistaken elsewhere. The network learns half from the answer and
half from them (distillation: Hinton et al. 2015, arXiv 1503.02531), each decision from trees that
were fitted without its slab of the volume, since trees are sure of what they have seen.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cb2_assist.learning.first_stage import FOLDS, GUARD_VX

_LEAST = 40
"""Decisions of either answer without which trees of a task say nothing."""
Floats = NDArray[np.float32]


def opinions(
    measured: Floats,
    answer: NDArray[np.bool_],
    task: NDArray[np.int64],
    weight: Floats,
    z: NDArray[np.int64],
    *,
    seed: int,
    say: Callable[[str], None],
) -> Floats:
    """What trees without a decision's slab say of it.

    Args:
        measured: Features and graph values, (n, M).
        answer: What is true, (n,).
        task: Each task has trees of its own, (n,).
        weight: Of each decision, (n,); with half of a task's weight on either answer the opinion
            is at equal priors, as the network's is.
        z: Voxel index by which slabs are held out, (n,).
        seed: Of the trees.
        say: Told about progress.

    Returns:
        Probability of the answer true, (n,); the answer itself where the rest of the task has
        fewer than 40 decisions of either.
    """
    out = answer.astype(np.float32)
    edges = np.quantile(z, np.linspace(0, 1, FOLDS + 1)) if len(z) else np.zeros(FOLDS + 1)
    edges[0], edges[-1] = -np.inf, np.inf
    for k, (low, high) in enumerate(pairwise(edges), 1):
        held = (z > low) & (z <= high)
        rest = (z <= low - GUARD_VX) | (z > high + GUARD_VX)
        for t in np.unique(task[held]):
            known, asked = rest & (task == t), held & (task == t)
            if min(answer[known].sum(), (~answer[known]).sum()) < _LEAST:
                continue
            trees = _fit(measured[known], answer[known], weight[known], seed)
            out[asked] = np.mean([m.predict_proba(measured[asked])[:, 1] for m in trees], 0)
        say(f"second opinion, slab {k} of {FOLDS}: {int(held.sum())} decisions")
    return out


def _fit(x: Floats, y: NDArray[np.bool_], weight: Floats, seed: int) -> list[Any]:
    from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier

    boosted = HistGradientBoostingClassifier(
        max_iter=300,
        learning_rate=0.05,
        max_leaf_nodes=15,
        min_samples_leaf=20,
        l2_regularization=5,
        max_features=0.25,
        random_state=seed,
    )
    random = ExtraTreesClassifier(150, min_samples_leaf=2, max_features=0.3, random_state=seed)
    return [m.fit(x, y, sample_weight=weight) for m in (boosted, random)]
