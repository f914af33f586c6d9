"""How far a calibration may be off in another place than those it was fitted on.

Resampled clusters say how well the calibration of all training decisions together is known. What is
asked of a new volume is another question: temperature and bias differ from place to place, by what
happens to lie there, and the new place has its own. So the calibration decisions are cut into
blocks of space, each gets a scale of its own, and what these differ by, beyond the noise of so few
decisions, is the variance between places (DerSimonian and Laird 1986, Control Clin Trials 7:177).
Draws for another place add it to the resampled scales, with the tails of Student's t for a variance
that comes of k places, k - 2 degrees of freedom (Higgins, Thompson and Spiegelhalter 2009, J R Stat
Soc A 172:137).

Bodies are not resampled within a place: which bodies lie there is part of what differs. Nothing
here speaks of other tissue or microscopes; all places are of the training volumes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from cb2_assist.learning.calibrate import fit_platt
from cb2_assist.suggestions.recalibration import sigmoid

LEAST_PLACES = 8
"""With fewer, a variance between them is a guess."""
_LEAST = (160, 80, 40)
"""Decisions of either answer in each place: the most that leave `LEAST_PLACES`. A large place is
more like a volume than a small one, and its scale is better known."""
_DRAWS = 200
_LEAST_TEMPERATURE = 0.001
"""Below it every answer is certain anyway, and the card would round it to nothing."""

Floats = NDArray[np.float64]


def places(
    source: NDArray[np.str_], point_nm: Floats, answer: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Blocks of space: each source is halved again and again, along its longest edge.

    Args:
        source: Which segmentation a decision is of, (n,).
        point_nm: Where it is, (n, 3).
        answer: What is true, (n,).

    Returns:
        Place of each decision from 0 on, (n,); -1 where a whole source has too few of one answer.
    """
    found = np.full(len(answer), -1, np.int64)
    for least in _LEAST:
        found = _blocks(source, point_nm, answer, least)
        if found.max(initial=-1) + 1 >= LEAST_PLACES:
            break
    return found


def elsewhere(
    logit: Floats,
    answer: NDArray[np.bool_],
    place: NDArray[np.int64],
    scale: Mapping[str, Any],
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Scales that another place may have, for the card.

    Args:
        logit: The network's log-odds, (n,).
        answer: What is true, (n,).
        place: As `places` makes it, (n,); -1 is left out.
        scale: What `calibrate.fit_scale` found on the same decisions.
        seed: Of the draws.

    Returns:
        ``draws`` (pairs of temperature and bias), ``places``, ``sd_log_temperature`` and
        ``sd_bias``; or no draws and in ``why`` what is missing.
    """
    common = np.array([np.log(scale["temperature"]), scale["bias"]])
    own, noise = [], []
    for k in np.unique(place[place >= 0]):
        x, y = logit[place == k], answer[place == k]
        information, filling = _noise(x, y, common)
        if np.linalg.matrix_rank(information) < 2:
            continue  # all of one log-odds, which says nothing of a temperature
        t, b = fit_platt(x, y)
        at = np.array([np.log(t), b])
        inverse = np.linalg.inv(information)
        # without what the weak prior of the fit took off
        own.append(at + inverse @ at / len(x))
        noise.append(np.diag(inverse @ filling @ inverse))
    if len(own) < LEAST_PLACES:
        return {
            "draws": [],
            "places": len(own),
            "why": f"only {len(own)} of the {LEAST_PLACES} blocks with {_LEAST[-1]} decisions of "
            "either answer that it takes to tell how much places differ: intervals are those of "
            "the calibration set alone",
        }
    sd = np.sqrt([between(y, v) for y, v in zip(np.array(own).T, np.array(noise).T, strict=True)])
    rng = np.random.default_rng(seed)
    # each as often as its share: quantiles of few draws would depend on the seed
    steps = stats.t.ppf((np.arange(_DRAWS) + 0.5) / _DRAWS, len(own) - 2)
    # the mean over places is no better known than their number allows
    off = np.stack([rng.permutation(steps), rng.permutation(steps)], 1) * sd
    off *= np.sqrt(1 + 1 / len(own))
    resampled = np.resize(np.array(scale["draws"]), (_DRAWS, 2))
    temperature = np.maximum(resampled[:, 0] * np.exp(off[:, 0]), _LEAST_TEMPERATURE)
    bias = resampled[:, 1] + off[:, 1]
    return {
        "draws": np.stack([temperature, bias], 1).round(4).tolist(),
        "places": len(own),
        "sd_log_temperature": round(float(sd[0]), 4),
        "sd_bias": round(float(sd[1]), 4),
    }


def between(estimate: Floats, variance: Floats) -> float:
    """Variance between true values, by DerSimonian and Laird's method of moments.

    Args:
        estimate: One of each place, (k,).
        variance: Of the noise in each, (k,).
    """
    weight = 1 / variance
    mean = (weight * estimate).sum() / weight.sum()
    q = (weight * (estimate - mean) ** 2).sum()
    c = weight.sum() - (weight**2).sum() / weight.sum()
    return max(0.0, float((q - (len(estimate) - 1)) / c))


def _blocks(
    source: NDArray[np.str_], point_nm: Floats, answer: NDArray[np.bool_], least: int
) -> NDArray[np.int64]:
    out = np.full(len(answer), -1, np.int64)
    todo = [np.flatnonzero(source == s) for s in np.unique(source)]
    count = 0
    while todo:
        rows = todo.pop()
        halves = _halves(rows, point_nm, answer, least)
        if halves:
            todo += halves
        elif _rarer(answer[rows]) >= least:
            out[rows] = count
            count += 1
    return out


def _halves(
    rows: NDArray[np.int64], point_nm: Floats, answer: NDArray[np.bool_], least: int
) -> Sequence[NDArray[np.int64]]:
    """Both halves along the longest edge that leaves enough in either; none without."""
    at = point_nm[rows]
    for axis in np.argsort(-np.ptp(at, axis=0), kind="stable"):
        order = rows[np.argsort(at[:, axis], kind="stable")]
        halves = order[: len(order) // 2], order[len(order) // 2 :]
        if all(_rarer(answer[h]) >= least for h in halves):
            return halves
    return ()


def _rarer(answer: NDArray[np.bool_]) -> int:
    return int(min(answer.sum(), (~answer).sum()))


def _noise(logit: Floats, answer: NDArray[np.bool_], common: Floats) -> tuple[Floats, Floats]:
    """What a place tells of log temperature and bias if its scale is the common one, both (2, 2).

    The information of the weighted likelihood that `calibrate.fit_platt` maximises, and the
    variance of its slope: with what is expected at the common scale in the place of what was seen,
    so that a place without a single error is not better known than others.

    Returns:
        Information and variance of the slope, bread and filling of the sandwich estimator.
    """
    rate = float(answer.mean())
    for_true, for_false = 0.5 / answer.sum(), 0.5 / (~answer).sum()
    x = np.stack([-logit * np.exp(-common[0]), np.ones(len(logit))], 1)
    z = common[1] - x[:, 0]
    even, p = sigmoid(z), sigmoid(z + np.log(rate / (1 - rate)))
    bread = (for_true * p + for_false * (1 - p)) * even * (1 - even)
    filling = p * (1 - p) * (for_true * (1 - even) + for_false * even) ** 2
    return (x * bread[:, None]).T @ x, (x * filling[:, None]).T @ x
