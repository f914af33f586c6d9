"""Lengths of time in words."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """A length of time, as exactly as an estimate is."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
