"""The figures of ``metrics.json`` for one set of decisions, with intervals.

Intervals resample whole clusters (neurons, blocks): decisions of one neuron share their luck. A
draw is a weight for each decision, so nothing is sorted again and 1000 draws of 100,000 decisions
take seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cb2_assist.learning.metrics import at_base_rate

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

DRAWS = 1000
CALIBRATION = ("ece15", "brier", "nll")
"""Of ``confidence``; with ``_score`` after the name, of ``score``."""
FIGURES = (
    "balanced_accuracy",
    "accuracy",
    "auroc",
    "average_precision",
    *CALIBRATION,
    *(f"{name}_score" for name in CALIBRATION),
    "sensitivity",
    "specificity",
    "precision",
)
"""Names of the figures, in the order of the file."""


class Ranked:
    """Decisions with truth and score, sorted once.

    Attributes:
        answer: What is true, (n,).
        known: Which have a score, (n,).
        score: Probability at a 50:50 prior, (n,); 0.5 where there is none.
    """

    def __init__(self, answer: Bools, score: Floats) -> None:
        """Score is NaN for a decision that the model could not answer."""
        self.answer = answer.astype(bool)
        self.known = np.isfinite(score)
        self.score = np.where(self.known, score, 0.5).astype(np.float64)
        levels, self._level = np.unique(self.score, return_inverse=True)
        self._n_levels = len(levels)

    def __len__(self) -> int:
        return len(self.answer)

    def by_level(self, weight: Floats) -> tuple[Floats, Floats]:
        """Weight of true and of false sites at each different score, by rising score."""
        n = self._n_levels
        true = np.bincount(self._level, weight * self.answer, n)
        false = np.bincount(self._level, weight * ~self.answer, n)
        return true.astype(np.float64), false.astype(np.float64)

    def figures(self, weight: Floats, rate: float | None = None) -> dict[str, float]:
        """All `FIGURES`; NaN where one has no value, e.g. with one answer only.

        A decision without a score counts as wrong in the two accuracies, in sensitivity and in
        specificity, and as 0.5 in AUROC and average precision. Calibration and precision are those
        of what was answered.

        Args:
            weight: How often each decision was drawn, (n,).
            rate: Base rate of the confidence; None is the drawn set's own share of true sites.
        """
        n1, n0 = float(weight @ self.answer), float(weight @ ~self.answer)
        base = n1 / (n1 + n0) if rate is None else rate
        both = 0 < base < 1
        confidence = at_base_rate(self.score, base)
        right = self.known & ((self.score > 0.5) == self.answer)
        yes, no = self.known & (confidence > 0.5), self.known & (confidence <= 0.5)
        hits = float(weight @ (yes & self.answer))
        recall = _share(float(weight @ (right & self.answer)), n1)
        true, false = self.by_level(weight)
        out = {
            "balanced_accuracy": (recall + _share(float(weight @ (right & ~self.answer)), n0)) / 2,
            "accuracy": _share(float(weight @ right), n1 + n0),
            "auroc": _auroc(true, false),
            "average_precision": _average_precision(true, false) if n1 and n0 else math.nan,
        }
        w = weight * self.known
        for name, p in (("", confidence), ("_score", self.score)):
            values = _calibration(self.answer, p, w) if both or name else (math.nan,) * 3
            out |= {f"{k}{name}": v for k, v in zip(CALIBRATION, values, strict=True)}
        out["sensitivity"] = _share(hits, n1) if both else math.nan
        out["specificity"] = _share(float(weight @ (no & ~self.answer)), n0) if both else math.nan
        out["precision"] = _share(hits, float(weight @ yes)) if both and n1 and n0 else math.nan
        return {name: float(out[name]) for name in FIGURES}


def contract_figures(
    answer: Bools,
    score: Floats,
    cluster: NDArray[Any],
    *,
    rate: float | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """The figures of ``metrics.json`` for one set, each with ``ci95`` over resampled clusters.

    Args:
        answer: What is true, (n,).
        score: Probability at a 50:50 prior, NaN where the model has none, (n,).
        cluster: What is resampled as a whole, (n,).
        rate: Base rate of the confidence; None is the set's own, in each draw anew.
        draws: Resamples behind the intervals.
        seed: Of the resampling.

    Returns:
        ``n``, ``n_scored``, ``n_clusters``, ``positive_rate``, ``base_rate``, and each of
        `FIGURES` as ``{"value", "ci95": [low, high]}``. A value that does not exist (one answer
        only) is None; so is an interval from a single cluster, or where fewer than half of the
        draws have a value.
    """
    if not len(answer):
        return {"n": 0, "n_scored": 0, "n_clusters": 0, "positive_rate": None, "base_rate": rate}
    ranked = Ranked(answer, score)
    own = float(ranked.answer.mean())
    drawn = [ranked.figures(w, rate) for w in cluster_weights(cluster, draws, seed)]
    out: dict[str, Any] = {
        "n": len(ranked),
        "n_scored": int(ranked.known.sum()),
        "n_clusters": len(np.unique(cluster)),
        "positive_rate": own,
        "base_rate": own if rate is None else rate,
    }
    for name, value in ranked.figures(np.ones(len(ranked)), rate).items():
        ends = interval(np.array([d[name] for d in drawn]))
        known = math.isfinite(value)
        out[name] = {"value": value if known else None, "ci95": ends if known else None}
    return out


def cluster_weights(cluster: NDArray[Any], draws: int, seed: int) -> Iterator[Floats]:
    """Resamples with replacement of whole clusters, as a weight for each decision.

    None from a single cluster: its interval would have no width, and mean nothing.
    """
    names, inverse = np.unique(cluster, return_inverse=True)
    k = len(names)
    rng = np.random.default_rng(seed)
    for _ in range(draws if k > 1 else 0):
        yield np.bincount(rng.integers(0, k, k), minlength=k)[inverse].astype(np.float64)


def interval(drawn: Floats) -> list[float] | None:
    """The middle 95 % of resampled values; None where fewer than half are values."""
    finite = drawn[np.isfinite(drawn)]
    if not len(finite) or 2 * len(finite) < len(drawn):
        return None
    low, high = np.quantile(finite, (0.025, 0.975))
    return [float(low), float(high)]


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _auroc(true: Floats, false: Floats) -> float:
    below = np.cumsum(false) - false
    return _share(float(true @ (below + false / 2)), float(true.sum() * false.sum()))


def _average_precision(true: Floats, false: Floats) -> float:
    seen, hits = np.cumsum((true + false)[::-1]), np.cumsum(true[::-1])
    precision = np.divide(hits, seen, out=np.zeros_like(hits), where=seen > 0)
    return float(precision @ true[::-1]) / float(true.sum())


def _calibration(answer: Bools, p: Floats, weight: Floats) -> tuple[float, float, float]:
    """ECE in 15 equal-width bins on max(p, 1 - p) (Guo et al. 2017), Brier score, NLL in nats."""
    total = float(weight.sum())
    if not total:
        return math.nan, math.nan, math.nan
    sure = np.maximum(p, 1 - p)
    bins = np.clip(((sure - 0.5) * 2 * 15).astype(int), 0, 14)
    gap = np.bincount(bins, weight * (((p > 0.5) == answer) - sure), 15)
    q = np.clip(np.where(answer, p, 1 - p), 1e-12, 1)
    brier = float(weight @ (p - answer) ** 2) / total
    return float(np.abs(gap).sum()) / total, brier, float(weight @ -np.log(q)) / total
