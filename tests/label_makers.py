"""Suggestions and decisions for tests, with ids above 2**53."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import (
    BaseRate,
    Decision,
    Kind,
    Ood,
    Site,
    Suggestion,
    Verdict,
    ViewScore,
    segment_id,
)
from cb2_assist.labels.queue_store import QueueItem

DATASET, VERSION, USER = "demo", "v1", "ada"
BIG = 2**63 + 9007199254740993


def suggestion(n: int = 0, kind: Kind = Kind.JOIN) -> Suggestion:
    """The n-th of a run of different suggestions on one segment."""
    partner = segment_id(BIG + 1 + n) if kind is Kind.JOIN else None
    site = Site(kind, segment_id(BIG), partner, PointNm(100.5 + n, 200.0, 300.0))
    return Suggestion(
        id=site.key(DATASET, VERSION),
        site=site,
        reason="contact of 0.12 µm²",
        score=0.8,
        confidence=0.6,
        interval=(0.5, 0.7),
        ood=Ood(12.5, False),
        views=(ViewScore("front", 0.7), ViewScore("em_xy", 0.9)),
    )


def decision(
    n: int = 0,
    verdict: Verdict = Verdict.ACCEPT,
    *,
    key: str | None = None,
    kind: Kind = Kind.JOIN,
    **changes: Any,
) -> Decision:
    """An answer to `suggestion(n)`; its idempotency key is new unless given."""
    plain = Decision(
        suggestion=suggestion(n, kind),
        verdict=verdict,
        dataset=DATASET,
        version=VERSION,
        model_name="cb2a-tiny",
        model_sha256="ab" * 32,
        calibrator="cal-1",
        base_rate=BaseRate(0.2, "default", 0),
        rank=0,
        alternatives=(),
        user=USER,
        key="f",
        idempotency_key=key or f"{n}-{verdict.value}",
        shown_at="2026-01-02T03:04:05.000Z",
        decided_at="2026-01-02T03:04:06.000Z",
        idle_ms=250,
        licence="CC-BY-4.0",
        species="fly",
        supervoxels=(segment_id(BIG + 500), segment_id(BIG + 501)),
    )
    return replace(plain, **changes)


def queue_item(n: int = 0, kind: Kind = Kind.JOIN, **changes: Any) -> QueueItem:
    """`suggestion(n)` as the queue keeps it; `changes` are of the suggestion."""
    made = replace(suggestion(n, kind), views=(), **changes)
    return QueueItem(DATASET, VERSION, made, 0.2, "ab" * 32, "cal-1")


def seeded_decision(n: int = 0, verdict: Verdict = Verdict.ACCEPT, **changes: Any) -> Decision:
    """An answer to `suggestion(n)` where it was shown under another name, known to be wrong."""
    name = f"{n:016x}"
    seeded = {
        "suggestion": name,
        "site": suggestion(n).id,
        "known_from": "people",
        "score": 0.02,
    }
    shown = replace(suggestion(n), id=name)
    changes.setdefault("key", f"seeded-{n}-{verdict.value}-{changes.get('user', USER)}")
    return decision(n, verdict, suggestion=shown, seeded=seeded, **changes)
