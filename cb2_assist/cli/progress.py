"""Progress on stderr: one line that is rewritten on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from cb2_assist.core.closing import Closing

_CLEAR = "\r\x1b[K"


class ProgressLine(Closing):
    """Shows lines of progress; call it with each.

    Args:
        stream: Where to; None is stderr.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._open = False
        # a log file wants fewer lines than a person who watches
        self.every_s = 1.0 if self._terminal else 10.0

    def __call__(self, text: str) -> None:
        """Show a line; on a terminal a percentage takes the place of the one before."""
        passing = self._terminal and "%" in text
        start = _CLEAR if self._open else ""
        self._stream.write(f"{start}cb2-assist: {text}{'' if passing else chr(10)}")
        self._stream.flush()
        self._open = passing

    def close(self) -> None:
        """Leave the terminal at the start of a line, for a result or an error."""
        if self._open:
            self._stream.write(_CLEAR)
            self._stream.flush()
            self._open = False


class Seldom:
    """Says when it is time for another line: at once, and then once in so many seconds."""

    def __init__(self, every_s: float) -> None:
        self._every_s, self._next = every_s, 0.0

    def is_due(self) -> bool:
        """Whether enough time has passed since it was so last."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._every_s
        return True
