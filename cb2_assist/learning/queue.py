"""In which order sites are asked: by a strategy, with a share of random ones.

Without another word the most uncertain come first, by the distance of `score` from one half. The
score depends on the site and the model alone; sorting by the confidence would sort the queue anew
whenever the base rate moves, although nothing about any site was learnt, and as true sites are rare
it would put those first that the model thinks likely, where an answer teaches it less.

One draw in ten takes any waiting site with the same probability, whatever the strategy. Labels
from draws by rank alone say nothing about the sites that the model finds easy, so that neither its
errors there nor its calibration could be seen; with the share of random draws every waiting site
has a known probability above zero, which each decision carries (`core.records.Draw`). Where a
strategy itself decides at random, its own probabilities are in it too.

Where the model is not reliable (`Ood.flag`), its numbers are nothing to sort by: a strategy that
looks at them comes to such sites when no other is left, as lists show them last. Random draws take
them like any other, and strategies that do not ask the model (contact, size) do not mind.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.errors import LabelError
from cb2_assist.core.records import Draw
from cb2_assist.labels.queue_store import NewDraw, QueueStore, Scope, SiteSignals, Waiting
from cb2_assist.learning.strategies.gain import split_bits
from cb2_assist.learning.strategies.pool import Pool
from cb2_assist.learning.strategies.registry import STRATEGIES

FLOOR = 0.1
"""Share of draws that take a random site."""
DEFAULT_STRATEGY = "margin"
NO_SIGNALS: Mapping[str, SiteSignals] = MappingProxyType({})
_MOST_TRIES = 20
_NUMBERS = frozenset({"score", "confidence", "seconds"})
"""Columns of a pool that the queue knows of every site."""
_BY_MODEL = frozenset({"score", "confidence", "views", "embedding"})
"""Columns that the model makes."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """Sites in the order of a strategy."""

    sites: tuple[Waiting, ...]
    chances: tuple[float, ...]
    """Each one's probability of being the next, random draws aside; 1 for the first where the
    strategy leaves nothing to chance."""


@dataclass(frozen=True, slots=True)
class Pick:
    """Which of the sorted sites a draw takes."""

    place: int
    """0 is the first."""
    explore: bool
    """Whether it is one of the random draws, which take the first as often as any other."""
    probability: float
    """Of this place, whichever way it was come to."""


def ranked(
    waiting: Sequence[Waiting],
    strategy: str = DEFAULT_STRATEGY,
    signals: Mapping[str, SiteSignals] = NO_SIGNALS,
) -> Ranked:
    """The sites that can be drawn now, first asked first.

    Those that were skipped less often come before all others: a site that was skipped comes back
    when every other one has been shown as often. Among them, a strategy that goes by the model's
    numbers leaves those for last where these are not reliable.

    Args:
        waiting: In any order.
        strategy: A name in `strategies.registry.STRATEGIES`.
        signals: Of these and other sites; the others have been asked.

    Raises:
        UsageError: There is no such strategy, or it needs signals that no site has.
    """
    rule = STRATEGIES.find(strategy)
    if not waiting:
        return Ranked((), ())
    fewest = min(w.skips for w in waiting)
    by_model = bool(_BY_MODEL & set(rule.needs))
    now = sorted(
        (w for w in waiting if w.skips == fewest), key=lambda w: (by_model and w.ood, w.site)
    )
    n_good = sum(not (by_model and w.ood) for w in now) or len(now)
    sites, last = now[:n_good], tuple(now[n_good:])
    unasked = {w.site for w in last}
    pool = _pool(sites, {s: found for s, found in signals.items() if s not in unasked})
    if rule.first is not None:
        chances = rule.chances(pool)[: len(sites)]
        return Ranked((*sites, *last), (*chances.tolist(), *(0.0 for _ in last)))
    # the order of those behind the first is not used; it is made where it costs nothing
    n = len(sites) if rule.is_sorted else 1
    # nothing is left to chance: any generator will do
    rows = rule.order(pool, n, np.random.default_rng(0)).tolist()
    rest = sorted(set(range(len(sites))) - set(rows))
    order = (*(sites[r] for r in (*rows, *rest)), *last)
    return Ranked(order, (1.0, *(0.0 for _ in order[1:])))


def pick(n: int, seed: int, floor: float = FLOOR, chances: Sequence[float] | None = None) -> Pick:
    """Draw one of n sorted sites; the same arguments give the same answer.

    Args:
        n: At least 1.
        seed: Any whole number.
        floor: Share of random draws, 0..1.
        chances: `Ranked.chances`; None: the first is certain.
    """
    # random() is the one method whose sequence Python promises to keep from version to version
    rng = random.Random(seed)  # noqa: S311 - nothing secret
    explore = rng.random() < floor
    drawn = rng.random()
    if explore:
        place = min(n - 1, int(drawn * n))
    else:
        place = 0 if chances is None else _place(chances, drawn)
    return Pick(place, explore, probability(n, place, floor, chances))


def probability(
    n: int, place: int, floor: float = FLOOR, chances: Sequence[float] | None = None
) -> float:
    """That a draw takes this place among n: by rank or at random."""
    by_rank = float(place == 0) if chances is None else chances[place]
    return floor / n + (1 - floor) * by_rank


def seed_of(scope: Scope, user: str, number: int) -> int:
    """Seed of a person's draw with this number: 63 bits of SHA-256."""
    text = f"{scope.dataset}|{scope.version}|{user}|{number}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def next_draw(
    queue: QueueStore, scope: Scope, user: str, *, now: float, strategy: str | None = None
) -> NewDraw | None:
    """The draw that `draw` would make now; None when nothing waits. Records nothing."""
    name = strategy or queue.order(scope) or DEFAULT_STRATEGY
    needs = set(STRATEGIES.find(name).needs)
    signals = NO_SIGNALS if needs <= _NUMBERS else queue.signals(scope)
    found = ranked(queue.waiting(scope, now=now, user=user), name, signals)
    if not found.sites:
        return None
    number = queue.draws_made(scope.dataset, scope.version, user)
    seed = seed_of(scope, user, number)
    chosen = pick(len(found.sites), seed, FLOOR, found.chances)
    return NewDraw(
        scope=scope,
        user=user,
        number=number,
        seed=seed,
        strategy=name,
        floor=FLOOR,
        n_open=len(found.sites),
        place=chosen.place,
        explore=chosen.explore,
        probability=chosen.probability,
        site=found.sites[chosen.place].site,
    )


def draw(
    queue: QueueStore, scope: Scope, user: str, *, now: float, strategy: str | None = None
) -> Draw | None:
    """Draw the next site and lease it; None when nothing waits.

    Args:
        queue: Where sites wait.
        scope: Which part of it.
        user: Who is asked.
        now: Unix time.
        strategy: Instead of the one that the scope was filled with.

    Raises:
        UsageError: The strategy needs signals that the queue does not have.
        LabelError: It cannot be recorded, or others keep taking what is drawn.
    """
    for _ in range(_MOST_TRIES):
        new = next_draw(queue, scope, user, now=now, strategy=strategy)
        if new is None:
            return None
        taken = queue.take(new, now=now)
        if taken is not None:
            return taken
    raise LabelError(f"Others keep taking the next site of {scope.words}. Press q again.")


def _place(chances: Sequence[float], drawn: float) -> int:
    below = 0.0
    for place, chance in enumerate(chances):
        below += chance
        if drawn < below:
            return place
    # rounding may leave the sum a little below 1
    return max(place for place, chance in enumerate(chances) if chance > 0)


def _pool(sites: Sequence[Waiting], signals: Mapping[str, SiteSignals]) -> Pool:
    """The sites, then those that have signals and do not wait."""
    waiting = {w.site for w in sites}
    names = [*(w.site for w in sites), *(s for s in sorted(signals) if s not in waiting)]
    known = [signals.get(name) for name in names]
    n = len(names)
    score = [w.score for w in sites] + [s.score for s in known[len(sites) :] if s is not None]
    confidence = np.full(n, np.nan)
    confidence[: len(sites)] = [w.confidence for w in sites]
    told = np.array(
        [(s.contact, s.small, s.big) if s else (np.nan,) * 3 for s in known], np.float64
    ).T
    is_known = bool(signals)
    return Pool(
        labelled=np.arange(n) >= len(sites),
        score=np.array(score, np.float64),
        confidence=confidence,
        views=_table([s.views if s else () for s in known]),
        embedding=_embeddings(known),
        contact=told[0] if is_known else None,
        size=told[1] if is_known else None,
        gain=split_bits(told[1], told[2]) if is_known else None,
        seconds=np.ones(n),
    )


def _table(rows: Sequence[Sequence[float]]) -> NDArray[np.float64] | None:
    width = max(map(len, rows), default=0)
    if not width:
        return None
    return np.array([[*row, *([np.nan] * (width - len(row)))] for row in rows], np.float64)


def _embeddings(known: Sequence[SiteSignals | None]) -> NDArray[np.float32] | None:
    """Embeddings of the commonest length; another model's are as good as unknown."""
    held = {
        n: np.frombuffer(s.embedding, "<f2").astype(np.float32)
        for n, s in enumerate(known)
        if s is not None and s.embedding
    }
    if not held:
        return None
    lengths = [len(e) for e in held.values()]
    width = max(set(lengths), key=lengths.count)
    out = np.full((len(known), width), np.nan, np.float32)
    for n, e in held.items():
        if len(e) == width:
            out[n] = e
    return out
