"""What is on screen, as one frozen record and as the JSON that paints the whole page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cb2_assist.core.colours import PARTNER_COLOUR, PREVIEW_COLOUR, SEGMENT_COLOUR
from cb2_assist.core.records import SegmentId, Suggestion, SuggestionList, Verdict

VERDICT_WORDS = {
    Verdict.ACCEPT: "Accepted",
    Verdict.REJECT: "Rejected",
    Verdict.UNSURE: "Unsure",
    Verdict.SKIP: "Skipped",
    Verdict.NONE: "None of these",
    Verdict.FLAG: "Flagged",
}


@dataclass(frozen=True, slots=True)
class Status:
    """The line that says what just happened."""

    text: str
    level: str = "info"
    """``info``, ``good``, ``warn`` or ``error``."""
    number: int = 0
    """Grows with every status, so that the page can tell a new one from an old one."""


@dataclass(frozen=True, slots=True)
class ReasonFor:
    """The verdict that the next reason is about, unless the selected row has one that needs it."""

    suggestion_id: str
    verdict_key: str
    """Its idempotency key, so that a late reason cannot land on another verdict."""

    def to_json(self) -> dict[str, Any]:
        """As the page reads it."""
        return {"suggestion": self.suggestion_id, "verdict_key": self.verdict_key}


@dataclass(frozen=True, slots=True)
class QueueMark:
    """What the page says about the queue."""

    words: str
    """Which part of it, e.g. ``segment …123456``."""
    n_open: int
    """Sites that still wait in this part, skipped ones included."""
    filling: tuple[int, int] | None = None
    """Places looked at and to look at while more sites are searched; 0 of 0: not known yet."""


@dataclass(frozen=True, slots=True)
class Screen:
    """Everything that the page paints."""

    revision: int = 0
    """Grows with every change."""
    list: SuggestionList | None = None
    list_number: int = 0
    """Grows with every list, so that the same one asked for again is shown again."""
    beside: frozenset[SegmentId] = frozenset()
    """Objects to be shown with the list that no suggestion of it is about."""
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    """Of the suggestions on the list."""
    selected: str | None = None
    preview: bool = False
    busy_with: SegmentId | None = None
    """Segment that is being looked at; 0 where the cursor's segment is not known yet."""
    status: Status = Status("Point at a segment and press p.")
    can_undo: bool = False
    can_redo: bool = False
    newest_event: int = 0
    """Up to where the verdicts follow the log, see `decisions.log.Seen`."""
    reason_for: ReasonFor | None = None
    """The last reject or unsure, until the next verdict, undo, redo or list."""
    queue: QueueMark | None = None
    """None before the queue was used."""

    @property
    def suggestions(self) -> tuple[Suggestion, ...]:
        """Of the list; empty without one."""
        return self.list.suggestions if self.list else ()

    @property
    def selected_suggestion(self) -> Suggestion | None:
        """The suggestion that a verdict would be about."""
        return next((s for s in self.suggestions if s.id == self.selected), None)

    @property
    def implied(self) -> dict[str, str]:
        """See `SuggestionList.implied`."""
        return self.list.implied(self.verdicts) if self.list else {}

    def next_undecided(self, after: str | None) -> str | None:
        """Id of the first open suggestion behind ``after``, going round; None: none is left."""
        ids = [s.id for s in self.suggestions]
        closed = self.verdicts.keys() | self.implied.keys()
        start = ids.index(after) + 1 if after in ids else 0
        return next((i for i in ids[start:] + ids[:start] if i not in closed), None)

    def to_json(self) -> dict[str, Any]:
        """The page's snapshot, without what the session adds; ids as text.

        ``list`` is exactly the document of ``suggest --json``.
        """
        return {
            "revision": self.revision,
            "list": self.list.to_json() if self.list else None,
            "list_number": self.list_number,
            "beside": [str(segment) for segment in sorted(self.beside)],
            "verdicts": {i: v.value for i, v in self.verdicts.items()},
            "implied": self.implied,
            "selected": self.selected,
            "preview": self.preview,
            "busy_with": None if self.busy_with is None else str(self.busy_with),
            "status": {
                "text": self.status.text,
                "level": self.status.level,
                "number": self.status.number,
            },
            "can_undo": self.can_undo,
            "can_redo": self.can_redo,
            "newest_event": self.newest_event,
            "reason_for": self.reason_for.to_json() if self.reason_for else None,
            "queue": self._queue_json(),
            "colours": {
                "segment": SEGMENT_COLOUR,
                "partner": PARTNER_COLOUR,
                "preview": PREVIEW_COLOUR,
            },
        }

    def _queue_json(self) -> dict[str, Any] | None:
        drawn = self.list.drawn if self.list else None
        if self.queue is None and drawn is None:
            return None
        mark = self.queue or QueueMark("", 0)
        return {
            "words": mark.words,
            "open": mark.n_open,
            "filling": None if mark.filling is None else list(mark.filling),
            "site": drawn and drawn.site,
            "explore": drawn is not None and drawn.explore,
        }


def describe(suggestion: Suggestion) -> str:
    """A suggestion in a few words for the status line."""
    site = suggestion.site
    if site.partner is None:
        return f"cut of …{str(site.segment)[-6:]}"
    return f"join of …{str(site.segment)[-6:]} with …{str(site.partner)[-6:]}"
