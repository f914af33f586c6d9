"""Fills the queue along a segment in the background, for a person who just presses `q`."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from cb2_assist.core.errors import AssistError
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import SegmentId, SuggestionList
from cb2_assist.labels.queue_store import QueueStore, Scope
from cb2_assist.learning.cover import stops_from_here
from cb2_assist.learning.fill import FillProgress, fill, items_of, signals_of
from cb2_assist.review.lanes import Lane
from cb2_assist.review.ports import Assistant
from cb2_assist.review.session import ReviewSession

log = logging.getLogger(__name__)

_OTHERS_S = 120.0
"""A fill that was written to within this time may be at work in another process."""
_NEWS_S = 0.5


class _StoppedError(Exception):
    """The server ends."""


class Search:
    """At most one fill at a time; others wait for it."""

    def __init__(
        self,
        session: ReviewSession,
        assistant: Assistant,
        queue: QueueStore,
        *,
        on_found: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Starts nothing but an idle thread; ``on_found`` is called after every place."""
        self._session, self._assistant, self._queue = session, assistant, queue
        self._on_found, self._clock = on_found, clock
        self._lane = Lane("cb2-queue-search")
        self._stop = threading.Event()
        self._news = threading.Condition()
        self._under_way: set[str] = set()
        self._told = 0
        self.progress: tuple[int, int] | None = None
        """Places looked at and to look at; None when no search is under way."""

    def start(self, scope: Scope, shown: SuggestionList, *, only_unfinished: bool = False) -> bool:
        """Search along the segment of a scope, from a list on it, unless that was done before.

        The list's own suggestions are in the queue on return.

        Args:
            scope: Of one segment.
            shown: A list on or beside the segment.
            only_unfinished: Only go on with a search that was broken off.

        Returns:
            Whether one is under way now.
        """
        if len(scope.segments) != 1:
            return False
        if scope.text in self._under_way:
            return True
        fills = self._queue.fills(scope.dataset, scope.version)
        known = next((f for f in fills if f.scope == scope and f.kind is None), None)
        if known is None and only_unfinished:
            return False
        if known is not None and (known.is_done or self._clock() - known.updated_at < _OTHERS_S):
            return False
        now = self._clock()
        if known is None:
            begun = self._queue.begin_fill(scope, None, "the list on screen", 1, now=now)
            items = items_of(shown, scope)
            signals = signals_of(self._assistant, items)
            self._queue.put_signals(scope.dataset, scope.version, signals)
            self._queue.put(begun.id, items, done=0, now=now)
        self._under_way.add(scope.text)
        self.progress = (0, 0)
        self._lane.submit(self._run, scope, scope.segments[0], shown.at)
        return True

    def wait_for_news(self, scope: Scope) -> bool:
        """Wait a moment for the search to come on; returns whether it is still under way."""
        with self._news:
            told = self._told
            self._news.wait_for(
                lambda: self._told != told or scope.text not in self._under_way, _NEWS_S
            )
            return scope.text in self._under_way

    def close(self, timeout_s: float) -> bool:
        """Stop after the place under way; returns whether it ended in time."""
        self._stop.set()
        return self._lane.close(timeout_s)

    def _run(self, scope: Scope, segment: SegmentId, at: PointNm) -> None:
        try:
            stops = stops_from_here(self._assistant.source, segment, at, self._check)
            fill(
                self._assistant,
                self._queue,
                scope,
                stops,
                on_progress=self._tell,
                stop=self._stop,
                before_each=self._give_way,
                clock=self._clock,
            )
        except _StoppedError:
            return
        except AssistError as error:
            if not self._stop.is_set():
                self._session.say(f"The search for more sites stopped: {error}", "warn")
        except Exception:
            if not self._stop.is_set():
                log.exception("The search for more sites failed")
        finally:
            with self._news:
                self._under_way.discard(scope.text)
                self.progress = None
                self._news.notify_all()
            self._on_found()

    def _check(self, _text: str) -> None:
        if self._stop.is_set():
            raise _StoppedError

    def _tell(self, progress: FillProgress) -> None:
        with self._news:
            self.progress = (progress.done, progress.total)
            self._told += 1
            self._news.notify_all()
        self._on_found()

    def _give_way(self) -> None:
        """A person who waits for a list comes first, unless they wait for this search."""
        screen = self._session.screen
        while screen.busy_with and not self._stop.wait(0.05):
            screen = self._session.screen
