"""Expected run length of a segmentation while its segments are being joined.

The expected length of the stretch of neurite, free of errors, that holds a random place of the
true skeletons (Januszewski et al. 2018, doi:10.1038/s41592-018-0049-4): the sum of the squared
lengths of all runs over the length of all skeletons. A run is a connected part of one body's
skeleton within one segment. All runs of a segment that holds cable of two bodies, at least
`MERGED_NM` of each, count as 0.

The skeletons are ours, from the truth on a grid of about `STEP_NM`, in the manner of TEASAR (Sato
et al. 2000, doi:10.1109/PCCGA.2000.883951): cheapest ways along the middle of a body from one end
to the farthest voxel, then from each farthest voxel that is not yet near a way, until all are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree

from cb2_assist.core.geometry import Resolution

STEP_NM = 40.0
COVER = 1.5
"""A voxel is near a way within so many radii of the body there, and a step of the grid."""
MERGED_NM = 500.0
_LEAST_VX = 8
"""Voxels on the coarse grid below which a body has no skeleton."""


@dataclass(frozen=True, slots=True, eq=False)
class Skeletons:
    """The truth's skeletons.

    Attributes:
        segment: uint64, (n,): the segment at each node; 0 is background.
        body: uint64, (n,): whose skeleton the node is of.
        edge: int64, (m, 2): nodes that each edge links; a forest.
        length_nm: float64, (m,).
    """

    segment: NDArray[np.uint64]
    body: NDArray[np.uint64]
    edge: NDArray[np.int64]
    length_nm: NDArray[np.float64]


def skeletonise(seg: NDArray[Any], truth: NDArray[Any], resolution: Resolution) -> Skeletons:
    """Skeletons of all bodies of a volume, x, y, z."""
    res = np.array(tuple(resolution))
    step = np.maximum(1, np.rint(STEP_NM / res)).astype(int)
    coarse = tuple(slice(s // 2, None, s) for s in step)
    body, number = np.unique(truth[coarse], return_inverse=True)
    label = number.reshape(truth[coarse].shape)
    here = seg[coarse]
    segments, bodies, edges, lengths = [], [], [], []
    start = 0
    for k, box in enumerate(ndimage.find_objects(label + 1)):
        if not body[k] or box is None:
            continue
        for voxels in _parts(label[box] == k):
            path, ends, length = _skeleton(voxels, res * step)
            at = voxels[path] + np.array([s.start for s in box])
            segments.append(here[tuple(at.T)])
            bodies.append(np.full(len(path), body[k], np.uint64))
            edges.append(ends + start)
            lengths.append(length)
            start += len(path)
    if not segments:
        nothing = np.zeros(0, np.uint64)
        return Skeletons(nothing, nothing, np.zeros((0, 2), np.int64), np.zeros(0))
    return Skeletons(
        np.concatenate(segments).astype(np.uint64),
        np.concatenate(bodies),
        np.concatenate(edges),
        np.concatenate(lengths),
    )


def _parts(mask: NDArray[np.bool_]) -> Iterator[NDArray[np.int64]]:
    """Voxels of each connected part of a body that is large enough, (n, 3)."""
    part, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    for k, box in enumerate(ndimage.find_objects(part), 1):
        voxels = np.argwhere(part[box] == k)
        if len(voxels) >= _LEAST_VX:
            yield voxels + np.array([s.start for s in box])


def _skeleton(
    voxels: NDArray[np.int64], size_nm: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Nodes among the voxels (rows), edges between nodes (places in the nodes), lengths in nm."""
    lo = voxels.min(axis=0)
    number = np.full(voxels.max(axis=0) - lo + 3, -1, np.int64)
    number[tuple((voxels - lo + 1).T)] = np.arange(len(voxels))
    inside = ndimage.distance_transform_edt(number >= 0, sampling=size_nm)
    radius = np.asarray(inside, np.float64)[tuple((voxels - lo + 1).T)]
    ends, nm = _neighbours(voxels - lo + 1, number, size_nm)
    shape = (len(voxels), len(voxels))
    plain = coo_array((nm, (ends[:, 0], ends[:, 1])), shape=shape).tocsr()
    root = int(np.argmax(dijkstra(plain, directed=False, indices=0)))
    # the middle of a process is the cheaper way
    dear = nm * (radius.max() / np.minimum(radius[ends[:, 0]], radius[ends[:, 1]])) ** 2
    graph = coo_array((dear, (ends[:, 0], ends[:, 1])), shape=shape).tocsr()
    _, before = dijkstra(graph, directed=False, indices=root, return_predecessors=True)
    far = dijkstra(plain, directed=False, indices=root)
    points = voxels * size_nm
    tree = cKDTree(points)
    is_node, is_covered = np.zeros(len(voxels), bool), np.zeros(len(voxels), bool)
    is_node[root] = True
    links: list[tuple[int, int]] = []
    for tip in np.argsort(-far, kind="stable").tolist():
        if is_covered[tip]:
            continue
        path = [tip]
        while not is_node[path[-1]]:
            is_node[path[-1]] = True
            path.append(int(before[path[-1]]))
        links += pairwise(path)
        reach = COVER * radius[path] + STEP_NM
        for near in tree.query_ball_point(points[path], reach):
            is_covered[near] = True
    node = np.flatnonzero(is_node)
    edge = np.searchsorted(node, np.array(links, np.int64).reshape(-1, 2))
    length = np.linalg.norm(points[node[edge[:, 0]]] - points[node[edge[:, 1]]], axis=1)
    return node, edge.astype(np.int64), length


def _neighbours(
    at: NDArray[np.int64], number: NDArray[np.int64], size_nm: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Pairs of voxels that share a face, an edge or a corner, and the ways between them."""
    ends, length = [], []
    for away in np.ndindex(3, 3, 3):
        shift = np.array(away) - 1
        if tuple(shift) <= (0, 0, 0):
            continue
        other = number[tuple((at + shift).T)]
        has = np.flatnonzero(other >= 0)
        ends.append(np.stack([has, other[has]], 1))
        length.append(np.full(len(has), float(np.linalg.norm(shift * size_nm))))
    return np.concatenate(ends), np.concatenate(length)


class Runs:
    """The runs of segments 0..n-1 that are being joined."""

    def __init__(self, skeletons: Skeletons, segments: NDArray[np.uint64]) -> None:
        """Nothing is joined.

        Args:
            skeletons: Of the truth.
            segments: Ids, sorted; their places number the segments.
        """
        number = np.searchsorted(segments, skeletons.segment)
        number[number == len(segments)] = 0
        is_known = segments[number] == skeletons.segment if len(segments) else number > 0
        node = np.where(is_known & (skeletons.segment > 0), number, -1).tolist()
        n = len(segments)
        self.total_nm = float(skeletons.length_nm.sum())
        self._run = list(range(len(node)))
        self._length = [0.0] * len(node)
        self._squares = [0.0] * n
        self._cable: list[dict[int, float]] = [{} for _ in range(n)]
        self._between: list[dict[int, tuple[tuple[int, int, float], ...]]] = [{} for _ in range(n)]
        self._body = skeletons.body.tolist()
        for (u, v), nm in zip(skeletons.edge.tolist(), skeletons.length_nm.tolist(), strict=True):
            a, b = node[u], node[v]
            if a < 0 or b < 0:
                continue
            if a == b:
                self._link(a, u, v, nm)
            else:
                for x, y in ((a, b), (b, a)):
                    self._between[x][y] = (*self._between[x].get(y, ()), (u, v, nm))
        self._sum = sum(self._counted(k) for k in range(n))

    def copy(self) -> Runs:
        """The same state, to be changed apart."""
        other = object.__new__(Runs)
        other.total_nm, other._sum, other._body = self.total_nm, self._sum, self._body
        other._run, other._length = list(self._run), list(self._length)
        other._squares = list(self._squares)
        other._cable = [dict(c) for c in self._cable]
        other._between = [dict(c) for c in self._between]
        return other

    @property
    def expected_nm(self) -> float:
        """The expected run length."""
        return self._sum / self.total_nm if self.total_nm else 0.0

    def join(self, kept: int, gone: int) -> None:
        """Join two groups, as `overlaps.JoinedSegments.join` names them."""
        self._sum -= self._counted(kept) + self._counted(gone)
        self._squares[kept] += self._squares[gone]
        self._squares[gone] = 0.0
        for body, nm in self._cable[gone].items():
            self._cable[kept][body] = self._cable[kept].get(body, 0.0) + nm
        self._cable[gone] = {}
        links = self._between[kept].pop(gone, ())
        for other, more in self._between[gone].items():
            if other != kept:
                self._between[kept][other] = (*self._between[kept].get(other, ()), *more)
                self._between[other].pop(gone)
                self._between[other][kept] = self._between[kept][other]
        self._between[gone] = {}
        for u, v, nm in links:
            self._link(kept, u, v, nm)
        self._sum += self._counted(kept)

    def _link(self, group: int, u: int, v: int, nm: float) -> None:
        a, b = self._root(u), self._root(v)
        before = self._length[a] ** 2 + self._length[b] ** 2
        self._run[b] = a
        self._length[a] += self._length[b] + nm
        self._squares[group] += self._length[a] ** 2 - before
        body = self._body[u]
        self._cable[group][body] = self._cable[group].get(body, 0.0) + nm

    def _root(self, node: int) -> int:
        while self._run[node] != node:
            self._run[node] = self._run[self._run[node]]
            node = self._run[node]
        return node

    def _counted(self, group: int) -> float:
        is_merged = sum(nm >= MERGED_NM for nm in self._cable[group].values()) > 1
        return 0.0 if is_merged else self._squares[group]
