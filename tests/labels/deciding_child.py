"""Makes decisions as fast as it can and prints each key once it is acknowledged.

Usage: deciding_child.py LABEL_FILE NAME FIRST COUNT. Keys are NAME-FIRST, NAME-(FIRST + 1), …;
COUNT 0 means until killed. Every decision's views are kept before it, as a session does; in every
ten steps the last two are an undo and its redo.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from label_makers import DATASET, VERSION, decision

from cb2_assist.decisions.log import DecisionLog
from cb2_assist.labels.sqlite import SqliteLabelStore
from cb2_assist.labels.views_store import ViewsStore

VIEW_BYTES = 20_000


def main(words: list[str]) -> None:
    path, name, first, count = Path(words[0]), words[1], int(words[2]), int(words[3])
    with SqliteLabelStore(path) as store:
        log = DecisionLog(store, user=name, dataset=DATASET, version=VERSION)
        views = ViewsStore(store.views_folder)
        for n in range(first, first + count) if count else itertools.count(first):
            key = f"{name}-{n}"
            if n % 10 == 9:
                log.redo(idempotency_key=key)
            elif n % 10 == 8:
                log.undo(idempotency_key=key)
            else:
                seen = hashlib.sha256(key.encode()).digest() * (VIEW_BYTES // 32)
                address = hashlib.sha256(seen).hexdigest()
                views.put(seen, address)
                log.decide(decision(n, key=key, user=name, views_sha256=address))
            os.write(1, f"{key}\n".encode())


if __name__ == "__main__":
    main(sys.argv[1:])
