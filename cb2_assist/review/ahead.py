"""Answers that will soon be wanted: made ahead, away from whoever wants them, and kept a while."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from cb2_assist.review.lanes import Lane

log = logging.getLogger(__name__)

T = TypeVar("T")


class Ahead(Generic[T]):
    """One answer a name, made one after another on a thread of its own. Safe from any thread."""

    def __init__(self, thread: str, most: int) -> None:
        """Start with none.

        Args:
            thread: Its name; a warning in the log has it too.
            most: Answers that are held.
        """
        self._lane, self._name, self._most = Lane(thread), thread, most
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Future[T]] = OrderedDict()
        self.on_ready: Callable[[str], object] = lambda _name: None
        """Called with a name when its answer is there."""

    def of(self, name: str, make: Callable[[], T]) -> Future[T]:
        """The answer under a name, begun now if need be; one that failed is made again.

        Args:
            name: The same name has the same answer.
            make: Makes it.
        """
        with self._lock:
            future = self._kept.get(name)
            if future is not None and not (future.done() and _failed(future)):
                self._kept.move_to_end(name)
                return future
            future = self._lane.submit(make)
            self._kept[name] = future
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        future.add_done_callback(lambda done: self._told(done, name))
        return future

    def ready(self, name: str) -> T | None:
        """The answer under a name, if it is there already."""
        with self._lock:
            future = self._kept.get(name)
        if future is None or not future.done() or _failed(future):
            return None
        return future.result()

    def close(self, timeout_s: float) -> bool:
        """End the thread; returns whether it ended in time."""
        with self._lock:
            waiting = list(self._kept.values())
        for future in waiting:
            future.cancel()
        return self._lane.close(timeout_s)

    def _told(self, future: Future[T], name: str) -> None:
        if future.cancelled():
            return
        if error := future.exception():
            log.warning("%s: nothing for suggestion %s: %s", self._name, name, error)
        else:
            self.on_ready(name)


def _failed(future: Future[T]) -> bool:
    return future.cancelled() or future.exception() is not None
