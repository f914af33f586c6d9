"""Does a distance say where a model goes wrong? Figures of shifted decisions, with intervals.

In every draw, bodies are resampled within each cell. A rank correlation is over cells: its first
interval takes the cells as given, its second resamples whole families of shift.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.records import Kind
from cb2_assist.learning.contract_figures import interval
from cb2_assist.learning.metrics import balanced_accuracy, ece15
from cb2_assist.learning.ood_fit import separation
from cb2_assist.learning.shift_cells import Seen
from cb2_assist.learning.shifts import Cell
from cb2_assist.model.ood.distances import (
    DISTANCES,
    directions,
    line_wasserstein,
    on_sphere,
)
from cb2_assist.model.ood.reference import OodReference
from cb2_assist.settings import OOD_FLAG_PERCENTILE

Floats = NDArray[np.float64]

UNSURE = "unsure"
"""The cheap baseline: 1 - max(score, 1 - score) (Hendrycks & Gimpel 2017, ICLR)."""
SETS = "wasserstein"
"""Sliced Wasserstein distance of a cell's embeddings, of length 1, to the training sample."""
WORDS = {
    **{name: d.words for name, d in DISTANCES.items()},
    UNSURE: "1 - max softmax (baseline)",
    SETS: "sliced Wasserstein of sets",
}
TARGETS = {"far_auroc": 0.9, "spearman": 0.7, "spearman_excludes": 0.4}


@dataclass(frozen=True, slots=True, eq=False)
class _Scored:
    """A cell's judged decisions as numbers.

    Attributes:
        distance: By method, (n,).
        flagged: What the page would call not reliable here.
        projected: Embeddings along the directions of `SETS`, (n, T).
    """

    answer: NDArray[np.bool_]
    group: NDArray[np.int64]
    score: Floats
    distance: Mapping[str, Floats]
    flagged: NDArray[np.bool_]
    projected: Floats


class Analysis:
    """Figures of one model on one grid of shifts."""

    def __init__(
        self,
        usual: Seen,
        cells: Sequence[tuple[Cell, Seen]],
        reference: OodReference,
        score: Callable[[float], float],
        *,
        draws: int,
        seed: int = 0,
    ) -> None:
        """Prepare.

        Args:
            usual: Decisions without a shift.
            cells: Those with one.
            reference: Of the model.
            score: Log-odds of a join to the probability at equal priors.
            draws: Resamples behind the intervals.
            seed: Of the resampling.
        """
        self.reference, self.draws, self.seed = reference, draws, seed
        sample = reference.tasks[Kind.JOIN].tensors.get("sample")
        self._line = None if sample is None else directions(sample.shape[1])
        self._sample = None if sample is None else self._project(sample)
        self.methods = [*reference.methods, UNSURE]
        self.usual = self._scored(usual, score)
        self.asked = {cell.name: len(seen) for cell, seen in cells} | {"": len(usual)}
        self.cells = [(cell, self._scored(seen, score)) for cell, seen in cells]

    def result(self) -> dict[str, Any]:
        """All figures, as JSON; a figure is ``{"value", "ci95"}``, None where there is none."""
        draw = self._values([np.arange(len(s.answer)) for s in self._all()])
        rng = np.random.default_rng(self.seed)
        drawn = [
            self._values([_resample(s.group, rng) for s in self._all()]) for _ in range(self.draws)
        ]
        cells = []
        for k, (cell, scored) in enumerate(self.cells, 1):
            cells.append(
                {
                    "family": cell.family,
                    "severity": cell.severity,
                    "code": cell.code,
                    "far": cell.far,
                    **self._cell(cell.name, scored, draw[k], [d[k] for d in drawn]),
                }
            )
        return {
            "unshifted": self._cell("", self.usual, draw[0], [d[0] for d in drawn]),
            "cells": cells,
            "summary": self._summary(draw, drawn),
        }

    def _all(self) -> list[_Scored]:
        return [self.usual, *(s for _, s in self.cells)]

    def _project(self, embedding: NDArray[Any]) -> Floats:
        assert self._line is not None
        inside = embedding[:, : len(self._line)]  # appearance is behind it
        out: Floats = np.einsum("nd,dt->nt", on_sphere(inside), self._line)
        return out

    def _scored(self, seen: Seen, score: Callable[[float], float]) -> _Scored:
        seen = seen.take(seen.judged)
        p = np.array([score(z) for z in seen.logit.tolist()], np.float64)
        kinds = [Kind.JOIN] * len(seen)
        distance = {
            m: self.reference.distance(seen.embedding, kinds, m) for m in self.reference.methods
        }
        distance[UNSURE] = 1 - np.maximum(p, 1 - p)
        at = distance[self.reference.default].tolist()
        percentile = np.array([self.reference.percentile(Kind.JOIN, d) for d in at])
        known = self._line is not None and len(seen)
        return _Scored(
            seen.answer,
            seen.group,
            p,
            distance,
            (percentile > OOD_FLAG_PERCENTILE) | ~seen.interface,
            self._project(seen.embedding) if known else np.zeros((len(seen), 0)),
        )

    def _values(self, rows: list[NDArray[np.intp]]) -> list[dict[str, float]]:
        """Figures of every set, the unshifted one first, from these of its rows."""
        out: list[dict[str, float]] = []
        usual = {m: self.usual.distance[m][rows[0]] for m in self.methods}
        for scored, some in zip(self._all(), rows, strict=True):
            answer, p = scored.answer[some], scored.score[some]
            row = {
                "balanced_accuracy": balanced_accuracy(answer, p),
                "ece15_score": ece15(answer, p) if len(p) else math.nan,
                "flagged": float(scored.flagged[some].mean()) if len(p) else math.nan,
                SETS: self._to_sample(scored.projected[some]),
            }
            for m in self.methods:
                d = scored.distance[m][some]
                row[f"distance_{m}"] = float(d.mean()) if len(d) else math.nan
                row[f"auroc_{m}"] = separation(usual[m], d)
            row["drop"] = (out[0] if out else row)["balanced_accuracy"] - row["balanced_accuracy"]
            out.append(row)
        return out

    def _to_sample(self, projected: Floats) -> float:
        if self._sample is None or not len(projected):
            return math.nan
        return line_wasserstein(projected, self._sample)

    def _cell(
        self, name: str, scored: _Scored, value: dict[str, float], drawn: list[dict[str, float]]
    ) -> dict[str, Any]:
        def of(key: str) -> dict[str, Any]:
            return figure(value[key], [d[key] for d in drawn])

        return {
            "n_asked": self.asked[name],
            "n": len(scored.answer),
            "n_positive": int(scored.answer.sum()),
            "n_clusters": len(np.unique(scored.group)),
            **{k: of(k) for k in ("balanced_accuracy", "drop", "ece15_score", "flagged")},
            "distance": {m: of(f"distance_{m}") for m in self.methods} | {SETS: of(SETS)},
            "auroc": {m: of(f"auroc_{m}") for m in self.methods},
        }

    def _summary(
        self, draw: list[dict[str, float]], drawn: list[list[dict[str, float]]]
    ) -> dict[str, Any]:
        far = [k for k, (cell, _) in enumerate(self.cells, 1) if cell.far]
        names = [f"distance_{m}" for m in self.methods] + [SETS]

        def far_auroc(m: str) -> Callable[[list[dict[str, float]]], float]:
            return lambda rows: _mean([rows[k][f"auroc_{m}"] for k in far])

        def ranks(name: str, bad: str) -> Callable[[list[dict[str, float]]], float]:
            return lambda rows: spearman(
                np.array([r[name] for r in rows[1:]]), np.array([r[bad] for r in rows[1:]])
            )

        out: dict[str, Any] = {
            "n_cells": len(self.cells),
            "n_far": len(far),
            "default": self.reference.default,
            "targets": TARGETS,
            "far_auroc": {
                m: figure(far_auroc(m)(draw), [far_auroc(m)(d) for d in drawn])
                for m in self.methods
            },
        }
        for bad in ("drop", "ece15_score"):
            out[f"spearman_{bad}"] = {
                name.removeprefix("distance_"): {
                    **figure(ranks(name, bad)(draw), [ranks(name, bad)(d) for d in drawn]),
                    "ci95_families": self._by_family(draw, name, bad),
                }
                for name in names
            }
        return out

    def _by_family(self, draw: list[dict[str, float]], name: str, bad: str) -> list[float] | None:
        families = np.array([cell.family for cell, _ in self.cells])
        x, y = (np.array([r[k] for r in draw[1:]]) for k in (name, bad))
        rng = np.random.default_rng(self.seed)
        rows = [_resample(families, rng) for _ in range(self.draws)]
        if len(np.unique(families)) < 2:
            return None
        return interval(np.array([spearman(x[i], y[i]) for i in rows]))


def figure(value: float, drawn: list[float]) -> dict[str, Any]:
    """A value with the middle 95 % of its draws; None for what is no number."""
    if not math.isfinite(value):
        return {"value": None, "ci95": None}
    return {"value": value, "ci95": interval(np.array(drawn, np.float64))}


def spearman(x: Floats, y: Floats) -> float:
    """Correlation of ranks, ties sharing their mean rank; NaN where it does not exist.

    Pairs in which either is no number are left out.
    """
    from scipy.stats import rankdata

    known = np.isfinite(x) & np.isfinite(y)
    a, b = (rankdata(v[known]) if known.any() else np.zeros(0) for v in (x, y))
    if len(a) < 3 or a.std() == 0 or b.std() == 0:
        return math.nan
    return float(np.corrcoef(a, b)[0, 1])


def _mean(values: list[float]) -> float:
    finite = [v for v in values if math.isfinite(v)]
    return float(np.mean(finite)) if finite else math.nan


def _resample(group: NDArray[Any], rng: np.random.Generator) -> NDArray[np.intp]:
    """Rows of as many groups as there are, drawn with replacement."""
    if not len(group):
        return np.zeros(0, np.intp)
    _, inverse = np.unique(group, return_inverse=True)
    n = int(inverse.max()) + 1
    times = np.bincount(rng.integers(0, n, n), minlength=n)
    out: NDArray[np.intp] = np.repeat(np.arange(len(group)), times[inverse])
    return out
