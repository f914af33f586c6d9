"""From labels to a dataset's saved state: what would change, and on what evidence.

Base rate and map come from labels where the labels bear a map (`calibrators`), the base rate alone
from the scores of the queue where those look like a shift of prior (`prior_shift`), and otherwise
nothing changes; each question is told which, and why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cb2_assist.core.records import BaseRate, Kind
from cb2_assist.labels.queue_store import QueueStore
from cb2_assist.labels.store import LabelStore
from cb2_assist.learning.calibration_labels import CalibrationLabels, calibration_labels
from cb2_assist.learning.calibration_metrics import calibration_figures
from cb2_assist.learning.calibrators import LEAST_RARER, Fitted, Sample, fit_best
from cb2_assist.learning.precision import dial_document
from cb2_assist.learning.prior_shift import Reference, estimate_rate
from cb2_assist.suggestions.base_rate import SavedState, defaults
from cb2_assist.suggestions.calibration import Calibrator
from cb2_assist.suggestions.recalibration import Recalibration, logit, prior_shift, sigmoid

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Model:
    """What a calibration must know of the model in use."""

    sha256: str
    card: Mapping[str, Any]
    calibrator: Calibrator
    """The model's own."""


def recalibrate(
    store: LabelStore, dataset: str, model: Model, before: SavedState
) -> tuple[SavedState, Document]:
    """What the labels in force make of a dataset's state; writes nothing.

    Args:
        store: Labels and queue.
        dataset: Its name.
        model: The model in use.
        before: The state in force; questions without enough evidence keep theirs.

    Returns:
        The new state, ``before`` itself when nothing is to change, and the document of
        ``calibrate --json``.

    Raises:
        LabelError: The labels cannot be read.
        ModelError: The card has no base rates.
    """
    own = model.calibrator.scores_id
    labels = calibration_labels(
        store.labels(dataset=dataset), model_sha256=model.sha256, calibrator=own
    )
    fits = (before.model_sha256, before.calibrator) == (model.sha256, own)
    rates = dict(before.rates)
    maps = dict(before.maps) if fits else {}
    kinds: Document = {}
    for kind in Kind:
        rate, fitted, kinds[kind.value] = _question(kind, labels, store.queue, dataset, model)
        if rate is not None:
            rates[kind] = rate
            maps.pop(kind, None)
            if fitted:
                maps[kind] = fitted
    evidence = {"labels": store.url, "last_event": labels.last_event, "kinds": kinds}
    after = SavedState(rates, maps, model.sha256, own, before.version + 1, evidence)
    is_new = any(k["base_rate"] for k in kinds.values()) and (after.rates, after.maps) != (
        before.rates,
        before.maps,
    )
    state = after if is_new else before
    return state, {
        "dataset": dataset,
        "labels": store.url,
        "last_event": labels.last_event,
        "model": {"name": model.card.get("name"), "sha256": model.sha256},
        "calibrator": {
            "before": model.calibrator.with_state(before, model.sha256).id,
            "after": model.calibrator.with_state(state, model.sha256).id,
        },
        "kinds": kinds,
    }


def _question(
    kind: Kind, labels: CalibrationLabels, queue: QueueStore, dataset: str, model: Model
) -> tuple[BaseRate | None, tuple[Recalibration, ...], Document]:
    s = labels.sample(kind)
    default = defaults(model.card)[kind]
    document: Document = {
        "n": len(s),
        "n_effective": s.effective,
        "n_effective_rarer": s.effective_rarer,
        "n_segments": len({d.segment for d in labels.drawn if d.kind is kind}),
        "n_random": len(labels.random(kind)[0]),
        "left_out": dict(sorted(labels.left_out[kind].items())),
        "default_rate": default.value,
        "base_rate": None,
        "maps": [],
        "precision": dial_document(*labels.random(kind)),
    }
    whole = fit_best(s)
    if whole is not None:
        rate = BaseRate(whole.map.rate, "labels", len(s))
        fits = [
            (v, fit_best(labels.sample(kind, v)), labels.sample(kind, v))
            for v in labels.views(kind)
        ]
        reports = [(v, f, _report(f, t, default.value)) for v, f, t in fits if f is not None]
        # one rate stands for the question, whichever views an answer rests on
        kept = tuple(
            replace(f.map, views=v, rate=rate.value) for v, f, r in reports if r["is_better"]
        )
        document["maps"] = [{"views": list(v), **r} for v, _, r in reports]
        if kept:
            interval = list(whole.rate_interval)
            document |= {"base_rate": {**rate.to_json(), "interval": interval}, "reason": ""}
            return rate, kept, document
        document["reason"] = "on these labels the model's own numbers are no worse than new ones"
        return None, (), document
    few = _too_few(s)
    z = logit(
        np.array(
            queue.scores(
                dataset, kind, model_sha256=model.sha256, calibrator=model.calibrator.scores_id
            )
        )
    )
    reference = reference_of(model, kind)
    if reference is None:
        document["reason"] = (
            f"{few}; and the rate cannot be estimated from scores alone, since the card of this "
            "model keeps no scores of known sites to compare them with"
        )
        return None, (), document
    found = estimate_rate(z, reference, labels=s if len(s) else None)
    document["estimate"] = {
        "n": found.n,
        "distance": found.distance,
        "distance_if_prior_shift_q95": found.most,
        "interval": None if found.interval is None else list(found.interval),
        "refused": found.refused,
    }
    if found.rate is None:
        document["reason"] = f"{few}; no estimate from scores alone: {found.refused}"
        return None, (), document
    rate = BaseRate(round(found.rate, 6), "estimated", found.n)
    document |= {
        "base_rate": {**rate.to_json(), "interval": document["estimate"]["interval"]},
        "reason": few,
    }
    return rate, (), document


def _report(fitted: Fitted, s: Sample, default: float) -> Document:
    """A map beside the model's own numbers; its own figures are cross-validated."""
    own = calibration_figures(s.answer, sigmoid(s.z + prior_shift(0.5, default)), s.weight)
    new = calibration_figures(s.answer, sigmoid(fitted.held_out), s.weight)
    return {
        "family": fitted.map.family,
        "id": fitted.map.id,
        "parameters": list(fitted.map.parameters),
        "n": len(s),
        "cross_validated_log_loss": fitted.losses,
        "before": own,
        "after": new,
        "is_better": new["log_loss"] < own["log_loss"],
    }


def _too_few(s: Sample) -> str:
    least = LEAST_RARER["none"]
    return (
        f"{len(s)} labels of sites that the queue drew count as {s.effective_rarer:.1f} of the "
        f"rarer answer, {least:.0f} are asked for"
    )


def reference_of(model: Model, kind: Kind) -> Reference | None:
    """Scores of known sites from the model's card, as log-odds at a 50:50 prior; None without.

    ``calibration.<kind>.reference`` has the network's log-odds by answer.
    """
    try:
        given = model.card["calibration"][kind.value]["reference"]
        scale = model.calibrator.scales[kind]
        true, false = (np.array([scale.apply(v) for v in given[k]]) for k in ("true", "false"))
    except (KeyError, TypeError, ValueError):
        return None
    return Reference(true, false)
