"""How far probabilities are from what they say, and how far chance alone would put them.

All figures take weights, so that labels of a ranked list may stand for what they were drawn from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cb2_assist.learning.calibrators import effective_n

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

BINS = 15
_Z95 = 1.959964


@dataclass(frozen=True, slots=True)
class _Bin:
    share: float
    """Of all weight."""
    said: float
    """Mean probability of being right."""
    right: float
    n: float
    """Effective labels."""


def _bins(answer: Bools, p: Floats, weight: Floats | None) -> Iterator[_Bin]:
    """15 equal-width bins on max(p, 1 - p), as `metrics.ece15`."""
    w = np.ones(len(p)) if weight is None else weight
    confidence = np.maximum(p, 1 - p)
    right = (p > 0.5) == answer
    index = _bin_of(confidence)
    for b in np.unique(index):
        m = index == b
        yield _Bin(
            float(w[m].sum() / w.sum()),
            float(np.average(confidence[m], weights=w[m])),
            float(np.average(right[m], weights=w[m])),
            effective_n(w[m]),
        )


def ece(answer: Bools, p: Floats, weight: Floats | None = None) -> float:
    """Expected calibration error (Guo et al. 2017); without weights that of `metrics.ece15`.

    Args:
        answer: What is true, (n,).
        p: Probability that it is, (n,).
        weight: Above 0, (n,).
    """
    return sum(b.share * abs(b.said - b.right) for b in _bins(answer, p, weight))


def debiased_ece(answer: Bools, p: Floats, weight: Floats | None = None) -> float:
    """The error less what chance adds to it, at least 0 (Kumar et al. 2019, for the L1 error).

    In a bin of n labels the share that is right scatters by ``sqrt(q (1 - q) / n)`` round q, which
    adds ``E|gap + noise| - |gap|`` to its gap: the mean of a folded normal. q is the bin's share
    with half a label added to either side, since a bin without errors is not without scatter.
    """
    total = 0.0
    for b in _bins(answer, p, weight):
        gap = abs(b.said - b.right)
        q = (b.right * b.n + 0.5) / (b.n + 1)
        sd = math.sqrt(q * (1 - q) / b.n)
        folded = sd * math.sqrt(2 / math.pi) * math.exp(-(gap**2) / (2 * sd**2))
        total += b.share * (2 * gap - folded - gap * math.erf(gap / (sd * math.sqrt(2))))
    return max(0.0, total)


def perfect_ece(
    p: Floats,
    weight: Floats | None = None,
    *,
    quantile: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> float:
    """What the error of a perfectly calibrated model with these probabilities stays below.

    Answers are drawn from the probabilities again and again; the quantile of their error.
    """
    rng = np.random.default_rng(seed)
    w = np.ones(len(p)) / len(p) if weight is None else weight / weight.sum()
    confidence = np.maximum(p, 1 - p)
    index = _bin_of(confidence)
    said = np.bincount(index, w * confidence, BINS)
    drawn = [
        np.abs(said - np.bincount(index, w * (rng.random(len(p)) < confidence), BINS)).sum()
        for _ in range(draws)
    ]
    return float(np.quantile(drawn, quantile))


def _bin_of(confidence: Floats) -> NDArray[np.int64]:
    return np.clip(((confidence - 0.5) * 2 * BINS).astype(np.int64), 0, BINS - 1)


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """A row of a reliability table."""

    low: float
    high: float
    """Of the probability."""
    n: int
    n_effective: float
    said: float
    """Mean probability."""
    seen: float
    """Weighted share that is true."""
    interval: tuple[float, float]
    """95 % of `seen` (Wilson, effective labels)."""

    @property
    def holds(self) -> bool:
        """Whether the interval has what was said."""
        return self.interval[0] <= self.said <= self.interval[1]


def reliability(
    answer: Bools, p: Floats, weight: Floats | None = None, *, bins: int = 10
) -> list[ReliabilityBin]:
    """Said and seen by bins of equal width of the probability; empty bins are left out."""
    w = np.ones(len(p)) if weight is None else weight
    index = np.clip((p * bins).astype(int), 0, bins - 1)
    out = []
    for b in np.unique(index).tolist():
        m = index == b
        seen, n = float(np.average(answer[m], weights=w[m])), effective_n(w[m])
        out.append(
            ReliabilityBin(
                b / bins,
                (b + 1) / bins,
                int(m.sum()),
                n,
                float(np.average(p[m], weights=w[m])),
                seen,
                wilson(seen, n),
            )
        )
    return out


def bin_coverage(table: list[ReliabilityBin]) -> float:
    """Share of a table's rows whose interval holds what was said; NaN without rows."""
    return sum(row.holds for row in table) / len(table) if table else math.nan


def wilson(share: float, n: float) -> tuple[float, float]:
    """95 % interval of a share of n labels (Wilson 1927)."""
    z2 = _Z95**2 / n
    middle = (share + z2 / 2) / (1 + z2)
    half = _Z95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n)) / (1 + z2)
    return max(0.0, middle - half), min(1.0, middle + half)


def calibration_figures(
    answer: Bools, p: Floats, weight: Floats | None = None, *, draws: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """All of the above, with log loss and Brier score, ready for JSON."""
    w = np.ones(len(p)) if weight is None else weight
    q = np.clip(np.where(answer, p, 1 - p), 1e-12, 1)
    table = reliability(answer, p, weight)
    return {
        "ece15": ece(answer, p, weight),
        "ece15_debiased": debiased_ece(answer, p, weight),
        "ece15_if_perfect_q95": perfect_ece(p, weight, draws=draws, seed=seed),
        "log_loss": float(np.average(-np.log(q), weights=w)),
        "brier": float(np.average((p - answer) ** 2, weights=w)),
        "bin_coverage": bin_coverage(table),
        "reliability": [{**asdict(row), "interval": list(row.interval)} for row in table],
    }
