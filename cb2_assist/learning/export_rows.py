"""One label in force as one flat row, and which rows an export takes."""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from collections.abc import Iterator
from typing import Any

from cb2_assist.core.edits import Operations
from cb2_assist.core.records import Decision, Verdict
from cb2_assist.labels.store import Label, LabelState, LabelStore
from cb2_assist.learning.export_filter import EVERYTHING, Wanted

Row = dict[str, Any]

COLUMNS = (
    "event_id",
    "label_id",
    "suggestion_id",
    "kind",
    "segment",
    "partner",
    "point_nm",
    "score",
    "confidence",
    "interval",
    "ood",
    "rank",
    "supervoxels",
    "views_sha256",
    "verdict",
    "label",
    "reject_reason",
    "joint",
    "base_rate",
    "dataset",
    "version",
    "species",
    "licence",
    "model",
    "calibrator",
    "user",
    "propensity",
    "score_hidden",
    "shown_at",
    "decided_at",
    "idle_ms",
    "n_alternatives",
    "timestamp",
    "cb2_split",
    "note",
    "operation_id",
    "operations",
)
"""Keys of a row, in order. Later versions add at the end."""


def label_rows(
    store: LabelStore,
    *,
    dataset: str | None = None,
    wanted: Wanted = EVERYTHING,
    with_names: bool = False,
    skipped: Counter[str] | None = None,
) -> Iterator[Row]:
    """The rows of an export, oldest first, in bounded memory (flags and applied edits are kept).

    ``note`` is what the person wrote when they flagged the site, if they did. ``operations`` are
    those of the graph's server that came of the person's answers on the site, undo and redo too;
    ``operation_id`` is the number of the one that made what was accepted, while that is so.

    Args:
        store: Where the labels are.
        dataset: Only this one.
        wanted: Which of its labels.
        with_names: Real user names in place of pseudonyms.
        skipped: Counts answers that are no labels, by reason.
    """
    notes = {}
    for flagged in store.flags(dataset=dataset):
        d = flagged.event.decision
        if d is not None:
            notes[d.dataset, d.version, d.suggestion.id, flagged.event.user] = d.note
    operations = store.edits.operations(dataset)
    for label in store.labels(dataset=dataset):
        if label.state is not LabelState.IN_FORCE:
            reason = label.state.value
        elif not label.verdict.is_label:
            reason = label.verdict.value
        else:
            row = _row(store, label, with_names)
            row["cb2_split"] = wanted.cubes.split_of(row["dataset"], row["point_nm"])
            key = (row["dataset"], row["version"], label.site, label.event.user)
            row["note"] = notes.get(key)
            done = operations.get(key, Operations())
            row["operation_id"] = None if done.in_force is None else str(done.in_force)
            row["operations"] = [operation.to_json() for operation in done.made]
            refusal = wanted.refusal(row, _names(store, label))
            if refusal is None:
                yield row
                continue
            reason = refusal
        if skipped is not None:
            skipped[reason] += 1


def pseudonym(user: str, salt: bytes) -> str:
    """A name that stays the same for one label file and does not lead back to the person.

    Returns:
        ``user-`` and 12 hex digits of HMAC-SHA-256.
    """
    return f"user-{hmac.new(salt, user.encode(), hashlib.sha256).hexdigest()[:12]}"


def _row(store: LabelStore, label: Label, with_names: bool) -> Row:
    event, d = label.event, label.event.decision
    assert d is not None
    site = site_columns(label, d)
    propensity = site.pop("propensity")
    return {
        "event_id": event.id,
        "label_id": _label_id(label, d, store.salt),
        **site,
        "verdict": label.verdict.value,
        "label": int(label.verdict is Verdict.ACCEPT),
        "reject_reason": label.reason,
        "joint": d.verdict is Verdict.NONE,
        "base_rate": d.base_rate.to_json(),
        "dataset": d.dataset,
        "version": d.version,
        "species": d.species,
        "licence": d.licence,
        "model": {"name": d.model_name, "sha256": d.model_sha256},
        "calibrator": d.calibrator,
        "user": event.user if with_names else pseudonym(event.user, store.salt),
        "propensity": propensity,
        "score_hidden": d.score_hidden,
        "shown_at": d.shown_at,
        "decided_at": d.decided_at,
        "idle_ms": d.idle_ms,
        "n_alternatives": len(d.alternatives),
        "timestamp": d.timestamp or None,
    }


def _names(store: LabelStore, label: Label) -> tuple[str, str]:
    """Both names that a person goes by."""
    return label.event.user, pseudonym(label.event.user, store.salt)


def _label_id(label: Label, d: Decision, salt: bytes) -> str:
    """Names one person's answer on one site: the same in every export of one label file."""
    text = f"{d.dataset}|{d.version}|{label.site}|{label.event.user}"
    return hmac.new(salt, text.encode(), hashlib.sha256).hexdigest()[:16]


def site_columns(label: Label, d: Decision) -> Row:
    """The decision's own site, or the alternative that *none* closed."""
    if label.site == d.suggestion.id:
        s = d.suggestion.to_json()
        a, b = d.supervoxels
        rank: int | None = d.rank
        ood = s["ood"]
        supervoxels: list[str | None] | None = [str(a), None if b is None else str(b)]
        views = d.views_sha256
        propensity = d.propensity
    else:
        rank, s = next((i, s) for i, s in enumerate(d.alternatives) if s["id"] == label.site)
        ood = s.get("ood")
        supervoxels = s.get("supervoxels")
        views = s.get("views_sha256")
        propensity = s.get("propensity", d.propensity)
    return {
        "suggestion_id": label.site,
        "kind": s["kind"],
        "segment": s["segment"],
        "partner": s["partner"],
        "point_nm": s["point_nm"],
        "score": s.get("score"),
        "confidence": s.get("confidence"),
        "interval": s.get("interval"),
        "ood": ood,
        "rank": rank,
        "supervoxels": supervoxels,
        "views_sha256": views,
        "propensity": propensity,
    }
