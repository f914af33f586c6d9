"""Reads what the page sends over the WebSocket, and refuses what has not the agreed form.

Every message is a JSON object with an ``id`` (text, chosen by the page) and a ``type``; the answer
carries the same id.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeGuard

from cb2_assist.core.errors import BadRequestError
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.reasons import REASON_NAMES
from cb2_assist.core.records import Verdict, segment_id
from cb2_assist.decisions.log import Seen
from cb2_assist.review.answers import Answer, GivenReason
from cb2_assist.review.state import Cursor

MAX_MESSAGE_CHARS = 2**20
"""A pasted link may carry a whole viewer state."""
_KEY = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_MOST_EDIT_KEY = 200
_DAY_MS = 86_400_000.0
_VERDICTS = (Verdict.ACCEPT, Verdict.REJECT, Verdict.UNSURE, Verdict.NONE, Verdict.FLAG)
"""Those that the page gives."""
_MOST_NOTE = 500


@dataclass(frozen=True, slots=True)
class Propose:
    """Find suggestions here."""

    cursor: Cursor


@dataclass(frozen=True, slots=True)
class Decide:
    """Record a verdict."""

    answer: Answer


@dataclass(frozen=True, slots=True)
class GiveReason:
    """Record why a verdict was a reject or unsure."""

    given: GivenReason


@dataclass(frozen=True, slots=True)
class Select:
    """Make this suggestion the selected one."""

    suggestion_id: str


@dataclass(frozen=True, slots=True)
class Undo:
    """Take the last verdict back."""

    idempotency_key: str
    seen: Seen | None
    """None: whatever is last is meant."""


@dataclass(frozen=True, slots=True)
class Redo:
    """Bring the undone verdict back."""

    idempotency_key: str
    seen: Seen | None


@dataclass(frozen=True, slots=True)
class Preview:
    """Show the edit as if it were made, or not."""

    shown: bool


@dataclass(frozen=True, slots=True)
class ApplyEdit:
    """Take a staged edit one step further."""

    edit: str
    number: int
    """Of its step that was on screen."""


@dataclass(frozen=True, slots=True)
class DropEdit:
    """Take a staged edit off the list."""

    edit: str


@dataclass(frozen=True, slots=True)
class Queue:
    """Go to the next site of the queue."""

    leave: Answer | None
    """A skip of the queue's site that was on screen; None if there was none."""


@dataclass(frozen=True, slots=True)
class Goto:
    """Find out where a text leads, and propose there."""

    text: str


@dataclass(frozen=True, slots=True)
class Share:
    """Make a link to what is on screen."""

    link: str
    """``own`` or ``neuroglancer``."""
    camera: PointNm | None
    """The middle of the viewer."""


@dataclass(frozen=True, slots=True)
class LookAt:
    """The viewer has come to rest elsewhere."""

    camera: PointNm
    """Its middle."""


@dataclass(frozen=True, slots=True)
class UseModel:
    """Let another model answer."""

    folder: str | None
    """None: the same, with the calibration that is saved now."""


@dataclass(frozen=True, slots=True)
class TakeOver:
    """Give the session to this tab."""


@dataclass(frozen=True, slots=True)
class Ping:
    """Are you there?"""


Message = (
    Propose
    | Decide
    | GiveReason
    | Select
    | Undo
    | Redo
    | Preview
    | ApplyEdit
    | DropEdit
    | Queue
    | Goto
    | Share
    | LookAt
    | UseModel
    | TakeOver
    | Ping
)


def read_json(text: str | bytes) -> dict[str, Any]:
    """The object in a message.

    Raises:
        BadRequestError: Not text, too long, or not a JSON object.
    """
    if not isinstance(text, str):
        raise BadRequestError("A message must be text, not binary data.")
    if len(text) > MAX_MESSAGE_CHARS:
        raise BadRequestError(
            f"A message may have {MAX_MESSAGE_CHARS} characters, this one has {len(text)}."
        )
    try:
        got = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadRequestError(f"A message must be JSON ({error}).") from None
    if not isinstance(got, dict):
        raise BadRequestError(f"A message must be a JSON object, got {type(got).__name__}.")
    return got


def message_id(fields: dict[str, Any]) -> str:
    """Id that the answer will carry.

    Raises:
        BadRequestError: It is missing or not short text.
    """
    return _token(fields, "id")


def read_message(fields: dict[str, Any]) -> Message:
    """What the page wants.

    Raises:
        BadRequestError: Unknown type, or a field that is missing or of the wrong form.
        BadIdError: A segment id that is not decimal text.
        BadPointError: A point that is not three finite numbers.
    """
    kind = fields.get("type")
    reader = _READERS.get(kind) if isinstance(kind, str) else None
    if reader is None:
        raise BadRequestError(
            f"There is no message type {_short(kind)}. Known: {', '.join(sorted(_READERS))}."
        )
    return reader(fields)


def was_typed_while_held(fields: dict[str, Any]) -> bool:
    """Whether the page held the session when its person asked for this, as the page says."""
    return fields.get("held") is True


def _propose(fields: dict[str, Any]) -> Propose:
    segment = fields.get("segment")
    if segment is not None and not isinstance(segment, str):
        # a JSON number above 2**53 has lost digits on its way through the browser
        raise BadRequestError(f"A segment id must be text in digits, got {_short(segment)}.")
    if segment is not None and len(segment) > 20:
        raise BadRequestError(f"A segment id has at most 20 digits, got {_short(segment)}.")
    at = _point(fields, "at_nm")
    return Propose(Cursor(at, None if segment is None else segment_id(segment)))


def _decide(fields: dict[str, Any]) -> Decide:
    given = fields.get("verdict")
    verdict = next((v for v in _VERDICTS if v.value == given), None)
    if verdict is None:
        raise BadRequestError(
            f"A verdict is accept, reject, unsure, none or flag, got {_short(given)}."
        )
    return Decide(_answer(fields, verdict))


def _queue(fields: dict[str, Any]) -> Queue:
    if fields.get("suggestion") is None:
        return Queue(None)
    return Queue(_answer(fields, Verdict.SKIP))


def _answer(fields: dict[str, Any], verdict: Verdict) -> Answer:
    key = fields.get("key")
    if not isinstance(key, str) or len(key) > 32 or not (key.isprintable() or key == ""):
        raise BadRequestError(f"key must be the name of what was pressed, got {_short(key)}.")
    return Answer(
        suggestion_id=_token(fields, "suggestion"),
        verdict=verdict,
        idempotency_key=_token(fields, "idempotency_key"),
        key=key,
        shown_ms=_duration(fields, "shown_ms"),
        age_ms=_duration(fields, "age_ms"),
        idle_ms=_duration(fields, "idle_ms"),
        members=_members(fields) if verdict is Verdict.NONE else None,
        note=_note(fields) if verdict is Verdict.FLAG else "",
    )


def _note(fields: dict[str, Any]) -> str:
    note = fields.get("note")
    is_line = isinstance(note, str) and note.isprintable() and len(note) <= _MOST_NOTE
    if not is_line or not str(note).strip():
        raise BadRequestError(
            f"note must be one line of 1 to {_MOST_NOTE} characters, got {_short(note)}."
        )
    return str(note).strip()


def _members(fields: dict[str, Any]) -> frozenset[str]:
    members = fields.get("members")
    if not isinstance(members, list) or not all(isinstance(m, str) for m in members):
        raise BadRequestError(f"members must be the ids that none is about, got {_short(members)}.")
    return frozenset(members)


def _reason(fields: dict[str, Any]) -> GiveReason:
    reason = fields.get("reason")
    if not isinstance(reason, str) or reason not in REASON_NAMES:
        raise BadRequestError(
            f"There is no reason {_short(reason)}. Known: {', '.join(sorted(REASON_NAMES))}."
        )
    has_key = fields.get("verdict_key") is not None
    return GiveReason(
        GivenReason(
            suggestion_id=_token(fields, "suggestion"),
            reason=reason,
            idempotency_key=_token(fields, "idempotency_key"),
            verdict_key=_token(fields, "verdict_key") if has_key else None,
        )
    )


def _seen(fields: dict[str, Any]) -> Seen | None:
    seen = fields.get("seen")
    if seen is None:
        return None
    if not isinstance(seen, dict):
        raise BadRequestError(f"seen must be an object, got {_short(seen)}.")
    after, own = seen.get("after"), seen.get("own")
    if not isinstance(after, int) or isinstance(after, bool) or not 0 <= after < 2**63:
        raise BadRequestError(f"after must be the number of an event, got {_short(after)}.")
    if not isinstance(own, list) or not all(map(_is_token, own)):
        raise BadRequestError(f"own must be a list of idempotency keys, got {_short(own)}.")
    needs = None if seen.get("needs") is None else _token(seen, "needs")
    return Seen(after, tuple(own), needs)


def _preview(fields: dict[str, Any]) -> Preview:
    shown = fields.get("shown")
    if not isinstance(shown, bool):
        raise BadRequestError(f"shown must be true or false, got {_short(shown)}.")
    return Preview(shown)


def _apply_edit(fields: dict[str, Any]) -> ApplyEdit:
    number = fields.get("number")
    if not isinstance(number, int) or isinstance(number, bool) or not 0 < number < 2**31:
        raise BadRequestError(f"number must be that of an edit's step, got {_short(number)}.")
    return ApplyEdit(_edit_key(fields), number)


def _edit_key(fields: dict[str, Any]) -> str:
    key = fields.get("edit")
    if not isinstance(key, str) or not 0 < len(key) <= _MOST_EDIT_KEY:
        raise BadRequestError(f"edit must be the key of an edit, got {_short(key)}.")
    return key


def _goto(fields: dict[str, Any]) -> Goto:
    text = fields.get("text")
    if not isinstance(text, str):
        raise BadRequestError(f"text must be what was typed or pasted, got {_short(text)}.")
    return Goto(text)


def _share(fields: dict[str, Any]) -> Share:
    link = fields.get("link")
    if link not in ("own", "neuroglancer"):
        raise BadRequestError(f"A link is own or neuroglancer, got {_short(link)}.")
    return Share(link, None if fields.get("camera_nm") is None else _point(fields, "camera_nm"))


def _look_at(fields: dict[str, Any]) -> LookAt:
    return LookAt(_point(fields, "camera_nm"))


def _use_model(fields: dict[str, Any]) -> UseModel:
    folder = fields.get("folder")
    if folder is None:
        return UseModel(None)
    is_path = isinstance(folder, str) and 0 < len(folder.strip()) <= 4096 and "\0" not in folder
    if not is_path:
        raise BadRequestError(f"folder must name a model folder, got {_short(folder)}.")
    return UseModel(folder.strip())


_READERS: dict[str, Callable[[dict[str, Any]], Message]] = {
    "propose": _propose,
    "decide": _decide,
    "reason": _reason,
    "select": lambda fields: Select(_token(fields, "suggestion")),
    "undo": lambda fields: Undo(_token(fields, "idempotency_key"), _seen(fields)),
    "redo": lambda fields: Redo(_token(fields, "idempotency_key"), _seen(fields)),
    "preview": _preview,
    "apply": _apply_edit,
    "drop_edit": lambda fields: DropEdit(_edit_key(fields)),
    "queue": _queue,
    "goto": _goto,
    "share": _share,
    "look_at": _look_at,
    "use_model": _use_model,
    "take_over": lambda _fields: TakeOver(),
    "ping": lambda _fields: Ping(),
}


def _point(fields: dict[str, Any], name: str) -> PointNm:
    at = fields.get(name)
    if not isinstance(at, list) or not all(_is_number(v) for v in at):
        raise BadRequestError(f"{name} must be a list of three numbers, got {_short(at)}.")
    return PointNm.of(at)


def _token(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if not _is_token(value):
        raise BadRequestError(
            f"{name} must be 1 to 64 letters, digits or any of _ . : -, got {_short(value)}."
        )
    return value


def _is_token(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and _KEY.fullmatch(value) is not None


def _duration(fields: dict[str, Any], name: str) -> float:
    value = fields.get(name)
    if not _is_number(value) or not 0 <= float(value) <= 30 * _DAY_MS:
        raise BadRequestError(f"{name} must be a number of milliseconds, got {_short(value)}.")
    return float(value)


def _is_number(value: object) -> TypeGuard[int | float]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")
