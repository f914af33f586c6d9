"""Checks everything that is kept of a person's work: the events and the views."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cb2_assist.core.errors import LabelError
from cb2_assist.core.records import Decision
from cb2_assist.labels.store import LabelStore
from cb2_assist.labels.team_url import VIEWS, is_team_url
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
    notes: tuple[str, ...] = ()
    """What could not be looked at here."""

    def to_json(self) -> dict[str, Any]:
        """For `labels verify --json`."""
        return {
            "url": self.url,
            "events": self.events,
            "views": self.views,
            "ok": not self.problems,
            "problems": list(self.problems),
            "notes": list(self.notes),
        }


def verify_labels(store: LabelStore, *, views_elsewhere: bool = False) -> Verification:
    """Check a label store and the views beside it; reads all of both.

    Args:
        store: May be in use.
        views_elsewhere: Views that are not here may lie with those who decided.
    """
    kept = ViewsStore(store.views_folder)
    events, problems = 0, store.verify()
    absent: list[str] = []
    try:
        for event in store.events():
            events += 1
            absent.extend(
                f"event {event.id} names the views {address[:12]}…, which are not in {kept.folder}"
                for address in _addresses_of(event.decision)
                if not kept.has(address)
            )
    except LabelError as e:
        # `verify` has said so of each one; counting stops at the first
        problems = problems or [str(e)]
    notes: tuple[str, ...] = ()
    if absent and (views_elsewhere or is_team_url(store.url)):
        notes = (
            f"{len(absent)} views that events name are not in {kept.folder}: they lie with those "
            f"who decided ({VIEWS} names a folder that a team shares)",
        )
    else:
        problems += absent
    wrong = list(_wrong_views(kept))
    n_views = sum(1 for _ in kept.addresses())
    return Verification(store.url, events, n_views, (*problems, *wrong), notes)


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
