"""The chunked graph: supervoxels, their edges, and the nodes above them, with all their history.

Nothing is ever taken away. A node keeps its children for good; a child keeps every parent that it
had, and since when; an edge keeps when it was on and off. So the graph can be asked about at any
time, and the id of an object names exactly the supervoxels that it had when the id was new.
"""

from __future__ import annotations

import bisect
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cb2_assist.standin.node_ids import LEVEL2, Chunk, Ids, NodeIds

Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]

FIRST_TIME = 1577836800.0
"""When the graph was made as far as clients can see: 2020-01-01 UTC."""

_ROOT_COUNTERS = 256
"""Roots of edits draw their numbers from so many counters at random, so that they do not grow."""


@dataclass(frozen=True, slots=True)
class Watershed:
    """What a graph is made from.

    Attributes:
        supervoxels: Ids of layer 1, ascending.
        pairs: int64 (n, 2), positions in `supervoxels` of two that touch, each pair once.
        affinity: float32 (n,), how sure it is that they are one object; inf cannot be cut.
        area: int64 (n,), faces of voxels in which they touch.
        on: bool (n,), whether they are one object at the start.
    """

    supervoxels: Ids
    pairs: Indices
    affinity: NDArray[np.float32]
    area: Indices
    on: Mask


@dataclass(frozen=True, slots=True)
class Box:
    """Half-open box of absolute voxels, shape (3,) each."""

    lo: Indices
    hi: Indices


@dataclass(slots=True)
class RootHistory:
    """How a root came and went.

    Attributes:
        operation: Edit that made it; 0 at the start.
        former: Roots that it came from.
        next: Roots that came from it; empty while it is the latest.
        ended: When it was retired.
        retired_by: Edit that retired it.
    """

    operation: int = 0
    former: tuple[int, ...] = ()
    next: tuple[int, ...] = ()
    ended: float | None = None
    retired_by: int | None = None


@dataclass(slots=True)
class _Node:
    children: tuple[int, ...]
    created: float
    root: RootHistory | None = None


@dataclass(slots=True)
class _Edges:
    """Edges between supervoxels; proofreaders' edges are appended."""

    pairs: Indices
    affinity: NDArray[np.float32]
    area: Indices
    on: Mask
    changes: dict[int, list[tuple[float, bool]]] = field(default_factory=dict)
    """Of edges that were ever switched: since when they are on or off, oldest first."""


@dataclass(frozen=True, slots=True)
class Switch:
    """An edge, by its position, that an edit turns on or off."""

    edge: int
    on: bool


class ChunkedGraph:
    """A graph that can be read at any time and edited now. Callers see to it that one does at once.

    Args:
        ids: How ids are packed.
        watershed: Supervoxels and edges.
        chunk_vx: Voxels of a chunk of layers 1 and 2.
        offset_vx: First voxel of the volume, where chunks start.
        seed: Of the numbers of new roots.
    """

    def __init__(
        self,
        ids: NodeIds,
        watershed: Watershed,
        chunk_vx: Sequence[int],
        offset_vx: Sequence[int] = (0, 0, 0),
        seed: int = 0,
    ) -> None:
        self.ids = ids
        self.chunk_vx: Indices = np.array(chunk_vx, np.int64)
        self.offset_vx: Indices = np.array(offset_vx, np.int64)
        self.supervoxels = watershed.supervoxels
        self._chunks = ids.chunks(watershed.supervoxels)
        self._edges = _Edges(
            watershed.pairs, watershed.affinity, watershed.area, watershed.on.copy()
        )
        self._edge_at = {
            (a, b): i for i, (a, b) in enumerate(np.sort(watershed.pairs, axis=1).tolist())
        }
        self._nodes: dict[int, _Node] = {}
        self._parents: dict[int, list[tuple[float, int]]] = {}
        self._numbers: dict[int, int] = defaultdict(int)
        self._root_numbers: dict[int, int] = defaultdict(int)
        self._random = random.Random(seed)  # noqa: S311 - ids, not secrets
        self._first_root = 0
        roots = self._build(np.arange(len(self.supervoxels)), FIRST_TIME)
        self._first_root = -(-len(roots) // _ROOT_COUNTERS) * _ROOT_COUNTERS

    # -- nodes

    def is_node(self, node: int) -> bool:
        """Whether a supervoxel or a node of this graph, of whatever time, has this id."""
        return node in self._nodes or self.position(node) is not None

    def is_root(self, node: int) -> bool:
        """Whether an object has or had this id."""
        return node in self._nodes and self._nodes[node].root is not None

    def history(self, root: int) -> RootHistory:
        """How a root came and went.

        Raises:
            KeyError: Not a root.
        """
        found = self._nodes[root].root
        if found is None:
            raise KeyError(root)
        return found

    def created(self, node: int) -> float:
        """When a node above the supervoxels was made.

        Raises:
            KeyError: There is none.
        """
        return self._nodes[node].created

    def children(self, node: int) -> tuple[int, ...]:
        """Children, which may lie several layers down; none of a supervoxel or an unknown id."""
        found = self._nodes.get(node)
        return found.children if found else ()

    def position(self, supervoxel: int) -> int | None:
        """Where a supervoxel stands in `supervoxels`; None when there is none."""
        if not 0 <= supervoxel < 2**64:
            return None
        at = int(np.searchsorted(self.supervoxels, np.uint64(supervoxel)))
        found = at < len(self.supervoxels) and int(self.supervoxels[at]) == supervoxel
        return at if found else None

    def parent(self, node: int, at: float | None = None) -> int | None:
        """Parent at a time; None when it had none then."""
        past = self._parents.get(node)
        if not past:
            return None
        if at is None:
            return past[-1][1]
        k = bisect.bisect_right(past, at, key=lambda entry: entry[0])
        return past[k - 1][1] if k else None

    def ancestor(self, node: int, layer: int | None = None, at: float | None = None) -> int:
        """Highest node over this one at a time that is in or just above a layer.

        As in PyChunkedGraph a node that had no parent then is its own answer.

        Args:
            node: A supervoxel or any node.
            layer: Where to stop; None is the layer of roots.
            at: Seconds since 1970; None is now.
        """
        stop = self.ids.layers if layer is None else layer
        while node and self.ids.layer(node) < stop:
            above = self.parent(node, at)
            if above is None:
                break
            node = above
        return node

    def below(self, node: int, layer: int = 1, box: Box | None = None) -> list[int]:
        """Nodes of a layer under this one, of the chunks that a box touches.

        A node that skips the layer is not in it, nor is anything under that.
        """
        out: list[int] = []
        waiting = [node]
        while waiting:
            n = waiting.pop()
            at = self.ids.layer(n)
            if at < layer or not self.is_node(n) or not self._touches(n, box):
                continue
            if at == layer:
                out.append(n)
            else:
                waiting += self.children(n)
        return out

    def members(self, node: int, box: Box | None = None) -> Indices:
        """Positions of the supervoxels under a node, ascending."""
        found = np.array(self.below(node, 1, box), np.uint64)
        at: Indices = np.sort(np.searchsorted(self.supervoxels, found)).astype(np.int64)
        return at

    def nodes_in_chunk(self, chunk: Chunk) -> list[int]:
        """Nodes of layer 2 in a chunk that exist now."""
        same = np.flatnonzero((self._chunks == np.array(chunk)).all(axis=1))
        parts = (self.parent(int(v)) for v in self.supervoxels[same])
        return sorted({p for p in parts if p is not None})

    def corner(self, node: int) -> Box:
        """The voxels of a node's chunk, not clipped to the volume."""
        edge = self.chunk_vx * 2 ** max(0, self.ids.layer(node) - LEVEL2)
        lo = self.offset_vx + np.array(self.ids.chunk(node), np.int64) * edge
        return Box(lo, lo + edge)

    def _touches(self, node: int, box: Box | None) -> bool:
        if box is None:
            return True
        chunk = self.corner(node)
        return bool((chunk.lo < box.hi).all() and (chunk.hi > box.lo).all())

    # -- edges

    def edges_within(
        self, members: Indices, at: float | None = None, *, only_on: bool = True
    ) -> Indices:
        """Positions of the edges of which both ends are among the members."""
        inside = self._inside(members)
        a, b = self._edges.pairs.T
        found = inside[a] & inside[b]
        if only_on:
            found &= self._on_at(at)
        return np.flatnonzero(found).astype(np.int64)

    def edges_out_of(self, members: Indices) -> Indices:
        """Positions of the edges of which one end is among the members."""
        inside = self._inside(members)
        a, b = self._edges.pairs.T
        return np.flatnonzero(inside[a] != inside[b]).astype(np.int64)

    def edges_between(self, one: Indices, other: Indices) -> Indices:
        """Positions of the edges that lead from one group to another."""
        left, right = self._inside(one), self._inside(other)
        a, b = self._edges.pairs.T
        return np.flatnonzero((left[a] & right[b]) | (left[b] & right[a])).astype(np.int64)

    def pairs(self, edges: Indices) -> Indices:
        """Positions of the supervoxels at both ends, shape (n, 2)."""
        return self._edges.pairs[edges]

    def affinity(self, edges: Indices) -> NDArray[np.float32]:
        """Affinities of edges."""
        return self._edges.affinity[edges]

    def area(self, edges: Indices) -> Indices:
        """Contact areas of edges, in voxel faces."""
        return self._edges.area[edges]

    def is_on(self, edge: int) -> bool:
        """Whether an edge joins its ends now."""
        return bool(self._edges.on[edge])

    def edge_of(self, one: int, other: int) -> int:
        """Position of the edge between two supervoxels; one is made where there is none.

        Such a proofreader's edge cannot be cut by affinity, and has no area, as in PyChunkedGraph.

        Args:
            one: Position of a supervoxel.
            other: Position of another.
        """
        key = (min(one, other), max(one, other))
        if key not in self._edge_at:
            e = self._edges
            self._edge_at[key] = len(e.pairs)
            e.pairs = np.vstack([e.pairs, np.array([key], np.int64)])
            e.affinity = np.append(e.affinity, np.float32(np.inf))
            e.area = np.append(e.area, np.int64(0))
            e.on = np.append(e.on, False)
        return self._edge_at[key]

    def _inside(self, members: Indices) -> Mask:
        inside = np.zeros(len(self.supervoxels), bool)
        inside[members] = True
        return inside

    def _on_at(self, at: float | None) -> Mask:
        if at is None or not self._edges.changes:
            return self._edges.on
        on = self._edges.on.copy()
        for edge, changes in self._edges.changes.items():
            k = bisect.bisect_right(changes, at, key=lambda entry: entry[0])
            on[edge] = changes[k - 1][1]
        return on

    # -- edits

    def apply(self, switches: Iterable[Switch], operation: int, at: float) -> list[int]:
        """Turn edges on and off and rebuild the objects that hold them.

        Args:
            switches: What to turn.
            operation: Number of the edit.
            at: When it happens; later than every edit before it.

        Returns:
            The new roots; former roots say which new ones they became.
        """
        turned = list(switches)
        ends = {int(v) for s in turned for v in self._edges.pairs[s.edge]}
        old = sorted({self.ancestor(int(self.supervoxels[v])) for v in ends})
        members = np.unique(np.concatenate([self.members(r) for r in old]))
        for s in turned:
            before = self._edges.changes.setdefault(
                s.edge, [(-np.inf, bool(self._edges.on[s.edge]))]
            )
            before.append((at, s.on))
            self._edges.on[s.edge] = s.on
        previous = {int(v): self.ancestor(int(self.supervoxels[v])) for v in members}
        new = self._build(members, at, renewed=ends)
        for root in new:
            history = self.history(root)
            history.operation = operation
            history.former = tuple(sorted({previous[int(v)] for v in self.members(root)}))
        for root in old:
            history = self.history(root)
            history.next = tuple(n for n in new if root in self.history(n).former)
            history.ended, history.retired_by = at, operation
        return new

    def _build(self, members: Indices, at: float, *, renewed: set[int] | None = None) -> list[int]:
        """Make the nodes over some supervoxels, which are whole objects.

        Args:
            members: Positions of the supervoxels, ascending.
            at: When.
            renewed: After an edit, the supervoxels at the ends of its edges: the parts over them
                get new ids even where they stay the same.

        Returns:
            Their roots.
        """
        fresh = {int(self.supervoxels[v]) for v in renewed or ()}
        edges = self.edges_within(members)
        ends = np.searchsorted(members, self._edges.pairs[edges])
        chunks = self._chunks[members]
        top: Ids = self.supervoxels[members].copy()
        for layer in range(LEVEL2, self.ids.layers):
            place = chunks >> (layer - LEVEL2)
            near = (place[ends[:, 0]] == place[ends[:, 1]]).all(axis=1)
            # parts are connected within their chunk; in layer 2 chunks share no edge
            part = components(len(members), ends[near])
            for inside, children in _groups(part, top, single=layer == LEVEL2):
                x, y, z = place[inside[0]].tolist()
                present = None if fresh.intersection(children) else self._present(layer, children)
                top[inside] = present or self._new_node(layer, (x, y, z), children, at)
        roots = []
        for inside, children in _groups(components(len(members), ends), top, single=True):
            root = self._new_root(edited=renewed is not None)
            self._put(root, children, at, RootHistory())
            top[inside] = root
            roots.append(root)
        return roots

    def _present(self, layer: int, children: tuple[int, ...]) -> int | None:
        """The node that has exactly these children now."""
        present = self.parent(children[0])
        if (
            present is not None
            and self.ids.layer(present) == layer
            and self._nodes[present].children == children
            and all(self.parent(c) == present for c in children)
        ):
            return present
        return None

    def _new_node(self, layer: int, chunk: Chunk, children: tuple[int, ...], at: float) -> int:
        base = self.ids.base(layer, chunk)
        self._numbers[base] += 1
        node = base | self._numbers[base]
        self._put(node, children, at, None)
        return node

    def _put(
        self, node: int, children: tuple[int, ...], at: float, root: RootHistory | None
    ) -> None:
        self._nodes[node] = _Node(children, at, root)
        for child in children:
            self._parents.setdefault(child, []).append((at, node))

    def _new_root(self, *, edited: bool) -> int:
        base = self.ids.base(self.ids.layers, (0, 0, 0))
        if not edited:
            self._numbers[base] += 1
            return base | self._numbers[base]
        counter = self._random.randrange(_ROOT_COUNTERS)
        turn = self._root_numbers[counter]
        self._root_numbers[counter] += 1
        return base | (self._first_root + turn * _ROOT_COUNTERS + counter)


def components(n: int, ends: Indices) -> NDArray[np.int32]:
    """Number of the connected part that each of n things is in, given which touch, shape (m, 2)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(ends), np.int8), (ends[:, 0], ends[:, 1])), shape=(n, n))
    labels: NDArray[np.int32] = connected_components(links, directed=False)[1]
    return labels


def _groups(
    part: NDArray[np.int32], top: Ids, *, single: bool
) -> Iterator[tuple[Indices, tuple[int, ...]]]:
    """Things of each part and the distinct nodes over them, ascending, in order of first things.

    Args:
        part: Part of each thing.
        top: Node over each thing, at the moment.
        single: Whether parts under one node count.
    """
    order = np.argsort(part, kind="stable")
    cuts = np.flatnonzero(np.diff(part[order])) + 1
    parts = np.split(order, cuts) if len(order) else []
    for inside in sorted(parts, key=lambda p: int(p[0])):
        children = tuple(sorted(set(top[inside].tolist())))
        if single or len(children) > 1:
            yield inside.astype(np.int64), children
