"""Whether what a verdict is about is still what was shown: asked just before it is recorded."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeoutError

from cb2_assist.core.errors import AssistError
from cb2_assist.core.records import Kind, SegmentId, Suggestion
from cb2_assist.datasets.source import GraphEditor
from cb2_assist.review.lanes import Lane

_WAIT_S = 2.0
"""A verdict waits no longer; it is recorded all the same."""
_REST_S = 30.0
"""A server that did not answer is left alone for so long."""


class Freshness:
    """Asks an editable graph for the objects of a suggestion's two sides."""

    def __init__(self, editor: GraphEditor, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._editor, self._clock = editor, clock
        self._lane = Lane("cb2-freshness")
        self._rests_until = 0.0

    def check(self, suggestion: Suggestion) -> tuple[tuple[SegmentId, ...] | None, str]:
        """The objects of the sides now, where they are others than were shown, and words for it.

        Never raises, and gives up after two seconds: a verdict is worth more than this.
        """
        parts = [s for s in suggestion.supervoxels or () if s is not None]
        if not parts or self._clock() < self._rests_until:
            return None, ""
        try:
            now = self._lane.submit(self._editor.roots, parts).result(_WAIT_S)
        except (AssistError, FutureTimeoutError):
            self._rests_until = self._clock() + _REST_S
            return None, ""
        site = suggestion.site
        shown = [s for s in (site.segment, site.partner) if s is not None]
        if list(now) == shown:
            return None, ""
        if site.kind is Kind.JOIN and len(set(now)) == 1:
            return now, f"Edits have joined the two meanwhile: they are …{str(now[0])[-6:]}."
        names = " and ".join(f"…{str(r)[-6:]}" for r in dict.fromkeys(now))
        return now, f"Edits have changed it since it was shown: it is {names} now."

    def close(self, timeout_s: float) -> bool:
        """End the thread; returns whether it ended in time."""
        return self._lane.close(timeout_s)
