"""The strategies by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from cb2_assist.core.errors import UsageError
from cb2_assist.learning.strategies.badge import badge, badge_chances
from cb2_assist.learning.strategies.bait import bait
from cb2_assist.learning.strategies.coreset import coreset
from cb2_assist.learning.strategies.facility import facility
from cb2_assist.learning.strategies.mixture import mixture, mixture_chances
from cb2_assist.learning.strategies.pool import Floats, Pool, Rows
from cb2_assist.learning.strategies.sorting import (
    confidence,
    contact,
    disagreement,
    entropy,
    margin,
    random,
    random_chances,
    size,
    value,
)
from cb2_assist.learning.strategies.typicality import typicality

Order = Callable[[Pool, int, np.random.Generator], Rows]
Chances = Callable[[Pool], Floats]


@dataclass(frozen=True, slots=True)
class Strategy:
    """One way to choose.

    Attributes:
        name: On the command line and with every label.
        needs: Columns of `Pool` that it looks at.
        function: Pool of usable rows, k, generator -> k open rows, the first to be asked first.
            The k of a longer order are not always its first k: some spread a batch.
        is_sorted: Whether the order is by one number a site, so that a whole order costs no more
            than its beginning.
        first: Where the generator decides, each row's probability of coming first, given the
            pool; None where it does not.
    """

    name: str
    needs: tuple[str, ...]
    function: Order
    is_sorted: bool
    first: Chances | None = None

    def order(self, pool: Pool, k: int, rng: np.random.Generator) -> Rows:
        """The k rows to ask first, or all that are open when there are fewer.

        Rows in which a needed number is unknown come last.

        Args:
            pool: The sites.
            k: How many are wanted.
            rng: Where the strategy is random, decides.

        Raises:
            UsageError: A column that the strategy needs is absent.
        """
        self._check(pool)
        good = pool.usable(self.needs)
        rows = np.flatnonzero(good)
        part = pool.take(rows)
        n = min(k, len(part.open))
        chosen = rows[self.function(part, n, rng)] if n else rows[:0]
        rest = np.flatnonzero(~good & ~pool.labelled)
        return np.concatenate([chosen, rest[: max(0, k - n)]])

    def chances(self, pool: Pool) -> Floats:
        """Each row's probability of being the first of `order`; exact, not an estimate.

        Raises:
            UsageError: A column that the strategy needs is absent.
        """
        self._check(pool)
        out = np.zeros(len(pool))
        rows = np.flatnonzero(pool.usable(self.needs))
        part = pool.take(rows)
        if self.first is not None and len(part.open):
            out[rows] = self.first(part)
        else:
            # no generator is asked: any will do
            out[self.order(pool, 1, np.random.default_rng(0))] = 1.0
        return out

    def _check(self, pool: Pool) -> None:
        absent = [name for name in self.needs if getattr(pool, name) is None]
        if absent:
            raise UsageError(
                f"The order {self.name!r} needs {' and '.join(absent)}, which is not known here. "
                "Fill the queue with this version, or choose an order that needs less: random, "
                "margin, confidence."
            )


class Registry(Mapping[str, Strategy]):
    """Strategies by name; a name is given once."""

    def __init__(self) -> None:
        self._known: dict[str, Strategy] = {}

    def add(self, strategy: Strategy) -> None:
        """Make a strategy known.

        Raises:
            ValueError: Its name is taken.
        """
        if strategy.name in self._known:
            raise ValueError(f"There is a strategy {strategy.name!r} already.")
        self._known[strategy.name] = strategy

    def find(self, name: str) -> Strategy:
        """The strategy of a name.

        Raises:
            UsageError: There is none.
        """
        if name not in self._known:
            known = ", ".join(self._known)
            raise UsageError(f"There is no order {name!r}. Known: {known}.")
        return self._known[name]

    def __getitem__(self, name: str) -> Strategy:
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


def _all() -> Registry:
    known = Registry()
    for strategy in (
        Strategy("random", (), random, is_sorted=True, first=random_chances),
        Strategy("contact", ("contact",), contact, is_sorted=True),
        Strategy("size", ("size",), size, is_sorted=True),
        Strategy("confidence", ("confidence",), confidence, is_sorted=True),
        Strategy("margin", ("score",), margin, is_sorted=True),
        Strategy("entropy", ("confidence",), entropy, is_sorted=True),
        Strategy("disagreement", ("views",), disagreement, is_sorted=True),
        Strategy("badge", ("score", "embedding"), badge, is_sorted=False, first=badge_chances),
        Strategy("coreset", ("embedding",), coreset, is_sorted=False),
        Strategy("bait", ("score", "embedding"), bait, is_sorted=False),
        Strategy("facility", ("embedding",), facility, is_sorted=False),
        Strategy("typicality", ("embedding",), typicality, is_sorted=False),
        Strategy("value", ("gain", "score", "seconds"), value, is_sorted=True),
        Strategy(
            "mixture",
            ("gain", "score", "seconds"),
            mixture,
            is_sorted=False,
            first=mixture_chances,
        ),
    ):
        known.add(strategy)
    return known


STRATEGIES = _all()
"""All there are."""
