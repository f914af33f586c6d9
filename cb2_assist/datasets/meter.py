"""Says how far long work is: percent, speed, time left."""

from __future__ import annotations

import time
from collections.abc import Callable

from cb2_assist.core.durations import duration

Progress = Callable[[str], None]
"""Takes one line of text about how far the work is."""


class Meter:
    """Counts work and tells about it, at most once in a while.

    Args:
        say: Takes the lines; None says nothing.
        every_s: Least time between two lines about the same stage.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        say: Progress | None = None,
        *,
        every_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say or (lambda _line: None)
        self._every_s, self._clock = every_s, clock
        self._planned = self._done = 0.0
        self._began = self._stage_began = self._told = clock()
        self._stage, self._bytes = "", 0.0

    def note(self, text: str) -> None:
        """Say something at once."""
        self._say(text)

    def plan(self, work: float) -> None:
        """Announce work, in units of the caller's choice that cost about the same time each."""
        self._planned += work

    def stage(self, name: str) -> None:
        """Begin a part of the work; says its name."""
        now = self._clock()
        if not self._stage:
            self._began = now
        self._stage, self._bytes = name, 0.0
        self._stage_began = self._told = now
        self._say(name)

    def add(self, work: float, n_bytes: float = 0.0) -> None:
        """Count work that is done, and the bytes of voxels that went through."""
        self._done += work
        self._bytes += n_bytes
        now = self._clock()
        if now - self._told < self._every_s or not self._planned:
            return
        self._told = now
        part = min(1.0, self._done / self._planned)
        speed = self._bytes / 1e6 / max(now - self._stage_began, 1e-3)
        left = (now - self._began) * (1 - part) / part if part else 0.0
        self._say(f"{self._stage}: {part:.0%}, {speed:.0f} MB/s, about {duration(left)} left")
