"""Writes decisions under a file size limit until one is refused, then lifts the limit.

Prints each acknowledged key, the refusal, and ``went on`` once a later decision succeeded.
Usage: filling_child.py LABEL_FILE
"""

from __future__ import annotations

import itertools
import resource
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from label_makers import decision

from cb2_assist.core.errors import LabelError
from cb2_assist.labels.sqlite import SqliteLabelStore
from cb2_assist.labels.store import NewEvent


def main() -> None:
    path = Path(sys.argv[1])
    with SqliteLabelStore(path) as store:
        limit, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, most))
        try:
            for n in itertools.count():
                store.append(NewEvent.of(decision(n, key=f"k{n}", reason="x" * 3000)))
                print(f"k{n}")
        except LabelError as e:
            print(e)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
        store.append(NewEvent.of(decision(0, key="small")))
        print("went on")


if __name__ == "__main__":
    main()
