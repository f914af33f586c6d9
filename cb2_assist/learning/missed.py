"""How many errors are still in the queue, from the sites that it asked at random.

One draw in ten takes any waiting site with the same probability, whatever the model thinks of it
(`learning.queue`). Let T be the number of true sites that the queue held when the first of these
draws was made, D_t those that had been accepted before draw t, in whatever way, and n_t the sites
that were waiting then. The site drawn at t is true with probability (T - D_t) / n_t, given all that
happened before: D_t and n_t are known, so T is the one unknown, and it makes no difference that the
order of the other draws followed the model and earlier answers.

The estimate solves sum(y_t) = sum((T - D_t) / n_t), y_t being 1 for an accepted site: inverse
probabilities (Horvitz and Thompson 1952) with the exact share of each draw. What is left is never
below 0, so the estimate is a little high on average. The interval holds every T for which neither
tail of the number of accepted sites is rarer than half of what may fail (as Clopper and Pearson
1934 do for equal probabilities; here they differ from draw to draw).

Assumed is that answers are right, that no site was added since the first of the draws, that a site
that was skipped, flagged or left unsure is as often true as another, and that sites closed by an
accepted rival are false. Errors at places that were never queued are not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.9
FIRST_LOOK = 30
"""Random answers before `advice` is given; then again at twice as many, and so on."""
TARGET = 0.95
"""Share of the true sites that are to be found."""


@dataclass(frozen=True, slots=True)
class RandomDraw:
    """A site that was drawn with the same probability as any other, and answered."""

    n_open: int
    """Sites that were waiting, of all kinds."""
    found_before: int
    """True sites of the kind in question that had been accepted by then."""
    is_true: bool
    """Whether it is of that kind and was accepted."""


@dataclass(frozen=True, slots=True)
class Remaining:
    """True sites that still wait."""

    value: float
    low: int
    high: int
    level: float
    draws: int
    """Random answers that it rests on."""
    hits: int
    """Of which accepted."""

    def to_json(self) -> dict[str, Any]:
        """As in `queue status --json`."""
        return {
            "value": self.value,
            "interval": [self.low, self.high],
            "level": self.level,
            "random_answers": self.draws,
            "of_them_true": self.hits,
        }


def remaining(
    draws: Sequence[RandomDraw], found: int, n_open: int, level: float = LEVEL
) -> Remaining:
    """Estimate what is left.

    Args:
        draws: In any order.
        found: True sites that have been accepted by now.
        n_open: Sites that wait now, at most so many of which can be true.
        level: Of the interval, 0..1.
    """
    hits = sum(d.is_true for d in draws)
    n = np.array([d.n_open for d in draws], float)
    before = np.array([d.found_before for d in draws], float)
    if not len(draws):
        return Remaining(0.0, 0, n_open, level, 0, 0)
    total = (hits + float((before / n).sum())) / float((1 / n).sum())
    value = min(max(total - found, 0.0), float(n_open))

    def chances(left: int) -> NDArray[np.float64]:
        p: NDArray[np.float64] = np.clip((found + left - before) / n, 0.0, 1.0)
        return p

    tail = (1 - level) / 2
    low, high = 0, n_open
    if not _is_likely(chances(0), hits, tail, at_least=True):
        low = _first(lambda m: _is_likely(chances(m), hits, tail, at_least=True), 0, n_open)
    if not _is_likely(chances(n_open), hits, tail, at_least=False):
        high = (
            _first(lambda m: not _is_likely(chances(m), hits, tail, at_least=False), 0, n_open) - 1
        )
    return Remaining(value, min(low, n_open), max(high, 0), level, len(draws), hits)


@dataclass(frozen=True, slots=True)
class Advice:
    """Whether enough has been found."""

    stop: bool
    found: int
    at_least: float
    """Share of the true sites that were found, at the last look; at this or a higher one with the
    stated probability, over all looks together."""
    looked_at: int
    """Random answers at that look; 0 before the first."""
    next_look: int
    text: str

    def to_json(self) -> dict[str, Any]:
        """As in `queue status --json`."""
        return {
            "stop": self.stop,
            "found": self.found,
            "found_at_least": self.at_least,
            "random_answers": self.looked_at,
            "next_look": self.next_look,
            "text": self.text,
        }


def advice(
    draws: Sequence[RandomDraw],
    found: int,
    n_open: int,
    *,
    target: float = TARGET,
    level: float = LEVEL,
) -> Advice:
    """The stop rule: enough when the share that was found is surely at least the target.

    It is looked at after 30, 60, 120, ... random answers only; look j may fail with a probability
    of (1 - level) / (j (j + 1)), which add up to 1 - level, so that looking often is no way to be
    lucky (a union bound). The bound of the last look stays in force: true sites that were left then
    can only have become fewer.

    Args:
        draws: As they came.
        found: True sites that have been accepted by now.
        n_open: Sites that wait now.
        target: Share to be found.
        level: Probability that it never says stop too early.
    """
    looks = [FIRST_LOOK * 2**j for j in range(len(draws)) if FIRST_LOOK * 2**j <= len(draws)]
    if not n_open:
        return Advice(True, found, 1.0, len(draws), 0, "Every site has been answered.")
    if not looks:
        text = f"The first look is after {FIRST_LOOK} random answers, there are {len(draws)}."
        return Advice(False, found, 0.0, 0, FIRST_LOOK, text)
    may_fail = (1 - level) / (len(looks) * (len(looks) + 1))
    left = remaining(draws[: looks[-1]], found, n_open, 1 - 2 * may_fail).high
    share = found / (found + left) if found + left else 1.0
    following = 2 * looks[-1]
    stop = share >= target
    text = (
        f"At least {share:.0%} of the true sites have been found, by {looks[-1]} random answers; "
        + (
            f"the target is {target:.0%}: stop."
            if stop
            else f"the target is {target:.0%}: go on. The next look is after {following}."
        )
    )
    return Advice(stop, found, share, looks[-1], following, text)


def _is_likely(chances: NDArray[np.float64], hits: int, tail: float, *, at_least: bool) -> bool:
    """Whether so many hits or more (or fewer) are no rarer than ``tail``."""
    pmf = np.zeros(hits + 2)
    pmf[0] = 1.0
    # the last entry gathers everything above the hits
    for p in chances.tolist():
        pmf[-1] += pmf[-2] * p
        pmf[1:-1] = pmf[1:-1] * (1 - p) + pmf[:-2] * p
        pmf[0] *= 1 - p
    below = float(pmf[:hits].sum())
    return bool(1 - below > tail) if at_least else bool(below + float(pmf[hits]) > tail)


def _first(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The smallest whole number in low..high for which it holds, if for all above too."""
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low
