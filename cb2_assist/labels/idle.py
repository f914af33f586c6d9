"""Connections that wait for the next reader; the same for every database."""

from __future__ import annotations

from threading import Lock
from typing import Generic, Protocol, TypeVar

from cb2_assist.core.errors import LabelError

_MOST = 4


class Closable(Protocol):
    """Anything that is let go of with `close`."""

    def close(self) -> None:
        """Let go; never fails."""


C = TypeVar("C", bound=Closable)


class IdleConnections(Generic[C]):
    """A few open connections. Every method may be called from any thread."""

    def __init__(self, when_closed: str) -> None:
        """Holds none yet.

        Args:
            when_closed: What to say to who asks for one after `close`.
        """
        self._when_closed = when_closed
        self._idle: list[C] = []
        self._lock = Lock()
        self._closed = False

    def take(self) -> C | None:
        """One of them; None when there is none.

        Raises:
            LabelError: They have been closed.
        """
        with self._lock:
            if self._closed:
                raise LabelError(self._when_closed)
            return self._idle.pop() if self._idle else None

    def keep(self, conn: C) -> None:
        """Have one back; it is closed when there are enough, or the others have been closed."""
        with self._lock:
            if not self._closed and len(self._idle) < _MOST:
                self._idle.append(conn)
                return
        conn.close()

    def close(self) -> None:
        """Close idle connections now and borrowed ones when they come back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for conn in idle:
            conn.close()
