"""The lists that suggestions were on, so that a later answer is recorded with its whole list."""

from __future__ import annotations

from collections import OrderedDict
from datetime import UTC, datetime
from threading import Lock
from typing import Any, NamedTuple

from cb2_assist.core.errors import DecisionError
from cb2_assist.core.records import SuggestionList

_MOST = 4096


class Shown(NamedTuple):
    """A list, when it was made, and how its sites came to be asked."""

    list: SuggestionList
    made_at: datetime
    propensity: dict[str, Any]


class RecentLists:
    """The latest list of each suggestion. Methods may be called from any thread."""

    def __init__(self, most: int = _MOST) -> None:
        """Keep this many suggestions."""
        self._most = most
        self._shown: OrderedDict[str, Shown] = OrderedDict()
        self._lock = Lock()

    def put(self, found: SuggestionList, propensity: dict[str, Any]) -> None:
        """Remember a list that was just made."""
        shown = Shown(found, datetime.now(UTC), propensity)
        with self._lock:
            for suggestion in found.suggestions:
                self._shown[suggestion.id] = shown
                self._shown.move_to_end(suggestion.id)
            while len(self._shown) > self._most:
                self._shown.popitem(last=False)

    def get(self, suggestion_id: str) -> Shown:
        """The list that a suggestion was on last.

        Raises:
            DecisionError: It was on none, or too long ago.
        """
        with self._lock:
            shown = self._shown.get(suggestion_id)
        if shown is None:
            raise DecisionError(
                f"This assistant did not make the suggestion {suggestion_id}, or made it too long "
                "ago. Nothing was recorded; call suggest or score again and decide on what it "
                "returns."
            )
        return shown
