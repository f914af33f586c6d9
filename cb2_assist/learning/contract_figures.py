"""The figures of ``metrics.json`` for one set of decisions, with intervals.

Intervals resample whole clusters (neurons, blocks): decisions of one neuron share their luck. A
draw is a weight for each decision, so nothing is sorted again and 1000 draws of 100,000 decisions
take seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cb2_assist.learning.metrics import at_base_rate

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

DRAWS = 1000
_BINS = 15
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


class _Answers(NamedTuple):
    """What each decision adds to a figure at one base rate; 0 for those without a score."""

    bins: NDArray[np.int64]
    gap: Floats
    brier: Floats
    nll: Floats
    hit: Floats
    yes: Floats
    right_no: Floats


class Ranked:
    """Decisions with truth and score, sorted once.

    Attributes:
        known: Which have a score, (n,), as 0 and 1.
        score: Probability at a 50:50 prior, (n,); 0.5 where there is none.
    """

    def __init__(self, answer: Bools, score: Floats) -> None:
        """Score is NaN for a decision that the model could not answer."""
        known = np.isfinite(score)
        self.score = np.where(known, score, 0.5).astype(np.float64)
        levels, self._level = np.unique(self.score, return_inverse=True)
        self._n_levels = len(levels)
        self.known = known.astype(np.float64)
        self._answer = answer.astype(bool)
        self._true, self._false = (v.astype(np.float64) for v in (self._answer, ~self._answer))
        right = self.known * ((self.score > 0.5) == self._answer)
        self._right_yes, self._right_no = right * self._true, right * self._false
        self._of_score = self._answers(0.5)
        self._of_rate: tuple[float, _Answers] = (0.5, self._of_score)

    def __len__(self) -> int:
        return len(self._answer)

    def by_level(self, weight: Floats) -> tuple[Floats, Floats]:
        """Weight of true and of false sites at each different score, by rising score."""
        n = self._n_levels
        true = np.bincount(self._level, weight * self._true, n)
        false = np.bincount(self._level, weight * self._false, n)
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
        n1, n0 = _dot(weight, self._true), _dot(weight, self._false)
        base = n1 / (n1 + n0) if rate is None else rate
        both = 0 < base < 1
        if rate is not None and rate != self._of_rate[0]:
            self._of_rate = (rate, self._answers(rate))
        of = self._of_rate[1] if rate is not None else self._answers(base)
        right_yes, right_no = _dot(weight, self._right_yes), _dot(weight, self._right_no)
        true, false = self.by_level(weight)
        hits = _dot(weight, of.hit)
        out = {
            "balanced_accuracy": (_share(right_yes, n1) + _share(right_no, n0)) / 2,
            "accuracy": _share(right_yes + right_no, n1 + n0),
            "auroc": _auroc(true, false),
            "average_precision": _average_precision(true, false) if n1 and n0 else math.nan,
            "sensitivity": _share(hits, n1) if both else math.nan,
            "specificity": _share(_dot(weight, of.right_no), n0) if both else math.nan,
            "precision": _share(hits, _dot(weight, of.yes)) if both and n1 and n0 else math.nan,
        }
        n = _dot(weight, self.known)
        for name, answers in (("", of), ("_score", self._of_score)):
            values = _calibration(answers, weight, n) if both or name else (math.nan,) * 3
            out |= {f"{k}{name}": v for k, v in zip(CALIBRATION, values, strict=True)}
        return {name: out[name] for name in FIGURES}

    def _answers(self, rate: float) -> _Answers:
        p = at_base_rate(self.score, rate)
        said = p > 0.5
        sure = np.maximum(p, 1 - p)
        q = np.clip(np.where(self._answer, p, 1 - p), 1e-12, 1)
        yes = self.known * said
        return _Answers(
            np.clip(((sure - 0.5) * 2 * _BINS).astype(np.int64), 0, _BINS - 1),
            self.known * ((said == self._answer) - sure),
            self.known * (p - self._true) ** 2,
            self.known * -np.log(q),
            yes * self._true,
            yes,
            (self.known - yes) * self._false,
        )


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
    own = float(answer.mean())
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


def _dot(a: Floats, b: Floats) -> float:
    # BLAS would split this over threads, which on busy cores wait 100 times as long as it takes
    return float(np.einsum("i,i", a, b))


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _auroc(true: Floats, false: Floats) -> float:
    below = np.cumsum(false) - false
    return _share(_dot(true, below + false / 2), float(true.sum() * false.sum()))


def _average_precision(true: Floats, false: Floats) -> float:
    seen, hits = np.cumsum((true + false)[::-1]), np.cumsum(true[::-1])
    precision = np.divide(hits, seen, out=np.zeros_like(hits), where=seen > 0)
    return _dot(precision, true[::-1]) / float(true.sum())


def _calibration(of: _Answers, weight: Floats, n: float) -> tuple[float, float, float]:
    """ECE in 15 equal-width bins on max(p, 1 - p) (Guo et al. 2017), Brier score, NLL in nats."""
    if not n:
        return math.nan, math.nan, math.nan
    gap = np.bincount(of.bins, weight * of.gap, _BINS)
    return float(np.abs(gap).sum()) / n, _dot(weight, of.brier) / n, _dot(weight, of.nll) / n
