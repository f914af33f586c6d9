"""The program with sides of cuts that are not computed before a file is there.

``gated_server.py FILE WORDS``: the words are those of ``cb2-assist``.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from cb2_assist.assistant import Assistant
from cb2_assist.cli import main

gate = Path(sys.argv.pop(1))
compute = Assistant.sides_at


def sides_at(self, site):
    while not gate.exists():
        threading.Event().wait(0.02)
    return compute(self, site)


Assistant.sides_at = sides_at
main()
