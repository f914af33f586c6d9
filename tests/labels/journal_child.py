"""Decides as fast as it can, with or without its server, and prints each key once acknowledged.

Usage: journal_child.py URL JOURNAL NAME.
"""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from label_makers import decision

from cb2_assist.labels.journal import Journal
from cb2_assist.labels.journaled import JournaledStore
from cb2_assist.labels.postgres import PostgresLabelStore
from cb2_assist.labels.store import NewEvent


def main(words: list[str]) -> None:
    url, journal, name = words
    with JournaledStore(PostgresLabelStore(url), Journal(Path(journal))) as store:
        for n in itertools.count():
            key = f"{name}-{n}"
            store.append(NewEvent.of(decision(n, key=key, user=name)))
            os.write(1, f"{key}\n".encode())


if __name__ == "__main__":
    main(sys.argv[1:])
