"""Edits of a chunked graph that follow from accepted suggestions, and what became of each.

An edit is proposed once and never rewritten; everything that happens to it is one more step. What
it joins or cuts is named by supervoxels, which stay what they are for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import SegmentId


class EditKind(StrEnum):
    """What an edit asks the graph's server for."""

    JOIN = "join"
    CUT = "cut"
    UNDO = "undo"
    """Take an earlier edit back by its operation id."""
    REDO = "redo"
    """Make it again by its operation id."""


class EditState(StrEnum):
    """How far an edit has come."""

    STAGED = "staged"
    """Waits for the person."""
    SENT = "sent"
    """Recorded before the request leaves, so that it is known after a crash that it may have."""
    UNKNOWN = "unknown"
    """The answer was lost, and the look-up has not settled it yet."""
    APPLIED = "applied"
    ALREADY = "already"
    """The graph was as wanted without an edit of ours."""
    REFUSED = "refused"
    """The server refuses it for good."""
    WITHDRAWN = "withdrawn"
    """The verdict that it follows from was taken back before it was applied."""
    DROPPED = "dropped"
    """Taken off the list by hand; the verdict stands."""
    UNDONE = "undone"
    """Was applied and then taken back."""

    @property
    def is_open(self) -> bool:
        """Whether something is still to happen."""
        return self in (EditState.STAGED, EditState.SENT, EditState.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Anchor:
    """Where an edit takes hold of the graph."""

    supervoxel: SegmentId
    point: PointNm
    """Inside it."""


Anchors = tuple[tuple[Anchor, ...], tuple[Anchor, ...]]
"""Of the two sides: one each of a join, sources and sinks of a cut."""

Sides = tuple[tuple[PointNm, ...], tuple[PointNm, ...]]
"""Points that a cut is to part."""


@dataclass(frozen=True, slots=True)
class SplitPreview:
    """What a cut would do, as the server says, without doing it."""

    root: SegmentId
    """The object that was asked about."""
    n_sides: tuple[int, int]
    """Supervoxels near the cut that would be on either side."""
    n_others: int
    """Further pieces that would come off."""
    separates: bool
    """Whether the two sides would be kept whole and apart."""
    points: tuple[tuple[PointNm, ...], tuple[PointNm, ...]] = ((), ())
    """Some points on either side, to be shown."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One edit as it was proposed."""

    key: str
    """Unique; made from the idempotency key of what asked for it."""
    kind: EditKind
    user: str
    dataset: str
    version: str
    site: str
    """`Suggestion.id` of what was accepted."""
    decision_key: str
    """Idempotency key of the decision that it follows from."""
    made_at: str
    """ISO 8601 UTC."""
    point: PointNm
    segment: SegmentId
    partner: SegmentId | None
    """Of a join; these two were on screen."""
    supervoxels: tuple[SegmentId, SegmentId | None] | None = None
    """The parts nearest to the site, as the decision has them."""
    sides: Sides = ((), ())
    """Of a cut: points that are to come apart; empty where a step brings them."""
    anchors: Anchors | None = None
    """Where it takes hold, if that is known already."""
    turns: str | None = None
    """Key of the edit that it takes back or makes again."""
    operation: int | None = None
    """Of an undo or redo: what is to be turned, by the server's number."""


@dataclass(frozen=True, slots=True)
class EditStep:
    """Something that happened to an edit."""

    state: EditState
    number: int = 0
    """Counts from 1; the newest counts."""
    at: str = ""
    """ISO 8601 UTC."""
    note: str = ""
    """What a person should know, in words."""
    sides: Sides | None = None
    """Of a cut that was proposed before its sides were known."""
    anchors: Anchors | None = None
    roots: tuple[SegmentId, ...] = ()
    """Objects of the two sides when they were looked at last."""
    preview: SplitPreview | None = None
    sends: int = 0
    """Requests that may have reached the server."""
    sent_at: str = ""
    """When the latest of them left."""
    first_sent_at: str = ""
    sent_roots: tuple[SegmentId, ...] = ()
    """Objects of the two sides before the first of them: where a look-up begins."""
    operation: int | None = None
    """The server's number of the edit."""
    new_roots: tuple[SegmentId, ...] = ()
    """Objects that it made."""


@dataclass(frozen=True, slots=True)
class EditRecord:
    """An edit with its newest step."""

    edit: Edit
    step: EditStep

    @property
    def state(self) -> EditState:
        """How far it has come."""
        return self.step.state

    @property
    def is_open(self) -> bool:
        """Whether something is still to happen."""
        return self.step.state.is_open

    @property
    def is_forward(self) -> bool:
        """Whether it makes what was accepted, and does not take it back."""
        return self.edit.turns is None or self.edit.kind is EditKind.REDO

    @property
    def anchors(self) -> Anchors | None:
        """Where it takes hold; None before that was found out."""
        return self.step.anchors or self.edit.anchors

    @property
    def sides(self) -> Sides:
        """Of a cut: points that are to come apart, as far as they are known."""
        return self.step.sides or self.edit.sides

    @property
    def needs_sides(self) -> bool:
        """Whether it is a cut that waits for its sides to be computed."""
        is_cut = self.edit.kind is EditKind.CUT and self.anchors is None
        return is_cut and self.state is EditState.STAGED and not all(self.sides)


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of the graph's server that came of an answer."""

    number: int
    """The server's."""
    kind: EditKind
    turned: int | None
    """Of an undo or redo: the operation that it turned."""
    at: str
    """When it was known to be made; ISO 8601 UTC."""
    new_roots: tuple[SegmentId, ...] = ()
    """Objects that it made."""

    def to_json(self) -> dict[str, Any]:
        """As exports have it; numbers as text."""
        return {
            "operation_id": str(self.number),
            "kind": self.kind.value,
            "turned": None if self.turned is None else str(self.turned),
            "at": self.at,
            "new_roots": [str(root) for root in self.new_roots],
        }


@dataclass(frozen=True, slots=True)
class Operations:
    """What came of one person's answer on one site in the graph."""

    made: tuple[Operation, ...] = ()
    """Oldest first."""
    in_force: int | None = None
    """Number of the one that made what was accepted; None when that was taken back."""


@dataclass(frozen=True, slots=True)
class EditDone:
    """An edit that took place."""

    operation: int | None
    """None: the graph was so already."""
    new_roots: tuple[SegmentId, ...]
    is_ours: bool | None = True
    """Whether it was made under our account; None where that cannot be told."""
