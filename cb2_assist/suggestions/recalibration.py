"""What labels of a dataset make of the model's score: monotone maps, as plain numbers.

A map takes the log-odds of `score` (at a 50:50 prior) to the log-odds that an expert accepts, at
the share of accepted sites among the labels that it was fitted on, its ``rate``. At another base
rate Bayes' rule on the odds moves it:

    logit(confidence) = map(logit(score)) - logit(rate) + logit(base rate)

Fitting is in `learning.calibrators`; nothing here looks at a label.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FAMILIES = ("none", "temperature", "platt", "beta", "isotonic")
"""From the fewest parameters to the most. ``none`` only knows the base rate."""


def apply_map(family: str, parameters: Sequence[float] | Floats, z: Floats) -> Floats:
    """Log-odds after a map.

    Args:
        family: One of `FAMILIES`.
        parameters: ``none``, ``temperature`` and ``platt``: a, b of ``a z + b``. ``beta``: a, b, c
            of ``a log p - b log(1 - p) + c`` with p the sigmoid of z (Kull et al. 2017).
            ``isotonic``: k places, rising, then k log-odds, never falling, with straight lines
            between them.
        z: Log-odds at a 50:50 prior, any shape.
    """
    p = np.asarray(parameters, float)
    if family == "beta":
        # log p = -log(1 + e^-z), log(1 - p) = -log(1 + e^z)
        out = -p[0] * np.logaddexp(0, -z) + p[1] * np.logaddexp(0, z) + p[2]
    elif family == "isotonic":
        k = len(p) // 2
        out = np.interp(z, p[:k], p[k:])
    else:
        out = p[0] * z + p[1]
    return np.asarray(out, float)


@dataclass(frozen=True, slots=True)
class Recalibration:
    """A fitted map with its uncertainty."""

    family: str
    parameters: tuple[float, ...]
    rate: float
    """Share of accepted sites that the map was fitted at, 0..1."""
    views: tuple[str, ...] = ()
    """Names of the views that the model's answers rested on, ``features`` among them."""
    draws: tuple[tuple[float, ...], ...] = ()
    """Parameters refitted on resampled clusters of the labels."""
    drawn_family: str = ""
    """Family of the draws where they have more parameters than the map; empty: the same."""

    def __post_init__(self) -> None:
        _check(self.family, self.parameters)
        for draw in self.draws:
            _check(self.drawn_family or self.family, draw)
        if not 0 < self.rate < 1:
            raise ValueError(f"the rate of a map lies between 0 and 1, got {self.rate}")

    def logit(self, z: float | Floats, base_rate: float | None = None) -> Floats:
        """Log-odds of acceptance at a base rate; None is the labels' own."""
        shift = self._shift(base_rate)
        return apply_map(self.family, self.parameters, np.asarray(z, float)) + shift

    def probability(self, z: float | Floats, base_rate: float | None = None) -> Floats:
        """The same as a probability."""
        return sigmoid(self.logit(z, base_rate))

    def drawn_logits(self, z: float, base_rate: float | None = None) -> Floats:
        """Log-odds by each of the refitted maps, (draws,); by the map itself without any."""
        draws = self.draws or (self.parameters,)
        family = (self.drawn_family or self.family) if self.draws else self.family
        if family == "isotonic":  # of which each has its own number of steps
            each = [float(apply_map(family, d, np.array(z))) for d in draws]
            return np.array(each) + self._shift(base_rate)
        return apply_map(family, np.array(draws).T, np.array(z)) + self._shift(base_rate)

    @property
    def id(self) -> str:
        """10 hex digits of the SHA-256 of its content."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    def to_json(self) -> dict[str, Any]:
        """As `from_json` reads it."""
        return {
            "family": self.family,
            "parameters": list(self.parameters),
            "rate": self.rate,
            "views": list(self.views),
            "draws": [list(d) for d in self.draws],
            "drawn_family": self.drawn_family,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Recalibration:
        """Read what `to_json` wrote.

        Raises:
            ValueError, TypeError, KeyError: It is no usable map.
        """
        return cls(
            str(document["family"]),
            tuple(float(v) for v in document["parameters"]),
            float(document["rate"]),
            tuple(str(v) for v in document["views"]),
            tuple(tuple(float(v) for v in d) for d in document["draws"]),
            str(document["drawn_family"]),
        )

    def _shift(self, base_rate: float | None) -> float:
        return 0.0 if base_rate is None else prior_shift(self.rate, base_rate)


def prior_shift(rate: float, to: float) -> float:
    """What Bayes' rule adds to log-odds when only the share of true sites moves."""
    return math.log(to / (1 - to)) - math.log(rate / (1 - rate))


def sigmoid(z: Floats) -> Floats:
    """Log-odds to probabilities, without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0, -np.asarray(z, float))), float)


def logit(p: Floats) -> Floats:
    """Probabilities to log-odds; they are kept 1e-13 off 0 and 1."""
    q = np.clip(np.asarray(p, float), 1e-13, 1 - 1e-13)
    return np.asarray(np.log(q) - np.log1p(-q), float)


def _check(family: str, parameters: Sequence[float]) -> None:
    p = np.asarray(parameters, float)
    count = {"none": 2, "temperature": 2, "platt": 2, "beta": 3}.get(family)
    if family not in FAMILIES:
        raise ValueError(f"no such map {family!r}; known are {', '.join(FAMILIES)}")
    if not np.isfinite(p).all():
        raise ValueError(f"the parameters of a map are finite, got {list(parameters)}")
    if count is not None:
        rises = len(p) == count and bool((p[: count - 1] > 0).all())
    else:
        k = len(p) // 2
        rises = len(p) == 2 * k > 0 and bool(
            (np.diff(p[:k]) > 0).all() and (np.diff(p[k:]) >= 0).all()
        )
    if not rises:
        raise ValueError(f"a {family} map never falls and has its own number of parameters")
