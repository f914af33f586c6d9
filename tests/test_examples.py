"""The programs in examples/ run as their docstrings say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def test_suggestions_at_a_point_of_the_demo_are_printed() -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "suggest_at_a_point.py")],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "suggestions in" in lines[-1]
    assert all("%" in line for line in lines[:-1])
    assert len(lines) > 1
