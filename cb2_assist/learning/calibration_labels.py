"""Labels that a calibration may rest on, with the weight of each.

What a person answers at the cursor, or what stands on a list beside it, was chosen by the person or
by the model: it is no sample of the sites that the confidence speaks about. Only sites that the
queue drew count, since each draw keeps the chance that it had. A draw is weighted as in Farquhar,
Gal and Rainforth (ICLR 2021, R_LURE), without bias for sampling without replacement: with N sites
in a part of the queue, M labels from it, and the m-th of them drawn with probability q among the
sites that were left,

    weight = 1 + (N - M) / (N - m) (1 / ((N - m + 1) q) - 1)

which is 1 when the whole part is labelled and falls to nothing for draws by rank out of many.

Sites that look unlike anything the model was trained on are weighted with the others and then left
out: a map that is fitted to them would move the numbers of the sites on which the model is at home.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.records import Decision, Kind, Verdict
from cb2_assist.labels.store import Label, LabelState
from cb2_assist.learning.asks import source_of
from cb2_assist.learning.calibrators import Sample
from cb2_assist.suggestions.calibration import STATE_MARK
from cb2_assist.suggestions.recalibration import logit

LEAST_CLUSTERS = 10
"""Segments from which on whole segments are resampled, and not single labels."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A label of a site that the queue drew."""

    kind: Kind
    views: tuple[str, ...]
    score: float
    accepted: bool
    segment: str
    """Clusters of the resampling: sites of one segment share their luck."""
    explore: bool
    """Drawn at random."""
    part: tuple[str, str]
    """Segmentation version and scope."""
    draw: int
    probability: float
    n_open: int
    confidence: float = math.nan
    """As it was shown."""
    ood: bool = False
    """The model was flagged as unreliable there."""


@dataclass(frozen=True, slots=True)
class CalibrationLabels:
    """What a label file has for one dataset and model."""

    drawn: tuple[Drawn, ...]
    weight: NDArray[np.float64]
    """(n,), mean about 1."""
    left_out: Mapping[Kind, Counter[str]]
    """Answers that do not count, by reason in words."""
    last_event: int
    """0 without labels."""

    def sample(self, kind: Kind, views: tuple[str, ...] | None = None) -> Sample:
        """The labels of a question; None takes any views."""
        i = [k for k, d in enumerate(self.drawn) if _fits(d, kind, views)]
        some = [self.drawn[k] for k in i]
        names = {s: n for n, s in enumerate(sorted({d.segment for d in some}))}
        group = np.array([names[d.segment] for d in some], np.int64)
        if len(names) < LEAST_CLUSTERS:
            # of so few nothing can be resampled; the figures then speak of these segments alone,
            # of whose sites the draws are a random sample
            group = np.arange(len(some))
        return Sample(
            logit(np.array([d.score for d in some])),
            np.array([d.accepted for d in some], bool),
            self.weight[i],
            group,
        )

    def random(self, kind: Kind) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Scores and answers of the sites that were drawn at random."""
        some = [d for d in self.drawn if d.explore and d.kind is kind]
        return np.array([d.score for d in some]), np.array([d.accepted for d in some], bool)

    def views(self, kind: Kind) -> list[tuple[str, ...]]:
        """The sets of views that answers of a question rested on."""
        return sorted({d.views for d in self.drawn if d.kind is kind})


def _fits(d: Drawn, kind: Kind, views: tuple[str, ...] | None) -> bool:
    return d.kind is kind and views in (None, d.views)


def calibration_labels(
    labels: Iterable[Label], *, model_sha256: str, calibrator: str
) -> CalibrationLabels:
    """Sort the labels of a dataset by whether they can calibrate a model.

    Args:
        labels: Of one dataset, as `LabelStore.labels` gives them.
        model_sha256: Of the weights in use: scores of others are other scores.
        calibrator: Id of the model's own calibrator, likewise.
    """
    drawn: list[Drawn] = []
    answered: set[tuple[str, str]] = set()
    left_out: dict[Kind, Counter[str]] = {k: Counter() for k in Kind}
    last = 0
    for label in labels:
        last = max(last, label.event.id)
        d = label.event.decision
        if label.state is not LabelState.IN_FORCE or d is None:
            continue
        site = _site(label, d)
        kind = Kind(site["kind"])
        own = d.calibrator.partition(STATE_MARK)[0]
        propensity = site["propensity"]
        if not label.verdict.is_label:
            left_out[kind][label.verdict.value] += 1
        elif propensity.get("how") != "queue":
            left_out[kind][_HOW.get(str(propensity.get("how")), "asked in another way")] += 1
        elif (d.model_sha256, own) != (model_sha256, calibrator):
            left_out[kind]["another model's score"] += 1
        elif source_of(propensity):
            left_out[kind]["asked again because people disagree, or to compare them"] += 1
        elif (d.version, label.site) in answered:
            left_out[kind]["of a second person on the same site"] += 1
        elif (row := _drawn(label, d, site)) is None:
            left_out[kind]["chance of the draw not known"] += 1
        else:
            answered.add((d.version, label.site))
            drawn.append(row)
    weight = draw_weights(drawn)
    good = [k for k, row in enumerate(drawn) if not row.ood]
    for row in drawn:
        if row.ood:
            left_out[row.kind]["where the model is not reliable"] += 1
    if good:
        weight = weight[good] / weight[good].mean()
    return CalibrationLabels(tuple(drawn[k] for k in good), weight[: len(good)], left_out, last)


_HOW = {"cursor": "asked at the cursor", "queue_list": "on the list beside a drawn site"}


def _site(label: Label, d: Decision) -> dict[str, Any]:
    """The decision's own site, or the alternative that *none* closed."""
    if label.site == d.suggestion.id:
        s = d.suggestion.to_json()
        return {**s, "propensity": d.propensity}
    s = next(a for a in d.alternatives if a["id"] == label.site)
    return {**s, "propensity": s.get("propensity", d.propensity)}


def _drawn(label: Label, d: Decision, site: Mapping[str, Any]) -> Drawn | None:
    p = site["propensity"]
    try:
        row = Drawn(
            Kind(site["kind"]),
            tuple(v.name for v in d.suggestion.views),
            float(site["score"]),
            label.verdict is Verdict.ACCEPT,
            str(site["segment"]),
            bool(p["explore"]),
            (d.version, str(p["scope"])),
            int(p["draw"]),
            float(p["probability"]),
            int(p["n_open"]),
            float(site["confidence"]),
            bool((site.get("ood") or {}).get("flag")),
        )
    except (KeyError, TypeError, ValueError):
        return None
    usable = 0 < row.probability <= 1 and row.n_open >= 1 and 0 <= row.score <= 1
    return row if usable and math.isfinite(row.score) else None


def draw_weights(drawn: Sequence[Drawn]) -> NDArray[np.float64]:
    """Weights of the labels, (n,); see the module.

    Parts of the queue count by the number of their sites. Sites that came into a part later count
    from then on.
    """
    parts: dict[tuple[str, str], list[int]] = defaultdict(list)
    for k, d in enumerate(drawn):
        parts[d.part].append(k)
    weight = np.ones(len(drawn))
    for members in parts.values():
        members.sort(key=lambda k: drawn[k].draw)
        labelled = len(members)
        total = max(drawn[k].n_open + m for m, k in enumerate(members))
        for m, k in enumerate(members, 1):
            left = max(total - m, 1)
            chance = drawn[k].n_open * drawn[k].probability
            weight[k] = 1 + (total - labelled) / left * (1 / chance - 1)
        weight[members] *= total / labelled
    return weight / weight.mean() if len(weight) else weight
