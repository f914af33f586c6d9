"""Edits of the graph: merge, split, undo, redo, and the log of them, which only grows.

Order of checks, use of operation numbers and words of refusals follow PyChunkedGraph 2.21: a number
is drawn before an edit is tried, so that a refused one uses it up; an edit that has no effect (an
undo of what is undone) draws none.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from cb2_assist.standin.errors import ApiError, bad_request
from cb2_assist.standin.graph import Box, ChunkedGraph, Indices, Switch
from cb2_assist.standin.mincut import Cut, cut_between

REACH_VX = (240, 240, 24)
"""How far around its points an edit looks at the graph (``bb_offset`` in its details)."""
_FARTHEST_CHUNKS = 3
_SAME_OBJECT = "Supervoxels must belong to the same object."

Voxel = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Placed:
    """A point of an edit: the supervoxel that it means, and where it is.

    Attributes:
        voxel: As clients get it back, absolute voxels.
    """

    supervoxel: int
    voxel: Voxel


@dataclass(frozen=True, slots=True)
class Operation:
    """One edit that took place.

    Attributes:
        at: Seconds since 1970, whole milliseconds.
        pairs: Supervoxels of the edges that it names: the one that a merge was asked for, all that
            a split removed.
        switches: Edges that it turned, which for a merge are more than it names.
        before: Roots that it retired.
        after: Roots that it made.
        undoes: Operation that this one reverts.
        redoes: Operation that this one repeats.
    """

    number: int
    at: float
    user: str
    is_merge: bool
    pairs: tuple[tuple[int, int], ...]
    switches: tuple[Switch, ...]
    sources: tuple[Placed, ...]
    sinks: tuple[Placed, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    undoes: int | None = None
    redoes: int | None = None

    @property
    def ends(self) -> tuple[int, ...]:
        """Supervoxels of its edges."""
        return tuple(v for pair in self.pairs for v in pair)


@dataclass(frozen=True, slots=True)
class Preview:
    """What a split would leave.

    Attributes:
        parts: Supervoxels of each part near the points: with sources, with sinks, any others.
        illegal: Whether a set of points would be torn apart.
    """

    parts: tuple[tuple[int, ...], ...]
    illegal: bool


@dataclass(slots=True)
class Editor:
    """Takes edits of one graph, one at a time.

    Attributes:
        operations: What took place, by number.
        clock: Seconds since 1970.
    """

    graph: ChunkedGraph
    clock: Callable[[], float] = time.time
    operations: dict[int, Operation] = field(default_factory=dict)
    _drawn: int = 0
    _latest: float = 0.0

    def merge(self, one: Placed, other: Placed, user: str) -> Operation:
        """Join the objects of two supervoxels, by all contacts of the two near the points.

        Raises:
            ApiError: They are one object already, or too far apart.
        """
        apart = [self.graph.ids.chunk(p.supervoxel) for p in (one, other)]
        if max(abs(a - b) for a, b in zip(*apart, strict=True)) > _FARTHEST_CHUNKS:
            raise bad_request(
                "Chebyshev distance between merge points exceeded allowed maximum "
                f"({_FARTHEST_CHUNKS} chunks)."
            )
        number = self._draw()
        roots = [self.graph.ancestor(p.supervoxel) for p in (one, other)]
        if roots[0] == roots[1]:
            raise bad_request("Supervoxels must belong to different objects.")
        ends = [self._position(p.supervoxel) for p in (one, other)]
        asked = self.graph.edge_of(ends[0], ends[1])
        box = self._around([one, other])
        left, right = (self.graph.members(r, box) for r in roots)
        others = self.graph.edges_between(left, right).tolist()
        switches = tuple(Switch(e, on=True) for e in sorted({asked, *others}))
        pair = (one.supervoxel, other.supervoxel)
        return self._apply(
            number, user, switches, is_merge=True, pairs=(pair,), sources=(one,), sinks=(other,)
        )

    def split(self, sources: Sequence[Placed], sinks: Sequence[Placed], user: str) -> Operation:
        """Cut an object between two sets of supervoxels.

        Raises:
            ApiError: They are not of one object, or there is no such cut.
        """
        number = self._draw()
        edges, cut = self._cut(sources, sinks)
        removed = edges[cut.removed]
        pairs = self.graph.supervoxels[self.graph.pairs(removed)].tolist()
        return self._apply(
            number,
            user,
            tuple(Switch(e, on=False) for e in removed.tolist()),
            is_merge=False,
            pairs=tuple((a, b) for a, b in pairs),
            sources=tuple(sources),
            sinks=tuple(sinks),
        )

    def preview(self, sources: Sequence[Placed], sinks: Sequence[Placed]) -> Preview:
        """What `split` would do near the points; nothing is changed.

        Raises:
            ApiError: As `split` does.
        """
        members = self._near(sources, sinks)
        _, cut = self._cut(sources, sinks)
        ids = self.graph.supervoxels[members]
        first, second = (
            cut.part[np.searchsorted(members, self._positions(side))[0]]
            for side in (sources, sinks)
        )
        rest = [p for p in np.unique(cut.part) if p not in (first, second)]
        parts = [tuple(ids[cut.part == p].tolist()) for p in (first, second, *rest)]
        return Preview(tuple(parts), not cut.clean)

    def undo(self, number: int, user: str) -> Operation | None:
        """Revert an edit; an undo is redone, a redo is undone. None when that is so already."""
        return self._turn_back(number, user, wanted=False)

    def redo(self, number: int, user: str) -> Operation | None:
        """Repeat an edit that was undone; None when it was not."""
        return self._turn_back(number, user, wanted=True)

    def _turn_back(self, number: int, user: str, *, wanted: bool) -> Operation | None:
        found = self.operations.get(number)
        if found is None:
            raise ApiError(500, "Could not determine graph operation type.")
        while found.undoes is not None or found.redoes is not None:
            if found.undoes is not None:
                wanted = not wanted
            found = self.operations[found.undoes or found.redoes or 0]
        if self._is_done(found.number) == wanted:
            return None
        switches = tuple(
            Switch(s.edge, s.on == wanted)
            for s in found.switches
            if self.graph.is_on(s.edge) != (s.on == wanted)
        )
        if not switches:
            return None
        return self._apply(
            self._draw(),
            user,
            switches,
            is_merge=found.is_merge == wanted,
            pairs=found.pairs,
            sources=found.sources,
            sinks=found.sinks,
            undoes=None if wanted else found.number,
            redoes=found.number if wanted else None,
        )

    def _is_done(self, number: int) -> bool:
        done = True
        for operation in self.operations.values():
            if number in (operation.undoes, operation.redoes):
                done = operation.redoes is not None
        return done

    def _apply(
        self,
        number: int,
        user: str,
        switches: tuple[Switch, ...],
        *,
        is_merge: bool,
        pairs: tuple[tuple[int, int], ...],
        sources: tuple[Placed, ...],
        sinks: tuple[Placed, ...],
        undoes: int | None = None,
        redoes: int | None = None,
    ) -> Operation:
        # later than all before, also where several fall into one millisecond
        at = max(math.floor(self.clock() * 1000) / 1000, round(self._latest + 0.001, 3))
        self._latest = at
        ends = {int(v) for s in switches for v in self.graph.pairs(np.array([s.edge]))[0]}
        before = sorted({self.graph.ancestor(int(self.graph.supervoxels[v])) for v in ends})
        after = self.graph.apply(switches, number, at)
        done = Operation(
            number=number,
            at=at,
            user=user,
            is_merge=is_merge,
            pairs=pairs,
            switches=switches,
            sources=sources,
            sinks=sinks,
            before=tuple(before),
            after=tuple(after),
            undoes=undoes,
            redoes=redoes,
        )
        self.operations[number] = done
        return done

    def _cut(self, sources: Sequence[Placed], sinks: Sequence[Placed]) -> tuple[Indices, Cut]:
        members = self._near(sources, sinks)
        edges = self.graph.edges_within(members)
        ends = np.searchsorted(members, self.graph.pairs(edges))
        left, right = (np.searchsorted(members, self._positions(side)) for side in (sources, sinks))
        cut = cut_between(len(members), ends, self.graph.affinity(edges), left, right)
        return edges, cut

    def _near(self, sources: Sequence[Placed], sinks: Sequence[Placed]) -> Indices:
        """Supervoxels near the points of the one object that they are all in."""
        placed = [*sources, *sinks]
        roots = {self.graph.ancestor(p.supervoxel) for p in placed}
        if len(roots) != 1:
            raise bad_request(_SAME_OBJECT)
        near = self.graph.members(roots.pop(), self._around(placed))
        return np.union1d(near, self._positions(placed))

    def _around(self, placed: Sequence[Placed]) -> Box:
        voxels = np.array([p.voxel for p in placed], np.int64)
        reach = np.array(REACH_VX, np.int64)
        return Box(voxels.min(axis=0) - reach, voxels.max(axis=0) + reach)

    def _positions(self, placed: Sequence[Placed]) -> Indices:
        return np.unique([self._position(p.supervoxel) for p in placed]).astype(np.int64)

    def _position(self, supervoxel: int) -> int:
        at = self.graph.position(supervoxel)
        if at is None:
            raise ApiError(500, f"Cannot find root id {supervoxel}")
        return at

    def _draw(self) -> int:
        self._drawn += 1
        return self._drawn
