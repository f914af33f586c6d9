"""A store that is closed and opened again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from cb2_assist.labels.store import LabelStore


@contextmanager
def reopening(
    make: Callable[[], LabelStore], *before: LabelStore
) -> Iterator[Callable[[], LabelStore]]:
    """Gives what closes the store that was open, at first ``before``, and opens it again."""
    opened = list(before)
    with ExitStack() as stack:

        def again() -> LabelStore:
            for each in opened:
                each.close()
            opened.append(stack.enter_context(make()))
            return opened[-1]

        yield again
