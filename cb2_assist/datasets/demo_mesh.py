"""Meshes of all segments of a volume at once: surface nets (Gibson 1998, MICCAI, LNCS 1496:888).

Each cell between 2 x 2 x 2 voxels that holds a boundary gets one vertex, shared by all segments
that meet there; each voxel face between two segments becomes a quad of either. So neighbours fit
without gaps, and a volume of many small segments is meshed in the time of one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

RELAX_ROUNDS = 3
F32 = NDArray[np.float32]

_QUAD = ((-1, -1), (0, -1), (0, 0), (-1, 0))
"""Cells around a face, in turn, as steps along the two axes that follow the face's own."""


def surface_nets(labels: NDArray[np.uint16]) -> Iterator[tuple[int, F32, NDArray[np.uint32]]]:
    """Mesh every label but 0.

    Args:
        labels: Labels ``[z, y, x]``; outside is 0.

    Yields:
        Label, vertices ``(n, 3)`` as x, y, z in voxels (voxel v covers [v, v + 1)), triangles
        ``(m, 3)`` that face outwards; labels ascending.
    """
    a = np.ascontiguousarray(np.pad(labels, 1).transpose(2, 1, 0))
    position = _relaxed(a)
    owner, quads = _faces(a)
    order = np.argsort(owner, kind="stable")
    owner, quads = owner[order], quads[order]
    ids, first = np.unique(owner, return_index=True)
    slot = np.empty(position.shape[0], np.int32)
    for label, lo, hi in zip(ids, first, [*first[1:], len(owner)], strict=True):
        if label == 0:
            continue
        corner = quads[lo:hi].ravel()
        # the last writer of each cell stands for it: a unique without sorting
        slot[corner] = np.arange(len(corner), dtype=np.int32)
        kept = slot[corner] == np.arange(len(corner), dtype=np.int32)
        cells = corner[kept]
        slot[cells] = np.arange(len(cells), dtype=np.int32)
        q = slot[corner].reshape(-1, 4)
        faces = np.concatenate([q[:, [0, 1, 2]], q[:, [0, 2, 3]]]).astype(np.uint32)
        yield int(label), position[cells], faces


def _along(array: NDArray[Any], axis: int, lo: int, hi: int | None) -> NDArray[Any]:
    """A slice of one axis."""
    index = [slice(None)] * array.ndim
    index[axis] = slice(lo, hi)
    return array[tuple(index)]


def _relaxed(a: NDArray[np.uint16]) -> F32:
    """Vertex of each cell ``(cells, 3)`` in voxels of the unpadded volume."""
    shape = tuple(n - 1 for n in a.shape)
    weight = np.zeros(shape, np.float32)
    offset = np.zeros((3, *shape), np.float32)
    links = []
    for axis in range(3):
        cross = _along(a, axis, 0, -1) != _along(a, axis, 1, None)
        u, v = (axis + 1) % 3, (axis + 2) % 3
        face = np.zeros((), bool)
        for du in (0, 1):
            for dv in (0, 1):
                part = _along(_along(cross, u, du, du - 1 or None), v, dv, dv - 1 or None)
                weight += part
                offset[u] += part * np.float32(du - 0.5)
                offset[v] += part * np.float32(dv - 0.5)
        for w in (u, v):
            # four voxels around the face between two cells along this axis are not all one
            side = _along(a, w, 0, -1) != _along(a, w, 1, None)
            other = v if w == u else u
            both = _along(side, other, 0, -1) | _along(side, other, 1, None)
            face = both if face.ndim == 0 else face | both
        links.append(_along(face, axis, 1, -1))
    offset /= np.maximum(weight, 1)
    start = offset.copy()
    for _ in range(RELAX_ROUNDS):
        offset = _relax(offset, links)
        np.clip(offset, start - 0.45, start + 0.45, out=offset)
        np.clip(offset, -0.5, 0.5, out=offset)
    for axis in range(3):
        index = np.arange(shape[axis], dtype=np.float32)
        offset[axis] += index.reshape([-1 if d == axis else 1 for d in range(3)])
    return np.ascontiguousarray(offset.reshape(3, -1).T)


def _relax(offset: F32, links: list[NDArray[np.bool_]]) -> F32:
    """Move each vertex half way to the mean of its linked neighbours."""
    total = np.zeros_like(offset)
    count = np.zeros(offset.shape[1:], np.float32)
    for axis, link in enumerate(links):
        here, there = (0, -1), (1, None)
        for (lo, hi), (lo2, hi2), step in ((here, there, 1.0), (there, here, -1.0)):
            _along(count, axis, lo, hi)[...] += link
            for d in range(3):
                near = _along(offset[d], axis, lo2, hi2)
                shift = np.float32(step if d == axis else 0.0)
                _along(total[d], axis, lo, hi)[...] += (near + shift) * link
    moved: F32 = np.where(count > 0, 0.5 * (offset + total / np.maximum(count, 1)), offset)
    return moved.astype(np.float32)


def _faces(a: NDArray[np.uint16]) -> tuple[NDArray[np.uint16], NDArray[np.int32]]:
    """Owner and the four cells of each quad, turned outwards."""
    shape = np.array([n - 1 for n in a.shape])
    stride = np.array([shape[1] * shape[2], shape[2], 1])
    owners, quads = [], []
    for axis in range(3):
        one, two = _along(a, axis, 0, -1), _along(a, axis, 1, None)
        at = np.nonzero(one != two)
        cell = at[0] * stride[0] + at[1] * stride[1] + at[2] * stride[2]
        u, v = (axis + 1) % 3, (axis + 2) % 3
        corner = np.stack([cell + du * stride[u] + dv * stride[v] for du, dv in _QUAD], axis=1)
        corner = corner.astype(np.int32)
        owners += [one[at], two[at]]
        quads += [corner, corner[:, ::-1]]
    return np.concatenate(owners), np.concatenate(quads)
