"""Places along a whole object that are worth asking about, from the graph of its parts alone.

No voxel is read: a neuron of twenty thousand parts takes a second. What is found is where a person
(or `p`) should look, in nm, inside the object:

- ends, with the direction in which the object would go on: something may be missing there;
- branch points, thin bridges between two large parts, jumps in thickness, edges longer than parts
  can be apart, and places where the object comes near itself though the way round is long: two
  neurons may have been taken for one.

The graph of parts is no tree: parts in neighbouring chunks touch in triangles, and a process that
grazes a chunk's border leaves a stub there. So ends and branches are those of the tree of shortest
ways, of which branches shorter than `LEAST_BRANCH_CHUNKS` are dropped (spines, stubs).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.geometry import PointNm
from cb2_assist.datasets.source import Arbour

LEAST_BRANCH_CHUNKS = 2.5
"""Branches shorter than so many (smallest) edges of a chunk are stubs at its border and spines: a
point stands for a whole part, and lies up to half a chunk off. On one minnie65 neuron of 25,889
parts this finds all 432 tips of its published skeleton (within 3 µm) among 643 ends; 0.5 would make
4,378 of them, 3.7 would make 466."""
COURSE_NM = 3000.0
"""Direction and thickness are taken over this length."""
JUMP = 2.0
"""Thickness jumps where it differs by this factor between the two sides."""
PINCH = 0.5
"""A bridge is thin below this share of the thickness on both sides."""
LEAST_SIDE = 50
"""Parts on either side of a bridge that make it worth a look."""
LONG_CHUNKS = 2.0
"""Neighbouring parts farther apart than so many chunks do not touch."""
NEAR_NM = 1500.0
FAR_ROUND_NM = 12_000.0
"""Two places as near as the first, while the way round is at least the second, meet themselves."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Why(StrEnum):
    """What is odd about a place, most telling first."""

    LONG_EDGE = "an edge that is too long"
    MEETS_ITSELF = "it comes near itself"
    BRIDGE = "a thin bridge"
    JUMP = "its thickness jumps"
    END = "it ends"
    BRANCH = "it branches"


@dataclass(frozen=True, slots=True)
class Place:
    """A place worth asking about.

    Attributes:
        at: Inside the object.
        towards: Unit vector in which an end would go on; None elsewhere.
    """

    at: PointNm
    why: Why
    towards: tuple[float, float, float] | None = None


def places_on(arbour: Arbour) -> list[Place]:
    """All places, most telling first; the same in the same order each time."""
    tree = _Tree(arbour)
    found = [
        *_long_edges(arbour),
        *_meets_itself(arbour, tree),
        *_bridges(arbour),
        *_jumps(arbour, tree),
        *_ends(arbour, tree),
        *_branches(arbour, tree),
    ]
    order = list(Why)
    return sorted(found, key=lambda p: (order.index(p.why), tuple(p.at)))


class _Tree:
    """Shortest ways from one end of each connected piece.

    Attributes:
        parent: Row that each row is reached from; -1 where a tree begins.
        way: Length of the way from there, nm.
        order: Rows, each after its parent.
        branch: For each leaf, how far back it is alone; NaN elsewhere.
        least: Length of a branch that is none of the dropped ones, nm.
        forks: For each row, how many such branches part there.
    """

    def __init__(self, arbour: Arbour) -> None:
        from scipy.sparse import csgraph

        n = len(arbour.points)
        self.least = LEAST_BRANCH_CHUNKS * min(arbour.chunk_nm)
        self.matrix = _matrix(arbour)
        _, piece = csgraph.connected_components(self.matrix, directed=False)
        self.parent, self.way = np.full(n, -1, np.int64), np.zeros(n)
        for first in np.unique(piece, return_index=True)[1].tolist():
            # the farthest row from any row is an end of the longest way
            far = csgraph.dijkstra(self.matrix, directed=False, indices=first)
            start = int(np.argmax(np.where(np.isfinite(far), far, -1.0)))
            way, before = csgraph.dijkstra(
                self.matrix, directed=False, indices=start, return_predecessors=True
            )
            here = np.isfinite(way)
            self.way[here] = way[here]
            self.parent[here] = np.where(before[here] < 0, -1, before[here])
        self.order = np.argsort(self.way, kind="stable")
        self._measure()

    def _measure(self) -> None:
        n = len(self.parent)
        reach = self.way.copy()  # the farthest way of what hangs below
        for row in self.order[::-1].tolist():
            up = int(self.parent[row])
            if up >= 0:
                reach[up] = max(reach[up], reach[row])
        self.branch, self.forks = np.full(n, np.nan), np.zeros(n, np.int64)
        begins = np.zeros(n)  # where the longest branch through a row parted from a longer one
        children: dict[int, list[int]] = {}
        for row in self.order.tolist():
            up = int(self.parent[row])
            if up >= 0:
                children.setdefault(up, []).append(row)
        for row in self.order.tolist():
            below = sorted(children.get(row, ()), key=lambda c: (-reach[c], c))
            for rank, child in enumerate(below):
                begins[child] = begins[row] if rank == 0 else self.way[row]
            lengths = [reach[c] - self.way[row] for c in below]
            self.forks[row] = sum(length >= self.least for length in lengths)
            if not below:
                self.branch[row] = self.way[row] - begins[row]
            if self.parent[row] < 0 and below:
                # a tree begins at an end as well
                self.branch[row] = reach[row] - self.way[row]

    def back(self, row: int, length_nm: float) -> Ints:
        """Rows from a row towards the beginning, over a length."""
        rows, start = [row], self.way[row]
        while self.parent[rows[-1]] >= 0 and start - self.way[rows[-1]] < length_nm:
            rows.append(int(self.parent[rows[-1]]))
        return np.array(rows, np.int64)


def _ends(arbour: Arbour, tree: _Tree) -> Iterator[Place]:
    for row in np.flatnonzero(tree.branch >= tree.least).tolist():
        point = arbour.points[row]
        rows: Any = tree.back(row, COURSE_NM)
        if tree.parent[row] < 0:
            rows = np.linalg.norm(arbour.points - point, axis=1) <= COURSE_NM
        course = point - arbour.points[rows].mean(0)
        size = float(np.linalg.norm(course))
        x, y, z = (float(v) for v in course / size) if size else (0.0, 0.0, 0.0)
        yield Place(PointNm.of(point), Why.END, (x, y, z) if size else None)


def _branches(arbour: Arbour, tree: _Tree) -> Iterator[Place]:
    # where a tree begins one branch more goes out than in
    least = np.where(tree.parent < 0, 3, 2)
    for row in np.flatnonzero(tree.forks >= least).tolist():
        yield Place(PointNm.of(arbour.points[row]), Why.BRANCH)


def _jumps(arbour: Arbour, tree: _Tree) -> Iterator[Place]:
    """Where the mean radius of what lies before differs from that of what comes after."""
    n = len(arbour.points)
    known = np.isfinite(arbour.radius)
    total = np.zeros((n, 2))  # radius and count over the course that leads to a row
    for row in tree.order.tolist():
        rows = tree.back(row, COURSE_NM)
        rows = rows[known[rows]]
        total[row] = arbour.radius[rows].sum(), len(rows)
    mean = np.divide(total[:, 0], total[:, 1], out=np.full(n, np.nan), where=total[:, 1] >= 3)
    taken: set[int] = set()
    for row in tree.order.tolist():
        rows = tree.back(row, COURSE_NM)
        before = int(rows[-1])
        if before == row or not (np.isfinite(mean[row]) and np.isfinite(mean[before])):
            continue
        low, high = sorted((mean[row], mean[before]))
        middle = int(rows[len(rows) // 2])
        if high >= JUMP * low > 0 and taken.isdisjoint(tree.back(row, 2 * COURSE_NM).tolist()):
            taken.add(middle)
            yield Place(PointNm.of(arbour.points[middle]), Why.JUMP)


def _bridges(arbour: Arbour) -> Iterator[Place]:
    """Edges that alone hold two large parts together, where the object is thin."""
    from scipy.spatial import cKDTree

    n = len(arbour.points)
    found = [
        (a, b) for a, b, side in _cut_edges(n, arbour.edges) if min(side, n - side) >= LEAST_SIDE
    ]
    if not found:
        return
    taken: set[int] = set()
    ends = np.array(found, np.int64)
    middles = arbour.points[ends].mean(axis=1)
    thins = np.fmin(np.fmin(*arbour.radius[ends].T), np.inf)
    everywhere = cKDTree(arbour.points)
    for (a, b), middle, thin in zip(found, middles, thins.tolist(), strict=True):
        near = np.array(everywhere.query_ball_point(middle, COURSE_NM), np.int64)
        ahead = (arbour.points[near] - middle) @ (arbour.points[b] - arbour.points[a]) > 0
        sides = [arbour.radius[near[ahead]], arbour.radius[near[~ahead]]]
        known = [s[np.isfinite(s)] for s in sides]
        # no median is above the largest, which is found faster
        if any(len(s) < 3 or thin >= PINCH * s.max() for s in known):
            continue
        if thin < PINCH * min(np.median(s) for s in known):
            row = a if not arbour.radius[a] > arbour.radius[b] else b
            if row not in taken:  # both edges of a thin part
                taken.add(row)
                yield Place(PointNm.of(arbour.points[row]), Why.BRIDGE)


def _long_edges(arbour: Arbour) -> Iterator[Place]:
    if not len(arbour.edges):
        return
    a, b = arbour.points[arbour.edges[:, 0]], arbour.points[arbour.edges[:, 1]]
    far = (np.abs(a - b) > LONG_CHUNKS * np.array(arbour.chunk_nm)).any(axis=1)
    for row in arbour.edges[far, 0].tolist():
        yield Place(PointNm.of(arbour.points[row]), Why.LONG_EDGE)


def _meets_itself(arbour: Arbour, tree: _Tree) -> Iterator[Place]:
    """Pairs that are near each other and far apart along the tree, one for each meeting."""
    from scipy.spatial import cKDTree

    near = cKDTree(arbour.points)
    pairs = near.query_pairs(NEAR_NM, output_type="ndarray")
    taken = np.zeros(len(arbour.points), bool)
    for a, b in pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))].tolist():
        if taken[a] or taken[b] or not _is_far_round(tree, a, b):
            continue
        around = near.query_ball_point(arbour.points[[a, b]], 2 * NEAR_NM)
        taken[around[0]] = taken[around[1]] = True
        yield Place(PointNm.of(arbour.points[a]), Why.MEETS_ITSELF)


def _is_far_round(tree: _Tree, a: int, b: int) -> bool:
    """Whether the way between two rows along the tree is `FAR_ROUND_NM` or more, or none at all."""
    x, y, start = a, b, float(tree.way[a] + tree.way[b])
    while x != y:
        if tree.way[x] < tree.way[y]:
            x, y = y, x
        if tree.parent[x] < 0 or start - tree.way[x] - tree.way[y] >= FAR_ROUND_NM:
            return True
        x = int(tree.parent[x])
    return bool(start - 2 * tree.way[x] >= FAR_ROUND_NM)


def _matrix(arbour: Arbour) -> Any:  # noqa: ANN401 - scipy has no types
    from scipy.sparse import csr_array

    n = len(arbour.points)
    edges = np.unique(np.sort(arbour.edges, axis=1), axis=0)
    edges = edges[edges[:, 0] != edges[:, 1]]
    lengths = np.linalg.norm(arbour.points[edges[:, 0]] - arbour.points[edges[:, 1]], axis=1)
    return csr_array((np.maximum(lengths, 1e-3), (edges[:, 0], edges[:, 1])), shape=(n, n))


def _cut_edges(n: int, edges: Ints) -> Iterator[tuple[int, int, int]]:
    """Edges without which a piece falls apart, with the rows on the far side (Tarjan 1974)."""
    near: list[list[tuple[int, int]]] = [[] for _ in range(n)]
    for number, (a, b) in enumerate(edges.tolist()):
        near[a].append((b, number))
        near[b].append((a, number))
    seen, low, size = np.full(n, -1, np.int64), np.zeros(n, np.int64), np.ones(n, np.int64)
    clock = 0
    for first in range(n):
        if seen[first] >= 0:
            continue
        seen[first] = low[first] = clock
        clock += 1
        stack = [(first, -1, iter(near[first]))]
        while stack:
            row, through, rest = stack[-1]
            step = next(rest, None)
            if step is None:
                stack.pop()
                if stack:
                    up = stack[-1][0]
                    low[up] = min(low[up], low[row])
                    size[up] += size[row]
                    if low[row] > seen[up]:
                        yield up, row, int(size[row])
                continue
            other, number = step
            if number == through:
                continue
            if seen[other] >= 0:
                low[row] = min(low[row], seen[other])
                continue
            seen[other] = low[other] = clock
            clock += 1
            stack.append((other, number, iter(near[other])))
