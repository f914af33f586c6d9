"""Fits the references of `model.ood` from arrays, whatever network the embeddings are of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.errors import DatasetError
from cb2_assist.core.records import Kind
from cb2_assist.learning.metrics import auroc
from cb2_assist.model.ood.distances import DISTANCES, Floats, on_sphere
from cb2_assist.model.ood.reference import OodReference, TaskReference, Tensor

SAMPLE = 512
"""Training decisions of each question that neighbours are looked for among; 0.2 MB at width 192."""
_LEAST = 20
"""Fewer training decisions of a question say nothing of where they lie."""
_FLOOR = 1e-6
"""Least variance of a direction, as a share of the mean variance."""
FIRST_CHOICE = next(iter(DISTANCES))
"""The distance that a reference has before `choose` has looked."""


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """Decisions as a network sees them; every array has one entry a decision.

    Attributes:
        embedding: float32, (n, D).
        task: int64, 0 join, 1 cut (the order of `core.records.Kind`).
        answer: bool.
        group: int64, what decisions have in common that they do not share with all: truth body.
    """

    embedding: NDArray[np.float32]
    task: NDArray[np.int64]
    answer: NDArray[np.bool_]
    group: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.task)

    def take(self, rows: NDArray[np.bool_]) -> Embedded:
        """Some of them."""
        return Embedded(self.embedding[rows], self.task[rows], self.answer[rows], self.group[rows])

    @property
    def kinds(self) -> list[Kind]:
        """Which question each is."""
        names = list(Kind)
        return [names[t] for t in self.task.tolist()]


def fit_reference(
    training: Embedded, held_out: Embedded | None = None, *, seed: int = 0
) -> OodReference:
    """Every distance of `model.ood.distances`, for each question that has enough decisions.

    Args:
        training: Decisions that the network has learnt from.
        held_out: Decisions that it has not; their distances are the percentiles, since those of
            examples that a network has fitted are too small. None where there are none: then half
            of the groups give the percentiles of a reference to the other half, and the reference
            that is kept is to all of them.
        seed: Of the sample and the halves.

    Raises:
        DatasetError: No question has enough decisions.
    """
    tasks = {}
    for index, kind in enumerate(Kind):
        mine = training.take(training.task == index)
        if len(mine) < _LEAST:
            continue
        tensors, judge = _tensors(mine, seed), None
        if held_out is not None:
            judge = held_out.take(held_out.task == index)
        if judge is None or not len(judge):
            rng = np.random.default_rng(seed)
            groups = np.unique(mine.group)
            half = np.isin(mine.group, rng.permutation(groups)[: len(groups) // 2])
            if half.sum() < _LEAST or (~half).sum() < _LEAST:
                continue
            judge, judged_by = mine.take(half), _tensors(mine.take(~half), seed)
        else:
            judged_by = tensors
        tasks[kind] = TaskReference(
            tensors,
            {name: _percentiles(name, judged_by, judge.embedding) for name in DISTANCES},
        )
    if not tasks:
        raise DatasetError(
            f"No question has {_LEAST} training decisions of two groups, so nothing can be said of "
            "where they lie. Use a larger part of the dataset."
        )
    return OodReference(FIRST_CHOICE, tasks)


def choose(
    reference: OodReference, usual: Embedded, strange: Embedded
) -> tuple[OodReference, dict[str, float]]:
    """Make the distance the default that best tells strange decisions from usual ones.

    Args:
        reference: What it can measure.
        usual: Held-out decisions.
        strange: Decisions that are known to be like nothing in training (`ood_chimera`).

    Returns:
        The reference, and each distance's AUROC, the mean over questions. Ties go to the first.

    Raises:
        DatasetError: No question has both.
    """
    found: dict[str, float] = {}
    for method in reference.methods:
        of_tasks = []
        for index, kind in enumerate(Kind):
            near, far = (d.embedding[d.task == index] for d in (usual, strange))
            if kind in reference.tasks and len(near) and len(far):
                of_tasks.append(
                    separation(*(reference.tasks[kind].distance(method, e) for e in (near, far)))
                )
        if not of_tasks:
            raise DatasetError(
                "There is no held-out decision to choose a distance by. Give --val-z a wider slab."
            )
        found[method] = float(np.mean(of_tasks))
    return replace(reference, default=max(found, key=lambda m: found[m])), found


def separation(usual: Floats, strange: Floats) -> float:
    """Probability that a strange decision lies farther than a usual one (AUROC); NaN if none."""
    if not len(usual) or not len(strange):
        return float("nan")
    answer = np.arange(len(usual) + len(strange)) >= len(usual)
    return auroc(answer, np.concatenate([usual, strange]))


def _tensors(mine: Embedded, seed: int) -> dict[str, Tensor]:
    x = mine.embedding.astype(np.float64)
    classes = [mine.answer == a for a in (False, True) if (mine.answer == a).any()]
    means = np.stack([x[rows].mean(0) for rows in classes])
    within = np.concatenate([x[rows] - m for rows, m in zip(classes, means, strict=True)])
    middle = x.mean(0, keepdims=True)
    some = np.random.default_rng(seed).permutation(len(x))[:SAMPLE]
    return {
        "means": means.astype(np.float32),
        "whiten": _whiten(within),
        "background_mean": middle.astype(np.float32),
        "background_whiten": _whiten(x - middle),
        "sample": on_sphere(x[np.sort(some)]).astype(np.float16),
    }


def _whiten(centred: Floats) -> NDArray[np.float32]:
    """W with ``W W'`` the inverse of the shrunk covariance.

    Shrinkage towards a multiple of the identity by the amount that is best for the sample (Ledoit
    & Wolf 2004, J Multivar Anal 88:365): there may be fewer decisions than dimensions.
    """
    from sklearn.covariance import ledoit_wolf

    covariance, _ = ledoit_wolf(centred, assume_centered=True)
    w, v = np.linalg.eigh(covariance)
    w = np.maximum(w, max(_FLOOR * float(w.mean()), 1e-12))
    out: NDArray[np.float32] = (v / np.sqrt(w)).astype(np.float32)
    return out


def _percentiles(
    method: str, tensors: Mapping[str, Any], embedding: NDArray[np.float32]
) -> NDArray[np.float32]:
    distances = TaskReference(tensors, {}).distance(method, embedding)
    at = np.maximum.accumulate(np.quantile(distances, np.linspace(0, 1, 101)))
    out: NDArray[np.float32] = at.astype(np.float32)
    return out
