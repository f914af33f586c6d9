"""From a place to a list on screen: one proposal at a time counts, and recent lists are kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

from cb2_assist.core.errors import AssistError
from cb2_assist.core.patience import patience
from cb2_assist.core.records import BACKGROUND, SegmentId, SuggestionList, Verdict
from cb2_assist.review.board import Board, verdicts_of
from cb2_assist.review.ports import Assistant, Log
from cb2_assist.review.screen import describe
from cb2_assist.review.state import Cursor, StateFile
from cb2_assist.review.travel import Arrival

_RECENT_LISTS = 8
"""Lists whose suggestions a late verdict may still name."""
_RESUME_WAIT_S = 120.0
"""How long a verdict that was typed before a restart waits for the list that it is about."""


class Proposals:
    """Puts lists on screen. Methods may be called from any thread, beside each other."""

    def __init__(self, board: Board, assistant: Assistant, log: Log, state: StateFile) -> None:
        """Nothing is proposed yet.

        Args:
            board: What is on screen.
            assistant: Makes suggestions.
            log: Knows the answers that stand.
            state: Remembers where this session stands.
        """
        self._board, self._assistant, self._log, self._state = board, assistant, log, state
        self._recent: OrderedDict[str, SuggestionList] = OrderedDict()
        self._newest = 0
        self._resumed = threading.Event()
        self._resumed.set()

    def list_of(self, suggestion_id: str) -> SuggestionList | None:
        """The recent list that a suggestion is on; waits for a `resume` that is under way."""
        shown = self._recent.get(suggestion_id)
        if shown is None and self._resumed.wait(_RESUME_WAIT_S):
            shown = self._recent.get(suggestion_id)
        return shown

    def begin(self, cursor: Cursor, arrival: Arrival | None = None) -> int:
        """Announce a proposal and get its number; a later one makes it void.

        Args:
            cursor: What will be proposed.
            arrival: How the person got there, when not by pointing.
        """
        with self._board.lock:
            self._newest += 1
            name = f"…{str(cursor.segment)[-6:]}" if cursor.segment else "the cursor"
            wait = " (still getting ready; the very first start takes a minute)"
            self._board.change(
                replace(self._board.screen, busy_with=cursor.segment or BACKGROUND),
                status=f"{_preface(arrival)}Looking for errors at {name}"
                f"{wait * self._assistant.preparing}",
            )
            return self._newest

    def begin_move(self) -> int:
        """The same where it is not known yet which place comes next."""
        with self._board.lock:
            self._newest += 1
            self._board.change(replace(self._board.screen, busy_with=BACKGROUND))
            return self._newest

    def end_move(self, number: int, text: str, level: str = "info") -> str:
        """Say why a move came to nothing; the list on screen stays."""
        with self._board.lock:
            if number == self._newest:
                self._board.change(
                    replace(self._board.screen, busy_with=None), status=text, level=level
                )
        return text

    def is_newest(self, number: int) -> bool:
        """Whether no later proposal has made this one void."""
        return number == self._newest

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
        if number != self._newest:
            return None
        try:
            with patience(
                is_over=lambda: number != self._newest,
                say=lambda text: self._tell_waiting(number, text),
            ):
                found = find()
            verdicts = verdicts_of(self._log, found)
        except AssistError as error:
            with self._board.lock:
                if number != self._newest:
                    return None
                self.end_move(number, str(error), "warn")
            raise
        except BaseException:
            self.end_move(number, "The proposal failed.", "error")
            raise
        with self._board.lock:
            if number != self._newest:
                return None
            text = self._install(found, verdicts, arrival, beside)
        self._state.update(cursor=_place_of(found), version=found.version)
        return text

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
            number = self.begin(saved.cursor)
            return (propose or self.propose)(number, saved.cursor)
        finally:
            self._resumed.set()

    def _tell_waiting(self, number: int, text: str) -> None:
        with self._board.lock:
            if number == self._newest:
                self._board.say(text)

    def _install(
        self,
        found: SuggestionList,
        verdicts: dict[str, Verdict],
        arrival: Arrival | None,
        beside: frozenset[SegmentId],
    ) -> str:
        self._remember(found)
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
        screen = replace(self._board.screen, list=found, verdicts=verdicts)
        drawn, asked = found.drawn, None
        if drawn is not None:
            # one that was skipped is asked again; one that was decided or closed is not
            is_open = verdicts.get(drawn.site) in (None, Verdict.SKIP)
            asked = drawn.site if is_open and drawn.site not in screen.implied else None
            chosen = next(s for s in found.suggestions if s.id == drawn.site)
            text = f"From the queue: {describe(chosen)}."
        first = found.suggestions[0].id if n else None
        self._board.change(
            replace(
                self._board.screen,
                list=found,
                list_number=self._board.screen.list_number + 1,
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

    def _remember(self, found: SuggestionList) -> None:
        for suggestion in found.suggestions:
            self._recent[suggestion.id] = found
            self._recent.move_to_end(suggestion.id)
        lists = list({id(kept): kept for kept in self._recent.values()}.values())
        dropped = {id(kept) for kept in lists[:-_RECENT_LISTS]}
        for key in [k for k, kept in self._recent.items() if id(kept) in dropped]:
            del self._recent[key]


def _place_of(found: SuggestionList) -> Cursor:
    """Where a restart takes a list up again: at the very site that the queue drew."""
    if found.drawn is not None:
        site = next(s.site for s in found.suggestions if s.id == found.drawn.site)
        return Cursor(site.point, site.segment)
    return Cursor(found.at, found.segment)


def _preface(arrival: Arrival | None) -> str:
    return f"{arrival.text} " if arrival else ""
