"""Loops of `partition` over the cells of a segment: watershed, level sets, and the basins' graph.

Cells are those of `cb2_assist.views.cells`; basins count from 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cb2_assist.views.jit import kernel


@kernel
def root(parent: NDArray[np.signedinteger], i: int) -> int:
    """Who stands for the set that i is in; ways up become shorter."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@kernel
def flood(
    order: NDArray[np.int64],
    depth: NDArray[np.float32],
    beside: NDArray[np.int32],
    keep_ratio: float,
    keep_nm: float,
) -> NDArray[np.int32]:
    """Watershed of the thickness, thickest first; basins without a clear saddle become one.

    Args:
        order: int64 (n,), cells from thick to thin.
        depth: float32 (n,), thickness.
        beside: From `link_cells`.
        keep_ratio: Two basins stay apart where the saddle is below this share of the lower peak
        keep_nm: and at least this far below it.

    Returns:
        int32 (n,), basins from 1 in order of their peaks.
    """
    n = depth.shape[0]
    label = np.zeros(n, np.int32)
    parent = np.zeros(n + 1, np.int32)
    peak = np.zeros(n + 1, np.float32)
    used = 0
    roots = np.zeros(6, np.int32)
    for i in order:
        found = 0
        home = 0
        steepest = np.float32(-1.0)
        for d in range(6):
            j = beside[i, d]
            if j < 0 or label[j] == 0:
                continue
            roots[found] = root(parent, label[j])
            if depth[j] > steepest:
                steepest = depth[j]
                home = roots[found]
            found += 1
        if found == 0:
            used += 1
            parent[used] = used
            peak[used] = depth[i]
            label[i] = used
            continue
        label[i] = home
        for k in range(found):
            a, b = root(parent, home), root(parent, roots[k])
            if a == b:
                continue
            low = min(peak[a], peak[b])
            if depth[i] >= keep_ratio * low or low - depth[i] < keep_nm:
                # basins are numbered from thick to thin, so the lower number has the peak
                parent[max(a, b)] = min(a, b)
    name = np.zeros(used + 1, np.int32)
    names = 0
    for i in range(1, used + 1):
        if parent[i] == i:
            names += 1
            name[i] = names
    for i in range(n):
        label[i] = name[root(parent, label[i])]
    return label


@kernel
def components(key: NDArray[np.int32], beside: NDArray[np.int32]) -> tuple[NDArray[np.int32], int]:
    """Connected sets of cells with equal `key`: int32 (n,) from 1, and how many there are."""
    n = key.shape[0]
    parent = np.arange(n).astype(np.int32)
    for i in range(n):
        for d in range(1, 6, 2):  # neighbours that come before
            j = beside[i, d]
            if j >= 0 and key[j] == key[i]:
                a, b = root(parent, i), root(parent, j)
                parent[max(a, b)] = min(a, b)
    label = np.zeros(n, np.int32)
    used = 0
    for i in range(n):
        r = root(parent, i)
        if r == i:
            used += 1
            label[i] = used
        else:
            label[i] = label[r]
    return label, used


@kernel
def path_lengths(
    order: NDArray[np.int64], beside: NDArray[np.int32], step: NDArray[np.int64]
) -> NDArray[np.int32]:
    """Shortest way inside the segment from the thickest cell of each connected part.

    R. Dial's bucket queue, Communications of the ACM 12 (1969) 632.

    Args:
        order: int64 (n,), cells from thick to thin.
        beside: From `link_cells`.
        step: int64 (3,), whole-number length of one step along each axis.

    Returns:
        int32 (n,), in the unit of `step`.
    """
    n = beside.shape[0]
    whole, parts = components(np.zeros(n, np.int32), beside)
    length = np.full(n, -1, np.int32)
    done = np.zeros(n, np.uint8)
    buckets = int(max(step[0], step[1], step[2])) + 1
    head = np.full(buckets, -1, np.int32)
    cell = np.zeros(parts + 6 * n, np.int32)
    following = np.zeros(parts + 6 * n, np.int32)
    used = 0
    started = np.zeros(parts + 1, np.bool_)
    for i in order:
        if not started[whole[i]]:
            started[whole[i]] = True
            length[i] = 0
            cell[used] = i
            following[used] = head[0]
            head[0] = used
            used += 1
    waiting = used
    at = 0
    while waiting:
        q = head[at % buckets]
        if q < 0:
            at += 1
            continue
        head[at % buckets] = following[q]
        waiting -= 1
        i = cell[q]
        if done[i]:
            continue
        done[i] = 1
        for d in range(6):
            j = beside[i, d]
            if j < 0 or done[j]:
                continue
            new = at + step[d // 2]
            if length[j] < 0 or new < length[j]:
                length[j] = new
                cell[used] = j
                following[used] = head[new % buckets]
                head[new % buckets] = used
                used += 1
                waiting += 1
    return length


@kernel
def describe(
    label: NDArray[np.int32],
    names: int,
    place: NDArray[np.int32],
    voxels: NDArray[np.int32],
    depth: NDArray[np.float32],
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Voxels (names + 1,), centre in cells (names + 1, 3) and greatest depth of each basin."""
    size = np.zeros(names + 1, np.int64)
    centre = np.zeros((names + 1, 3))
    peak = np.zeros(names + 1)
    for i in range(label.shape[0]):
        k = label[i]
        size[k] += voxels[i]
        peak[k] = max(peak[k], depth[i])
        for a in range(3):
            centre[k, a] += voxels[i] * (place[i, a] + 0.5)
    for k in range(names + 1):
        for a in range(3):
            centre[k, a] /= max(size[k], 1)
    return size, centre, peak


@kernel
def borders(
    label: NDArray[np.int32], beside: NDArray[np.int32], touch: NDArray[np.int32]
) -> NDArray[np.int32]:
    """All cell faces between two different labels.

    Returns:
        int32 (m, 6): the cell below, the axis, the cell above, the label below, the label above,
        and the touching voxel faces.
    """
    m = 0
    for i in range(label.shape[0]):
        for axis in range(3):
            j = beside[i, 2 * axis]
            m += j >= 0 and label[j] != label[i]
    out = np.zeros((m, 6), np.int32)
    m = 0
    for i in range(label.shape[0]):
        for axis in range(3):
            j = beside[i, 2 * axis]
            if j >= 0 and label[j] != label[i]:
                out[m, 0], out[m, 1], out[m, 2] = i, axis, j
                out[m, 3], out[m, 4], out[m, 5] = label[i], label[j], touch[i, axis]
                m += 1
    return out


@kernel
def count_arms(
    n: int,
    edge: NDArray[np.int64],
    volume: NDArray[np.float64],
    level: NDArray[np.int64],
    least_volume: float,
    least_reach: NDArray[np.float64],
) -> NDArray[np.int64]:
    """How many arms each node of a graph of level sets has.

    An arm is what the node's removal leaves connected, if it is large and reaches far.

    Args:
        n: Number of nodes, named 1..n.
        edge: int (m, 2), nodes.
        volume: (n + 1,).
        level: int (n + 1,), number of each node's level.
        least_volume: Of an arm, in the unit of `volume`.
        least_reach: (n + 1,), levels between each node and the far end of its arms.
    """
    parts = np.zeros(n + 1, np.int64)
    degree = np.zeros(n + 2, np.int64)
    for e in range(edge.shape[0]):
        degree[edge[e, 0]] += 1
        degree[edge[e, 1]] += 1
    begin = np.zeros(n + 2, np.int64)
    for i in range(1, n + 1):
        begin[i + 1] = begin[i] + degree[i]
    fill = begin.copy()
    beside = np.zeros(2 * edge.shape[0], np.int64)
    for e in range(edge.shape[0]):
        a, b = edge[e]
        beside[fill[a]] = b
        fill[a] += 1
        beside[fill[b]] = a
        fill[b] += 1
    seen = np.zeros(n + 1, np.int64)
    stack = np.zeros(n + 1, np.int64)
    for gone in range(1, n + 1):
        if degree[gone] < 3:
            continue
        seen[gone] = gone
        for k in range(begin[gone], begin[gone + 1]):
            if seen[beside[k]] == gone:
                continue
            seen[beside[k]] = gone
            stack[0] = beside[k]
            size = 1
            weight = 0.0
            reach = 0
            while size:
                size -= 1
                here = stack[size]
                weight += volume[here]
                reach = max(reach, abs(level[here] - level[gone]))
                for q in range(begin[here], begin[here + 1]):
                    if seen[beside[q]] != gone:
                        seen[beside[q]] = gone
                        stack[size] = beside[q]
                        size += 1
            parts[gone] += weight >= least_volume and reach >= least_reach[gone]
    return parts


@kernel
def split_graph(
    n: int, edge: NDArray[np.int32], length: NDArray[np.float64], cut: int, side: NDArray[np.uint8]
) -> None:
    """Two sides of a graph of basins after taking one edge out.

    Args:
        n: Number of nodes, named 1..n.
        edge: int32 (m, 2), nodes.
        length: float64 (m,), nm.
        cut: The edge to take out.
        side: uint8 (n + 1,), filled here: 1 or 2 in the cut edge's component, else 0. A node that
            both ends still reach goes to the nearer, the first on a tie.
    """
    far = np.full((2, n + 1), np.inf)
    for s in range(2):
        far[s, edge[cut, s]] = 0.0
        changed = True
        while changed:
            changed = False
            for e in range(edge.shape[0]):
                if e == cut:
                    continue
                a, b = edge[e]
                if far[s, a] + length[e] < far[s, b]:
                    far[s, b] = far[s, a] + length[e]
                    changed = True
                if far[s, b] + length[e] < far[s, a]:
                    far[s, a] = far[s, b] + length[e]
                    changed = True
    for i in range(n + 1):
        if np.isinf(far[0, i]) and np.isinf(far[1, i]):
            side[i] = 0
        else:
            side[i] = 1 if far[0, i] <= far[1, i] else 2


@kernel
def reachable(n: int, edge: NDArray[np.int32], start: int) -> NDArray[np.bool_]:
    """Nodes connected to `start`: bool (n + 1,)."""
    seen = np.zeros(n + 1, np.bool_)
    seen[start] = True
    changed = True
    while changed:
        changed = False
        for e in range(edge.shape[0]):
            if seen[edge[e, 0]] != seen[edge[e, 1]]:
                seen[edge[e, 0]] = seen[edge[e, 1]] = True
                changed = True
    return seen
