"""Gives accepted cuts their two sides when these arrive after the verdict."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Protocol

from cb2_assist.core.edits import EditRecord, Sides
from cb2_assist.core.errors import AssistError, LabelError
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import Kind, Site
from cb2_assist.decisions.edits import EditFlow
from cb2_assist.labels.edit_store import EditStore, StaleEditError
from cb2_assist.review.evidence import CutSides, SidesNm

log = logging.getLogger(__name__)

_TRY_AGAIN_S = (2.0, 5.0, 10.0, 20.0, 60.0)
"""Pauses before sides that could not be read are asked for again; the last one goes on."""


class Later(Protocol):
    """Calls something after a time, on any thread."""

    def __call__(self, seconds: float, call: Callable[[], object]) -> Callable[[], None]:
        """Returns what cancels it."""


class EditSides:
    """Waits for the sides of staged cuts; its methods do not, and may be called from any thread.

    Which cuts wait follows from the store alone, so that after a kill the same ones do.
    """

    def __init__(
        self,
        flow: EditFlow,
        store: EditStore,
        sides: CutSides,
        later: Later,
        on_change: Callable[[EditRecord], object],
    ) -> None:
        """Nothing is waited for yet.

        Args:
            flow: Records what arrives.
            store: Where edits are.
            sides: Makes them.
            later: Waits before another try.
            on_change: Told an edit that has its sides now, or words why not.
        """
        self._flow, self._store, self._sides = flow, store, sides
        self._later, self._on_change = later, on_change
        self._lock = threading.Lock()
        self._waiting: dict[str, int] = {}
        self._pauses: dict[str, Callable[[], None]] = {}
        self._closed = False

    def wait_for(self, record: EditRecord) -> None:
        """Have the sides of a cut made, unless that is under way."""
        with self._lock:
            if self._closed or record.edit.key in self._waiting:
                return
            self._waiting[record.edit.key] = 0
        self._ask(record)

    def close(self) -> None:
        """Wait for nothing any more; what is missing stays so until the next start."""
        with self._lock:
            self._closed = True
            pauses, self._pauses = list(self._pauses.values()), {}
        for cancel in pauses:
            cancel()

    def _ask(self, record: EditRecord) -> None:
        edit = record.edit
        future = self._sides.of(edit.site, Site(Kind.CUT, edit.segment, None, edit.point))
        future.add_done_callback(partial(self._arrived, edit.key))

    def _arrived(self, key: str, future: Future[SidesNm]) -> None:
        if future.cancelled():  # the program ends
            return
        try:
            ended = self._record(key, future)
        except StaleEditError:
            self._arrived(key, future)
        except LabelError as e:
            log.warning("The sides of a cut could not be kept: %s", e)
            self._pause(key)
        else:
            if ended:
                with self._lock:
                    self._waiting.pop(key, None)
            else:
                self._pause(key)

    def _record(self, key: str, future: Future[SidesNm]) -> bool:
        """Record what arrived; whether there is no more to wait for."""
        record = self._store.get(key)
        if record is None or not record.needs_sides:
            return True  # taken back or taken off the list meanwhile
        error = future.exception()
        if error is None:
            after = self._flow.give_sides(record, _as_sides(future.result()))
        elif isinstance(error, AssistError) and not isinstance(error, LookupError):
            after = self._flow.lack_sides(record, str(error), for_good=False)
        elif isinstance(error, AssistError):
            after = self._flow.lack_sides(record, str(error), for_good=True)
        else:
            log.error("The sides of a cut", exc_info=error)
            why = "something went wrong inside cb2-assist, and the terminal says what."
            after = self._flow.lack_sides(record, why, for_good=True)
        self._on_change(after)
        return not after.needs_sides

    def _pause(self, key: str) -> None:
        def again() -> None:
            with self._lock:
                self._pauses.pop(key, None)
            try:
                record = self._store.get(key)
            except LabelError:
                self._pause(key)
                return
            if record is not None and record.needs_sides:
                self._ask(record)
            else:
                with self._lock:
                    self._waiting.pop(key, None)

        with self._lock:
            if self._closed:
                return
            turn = self._waiting.get(key, 0)
            self._waiting[key] = turn + 1
            pause = _TRY_AGAIN_S[min(turn, len(_TRY_AGAIN_S) - 1)]
            self._pauses[key] = self._later(pause, again)


def _as_sides(points: SidesNm) -> Sides:
    a, b = points
    return tuple(map(PointNm.of, a)), tuple(map(PointNm.of, b))
