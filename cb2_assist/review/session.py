"""One proofreading session: the list on screen, and what proposals and verdicts do to it.

The session is the page's only memory; every browser tab paints its snapshot. Methods block and may
be called from any thread. Those that change the order of things (select, decide, undo, redo) are
meant to be called one after another; `proposals.propose` may run beside them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from cb2_assist.core.errors import DecisionError
from cb2_assist.core.geometry import PointNm
from cb2_assist.decisions.log import Seen
from cb2_assist.review.answers import Answer, DecisionMaker, GivenReason
from cb2_assist.review.applying import Applying
from cb2_assist.review.blind import Blind, without_numbers
from cb2_assist.review.board import Board, standing
from cb2_assist.review.deciding import Deciding
from cb2_assist.review.evidence import CutSides, EvidenceCache
from cb2_assist.review.freshness import Freshness
from cb2_assist.review.ports import Assistant, Log, Views
from cb2_assist.review.proposals import Proposals
from cb2_assist.review.screen import QueueMark, Screen
from cb2_assist.review.state import StateFile
from cb2_assist.review.travel import Arrival, SharedLink, arrive, share_neuroglancer, share_own


class ReviewSession:
    """What is on screen, as the server and the queue see it; `proposals` bring the lists."""

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
        self.on_change = on_change
        self.on_event: Callable[[], None] = lambda: None
        """Called after every verdict, undo and redo that was recorded."""
        sides = applying.sides if applying else CutSides(assistant.sides_at)
        self._evidence = EvidenceCache(assistant, sides, self._evidence_ready)
        self._blind = Blind(blind_share, user, decisions.was_answered)
        self._applying, self._freshness = applying, freshness
        self._board = Board(
            Screen(**standing(decisions)),
            look_ahead=self._look_ahead,
            on_change=self._changed,
        )
        self.proposals = Proposals(self._board, assistant, decisions, state)
        """Puts lists on screen."""
        self._deciding = Deciding(
            self._board,
            decisions,
            DecisionMaker(assistant, views, self._evidence, user=user),
            self._evidence,
            self._blind,
            list_of=self.proposals.list_of,
            applying=applying,
            freshness=freshness,
            on_event=self._recorded,
        )
        decisions.listen(self._deciding.news)

    @property
    def screen(self) -> Screen:
        """What is on screen now."""
        return self._board.screen

    def snapshot(self) -> dict[str, Any]:
        """JSON that paints the whole page."""
        with self._board.lock:
            screen = self._board.screen
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
        with self._board.lock:
            self._board.change(self._board.screen)

    # -- moving about

    def go(self, text: str) -> Arrival:
        """Find out where a text leads that a person typed or pasted; see `travel.arrive`."""
        return arrive(text, self._assistant.source, self._assistant.info)

    def share_own(self, origin: str, camera: PointNm | None) -> SharedLink:
        """A link of ours to what is on screen; see `travel.share_own`."""
        return share_own(self._board.screen, self._assistant.info, origin, camera)

    def share_neuroglancer(self, origin: str, camera: PointNm | None) -> SharedLink:
        """A Neuroglancer link to what is on screen; see `travel.share_neuroglancer`."""
        return share_neuroglancer(self._board.screen, self._assistant.source, origin, camera)

    def select(self, suggestion_id: str) -> str:
        """Make a suggestion of the list the selected one.

        Raises:
            DecisionError: It is not on the list any more.
        """
        with self._board.lock:
            ids = [s.id for s in self._board.screen.suggestions]
            if suggestion_id not in ids:
                raise DecisionError("That suggestion is no longer on the list.")
            text = f"{ids.index(suggestion_id) + 1} of {len(ids)}"
            preview = self._board.screen.preview and suggestion_id == self._board.screen.selected
            self._board.change(
                replace(self._board.screen, selected=suggestion_id, preview=preview), status=text
            )
            return text

    def set_preview(self, shown: bool) -> str:
        """Show the selected edit as if it were made, or not.

        Raises:
            DecisionError: Nothing is selected.
        """
        with self._board.lock:
            if self._board.screen.selected_suggestion is None:
                raise DecisionError("There is nothing to preview. Press p on a segment first.")
            text = "Preview on: as if the edit were made." if shown else "Preview off."
            self._board.change(replace(self._board.screen, preview=shown), status=text)
            return text

    def say(self, text: str, level: str = "info") -> str:
        """Put a line in the status."""
        return self._board.say(text, level)

    def set_queue(self, mark: QueueMark | None) -> None:
        """Say what the page shows about the queue."""
        with self._board.lock:
            if mark != self._board.screen.queue:
                self._board.change(replace(self._board.screen, queue=mark))

    # -- verdicts

    def decide(self, answer: Answer) -> str:
        """See `Deciding.decide`."""
        return self._deciding.decide(answer)

    def give_reason(self, given: GivenReason) -> str:
        """See `Deciding.give_reason`."""
        return self._deciding.give_reason(given)

    def undo(self, idempotency_key: str, seen: Seen | None = None) -> str:
        """See `Deciding.undo`."""
        return self._deciding.undo(idempotency_key, seen)

    def redo(self, idempotency_key: str, seen: Seen | None = None) -> str:
        """See `Deciding.redo`."""
        return self._deciding.redo(idempotency_key, seen)

    # -- what is wanted next

    def _evidence_ready(self, suggestion_id: str) -> None:
        with self._board.lock:
            if suggestion_id == self._board.screen.selected:
                self._board.change(self._board.screen)

    def _changed(self) -> None:
        self.on_change()

    def _recorded(self) -> None:
        self.on_event()

    def _look_ahead(self, screen: Screen) -> None:
        chosen = screen.selected_suggestion
        if chosen is None:
            return
        following = screen.next_undecided(chosen.id)
        self._evidence.want(
            [chosen, *(s for s in screen.suggestions if s.id == following and s is not chosen)]
        )
