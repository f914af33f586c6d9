"""Which state of a public graph is read, remembered so that labels stay comparable.

A public version changes with each release. The first opening takes the newest materialised version
that the server names; later ones keep it, whether or not that service answers.
"""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cb2_assist.core.errors import AssistError
from cb2_assist.datasets.cave.connection import Connection
from cb2_assist.datasets.cave.times import iso, now

_FILE = "cave_states.json"


def states_file() -> Path:
    """Where states are remembered, in the user's data folder."""
    import platformdirs

    return platformdirs.user_data_path("cb2-assist", appauthor=False) / _FILE


def state_of(connection: Connection) -> datetime:
    """The state to read: as asked for, else now, or for a pinned dataset the remembered one.

    Raises:
        LoginError: The server refuses the token.
    """
    stack = connection.stack
    if stack.timestamp is not None:
        return stack.timestamp
    if not stack.pinned:
        return now()
    key = f"{stack.server} {stack.datastack} {connection.table}"
    known = _read()
    with contextlib.suppress(KeyError, ValueError, TypeError):
        return datetime.fromisoformat(known[key])
    at = _newest_version(connection) or now()
    _write({**known, key: iso(at)})
    return at


def _newest_version(connection: Connection) -> datetime | None:
    """Time of the newest version that is valid; None when the service does not tell."""
    url = f"{connection.local}/materialize/api/v3/datastack/{connection.stack.datastack}/metadata"
    try:
        rows: Any = connection.session.get(url, timeout=(5.0, 15.0)).json()
        times = [_time(row["time_stamp"]) for row in rows if row.get("valid", True)]
    except (AssistError, LookupError, TypeError, ValueError, AttributeError):
        return None  # it is down more often than the graph is, and nothing else here needs it
    return max(times, default=None)


def _time(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at


def _read() -> dict[str, Any]:
    try:
        got = json.loads(states_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return got if isinstance(got, dict) else {}


def _write(states: dict[str, Any]) -> None:
    path = states_file()
    with contextlib.suppress(OSError):  # then the next opening asks again
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(states, indent=1) + "\n", encoding="utf-8")
        part.replace(path)
