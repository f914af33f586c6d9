"""How an answer becomes a decision, the same for the page and for scripts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cb2_assist.core.errors import DecisionError
from cb2_assist.core.records import (
    Decision,
    Kind,
    SegmentId,
    Suggestion,
    SuggestionList,
    Verdict,
)
from cb2_assist.datasets.source import DatasetInfo
from cb2_assist.decisions.log import alternative


@dataclass(frozen=True, slots=True)
class Given:
    """An answer and the way it was given."""

    verdict: Verdict
    user: str
    idempotency_key: str
    shown_at: datetime
    """When the suggestion became the one to answer, UTC."""
    decided_at: datetime
    key: str = ""
    """What was pressed; empty from scripts."""
    idle_ms: float = 0.0
    propensity: dict[str, Any] = field(default_factory=lambda: {"how": "cursor"})
    """How the site came to be asked."""
    hidden: frozenset[str] = frozenset()
    """Suggestions of the list whose numbers were hidden until the answer."""
    note: str = ""
    """Of a flag; one line."""


def asked_by(
    verdict: Verdict,
    suggestion: Suggestion,
    shown: SuggestionList,
    verdicts: Mapping[str, Verdict],
) -> tuple[Suggestion, ...]:
    """The suggestions that an answer is about: its own, or with *none* the open joins of its set.

    As `labels.codec.answered_sites` finds them in the decision.

    Args:
        verdict: The answer.
        suggestion: The one that it was given at.
        shown: The list that it is on.
        verdicts: Answers in force on the list, by suggestion id.
    """
    if verdict is not Verdict.NONE:
        return (suggestion,)
    implied = shown.implied(verdicts)
    return tuple(
        s
        for s in shown.suggestions
        if s.site.kind is Kind.JOIN
        and s.joint == suggestion.joint
        and s.id not in implied
        and verdicts.get(s.id) not in (Verdict.ACCEPT, Verdict.REJECT)
    )


def decision_on(
    suggestion_id: str,
    shown: SuggestionList,
    given: Given,
    info: DatasetInfo,
    *,
    verdicts: Mapping[str, Verdict],
    keep: Callable[[Suggestion], str | None],
) -> Decision:
    """The record of an answer with everything that was shown when it was given.

    Args:
        suggestion_id: Which of the list; it must be on it.
        shown: The list.
        given: The answer.
        info: Of the dataset.
        verdicts: Answers in force on the list, by suggestion id.
        keep: Keeps what the model saw of a suggestion and returns its content address; None when
            it could not be kept. Called for each one that the answer is about.

    Raises:
        DecisionError: *none* is given on a cut, or a flag without a note.
    """
    if given.verdict is Verdict.FLAG and not given.note.strip():
        raise DecisionError("A flag needs a note that says why. Nothing was recorded.")
    rank = [s.id for s in shown.suggestions].index(suggestion_id)
    suggestion = shown.suggestions[rank]
    is_none = given.verdict is Verdict.NONE
    if is_none and suggestion.site.kind is not Kind.JOIN:
        raise DecisionError("0 answers joins, and this is a cut. Select a join, or reject the cut.")
    asked = asked_by(given.verdict, suggestion, shown, verdicts)
    seeded = _seeded(shown, asked)
    # what is no label needs no views
    kept = {s.id: keep(s) for s in asked if seeded is None or s.id != seeded["suggestion"]}
    implied = shown.implied(verdicts)

    def as_shown(s: Suggestion) -> dict[str, Any]:
        known: dict[str, Any] = {"verdict": verdicts.get(s.id), "implied": s.id in implied}
        if is_none and s in asked:
            known["views_sha256"] = kept.get(s.id)
            known["supervoxels"] = _sides(s)
            # the queue drew one of them; the others came with it
            drawn = shown.drawn is not None
            known["propensity"] = shown.propensity_of(s.id) if drawn else given.propensity
        return alternative(s, **known)

    return Decision(
        suggestion=suggestion,
        verdict=given.verdict,
        dataset=shown.dataset,
        version=shown.version,
        model_name=shown.model_name,
        model_sha256=shown.model_sha256,
        calibrator=shown.calibrator,
        base_rate=shown.base_rates[suggestion.site.kind],
        rank=rank,
        alternatives=tuple(as_shown(s) for s in shown.suggestions),
        user=given.user,
        key=given.key,
        idempotency_key=given.idempotency_key,
        shown_at=given.shown_at.isoformat(),
        decided_at=given.decided_at.isoformat(),
        idle_ms=round(given.idle_ms),
        licence=info.licence,
        species=info.species,
        supervoxels=_sides(suggestion),
        propensity=given.propensity,
        score_hidden=bool(asked) and given.hidden.issuperset(s.id for s in asked),
        joint=is_none,
        reason=suggestion.reason,
        views_sha256=kept.get(suggestion.id),
        timestamp=shown.timestamp,
        note=given.note.strip(),
        seeded=seeded,
    )


def _seeded(shown: SuggestionList, asked: tuple[Suggestion, ...]) -> dict[str, Any] | None:
    """See `Decision.seeded`."""
    drawn = shown.drawn
    if drawn is None or drawn.seeded is None or all(s.id != drawn.site for s in asked):
        return None
    return {"suggestion": drawn.site, **drawn.seeded}


def _sides(suggestion: Suggestion) -> tuple[SegmentId, SegmentId | None]:
    """What lies under the two sides: supervoxels of a graph, else the segments themselves."""
    return suggestion.supervoxels or (suggestion.site.segment, suggestion.site.partner)
