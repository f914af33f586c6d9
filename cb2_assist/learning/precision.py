"""The precision dial: from which score on suggestions are right often enough, with a guarantee.

Precision does not fall or rise with the threshold everywhere, so conformal risk control in its
first form, which bounds the mean of a monotone loss, does not bound it. Learn then Test does
(Angelopoulos et al. 2021): every threshold of a list that was fixed before any label was seen gets
an exact one-sided binomial bound (Clopper and Pearson 1934) at ``DELTA / len(THRESHOLDS)``. Then,
with a probability of at least ``1 - DELTA`` over the labels, all bounds hold at once, whichever
threshold is chosen afterwards and whatever the model is worth.

The bound is for sites like those that were drawn: labels must be a uniform random sample, so only
the random draws of the queue count. Drawn without replacement, they are hypergeometric, for which
the binomial bound is on the safe side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

THRESHOLDS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
"""Of `score`, which no label moves."""
DELTA = 0.1
"""Chance that any of the bounds is wrong."""
TARGETS = (0.8, 0.9, 0.95, 0.98)
"""Precisions that a person may ask for."""
NOT_ENOUGH = "not enough evidence yet"


@dataclass(frozen=True, slots=True)
class Row:
    """One threshold."""

    score: float
    """Suggestions at or above it."""
    n: int
    """Random labels there."""
    accepted: int
    guaranteed: float
    """Lower bound of the precision, 0 without labels."""

    def to_json(self) -> dict[str, Any]:
        """As in `calibrate --json`."""
        return {
            "score": self.score,
            "n": self.n,
            "accepted": self.accepted,
            "precision": self.accepted / self.n if self.n else None,
            "guaranteed_precision": self.guaranteed,
        }


def precision_table(score: NDArray[np.float64], answer: NDArray[np.bool_]) -> list[Row]:
    """Bounds that hold together.

    Args:
        score: At a 50:50 prior, of a uniform random sample of sites, (n,).
        answer: Whether each was accepted, (n,).
    """
    level = DELTA / len(THRESHOLDS)
    rows = []
    for t in THRESHOLDS:
        above = score >= t
        n, k = int(above.sum()), int(answer[above].sum())
        low = float(stats.beta.ppf(level, k, n - k + 1)) if k else 0.0
        rows.append(Row(t, n, k, low))
    return rows


def dial(table: list[Row], target: float) -> Row | None:
    """The lowest threshold whose precision is guaranteed to reach the target; None: not enough."""
    return next((row for row in table if row.guaranteed >= target), None)


def dial_document(score: NDArray[np.float64], answer: NDArray[np.bool_]) -> dict[str, Any]:
    """Table and dial for JSON; a target that no threshold reaches says so in words."""
    table = precision_table(score, answer)
    found = {t: dial(table, t) for t in TARGETS}
    return {
        "bound": (
            f"exact binomial, all {len(THRESHOLDS)} thresholds together at {1 - DELTA:.0%}, from "
            "random draws alone"
        ),
        "n_random": len(score),
        "thresholds": [row.to_json() for row in table],
        "dial": [
            {"precision": t, "score": NOT_ENOUGH if row is None else row.score}
            for t, row in found.items()
        ],
    }
