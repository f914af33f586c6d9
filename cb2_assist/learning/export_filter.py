"""Which labels leave: by person, time, licence, model, and place in ConnectomeBench2's cubes."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

from cb2_assist.core.errors import UsageError
from cb2_assist.learning.cb2_cubes import NO_CUBES, Cubes

TEST_CUBE = "in a test cube of ConnectomeBench2"
"""Why such a row never leaves."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an export was asked for; an empty part asks for nothing in particular.

    Attributes:
        users: Names or pseudonyms.
        since: Decided then or later.
        until: Decided before then.
        licences: Patterns with ``*``, of which one must fit; letter case does not matter.
        not_licences: Patterns of which none may fit.
        models: Names, or the first hex digits (six at least) of the weights' SHA-256.
        cubes: Rows in a test cube are left out.
    """

    users: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    licences: tuple[str, ...] = ()
    not_licences: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    cubes: Cubes = field(default=NO_CUBES)

    def refusal(self, row: dict[str, Any], names: tuple[str, str]) -> str | None:
        """Why a row does not leave; None where it does.

        Args:
            row: As `export_rows.label_rows` makes it, ``cb2_split`` included.
            names: Of the person who decided, and the pseudonym.
        """
        if row["cb2_split"] == "test":
            return TEST_CUBE
        if self.users and not set(names) & set(self.users):
            return "of another person"
        licence = row["licence"]
        if self.licences and not _fits(licence, self.licences):
            return "of another licence"
        if _fits(licence, self.not_licences):
            return "of a licence that was left out"
        if self.models and not any(_is_model(row["model"], m) for m in self.models):
            return "of another model"
        return self._wrong_time(row["decided_at"])

    def _wrong_time(self, decided_at: str) -> str | None:
        if self.since is None and self.until is None:
            return None
        try:
            at = utc(datetime.fromisoformat(decided_at))
        except ValueError:
            return "time of decision not readable"
        if self.since is not None and at < self.since:
            return "decided before --since"
        if self.until is not None and at >= self.until:
            return "decided at --until or later"
        return None

    def to_json(self) -> dict[str, Any]:
        """What was asked for, without what was not. Names of people are only counted."""
        asked: dict[str, Any] = {
            "users": len(self.users) or None,
            "since": self.since and self.since.isoformat(),
            "until": self.until and self.until.isoformat(),
            "licences": list(self.licences),
            "not_licences": list(self.not_licences),
            "models": list(self.models),
            "cb2_cubes": self.cubes.n or None,
        }
        return {name: value for name, value in asked.items() if value}


EVERYTHING = Wanted()


def read_time(text: str, option: str) -> datetime:
    """A moment from ``2026-03-01T12:30:00+01:00`` or ``2026-03-01``, its beginning; else UTC.

    Raises:
        UsageError: Not such a text.
    """
    try:
        return utc(datetime.fromisoformat(text.strip()))
    except ValueError:
        raise UsageError(
            f"{option} takes a date or a time as in ISO 8601, e.g. 2026-03-01 or "
            f"2026-03-01T12:30:00+01:00 (UTC unless said), got {text!r}."
        ) from None


def utc(moment: datetime) -> datetime:
    """With a time zone: UTC where it has none."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _fits(text: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(text.casefold(), p.casefold()) for p in patterns)


def _is_model(model: dict[str, str], asked: str) -> bool:
    return asked == model["name"] or (len(asked) >= 6 and model["sha256"].startswith(asked.lower()))
