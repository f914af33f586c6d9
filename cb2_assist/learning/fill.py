"""Goes over a part of a dataset, proposes and judges sites, and puts them in the queue."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from cb2_assist.core.errors import BackgroundError, OutOfBoundsError, SegmentNotFoundError
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import Kind, SegmentId, Suggestion, SuggestionList
from cb2_assist.labels.queue_store import QueueItem, QueueStore, Scope, SiteSignals
from cb2_assist.learning.cover import Stop
from cb2_assist.settings import MAX_CANDIDATES
from cb2_assist.views.features import FEATURE_NAMES

if TYPE_CHECKING:
    from cb2_assist.suggestions.pipeline import Signals


class Judge(Protocol):
    """Proposes and judges; the assistant."""

    @property
    def judge(self) -> str:
        """Names model and calibrator: the same text, the same numbers."""

    def suggest(
        self,
        at: PointNm,
        segment: SegmentId | None,
        kind: Kind | None = None,
        limit: int = MAX_CANDIDATES,
        *,
        known: Callable[[Mapping[str, str | None]], set[str]] | None = None,
    ) -> SuggestionList:
        """Ranked suggestions at a point, without those that are known."""

    def signals_of(self, suggestion_id: str) -> Signals | None:
        """Features and embedding of a recent suggestion."""


@dataclass(frozen=True, slots=True)
class FillProgress:
    """How far a fill has come."""

    done: int
    total: int
    """Stops."""
    new: int
    updated: int
    """Sites that were not there before, and those whose numbers are others now."""
    missed: int
    """Stops at which nothing could be proposed."""
    left_s: float | None
    """Expected; None before the first stop."""


def fill(
    judge: Judge,
    queue: QueueStore,
    scope: Scope,
    stops: Sequence[Stop],
    *,
    kind: Kind | None = None,
    limit: int | None = None,
    on_progress: Callable[[FillProgress], None] = lambda _p: None,
    stop: threading.Event | None = None,
    before_each: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.time,
) -> FillProgress:
    """Ask at every stop and keep each site once. Each stop is durable when the next begins.

    What this model has judged before, from another stop or in another fill, is not judged again.

    A fill that was broken off goes on where it stopped when it is called with the same scope,
    stops, kind and model.

    Args:
        judge: Proposes and judges, exactly as for the page.
        queue: Where sites go.
        scope: Only sites inside are kept.
        stops: Where to ask.
        kind: Only this question; None for both.
        limit: Stop after so many new sites.
        on_progress: Called after every stop.
        stop: Break off after the stop under way when it is set.
        before_each: Called before every stop, e.g. to let a person go first.
        clock: Unix time.

    Raises:
        DatasetError: Data cannot be read; what was found so far is kept.
        LabelError: The label file cannot be written; what was found so far is kept.
    """
    # the pointer into the stops means something only with the same stops
    name = f"{judge.judge} {_digest(stops)}"
    begun = queue.begin_fill(scope, kind, name, len(stops), now=clock())
    state = FillProgress(begun.done, len(stops), 0, 0, 0, None)
    started = time.monotonic()
    for n in range(begun.done, len(stops)):
        if (stop is not None and stop.is_set()) or (limit is not None and state.new >= limit):
            break
        before_each()
        items, ends, missed = _ask(judge, queue, scope, stops[n], kind)
        # before the sites: what can be drawn has them
        queue.put_signals(scope.dataset, scope.version, signals_of(judge, items))
        kept = items
        if limit is not None:
            kept = items[: _within_limit(queue, items, limit - state.new)]
        # a stop of which something was left out is asked again when the fill goes on
        done = n + (len(kept) == len(items))
        added = queue.put(begun.id, kept, ends=ends, done=done, now=clock())
        spent = (time.monotonic() - started) / (n + 1 - begun.done)
        state = FillProgress(
            done,
            len(stops),
            state.new + added.new,
            state.updated + added.updated,
            state.missed + missed,
            spent * (len(stops) - n - 1),
        )
        on_progress(state)
    return state


def _digest(stops: Sequence[Stop]) -> str:
    text = repr([(s.segment, tuple(s.at)) for s in stops])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def items_of(found: SuggestionList, scope: Scope) -> list[QueueItem]:
    """A list's suggestions that lie in a scope, as the queue keeps them."""
    return [
        QueueItem(
            found.dataset,
            found.version,
            suggestion,
            found.base_rates[suggestion.site.kind].value,
            found.model_sha256,
            found.calibrator,
        )
        for suggestion in found.suggestions
        if _is_within(suggestion, scope)
    ]


def signals_of(judge: Judge, items: Sequence[QueueItem]) -> dict[str, SiteSignals]:
    """What strategies look at, of sites that were judged just now."""
    out = {}
    for item in items:
        found = judge.signals_of(item.suggestion.id)
        if found is None:
            continue
        area, small, big = (
            float(np.exp(found.features[FEATURE_NAMES.index(name)]))
            for name in ("log_area", "log_small", "log_big")
        )
        embedding = found.embedding
        out[item.suggestion.id] = SiteSignals(
            item.suggestion.score,
            area,
            small,
            big,
            tuple(v.score for v in item.suggestion.views),
            None if embedding is None else embedding.astype("<f2").tobytes(),
        )
    return out


def _ask(
    judge: Judge, queue: QueueStore, scope: Scope, stop: Stop, kind: Kind | None
) -> tuple[list[QueueItem], dict[str, str], int]:
    """Items of a stop, the joint sets of all that was found there, and whether nothing could be."""
    ends: dict[str, str] = {}

    def known(found: Mapping[str, str | None]) -> set[str]:
        ends.update({site: joint for site, joint in found.items() if joint is not None})
        return queue.known(scope.dataset, scope.version, list(found), judge.judge)

    try:
        found = judge.suggest(stop.at, stop.segment, kind, known=known)
    except (BackgroundError, OutOfBoundsError, SegmentNotFoundError):
        return [], {}, 1
    return items_of(found, scope), ends, 0


def _is_within(suggestion: Suggestion, scope: Scope) -> bool:
    site = suggestion.site
    if scope.segments and not {site.segment, site.partner} & set(scope.segments):
        return False
    if scope.box_nm is None:
        return True
    lo, hi = scope.box_nm
    return all(a <= v < b for a, v, b in zip(lo, site.point, hi, strict=True))


def _within_limit(queue: QueueStore, items: list[QueueItem], most_new: int) -> int:
    """How many of the items can be kept before there are too many new ones."""
    new = 0
    for n, item in enumerate(items):
        new += queue.item(item.dataset, item.version, item.suggestion.id) is None
        if new > most_new:
            return n
    return len(items)
