"""What a graph says of the objects that are asked about, read while the voxels are looked through.

The odd places of an object follow from its id alone, so they are worked out once and kept. A
person who waits for a list does not wait for a whole neuron longer than `PLACES_S`: the list comes
without, says so, and the next one has it.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

from cb2_assist.candidates.along import Whole, next_end
from cb2_assist.candidates.arbour import Place, places_on
from cb2_assist.core.errors import AssistError
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.patience import patience
from cb2_assist.core.records import SegmentId
from cb2_assist.datasets.source import GraphSource
from cb2_assist.settings import MOST_DRAWN_PARTS, SEARCH_RADIUS_NM

EDGES_S = 5.0
"""Longest wait for what a graph says of contacts that the voxels have shown already."""
PLACES_S = 3.0
"""Longest wait for the odd places of an object, from when it was asked about."""
_KEPT = 32
_THREADS = 4

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Places:
    places: Sequence[Place]
    chunk_nm: tuple[float, float, float]
    parts: int


class Asked:
    """One question about one object, under way."""

    def __init__(
        self, at: PointNm, places: Future[_Places], edges: Future[dict[SegmentId, float]]
    ) -> None:
        self._at, self._places, self._edges = at, places, edges
        self._began = time.monotonic()
        self._known = Whole()
        self._is_late = False
        self._parts = 0

    def wait(self) -> Whole:
        """What is known in time."""
        affinity = _within(self._edges, self._left(EDGES_S)) or {}
        found = _within(self._places, self._left(PLACES_S))
        self._is_late = found is None
        self._parts = 0 if found is None else found.parts
        known = Whole() if found is None else Whole(found.places, found.chunk_nm)
        self._known = replace(known, affinity=affinity)
        return self._known

    @property
    def note(self) -> str:
        """What a person should know about the object beyond the list, once it was waited for."""
        if self._is_late:
            return (
                "The graph of the whole object is still being read, or cannot be: its ends and odd "
                "places are not on this list. Press p again."
            )
        said = []
        end = next_end(self._known, self._at)
        near_nm = SEARCH_RADIUS_NM + self._known.off_nm
        if end is not None and self._at.distance_nm(end.at) > near_nm:
            x, y, z = (f"{v:.0f}" for v in end.at)
            said.append(
                f"The next end of this object is {self._at.distance_nm(end.at) / 1000:.1f} µm "
                f"away, at {x}, {y}, {z} nm: q searches along the object from here, / goes there."
            )
        if self._parts > MOST_DRAWN_PARTS:
            said.append(
                f"Of its surface at most {MOST_DRAWN_PARTS:,} of {self._parts:,} parts are drawn."
            )
        return " ".join(said)

    def _left(self, limit_s: float) -> float:
        return max(0.0, self._began + limit_s - time.monotonic())


class WholeObjects:
    """Asks one graph. Safe to use from several threads."""

    def __init__(self, graph: GraphSource) -> None:
        self._graph = graph
        self._pool = ThreadPoolExecutor(_THREADS, "whole")
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._kept: OrderedDict[SegmentId, Future[_Places]] = OrderedDict()

    def ask(self, segment: SegmentId, at: PointNm) -> Asked:
        """Begin to ask about an object near a point."""
        # nobody needs the edges once something newer is asked; the places serve again
        here = contextvars.copy_context()
        edges = self._pool.submit(here.run, self._affinities, segment, at)
        with self._lock:
            places = self._kept.get(segment)
            if places is None or _has_failed(places):
                places = self._kept[segment] = self._pool.submit(self._read, segment)
            self._kept.move_to_end(segment)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return Asked(at, places, edges)

    def close(self) -> None:
        """Ask nothing more, and wait for nothing."""
        self._closed.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _read(self, segment: SegmentId) -> _Places:
        with patience(is_over=self._closed.is_set):
            arbour = self._graph.arbour(segment)
        return _Places(places_on(arbour), arbour.chunk_nm, len(arbour.points))

    def _affinities(self, segment: SegmentId, at: PointNm) -> dict[SegmentId, float]:
        strongest: dict[SegmentId, float] = {}
        for edge in self._graph.neighbours(segment, at, SEARCH_RADIUS_NM) or ():
            strongest.setdefault(edge.segment, edge.affinity)
        return strongest


def _within(future: Future[T], seconds: float) -> T | None:
    try:
        return future.result(seconds)
    except (AssistError, TimeoutError, CancelledError):
        return None


def _has_failed(future: Future[_Places]) -> bool:
    return future.done() and (future.cancelled() or future.exception() is not None)
