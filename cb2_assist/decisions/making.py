"""How an answer becomes a decision, the same for the page and for scripts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cb2_assist.core.records import Decision, SuggestionList, Verdict
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


def decision_on(
    suggestion_id: str,
    shown: SuggestionList,
    given: Given,
    info: DatasetInfo,
    *,
    verdicts: Mapping[str, Verdict],
    views_sha256: str | None,
) -> Decision:
    """The record of an answer with everything that was shown when it was given.

    Args:
        suggestion_id: Which of the list; it must be on it.
        shown: The list.
        given: The answer.
        info: Of the dataset.
        verdicts: Answers in force on the list, by suggestion id.
        views_sha256: Content address of what the model saw, when it was kept.
    """
    rank = [s.id for s in shown.suggestions].index(suggestion_id)
    suggestion = shown.suggestions[rank]
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
        alternatives=tuple(alternative(s, verdict=verdicts.get(s.id)) for s in shown.suggestions),
        user=given.user,
        key=given.key,
        idempotency_key=given.idempotency_key,
        shown_at=given.shown_at.isoformat(),
        decided_at=given.decided_at.isoformat(),
        idle_ms=round(given.idle_ms),
        licence=info.licence,
        species=info.species,
        supervoxels=(suggestion.site.segment, suggestion.site.partner),
        propensity=given.propensity,
        reason=suggestion.reason,
        views_sha256=views_sha256,
    )
