"""What the queue holds, as one document for `queue status` and `queue next`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from cb2_assist.core.records import Decision, Draw, Kind
from cb2_assist.labels.queue_store import Fill, NewDraw, QueueItem, QueueState, QueueStore, Scope
from cb2_assist.labels.store import Flagged
from cb2_assist.learning.missed_in_queue import missed_in
from cb2_assist.learning.queue import DEFAULT_STRATEGY, next_draw


def status_of(
    queue: QueueStore,
    *,
    dataset: str | None,
    user: str,
    now: float,
    flags: Iterable[Flagged] = (),
) -> dict[str, Any]:
    """Counts, leases, fills and the next site of each dataset and version in the queue.

    Args:
        queue: To look into; nothing is written.
        dataset: Only this one.
        user: Whose next site is told.
        now: Unix time.
        flags: Of the same label file; those that nobody has answered are told.
    """
    waiting_flags = [f.event.decision for f in flags if not f.is_answered and f.event.decision]
    tallies = [t for t in queue.tally(now=now) if dataset in (None, t.dataset)]
    places = sorted({(t.dataset, t.version) for t in tallies})
    parts = []
    for name, version in places:
        mine = [t for t in tallies if (t.dataset, t.version) == (name, version)]
        counts = {
            state.value: {k.value: _count(mine, state, k) for k in Kind} for state in QueueState
        }
        fills = queue.fills(name, version)
        open_ones = (QueueState.OPEN, QueueState.SKIPPED, QueueState.AGAIN)
        waiting = [t for t in mine if t.state in open_ones]
        parts.append(
            {
                "dataset": name,
                "version": version,
                "counts": counts,
                "total": sum(t.n for t in mine),
                "oldest_waiting": _time(min((t.oldest for t in waiting), default=None)),
                "leases": [
                    {"site": x.site, "user": x.user, "until": _time(x.until)}
                    for x in queue.leases(name, version, now=now)
                ],
                "flags": [
                    _flag(d) for d in waiting_flags if (d.dataset, d.version) == (name, version)
                ],
                "fills": [_fill(f) for f in fills],
                "strategy": queue.order(default_scope(fills, name, version)) or DEFAULT_STRATEGY,
                "remaining": missed_in(queue, default_scope(fills, name, version), now=now),
                "judged_by": dict(queue.judged_by(name, version)),
                "next": next_site(queue, default_scope(fills, name, version), user, now=now),
            }
        )
    return {"queues": parts}


def default_scope(fills: list[Fill], dataset: str, version: str) -> Scope:
    """Where `q` begins: what was filled last."""
    return fills[0].scope if fills else Scope(dataset, version)


def next_site(
    queue: QueueStore, scope: Scope, user: str, *, now: float, strategy: str | None = None
) -> dict[str, Any] | None:
    """The site that this person's next draw takes; None when nothing waits. Leases nothing."""
    new = next_draw(queue, scope, user, now=now, strategy=strategy)
    item = None if new is None else queue.item(scope.dataset, scope.version, new.site)
    if new is None or item is None:
        return None
    return {**_item(item), "propensity": _propensity(new)}


def drawn_site(queue: QueueStore, scope: Scope, drawn: Draw) -> dict[str, Any] | None:
    """A site that has been drawn, as `next_site` tells it."""
    item = queue.item(scope.dataset, scope.version, drawn.site)
    return None if item is None else {**_item(item), "propensity": drawn.propensity()}


def _count(tallies: list[Any], state: QueueState, kind: Kind) -> int:
    return sum(t.n for t in tallies if t.state is state and t.kind is kind)


def _item(item: QueueItem) -> dict[str, Any]:
    s = item.suggestion.to_json()
    del s["evidence"]
    return {
        **s,
        "base_rate": item.base_rate,
        "model_sha256": item.model_sha256,
        "calibrator": item.calibrator,
    }


def _propensity(new: NewDraw) -> dict[str, Any]:
    """What would be logged; there is no draw yet."""
    draw = Draw(
        0,
        new.site,
        new.scope.text,
        new.strategy,
        new.explore,
        new.floor,
        new.probability,
        new.n_open,
    )
    return {**draw.propensity(), "draw": None}


def _flag(d: Decision) -> dict[str, Any]:
    s = d.suggestion
    return {
        "site": s.id,
        "kind": s.site.kind.value,
        "segment": str(s.site.segment),
        "partner": None if s.site.partner is None else str(s.site.partner),
        "point_nm": s.site.point.to_json(),
        "user": d.user,
        "note": d.note,
        "at": d.decided_at,
    }


def _fill(fill: Fill) -> dict[str, Any]:
    return {
        "scope": fill.scope.words,
        "kind": fill.kind,
        "done": fill.done,
        "total": fill.total,
        "updated_at": _time(fill.updated_at),
    }


def _time(unix: float | None) -> str | None:
    return None if unix is None else datetime.fromtimestamp(unix, UTC).isoformat(timespec="seconds")
