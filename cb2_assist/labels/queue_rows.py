"""Sites, fills and draws of the queue as rows of its tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cb2_assist.core.errors import LabelError
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import Draw, Kind, Ood, Site, Suggestion, segment_id
from cb2_assist.labels.queue_store import Fill, QueueItem, Scope

AS_FOUND = ("reason", "prior")
"""Columns that tell how far off the cursor was."""
AS_JUDGED = (
    *AS_FOUND,
    "joint",
    "score",
    "confidence",
    "low",
    "high",
    "ood",
    "is_ood",
    "base_rate",
    "model_sha256",
    "calibrator",
    "own_part",
    "other_part",
)
"""Columns that a later fill replaces."""
_ITEM = ("dataset", "version", "site", "kind", "segment", "partner", "x_nm", "y_nm", "z_nm")
READ_ITEM = ", ".join((*_ITEM, *AS_JUDGED))
READ_FILL = "id, dataset, version, scope, kind, judge, done, total, updated_at"
READ_DRAW = "d.id, d.site, d.scope, d.strategy, d.explore, d.floor, d.probability, d.n_open"


def columns_of(item: QueueItem) -> dict[str, Any]:
    """A site as its row, by column."""
    s = item.suggestion
    x, y, z = s.site.point
    low, high = s.interval
    return {
        "dataset": item.dataset,
        "version": item.version,
        "site": s.id,
        "kind": s.site.kind.value,
        "segment": str(s.site.segment),
        "partner": None if s.site.partner is None else str(s.site.partner),
        "x_nm": x,
        "y_nm": y,
        "z_nm": z,
        "reason": s.reason,
        "prior": s.prior,
        "joint": s.joint,
        "score": s.score,
        "confidence": s.confidence,
        "low": low,
        "high": high,
        "ood": s.ood.percentile,
        "is_ood": int(s.ood.flag),
        "base_rate": item.base_rate,
        "model_sha256": item.model_sha256,
        "calibrator": item.calibrator,
        **dict(zip(("own_part", "other_part"), _parts(s), strict=True)),
    }


def _parts(s: Suggestion) -> tuple[str | None, str | None]:
    own, other = s.supervoxels or (None, None)
    return None if own is None else str(own), None if other is None else str(other)


def item_of(row: Sequence[Any]) -> QueueItem:
    """A site from the columns `READ_ITEM`."""
    d = dict(zip((*_ITEM, *AS_JUDGED), row, strict=True))
    partner = None if d["partner"] is None else segment_id(d["partner"])
    point = PointNm(d["x_nm"], d["y_nm"], d["z_nm"])
    site = Site(Kind(d["kind"]), segment_id(d["segment"]), partner, point)
    own, other = (None if d[k] is None else segment_id(d[k]) for k in ("own_part", "other_part"))
    suggestion = Suggestion(
        id=d["site"],
        site=site,
        reason=d["reason"],
        score=d["score"],
        confidence=d["confidence"],
        interval=(d["low"], d["high"]),
        ood=Ood(d["ood"], bool(d["is_ood"])),
        views=(),
        prior=d["prior"],
        joint=d["joint"],
        supervoxels=None if own is None else (own, other),
    )
    return QueueItem(
        d["dataset"], d["version"], suggestion, d["base_rate"], d["model_sha256"], d["calibrator"]
    )


def fill_of(row: Sequence[Any]) -> Fill:
    """A fill from the columns `READ_FILL`."""
    id_, dataset, version, scope, kind, judge, done, total, updated_at = row
    return Fill(
        id_,
        Scope.of_text(dataset, version, scope),
        Kind(kind) if kind else None,
        judge,
        done,
        total,
        updated_at,
    )


def draw_of(row: Sequence[Any] | None) -> Draw:
    """A draw from the columns `READ_DRAW`.

    Raises:
        LabelError: There is no row.
    """
    if row is None:
        raise LabelError("A draw of the queue is missing. Nothing was lost; press q again.")
    id_, site, scope, strategy, explore, floor, probability, n_open = row
    return Draw(id_, site, scope, strategy, bool(explore), floor, probability, n_open)
