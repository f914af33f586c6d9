"""What a check found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from cb2_assist.core.errors import AssistError


class State(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    """It works, but not as well as it could."""
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: A word or two; unique in a report.
        text: What was found, one line.
        advice: What to do about it; empty when nothing is.
        details: More, for programs.
    """

    name: str
    state: State
    text: str
    advice: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As `doctor --json` prints it."""
        return {
            "name": self.name,
            "state": self.state.value,
            "text": self.text,
            "advice": self.advice,
            "details": dict(self.details),
        }


def ok(name: str, text: str, **details: object) -> Check:
    """Nothing is wrong."""
    return Check(name, State.OK, text, details=details)


def warn(name: str, text: str, advice: str, **details: object) -> Check:
    """It works, but not as well as it could."""
    return Check(name, State.WARN, text, advice, details)


def fail(name: str, text: str, advice: str = "", **details: object) -> Check:
    """It does not work."""
    return Check(name, State.FAIL, text, advice, details)


def examine(name: str, look: Callable[[], Check]) -> Check:
    """Look, and make a finding of whatever goes wrong meanwhile: one broken thing hides no other.

    Args:
        name: Of the check, should it end with an exception.
        look: Looks.
    """
    try:
        return look()
    except Exception as e:  # noqa: BLE001 - that is what is asked for here
        return broken(name, e)


def broken(name: str, error: Exception) -> Check:
    """The finding that an exception is."""
    if isinstance(error, AssistError):  # its message says what to do
        return fail(name, str(error))
    return fail(
        name,
        f"{type(error).__name__}: {error}".splitlines()[0],
        "Install cb2-assist again in a fresh environment; if it stays, report it.",
    )
