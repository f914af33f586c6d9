"""A tiny dataset, an instant suggester and an in-memory log for tests of the page."""

from __future__ import annotations

import hashlib
import io
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from cb2_assist.core.channels import VIEW_NAMES
from cb2_assist.core.errors import (
    BackgroundError,
    DecisionError,
    ModelError,
    OutOfBoundsError,
    SegmentNotFoundError,
)
from cb2_assist.core.geometry import BoxVx, PointNm, PointVoxel, Resolution
from cb2_assist.core.records import (
    BaseRate,
    Decision,
    Kind,
    LabelEvent,
    Ood,
    SegmentId,
    Site,
    Suggestion,
    SuggestionList,
    ViewScore,
)
from cb2_assist.datasets.source import Cutout, DatasetInfo, ViewerLayers
from cb2_assist.labels.codec import answered_sites

BASE = 2**53 + 11
"""Ids lie above 2**53, where a browser's numbers lose digits."""
SIZE = 96
RESOLUTION = Resolution(10.0, 10.0, 10.0)
INFO = DatasetInfo("toy", "v1", "fly", "CC0-1.0", "made in a test")
_STEP = 32


def label_volume() -> np.ndarray:
    """27 blocks of 32 voxels, with background in the layer x < 4."""
    n = SIZE // _STEP
    x, y, z = np.meshgrid(*[np.arange(SIZE) // _STEP] * 3, indexing="ij")
    labels = (x + n * y + n * n * z + BASE).astype(np.uint64)
    labels[:4] = 0
    return np.asfortranarray(labels)


def segment_of(at: PointNm) -> SegmentId:
    v = at.to_voxel(RESOLUTION)
    if not all(0 <= c < SIZE for c in v):
        raise OutOfBoundsError(f"The point {tuple(at)} nm lies outside the volume.")
    return SegmentId(int(label_volume()[tuple(v)]))


def centre_of(segment: int) -> PointNm:
    i = segment - BASE
    return PointNm.of((c + 0.5) * _STEP * 10.0 for c in (i % 3, i // 3 % 3, i // 9))


def suggestion(
    kind: Kind,
    segment: int,
    partner: int | None,
    at: PointNm,
    confidence: float,
    *,
    unreliable: bool = False,
    joint: str | None = None,
) -> Suggestion:
    site = Site(kind, SegmentId(segment), None if partner is None else SegmentId(partner), at)
    return Suggestion(
        id=site.key(INFO.name, INFO.version),
        site=site,
        reason="contact of 0.10 µm²" if kind is Kind.JOIN else "neck of 40 nm",
        score=confidence,
        confidence=confidence,
        interval=(max(0.0, confidence - 0.1), min(1.0, confidence + 0.1)),
        ood=Ood(99.5 if unreliable else 40.0, unreliable),
        views=tuple(ViewScore(n, confidence - 0.02 * i) for i, n in enumerate(VIEW_NAMES)),
        prior=confidence,
        joint=joint,
    )


ENDING = BASE + 22
"""The segment whose three joins are one question: which of them continues its end."""


def toy_list(segment: int, at: PointNm) -> SuggestionList:
    """Three joins with the neighbours along x, y, z (where there are any) and one cut."""
    joint = f"{segment}@480,480,960" if segment == ENDING else None
    i = segment - BASE
    cell = (i % 3, i // 3 % 3, i // 9)
    centre = list(centre_of(segment))
    made = []
    for axis, confidence in zip(range(3), (0.91, 0.64, 0.22), strict=True):
        side = 1 if cell[axis] < 2 else -1
        at_face = list(centre)
        at_face[axis] += side * _STEP * 5.0
        made.append(
            suggestion(
                Kind.JOIN,
                segment,
                segment + side * 3**axis,
                PointNm.of(at_face),
                confidence,
                unreliable=axis == 2,
                joint=joint,
            )
        )
    made.insert(2, suggestion(Kind.CUT, segment, None, PointNm.of(centre), 0.48))
    rate = BaseRate(0.3, "default", 0)
    return SuggestionList(
        dataset=INFO.name,
        version=INFO.version,
        segment=SegmentId(segment),
        at=at,
        suggestions=tuple(made),
        model_name="toy-model",
        model_sha256="0" * 64,
        calibrator="toy",
        base_rates={Kind.JOIN: rate, Kind.CUT: rate},
        timing_ms={"candidates": 1.0, "views": 1.0, "model": 1.0, "total": 3.0},
    )


@dataclass
class ToySource:
    layers: ViewerLayers
    resolution: Resolution = RESOLUTION
    bounds: BoxVx = field(
        default_factory=lambda: BoxVx(PointVoxel(0, 0, 0), PointVoxel(SIZE, SIZE, SIZE))
    )

    def cutout(self, box: BoxVx) -> Cutout:
        seg = label_volume()
        return Cutout(self.bounds, RESOLUTION, np.zeros(seg.shape, np.uint8), seg).crop(box)

    def segment_at(self, point: PointNm) -> SegmentId:
        return segment_of(point)

    def locate(self, segment: SegmentId) -> PointNm | None:
        return centre_of(segment) if BASE <= segment < BASE + 27 else None


class ToyAssistant:
    """Instant suggestions on the toy volume. `before` runs first in every `suggest`."""

    preparing = False
    judge = f"{'0' * 64} toy"

    def __init__(self, folder: Path | None = None) -> None:
        roots = {} if folder is None else {"toy": folder}
        self.info = INFO
        self.source = ToySource(ViewerLayers("toy/em", "toy/seg", RESOLUTION, roots))
        self.forgotten: set[str] = set()
        self.before: Callable[[PointNm, SegmentId | None], None] = lambda _at, _segment: None
        self.names: dict[str, str] = {}
        """Second ids of suggestions."""
        self.gone: set[str] = set()
        """Sites that were there once."""
        self.models = ["toy-model"]
        """Names of those that have answered; the last one does."""

    def suggest(self, at, segment, kind=None, limit=16, *, include=None, known=None):  # noqa: ARG002
        self.before(at, segment)
        if include is not None and include.site.key(INFO.name, INFO.version) in self.gone:
            raise SegmentNotFoundError("The segment has changed.")
        if segment is None:
            segment = segment_of(at)
        if segment == 0:
            raise BackgroundError("There is no segment at the cursor. Point at one and press p.")
        if not BASE <= segment < BASE + 27:
            raise SegmentNotFoundError(f"There is no segment {segment} in this volume.")
        found = toy_list(segment, at)
        left_out = known({s.id: s.joint for s in found.suggestions}) if known else set()
        kept = tuple(s for s in found.suggestions if s.id not in left_out)
        return replace(found, suggestions=kept, model_name=self.models[-1])

    def known_models(self):
        return [
            {
                "folder": f"/models/{name}",
                "name": name,
                "sha256": "0" * 64,
                "calibrator": "toy",
                "verdict": "worse" if "worse" in name else "",
                "in_use": name == self.models[-1],
            }
            for name in sorted(set(self.models))
        ]

    def use_model(self, folder):
        name = self.models[-1] if folder is None else Path(folder).name
        if "model" not in name:
            raise ModelError(f"There is no model at {folder}.")
        self.models.append(name)
        return next(m for m in self.known_models() if m["in_use"])

    def signals_of(self, suggestion_id):  # noqa: ARG002
        return None

    def views_of(self, suggestion_id):
        data = f"views of {suggestion_id}".encode()
        return hashlib.sha256(data).hexdigest(), data

    def picture_of(self, suggestion_id, view):
        if suggestion_id in self.forgotten or not re.fullmatch("[0-9a-f]{16}", suggestion_id):
            return None
        shade = 40 * VIEW_NAMES.index(view)
        out = io.BytesIO()
        Image.new("RGB", (224, 224), (shade, 90, 160)).save(out, "PNG")
        return self.views_of(suggestion_id)[0], out.getvalue()

    def also_called(self, suggestion_id, name):
        self.names[name] = suggestion_id

    def sides_at(self, site):  # noqa: ARG002
        a = [[x * 10.0, 480.0, 480.0] for x in range(34, 46, 4)]
        return [a, [[x + 150.0, y, z] for x, y, z in a]]


class MemoryLog:
    """Decisions of one user in memory. `fail_with` is raised by the next writes."""

    def __init__(self) -> None:
        self.events: list[LabelEvent] = []
        self.fail_with: Exception | None = None
        self._undone: list[LabelEvent] = []
        self._standing: list[LabelEvent] = []
        self._reasons: dict[int, str] = {}
        self._lock = threading.Lock()

    undelivered = 0

    def listen(self, on_news) -> None:
        pass

    def refresh(self) -> None:
        pass

    def _append(self, event, target, key, decision, reason=None):
        made = LabelEvent(
            len(self.events) + 1,
            event,
            target,
            "2020-01-01T00:00:00+00:00",
            "tester",
            key,
            decision,
            reason,
        )
        self.events.append(made)
        return made

    def _known(self, key):
        if self.fail_with is not None:
            raise self.fail_with
        return next((e for e in self.events if e.idempotency_key == key), None)

    def decide(self, decision: Decision) -> LabelEvent:
        with self._lock:
            if known := self._known(decision.idempotency_key):
                return known
            made = self._append("decision", None, decision.idempotency_key, decision)
            self._standing.append(made)
            self._undone.clear()
            return made

    def undo(self, *, idempotency_key: str, seen=None) -> LabelEvent:  # noqa: ARG002
        with self._lock:
            if known := self._known(idempotency_key):
                return known
            if not self._standing:
                raise DecisionError("There is nothing to undo.")
            last = self._standing.pop()
            self._undone.append(last)
            return self._append("undo", last.id, idempotency_key, None)

    def redo(self, *, idempotency_key: str, seen=None) -> LabelEvent:  # noqa: ARG002
        with self._lock:
            if known := self._known(idempotency_key):
                return known
            if not self._undone:
                raise DecisionError("There is nothing to redo.")
            last = self._undone.pop()
            self._standing.append(last)
            return self._append("redo", last.id, idempotency_key, None)

    def was_answered(self, suggestion_id: str) -> bool:
        decided = (e.decision for e in self.events if e.decision)
        return any(
            site.id == suggestion_id and site.verdict.is_answer
            for decision in decided
            for site in answered_sites(decision)
        )

    def give_reason(self, suggestion_id, reason, *, idempotency_key, decision_key=None):
        with self._lock:
            if known := self._known(idempotency_key):
                return known
            for e in reversed(self._standing):
                is_it = e.decision.suggestion.id == suggestion_id
                if is_it and decision_key in (None, e.idempotency_key):
                    self._reasons[e.id] = reason
                    return self._append("reason", e.id, idempotency_key, None, reason)
            raise DecisionError("There is no verdict on that suggestion.")

    def reason(self, suggestion_id):
        stand = {e.decision.suggestion.id: e.id for e in self._standing}
        return self._reasons.get(stand.get(suggestion_id))

    @property
    def can_undo(self) -> bool:
        return bool(self._standing)

    @property
    def can_redo(self) -> bool:
        return bool(self._undone)

    @property
    def newest_event(self) -> int:
        return len(self.events)

    def flag(self, suggestion_id):
        notes = [
            e.decision.note
            for e in self._standing
            if e.decision.verdict.value == "flag" and e.decision.suggestion.id == suggestion_id
        ]
        return notes[-1] if notes else None

    def event(self, event_id: int) -> LabelEvent:
        return self.events[event_id - 1]

    def verdict(self, suggestion_id: str):
        stand = {a.id: a.verdict for e in self._standing for a in answered_sites(e.decision)}
        return stand.get(suggestion_id)


class MemoryViews:
    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def put(self, data: bytes, sha256: str) -> None:
        self.kept[sha256] = data


def wait_until(holds: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Look every few milliseconds until a condition of another thread holds."""
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, f"not within {timeout_s} s: {holds}"
        threading.Event().wait(0.005)


def write_toy_volume(folder: Path) -> Path:
    """EM, segments and meshes of the toy volume as a local dataset; returns the folder."""
    from cb2_assist.datasets.precomputed import Grid
    from cb2_assist.datasets.writer import Description, Volume, write_dataset

    labels = label_volume()
    rng = np.random.default_rng(0)
    em = 120 + 40 * (labels % np.uint64(2)).astype(np.float32) + rng.normal(0, 8, labels.shape)
    grid = Grid(RESOLUTION, PointVoxel(0, 0, 0))
    volume = Volume(grid, np.asfortranarray(em.clip(0, 255).astype(np.uint8)), labels)
    return write_dataset(folder, volume, Description("toy", "fly", "CC0-1.0", "a test")).parent
