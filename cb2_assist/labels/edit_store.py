"""Edits of a graph that wait or were applied, beside the decisions that they follow from.

An edit is written once; what happens to it is appended as steps, so that after a kill it is known
how far it had come. Backends share the contract tests in `tests/contracts/edit_store.py`.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any, Protocol, TypeVar

from cb2_assist.core.edits import (
    Anchor,
    Anchors,
    Edit,
    EditKind,
    EditRecord,
    EditState,
    EditStep,
    Operations,
    Sides,
    SplitPreview,
)
from cb2_assist.core.errors import AssistError, LabelError
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import SegmentId, segment_id

T = TypeVar("T")

AnswerKey = tuple[str, str, str, str]
"""Dataset, version, site and user of an answer: it outlives the decision that an edit came of."""


class StaleEditError(Exception):
    """Another writer has taken a step first: read again. Never reaches a person."""


class EditStore(Protocol):
    """Edits and their steps. Every method may be called from any thread."""

    def add(self, edit: Edit, note: str = "") -> EditRecord:
        """Keep an edit as `EditState.STAGED`; durable on return.

        The same key again returns what became of the first.

        Raises:
            LabelError: It cannot be written; nothing was recorded.
        """

    def advance(self, record: EditRecord, step: EditStep) -> EditRecord:
        """Append a step, numbered and dated here; durable on return.

        Raises:
            StaleEditError: ``record`` is not the newest of that edit.
            LabelError: It cannot be written; nothing was recorded.
        """

    def get(self, key: str) -> EditRecord | None:
        """An edit with its newest step."""

    def steps(self, key: str) -> list[EditStep]:
        """All that happened to an edit, oldest first."""

    def records(
        self,
        *,
        dataset: str,
        user: str | None = None,
        site: str | None = None,
        states: Collection[EditState] | None = None,
    ) -> list[EditRecord]:
        """Edits of a dataset with their newest steps, oldest edit first."""

    def operations(self, dataset: str | None = None) -> dict[AnswerKey, Operations]:
        """What came of answers in the graphs; an answer of which nothing came is not in it.

        Args:
            dataset: Only of this one.
        """


def edit_to_text(edit: Edit) -> str:
    """One line of JSON; ids as text."""
    return _text(
        {
            "point_nm": edit.point.to_json(),
            "segment": str(edit.segment),
            "partner": None if edit.partner is None else str(edit.partner),
            "supervoxels": None
            if edit.supervoxels is None
            else [None if s is None else str(s) for s in edit.supervoxels],
            "sides_nm": _sides_json(edit.sides),
            "anchors": _anchors_json(edit.anchors),
            "turns": edit.turns,
            "operation": None if edit.operation is None else str(edit.operation),
            "made_at": edit.made_at,
        }
    )


def edit_from_row(
    key: str,
    kind: str,
    user: str,
    dataset: str,
    version: str,
    site: str,
    decision_key: str,
    body: str,
) -> Edit:
    """Read a row of ``edits``.

    Raises:
        LabelError: It is damaged.
    """
    try:
        d = json.loads(body)
        supervoxels = d["supervoxels"]
        return Edit(
            key=key,
            kind=EditKind(kind),
            user=user,
            dataset=dataset,
            version=version,
            site=site,
            decision_key=decision_key,
            made_at=d["made_at"],
            point=PointNm.of(d["point_nm"]),
            segment=segment_id(d["segment"]),
            partner=_optional_id(d["partner"]),
            supervoxels=None
            if supervoxels is None
            else (segment_id(supervoxels[0]), _optional_id(supervoxels[1])),
            sides=_sides(d["sides_nm"]),
            anchors=_anchors(d["anchors"]),
            turns=d["turns"],
            operation=None if d["operation"] is None else int(d["operation"]),
        )
    except (KeyError, IndexError, TypeError, ValueError, AssistError) as e:
        raise _damaged(key, e) from None


def step_to_text(step: EditStep) -> str:
    """One line of JSON; ids as text."""
    p = step.preview
    return _text(
        {
            "at": step.at,
            "note": step.note,
            "sides_nm": None if step.sides is None else _sides_json(step.sides),
            "anchors": _anchors_json(step.anchors),
            "roots": _ids(step.roots),
            "preview": None
            if p is None
            else {
                "root": str(p.root),
                "n_sides": list(p.n_sides),
                "n_others": p.n_others,
                "separates": p.separates,
                "points_nm": _sides_json(p.points),
            },
            "sends": step.sends,
            "sent_at": step.sent_at,
            "first_sent_at": step.first_sent_at,
            "sent_roots": _ids(step.sent_roots),
            "new_roots": _ids(step.new_roots),
        }
    )


def step_from_row(key: str, number: int, state: str, operation: str | None, body: str) -> EditStep:
    """Read a row of ``edit_steps``.

    Raises:
        LabelError: It is damaged.
    """
    try:
        d = json.loads(body)
        p, sides = d["preview"], d.get("sides_nm")  # older steps have no sides
        return EditStep(
            state=EditState(state),
            number=number,
            at=d["at"],
            note=d["note"],
            sides=None if sides is None else _sides(sides),
            anchors=_anchors(d["anchors"]),
            roots=_ids_of(d["roots"]),
            preview=None
            if p is None
            else SplitPreview(
                segment_id(p["root"]),
                (p["n_sides"][0], p["n_sides"][1]),
                p["n_others"],
                p["separates"],
                _sides(p["points_nm"]),
            ),
            sends=d["sends"],
            sent_at=d["sent_at"],
            first_sent_at=d["first_sent_at"],
            sent_roots=_ids_of(d["sent_roots"]),
            operation=None if operation is None else int(operation),
            new_roots=_ids_of(d["new_roots"]),
        )
    except (KeyError, IndexError, TypeError, ValueError, AssistError) as e:
        raise _damaged(key, e) from None


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def _damaged(key: str, error: Exception) -> LabelError:
    return LabelError(
        f"The stored edit {key} cannot be read ({type(error).__name__}: {error}). Check the file "
        "with `cb2-assist labels verify`."
    )


def _anchors_json(anchors: Anchors | None) -> Any:  # noqa: ANN401 - JSON
    if anchors is None:
        return None
    return [[[str(a.supervoxel), *a.point.to_json()] for a in side] for side in anchors]


def _anchors(value: Any) -> Anchors | None:  # noqa: ANN401 - JSON
    if value is None:
        return None
    return _two_of(
        [[Anchor(segment_id(row[0]), PointNm.of(row[1:])) for row in side] for side in value]
    )


def _sides_json(sides: Sides) -> list[list[list[float]]]:
    return [[p.to_json() for p in side] for side in sides]


def _sides(value: list[list[list[float]]]) -> Sides:
    return _two_of([[PointNm.of(p) for p in side] for side in value])


def _two_of(sides: list[list[T]]) -> tuple[tuple[T, ...], tuple[T, ...]]:
    a, b = sides
    return tuple(a), tuple(b)


def _ids(ids: tuple[SegmentId, ...]) -> list[str]:
    return [str(i) for i in ids]


def _ids_of(value: list[str]) -> tuple[SegmentId, ...]:
    return tuple(segment_id(i) for i in value)


def _optional_id(value: str | None) -> SegmentId | None:
    return None if value is None else segment_id(value)
