"""In which order sites are asked: the most uncertain first, with a share of random ones.

Sorting is by the distance of `score` from one half. The score depends on the site and the model
alone; sorting by the confidence would sort the queue anew whenever the base rate moves, although
nothing about any site was learnt, and as true sites are rare it would put those first that the
model thinks likely, where an answer teaches it less.

One draw in ten takes any waiting site with the same probability. Labels from draws by rank alone
say nothing about the sites that the model finds easy, so that neither its errors there nor its
calibration could be seen; with the share of random draws every waiting site has a known
probability above zero, which each decision carries (`core.records.Draw`).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cb2_assist.core.errors import LabelError
from cb2_assist.core.records import Draw
from cb2_assist.labels.queue_store import NewDraw, QueueStore, Scope, Waiting

FLOOR = 0.1
"""Share of draws that take a random site."""
_MOST_TRIES = 20


def margin(site: Waiting) -> float:
    """Distance of the score from one half; the smallest is asked first."""
    return abs(site.score - 0.5)


STRATEGIES: Mapping[str, Callable[[Waiting], float]] = {"margin": margin}
"""What sites are sorted by, smallest first."""
DEFAULT_STRATEGY = "margin"


@dataclass(frozen=True, slots=True)
class Pick:
    """Which of the sorted sites a draw takes."""

    place: int
    """0 is the first."""
    explore: bool
    """Whether it is one of the random draws, which take the first as often as any other."""
    probability: float
    """Of this place, whichever way it was come to."""


def ranked(waiting: Sequence[Waiting], strategy: str = DEFAULT_STRATEGY) -> list[Waiting]:
    """The sites that can be drawn now, first asked first.

    Those that were skipped less often come before all others: a site that was skipped comes back
    when every other one has been shown as often.
    """
    if not waiting:
        return []
    key = STRATEGIES[strategy]
    fewest = min(w.skips for w in waiting)
    return sorted((w for w in waiting if w.skips == fewest), key=lambda w: (key(w), w.site))


def pick(n: int, seed: int, floor: float = FLOOR) -> Pick:
    """Draw one of n sorted sites; the same arguments give the same answer.

    Args:
        n: At least 1.
        seed: Any whole number.
        floor: Share of random draws, 0..1.
    """
    # random() is the one method whose sequence Python promises to keep from version to version
    rng = random.Random(seed)  # noqa: S311 - nothing secret
    explore = rng.random() < floor
    place = min(n - 1, int(rng.random() * n)) if explore else 0
    return Pick(place, explore, probability(n, place, floor))


def probability(n: int, place: int, floor: float = FLOOR) -> float:
    """That a draw takes this place among n: by rank or at random."""
    return floor / n + (1 - floor if place == 0 else 0.0)


def seed_of(scope: Scope, user: str, number: int) -> int:
    """Seed of a person's draw with this number: 63 bits of SHA-256."""
    text = f"{scope.dataset}|{scope.version}|{user}|{number}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def next_draw(
    queue: QueueStore, scope: Scope, user: str, *, now: float, strategy: str = DEFAULT_STRATEGY
) -> NewDraw | None:
    """The draw that `draw` would make now; None when nothing waits. Records nothing."""
    sites = ranked(queue.waiting(scope, now=now, user=user), strategy)
    if not sites:
        return None
    number = queue.draws_made(scope.dataset, scope.version, user)
    seed = seed_of(scope, user, number)
    chosen = pick(len(sites), seed)
    return NewDraw(
        scope=scope,
        user=user,
        number=number,
        seed=seed,
        strategy=strategy,
        floor=FLOOR,
        n_open=len(sites),
        place=chosen.place,
        explore=chosen.explore,
        probability=chosen.probability,
        site=sites[chosen.place].site,
    )


def draw(queue: QueueStore, scope: Scope, user: str, *, now: float) -> Draw | None:
    """Draw the next site and lease it; None when nothing waits.

    Raises:
        LabelError: It cannot be recorded, or others keep taking what is drawn.
    """
    for _ in range(_MOST_TRIES):
        new = next_draw(queue, scope, user, now=now)
        if new is None:
            return None
        taken = queue.take(new, now=now)
        if taken is not None:
            return taken
    raise LabelError(f"Others keep taking the next site of {scope.words}. Press q again.")
