"""Decisions as JSON text, and which sites a decision answers.

Written once per decision and never rewritten, so reading is forgiving: unknown fields are ignored
and fields that a later version added have defaults.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from cb2_assist.core.errors import AssistError, BadRequestError, LabelError
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import (
    BaseRate,
    Decision,
    Kind,
    Ood,
    SegmentId,
    Site,
    Suggestion,
    Verdict,
    ViewScore,
    segment_id,
)

_PLAIN = (
    "dataset",
    "version",
    "model_name",
    "model_sha256",
    "calibrator",
    "rank",
    "user",
    "key",
    "idempotency_key",
    "shown_at",
    "decided_at",
    "idle_ms",
    "licence",
    "species",
)
_PLAIN_WITH_DEFAULT = (
    "score_hidden",
    "joint",
    "reason",
    "views_sha256",
    "timestamp",
    "note",
    "seeded",
)


@dataclass(frozen=True, slots=True)
class AnsweredSite:
    """One site that a decision gives an answer to."""

    id: str
    """`Suggestion.id`."""
    kind: Kind
    segment: str
    partner: str | None
    verdict: Verdict
    """Of this site: `Verdict.REJECT` for each site that *none* closed."""


def answered_sites(decision: Decision) -> tuple[AnsweredSite, ...]:
    """The sites that a decision is about: its own, or with *none* the open joins of its joint set.

    Those are the joins on screen with the same ``joint`` as the suggestion at which *none* was
    pressed; without one, the joins at no end. Files from before there were joint sets have none, so
    that *none* there means every open join on screen, as it did. Alternatives that already had an
    accept or reject when *none* was pressed keep it, and implied ones are no answer.

    Raises:
        BadRequestError: An alternative lacks what a label of it needs.
    """
    if decision.verdict is not Verdict.NONE:
        s = decision.suggestion
        partner = None if s.site.partner is None else str(s.site.partner)
        return (AnsweredSite(s.id, s.site.kind, str(s.site.segment), partner, decision.verdict),)
    found: dict[str, AnsweredSite] = {}
    for shown in decision.alternatives:
        if shown.get("kind") != Kind.JOIN.value:
            continue
        if shown.get("joint") != decision.suggestion.joint or shown.get("implied"):
            continue
        if shown.get("verdict") in (Verdict.ACCEPT.value, Verdict.REJECT.value):
            continue
        missing = [k for k in ("id", "segment", "partner", "point_nm") if not shown.get(k)]
        if missing:
            raise BadRequestError(
                f"A join that is closed by 'none of these' lacks {', '.join(missing)}, got {shown}."
            )
        segment, partner = str(segment_id(shown["segment"])), str(segment_id(shown["partner"]))
        site = AnsweredSite(shown["id"], Kind.JOIN, segment, partner, Verdict.REJECT)
        found.setdefault(site.id, site)
    return tuple(found.values())


def decision_to_text(decision: Decision) -> str:
    """One line of JSON; segment ids as text.

    Raises:
        BadRequestError: Something in it is not a finite number or not JSON.
    """
    a, b = decision.supervoxels
    document: dict[str, Any] = {
        "suggestion": decision.suggestion.to_json(),
        "verdict": decision.verdict.value,
        **{name: getattr(decision, name) for name in (*_PLAIN, *_PLAIN_WITH_DEFAULT)},
        "base_rate": decision.base_rate.to_json(),
        "alternatives": list(decision.alternatives),
        "supervoxels": [str(a), None if b is None else str(b)],
        "propensity": decision.propensity,
    }
    if decision.current_roots is not None:
        document["current_roots"] = [str(r) for r in decision.current_roots]
    try:
        return json.dumps(document, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError) as e:
        raise BadRequestError(
            f"The decision {decision.idempotency_key!r} cannot be written down: {e}."
        ) from None


def decision_from_text(text: str) -> Decision:
    """Read what `decision_to_text` wrote.

    Raises:
        LabelError: The text is damaged.
    """
    try:
        return _decision(json.loads(text))
    except (KeyError, TypeError, ValueError, AssistError) as e:
        raise LabelError(
            f"A stored decision cannot be read ({type(e).__name__}: {e}). "
            "Check the file with `cb2-assist labels verify`."
        ) from None


def reason_to_text(reason: str) -> str:
    """The body of a reason event."""
    return json.dumps({"reason": reason}, separators=(",", ":"))


def reason_from_text(text: str) -> str:
    """Read what `reason_to_text` wrote.

    Raises:
        LabelError: The text is damaged.
    """
    try:
        reason = json.loads(text)["reason"]
    except (KeyError, TypeError, ValueError) as e:
        raise LabelError(
            f"A stored reason cannot be read ({type(e).__name__}: {e}). "
            "Check the file with `cb2-assist labels verify`."
        ) from None
    return str(reason)


def _decision(d: dict[str, Any]) -> Decision:
    a, b = d["supervoxels"]
    rate = d["base_rate"]
    return Decision(
        suggestion=_suggestion(d["suggestion"]),
        verdict=Verdict(d["verdict"]),
        base_rate=BaseRate(rate["value"], rate["source"], rate["n"]),
        alternatives=tuple(d["alternatives"]),
        supervoxels=(segment_id(a), _optional_id(b)),
        propensity=d["propensity"],
        current_roots=tuple(map(segment_id, d["current_roots"])) if "current_roots" in d else None,
        **{name: d[name] for name in _PLAIN},
        **{name: d[name] for name in _PLAIN_WITH_DEFAULT if name in d},
    )


def _suggestion(d: dict[str, Any]) -> Suggestion:
    lo, hi = d["interval"]
    site = Site(
        Kind(d["kind"]),
        segment_id(d["segment"]),
        _optional_id(d["partner"]),
        PointNm.of(d["point_nm"]),
    )
    return Suggestion(
        id=d["id"],
        site=site,
        reason=d["reason"],
        score=d["score"],
        confidence=d["confidence"],
        interval=(lo, hi),
        ood=Ood(d["ood"]["percentile"], d["ood"]["flag"]),
        views=tuple(ViewScore(v["name"], v["score"]) for v in d["evidence"]["views"]),
        prior=d.get("prior"),
        joint=d.get("joint"),
        affinity=d.get("affinity"),
        supervoxels=_sides(d.get("supervoxels")),
    )


def _sides(value: list[str | None] | None) -> tuple[SegmentId, SegmentId | None] | None:
    if value is None:
        return None
    a, b = value
    return segment_id(a), _optional_id(b)


def _optional_id(value: str | None) -> SegmentId | None:
    return None if value is None else segment_id(value)
