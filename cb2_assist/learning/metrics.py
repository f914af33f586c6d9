"""Figures of binary decisions, each with an interval.

The interval to quote is the cluster bootstrap: pairs of one neuron share their luck, so whole
groups (truth bodies) are resampled, not pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


def balanced_accuracy(answer: Bools, p: Floats) -> float:
    """Mean of sensitivity and specificity at p > 0.5; NaN unless both answers occur."""
    if answer.all() or not answer.any():
        return math.nan
    said = p > 0.5
    return 0.5 * (float(said[answer].mean()) + float((~said[~answer]).mean()))


def auroc(answer: Bools, p: Floats) -> float:
    """Probability that a true site scores above a false one, ties half (Mann-Whitney).

    NaN unless both answers occur.
    """
    if answer.all() or not answer.any():
        return math.nan
    _, inverse, count = np.unique(p, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    rank = (last - (count - 1) / 2)[inverse]
    n1, n0 = int(answer.sum()), int((~answer).sum())
    return float((rank[answer].sum() - n1 * (n1 + 1) / 2) / (n1 * n0))


def ece15(answer: Bools, p: Floats) -> float:
    """Expected calibration error, 15 equal-width bins on max(p, 1 - p) (Guo et al. 2017)."""
    confidence = np.maximum(p, 1 - p)
    right = (p > 0.5) == answer
    bins = np.clip(((confidence - 0.5) * 2 * 15).astype(int), 0, 14)
    error = 0.0
    for b in np.unique(bins):
        m = bins == b
        error += abs(float(right[m].mean()) - float(confidence[m].mean())) * float(m.mean())
    return error


def brier(answer: Bools, p: Floats) -> float:
    """Mean squared error of the probability."""
    return float(((p - answer) ** 2).mean())


METRICS: dict[str, Callable[[Bools, Floats], float]] = {
    "balanced_accuracy": balanced_accuracy,
    "auroc": auroc,
    "ece15": ece15,
    "brier": brier,
}


@dataclass(frozen=True, slots=True)
class Figure:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def figures(
    answer: Bools, p: Floats, group: NDArray[np.int64], *, draws: int = 1000, seed: int = 0
) -> dict[str, Figure]:
    """All `METRICS` with percentile intervals over resampled groups.

    Args:
        answer: What is true, (n,).
        p: Probability that it is, (n,).
        group: What to resample as a whole, e.g. the truth body of the smaller segment, (n,).
        draws: Resamples behind the intervals.
        seed: Of the resampling.
    """
    rng = np.random.default_rng(seed)
    names, inverse = np.unique(group, return_inverse=True)
    rows = [np.flatnonzero(inverse == k) for k in range(len(names))]
    drawn: dict[str, list[float]] = {k: [] for k in METRICS}
    for _ in range(draws):
        i = np.concatenate([rows[k] for k in rng.integers(0, len(rows), len(rows))])
        if answer[i].all() or not answer[i].any():
            continue  # no accuracy of both answers in such a draw
        for k, metric in METRICS.items():
            drawn[k].append(metric(answer[i], p[i]))
    out = {}
    for k, metric in METRICS.items():
        low, high = np.quantile(drawn[k], (0.025, 0.975)) if drawn[k] else (np.nan, np.nan)
        out[k] = Figure(metric(answer, p), float(low), float(high))
    return out


def average_precision(answer: Bools, p: Floats) -> float:
    """Mean of the precision at each true site, by falling probability; ties share one step."""
    values, inverse = np.unique(-p, return_inverse=True)
    hits = np.bincount(inverse, answer, len(values)).cumsum()
    seen = np.bincount(inverse, minlength=len(values)).cumsum()
    gained = np.diff(hits, prepend=0.0)
    return float((hits / seen * gained).sum() / max(hits[-1], 1))


def nll(answer: Bools, p: Floats) -> float:
    """Mean negative log-likelihood in nats; probabilities are kept 1e-12 off 0 and 1."""
    q = np.clip(np.where(answer, p, 1 - p), 1e-12, 1)
    return float(-np.log(q).mean())


def at_base_rate(score: Floats, rate: float) -> Floats:
    """Probability at a base rate from the probability at equal priors (Bayes on the odds)."""
    rate = float(np.clip(rate, 1e-6, 1 - 1e-6))
    odds = np.clip(score, 1e-12, 1 - 1e-12)
    odds = odds / (1 - odds) * rate / (1 - rate)
    out: Floats = odds / (1 + odds)
    return out


def exact_interval(hits: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of a share by the binomial distribution itself (Clopper and Pearson 1934)."""
    from scipy.stats import binomtest

    found = binomtest(hits, n).proportion_ci(level, "exact")
    return float(found.low), float(found.high)


def mask_iou(truth: NDArray[np.integer[Any]], said: NDArray[np.integer[Any]]) -> float:
    """How well two sides are told apart, whichever of them is called which.

    Args:
        truth: 1 and 2 on the two sides; 0 where there is no answer, which does not count.
        said: Likewise, of the same shape; 0 where nothing was said, which is wrong.

    Returns:
        Mean of both sides' intersection over union, for the better of the two namings; NaN unless
        both sides occur in the truth.
    """
    known = truth > 0
    t, s = truth[known], said[known]
    if not ((t == 1).any() and (t == 2).any()):
        return math.nan

    def iou(a: int, b: int) -> float:
        one, other = t == a, s == b
        return float((one & other).sum() / (one | other).sum())

    return 0.5 * max(iou(1, 1) + iou(2, 2), iou(1, 2) + iou(2, 1))
