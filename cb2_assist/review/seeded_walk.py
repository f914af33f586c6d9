"""Puts suggestions that are known to be wrong in the place of draws; see `learning.seeded`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from cb2_assist.core.errors import AssistError
from cb2_assist.core.records import SuggestionList
from cb2_assist.labels.queue_store import QueueItem, QueueStore, Scope
from cb2_assist.learning.seeded import KnownWrong, Seeds, disguised
from cb2_assist.review.ports import Assistant, Log

_EVENTS_BETWEEN = 50
"""What is known to be wrong is found out anew after so many events of the person."""


@dataclass(frozen=True, slots=True)
class Seeded:
    """What comes in place of a draw."""

    known: KnownWrong
    name: str
    """`Suggestion.id` under which it is shown."""
    number: int
    """Of the draw that comes after it."""

    @property
    def item(self) -> QueueItem:
        """Its own site."""
        return self.known.item


class SeededWalk:
    """The part of a walk through the queue that the queue does not know of."""

    def __init__(self, seeds: Seeds, assistant: Assistant, queue: QueueStore, log: Log) -> None:
        """Nothing is known to be wrong until `refresh`.

        Args:
            seeds: Chooses.
            assistant: Finds views under other names.
            queue: Has sites whose numbers are borrowed.
            log: Says what was shown already.
        """
        self._seeds, self._assistant, self._queue, self._log = seeds, assistant, queue, log
        self._lock = threading.Lock()
        self._read_at = 0
        self._shown: dict[str, str] = {}

    def refresh(self, *, now: float) -> None:
        """See `Seeds.refresh`."""
        with self._lock:
            self._read_at = self._log.newest_event
            self._seeds.refresh(now=now)

    def keep_up(self, newest_event: int, *, now: float) -> None:
        """Refresh now and then; in the background."""
        if newest_event >= self._read_at + _EVENTS_BETWEEN:
            self.refresh(now=now)

    def following(self, number: int) -> Seeded | None:
        """What comes before the draw of this number; None: that draw itself."""
        name = self._seeds.name(number)
        if not self._seeds.is_next(number):
            return None
        if self._log.verdict(name) is not None:
            with self._lock:
                if name in self._shown:
                    self._seeds.drop(self._shown[name])
            return None
        with self._lock:
            known = self._seeds.pick(number)
        return None if known is None else Seeded(known, name, number)

    def list_of(
        self,
        seeded: Seeded,
        scope: Scope,
        look: Callable[[QueueItem], SuggestionList],
        *,
        now: float,
    ) -> SuggestionList | None:
        """The list that is shown.

        Args:
            seeded: From `following`.
            scope: Of the queue that the person goes through.
            look: Makes the list at a site.
            now: Unix time.

        Returns:
            None where it would not look like any other: it is not there any more, or closed.
        """
        known, site = seeded.known, seeded.item.site
        shown = None
        try:
            found = look(seeded.item)
            numbers = self._seeds.numbers_of(site.kind, scope, seeded.number, now=now)
            shown = disguised(found, known, seeded.name, scope, numbers)
        except AssistError:
            found = None
        if shown is not None:
            verdicts = {s.id: self._log.verdict(s.id) for s in shown.suggestions}
            closed = shown.implied({i: v for i, v in verdicts.items() if v is not None})
            shown = None if seeded.name in closed else shown
        if shown is None:
            with self._lock:
                self._seeds.drop(known.site)
            return None
        self._shown[seeded.name] = known.site
        self._assistant.also_called(known.site, seeded.name)
        return shown
