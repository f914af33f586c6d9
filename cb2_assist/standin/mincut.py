"""Where to cut an object between two sets of supervoxels: the cut of least affinity.

Y. Boykov, V. Kolmogorov, "An experimental comparison of min-cut/max-flow algorithms", PAMI 2004, is
the usual reference for cuts of this kind; the flow is scipy's. Sets are kept in one piece along
their strongest paths, as PyChunkedGraph does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cb2_assist.standin.errors import bad_request
from cb2_assist.standin.graph import Indices, Mask, components

_UNITS = 10_000
"""Capacity of an edge of affinity 1; flows are whole numbers."""
_MOST = 2**30


@dataclass(frozen=True, slots=True)
class Cut:
    """A way to part an object.

    Attributes:
        removed: Which of the given edges lie across the cut, bool (m,).
        part: Connected part of each thing without those edges, int32 (n,).
        clean: Whether each set is in one part.
    """

    removed: Mask
    part: NDArray[np.int32]
    clean: bool


def cut_between(
    n: int,
    ends: Indices,
    affinity: NDArray[np.float32],
    sources: Indices,
    sinks: Indices,
) -> Cut:
    """Find the cut.

    Args:
        n: Number of things.
        ends: Things that touch, shape (m, 2).
        affinity: Of each pair, (m,); inf cannot be cut.
        sources: Things on one side.
        sinks: Things on the other.

    Raises:
        ApiError: There is no such cut, in the words of PyChunkedGraph.
    """
    if np.intersect1d(sources, sinks).size:
        raise bad_request(
            "Supervoxels exist in both sink and source, try placing the points further apart."
        )
    whole = components(n, ends)
    if len(set(whole[sources].tolist()) | set(whole[sinks].tolist())) != 1:
        raise bad_request(
            "Sinks and sources are not connected through the local graph. Please try a different "
            "set of vertices to perform the mincut."
        )
    left = _with_paths(n, ends, affinity, sources, sinks)
    right = _with_paths(n, ends, affinity, sinks, sources)
    if np.intersect1d(left, right).size:
        raise bad_request(
            "Paths between source vertices and sink vertices overlapped. Please place the points "
            "so that those of one colour can be joined without passing those of the other."
        )
    side = _least_cut(n, ends, affinity, left, right)
    removed = side[ends[:, 0]] != side[ends[:, 1]]
    part = components(n, ends[~removed])
    clean = _stands(part, sources) and _stands(part, sinks)
    return Cut(removed, part, clean)


def _stands(part: NDArray[np.int32], chosen: Indices) -> bool:
    return len(set(part[chosen].tolist())) == 1


def _with_paths(
    n: int, ends: Indices, affinity: NDArray[np.float32], chosen: Indices, others: Indices
) -> Indices:
    """The chosen things and what lies on the strongest ways between them, around the others."""
    if len(chosen) < 2:
        return chosen
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import dijkstra

    free = ~(np.isin(ends[:, 0], others) | np.isin(ends[:, 1], others))
    a, b = ends[free].T
    cost = 1.0 / np.maximum(affinity[free].astype(np.float64), 1e-6) + 1e-9
    graph = coo_array((cost, (a, b)), shape=(n, n)).tocsr()
    _, before = dijkstra(graph, directed=False, indices=int(chosen[0]), return_predecessors=True)
    kept = {int(chosen[0])}
    for thing in chosen[1:].tolist():
        while thing >= 0 and thing not in kept:
            kept.add(thing)
            thing = int(before[thing])
    return np.array(sorted(kept), np.int64)


def _least_cut(
    n: int, ends: Indices, affinity: NDArray[np.float32], left: Indices, right: Indices
) -> Mask:
    """Which things are on the left of the least cut."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow

    # what cannot be cut is one node; so is each side
    fixed = ends[np.isinf(affinity)]
    chains = [np.stack([g[:-1], g[1:]], axis=1) for g in (left, right)]
    node = components(n, np.concatenate([fixed, *chains]))
    source, sink = int(node[left[0]]), int(node[right[0]])
    if source == sink:
        raise bad_request(
            "Failed to find a cut that separated the sources from the sinks. Please try another "
            "cut that partitions the sets cleanly if possible. If there is a clear path between "
            "all the supervoxels in each set, that helps the mincut algorithm."
        )
    a, b = node[ends].T
    real = (a != b) & ~np.isinf(affinity)
    a, b = a[real], b[real]
    # at least one unit, so that an edge of no affinity still holds things together
    units = np.clip(np.rint(affinity[real].astype(np.float64) * _UNITS), 1, None)
    units *= min(1.0, _MOST / max(1.0, float(units.sum())))
    capacity = np.maximum(units, 1).astype(np.int32)
    count = int(node.max()) + 1
    both = (np.concatenate([capacity, capacity]), (np.append(a, b), np.append(b, a)))
    graph = coo_array(both, shape=(count, count)).tocsr().astype(np.int32)
    rest = graph - maximum_flow(graph, source, sink).flow
    rest.data[rest.data < 0] = 0
    rest.eliminate_zeros()
    reached = breadth_first_order(rest, source, return_predecessors=False)
    on_left = np.zeros(count, bool)
    on_left[reached] = True
    side: Mask = on_left[node]
    return side
