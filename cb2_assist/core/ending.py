"""A program that waits until it is told to end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_LOOK_EVERY_S = 0.2


@contextmanager
def set_by_signals(ended: threading.Event) -> Iterator[None]:
    """Let SIGINT and SIGTERM set ``ended``; on a thread other than the main one nothing does."""
    previous: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, lambda *_: ended.set())
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def wait_for(ended: threading.Event) -> None:
    """Wait until it is set, by a signal too that another thread was interrupted by.

    The kernel gives a signal of the process to any thread that does not block it; Python notes it
    there and runs the handler on the main thread, which an endless ``ended.wait()`` keeps asleep.
    """
    while not ended.wait(_LOOK_EVERY_S):
        pass
