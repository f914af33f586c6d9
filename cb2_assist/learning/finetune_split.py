"""Which labels a fine-tuned model learns from, and which it is measured on.

Labels of one neuron share their luck, so no segment stands on both sides of a split. What hangs
together by shared segments stays together; where that is most of the labels (one large segment
touches everything), blocks of space are kept together instead, and labels to learn from that share
a segment with a held-out one are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cb2_assist.learning.finetune_fit import folds_of

Ints = NDArray[np.int64]

_LARGEST = 0.4
"""Share of the labels that may hang together by segments."""
_BLOCKS = 16
"""About so many blocks of space."""


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Where each label goes.

    Attributes:
        held: Measured on, never learnt from, (n,).
        learnt: Learnt from, (n,); what is in neither shares a segment with a held-out label.
        group: What stays together, (n,); clusters of intervals and folds.
        by: ``segments`` or ``space``.
    """

    held: NDArray[np.bool_]
    learnt: NDArray[np.bool_]
    group: Ints
    by: str


def components(names: NDArray[np.str_]) -> Ints:
    """What hangs together by shared names, (n,).

    Args:
        names: Of the segments of each label, (n, k); empty text for none.
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for row in names.tolist():
        own = [n for n in row if n]
        for other in own[1:]:
            parent[root(own[0])] = root(other)
    roots = [root(next(n for n in row if n)) for row in names.tolist()]
    known = {r: k for k, r in enumerate(dict.fromkeys(roots))}
    return np.array([known[r] for r in roots], np.int64)


def split_labels(
    names: NDArray[np.str_],
    point_nm: NDArray[np.float64],
    answer: NDArray[np.bool_],
    share: float,
    seed: int,
) -> Split:
    """Hold out about a share of the labels.

    Args:
        names: Dataset and segment of each side, (n, 2); empty text for none.
        point_nm: (n, 3).
        answer: (n,).
        share: Of the labels, above 0 and at most a half.
        seed: Of the choice.
    """
    group, by = components(names), "segments"
    if len(group) and np.bincount(group).max() > _LARGEST * len(group):
        group, by = blocks(point_nm), "space"
    k = max(2, round(1 / share))
    held = folds_of(group, answer, seed, k) == 0
    learnt = ~held
    if by == "space":
        taken = np.unique(names[held])
        learnt &= ~np.isin(names, taken[taken != ""]).any(1)
    return Split(held, learnt, group, by)


def blocks(point_nm: NDArray[np.float64]) -> Ints:
    """About `_BLOCKS` blocks of space with equally many labels: halves along the longest side."""
    out = np.zeros(len(point_nm), np.int64)
    parts = [np.arange(len(point_nm))]
    while len(parts) < _BLOCKS and max(len(p) for p in parts) > 1:
        rows = parts.pop(int(np.argmax([len(p) for p in parts])))
        axis = int(np.ptp(point_nm[rows], axis=0).argmax())
        order = rows[np.argsort(point_nm[rows, axis], kind="stable")]
        parts += [order[: len(order) // 2], order[len(order) // 2 :]]
    for number, rows in enumerate(parts):
        out[rows] = number
    return out
