"""Fits what stands between the network's log-odds and a probability, on validation decisions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from cb2_assist.core.errors import DatasetError

_DRAWS = 40
_REFERENCE = 400
_LEAST = 40
"""With fewer validation decisions of either answer only the temperature is fitted."""


def fit_scale(
    logit: NDArray[np.float64],
    answer: NDArray[np.bool_],
    group: NDArray[np.int64],
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Temperature and bias that maximise the likelihood at a 50:50 prior (Platt scaling).

    Each answer carries half of the weight, so the fitted probability is the one at equal priors.
    A weak prior on log temperature (sd 1) keeps separable sets finite.

    Args:
        logit: The network's log-odds, (n,).
        answer: What is true, (n,).
        group: Clusters, resampled as a whole for the draws behind the intervals, (n,).
        seed: Of the resampling.

    Returns:
        ``temperature``, ``bias``, ``draws`` (pairs), ``n``, ``n_positive`` and ``reference``, at
        most 400 quantiles of the log-odds of either answer; part of the card.

    Raises:
        DatasetError: Only one of the two answers occurs.
    """
    if not answer.any() or answer.all():
        raise DatasetError(
            f"All {len(answer)} validation decisions have the same answer, so there is nothing to "
            "calibrate on. Choose a wider validation slab, or a dataset with both answers."
        )
    with_bias = min(answer.sum(), (~answer).sum()) >= _LEAST
    t, b = fit_platt(logit, answer, with_bias=with_bias)
    rng = np.random.default_rng(seed)
    names, inverse = np.unique(group, return_inverse=True)
    rows = [np.flatnonzero(inverse == k) for k in range(len(names))]
    draws: list[list[float]] = []
    while len(draws) < _DRAWS:
        i = np.concatenate([rows[k] for k in rng.integers(0, len(rows), len(rows))])
        if answer[i].any() and not answer[i].all():
            fit = fit_platt(logit[i], answer[i], with_bias=with_bias)
            draws.append([round(v, 5) for v in fit])
    return {
        "temperature": round(t, 5),
        "bias": round(b, 5),
        "draws": draws,
        "n": len(answer),
        "n_positive": int(answer.sum()),
        # what a later estimate of a base rate compares the scores of unlabelled sites with
        "reference": {"true": _quantiles(logit[answer]), "false": _quantiles(logit[~answer])},
    }


def _quantiles(v: NDArray[np.float64]) -> list[float]:
    k = min(len(v), _REFERENCE)
    # Hazen's are the values themselves where there are no more of them
    found = np.quantile(v, (np.arange(k) + 0.5) / k, method="hazen")
    return [round(q, 3) for q in found.tolist()]


def fit_platt(
    logit: NDArray[np.float64], answer: NDArray[np.bool_], *, with_bias: bool = True
) -> tuple[float, float]:
    """Temperature and bias, as `fit_scale` has them; both answers occur."""
    weight = np.where(answer, 0.5 / max(answer.sum(), 1), 0.5 / max((~answer).sum(), 1))
    sign = np.where(answer, 1.0, -1.0)
    n = len(answer)

    def loss(p: NDArray[np.float64]) -> float:
        z = sign * (logit * np.exp(-p[0]) + (p[1] if with_bias else 0.0))
        return float((weight * np.logaddexp(0, -z)).sum() + 0.5 * (p[0] ** 2 + p[1] ** 2) / n)

    best = optimize.minimize(loss, np.zeros(2), method="Nelder-Mead")
    return float(np.exp(best.x[0])), float(best.x[1]) if with_bias else 0.0
