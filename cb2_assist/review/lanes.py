"""One thread that does one thing after another, away from the server's loop."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_Job = tuple["Future[Any]", Callable[[], Any]]


class Lane:
    """Runs submitted calls in order on one daemon thread.

    A daemon, unlike `concurrent.futures`' threads, does not hold up the program's end when a call
    hangs in someone else's library.
    """

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._closed = False
        self._thread.start()

    def submit(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Queue a call; its result or exception arrives in the future."""
        future: Future[T] = Future()
        if self._closed:
            future.cancel()
            return future
        self._jobs.put((future, lambda: call(*args, **kwargs)))
        return future

    def close(self, timeout_s: float) -> bool:
        """Finish what is queued, up to ``timeout_s``; returns whether all of it was done."""
        self._closed = True
        self._jobs.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, call = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001  the future carries it to the caller
                future.set_exception(error)
            else:
                future.set_result(result)
