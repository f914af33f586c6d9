"""Failures on purpose, such as real deployments have, for the requests that one names."""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from cb2_assist.core.errors import BadRequestError

KINDS: Mapping[str, str] = {
    "latency": "the answer comes `seconds` later",
    "refused": "no answer but `status`: 401, 403 (terms), 429 (Retry-After), 500, 502, 503, 504",
    "lost": "the request is carried out, then `status` comes in place of the answer",
    "truncated": "the body ends after a `share` of it and the connection closes",
    "stale": "times from the last `edits` edits on are answered as of before them",
    "late_meshes": "nodes that edits made have no fragments yet",
    "missing_rows": "a `share` of the level-2 nodes has no row in the l2cache",
}
_STATUSES = (401, 403, 429, 500, 502, 503, 504)
_KEPT_REQUESTS = 20_000


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to fail.

    Attributes:
        kind: One of `KINDS`.
        path: Regular expression that is searched in the request's path.
        times: How many requests fail; None is all.
        skip: How many matching requests go through first.
        seconds: Delay, or what Retry-After says.
        status: HTTP status.
        share: Part of a body or of rows, 0 to 1.
        edits: How many of the latest edits are not seen yet.

    Raises:
        BadRequestError: There is no such fault.
    """

    kind: str
    path: str = ""
    times: int | None = None
    skip: int = 0
    seconds: float = 1.0
    status: int = 503
    share: float = 0.5
    edits: int = 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise BadRequestError(f"There is no fault {self.kind!r}. Known: {', '.join(KINDS)}.")
        if self.kind in ("refused", "lost") and self.status not in _STATUSES:
            raise BadRequestError(
                f"A fault's status is one of {', '.join(map(str, _STATUSES))}, got {self.status!r}."
            )
        try:
            re.compile(self.path)
        except (re.error, TypeError) as e:
            raise BadRequestError(f"{self.path!r} is not a regular expression: {e}.") from e

    @classmethod
    def of(cls, document: object) -> Fault:
        """Read one from JSON.

        Raises:
            BadRequestError: It is none.
        """
        known = {f.name: f.type for f in fields(cls)}
        if not isinstance(document, dict) or "kind" not in document:
            raise BadRequestError(f"A fault is an object with kind, got {document!r}.")
        unknown = sorted(document.keys() - known.keys())
        if unknown:
            raise BadRequestError(
                f"A fault has no {', '.join(map(str, unknown))}. Known: {', '.join(known)}."
            )
        for name, value in document.items():
            wanted: type | tuple[type, ...] = str if name in ("kind", "path") else (int, float)
            whole = name in ("times", "skip", "status", "edits") and not isinstance(value, int)
            if value is None and name == "times":
                continue
            if not isinstance(value, wanted) or isinstance(value, bool) or whole:
                raise BadRequestError(f"A fault's {name} cannot be {value!r}.")
        return cls(**document)


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that was answered.

    Attributes:
        status: What went out; 0 when the answer was cut off.
        faults: What was done to it on purpose.
    """

    method: str
    path: str
    query: str
    status: int
    ms: float
    faults: tuple[str, ...]


class FaultBox:
    """Faults in force and a log of requests; may be used from several threads."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = list(faults)
        self._seen: list[int] = [0] * len(self._faults)
        self._log: deque[Seen] = deque(maxlen=_KEPT_REQUESTS)

    def add(self, *faults: Fault) -> None:
        """Put faults in force."""
        with self._lock:
            self._faults += faults
            self._seen += [0] * len(faults)

    def clear(self) -> None:
        """End all faults."""
        with self._lock:
            self._faults, self._seen = [], []

    def take(self, path: str) -> dict[str, Fault]:
        """Faults that this request suffers, by kind; of one kind the first."""
        out: dict[str, Fault] = {}
        with self._lock:
            for k, fault in enumerate(self._faults):
                if re.search(fault.path, path) is None:
                    continue
                self._seen[k] += 1
                turn = self._seen[k] - fault.skip
                if turn > 0 and (fault.times is None or turn <= fault.times):
                    out.setdefault(fault.kind, fault)
        return out

    def log(self, seen: Seen) -> None:
        """Remember a request."""
        with self._lock:
            self._log.append(seen)

    def requests(self) -> Sequence[Seen]:
        """The latest requests, oldest first."""
        with self._lock:
            return list(self._log)

    def forget(self) -> None:
        """Empty the log."""
        with self._lock:
            self._log.clear()

    def to_json(self) -> list[dict[str, Any]]:
        """Faults in force, each with the number of requests that it has met."""
        with self._lock:
            both = zip(self._faults, self._seen, strict=True)
            return [{**asdict(fault), "seen": seen} for fault, seen in both]
