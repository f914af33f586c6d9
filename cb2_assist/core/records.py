"""The frozen records that cross the borders between packages."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NewType

from cb2_assist.core.errors import BadIdError, BadRequestError
from cb2_assist.core.geometry import PointNm

SegmentId = NewType("SegmentId", int)
"""An unsigned 64-bit segment (root) id. Leaves Python only as decimal text; 0 is background."""

BACKGROUND = SegmentId(0)
_MAX_ID = 2**64 - 1


def segment_id(value: object) -> SegmentId:
    """Read a segment id from decimal text or an int.

    Floats are refused: above 2**53 they no longer name one segment.

    Raises:
        BadIdError: Not a whole number from 0 to 2**64 - 1.
    """
    if (isinstance(value, str) and len(value) <= 20 and value.isascii() and value.isdigit()) or (
        isinstance(value, int) and not isinstance(value, bool)
    ):
        got = int(value)
    else:
        raise BadIdError(f"A segment id is a whole number written in digits, got {value!r}.")
    if not 0 <= got <= _MAX_ID:
        raise BadIdError(f"A segment id has 64 bits (0 to {_MAX_ID}), got {got}.")
    return SegmentId(got)


class Kind(StrEnum):
    """The two questions."""

    JOIN = "join"
    """These two segments are one neuron."""
    CUT = "cut"
    """This segment holds two neurons here."""


class Verdict(StrEnum):
    """A person's answer. Only ACCEPT and REJECT become labels."""

    ACCEPT = "accept"
    REJECT = "reject"
    UNSURE = "unsure"
    SKIP = "skip"
    NONE = "none"
    """None of the joins on screen: one event, a reject for each."""

    @property
    def is_label(self) -> bool:
        """Whether the answer becomes training data."""
        return self in (Verdict.ACCEPT, Verdict.REJECT)


@dataclass(frozen=True, slots=True)
class Site:
    """One question at one place."""

    kind: Kind
    segment: SegmentId
    partner: SegmentId | None
    """The other segment of a join; None for a cut."""
    point: PointNm
    """On the interface: where the contact, or the neck, is."""

    def __post_init__(self) -> None:
        if (self.kind is Kind.JOIN) != (self.partner is not None):
            raise BadRequestError(
                f"A join has a partner and a cut has none, got {self.kind.value} with partner "
                f"{self.partner}."
            )
        if self.partner == self.segment:
            raise BadRequestError(f"Segment {self.segment} cannot be joined to itself.")

    def key(self, dataset: str, version: str) -> str:
        """Stable name of this question: the same place in the same segmentation version.

        Joins are symmetric in their two segments. 16 hex digits of SHA-256.
        """
        ids = sorted((self.segment, self.partner or 0))
        at = ",".join(f"{v:.1f}" for v in self.point)
        text = f"{dataset}|{version}|{self.kind.value}|{ids[0]}|{ids[1]}|{at}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A site that geometry alone finds worth a look."""

    site: Site
    reason: str
    """Why it was proposed, in words for the page, e.g. ``contact of 0.12 µm²``."""
    prior: float
    """Cheap rank before the model: higher is more likely. Only the order matters."""


@dataclass(frozen=True, slots=True)
class ViewScore:
    """What one view says on its own."""

    name: str
    """One of `channels.VIEW_NAMES`, or ``features``."""
    score: float
    """0..1, not calibrated; None of it adds up to the decision's score."""


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """The network's answer on one site, before calibration."""

    logit: float
    """Decision-level log-odds at the training prior."""
    views: tuple[ViewScore, ...]
    ood_distance: float
    """Mahalanobis distance of the decision embedding to the training set."""


@dataclass(frozen=True, slots=True)
class Ood:
    """How unusual the site is for the model."""

    percentile: float
    """0..100: share of training decisions that lie nearer to the training mean."""
    flag: bool
    """True: the confidence is not reliable here."""

    def to_json(self) -> dict[str, Any]:
        """As in `suggest --json`."""
        return {"percentile": self.percentile, "flag": self.flag}


@dataclass(frozen=True, slots=True)
class BaseRate:
    """The share of sites that an expert accepts, as assumed for `confidence`."""

    value: float
    source: str
    """``labels``, ``estimated`` or ``default``."""
    n: int
    """Decisions behind the value; 0 for a default."""

    def to_json(self) -> dict[str, Any]:
        """As in `suggest --json`."""
        return {"value": self.value, "source": self.source, "n": self.n}


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A candidate after the model, calibrated."""

    id: str
    """`Site.key`: stable for dataset, version and place."""
    site: Site
    reason: str
    score: float
    """Model output at a 50:50 prior, 0..1."""
    confidence: float
    """Probability that an expert accepts, at the base rate in force, 0..1."""
    interval: tuple[float, float]
    """90 % interval of the confidence."""
    ood: Ood
    views: tuple[ViewScore, ...]

    def to_json(self) -> dict[str, Any]:
        """As in `suggest --json`; ids as text."""
        s = self.site
        return {
            "id": self.id,
            "kind": s.kind.value,
            "segment": str(s.segment),
            "partner": None if s.partner is None else str(s.partner),
            "point_nm": s.point.to_json(),
            "score": self.score,
            "confidence": self.confidence,
            "interval": list(self.interval),
            "ood": self.ood.to_json(),
            "reason": self.reason,
            "evidence": {"views": [{"name": v.name, "score": v.score} for v in self.views]},
        }


@dataclass(frozen=True, slots=True)
class Draw:
    """How the queue chose a site, so that a label's weight can be worked out later."""

    id: int
    """Of the draw, in the label store."""
    site: str
    """`Suggestion.id` of the site that was drawn."""
    scope: str
    """Which part of the queue it was drawn from, as `labels.queue_store.Scope.text` writes it."""
    strategy: str
    """What the queue was sorted by."""
    explore: bool
    """Whether the draw was one of the random ones."""
    floor: float
    """Share of draws that are random."""
    probability: float
    """That this site was the one drawn, given the sites that were waiting."""
    n_open: int
    """Sites that were waiting."""

    def propensity(self) -> dict[str, Any]:
        """As `Decision.propensity` keeps it."""
        return {
            "how": "queue",
            "strategy": self.strategy,
            "explore": self.explore,
            "floor": self.floor,
            "probability": self.probability,
            "n_open": self.n_open,
            "draw": self.id,
            "scope": self.scope,
        }


@dataclass(frozen=True, slots=True)
class SuggestionList:
    """Everything that one `p` brought up, or one `q`."""

    dataset: str
    version: str
    segment: SegmentId
    at: PointNm
    suggestions: tuple[Suggestion, ...]
    """Most worth deciding first."""
    model_name: str
    model_sha256: str
    calibrator: str
    base_rates: dict[Kind, BaseRate]
    timing_ms: dict[str, float]
    """``candidates``, ``views``, ``model``, ``total``."""
    note: str = ""
    """Why the list is short or empty, in words; empty when there is nothing to say."""
    drawn: Draw | None = None
    """Present when the queue led here. Not part of the document."""

    def propensity_of(self, suggestion_id: str) -> dict[str, Any]:
        """How a suggestion of this list came to be asked, as `Decision.propensity` keeps it.

        Others on the list of a site from the queue were not drawn themselves: ``queue_list``.
        """
        if self.drawn is None:
            return {"how": "cursor"}
        if suggestion_id == self.drawn.site:
            return self.drawn.propensity()
        return {"how": "queue_list", "draw": self.drawn.id, "site": self.drawn.site}

    def to_json(self) -> dict[str, Any]:
        """The document of `suggest --json`."""
        joins, cuts = self.base_rates[Kind.JOIN], self.base_rates[Kind.CUT]
        return {
            "dataset": self.dataset,
            "version": self.version,
            "segment": str(self.segment),
            "at_nm": self.at.to_json(),
            "model": {"name": self.model_name, "sha256": self.model_sha256},
            "calibrator": self.calibrator,
            "base_rate": {
                **joins.to_json(),
                "by_kind": {"join": joins.to_json(), "cut": cuts.to_json()},
            },
            "timing_ms": self.timing_ms,
            "suggestions": [s.to_json() for s in self.suggestions],
            "none_of_these": None,
            "note": self.note,
        }


@dataclass(frozen=True, slots=True)
class Decision:
    """A person's answer with everything that was on screen when it was given."""

    suggestion: Suggestion
    verdict: Verdict
    dataset: str
    version: str
    """Segmentation version or timestamp."""
    model_name: str
    model_sha256: str
    calibrator: str
    base_rate: BaseRate
    rank: int
    """Place in the list, 0 first."""
    alternatives: tuple[dict[str, Any], ...]
    """Every suggestion on screen, as `decisions.log.alternative` writes it.

    ``id``, ``kind``, ``segment``, ``partner``, ``point_nm``, ``score``, ``confidence``,
    ``interval``, and ``verdict``, ``views_sha256``, ``supervoxels`` where known. The answer *none*
    rejects the open joins among them.
    """
    user: str
    key: str
    """What was pressed, e.g. ``f`` or ``click``; empty from scripts."""
    idempotency_key: str
    """Chosen by the page at keydown; a second decision with the same key is the first one."""
    shown_at: str
    """ISO 8601 UTC, when the suggestion became the selected one."""
    decided_at: str
    """ISO 8601 UTC, at keydown."""
    idle_ms: int
    """Time within shown..decided without any input event."""
    licence: str
    species: str
    supervoxels: tuple[SegmentId, SegmentId | None]
    score_hidden: bool = False
    propensity: dict[str, Any] = field(default_factory=lambda: {"how": "cursor"})
    """How the site came to be asked; ``{"how": "cursor"}``: the person pointed there.

    See `SuggestionList.propensity_of`.
    """
    joint: bool = False
    reason: str = ""
    views_sha256: str | None = None
    """Content address of the kept views; None when they were not kept."""


@dataclass(frozen=True, slots=True)
class LabelEvent:
    """One line of the append-only log, as it was stored."""

    id: int
    """Grows with every event."""
    event: str
    """``decision``, ``undo``, ``redo`` or ``reason``."""
    target: int | None
    """The decision event that an undo, redo or reason is about."""
    recorded_at: str
    """ISO 8601 UTC, when it became durable."""
    user: str
    idempotency_key: str
    decision: Decision | None
    """Present on ``decision`` events."""
    reason: str | None = None
    """Present on ``reason`` events: a name of `reasons.REASONS`."""
