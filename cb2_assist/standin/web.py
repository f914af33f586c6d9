"""Requests and answers of the services, apart from how they travel."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import numpy as np

from cb2_assist.standin.errors import ApiError, bad_request
from cb2_assist.standin.graph import Box

if TYPE_CHECKING:
    from cb2_assist.standin.deployment import Account, Deployment
    from cb2_assist.standin.faults import Fault

_SAFE_IN_JAVASCRIPT = 2**53
JSON = "application/json"
BINARY = "text/html; charset=utf-8"
"""What the real server, which names no type for binary answers, sends them as."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request, read.

    Attributes:
        match: Named parts of the path.
        query: Last value of each parameter.
        account: Who asks; None on routes that are open to all.
        range: The header of that name.
        faults: What goes wrong on purpose, by kind.
    """

    method: str
    path: str
    match: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes
    account: Account | None = None
    range: str | None = None
    faults: Mapping[str, Fault] = field(default_factory=dict)

    @property
    def user(self) -> str:
        """Id of who asks."""
        return self.account.user_id if self.account else "0"

    def integer(self, name: str) -> int:
        """A number in the path."""
        return int(self.match[name])

    def seconds(self, name: str) -> float | None:
        """A time in the query, seconds since 1970; None when it is not there.

        Raises:
            ApiError: It is no number.
        """
        text = self.query.get(name)
        if text is None:
            return None
        try:
            return float(text)
        except ValueError:
            raise bad_request(f"Timestamp parameter {name} is not a valid unix timestamp") from None

    def layer(self) -> int | None:
        """``stop_layer``; None when it is not there."""
        text = self.query.get("stop_layer")
        return None if text is None else int(text)

    def is_set(self, name: str, *, default: bool = False) -> bool:
        """A yes or no in the query."""
        text = self.query.get(name)
        return default if text is None else text.lower() in ("1", "true")

    def box(self) -> Box | None:
        """``bounds=x0-x1_y0-y1_z0-z1`` in voxels; None when it is not there.

        Raises:
            ApiError: It reads otherwise.
        """
        text = self.query.get("bounds")
        if text is None:
            return None
        found = re.fullmatch(r"(-?\d+)-(-?\d+)_(-?\d+)-(-?\d+)_(-?\d+)-(-?\d+)", text)
        if found is None:
            raise bad_request(f"bounds must read x0-x1_y0-y1_z0-z1, got {text}")
        n = np.array([int(v) for v in found.groups()], np.int64)
        return Box(n[::2], n[1::2])

    def json(self) -> Any:  # noqa: ANN401 - whatever came
        """The body.

        Raises:
            ApiError: It is not JSON.
        """
        try:
            return json.loads(self.body)
        except ValueError:
            raise bad_request("the body is not JSON") from None

    def ids(self, name: str) -> list[int]:
        """A list of ids in the body, as numbers or as text.

        Raises:
            ApiError: There is none.
        """
        body = self.json()
        if not isinstance(body, dict) or not isinstance(body.get(name), list):
            raise bad_request(f"the body lacks a list {name}")
        return [whole_id(v) for v in body[name]]


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    Attributes:
        body: Bytes as they are; anything else becomes JSON.
    """

    body: Any = b""
    status: int = 200
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)

    def content(self, *, ids_as_text: bool = False) -> bytes:
        """The body as bytes.

        Args:
            ids_as_text: Numbers that JavaScript cannot hold become text.
        """
        if isinstance(self.body, bytes):
            return self.body
        body = _as_text(self.body) if ids_as_text else self.body
        return json.dumps(body).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Route:
    """Who answers what.

    Attributes:
        pattern: Of the whole path.
        permission: What the account must be allowed, ``view`` or ``edit``; None is open to all.
        answer: Called on a thread of its own, alone unless the route is free.
        free: Whether it may run beside others; it takes the deployment's lock where it needs it.
    """

    pattern: str
    answer: Callable[[Deployment, Request], Answer]
    methods: tuple[str, ...] = ("GET",)
    permission: str | None = "view"
    free: bool = False


def read_query(text: str) -> dict[str, str]:
    """Parameters of a URL; of repeated ones the last."""
    return dict(parse_qsl(text, keep_blank_values=True))


def read_body(body: bytes, encoding: str | None) -> bytes:
    """A body as it was before it was compressed.

    Raises:
        ApiError: It cannot be read.
    """
    if encoding is None or "gzip" not in encoding:
        return body
    try:
        return gzip.decompress(body)
    except (OSError, EOFError):
        raise bad_request("the body is not gzip") from None


def whole_id(value: object) -> int:
    """An id that came as a number or as text.

    Raises:
        ApiError: It is neither.
    """
    try:
        return int(str(value))
    except ValueError:
        raise bad_request(f"{value!r} is not an id") from None


def error_answer(error: ApiError, at: str) -> Answer:
    """How PyChunkedGraph says that something failed.

    Args:
        error: What failed.
        at: UTC time, in its format.
    """
    body = {"timestamp": at, "duration": 0.0, "code": error.status, "message": error.message}
    return Answer(body, error.status)


def _as_text(value: Any) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(value, dict):
        return {k: _as_text(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_as_text(v) for v in value]
    if isinstance(value, int) and not isinstance(value, bool) and value > _SAFE_IN_JAVASCRIPT:
        return str(value)
    return value


def packed(ids: Iterable[int]) -> Answer:
    """Ids as little-endian 64-bit numbers."""
    return Answer(np.array(list(ids), "<u8").tobytes(), content_type=BINARY)
