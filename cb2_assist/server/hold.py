"""Which tab a session belongs to. Two tabs at one viewer would move each other's camera."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

GRACE_S = 5.0
"""A connection that broke may come back: longer than a page waits between its attempts."""
RELOAD_S = 2.5
"""A page that said goodbye was closed, or is being loaded again, which takes less than this."""


@dataclass(frozen=True, slots=True)
class TabId:
    """One loading of one tab.

    Attributes:
        tab: Stays over reloads.
        load: New with each of them.
        waits: Whether it knows that another tab holds the session.
    """

    tab: str
    load: str
    waits: bool = False


class HeldPage(Protocol):
    """An open connection of a tab."""

    tab: TabId

    def send_hold(self) -> None:
        """Tell the page whether the session is its own."""


class Hold:
    """Gives the session to one tab at a time. Its methods run on the server's loop.

    The first tab gets it. Another one gets it when its person says so, or when the holder has been
    away for too long. A reload keeps it, a connection that comes back too.
    """

    def __init__(self, call_later: Callable[[float, Callable[[], None]], object]) -> None:
        self._call_later = call_later
        self._holder: TabId | None = None
        self._pages: list[HeldPage] = []

    def is_holder(self, page: HeldPage) -> bool:
        """Whether the session belongs to this page."""
        return self._holder is not None and _same(page.tab, self._holder)

    def join(self, page: HeldPage) -> None:
        """A page has connected; the caller tells it whether it is the holder."""
        if self._holder is None:
            if page.tab.waits:
                # the holder may be about to come back from the same break
                self._call_later(GRACE_S, self._offer)
            else:
                self._give(page)
        elif self._holder.tab == page.tab.tab:
            self._give(page)
        self._pages.append(page)

    def leave(self, page: HeldPage, *, said_goodbye: bool) -> None:
        """A page has gone.

        Args:
            page: The one that had joined.
            said_goodbye: Whether its browser closed the connection in good order.
        """
        self._pages.remove(page)
        left = self._holder
        if left is not None and self.is_holder(page):
            wait_s = RELOAD_S if said_goodbye else GRACE_S
            self._call_later(wait_s, lambda: self._release(left))

    def take(self, page: HeldPage) -> None:
        """The person at this page wants the session there."""
        self._give(page)

    def _release(self, left: TabId) -> None:
        is_back = any(_same(p.tab, left) for p in self._pages)
        if self._holder is not None and _same(self._holder, left) and not is_back:
            self._holder = None
            self._offer()

    def _offer(self) -> None:
        if self._holder is None and self._pages:
            self._give(self._pages[-1])

    def _give(self, page: HeldPage) -> None:
        before = [p for p in self._pages if self.is_holder(p)]
        self._holder = page.tab
        for other in tuple(self._pages):
            if (other in before) != self.is_holder(other):
                other.send_hold()


def _same(a: TabId, b: TabId) -> bool:
    return (a.tab, a.load) == (b.tab, b.load)
