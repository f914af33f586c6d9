"""Fetches what the model saw, ahead of the verdict, so that a verdict does not wait for it."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass

from cb2_assist.core.records import Kind, Suggestion
from cb2_assist.review.lanes import Lane
from cb2_assist.review.ports import Assistant

log = logging.getLogger(__name__)

_KEPT = 32
"""Suggestions whose evidence is held; one is about 0.25 MB."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What belongs to one suggestion beside its numbers."""

    views: tuple[str, bytes] | None
    """SHA-256 and bytes."""
    sides: list[list[list[float]]] | None
    """Of a cut: points in nm on its two sides."""


class EvidenceCache:
    """Evidence of the suggestions that may be decided next, made in the background."""

    def __init__(self, assistant: Assistant, on_ready: Callable[[str], None]) -> None:
        """Start with none.

        Args:
            assistant: Where evidence comes from.
            on_ready: Called with a suggestion's id when there is something to show of it.
        """
        self._assistant = assistant
        self._on_ready = on_ready
        self._lane = Lane("cb2-evidence")
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Future[Evidence]] = OrderedDict()

    def want(self, suggestions: Iterable[Suggestion]) -> None:
        """Start fetching what is not there yet, in this order."""
        for suggestion in suggestions:
            self._future(suggestion)

    def get(self, suggestion: Suggestion, timeout_s: float) -> Evidence:
        """Evidence of a suggestion, waiting for it if need be.

        Raises:
            TimeoutError: It did not arrive in time.
        """
        return self._future(suggestion).result(timeout_s)

    def sides(self, suggestion_id: str) -> list[list[list[float]]] | None:
        """The sides of a cut, if they are there already."""
        ready = self._ready_one(suggestion_id)
        return ready.sides if ready else None

    def views_sha256(self, suggestion_id: str) -> str | None:
        """Content address of the views, if they are there already."""
        ready = self._ready_one(suggestion_id)
        return ready.views[0] if ready and ready.views else None

    def close(self, timeout_s: float) -> bool:
        """End the thread; returns whether it ended in time."""
        with self._lock:
            for future in self._kept.values():
                future.cancel()
        return self._lane.close(timeout_s)

    def _ready_one(self, suggestion_id: str) -> Evidence | None:
        with self._lock:
            future = self._kept.get(suggestion_id)
        if future is None or not future.done() or future.cancelled() or future.exception():
            return None
        return future.result()

    def _future(self, suggestion: Suggestion) -> Future[Evidence]:
        with self._lock:
            future = self._kept.get(suggestion.id)
            if future is not None and not (future.done() and future.exception() is not None):
                self._kept.move_to_end(suggestion.id)
                return future
            future = self._lane.submit(self._fetch, suggestion)
            self._kept[suggestion.id] = future
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        future.add_done_callback(lambda done: self._ready(done, suggestion))
        return future

    def _fetch(self, suggestion: Suggestion) -> Evidence:
        is_cut = suggestion.site.kind is Kind.CUT
        sides = self._assistant.sides_of(suggestion.id) if is_cut else None
        return Evidence(self._assistant.views_of(suggestion.id), sides)

    def _ready(self, future: Future[Evidence], suggestion: Suggestion) -> None:
        if future.cancelled():
            return
        if error := future.exception():
            log.warning("No evidence for suggestion %s: %s", suggestion.id, error)
        else:
            self._on_ready(suggestion.id)
