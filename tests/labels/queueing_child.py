"""Fills, draws, renews and skips as fast as it can; prints each thing once it is acknowledged.

Usage: queueing_child.py LABEL_FILE USER FIRST COUNT. COUNT 0 means until killed. Lines are
``put N``, ``draw ID SITE`` and ``skip N``.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from label_makers import DATASET, VERSION, decision, queue_item, suggestion

from cb2_assist.core.records import Verdict
from cb2_assist.labels.queue_store import Scope
from cb2_assist.labels.sqlite import SqliteLabelStore
from cb2_assist.labels.store import NewEvent
from cb2_assist.learning.queue import draw


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def main(words: list[str]) -> None:
    path, user, first, count = Path(words[0]), words[1], int(words[2]), int(words[3])
    scope = Scope(DATASET, VERSION)
    with SqliteLabelStore(path) as store:
        fill = store.queue.begin_fill(scope, None, "judge", 10**6, now=time.time())
        known: dict[str, int] = {}
        for n in range(first, first + count) if count else itertools.count(first):
            store.queue.put(fill.id, [queue_item(n)], done=n + 1, now=time.time())
            known[suggestion(n).id] = n
            say(f"put {n}")
            drawn = draw(store.queue, scope, user, now=time.time())
            if drawn is None:
                continue
            say(f"draw {drawn.id} {drawn.site}")
            if drawn.site in known and n % 3 == 0:
                number = known[drawn.site]
                skip = decision(number, Verdict.SKIP, key=f"{user}-{n}", user=user)
                store.append(NewEvent.of(skip))
                say(f"skip {number}")


if __name__ == "__main__":
    main(sys.argv[1:])
