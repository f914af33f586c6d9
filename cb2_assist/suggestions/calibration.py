"""From a network's log-odds to the two numbers that a person sees.

`score` is calibrated at a 50:50 prior on training data only; `confidence` moves it to the base rate
in force by Bayes' rule on the odds:

    logit(confidence) = logit(score) + logit(base rate)

which is exact when the shift is one of prior alone. Labels of the dataset put a map of
`recalibration` in the place of this sum; the score stays what it is.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from cb2_assist.core.errors import ModelError
from cb2_assist.core.records import BaseRate, Kind
from cb2_assist.model.card import UNCALIBRATED
from cb2_assist.suggestions.base_rate import SavedState
from cb2_assist.suggestions.recalibration import Recalibration

STATE_MARK = "+"
"""In a calibrator's id, behind the part that scores depend on. What follows names what else the
numbers depend on: how far another place may be off, and the dataset's saved state."""
_LIMIT = 30.0
"""Log-odds beyond this are cut: e^-30 is nothing that a calibration of our size could know."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Temperature and bias of one question, with their uncertainty.

    ``logit(score) = logit / temperature + bias``.
    """

    temperature: float
    bias: float
    draws: tuple[tuple[float, float], ...]
    """Temperature and bias refitted on resampled clusters of the calibration set."""
    elsewhere: tuple[tuple[float, float], ...] = ()
    """The same as another place than those of training may have them (`learning.elsewhere`); empty
    where the card does not say how much places differ."""

    def apply(self, logit: float) -> float:
        """Log-odds at a 50:50 prior."""
        return _cut(logit / self.temperature + self.bias)


@dataclass(frozen=True, slots=True)
class Calibrator:
    """Scales of both questions, and the id that names them on every answer."""

    id: str
    scales: Mapping[Kind, Scale]
    is_calibrated: bool = True
    """False: the network's own numbers, of which nothing says how far they can be trusted."""
    maps: Mapping[tuple[Kind, tuple[str, ...]], Recalibration] = field(default_factory=dict)
    """From labels of the dataset, by question and names of the views behind an answer."""

    @property
    def scores_id(self) -> str:
        """What of the id names the scores: that much in common, the same scores."""
        return self.id.partition(STATE_MARK)[0]

    def score(self, kind: Kind, logit: float) -> float:
        """Probability at a 50:50 prior."""
        return _sigmoid(self.scales[kind].apply(logit))

    def confidence(
        self, kind: Kind, logit: float, base: BaseRate, views: tuple[str, ...] = ()
    ) -> float:
        """Probability that an expert accepts, at the base rate in force.

        Args:
            kind: Which question.
            logit: The network's log-odds.
            base: The base rate in force.
            views: Names of the views that the log-odds rest on; without a map for exactly these,
                the score and the base rate decide.
        """
        z = self.scales[kind].apply(logit)
        known = self.maps.get((kind, views))
        if known is not None:
            return _sigmoid(float(known.logit(z, base.value)))
        return _sigmoid(z + _logit(base.value))

    def interval(
        self,
        kind: Kind,
        logit: float,
        base: BaseRate,
        views: tuple[str, ...] = (),
        *,
        reliable: bool,
    ) -> tuple[float, float]:
        """90 % interval of the confidence in a place like those of training, but another one.

        A map is of the place itself: with it, or where the card does not say how much places
        differ, it is the calibration's own uncertainty.

        Args:
            kind: Which question.
            logit: The network's log-odds.
            base: The base rate in force.
            views: As for `confidence`.
            reliable: False widens it to reach the base rate: out of distribution the evidence may
                be worth nothing, and then the base rate is what is left.

        Without a calibration and without a map it is everything from 0 to 1.
        """
        scale, shift = self.scales[kind], _logit(base.value)
        z = scale.apply(logit)
        known = self.maps.get((kind, views))
        if known is not None:
            at, middle = known.drawn_logits(z, base.value), float(known.logit(z, base.value))
        elif not self.is_calibrated:
            return 0.0, 1.0
        else:
            drawn = np.array(scale.elsewhere or scale.draws or [(scale.temperature, scale.bias)])
            at = np.clip(logit / drawn[:, 0] + drawn[:, 1], -_LIMIT, _LIMIT) + shift
            middle = z + shift
        low, high = np.quantile(at, (0.05, 0.95))
        ends = [_sigmoid(min(low, middle)), _sigmoid(max(high, middle))]
        if not reliable:
            ends = [min(ends[0], base.value), max(ends[1], base.value)]
        return ends[0], ends[1]

    def with_state(self, state: SavedState, model_sha256: str) -> Calibrator:
        """What labels of a dataset make of this one; itself when nothing is saved.

        The maps hold for the scores of one model, whatever its intervals; for another the saved
        base rates alone do. The id gets a part that names maps and rates: the same id, the same
        numbers.
        """
        if not state.rates and not state.maps:
            return self
        fits = state.model_sha256 == model_sha256 and state.calibrator == self.scores_id
        maps = {(k, m.views): m for k, some in state.maps.items() for m in some} if fits else {}
        content = [
            sorted((k.value, r.value) for k, r in state.rates.items()),
            sorted((k.value, m.id) for (k, _), m in maps.items()),
        ]
        return replace(self, id=f"{self.id}{STATE_MARK}{_digest(content)[:8]}", maps=maps)


def calibrator_from_card(card: Mapping[str, Any]) -> Calibrator:
    """Read a card's calibration; a card may also say that there is none.

    Raises:
        ModelError: A question has no usable scale.
    """
    if card.get("calibration") == UNCALIBRATED:
        return Calibrator(
            UNCALIBRATED, dict.fromkeys(Kind, Scale(1.0, 0.0, ())), is_calibrated=False
        )
    scales = {}
    try:
        given = card["calibration"]
        for kind in Kind:
            s = given[kind.value]
            draws = tuple(_pair(t, b) for t, b in s["draws"])
            far = tuple(_pair(t, b) for t, b in s.get("elsewhere", {}).get("draws", ()))
            scales[kind] = Scale(*_pair(s["temperature"], s["bias"]), draws, far)
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise ModelError(
            f"The card of {card.get('name')!r} has no usable calibration ({e}). Train again, or "
            "restore the card."
        ) from e
    own = "cal-" + _digest({k.value: [s.temperature, s.bias, s.draws] for k, s in scales.items()})
    far_off = {k.value: s.elsewhere for k, s in scales.items() if s.elsewhere}
    return Calibrator(own + (STATE_MARK + _digest(far_off)[:8] if far_off else ""), scales)


def why_uncalibrated(card: Mapping[str, Any], species: str, extent_nm: float) -> str:
    """What to say beside the numbers of a model without calibration; empty for others.

    Args:
        card: The model's. ``trained_on`` may name ``species`` and, for each, the least and the
            greatest half width of its views in ``extents_nm``.
        species: Of the dataset.
        extent_nm: Half width of the views that the model gets there.
    """
    if card.get("calibration") != UNCALIBRATED:
        return ""
    said = [f"{card.get('name')} is not calibrated: no confidence of it can be relied on."]
    trained_on = card.get("trained_on") or {}
    known = [str(s) for s in trained_on.get("species") or ()]
    low, high = (trained_on.get("extents_nm") or {}).get(species, (0.0, math.inf))
    if not known:
        said.append("Which species it was trained on is not stated.")
    elif species not in known:
        said.append(f"It was trained on {', '.join(known)}; this dataset is {species}.")
    elif not low <= extent_nm <= high:
        said.append(
            f"It was trained on views {low:g} to {high:g} nm to each side; here they are "
            f"{extent_nm:g} nm."
        )
    return " ".join(said)


def _digest(content: Mapping[str, Any] | list[Any]) -> str:
    """10 hex digits of the SHA-256 of its JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]


def _pair(temperature: float, bias: float) -> tuple[float, float]:
    t, b = float(temperature), float(bias)
    if not (t > 0 and math.isfinite(t) and math.isfinite(b)):
        raise ValueError(f"temperature {t} and bias {b} must be finite, the first positive")
    return t, b


def _sigmoid(v: float) -> float:
    return 1 / (1 + math.exp(-_cut(v)))


def _logit(p: float) -> float:
    return math.log(p / (1 - p))


def _cut(v: float) -> float:
    return max(-_LIMIT, min(_LIMIT, float(v)))
