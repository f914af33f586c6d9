"""From the renderer's labels to true bodies: each one connected within the volume.

A neurite that leaves the volume and comes back is two bodies, and so is one that a shift between
sections tears apart: nothing in the volume tells that its parts belong together.
"""

from __future__ import annotations

import numba as nb
import numpy as np
from numpy.typing import NDArray

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]

CRUMB_VX = 200
"""Smaller parts go to the neighbour with which they share most faces."""


@nb.njit(cache=True)
def _root(parent: I32, i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@nb.njit(cache=True)
def _joined(parent: I32, mine: int, other: int) -> int:
    """Make two parts one (the first may be none yet, -1); returns its root."""
    other = _root(parent, other)
    if mine < 0:
        return other
    parent[max(mine, other)] = min(mine, other)
    return min(mine, other)


@nb.njit(cache=True)
def _components(labels: I32) -> tuple[I32, int]:
    """Components of equal labels over shared faces, numbered from 0 in scan order."""
    nz, ny, nx = labels.shape
    out = np.empty(labels.shape, np.int32)
    parent = np.empty(labels.size // 4 + 16, np.int32)
    n = 0
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                v = labels[z, y, x]
                mine = -1
                if x and labels[z, y, x - 1] == v:
                    mine = _root(parent, out[z, y, x - 1])
                if y and labels[z, y - 1, x] == v:
                    mine = _joined(parent, mine, out[z, y - 1, x])
                if z and labels[z - 1, y, x] == v:
                    mine = _joined(parent, mine, out[z - 1, y, x])
                if mine < 0:
                    mine = n
                    parent[n] = n
                    n += 1
                out[z, y, x] = mine
    number = np.full(n, -1, np.int32)
    count = 0
    for i in range(n):
        r = _root(parent, i)
        if number[r] < 0:
            number[r] = count
            count += 1
        number[i] = number[r]
    flat = out.ravel()
    for i in range(flat.size):
        flat[i] = number[flat[i]]
    return out, count


@nb.njit(cache=True)
def _crumb_faces(parts: I32, size: I64, below: int, most: int) -> I64:
    """``(n, 2)`` of crumb and neighbour, for each face of a crumb."""
    nz, ny, nx = parts.shape
    out = np.empty((most, 2), np.int64)
    n = 0
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                a = parts[z, y, x]
                for axis in range(3):
                    zz, yy, xx = z + (axis == 0), y + (axis == 1), x + (axis == 2)
                    if zz >= nz or yy >= ny or xx >= nx:
                        continue
                    b = parts[zz, yy, xx]
                    if a == b:
                        continue
                    if size[a] < below:
                        out[n, 0], out[n, 1] = a, b
                        n += 1
                    if size[b] < below:
                        out[n, 0], out[n, 1] = b, a
                        n += 1
    return out[:n]


def connected_bodies(labels: I32) -> I32:
    """Number the connected parts of labels ``[z, y, x]`` from 1; crumbs join a neighbour."""
    parts, count = _components(labels)
    while True:
        size = np.bincount(parts.ravel(), minlength=count)
        crumbs = int(size[size < CRUMB_VX].sum())
        if crumbs == 0 or count == 1:
            return (parts + 1).astype(np.int32)
        faces = _crumb_faces(parts, size, CRUMB_VX, 6 * crumbs)
        pair, shared = np.unique(faces[:, 0] * count + faces[:, 1], return_counts=True)
        crumb, neighbour = pair // count, pair % count
        order = np.lexsort((neighbour, -shared, crumb))
        crumb, neighbour = crumb[order], neighbour[order]
        first = np.flatnonzero(np.concatenate([[True], crumb[1:] != crumb[:-1]]))
        target = np.arange(count)
        target[crumb[first]] = neighbour[first]
        parts, count = _merged(parts, target)


def _merged(parts: I32, target: I64) -> tuple[I32, int]:
    """Follow each part's target (two crumbs may name each other) and number again."""
    root = np.arange(len(target))
    for i in range(len(target)):
        a, b = i, int(target[i])
        while root[a] != a:
            a = int(root[a])
        while root[b] != b:
            b = int(root[b])
        root[max(a, b)] = min(a, b)
    for i in range(len(root)):
        root[i] = root[root[i]]
    _, dense = np.unique(root, return_inverse=True)
    return dense.ravel().astype(np.int32)[parts], int(dense.max()) + 1
