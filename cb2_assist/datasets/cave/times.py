"""Times of a graph: edits are recorded in whole milliseconds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def now() -> datetime:
    """This moment in whole milliseconds, as edits are recorded."""
    at = datetime.now(UTC)
    return at - timedelta(microseconds=at.microsecond % 1000)


def iso(at: datetime) -> str:
    """A time as labels keep it."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
