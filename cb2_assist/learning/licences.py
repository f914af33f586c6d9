"""What must be said of data whose licence nobody has stated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

UNKNOWN = ("", "unknown")
"""What stands on a card for the licence of a dataset file without one."""


def licence_note(sources: Sequence[Mapping[str, Any]]) -> str | None:
    """What must be said where the licence of data is not known; None where all are.

    Args:
        sources: As on a card's ``data``.
    """
    names = [str(s["name"]) for s in sources if s.get("licence", "") in UNKNOWN]
    if not names:
        return None
    return (
        f"the licence of {', '.join(names)} is not stated, so the weights' card cannot state it; "
        "find it out before you share them (licence = in dataset.toml)"
    )
