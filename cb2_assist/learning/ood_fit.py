"""Fits the references of `model.ood` from arrays, whatever network the embeddings are of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.errors import DatasetError
from cb2_assist.core.records import Kind
from cb2_assist.learning.metrics import auroc
from cb2_assist.model.ood.distances import DISTANCES, Floats, Space, on_sphere
from cb2_assist.model.ood.reference import OodReference, TaskReference, Tensor

SAMPLE = 512
"""Training decisions of each question that neighbours are looked for among; 0.2 MB at width 192."""
_LEAST = 20
"""Fewer training decisions of a question say nothing of where they lie."""
_FLOOR = 1e-6
"""Least variance of a direction, as a share of the mean variance."""
_LEAST_DEVIATION = 1e-3
"""A column of appearance that hardly varied in training is not divided by less."""
USUAL = 0.95
"""Share of held-out decisions that lie nearer than 1 in either space of `distances.either`."""
_TOO_FEW = (
    f"No question has {_LEAST} training decisions of two groups, so nothing can be said of where "
    "they lie. Use a larger part of the dataset."
)
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
        seen: float32, (n, A), `model.ood.appearance`; None: no distance reads it.
    """

    embedding: NDArray[np.float32]
    task: NDArray[np.int64]
    answer: NDArray[np.bool_]
    group: NDArray[np.int64]
    seen: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.task)

    def take(self, rows: NDArray[np.bool_]) -> Embedded:
        """Some of them."""
        seen = None if self.seen is None else self.seen[rows]
        return Embedded(
            self.embedding[rows], self.task[rows], self.answer[rows], self.group[rows], seen
        )

    @property
    def vectors(self) -> NDArray[np.float32]:
        """What `model.ood.reference.TaskReference.distance` takes."""
        return self.embedding if self.seen is None else np.hstack([self.embedding, self.seen])

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
        if judge.seen is not None and "seen_means" in judged_by:
            tensors["scales"] = judged_by["scales"] = _scales(judged_by, judge)
        known = [m for m, of in DISTANCES.items() if set(of.needs) <= set(tensors)]
        tasks[kind] = TaskReference(
            tensors,
            {name: _percentiles(name, judged_by, judge.vectors) for name in known},
        )
    if not tasks:
        raise DatasetError(_TOO_FEW)
    return OodReference(FIRST_CHOICE, tasks)


def fit_reference_across(
    training: Embedded, folds: Sequence[tuple[Embedded, Embedded]], *, seed: int = 0
) -> OodReference:
    """As `fit_reference`, for a network that has learnt from all there is.

    Args:
        training: Its training decisions.
        folds: Of networks that were trained in the same way on a part of them: their training
            decisions, and decisions that they have not seen, as they see both. What is usual is
            taken from all of them together.
        seed: Of the samples.

    Raises:
        DatasetError: No question has enough decisions.
    """
    tasks = {}
    for index, kind in enumerate(Kind):
        mine = training.take(training.task == index)
        of = [(a.take(a.task == index), b.take(b.task == index)) for a, b in folds]
        of = [(a, b) for a, b in of if len(a) >= _LEAST and len(b)]
        if len(mine) < _LEAST or not of:
            continue
        tensors = _tensors(mine, seed)
        each = [(TaskReference(_tensors(a, seed), {}), b.vectors) for a, b in of]
        seen: dict[str, Floats] = {
            m: np.concatenate([known.distance(m, x) for known, x in each])
            for m, d in DISTANCES.items()
            if d.space is not Space.BOTH and set(d.needs) <= set(tensors)
        }
        if "appearance" in seen:
            inside, look = seen["mahalanobis"], seen["appearance"]
            scales = np.maximum([np.quantile(inside, USUAL), np.quantile(look, USUAL)], _FLOOR)
            tensors["scales"] = scales.astype(np.float32)
            seen["either"] = np.maximum(inside / scales[0], look / scales[1])
        tasks[kind] = TaskReference(tensors, {m: _steps(d) for m, d in seen.items()})
    if not tasks:
        raise DatasetError(_TOO_FEW)
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
            near, far = (d.vectors[d.task == index] for d in (usual, strange))
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
    means, within = _classes(x, mine.answer)
    middle = x.mean(0, keepdims=True)
    some = np.random.default_rng(seed).permutation(len(x))[:SAMPLE]
    out: dict[str, Tensor] = {
        "means": means.astype(np.float32),
        "whiten": _whiten(within),
        "background_mean": middle.astype(np.float32),
        "background_whiten": _whiten(x - middle),
        "sample": on_sphere(x[np.sort(some)]).astype(np.float16),
    }
    if mine.seen is not None:
        seen = mine.seen.astype(np.float64)
        # columns have units of their own, and shrinkage is towards equal deviations
        unit = np.maximum(seen.std(0), _LEAST_DEVIATION)
        means, within = _classes(seen, mine.answer)
        out |= {
            "seen_means": means.astype(np.float32),
            "seen_whiten": (_whiten(within / unit) / unit[:, None]).astype(np.float32),
        }
    return out


def _classes(x: Floats, answer: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Mean of each answer that there is, and all rows less the mean of their own."""
    classes = [answer == a for a in (False, True) if (answer == a).any()]
    means = np.stack([x[rows].mean(0) for rows in classes])
    return means, np.concatenate([x[rows] - m for rows, m in zip(classes, means, strict=True)])


def _scales(tensors: Mapping[str, Any], judge: Embedded) -> NDArray[np.float32]:
    """The distance in either space below which most held-out decisions lie."""
    known = TaskReference(tensors, {})
    spaces = ("mahalanobis", "appearance")
    at = [np.quantile(known.distance(m, judge.vectors), USUAL) for m in spaces]
    return np.maximum(at, _FLOOR).astype(np.float32)


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
    method: str, tensors: Mapping[str, Any], vectors: NDArray[np.float32]
) -> NDArray[np.float32]:
    return _steps(TaskReference(tensors, {}).distance(method, vectors))


def _steps(distances: Floats) -> NDArray[np.float32]:
    """Distances below which 0..100 % lie, (101,)."""
    at = np.maximum.accumulate(np.quantile(distances, np.linspace(0, 1, 101)))
    out: NDArray[np.float32] = at.astype(np.float32)
    return out
