"""What a failing server or connection means, in words that say what to do."""

from __future__ import annotations

import re

from cb2_assist.core.errors import LabelError, LabelFileReadOnlyError, LabelsUnreachableError
from cb2_assist.labels.team_url import PASSWORD, TeamUrl, driver

_GONE = ("57P01", "57P02", "57P03", "57P05", "53300")
"""Shut down, crashed, starting up, idle for too long, too many connections."""


def team_error(team: TeamUrl, cause: Exception, outcome: str = "") -> LabelError:
    """The error for a person.

    Args:
        team: Which labels.
        cause: As the driver raised it.
        outcome: What became of what was being done, e.g. ``Nothing was recorded.``
    """
    kind, text = _words(team, cause)
    return kind(f"{text} {outcome}".rstrip())


def is_lost(cause: Exception) -> bool:
    """Whether the connection or the server is gone, so that another one may do."""
    psycopg = driver()
    if not isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError):
        return False
    state = getattr(cause, "sqlstate", None)
    return state is None or state in _GONE or state.startswith("08")


def _words(team: TeamUrl, cause: Exception) -> tuple[type[LabelError], str]:
    state = getattr(cause, "sqlstate", None) or ""
    text = _one_line(cause)
    if re.search(r"authentication failed|no password supplied|role .* does not exist", text):
        return LabelError, (
            f"{team.name} did not let you in ({text}). Say who you are in the URL, "
            f"postgresql://USER@HOST/DATABASE, and give the password in {PASSWORD}, PGPASSWORD or "
            "~/.pgpass."
        )
    if re.search(r"database .* does not exist", text):
        return LabelError, (
            f"{team.name}: there is no such database ({text}). Make an empty one with `createdb "
            "NAME`, or name another with --labels."
        )
    if "no pg_hba.conf entry" in text or "permission denied for database" in text:
        return LabelError, (
            f"{team.name} are closed to you ({text}). Ask whoever runs the server to let you in."
        )
    if is_lost(cause):
        return LabelsUnreachableError, f"{team.name} cannot be reached ({text})."
    if state == "53100":
        return LabelFileReadOnlyError, f"The disk of the server of {team.name} is full."
    if state in ("42501", "25006"):
        return LabelFileReadOnlyError, (
            f"{team.name} cannot be written by you ({text}). Ask whoever runs the server for the "
            "right to, or open another with --labels."
        )
    if state in ("57014", "55P03", "40P01"):
        return LabelError, (
            f"Another program has kept {team.name} locked for too long ({text}). Try again."
        )
    return LabelError, f"{team.name} cannot be used: {text}."


def _one_line(cause: Exception) -> str:
    words = " ".join(str(cause).split()) or type(cause).__name__
    return words.rstrip(".")[:300]
