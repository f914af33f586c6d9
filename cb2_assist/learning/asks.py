"""Sites that several people are to answer: a share of the queue, and those they disagree on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import Decision, Kind, Ood, Site, Suggestion, segment_id
from cb2_assist.labels.queue_store import Ask, QueueItem, QueueStore, Scope

DISAGREEMENTS, OVERLAP = "disagreements", "overlap"
"""Names of `Scope.source`."""


def source_of(propensity: Mapping[str, Any]) -> str:
    """Why a site was asked again, from how it came to be asked; empty where it was not."""
    try:
        scope = json.loads(propensity.get("scope") or "{}")
    except (TypeError, ValueError):
        return ""
    return str(scope.get("source", "")) if isinstance(scope, dict) else ""


def ask_overlap(queue: QueueStore, scope: Scope, *, share: float, people: int, now: float) -> int:
    """Have a share of the sites that wait answered by several people; returns how many are new.

    Which ones follows from the site's name alone, so that the same share of a queue that has grown
    takes the same sites and more.

    Args:
        queue: Of a label file.
        scope: Where.
        share: 0..1.
        people: Different people, 2 at least for any comparison.
        now: Unix time.
    """
    asks = [
        Ask(scope.dataset, scope.version, w.site, OVERLAP, people)
        for w in queue.waiting(scope, now=now)
        if _chance(w.site) < share
    ]
    return queue.ask_again(asks, now=now)


def _chance(site: str) -> float:
    digest = hashlib.sha256(f"{OVERLAP} {site}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def ask_disagreements(
    queue: QueueStore,
    found: Iterable[tuple[Decision, str, Sequence[str]]],
    *,
    after_event: int,
    now: float,
) -> int:
    """Put sites on the desk, for one more person each; returns how many are new there.

    Args:
        queue: Of the label file whose server shows them.
        found: A decision on the site, its `Suggestion.id`, and who has answered it.
        after_event: The last event of that file before.
        now: Unix time.
    """
    asks: dict[tuple[str, str], list[Ask]] = {}
    items: dict[tuple[str, str], list[QueueItem]] = {}
    for decision, site, people in found:
        place = (decision.dataset, decision.version)
        asks.setdefault(place, []).append(
            Ask(*place, site, DISAGREEMENTS, 1, after_event, tuple(sorted(people)))
        )
        if queue.item(*place, site) is None:
            items.setdefault(place, []).append(item_of(decision, site))
    n = 0
    for place, asked in asks.items():
        scope = Scope(*place, source=DISAGREEMENTS)
        begun = queue.begin_fill(scope, None, "agreement", len(asked), now=now)
        queue.put(begun.id, items.get(place, ()), done=len(asked), now=now)
        n += queue.ask_again(asked, now=now)
    return n


def item_of(d: Decision, site: str) -> QueueItem:
    """A decided site as the queue would have had it; members of *none* are among what was shown."""
    s = d.suggestion
    if s.id != site:
        s = _suggestion(next(a for a in d.alternatives if a["id"] == site))
    return QueueItem(d.dataset, d.version, s, d.base_rate.value, d.model_sha256, d.calibrator)


def _suggestion(shown: Mapping[str, Any]) -> Suggestion:
    partner = shown["partner"]
    question = Site(
        Kind(shown["kind"]),
        segment_id(shown["segment"]),
        None if partner is None else segment_id(partner),
        PointNm.of(shown["point_nm"]),
    )
    low, high = shown["interval"]
    ood = shown["ood"]
    return Suggestion(
        id=shown["id"],
        site=question,
        reason=shown.get("reason", ""),
        score=shown["score"],
        confidence=shown["confidence"],
        interval=(low, high),
        ood=Ood(ood["percentile"], ood["flag"]),
        views=(),
        prior=shown.get("prior"),
        joint=shown.get("joint"),
    )
