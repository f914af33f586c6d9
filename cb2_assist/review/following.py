"""Brings the list on screen up to what an edit has made of the segment that it is about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from cb2_assist.core.records import SegmentId, SuggestionList, Verdict
from cb2_assist.review.ports import Assistant
from cb2_assist.review.session import ReviewSession
from cb2_assist.review.travel import Arrival


def begin_following(
    session: ReviewSession,
    assistant: Assistant,
    retired: frozenset[SegmentId],
    pieces: frozenset[SegmentId],
    text: str,
) -> Callable[[], str | None] | None:
    """Announce a new list in place of one that an edit has made out of date.

    Args:
        session: Whose list.
        assistant: Makes the new one.
        retired: Objects that are no more.
        pieces: What a cut has made of them: shown beside the list, and not proposed to be joined
            again.
        text: What has happened, for the status line.

    Returns:
        What makes the list and shows it; None when the one on screen is about something else, or
        another one is on its way.
    """
    screen = session.screen
    shown = screen.list
    if shown is None or screen.busy_with is not None:
        return None
    about = {shown.segment, *(s.site.partner for s in shown.suggestions)}
    if not about & retired:
        return None
    answered = _answered(shown, {**screen.verdicts})
    number = session.proposals.begin_move()
    arrival = Arrival(shown.at, None, None, text)
    return lambda: session.proposals.show(
        number,
        lambda: _without(assistant.suggest(shown.at, None), answered, pieces),
        arrival,
        beside=pieces,
    )


def _answered(shown: SuggestionList, verdicts: dict[str, Verdict]) -> set[object]:
    """Places that have their answer: the object has a new id, its parts have not."""
    done = (Verdict.ACCEPT, Verdict.REJECT)
    return {
        (s.site.kind, s.supervoxels)
        for s in shown.suggestions
        if s.supervoxels is not None and verdicts.get(s.id) in done
    }


def _without(
    found: SuggestionList, answered: set[object], pieces: frozenset[SegmentId]
) -> SuggestionList:
    apart = (s for s in found.suggestions if not {s.site.segment, s.site.partner} <= pieces)
    found = replace(found, suggestions=tuple(apart))
    kept = tuple(s for s in found.suggestions if (s.site.kind, s.supervoxels) not in answered)
    n = len(found.suggestions) - len(kept)
    if not n:
        return found
    note = f"{found.note} {n} answered before the edit {'is' if n == 1 else 'are'} left out."
    return replace(found, suggestions=kept, note=note.strip())
