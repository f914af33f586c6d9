"""Waiting for a network without losing the person who waits: deadline, cancel, progress.

Whoever asks a question says, around the call, how it may be given up and whom to tell meanwhile;
whoever waits for a server, however deep below, keeps to it:

    with patience(is_over=lambda: number != newest, say=show_in_the_status_line):
        found = assistant.suggest(at, segment)
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

from cb2_assist.core.errors import NoAnswerError, SupersededError

T = TypeVar("T")

_LOOK_S = 0.1
"""How often it is looked whether anybody still waits."""
TELL_AFTER_S, TELL_EVERY_S = 1.5, 10.0
"""Waits shorter than the first are not worth a word; longer ones get one less and less often, but
at least as often as the second says."""


@dataclass(frozen=True, slots=True)
class _Patience:
    is_over: Callable[[], bool]
    say: Callable[[str], None]


_NOBODY = _Patience(lambda: False, lambda _text: None)
_NOW: ContextVar[_Patience | None] = ContextVar("patience", default=None)


@contextlib.contextmanager
def patience(
    *,
    is_over: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda _text: None,
) -> Iterator[None]:
    """Set, for what this thread does inside, who waits.

    Args:
        is_over: Whether nobody waits any more.
        say: Told what is being waited for, in words, when it takes long.
    """
    token = _NOW.set(_Patience(is_over, say))
    try:
        yield
    finally:
        _NOW.reset(token)


def wait_for(futures: Iterable[Future[T]], what: str, deadline_s: float) -> list[T]:
    """Results of work that runs in other threads, in order.

    Args:
        futures: What is under way; cancelled where it has not begun when waiting ends early.
        what: What is waited for, in words, e.g. ``36 blocks of em``.
        deadline_s: Longest wait for all of it.

    Raises:
        NoAnswerError: The deadline has passed.
        SupersededError: Nobody waits any more.
        Exception: The first that the work raised.
    """
    waiting = list(futures)
    try:
        _until_done(waiting, what, deadline_s)
        return [f.result() for f in waiting]
    except BaseException:
        for future in waiting:
            future.cancel()
        raise


def _until_done(waiting: list[Future[T]], what: str, deadline_s: float) -> None:
    """Return when all is done; raise what the first failure raised, or that waiting has ended."""
    mine = _NOW.get() or _NOBODY
    begun = told = time.monotonic()
    pause, left = TELL_AFTER_S, set(waiting)
    while left:
        done, left = wait(left, timeout=_LOOK_S, return_when="FIRST_EXCEPTION")
        for failed in (f for f in done if f.exception() is not None):
            failed.result()
        now = time.monotonic()
        if left and mine.is_over():
            raise SupersededError(f"Given up waiting for {what}: something newer was asked.")
        if left and now - begun > deadline_s:
            raise NoAnswerError(
                f"No answer within {deadline_s:.0f} s: {what}. The server is slow or the "
                "connection is. Try again; nothing is lost."
            )
        if left and now - told > pause:
            told, pause = now, min(2 * pause, TELL_EVERY_S)
            mine.say(f"Waiting for {what}: {now - begun:.0f} s.")
