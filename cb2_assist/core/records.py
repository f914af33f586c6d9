"""The frozen records that cross the borders between packages."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NewType

import numpy as np
from numpy.typing import NDArray

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
    """None of the joins on screen at this end: one event, a reject for each open one.

    On a join at no end: of the joins on screen that are at no end.
    """
    FLAG = "flag"
    """Set aside with a note, for somebody else or for later."""

    @property
    def is_answer(self) -> bool:
        """Whether the question was answered; it displaces an earlier answer then."""
        return self not in (Verdict.SKIP, Verdict.FLAG)

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
    joint: str | None = None
    """The end of the segment that this join would continue, as ``segment@x,y,z`` in nm.

    At most one of the joins at an end is right. None: a cut, or a join at no end.
    """
    affinity: float | None = None
    """How strongly the automatic segmentation's graph holds the two together; None where
    there is no graph, or no edge of it."""


@dataclass(frozen=True, slots=True)
class ViewScore:
    """What one view says on its own."""

    name: str
    """One of `channels.VIEW_NAMES`, ``em_oblique`` or ``features``."""
    score: float
    """0..1, not calibrated; None of it adds up to the decision's score."""


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """The network's answer on one site, before calibration."""

    logit: float
    """Decision-level log-odds at the training prior."""
    views: tuple[ViewScore, ...]
    ood_distance: float
    """Of the decision embedding to those of training, by the model's own distance; NaN: not known.
    """
    embedding: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    """What the decision head saw of the site, (D,); None: the network has no joint embedding."""


@dataclass(frozen=True, slots=True)
class Ood:
    """How unusual the site is for the model."""

    percentile: float
    """0..100: share of held-out decisions of this question that lie nearer to those of training."""
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
    prior: float | None = None
    """`Candidate.prior`; None for a site that was given, or in labels of earlier versions."""
    joint: str | None = None
    """`Candidate.joint`: the joint set that this join belongs to."""
    affinity: float | None = None
    """`Candidate.affinity`."""
    supervoxels: tuple[SegmentId, SegmentId | None] | None = None
    """The parts of the two sides nearest to the site, in a graph; None where there is none."""

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
            "prior": self.prior,
            "joint": self.joint,
            "affinity": self.affinity,
            "supervoxels": None
            if self.supervoxels is None
            else [None if i is None else str(i) for i in self.supervoxels],
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
    seeded: Mapping[str, Any] | None = None
    """Present where a suggestion that is known to be wrong was put in place of a draw:

    ``site``, its own `Suggestion.id`; ``known_from``, ``truth`` or ``people``; ``score``, the
    model's own. Not part of any document for the page.
    """

    def propensity(self) -> dict[str, Any]:
        """As `Decision.propensity` keeps it."""
        if self.seeded is not None:
            return {"how": "seeded", "scope": self.scope}
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
class JointSet:
    """Joins that are one question: which of them continues this end, or none."""

    joint: str | None
    """`Suggestion.joint`. None: the joins at no end, of which any number may be right."""
    members: tuple[str, ...]
    """`Suggestion.id`, in the order of the list."""
    none_of_these: float
    """Probability that none of the members is right."""

    @classmethod
    def of(cls, joint: str | None, members: Iterable[Suggestion]) -> JointSet:
        """The set of some suggestions.

        The confidences are taken for independent, given that at most one member of an end is
        right: with odds o = p / (1 - p) none is right with probability 1 / (1 + sum of o), and
        without that condition with the product of all 1 - p.
        """
        kept = tuple(members)
        if joint is None:
            none = math.prod(1.0 - s.confidence for s in kept)
        else:
            # the sum in a form that a confidence of 1 does not break
            others = [math.prod(1.0 - o.confidence for o in kept if o is not s) for s in kept]
            nothing = math.prod(1.0 - s.confidence for s in kept)
            one = sum(s.confidence * rest for s, rest in zip(kept, others, strict=True))
            none = nothing / (nothing + one) if nothing + one > 0 else 0.0
        return cls(joint, tuple(s.id for s in kept), none)

    def to_json(self) -> dict[str, Any]:
        """As in `suggest --json`."""
        return {
            "joint": self.joint,
            "members": list(self.members),
            "none_of_these": self.none_of_these,
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
    uncalibrated: str = ""
    """Why no confidence of the model can be relied on, in words; empty for a calibrated one."""
    drawn: Draw | None = None
    """Present when the queue led here. Not part of the document."""
    timestamp: str = ""
    """State of the graph in which this was found, ISO 8601 UTC; empty without a graph."""

    def propensity_of(self, suggestion_id: str) -> dict[str, Any]:
        """How a suggestion of this list came to be asked, as `Decision.propensity` keeps it.

        Others on the list of a site from the queue were not drawn themselves: ``queue_list``.
        """
        if self.drawn is None:
            return {"how": "cursor"}
        if suggestion_id == self.drawn.site:
            return self.drawn.propensity()
        return {"how": "queue_list", "draw": self.drawn.id, "site": self.drawn.site}

    @property
    def joint_sets(self) -> tuple[JointSet, ...]:
        """The joins by the question that they answer, in the order of the list."""
        members: dict[str | None, list[Suggestion]] = {}
        for s in self.suggestions:
            if s.site.kind is Kind.JOIN:
                members.setdefault(s.joint, []).append(s)
        return tuple(JointSet.of(joint, found) for joint, found in members.items())

    @property
    def none_of_these(self) -> float | None:
        """`JointSet.none_of_these` of the first end on the list; None without one."""
        return next((s.none_of_these for s in self.joint_sets if s.joint is not None), None)

    def implied(self, verdicts: Mapping[str, Verdict]) -> dict[str, str]:
        """Open joins that are closed because a rival at their end was accepted.

        Never an event and never a label: it follows from the verdicts and ends with them.

        Args:
            verdicts: Answers in force, by `Suggestion.id`.

        Returns:
            The accepted rival of each such suggestion, by id.
        """
        closed = {}
        for joint_set in self.joint_sets:
            won = [i for i in joint_set.members if verdicts.get(i) is Verdict.ACCEPT]
            if joint_set.joint is not None and won:
                is_open = (None, Verdict.SKIP, Verdict.FLAG)
                closed.update({i: won[0] for i in joint_set.members if verdicts.get(i) in is_open})
        return closed

    def to_json(self) -> dict[str, Any]:
        """The document of `suggest --json`."""
        joins, cuts = self.base_rates[Kind.JOIN], self.base_rates[Kind.CUT]
        return {
            "dataset": self.dataset,
            "version": self.version,
            "timestamp": self.timestamp or None,
            "segment": str(self.segment),
            "at_nm": self.at.to_json(),
            "model": {
                "name": self.model_name,
                "sha256": self.model_sha256,
                "uncalibrated": self.uncalibrated or None,
            },
            "calibrator": self.calibrator,
            "base_rate": {
                **joins.to_json(),
                "by_kind": {"join": joins.to_json(), "cut": cuts.to_json()},
            },
            "timing_ms": self.timing_ms,
            "suggestions": [s.to_json() for s in self.suggestions],
            "none_of_these": self.none_of_these,
            "joint_sets": [s.to_json() for s in self.joint_sets],
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
    ``interval``, ``ood``, ``reason``, ``prior``, ``joint``, and ``verdict``, ``implied``,
    ``views_sha256``, ``supervoxels``, ``propensity`` where known. The answer *none*
    rejects the open joins among them that have the same ``joint`` as `suggestion`.
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
    """Under the two sides of the point; where there is no graph, the segments themselves."""
    score_hidden: bool = False
    propensity: dict[str, Any] = field(default_factory=lambda: {"how": "cursor"})
    """How the site came to be asked; ``{"how": "cursor"}``: the person pointed there.

    See `SuggestionList.propensity_of`.
    """
    joint: bool = False
    """Whether the answer is about a joint set, not about one suggestion."""
    reason: str = ""
    views_sha256: str | None = None
    """Content address of the kept views; None when they were not kept."""
    timestamp: str = ""
    """`SuggestionList.timestamp`: when the segments were what they are said to be."""
    note: str = ""
    """One line that a person wrote; of a flag."""
    seeded: dict[str, Any] | None = None
    """Present where one of the suggestions that are answered was put there although it is known to
    be wrong: `Draw.seeded`, and ``suggestion``, the id under which it was shown. What was said of
    it is no label."""

    def is_seeded(self, suggestion_id: str) -> bool:
        """Whether a suggestion that is answered was only put there to see whether people look."""
        return self.seeded is not None and self.seeded["suggestion"] == suggestion_id

    current_roots: tuple[SegmentId, ...] | None = None
    """What the sides were when it was decided, where a graph had changed since they were shown."""


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
