"""How far raters agree beyond chance, with intervals by resampling items.

Ratings are counted as (item, category): how many raters put the item there. Every figure is a sum
over items of something that an item brings, so that a resample is a vector of weights and all
draws are one matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Counts = NDArray[np.int64]

DRAWS = 2000
_LEAST_DEFINED = 0.5
"""No interval where fewer of the draws have a value at all."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure of n items with its 95 % interval; none where chance alone would always agree."""

    value: float | None
    ci95: tuple[float, float] | None
    n: int

    def to_json(self) -> dict[str, Any]:
        """As in ``agreement.json``."""
        ends = None if self.ci95 is None else list(self.ci95)
        return {"value": self.value, "ci95": ends, "n": self.n}


def cohen_kappa(first: Bools, second: Bools, *, draws: int = DRAWS, seed: int = 0) -> Estimate:
    """Cohen's kappa of two raters on the same items (Educ. Psychol. Meas. 20:37, 1960).

    Args:
        first: Which items one rater accepts, (n,).
        second: The same of the other.
        draws: Resamples behind the interval.
        seed: Of the resampling.
    """
    a, b = first.astype(np.float64), second.astype(np.float64)
    brought = np.column_stack([np.ones(len(a)), a, b, (first == second).astype(np.float64)])

    def kappa(total: Floats) -> Floats:
        n, yes_a, yes_b, same = total.T
        with np.errstate(divide="ignore", invalid="ignore"):
            chance = (yes_a * yes_b + (n - yes_a) * (n - yes_b)) / n**2
            return _beyond(same / n, chance)

    return _estimate(brought, kappa, draws, seed)


def fleiss_kappa(counts: Counts, *, draws: int = DRAWS, seed: int = 0) -> Estimate:
    """Fleiss' kappa (Psychol. Bull. 76:378, 1971) of items with two raters or more.

    Items may have different numbers of raters: each brings the share of its own pairs that agree,
    and a category's share is that of all ratings. With equal numbers this is the original.

    Args:
        counts: (item, category).
        draws: Resamples behind the interval.
        seed: Of the resampling.
    """
    kept = _rated_twice(counts)
    m = kept.sum(1)
    same = (kept * (kept - 1)).sum(1) / (m * (m - 1)).clip(1)
    brought = np.column_stack([np.ones(len(kept)), same, kept]).astype(np.float64)

    def kappa(total: Floats) -> Floats:
        n, agreed, by_category = total[:, 0], total[:, 1], total[:, 2:]
        with np.errstate(divide="ignore", invalid="ignore"):
            share = by_category / by_category.sum(1, keepdims=True)
            return _beyond(agreed / n, (share**2).sum(1))

    return _estimate(brought, kappa, draws, seed)


def krippendorff_alpha(counts: Counts, *, draws: int = DRAWS, seed: int = 0) -> Estimate:
    """Krippendorff's alpha for nominal data with missing ratings.

    K. Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), section C.

    Args:
        counts: (item, category); items with one rating do not count.
        draws: Resamples behind the interval.
        seed: Of the resampling.
    """
    kept = _rated_twice(counts)
    m = kept.sum(1)
    # ordered pairs of different values within an item, each over m - 1
    differ = (m**2 - (kept**2).sum(1)) / (m - 1).clip(1)
    brought = np.column_stack([differ, kept]).astype(np.float64)

    def alpha(total: Floats) -> Floats:
        observed, by_category = total[:, 0], total[:, 1:]
        n = by_category.sum(1)
        expected = n**2 - (by_category**2).sum(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(expected > 0, 1 - (n - 1) * observed / expected, math.nan)

    return _estimate(brought, alpha, draws, seed)


def raw_agreement(counts: Counts, *, draws: int = DRAWS, seed: int = 0) -> Estimate:
    """Mean over items of the share of rater pairs that agree."""
    kept = _rated_twice(counts)
    m = kept.sum(1)
    same = (kept * (kept - 1)).sum(1) / (m * (m - 1)).clip(1)
    brought = np.column_stack([np.ones(len(kept)), same]).astype(np.float64)
    return _estimate(brought, lambda total: total[:, 1] / total[:, 0].clip(1), draws, seed)


def marginal_homogeneity(first: Bools, second: Bools) -> dict[str, Any]:
    """McNemar's exact test (1947): does one of two raters accept more often than the other?

    Two-sided binomial test of the items on which they differ against 1/2.
    """
    from cb2_assist.learning.compare import mcnemar

    found = mcnemar(first, second)
    return {
        "only_first_accepts": found["only_first_right"],
        "only_second_accepts": found["only_second_right"],
        "both_accept": found["both_right"],
        "neither_accepts": found["both_wrong"],
        "p": found["p"],
    }


def _rated_twice(counts: Counts) -> Counts:
    kept: Counts = counts[counts.sum(1) >= 2]
    return kept


def _beyond(observed: Floats, chance: Floats) -> Floats:
    """Agreement beyond chance; NaN where chance alone always agrees."""
    return np.where(chance < 1, (observed - chance) / (1 - chance), math.nan)


def _estimate(
    brought: Floats, figure: Callable[[Floats], Floats], draws: int, seed: int
) -> Estimate:
    """A figure of all items, and of resamples of them with replacement (percentiles)."""
    n = len(brought)
    if n == 0:
        return Estimate(None, None, 0)
    value = float(figure(brought.sum(0, keepdims=True))[0])
    if not math.isfinite(value):
        return Estimate(None, None, n)
    # of items that bring the same, it only counts how often any of them is drawn
    kinds, times = np.unique(brought, axis=0, return_counts=True)
    weight = np.random.default_rng(seed).multinomial(n, times / n, size=draws)
    values = figure(weight @ kinds)
    defined = values[np.isfinite(values)]
    if len(defined) < _LEAST_DEFINED * draws:
        return Estimate(value, None, n)
    low, high = np.quantile(defined, (0.025, 0.975))
    return Estimate(value, (float(low), float(high)), n)
