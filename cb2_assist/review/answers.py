"""How an answer from the page becomes a decision, with what the model saw, and is told back."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cb2_assist.core.errors import DecisionError
from cb2_assist.core.records import Decision, Suggestion, SuggestionList, Verdict
from cb2_assist.decisions.making import Given, asked_by, decision_on
from cb2_assist.labels.codec import answered_sites
from cb2_assist.review.evidence import EvidenceCache
from cb2_assist.review.ports import Assistant, Views
from cb2_assist.review.screen import VERDICT_WORDS, describe

log = logging.getLogger(__name__)

_EVIDENCE_WAIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A verdict as it came from the page."""

    suggestion_id: str
    """Of the suggestion that was visible at keydown."""
    verdict: Verdict
    idempotency_key: str
    key: str
    """What was pressed."""
    shown_ms: float
    """How long the suggestion had been the selected one at keydown."""
    age_ms: float
    """Time since keydown, more than a moment only when the connection was down."""
    idle_ms: float
    """Part of ``shown_ms`` without any input event."""
    members: frozenset[str] | None = None
    """With *none*: the open joins that were visible at keydown."""
    note: str = ""
    """With a flag: what the person wrote."""


@dataclass(frozen=True, slots=True)
class GivenReason:
    """Why a verdict was a reject or unsure, as it came from the page."""

    suggestion_id: str
    reason: str
    """A name of `core.reasons.REASONS`."""
    idempotency_key: str
    verdict_key: str | None = None
    """Idempotency key of the verdict; None is the one in force on the suggestion."""


class DecisionMaker:
    """Makes decisions of one person's answers and keeps the views that belong to them."""

    def __init__(
        self, assistant: Assistant, views: Views | None, evidence: EvidenceCache, *, user: str
    ) -> None:
        """Nothing is kept yet.

        Args:
            assistant: Knows the dataset.
            views: Keeps what the model saw; None keeps nothing.
            evidence: Has or fetches it.
            user: Goes into every decision.
        """
        self._assistant, self._views, self._evidence = assistant, views, evidence
        self._user = user

    def decision(
        self,
        answer: Answer,
        suggestion: Suggestion,
        shown: SuggestionList,
        verdicts: Mapping[str, Verdict],
        hidden: Collection[str] = (),
    ) -> Decision:
        """The decision that an answer means; the views of what it is about are kept.

        Args:
            answer: As it came.
            suggestion: The one that it names.
            shown: The list that it is on.
            verdicts: Answers in force on that list, by suggestion id.
            hidden: Suggestions of it whose numbers the person did not see.

        Raises:
            DecisionError: *none* on a cut, or on other joins than are open now.
        """
        decided = datetime.now(UTC) - timedelta(milliseconds=answer.age_ms)
        given = Given(
            answer.verdict,
            self._user,
            answer.idempotency_key,
            shown_at=decided - timedelta(milliseconds=answer.shown_ms),
            decided_at=decided,
            key=answer.key,
            idle_ms=min(answer.idle_ms, answer.shown_ms),
            propensity=shown.propensity_of(suggestion.id),
            hidden=frozenset(hidden),
            note=answer.note,
        )
        asked = asked_by(given.verdict, suggestion, shown, verdicts)
        ids = {s.id for s in asked}
        # when nothing is open it is the same answer once more, and the log has it
        if answer.members is not None and ids and ids != answer.members:
            raise DecisionError(
                f"0 was pressed on {len(answer.members)} open joins, and by now {len(ids)} are "
                "open there. Look again and press 0."
            )
        self._evidence.want(asked)
        until = time.monotonic() + _EVIDENCE_WAIT_S
        return decision_on(
            suggestion.id,
            shown,
            given,
            self._assistant.info,
            verdicts=verdicts,
            keep=lambda s: self._keep_views(s, until),
        )

    def _keep_views(self, suggestion: Suggestion, until: float) -> str | None:
        if self._views is None:
            return None
        try:
            left_s = max(0.0, until - time.monotonic())
            views = self._evidence.views(suggestion, left_s)
        except Exception as error:  # noqa: BLE001  a verdict is worth more than its pictures
            log.warning("The views of suggestion %s are not kept: %s", suggestion.id, error)
            return None
        if views is None:
            return None
        sha256, data = views
        self._views.put(data, sha256)
        return sha256


def said(decision: Decision, shown: SuggestionList) -> str:
    """What a verdict did, for the status line."""
    suggestion = decision.suggestion
    if decision.verdict is Verdict.NONE:
        n = len(answered_sites(decision))
        where = "at no end" if suggestion.joint is None else "at this end"
        return f"None of these: {n} join{'' if n == 1 else 's'} {where} rejected."
    text = f"{VERDICT_WORDS[decision.verdict]}: {describe(suggestion)}."
    if decision.verdict is Verdict.FLAG:
        return f"{text[:-1]}, “{decision.note}”. The queue leaves it aside; f, d still answer it."
    if decision.verdict is Verdict.ACCEPT:
        answers = {a["id"]: Verdict(a["verdict"]) for a in decision.alternatives if "verdict" in a}
        closed = shown.implied({**answers, suggestion.id: Verdict.ACCEPT}).keys()
        n = len(closed - shown.implied(answers).keys())
        text += f" {n} other join{'' if n == 1 else 's'} at this end closed." if n else ""
        rivals = [s for s in shown.suggestions if s.joint == suggestion.joint is not None]
        if any(answers.get(s.id) is Verdict.ACCEPT for s in rivals if s.id != suggestion.id):
            text += " Another join at this end is accepted too."
    return text
