"""One proofreading session: the list on screen, and what proposals and verdicts do to it.

The session is the page's only memory; every browser tab paints its snapshot. Methods block and may
be called from any thread. Those that change the order of things (select, decide, undo, redo) are
meant to be called one after another; `propose` may run beside them.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

from cb2_assist.core.errors import AssistError, DecisionError, LabelError
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.patience import patience
from cb2_assist.core.reasons import reason_offer
from cb2_assist.core.records import (
    BACKGROUND,
    LabelEvent,
    SegmentId,
    SuggestionList,
    Verdict,
)
from cb2_assist.decisions.log import Seen
from cb2_assist.labels.codec import answered_sites
from cb2_assist.review.answers import Answer, DecisionMaker, GivenReason, said
from cb2_assist.review.applying import Applying
from cb2_assist.review.blind import Blind, without_numbers
from cb2_assist.review.evidence import CutSides, EvidenceCache
from cb2_assist.review.freshness import Freshness
from cb2_assist.review.pace import Pace
from cb2_assist.review.ports import Assistant, Log, Views
from cb2_assist.review.screen import (
    VERDICT_WORDS,
    QueueMark,
    ReasonFor,
    Screen,
    Status,
    describe,
)
from cb2_assist.review.state import Cursor, StateFile
from cb2_assist.review.travel import Arrival, SharedLink, arrive, share_neuroglancer, share_own

_RECENT_LISTS = 8
"""Lists whose suggestions a late verdict may still name."""
_RESUME_WAIT_S = 120.0
"""How long a verdict that was typed before a restart waits for the list that it is about."""


class ReviewSession:
    """What is on screen, and the only way to change it."""

    def __init__(
        self,
        assistant: Assistant,
        decisions: Log,
        views: Views | None,
        *,
        user: str,
        state: StateFile,
        blind_share: float = 0.0,
        on_change: Callable[[], None] = lambda: None,
        applying: Applying | None = None,
        freshness: Freshness | None = None,
    ) -> None:
        """Start with an empty list.

        Args:
            assistant: Makes suggestions.
            decisions: Records verdicts.
            views: Keeps what the model saw; None keeps nothing.
            user: Goes into every label.
            state: Remembers where this session stands.
            blind_share: Of the sites, whose numbers are hidden until the answer.
            on_change: Called after every change, on whichever thread made it.
            applying: Applies what is accepted; None applies nothing.
            freshness: Says whether a graph has changed since it was shown.
        """
        self._assistant = assistant
        self._decisions = decisions
        self._user = user
        self._state = state
        self.on_change = on_change
        self.on_event: Callable[[], None] = lambda: None
        """Called after every verdict, undo and redo that was recorded."""
        self._lock = threading.RLock()
        self._recent: OrderedDict[str, SuggestionList] = OrderedDict()
        self._newest_proposal = 0
        self._resumed = threading.Event()
        self._resumed.set()
        sides = applying.sides if applying else CutSides(assistant.sides_at)
        self._evidence = EvidenceCache(assistant, sides, self._evidence_ready)
        self._making = DecisionMaker(assistant, views, self._evidence, user=user)
        self._pace = Pace()
        self._blind = Blind(blind_share, user, decisions.was_answered)
        self._applying, self._freshness = applying, freshness
        self._screen = Screen(**self._standing())
        decisions.listen(self._news)

    @property
    def screen(self) -> Screen:
        """What is on screen now."""
        return self._screen

    def snapshot(self) -> dict[str, Any]:
        """JSON that paints the whole page."""
        with self._lock:
            screen = self._screen
        chosen = screen.selected_suggestion
        info = self._assistant.info
        document = screen.to_json()
        if screen.list is not None:
            hidden = self._blind.hidden(screen.list)
            document["list"] = without_numbers(document["list"], hidden)
        return {
            **document,
            "reasons": {
                s.id: why for s in screen.suggestions if (why := self._decisions.reason(s.id))
            },
            "flags": {
                s.id: note
                for s in screen.suggestions
                if (note := self._decisions.flag(s.id)) is not None
            },
            "sides": self._evidence.sides(chosen.id) if chosen else None,
            "views_sha256": self._evidence.views_sha256(chosen.id) if chosen else None,
            "dataset": asdict(info),
            "resolution_nm": list(self._assistant.source.layers.resolution),
            "user": self._user,
            "edits": self._applying.to_json() if self._applying else None,
        }

    def close(self, timeout_s: float) -> bool:
        """Stop background work; returns whether it ended in time."""
        done = self._freshness is None or self._freshness.close(timeout_s)
        return self._evidence.close(timeout_s) and done

    def touch(self) -> None:
        """Paint again: something that is not the session's has changed."""
        with self._lock:
            self._change(self._screen)

    # -- proposals

    def go(self, text: str) -> Arrival:
        """Find out where a text leads that a person typed or pasted; see `travel.arrive`."""
        return arrive(text, self._assistant.source, self._assistant.info)

    def share_own(self, origin: str, camera: PointNm | None) -> SharedLink:
        """A link of ours to what is on screen; see `travel.share_own`."""
        return share_own(self._screen, self._assistant.info, origin, camera)

    def share_neuroglancer(self, origin: str, camera: PointNm | None) -> SharedLink:
        """A Neuroglancer link to what is on screen; see `travel.share_neuroglancer`."""
        return share_neuroglancer(self._screen, self._assistant.source, origin, camera)

    def begin_proposal(self, cursor: Cursor, arrival: Arrival | None = None) -> int:
        """Announce a proposal and get its number; a later one makes it void.

        Args:
            cursor: What will be proposed.
            arrival: How the person got there, when not by pointing.
        """
        with self._lock:
            self._newest_proposal += 1
            name = f"…{str(cursor.segment)[-6:]}" if cursor.segment else "the cursor"
            wait = " (still getting ready; the very first start takes a minute)"
            self._change(
                replace(self._screen, busy_with=cursor.segment or BACKGROUND),
                status=f"{_preface(arrival)}Looking for errors at {name}"
                f"{wait * self._assistant.preparing}",
            )
            return self._newest_proposal

    def begin_move(self) -> int:
        """The same where it is not known yet which place comes next."""
        with self._lock:
            self._newest_proposal += 1
            self._change(replace(self._screen, busy_with=BACKGROUND))
            return self._newest_proposal

    def end_move(self, number: int, text: str, level: str = "info") -> str:
        """Say why a move came to nothing; the list on screen stays."""
        with self._lock:
            if number == self._newest_proposal:
                self._change(replace(self._screen, busy_with=None), status=text, level=level)
        return text

    def is_newest(self, number: int) -> bool:
        """Whether no later proposal has made this one void."""
        return number == self._newest_proposal

    def propose(self, number: int, cursor: Cursor, arrival: Arrival | None = None) -> str | None:
        """Find suggestions and put them on screen.

        Args:
            number: From `begin_proposal`.
            cursor: Where, and about which segment.
            arrival: How the person got there; its suggestion is the one that is selected.

        Returns:
            The status, or None when a later proposal has taken over.

        Raises:
            AssistError: No suggestions can be made there; the list on screen stays.
        """
        return self.show(
            number, lambda: self._assistant.suggest(cursor.at, cursor.segment), arrival
        )

    def show(
        self,
        number: int,
        find: Callable[[], SuggestionList],
        arrival: Arrival | None = None,
        beside: frozenset[SegmentId] = frozenset(),
    ) -> str | None:
        """Put a list on screen that is still to be made; see `propose`.

        The site that the queue drew is selected, if it led here; `beside` is shown with the list.
        """
        if number != self._newest_proposal:
            return None
        try:
            with patience(
                is_over=lambda: number != self._newest_proposal,
                say=lambda text: self._tell_waiting(number, text),
            ):
                found = find()
            verdicts = self._verdicts_of(found)
        except AssistError as error:
            with self._lock:
                if number != self._newest_proposal:
                    return None
                self._change(replace(self._screen, busy_with=None), status=str(error), level="warn")
            raise
        except BaseException:
            with self._lock:
                if number == self._newest_proposal:
                    self._change(
                        replace(self._screen, busy_with=None),
                        status="The proposal failed.",
                        level="error",
                    )
            raise
        with self._lock:
            if number != self._newest_proposal:
                return None
            text = self._install(found, verdicts, arrival, beside)
        self._state.update(cursor=_place_of(found), version=found.version)
        return text

    def _tell_waiting(self, number: int, text: str) -> None:
        with self._lock:
            if number == self._newest_proposal:
                self._change(self._screen, status=text)

    def expect_resume(self) -> None:
        """Say that `resume` will be called; verdicts on unknown suggestions wait for it."""
        self._resumed.clear()

    def resume(self, propose: Callable[[int, Cursor], str | None] | None = None) -> str | None:
        """Propose again where the last session stopped; silent when there is nothing to resume.

        Args:
            propose: In place of `propose`.

        Raises:
            AssistError: As for `propose`.
        """
        saved = self._state.saved
        try:
            if saved.cursor is None or saved.version != self._assistant.info.version:
                return None
            number = self.begin_proposal(saved.cursor)
            return (propose or self.propose)(number, saved.cursor)
        finally:
            self._resumed.set()

    def _install(
        self,
        found: SuggestionList,
        verdicts: dict[str, Verdict],
        arrival: Arrival | None,
        beside: frozenset[SegmentId],
    ) -> str:
        for suggestion in found.suggestions:
            self._recent[suggestion.id] = found
            self._recent.move_to_end(suggestion.id)
        lists = list({id(kept): kept for kept in self._recent.values()}.values())
        dropped = {id(kept) for kept in lists[:-_RECENT_LISTS]}
        for key in [k for k, kept in self._recent.items() if id(kept) in dropped]:
            del self._recent[key]
        n = len(found.suggestions)
        text = f"{n} suggestion{'' if n == 1 else 's'} for …{str(found.segment)[-6:]}."
        if verdicts:
            text += f" {len(verdicts)} decided already."
        if found.note:
            text = f"{text} {found.note}" if n else found.note
        wanted = arrival.site if arrival else None
        if wanted is not None and all(s.id != wanted for s in found.suggestions):
            text += " The suggestion of that link is not among them: another version or model."
            wanted = None
        text = _preface(arrival) + text
        screen = replace(self._screen, list=found, verdicts=verdicts)
        drawn, asked = found.drawn, None
        if drawn is not None:
            # one that was skipped is asked again; one that was decided or closed is not
            is_open = verdicts.get(drawn.site) in (None, Verdict.SKIP)
            asked = drawn.site if is_open and drawn.site not in screen.implied else None
            chosen = next(s for s in found.suggestions if s.id == drawn.site)
            text = f"From the queue: {describe(chosen)}."
        first = found.suggestions[0].id if n else None
        self._change(
            replace(
                self._screen,
                list=found,
                list_number=self._screen.list_number + 1,
                beside=beside,
                verdicts=verdicts,
                selected=wanted or asked or screen.next_undecided(None) or first,
                preview=False,
                busy_with=None,
                reason_for=None,
            ),
            status=text,
            level="info" if n else "warn",
        )
        return text

    # -- moving about

    def select(self, suggestion_id: str) -> str:
        """Make a suggestion of the list the selected one.

        Raises:
            DecisionError: It is not on the list any more.
        """
        with self._lock:
            ids = [s.id for s in self._screen.suggestions]
            if suggestion_id not in ids:
                raise DecisionError("That suggestion is no longer on the list.")
            text = f"{ids.index(suggestion_id) + 1} of {len(ids)}"
            preview = self._screen.preview and suggestion_id == self._screen.selected
            self._change(
                replace(self._screen, selected=suggestion_id, preview=preview), status=text
            )
            return text

    def set_preview(self, shown: bool) -> str:
        """Show the selected edit as if it were made, or not.

        Raises:
            DecisionError: Nothing is selected.
        """
        with self._lock:
            if self._screen.selected_suggestion is None:
                raise DecisionError("There is nothing to preview. Press p on a segment first.")
            text = "Preview on: as if the edit were made." if shown else "Preview off."
            self._change(replace(self._screen, preview=shown), status=text)
            return text

    # -- verdicts

    def decide(self, answer: Answer) -> str:
        """Record a verdict on the suggestion that it names; durable on return.

        Raises:
            DecisionError: No recent list had that suggestion.
            LabelError: The label file cannot be written; nothing was recorded.
        """
        shown = self._recent.get(answer.suggestion_id)
        if shown is None and self._resumed.wait(_RESUME_WAIT_S):
            shown = self._recent.get(answer.suggestion_id)
        if shown is None:
            raise self._not_recorded(
                DecisionError(
                    "that suggestion is not on a recent list. Press p on its segment and decide "
                    "again."
                )
            )
        suggestion = next(s for s in shown.suggestions if s.id == answer.suggestion_id)
        try:
            is_here = shown is self._screen.list
            verdicts = self._screen.verdicts if is_here else self._verdicts_of(shown)
            hidden = self._blind.hidden(shown)
            decision = self._making.decision(answer, suggestion, shown, verdicts, hidden)
            now, changed = self._freshness.check(suggestion) if self._freshness else (None, "")
            decision = replace(decision, current_roots=now)
            lost = ""
            if self._applying is not None:
                lost = self._applying.expect(decision, self._evidence.sides(suggestion.id))
            event = self._decisions.decide(decision)
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
            event = self._decisions.give_reason(
                given.suggestion_id,
                given.reason,
                idempotency_key=given.idempotency_key,
                decision_key=given.verdict_key,
            )
            assert event.target is not None
            decision = self._decisions.event(event.target).decision
        except AssistError as error:
            with self._lock:
                level = "warn" if isinstance(error, DecisionError) else "error"
                self._change(self._screen, status=f"NO reason recorded: {error}", level=level)
            raise
        assert decision is not None
        what = f"{VERDICT_WORDS[decision.verdict].lower()} {describe(decision.suggestion)}"
        text = f"{given.reason.replace('_', ' ').capitalize()}: {what}."
        with self._lock:
            self._change(self._screen, status=text, level="good")
        return text

    def undo(self, idempotency_key: str, seen: Seen | None = None) -> str:
        """Take the last verdict back.

        Args:
            idempotency_key: The same one again counts once.
            seen: What the page showed when this was asked for; None: whatever is last is meant.

        Raises:
            DecisionError: Nothing stands that could be undone, or something else than was meant.
            LabelError: The label file cannot be written.
        """
        return self._step("Undone", self._decisions.undo, idempotency_key, seen)

    def redo(self, idempotency_key: str, seen: Seen | None = None) -> str:
        """Bring back the verdict that was last undone; ``seen`` as for `undo`.

        Raises:
            DecisionError: Nothing was undone last, or something else than was meant.
            LabelError: The label file cannot be written.
        """
        return self._step("Redone", self._decisions.redo, idempotency_key, seen)

    def _step(
        self, word: str, act: Callable[..., LabelEvent], idempotency_key: str, seen: Seen | None
    ) -> str:
        try:
            event = act(idempotency_key=idempotency_key, seen=seen)
            assert event.target is not None
            decision = self._decisions.event(event.target).decision
        except AssistError as error:
            with self._lock:
                level = "warn" if isinstance(error, DecisionError) else "error"
                # another program may have decided: pressed again, the key means what is shown now
                stands = self._standing()
                now = replace(self._screen, verdicts=self._verdicts_of(self._screen.list), **stands)
                self._change(now, status=str(error), level=level)
            raise
        assert decision is not None
        what = f"{VERDICT_WORDS[decision.verdict].lower()} {describe(decision.suggestion)}"
        meaning = self._meaning_of(s.id for s in answered_sites(decision))
        return self._after_event(decision.suggestion.id, f"{word}: {what}.{meaning}")

    def _meaning_of(self, sites: Iterable[str]) -> str:
        """Bring the edits of some sites in line with the verdicts; what that is, in words."""
        words = self._applying.follow(sites) if self._applying else ""
        return f" {words}" if words else ""

    def say(self, text: str, level: str = "info") -> str:
        """Put a line in the status."""
        with self._lock:
            self._change(self._screen, status=text, level=level)
        return text

    def set_queue(self, mark: QueueMark | None) -> None:
        """Say what the page shows about the queue."""
        with self._lock:
            if mark != self._screen.queue:
                self._change(replace(self._screen, queue=mark))

    def _after_event(
        self,
        suggestion_id: str,
        text: str,
        *,
        level: str = "info",
        moves_on: bool = False,
        reason_for: ReasonFor | None = None,
    ) -> str:
        if n := self._decisions.undelivered:
            text += f" Kept on this computer until the labels can be reached again ({n} waiting)."
            level = "warn"
        stands = self._standing()
        known = self._screen.list
        verdicts = self._verdicts_of(known)
        with self._lock:
            now = self._screen
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
            self._change(
                replace(
                    self._screen,
                    verdicts=verdicts,
                    selected=selected,
                    preview=now.preview and selected == now.selected,
                    reason_for=reason_for,
                    **stands,
                ),
                status=text,
                level=level,
            )
        self.on_event()
        return text

    def _news(self, text: str, is_good: bool) -> None:
        """The labels are out of reach, or back: then what was kept here is recorded there."""
        with suppress(AssistError):
            self._decisions.refresh()
        with self._lock:
            stands = self._standing()
            now = replace(self._screen, verdicts=self._verdicts_of(self._screen.list), **stands)
            self._change(now, status=text, level="good" if is_good else "warn")

    def _not_recorded(self, error: AssistError) -> AssistError:
        text = f"NOT recorded: {error}"
        with self._lock:
            self._change(self._screen, status=text, level="error")
        return DecisionError(text) if isinstance(error, DecisionError) else LabelError(text)

    # -- the one way to change the screen

    def _standing(self) -> dict[str, Any]:
        """To be read before the verdicts, which may then be newer than it says but not older."""
        log = self._decisions
        return {
            "newest_event": log.newest_event,
            "can_undo": log.can_undo,
            "can_redo": log.can_redo,
        }

    def _verdicts_of(self, found: SuggestionList | None) -> dict[str, Verdict]:
        suggestions = found.suggestions if found else ()
        stand = {s.id: self._decisions.verdict(s.id) for s in suggestions}
        return {i: verdict for i, verdict in stand.items() if verdict is not None}

    def _change(self, screen: Screen, *, status: str | None = None, level: str = "info") -> None:
        with self._lock:
            if status is not None:
                number = self._screen.status.number + 1
                screen = replace(screen, status=Status(status, level, number))
            self._screen = replace(screen, revision=self._screen.revision + 1)
            self._look_ahead()
        self.on_change()

    def _evidence_ready(self, suggestion_id: str) -> None:
        with self._lock:
            if suggestion_id == self._screen.selected:
                self._change(self._screen)

    def _look_ahead(self) -> None:
        screen = self._screen
        chosen = screen.selected_suggestion
        if chosen is None:
            return
        following = screen.next_undecided(chosen.id)
        self._evidence.want(
            [chosen, *(s for s in screen.suggestions if s.id == following and s is not chosen)]
        )


def _place_of(found: SuggestionList) -> Cursor:
    """Where a restart takes a list up again: at the very site that the queue drew."""
    if found.drawn is not None:
        site = next(s.site for s in found.suggestions if s.id == found.drawn.site)
        return Cursor(site.point, site.segment)
    return Cursor(found.at, found.segment)


def _preface(arrival: Arrival | None) -> str:
    return f"{arrival.text} " if arrival else ""
