"""The program in examples/ that needs a PostgreSQL server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).resolve().parent.parent / "examples" / "team_leases.py"


def test_workers_of_several_processes_share_a_queue(postgres) -> None:
    url = postgres.url(postgres.new_schema())
    done = subprocess.run(
        [sys.executable, str(PROGRAM), url, "2", "12"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 draws of 12 sites, 12 decisions on 12" in done.stdout
    assert done.stdout.endswith("none twice, none lost\n")
