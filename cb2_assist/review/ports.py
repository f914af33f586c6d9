"""What a review session needs from the rest of the program, as small protocols."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from cb2_assist.core.geometry import BoxVx, PointNm, Resolution
from cb2_assist.core.records import (
    Candidate,
    Decision,
    Kind,
    LabelEvent,
    SegmentId,
    Site,
    SuggestionList,
    Verdict,
)
from cb2_assist.datasets.source import Cutout, DatasetInfo, ViewerLayers
from cb2_assist.decisions.log import Seen
from cb2_assist.suggestions.pipeline import Signals


class Place(Protocol):
    """The part of an open dataset that the page shows."""

    @property
    def resolution(self) -> Resolution:
        """Voxel size, nm."""

    @property
    def bounds(self) -> BoxVx:
        """Voxels that exist."""

    @property
    def layers(self) -> ViewerLayers:
        """What the viewer shows."""

    def cutout(self, box: BoxVx) -> Cutout:
        """EM and segments of a box, clipped to the bounds."""

    def segment_at(self, point: PointNm) -> SegmentId:
        """Segment that holds the point; 0 on background."""

    def locate(self, segment: SegmentId) -> PointNm | None:
        """A point inside a segment; None when it was not found in some seconds."""


class Assistant(Protocol):
    """Turns a cursor into suggestions. Methods block and may be called from several threads."""

    @property
    def info(self) -> DatasetInfo:
        """What every label carries about the dataset."""

    @property
    def source(self) -> Place:
        """The open dataset."""

    @property
    def judge(self) -> str:
        """Names model and calibrator: the same text, the same numbers."""

    @property
    def preparing(self) -> bool:
        """Whether answers still wait for something that is loaded or compiled once."""

    def suggest(
        self,
        at: PointNm,
        segment: SegmentId | None,
        kind: Kind | None = None,
        limit: int = 16,
        *,
        include: Candidate | None = None,
        known: Callable[[Mapping[str, str | None]], set[str]] | None = None,
    ) -> SuggestionList:
        """Ranked suggestions at a point; ``include`` is among them, what is ``known`` is not.

        Raises:
            AssistError: Outside, on background, no such segment, unreadable data.
        """

    def signals_of(self, suggestion_id: str) -> Signals | None:
        """Features and embedding of a recent suggestion; None when no longer known."""

    def views_of(self, suggestion_id: str) -> tuple[str, bytes] | None:
        """SHA-256 and bytes of what the model saw; None when no longer known."""

    def also_called(self, suggestion_id: str, name: str) -> None:
        """Give a recent suggestion a second id under which its views are found."""

    def picture_of(self, suggestion_id: str, view: str) -> tuple[str, bytes] | None:
        """SHA-256 of what the model saw, and one view of it as PNG; None when no longer known.

        Args:
            suggestion_id: Of a recent suggestion.
            view: One of `channels.VIEW_NAMES`.
        """

    def sides_at(self, site: Site) -> list[list[list[float]]]:
        """Points in nm on the two sides of a cut; may have to read voxels.

        Raises:
            AssistError: They cannot be read; a `LookupError` too where there is nothing to part.
        """


class Models(Protocol):
    """Which model answers; `Assistant` of the program is one."""

    def known_models(self) -> list[dict[str, Any]]:
        """Every model that has answered: folder, name, sha256, calibrator, verdict, in_use."""

    def use_model(self, folder: str | None) -> dict[str, Any]:
        """Let another one answer; None: the same, with the calibration that is saved now.

        Raises:
            AssistError: It cannot be used; the one before goes on answering.
        """


class Log(Protocol):
    """The durable record of decisions."""

    @property
    def can_undo(self) -> bool:
        """Whether a decision stands that can be taken back."""

    @property
    def can_redo(self) -> bool:
        """Whether the last thing done was an undo."""

    @property
    def newest_event(self) -> int:
        """Id of the latest event; 0 before the first."""

    @property
    def undelivered(self) -> int:
        """Events that are kept on this machine while a team's labels cannot be reached."""

    def listen(self, on_news: Callable[[str, bool], None]) -> None:
        """Have a sentence told, in another thread, when that changes, and whether it is good."""

    def refresh(self) -> None:
        """Read what others wrote in this person's name, and what was delivered."""

    def decide(self, decision: Decision) -> LabelEvent:
        """Record; durable on return. The same idempotency key again gives the first event."""

    def undo(self, *, idempotency_key: str, seen: Seen | None = None) -> LabelEvent:
        """Take the last standing decision back, unless it is not the one that was ``seen``."""

    def redo(self, *, idempotency_key: str, seen: Seen | None = None) -> LabelEvent:
        """Bring back what the last undo took; ``seen`` as for `undo`."""

    def give_reason(
        self,
        suggestion_id: str,
        reason: str,
        *,
        idempotency_key: str,
        decision_key: str | None = None,
    ) -> LabelEvent:
        """Say why a reject or unsure was given; without a key, the one in force."""

    def reason(self, suggestion_id: str) -> str | None:
        """The reason given for the answer in force on a suggestion."""

    def flag(self, suggestion_id: str) -> str | None:
        """The note of the last flag in force on a suggestion."""

    def event(self, event_id: int) -> LabelEvent:
        """The event of this id, e.g. the target of an undo."""

    def verdict(self, suggestion_id: str) -> Verdict | None:
        """The answer in force on a suggestion; None where there is none."""

    def was_answered(self, suggestion_id: str) -> bool:
        """Whether a suggestion has ever had an answer, undone or not; a skip is none."""


class Views(Protocol):
    """Keeps what the model saw, by content."""

    def put(self, data: bytes, sha256: str) -> object:
        """Keep; returns once it is durable.

        Raises:
            LabelError: It cannot be written.
        """
