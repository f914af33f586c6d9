"""The base rate of unlabelled sites from their scores, refused where that cannot be right.

Saerens, Latinne and Decaestecker (Neural Computation 2002): where the share of true sites is all
that differs from a reference, the most likely share is the fixed point of

    rate = mean over sites of  rate L / (rate L + 1 - rate),   L = score / (1 - score)

Where the scores of true or of false sites themselves differ, the same iteration runs to 0 or 1
(measured on tiny_fib and gala: balanced accuracy .50). So a rate is only given when the reference's
two score distributions, mixed at that rate, give the scores that were seen. A change of the answers
at equal scores leaves no trace in the scores; only labels show it, and they are asked when there
are some.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cb2_assist.learning.calibrators import Sample, fit_map, sample
from cb2_assist.suggestions.recalibration import apply_map, prior_shift, sigmoid

Floats = NDArray[np.float64]

BOUNDS = (0.001, 0.999)
"""An estimate at a bound is no estimate."""
LEAST_SITES = 100
"""Unlabelled sites that an estimate asks for."""
LEAST_REFERENCE = 30
"""Reference sites of either answer."""
WIDEST = 6.0
"""Largest ratio between the odds at the two ends of the 95 % interval."""
LEVEL = 0.05
"""Chance that a shift of prior alone is refused."""
_LABELS_LEVEL = 2.58
"""Standard errors between labels and estimate that refuse it (1 %)."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Log-odds at a 50:50 prior of held-out sites whose answer is known."""

    true: Floats
    false: Floats


@dataclass(frozen=True, slots=True)
class Estimate:
    """An estimated base rate, or why there is none."""

    rate: float | None
    """None: refused."""
    interval: tuple[float, float] | None
    """95 % bootstrap interval over sites and reference."""
    n: int
    """Unlabelled sites."""
    distance: float | None
    """Kolmogorov-Smirnov distance of the scores from the reference at that rate."""
    most: float | None
    """What the distance may be when only the prior moved: its bootstrap quantile."""
    refused: str
    """The reason in words; empty when there is a rate."""


def most_likely_rate(z: Floats) -> float:
    """The fixed point of Saerens' iteration within `BOUNDS`.

    The log-likelihood is concave in the rate, so its slope is halved in on instead.

    Args:
        z: Log-odds at a 50:50 prior, (n,).
    """
    # mean (L - 1) / (rate L + 1 - rate), divided through by 1 + L so that L may be huge
    p = sigmoid(z)
    low, high = BOUNDS
    for _ in range(40):
        rate = (low + high) / 2
        if float(((2 * p - 1) / (rate * p + (1 - rate) * (1 - p))).mean()) > 0:
            low = rate
        else:
            high = rate
    return (low + high) / 2


def mixture_distance(z: Floats, reference: Reference, rate: float) -> float:
    """Largest gap between the share of scores below any value: seen, and mixed at the rate."""
    at = np.sort(np.concatenate([z, reference.true, reference.false]))
    seen, true, false = (
        np.searchsorted(np.sort(v), at, side="right") / len(v)
        for v in (z, reference.true, reference.false)
    )
    return float(np.abs(seen - rate * true - (1 - rate) * false).max())


def estimate_rate(
    z: Floats,
    reference: Reference,
    *,
    labels: Sample | None = None,
    draws: int = 200,
    seed: int = 0,
) -> Estimate:
    """Estimate the share of true sites among unlabelled ones, or refuse in words.

    Args:
        z: Log-odds at a 50:50 prior of the unlabelled sites, (n,).
        reference: Scores of sites with known answers, by the same model.
        labels: Labels of the same sites' kind, from the random stream or weighted; too few to give
            the rate themselves, they may still contradict the estimate.
        draws: Resamples behind interval and test.
        seed: Of the resampling.
    """
    n, few = len(z), min(len(reference.true), len(reference.false))
    if n < LEAST_SITES:
        return _no(n, f"{n} unlabelled sites have scores, and {LEAST_SITES} are asked for")
    if few < LEAST_REFERENCE:
        return _no(
            n, f"the reference has {few} sites of its rarer answer, {LEAST_REFERENCE} are asked for"
        )
    rate = _rate(z, reference)
    if not BOUNDS[0] * 1.01 < rate < 1 - (1 - BOUNDS[1]) * 1.01:
        return _no(n, f"the estimate runs to its bound {rate:.3f}: the scores are all of one kind")
    rng = np.random.default_rng(seed)
    distance = mixture_distance(z, reference, rate)
    rates, distances = _resampled(z, reference, rate, draws, rng)
    most = float(np.quantile(distances, 1 - LEVEL))
    low, high = (float(v) for v in np.quantile(rates, (0.025, 0.975)))
    reason = ""
    if distance > most:
        reason = (
            f"the scores are not those of the reference at any base rate: distance {distance:.3f}, "
            f"at most {most:.3f} if only the base rate had moved"
        )
    elif np.exp(prior_shift(low, high)) > WIDEST:
        reason = f"the estimate is not sharp enough: {rate:.3f}, 95 % [{low:.3f}, {high:.3f}]"
    elif labels is not None and len(labels):
        reason = _contradiction(labels, rate)
    return Estimate(None if reason else rate, (low, high), n, distance, most, reason)


def _resampled(
    z: Floats, reference: Reference, rate: float, draws: int, rng: np.random.Generator
) -> tuple[list[float], list[float]]:
    """Rates on resampled sites, and distances of sites drawn from the reference's own mixture.

    The second takes the reference for the truth: both a reference of the same size and the sites
    are drawn from it anew, so that its size counts too.
    """

    def some(v: Floats, k: int) -> Floats:
        return np.asarray(v[rng.integers(0, len(v), k)], float)

    rates, distances = [], []
    for _ in range(draws):
        again = Reference(
            some(reference.true, len(reference.true)), some(reference.false, len(reference.false))
        )
        rates.append(_rate(some(z, len(z)), again))
        true = int(rng.binomial(len(z), rate))
        drawn = np.concatenate([some(reference.true, true), some(reference.false, len(z) - true)])
        distances.append(mixture_distance(drawn, again, _rate(drawn, again)))
    return rates, distances


def _rate(z: Floats, reference: Reference) -> float:
    """`most_likely_rate` of log-odds that are calibrated on the reference, both answers alike."""
    true, false = len(reference.true), len(reference.false)
    known = sample(
        np.concatenate([reference.true, reference.false]),
        np.arange(true + false) < true,
        np.repeat([0.5 / true, 0.5 / false], [true, false]),
    )
    return most_likely_rate(apply_map("platt", fit_map("platt", known), z))


def _contradiction(labels: Sample, rate: float) -> str:
    """Whether accepts are more or fewer than the scores at that rate foretell; empty if not."""
    p = sigmoid(labels.z + prior_shift(0.5, rate))
    share = labels.weight / labels.weight.sum()
    seen, foretold = float(share @ labels.answer), float(share @ p)
    error = float(np.sqrt((share**2 * p * (1 - p)).sum()))
    if abs(seen - foretold) <= _LABELS_LEVEL * error:
        return ""
    return (
        f"{len(labels)} labels contradict it: {seen:.1%} of them are accepted, and the scores "
        f"at a base rate of {rate:.1%} foretell {foretold:.1%}"
    )


def _no(n: int, reason: str) -> Estimate:
    return Estimate(None, None, n, None, None, reason)
