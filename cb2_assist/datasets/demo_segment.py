"""An automatic segmentation of the demo's EM, from the EM alone.

Per section: a map of dark lines (boundaries), the distance from them, a seeded watershed into
superpixels. Then all superpixels of all sections are agglomerated by the mean boundary strength of
their contact, within and across sections (mean-affinity agglomeration as in Funke et al. 2019,
IEEE TPAMI 41:1669). Its errors are its own: it has a few global parameters and never sees the
truth. Integers throughout, so the result is the same on every machine.
"""

from __future__ import annotations

import heapq

import numba as nb
import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]

BOUNDARY = 70
"""Boundary strength from which a pixel counts as membrane when distances are measured."""

FLAT_STOP, STOP = 120, 95
"""Mean boundary strength at which agglomeration ends, within sections and in the stack."""

SMALL_VX, SMALL_STOP = 15000, 120
"""Segments with fewer voxels may cross a boundary of up to this mean strength."""

APART = 200
"""Boundary strength between regions of neighbouring sections that do not overlap."""

SLIVER_VX = 600
"""Segments with fewer voxels join the neighbour with the weakest boundary."""


def _binomial(a: I32) -> I32:
    """(1, 2, 1) along both axes, rounded down to the input's scale; edges repeated."""
    p = np.pad(a, 1, mode="edge")
    q = p[:-2] + p[2:] + 2 * p[1:-1]
    out: I32 = (q[:, :-2] + q[:, 2:] + 2 * q[:, 1:-1]) >> 4
    return out


@nb.njit(cache=True)
def _ridges(s: I32) -> I32:
    """How much darker each pixel is than both sides, in the best of 8 directions, 2 widths."""
    height, width = s.shape
    steps = np.array([[4, 0], [0, 4], [3, 3], [3, -3], [4, 2], [2, 4], [4, -2], [2, -4]], np.int64)
    out = np.zeros((height, width), np.int32)
    for y in range(height):
        for x in range(width):
            best = 0
            for k in range(8):
                dy, dx = steps[k]
                for scale in range(2):
                    if scale == 1:
                        dy, dx = dy + dy // 2, dx + dx // 2
                    a = s[min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)]
                    b = s[min(max(y - dy, 0), height - 1), min(max(x - dx, 0), width - 1)]
                    best = max(best, min(a, b) - s[y, x])
            out[y, x] = best
    return out


def boundary_map(em: U8) -> U8:
    """Boundary strength of one section, 0 to 255.

    Args:
        em: uint8 ``[y, x]``; a missing section is all 0 and gives all 0.
    """
    if not em.any():
        return np.zeros(em.shape, np.uint8)
    s = _binomial(_binomial(em.astype(np.int32) * 16))
    middle = int(np.sort(s.ravel())[s.size // 2])
    low = int(np.sort(s.ravel())[s.size // 20])
    contrast = max(middle - low, 16)
    dark = np.maximum(middle - s, 0) * 90 // contrast
    line = _ridges(s) * 150 // contrast
    b = _binomial((line + np.minimum(dark, 110)).astype(np.int32))
    return np.clip(b, 0, 255).astype(np.uint8)


@nb.njit(cache=True)
def _chamfer(wall: NDArray[np.bool_]) -> I32:
    """Distance from walls, 3 per straight and 4 per diagonal step (Borgefors 1986)."""
    h, w = wall.shape
    d = np.full((h + 2, w + 2), 30000, np.int32)
    for y in range(1, h + 1):
        for x in range(1, w + 1):
            if wall[y - 1, x - 1]:
                d[y, x] = 0
                continue
            straight = min(d[y - 1, x], d[y, x - 1])
            diagonal = min(d[y - 1, x - 1], d[y - 1, x + 1])
            d[y, x] = min(straight + 3, diagonal + 4)
    for y in range(h, 0, -1):
        for x in range(w, 0, -1):
            straight = min(d[y + 1, x], d[y, x + 1])
            diagonal = min(d[y + 1, x + 1], d[y + 1, x - 1])
            d[y, x] = min(d[y, x], straight + 3, diagonal + 4)
    return d[1:-1, 1:-1].copy()


@nb.njit(cache=True)
def _is_top(distance: I32, y: int, x: int, reach: int) -> bool:
    """Whether no pixel of the window around one is farther from walls."""
    h, w = distance.shape
    for yy in range(max(0, y - reach), min(h, y + reach + 1)):
        for xx in range(max(0, x - reach), min(w, x + reach + 1)):
            if distance[yy, xx] > distance[y, x]:
                return False
    return True


@nb.njit(cache=True)
def _fill(top: NDArray[np.bool_], out: I32, y: int, x: int, n: int, stack: I32) -> None:
    """Give number ``n`` to all tops that hang together, over gaps of one pixel, with one."""
    h, w = top.shape
    out[y, x] = n
    stack[0] = y, x
    m = 1
    while m:
        m -= 1
        cy, cx = stack[m]
        for yy in range(max(0, cy - 2), min(h, cy + 3)):
            for xx in range(max(0, cx - 2), min(w, cx + 3)):
                if top[yy, xx] and not out[yy, xx]:
                    out[yy, xx] = n
                    stack[m] = yy, xx
                    m += 1


@nb.njit(cache=True)
def _seeds(distance: I32, reach: int) -> I32:
    """Number the places where the distance is largest within a window; plateaus count once."""
    h, w = distance.shape
    top = np.zeros((h, w), np.bool_)
    for y in range(h):
        for x in range(w):
            top[y, x] = distance[y, x] >= 6 and _is_top(distance, y, x, reach)
    out = np.zeros((h, w), np.int32)
    stack = np.empty((h * w, 2), np.int32)
    n = 0
    for y in range(h):
        for x in range(w):
            if top[y, x] and not out[y, x]:
                n += 1
                _fill(top, out, y, x, n, stack)
    return out


@nb.njit(cache=True)
def _flood(height_map: U8, labels: I32) -> None:
    """Seeded watershed in place: 256 queues, first in first out, 4-neighbours (Meyer 1991)."""
    h, w = height_map.shape
    head = np.full(256, -1, np.int64)
    tail = np.full(256, -1, np.int64)
    following = np.full(h * w, -1, np.int64)
    queued = np.zeros(h * w, np.bool_)
    flat = labels.ravel()
    level_of = height_map.ravel()
    for i in range(h * w):
        if flat[i]:
            queued[i] = True
            if tail[0] < 0:
                head[0] = i
            else:
                following[tail[0]] = i
            tail[0] = i
    level = 0
    while level < 256:
        i = head[level]
        if i < 0:
            level += 1
            continue
        head[level] = following[i]
        if head[level] < 0:
            tail[level] = -1
        y, x = i // w, i % w
        for side in range(4):
            yy = y + (side == 0) - (side == 1)
            xx = x + (side == 2) - (side == 3)
            if yy < 0 or xx < 0 or yy >= h or xx >= w:
                continue
            j = yy * w + xx
            if queued[j]:
                continue
            queued[j] = True
            flat[j] = flat[i]
            to = max(level, int(level_of[j]))
            following[j] = -1
            if tail[to] < 0:
                head[to] = j
            else:
                following[tail[to]] = j
            tail[to] = j


def superpixels(b: U8) -> I32:
    """Watershed of one section's boundary map; every pixel belongs to one, from 1."""
    distance = _chamfer(b >= BOUNDARY)
    smooth = _binomial(np.minimum(distance, 2000) * 4) >> 2
    labels = _seeds(smooth, 4)
    inside = 127 - np.minimum(smooth * 2, 126)
    height_map = np.where(b >= BOUNDARY, 128 + (b >> 1), inside).astype(np.uint8)
    _flood(height_map, labels)
    return labels


@nb.njit(cache=True)
def _contacts(a: I32, b: U8, dy: int, dx: int) -> I64:
    """``(n, 3)`` of smaller label, larger label, boundary strength, for each touching pair."""
    h, w = a.shape
    out = np.empty((h * w, 3), np.int64)
    n = 0
    for y in range(h - dy):
        for x in range(w - dx):
            p, q = a[y, x], a[y + dy, x + dx]
            if p != q:
                out[n, 0], out[n, 1] = min(p, q), max(p, q)
                out[n, 2] = max(b[y, x], b[y + dy, x + dx])
                n += 1
    return out[:n]


def _summed(contacts: I64) -> I64:
    """``(n, 4)``: the two labels, sum of strengths, count; one row for each pair, in order."""
    key: I64 = contacts[:, 0] * (1 << 31) + contacts[:, 1]
    order = np.argsort(key, kind="stable")
    key = key[order]
    first = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
    total = np.add.reduceat(contacts[order, 2], first)
    count = np.diff(np.concatenate([first, [len(key)]]))
    pair = key[first]
    return np.stack([pair >> 31, pair & ((1 << 31) - 1), total, count], axis=1)


def flat_graph(labels: I32, strength: U8) -> I64:
    """Contacts within one section, ``[y, x]``."""
    inner = [_contacts(labels, strength, 0, 1), _contacts(labels, strength, 1, 0)]
    return _summed(np.concatenate(inner))


def across_graph(here: I32, there: I32, b: U8, b_there: U8) -> I64:
    """Contacts of the regions of two neighbouring sections.

    Their strength is the part of their inside (of the smaller one, mostly) that they do not share.
    """
    differ = here != there
    if not differ.any():
        # a copy that stands for a missing section touches its original only in itself
        return np.empty((0, 4), np.int64)
    inside, inside_there = b < BOUNDARY, b_there < BOUNDARY
    both = (inside & inside_there)[differ]
    rows = _summed(np.stack([here[differ], there[differ], both], axis=1, dtype=np.int64))
    shared = rows[:, 2]
    n = int(max(here.max(), there.max())) + 1
    area = np.bincount(here[inside], minlength=n), np.bincount(there[inside_there], minlength=n)
    one, two = area[0][rows[:, 0]], area[1][rows[:, 1]]
    extent = np.maximum((9 * np.minimum(one, two) + np.maximum(one, two)) // 10, 1)
    rows[:, 2] = rows[:, 3] * (APART * (extent - np.minimum(shared, extent)) // extent)
    return rows


class Agglomeration:
    """Merges regions, the weakest mean boundary first."""

    def __init__(self, graph: I64, count: int) -> None:
        self.parent = list(range(count))
        self.edges: list[dict[int, tuple[int, int]]] = [{} for _ in range(count)]
        self.heap: list[tuple[int, int, int]] = []
        for a, b, total, n in graph.tolist():
            old = self.edges[a].get(b, (0, 0))
            edge = (old[0] + total, old[1] + n)
            self.edges[a][b] = self.edges[b][a] = edge
        for a, near in enumerate(self.edges):
            for b, edge in near.items():
                if a < b:
                    self.push(a, b, edge)

    def push(self, a: int, b: int, edge: tuple[int, int]) -> None:
        """Queue a contact by its mean strength; thin evidence counts as stronger boundary."""
        heapq.heappush(self.heap, (cost(edge), min(a, b), max(a, b)))

    def merge(self, a: int, b: int) -> int:
        """Make two regions one; returns the one that remains."""
        if len(self.edges[a]) < len(self.edges[b]):
            a, b = b, a
        self.parent[b] = a
        mine, theirs = self.edges[a], self.edges[b]
        del mine[b]
        del theirs[a]
        for c, edge in theirs.items():
            old = mine.get(c)
            both = edge if old is None else (old[0] + edge[0], old[1] + edge[1])
            del self.edges[c][b]
            mine[c] = self.edges[c][a] = both
            self.push(a, c, both)
        self.edges[b] = {}
        return a

    def run(self, stop: int) -> None:
        """Merge until the weakest boundary left is as strong as ``stop``."""
        while self.heap:
            c, a, b = heapq.heappop(self.heap)
            if c >= stop:
                heapq.heappush(self.heap, (c, a, b))
                return
            edge = self.edges[a].get(b)
            if edge is not None and cost(edge) == c:
                self.merge(a, b)

    def roots(self) -> I64:
        """The region that each superpixel ended in."""
        out = np.empty(len(self.parent), np.int64)
        for i in range(len(self.parent)):
            r = i
            while self.parent[r] != r:
                r = self.parent[r]
            out[i] = r
            while self.parent[i] != r:
                self.parent[i], i = r, self.parent[i]
        return out


def cost(edge: tuple[int, int]) -> int:
    """Mean boundary strength of a contact times 16; a contact of few voxels is less sure."""
    total, n = edge
    return 16 * (total + 100 * 6) // (n + 6)


def segment(em: U8) -> I32:
    """Segment a volume.

    Args:
        em: uint8 ``[z, y, x]``. A section that is all 0 is missing: it repeats the one before.

    Returns:
        Segments from 1, without gaps in number, each connected.
    """
    strength = np.zeros(em.shape, np.uint8)
    labels = np.empty(em.shape, np.int32)
    count = 1
    for z in range(len(em)):
        if z and not em[z].any():
            labels[z] = labels[z - 1]
            continue
        strength[z] = boundary_map(em[z])
        labels[z] = flat_segments(strength[z]) + (count - 1)
        count = int(labels[z].max()) + 1
    return stack_segments(labels, strength, count)


def flat_segments(b: U8) -> I32:
    """Segments of one section from its boundary map, from 1 without gaps."""
    labels = superpixels(b)
    count = int(labels.max()) + 1
    work = Agglomeration(flat_graph(labels, b), count)
    work.run(FLAT_STOP * 16)
    return _renumbered(labels, work)


def stack_segments(labels: I32, strength: U8, count: int) -> I32:
    """Merge the flat segments of all sections (from 1, ``count - 1`` of them) into segments."""
    parts = []
    for z in range(len(labels)):
        if strength[z].any():
            parts.append(flat_graph(labels[z], strength[z]))
        if z + 1 < len(labels):
            parts.append(across_graph(labels[z], labels[z + 1], strength[z], strength[z + 1]))
    work = Agglomeration(np.concatenate(parts), count)
    work.run(STOP * 16)
    size = np.bincount(labels.ravel(), minlength=count)
    absorb(work, size, SMALL_VX, SMALL_STOP)
    absorb(work, size, SLIVER_VX, 256)
    return _renumbered(labels, work)


def _renumbered(labels: I32, work: Agglomeration) -> I32:
    _, dense = np.unique(work.roots()[1:], return_inverse=True)
    table = np.concatenate([[0], dense.ravel() + 1]).astype(np.int32)
    out: I32 = table[labels]
    return out


def absorb(work: Agglomeration, size: I64, below: int, stop: int) -> None:
    """Merge each small segment into the neighbour with the weakest boundary, smallest first.

    Args:
        work: The segments so far.
        size: Voxels of each region that the agglomeration began with.
        below: Segments with at least so many voxels stay.
        stop: A boundary as strong as this keeps a segment apart.
    """
    roots = work.roots()
    total = np.zeros(len(roots), np.int64)
    np.add.at(total, roots, size)
    small = np.flatnonzero((total > 0) & (total < below))
    for r in small[np.argsort(total[small], kind="stable")].tolist():
        while work.parent[r] != r:
            r = work.parent[r]
        if total[r] >= below or not work.edges[r]:
            continue
        least, best = min((cost(e), b) for b, e in work.edges[r].items())
        if least < stop * 16:
            both = int(total[r] + total[best])
            total[work.merge(r, best)] = both
