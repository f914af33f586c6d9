"""Checks everything that is kept of a person's work: the events and the views."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cb2_assist.core.errors import LabelError
from cb2_assist.core.records import Decision
from cb2_assist.labels.store import LabelStore
from cb2_assist.labels.views_store import ViewsStore
from cb2_assist.views.stack import content_sha256, from_bytes


@dataclass(frozen=True, slots=True)
class Verification:
    """What was looked at, and what is wrong with it."""

    url: str
    events: int
    views: int
    problems: tuple[str, ...]
    """In words; empty when nothing is wrong."""

    def to_json(self) -> dict[str, Any]:
        """For `labels verify --json`."""
        return {
            "url": self.url,
            "events": self.events,
            "views": self.views,
            "ok": not self.problems,
            "problems": list(self.problems),
        }


def verify_labels(store: LabelStore) -> Verification:
    """Check a label store and the views beside it; reads all of both."""
    kept = ViewsStore(store.views_folder)
    events, problems = 0, store.verify()
    try:
        for event in store.events():
            events += 1
            problems.extend(
                f"event {event.id} names the views {address[:12]}…, which are not in {kept.folder}"
                for address in _addresses_of(event.decision)
                if not kept.has(address)
            )
    except LabelError as e:
        # `verify` has said so of each one; counting stops at the first
        problems = problems or [str(e)]
    wrong = list(_wrong_views(kept))
    n_views = sum(1 for _ in kept.addresses())
    return Verification(store.url, events, n_views, (*problems, *wrong))


def _addresses_of(decision: Decision | None) -> list[str]:
    if decision is None:
        return []
    named = [decision.views_sha256, *(a.get("views_sha256") for a in decision.alternatives)]
    return list(dict.fromkeys(address for address in named if address is not None))


def _wrong_views(kept: ViewsStore) -> Iterator[str]:
    for address in kept.addresses():
        try:
            found = content_sha256(from_bytes(kept.get(address)))
        except LabelError as e:
            yield f"views {address[:12]}…: {e}"
            continue
        if found != address:
            yield f"views {address[:12]}… hold what belongs to {found[:12]}…"
