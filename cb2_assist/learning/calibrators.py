"""Fits a monotone map from the model's score to acceptance, with as many parameters as labels bear.

The ladder and what each step asks for, in effective labels (Kish: ``(sum w)^2 / sum w^2``):

    none         10 of the rarer answer       the base rate alone
    temperature  15                           and one slope
    platt        20                           slope and offset (Platt 1999)
    beta         30                           two slopes and an offset (Kull et al. 2017)
    isotonic     100, and 1000 in all         a step function, made continuous

Ten of the rarer answer per fitted number is the usual rule for logistic models (Peduzzi et al.
1996); isotonic regression overfits below about 1000 labels (Niculescu-Mizil and Caruana 2005).
Among the steps that may be fitted, the cross-validated log loss on the given labels decides, and
of those within one standard error of the best the one with the fewest parameters is taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from cb2_assist.suggestions.recalibration import (
    FAMILIES,
    Recalibration,
    apply_map,
    logit,
    sigmoid,
)

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

LEAST_RARER = {"none": 10.0, "temperature": 15.0, "platt": 20.0, "beta": 30.0, "isotonic": 100.0}
"""Effective labels of the rarer answer that each map asks for."""
LEAST_ISOTONIC = 1000.0
"""Effective labels in all that an isotonic map asks for."""
DRAWS = 100
"""Refits behind the intervals."""
_FOLDS = 5
_MOST_STEPS = 60


@dataclass(frozen=True, slots=True)
class Sample:
    """Labelled sites: log-odds of the score, answers, weights and clusters, each (n,)."""

    z: Floats
    answer: Bools
    weight: Floats
    """Above 0: one over the chance of having been asked, up to a factor."""
    group: NDArray[np.int64]
    """What is resampled, or left out, as a whole."""

    def __len__(self) -> int:
        return len(self.z)

    def rows(self, i: NDArray[np.int64]) -> Sample:
        """Some of them, or some of them several times."""
        return Sample(self.z[i], self.answer[i], self.weight[i], self.group[i])

    @property
    def effective(self) -> float:
        """Kish's effective number of labels."""
        return effective_n(self.weight)

    @property
    def effective_rarer(self) -> float:
        """The same, of the rarer answer."""
        return min(effective_n(self.weight[self.answer]), effective_n(self.weight[~self.answer]))

    @property
    def rate(self) -> float:
        """Weighted share of accepted sites."""
        return float(self.weight[self.answer].sum() / self.weight.sum())

    @property
    def has_both(self) -> bool:
        """Whether both answers occur."""
        return bool(self.answer.any() and not self.answer.all())


def sample(
    z: Floats, answer: Bools, weight: Floats | None = None, group: NDArray[np.int64] | None = None
) -> Sample:
    """A sample; without weights all count alike, without clusters each stands alone."""
    n = len(z)
    return Sample(
        np.asarray(z, float),
        np.asarray(answer, bool),
        np.ones(n) if weight is None else np.asarray(weight, float),
        np.arange(n) if group is None else np.asarray(group, np.int64),
    )


def effective_n(weight: Floats) -> float:
    """Kish's effective number: that of equal weights with the same variance of a mean."""
    return float(weight.sum() ** 2 / (weight**2).sum()) if len(weight) else 0.0


def allowed(effective: float, rarer: float) -> tuple[str, ...]:
    """The maps that so many effective labels bear, simplest first; empty with too few."""
    return tuple(
        f
        for f in FAMILIES
        if rarer >= LEAST_RARER[f] and (f != "isotonic" or effective >= LEAST_ISOTONIC)
    )


def fit_map(family: str, s: Sample) -> tuple[float, ...]:
    """Parameters of one map, as `recalibration.apply_map` takes them.

    Slopes are fitted by their logarithm, so that every map rises, and are held by a weak prior
    (sd 1 around 1), so that answers that the score separates do not make them infinite.

    Args:
        family: One of `recalibration.FAMILIES`.
        s: Both answers must occur.
    """
    b = float(logit(np.array(s.rate)))
    if family == "none":
        return 1.0, round(b, 6)
    if family == "isotonic":
        return _fit_isotonic(s)
    return tuple(round(v, 6) for v in _fit_line(family, s, b))


def _fit_line(family: str, s: Sample, b: float) -> list[float]:
    """Slopes and offset by Newton's method, halving steps that do not help.

    The negative log-likelihood is curved like ``J' W J`` with J the change of the log-odds with the
    logarithm of each slope and with the offset (Gauss-Newton).
    """
    weight = s.weight * (s.effective / s.weight.sum())
    column = s.z[:, None]
    if family == "beta":
        column = np.stack([-np.logaddexp(0, -s.z), np.logaddexp(0, s.z)], 1)
    slopes = column.shape[1]
    offset_free = family != "temperature"
    held = np.array([1.0] * slopes + [0.0])

    def log_odds(x: Floats) -> Floats:
        return np.asarray(column @ np.exp(x[:slopes]) + x[slopes], float)

    def loss(x: Floats) -> float:
        f = log_odds(x)
        return float((weight * np.logaddexp(0, np.where(s.answer, -f, f))).sum()) + 0.5 * float(
            (held * x**2).sum()
        )

    x = np.append(np.zeros(slopes), b)
    now = loss(x)
    for _ in range(_MOST_STEPS):
        p = sigmoid(log_odds(x))
        change = np.hstack([column * np.exp(x[:slopes]), np.full((len(s), 1), float(offset_free))])
        slope = change.T @ (weight * (p - s.answer)) + held * x
        curve = (change.T * (weight * p * (1 - p))) @ change + np.diag(held + 1e-9)
        step = np.clip(np.linalg.solve(curve, slope), -2, 2)
        size = 1.0
        while (then := loss(x - size * step)) > now and size > 1e-6:
            size /= 2
        if now - then < 1e-10:
            break
        x, now = x - size * step, then
    return [*np.exp(x[:slopes]).tolist(), float(x[slopes])]


def _fit_isotonic(s: Sample) -> tuple[float, ...]:
    """Steps of equal share, their middles joined by straight lines.

    Shares are kept off 0 and 1 by half a label either way (Jeffreys).
    """
    order = np.argsort(s.z, kind="stable")
    z, w = s.z[order], s.weight[order] * (s.effective / s.weight.sum())
    result = optimize.isotonic_regression(s.answer[order].astype(float), weights=w)
    start = result.blocks[:-1]
    count = np.add.reduceat(w, start)
    share = (np.add.reduceat(w * s.answer[order], start) + 0.5) / (count + 1)
    place = np.add.reduceat(w * z, start) / count
    place, value = np.round(place, 5), np.round(np.maximum.accumulate(logit(share)), 5)
    place, first = np.unique(place, return_index=True)
    return (*place.tolist(), *value[first].tolist())


@dataclass(frozen=True, slots=True)
class Fitted:
    """The chosen map and why it was chosen."""

    map: Recalibration
    losses: dict[str, float]
    """Cross-validated mean log loss in nats of every map that the labels bear."""
    held_out: Floats
    """Log-odds of each label by the chosen map, fitted without the label's fold, (n,)."""
    rate_interval: tuple[float, float]
    """95 % bootstrap interval of the share of accepted sites."""


def fit_best(s: Sample, *, draws: int = DRAWS, seed: int = 0) -> Fitted | None:
    """Choose and fit a map; None when the labels bear none.

    Args:
        s: The labels.
        draws: Refits behind the intervals, with the most parameters that the labels bear short of
            an isotonic map; the choice is not repeated.
        seed: Of folds and resampling: the same labels give the same map.
    """
    families = allowed(s.effective, s.effective_rarer)
    if not families or not s.has_both:
        return None
    rng = np.random.default_rng(seed)
    fold = _folds(s, rng)
    out = {f: _held_out(f, s, fold) for f in families}
    losses = {f: np.logaddexp(0, np.where(s.answer, -v, v)) for f, v in out.items()}
    family = _simplest(losses, s)
    # a parameter that was not worth its place is still not known to be that of the map
    drawn = family if family == "isotonic" else [f for f in families if f != "isotonic"][-1]
    fitted, rates = [], []
    for t in resamples(s, draws, rng):
        fitted.append(fit_map(drawn, t))
        rates.append(t.rate)
    low, high = np.quantile(rates, (0.025, 0.975)) if rates else (0.0, 1.0)
    mean = {f: float(np.average(v, weights=s.weight)) for f, v in losses.items()}
    chosen = Recalibration(
        family,
        fit_map(family, s),
        round(s.rate, 6),
        draws=tuple(fitted),
        drawn_family="" if drawn == family else drawn,
    )
    return Fitted(chosen, mean, out[family], (float(low), float(high)))


def resamples(s: Sample, draws: int, rng: np.random.Generator) -> list[Sample]:
    """Cluster bootstrap: draws in which one answer is missing are left out."""
    _, inverse = np.unique(s.group, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    rows = np.split(order, np.cumsum(np.bincount(inverse))[:-1])
    out = []
    for _ in range(draws):
        t = s.rows(np.concatenate([rows[k] for k in rng.integers(0, len(rows), len(rows))]))
        if t.has_both:
            out.append(t)
    return out


def _folds(s: Sample, rng: np.random.Generator) -> NDArray[np.int64]:
    """A fold for each label, whole clusters together, each fold with its share of accepts."""
    names, inverse = np.unique(s.group, return_inverse=True)
    accepts = np.bincount(inverse, s.answer, len(names))
    order = rng.permutation(len(names))
    order = order[np.argsort(-accepts[order], kind="stable")]
    fold = np.empty(len(names), np.int64)
    fold[order] = np.arange(len(names)) % _FOLDS
    return np.asarray(fold[inverse], np.int64)


def _held_out(family: str, s: Sample, fold: NDArray[np.int64]) -> Floats:
    out = np.full(len(s), float(logit(np.array(s.rate))))
    for k in range(_FOLDS):
        test = fold == k
        train = s.rows(np.flatnonzero(~test))
        if test.any() and len(train) and train.has_both:
            out[test] = apply_map(family, fit_map(family, train), s.z[test])
    return out


def _simplest(losses: dict[str, Floats], s: Sample) -> str:
    """The first on the ladder whose loss is within a standard error of the best (paired)."""
    best = min(losses, key=lambda f: float(np.average(losses[f], weights=s.weight)))
    share = s.weight / s.weight.sum()
    _, inverse = np.unique(s.group, return_inverse=True)
    for family, loss in losses.items():
        more = loss - losses[best]
        mean = float((share * more).sum())
        error = float(np.sqrt((np.bincount(inverse, share * (more - mean)) ** 2).sum()))
        if mean <= error:
            return family
    return best
