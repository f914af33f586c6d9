"""What verdicts, reasons, undo and redo do to the log, the screen and the edits of a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace

from cb2_assist.core.errors import AssistError, DecisionError, LabelError
from cb2_assist.core.reasons import reason_offer
from cb2_assist.core.records import LabelEvent, SuggestionList, Verdict
from cb2_assist.decisions.log import Seen
from cb2_assist.labels.codec import answered_sites
from cb2_assist.review.answers import Answer, DecisionMaker, GivenReason, said
from cb2_assist.review.applying import Applying
from cb2_assist.review.blind import Blind
from cb2_assist.review.board import Board, standing, verdicts_of
from cb2_assist.review.evidence import EvidenceCache
from cb2_assist.review.freshness import Freshness
from cb2_assist.review.pace import Pace
from cb2_assist.review.ports import Log
from cb2_assist.review.screen import VERDICT_WORDS, ReasonFor, describe


class Deciding:
    """Records what a person answers. Methods block, and are to be called one after another."""

    def __init__(
        self,
        board: Board,
        log: Log,
        making: DecisionMaker,
        evidence: EvidenceCache,
        blind: Blind,
        *,
        list_of: Callable[[str], SuggestionList | None],
        applying: Applying | None,
        freshness: Freshness | None,
        on_event: Callable[[], None],
    ) -> None:
        """Nothing is decided yet.

        Args:
            board: What is on screen.
            log: Records verdicts.
            making: Makes decisions of answers.
            evidence: Has the sides of cuts, where they are computed already.
            blind: Knows whose numbers were hidden.
            list_of: The recent list that a suggestion is on.
            applying: Applies what is accepted; None applies nothing.
            freshness: Says whether a graph has changed since it was shown.
            on_event: Called after every verdict, undo and redo that was recorded.
        """
        self._board, self._log = board, log
        self._making, self._evidence, self._blind = making, evidence, blind
        self._list_of, self._on_event = list_of, on_event
        self._applying, self._freshness = applying, freshness
        self._pace = Pace()

    def decide(self, answer: Answer) -> str:
        """Record a verdict on the suggestion that it names; durable on return.

        Raises:
            DecisionError: No recent list had that suggestion.
            LabelError: The label file cannot be written; nothing was recorded.
        """
        shown = self._list_of(answer.suggestion_id)
        if shown is None:
            raise self._not_recorded(
                DecisionError(
                    "that suggestion is not on a recent list. Press p on its segment and decide "
                    "again."
                )
            )
        suggestion = next(s for s in shown.suggestions if s.id == answer.suggestion_id)
        try:
            is_here = shown is self._board.screen.list
            verdicts = self._board.screen.verdicts if is_here else verdicts_of(self._log, shown)
            hidden = self._blind.hidden(shown)
            decision = self._making.decision(answer, suggestion, shown, verdicts, hidden)
            now, changed = self._freshness.check(suggestion) if self._freshness else (None, "")
            decision = replace(decision, current_roots=now)
            lost = ""
            if self._applying is not None:
                lost = self._applying.expect(decision, self._evidence.sides(suggestion.id))
            event = self._log.decide(decision)
        except AssistError as error:
            self._meaning_of([answer.suggestion_id])
            raise self._not_recorded(error) from error
        text = " ".join(filter(None, (said(event.decision or decision, shown), changed, lost)))
        text += self._meaning_of(s.id for s in answered_sites(event.decision or decision))
        word = self._pace.note(answer.verdict, answer.shown_ms)
        reason_for = None
        if answer.verdict in (Verdict.REJECT, Verdict.UNSURE, Verdict.NONE):
            reason_for = ReasonFor(suggestion.id, answer.idempotency_key)
            text += f" {reason_offer()}."
        text += f" {word}" if word else ""
        return self._after_event(
            suggestion.id,
            text,
            level="good",
            moves_on=answer.verdict.is_answer,
            reason_for=reason_for,
        )

    def give_reason(self, given: GivenReason) -> str:
        """Record why a verdict was a reject, unsure or none; durable on return.

        Raises:
            DecisionError: The verdict is not there, is none of these, or was undone.
            LabelError: The label file cannot be written; nothing was recorded.
        """
        try:
            event = self._log.give_reason(
                given.suggestion_id,
                given.reason,
                idempotency_key=given.idempotency_key,
                decision_key=given.verdict_key,
            )
            assert event.target is not None
            decision = self._log.event(event.target).decision
        except AssistError as error:
            level = "warn" if isinstance(error, DecisionError) else "error"
            self._board.say(f"NO reason recorded: {error}", level)
            raise
        assert decision is not None
        what = f"{VERDICT_WORDS[decision.verdict].lower()} {describe(decision.suggestion)}"
        text = f"{given.reason.replace('_', ' ').capitalize()}: {what}."
        return self._board.say(text, "good")

    def undo(self, idempotency_key: str, seen: Seen | None = None) -> str:
        """Take the last verdict back.

        Args:
            idempotency_key: The same one again counts once.
            seen: What the page showed when this was asked for; None: whatever is last is meant.

        Raises:
            DecisionError: Nothing stands that could be undone, or something else than was meant.
            LabelError: The label file cannot be written.
        """
        return self._step("Undone", self._log.undo, idempotency_key, seen)

    def redo(self, idempotency_key: str, seen: Seen | None = None) -> str:
        """Bring back the verdict that was last undone; ``seen`` as for `undo`.

        Raises:
            DecisionError: Nothing was undone last, or something else than was meant.
            LabelError: The label file cannot be written.
        """
        return self._step("Redone", self._log.redo, idempotency_key, seen)

    def news(self, text: str, is_good: bool) -> None:
        """The labels are out of reach, or back: then what was kept here is recorded there."""
        with suppress(AssistError):
            self._log.refresh()
        self._look_up_again(text, "good" if is_good else "warn")

    def _step(
        self, word: str, act: Callable[..., LabelEvent], idempotency_key: str, seen: Seen | None
    ) -> str:
        try:
            event = act(idempotency_key=idempotency_key, seen=seen)
            assert event.target is not None
            decision = self._log.event(event.target).decision
        except AssistError as error:
            # another program may have decided: pressed again, the key means what is shown now
            level = "warn" if isinstance(error, DecisionError) else "error"
            self._look_up_again(str(error), level)
            raise
        assert decision is not None
        what = f"{VERDICT_WORDS[decision.verdict].lower()} {describe(decision.suggestion)}"
        meaning = self._meaning_of(s.id for s in answered_sites(decision))
        return self._after_event(decision.suggestion.id, f"{word}: {what}.{meaning}")

    def _meaning_of(self, sites: Iterable[str]) -> str:
        """Bring the edits of some sites in line with the verdicts; what that is, in words."""
        words = self._applying.follow(sites) if self._applying else ""
        return f" {words}" if words else ""

    def _look_up_again(self, text: str, level: str) -> None:
        """Show what the log says of the list by now."""
        with self._board.lock:
            stands = standing(self._log)
            now = self._board.screen
            now = replace(now, verdicts=verdicts_of(self._log, now.list), **stands)
            self._board.change(now, status=text, level=level)

    def _after_event(
        self,
        suggestion_id: str,
        text: str,
        *,
        level: str = "info",
        moves_on: bool = False,
        reason_for: ReasonFor | None = None,
    ) -> str:
        if n := self._log.undelivered:
            text += f" Kept on this computer until the labels can be reached again ({n} waiting)."
            level = "warn"
        stands = standing(self._log)
        known = self._board.screen.list
        verdicts = verdicts_of(self._log, known)
        with self._board.lock:
            now = self._board.screen
            if now.list is not known:  # a proposal came in between and has looked them up itself
                verdicts = {**now.verdicts}
            here = any(s.id == suggestion_id for s in now.suggestions)
            selected = now.selected
            if here and not moves_on:
                selected = suggestion_id
            elif here and selected == suggestion_id and suggestion_id in verdicts:
                left = replace(now, verdicts=verdicts).next_undecided(suggestion_id)
                selected = left or selected
                if left is None:
                    text += " All on this list are decided."
            elif not here:
                text += " It was on an earlier list."
            self._board.change(
                replace(
                    now,
                    verdicts=verdicts,
                    selected=selected,
                    preview=now.preview and selected == now.selected,
                    reason_for=reason_for,
                    **stands,
                ),
                status=text,
                level=level,
            )
        self._on_event()
        return text

    def _not_recorded(self, error: AssistError) -> AssistError:
        text = f"NOT recorded: {error}"
        self._board.say(text, "error")
        return DecisionError(text) if isinstance(error, DecisionError) else LabelError(text)
