"""Many people draw from one queue on a PostgreSQL server: no site goes to two, none is left.

What you will see: a line with how many sites were drawn and decided, how often somebody else was
faster, and how long it took. Each worker is a process with connections of its own that draws sites
in an order of its own, decides each at once and looks every 50 sites at what still waits. Exit
status 1 if a site was drawn or decided twice or not at all.

    python examples/team_leases.py postgresql://USER@HOST/EMPTY_DATABASE [WORKERS] [SITES]
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import sys
import time
from collections import Counter

from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import (
    BaseRate,
    Decision,
    Kind,
    Ood,
    Site,
    Suggestion,
    Verdict,
    segment_id,
)
from cb2_assist.labels.queue_store import NewDraw, QueueItem, QueueState, Scope
from cb2_assist.labels.store import LabelStore, NewEvent, open_store

SCOPE = Scope("leases", "v1")
LOOK_EVERY = 50
_WHEN = "2026-01-02T03:04:05.000Z"


def main(arguments: list[str]) -> int:
    """Fill, let everybody draw, count."""
    ask = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    ask.add_argument("url", metavar="URL", help="postgresql://… of an empty database")
    ask.add_argument("workers", type=int, nargs="?", default=20, help="processes (20)")
    ask.add_argument("sites", type=int, nargs="?", default=10_000, help="in the queue (10,000)")
    given = ask.parse_args(arguments)
    url, workers, sites = given.url, given.workers, given.sites
    with open_store(url) as store:
        fill(store, sites)
        began = time.monotonic()
        context = multiprocessing.get_context("spawn")
        with context.Pool(workers) as pool:
            faster = sum(pool.starmap(work, [(url, n, sites) for n in range(workers)], 1))
        seconds = time.monotonic() - began
        decided = Counter(e.decision.suggestion.id for e in store.events() if e.decision)
        drawn = Counter(d.site for d in store.queue.drawn_at_random(SCOPE))
        states = {t.state: t.n for t in store.queue.tally(SCOPE, now=time.time())}
        problems = store.verify()
    print(
        f"{workers} workers, {sites} sites: {drawn.total()} draws of {len(drawn)} sites, "
        f"{decided.total()} decisions on {len(decided)}; somebody else was faster {faster} times; "
        f"{seconds:.0f} s, {sites / seconds:.0f} sites a second"
    )
    once = all(set(c.values()) == {1} and len(c) == sites for c in (drawn, decided))
    is_good = once and states == {QueueState.DECIDED: sites} and not problems
    print("none twice, none lost" if is_good else f"WRONG: {states} {problems[:3]}")
    return 0 if is_good else 1


def fill(store: LabelStore, sites: int) -> None:
    """Queue that many joins."""
    begun = store.queue.begin_fill(SCOPE, None, "judge", sites, now=time.time())
    for first in range(0, sites, 500):
        some = range(first, min(first + 500, sites))
        store.queue.put(begun.id, [item(n) for n in some], done=some.stop, now=time.time())


def work(url: str, number: int, sites: int) -> int:
    """Draw and decide until nothing waits; returns how often somebody else was faster."""
    user, faster = f"user-{number}", 0
    known = {item(n).suggestion.id: item(n) for n in range(sites)}
    order = random.Random(number)  # noqa: S311 - an order, no secret
    with open_store(url) as store:
        made = store.queue.draws_made(SCOPE.dataset, SCOPE.version, user)
        while waiting := store.queue.waiting(SCOPE, now=time.time(), user=user):
            for at in order.sample(waiting, min(len(waiting), LOOK_EVERY)):
                draw = NewDraw(
                    SCOPE, user, made, 0, "random", 0.1, len(waiting), 0, True, 1.0, at.site
                )
                if store.queue.take(draw, now=time.time()) is None:
                    faster += 1
                    continue
                made += 1
                store.append(NewEvent.of(decision(known[at.site].suggestion, user)))
    return faster


def item(n: int) -> QueueItem:
    """The n-th of a run of different joins."""
    site = Site(Kind.JOIN, segment_id(1), segment_id(2 + n), PointNm(100.0 + n, 200.0, 300.0))
    suggestion = Suggestion(
        id=site.key(SCOPE.dataset, SCOPE.version),
        site=site,
        reason="contact",
        score=0.8,
        confidence=0.6,
        interval=(0.5, 0.7),
        ood=Ood(12.5, False),
        views=(),
    )
    return QueueItem(SCOPE.dataset, SCOPE.version, suggestion, 0.2, "ab" * 32, "calibrator")


def decision(suggestion: Suggestion, user: str) -> Decision:
    """An accept."""
    return Decision(
        suggestion=suggestion,
        verdict=Verdict.ACCEPT,
        dataset=SCOPE.dataset,
        version=SCOPE.version,
        model_name="none",
        model_sha256="ab" * 32,
        calibrator="calibrator",
        base_rate=BaseRate(0.2, "default", 0),
        rank=0,
        alternatives=(),
        user=user,
        key="f",
        idempotency_key=f"{user}-{suggestion.id}",
        shown_at=_WHEN,
        decided_at=_WHEN,
        idle_ms=0,
        licence="CC0",
        species="fly",
        supervoxels=(suggestion.site.segment, suggestion.site.partner),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
