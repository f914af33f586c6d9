"""What is on screen, and the one way to change it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cb2_assist.core.records import SuggestionList, Verdict
from cb2_assist.review.ports import Log
from cb2_assist.review.screen import Screen, Status


class Board:
    """The screen of one session.

    Attributes:
        lock: Held by `change`, and by whoever looks at the screen in order to change it.
    """

    def __init__(
        self,
        screen: Screen,
        *,
        look_ahead: Callable[[Screen], None],
        on_change: Callable[[], None],
    ) -> None:
        """Begin with a screen.

        Args:
            screen: The first one.
            look_ahead: Told each new one, to get ready what may be wanted next.
            on_change: Called after every change, on whichever thread made it.
        """
        self.lock = threading.RLock()
        self._screen = screen
        self._look_ahead, self._on_change = look_ahead, on_change

    @property
    def screen(self) -> Screen:
        """What is on screen now."""
        return self._screen

    def change(self, screen: Screen, *, status: str | None = None, level: str = "info") -> None:
        """Show another screen, with a new line of status or the one that is there."""
        with self.lock:
            if status is not None:
                number = self._screen.status.number + 1
                screen = replace(screen, status=Status(status, level, number))
            self._screen = replace(screen, revision=self._screen.revision + 1)
            self._look_ahead(self._screen)
        self._on_change()

    def say(self, text: str, level: str = "info") -> str:
        """Put a line in the status; all else stays."""
        with self.lock:
            self.change(self._screen, status=text, level=level)
        return text


def standing(log: Log) -> dict[str, Any]:
    """What a screen says of the log.

    To be read before the verdicts, which may then be newer than it says but not older.
    """
    return {
        "newest_event": log.newest_event,
        "can_undo": log.can_undo,
        "can_redo": log.can_redo,
    }


def verdicts_of(log: Log, found: SuggestionList | None) -> dict[str, Verdict]:
    """The answers in force on a list, by suggestion id."""
    suggestions = found.suggestions if found else ()
    stand = {s.id: log.verdict(s.id) for s in suggestions}
    return {i: verdict for i, verdict in stand.items() if verdict is not None}
