"""Decisions with truth and a model's scores: what every figure is made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.records import Kind
from cb2_assist.learning.contract_figures import contract_figures
from cb2_assist.model.network import (
    FEATURE_TOKEN,
    GRAPH_TOKEN,
    N_GEOMETRY,
    N_TOKENS,
    N_VIEWS,
)

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Names = NDArray[np.str_]

ALL = "all"
SUBSETS: dict[str, tuple[int, ...]] = {
    ALL: tuple(range(N_TOKENS)),
    "em": tuple(range(N_GEOMETRY, N_VIEWS)),
    "geometry": tuple(range(N_GEOMETRY)),
    "both": tuple(range(N_VIEWS)),
    "features": (FEATURE_TOKEN,),
    "neighbours": (GRAPH_TOKEN,),
}
"""Tokens behind each score. ``both`` is EM and geometry, without anything measured."""
MODALITIES = tuple(name for name in SUBSETS if name != ALL)


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """The decisions of one task; every array has one entry a decision.

    Attributes:
        kind: Which question.
        key: Names the decision, the same for every model.
        answer: What is true.
        cluster: What intervals resample as a whole.
        species: As in the data.
        sample_type: As in the data.
        scores: By `SUBSETS`: probability at a 50:50 prior; NaN where the model gave none.
        there: By modality: which decisions have those views at all.
    """

    kind: Kind
    key: Names
    answer: Bools
    cluster: Names
    species: Names
    sample_type: Names
    scores: dict[str, Floats]
    there: dict[str, Bools]

    def __len__(self) -> int:
        return len(self.answer)

    @property
    def score(self) -> Floats:
        """From all views that a decision has."""
        return self.scores[ALL]

    def take(self, rows: Bools | NDArray[np.intp]) -> Judged:
        """Some of them."""
        return Judged(
            self.kind,
            self.key[rows],
            self.answer[rows],
            self.cluster[rows],
            self.species[rows],
            self.sample_type[rows],
            {name: values[rows] for name, values in self.scores.items()},
            {name: values[rows] for name, values in self.there.items()},
        )

    def task(self, draws: int) -> dict[str, Any]:
        """The task's entry in ``metrics.json``, with ``by``.

        Confidence within ``by`` is at the base rate of the whole task: the share of true sites in
        one sample type is 0 or 1 by construction, and no model could be asked to know it.
        """
        out = contract_figures(self.answer, self.score, self.cluster, draws=draws)
        rate = out["positive_rate"]
        by: dict[str, dict[str, Any]] = {"species": {}, "sample_type": {}, "modality": {}}
        for axis, column in (("species", self.species), ("sample_type", self.sample_type)):
            for name in np.unique(column):
                rows = column == name
                by[axis][str(name)] = contract_figures(
                    self.answer[rows], self.score[rows], self.cluster[rows], rate=rate, draws=draws
                )
        for name in MODALITIES:
            rows = self.there[name]
            if rows.any():
                scores = self.scores[name][rows]
                by["modality"][name] = contract_figures(
                    self.answer[rows], scores, self.cluster[rows], rate=rate, draws=draws
                )
        out["by"] = by
        return out


def calibrated(
    logits: Floats, kinds: Sequence[Kind], score: Callable[[Kind, float], float]
) -> Floats:
    """Scores from log-odds (n, subsets); what is not finite stays without a score (NaN)."""
    out = np.full(logits.shape, np.nan)
    for i, k in zip(*np.nonzero(np.isfinite(logits)), strict=True):
        out[i, k] = score(kinds[i], float(logits[i, k]))
    return out
