"""The lists that suggestions were on, so that a later answer is recorded with its whole list."""

from __future__ import annotations

from collections import OrderedDict
from datetime import UTC, datetime
from threading import Lock
from typing import Any, NamedTuple

from cb2_assist.core.errors import DecisionError
from cb2_assist.core.records import Suggestion, SuggestionList

_MOST = 4096


class Shown(NamedTuple):
    """A list, when it was made, and how its sites came to be asked."""

    list: SuggestionList
    made_at: datetime
    propensity: dict[str, Any]


class RecentLists:
    """The list of each suggestion. Methods may be called from any thread.

    One site may be on several lists, with other words or at another end; each of its suggestions
    leads to its own list, the latest if they are equal.
    """

    def __init__(self, most: int = _MOST) -> None:
        """Keep this many suggestions."""
        self._most = most
        self._shown: OrderedDict[Suggestion, Shown] = OrderedDict()
        self._lock = Lock()

    def put(self, found: SuggestionList, propensity: dict[str, Any]) -> None:
        """Remember a list that was just made."""
        shown = Shown(found, datetime.now(UTC), propensity)
        with self._lock:
            for suggestion in found.suggestions:
                self._shown[suggestion] = shown
                self._shown.move_to_end(suggestion)
            while len(self._shown) > self._most:
                self._shown.popitem(last=False)

    def get(self, suggestion: Suggestion) -> Shown:
        """The list that a suggestion was on.

        Raises:
            DecisionError: It was on none, or too long ago.
        """
        with self._lock:
            shown = self._shown.get(suggestion)
        if shown is None:
            raise DecisionError(
                f"This assistant did not make the suggestion {suggestion.id}, or made it too long "
                "ago. Nothing was recorded; call suggest or score again and decide on what it "
                "returns."
            )
        return shown
