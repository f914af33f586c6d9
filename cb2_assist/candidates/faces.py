"""Loops over voxel faces: where a segment touches its neighbours, and which faces belong together.

Face positions are doubled absolute voxel coordinates (whole numbers), so that sums and distances
come out the same to the last bit whichever box of the dataset was read and from whichever of the
two segments one looks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cb2_assist.views.jit import kernel

_HASH = np.uint64(0x9E3779B97F4A7C15)
"""Fibonacci hashing: 2**64 over the golden ratio (D. Knuth, TAOCP 3, 6.4)."""


@kernel
def surface_voxels(seg: NDArray[np.uint64], segment: np.uint64) -> NDArray[np.int32]:
    """Voxels of a segment, int32 (n, 3), with a neighbour that is not, or at the array's border."""
    nx, ny, nz = seg.shape
    place = np.empty((1 << 14, 3), np.int32)
    n = 0
    for z in range(nz):
        for y in range(ny):
            border = y == 0 or z == 0 or y == ny - 1 or z == nz - 1
            for x in range(nx):
                if seg[x, y, z] != segment:
                    continue
                if (
                    not border
                    and 0 < x < nx - 1
                    and seg[x - 1, y, z] == segment
                    and seg[x + 1, y, z] == segment
                    and seg[x, y - 1, z] == segment
                    and seg[x, y + 1, z] == segment
                    and seg[x, y, z - 1] == segment
                    and seg[x, y, z + 1] == segment
                ):
                    continue
                if n == place.shape[0]:
                    place = np.concatenate((place, np.empty_like(place)))
                place[n, 0], place[n, 1], place[n, 2] = x, y, z
                n += 1
    return place[:n]


@kernel
def touching_faces(
    seg: NDArray[np.uint64],
    segment: np.uint64,
    corner: NDArray[np.int64],
    reach: NDArray[np.int64],
) -> tuple[NDArray[np.int32], NDArray[np.uint64]]:
    """Faces between a segment and its neighbours, straight along an axis.

    Args:
        seg: Labels, 0 is background.
        segment: The segment.
        corner: int64 (3,), absolute voxel of `seg[0, 0, 0]`.
        reach: int64 (3,), longest step from a voxel of the segment to one of a neighbour; 1 for
            touching voxels, k + 1 to look through k voxels of background.

    Returns:
        face: int32 (n, 5): doubled position x, y, z (the middle of the gap), axis, step;
        neighbour: uint64 (n,).
    """
    surface = surface_voxels(seg, segment)
    face = np.empty((6 * surface.shape[0], 5), np.int32)
    neighbour = np.empty(6 * surface.shape[0], np.uint64)
    n = 0
    for i in range(surface.shape[0]):
        x, y, z = surface[i, 0], surface[i, 1], surface[i, 2]
        for d in range(6):
            axis = d // 2
            sign = 1 - 2 * (d % 2)
            u, v, w = np.int64(x), np.int64(y), np.int64(z)
            other = np.uint64(0)
            step = 0
            while other == 0 and step < reach[axis]:
                step += 1
                if axis == 0:
                    u += sign
                elif axis == 1:
                    v += sign
                else:
                    w += sign
                if min(u, v, w) < 0 or u >= seg.shape[0] or v >= seg.shape[1] or w >= seg.shape[2]:
                    break
                other = seg[u, v, w]
            if other == 0 or other == segment:
                continue
            face[n, 0] = x + u + 2 * corner[0] + 1
            face[n, 1] = y + v + 2 * corner[1] + 1
            face[n, 2] = z + w + 2 * corner[2] + 1
            face[n, 3] = axis
            face[n, 4] = step
            neighbour[n] = other
            n += 1
    return face[:n], neighbour[:n]


@kernel
def _slot(table: NDArray[np.uint64], key: np.uint64, bits: int) -> np.int64:
    """Where `key` is, or may be put, in an open-addressing table of 2**bits with 0 for empty."""
    i = np.int64((key * _HASH) >> np.uint64(64 - bits))
    while table[i] != 0 and table[i] != key:
        i = (i + 1) % table.shape[0]
    return i


@kernel
def number_ids(neighbour: NDArray[np.uint64]) -> tuple[NDArray[np.int32], NDArray[np.uint64]]:
    """Give each id a row in order of appearance: row of each entry, and the ids. No id is 0."""
    bits = 8
    table = np.zeros(1 << bits, np.uint64)
    row = np.zeros(1 << bits, np.int32)
    ids = np.zeros(1 << bits, np.uint64)
    known = 0
    rows = np.empty(neighbour.shape[0], np.int32)
    for i in range(neighbour.shape[0]):
        if i > 0 and neighbour[i] == neighbour[i - 1]:
            rows[i] = rows[i - 1]
            continue
        at = _slot(table, neighbour[i], bits)
        if table[at] == 0:
            if 2 * known == table.shape[0]:
                bits += 1
                table = np.zeros(1 << bits, np.uint64)
                row = np.zeros(1 << bits, np.int32)
                ids = np.concatenate((ids, np.zeros_like(ids)))
                for k in range(known):
                    at = _slot(table, ids[k], bits)
                    table[at] = ids[k]
                    row[at] = k
                at = _slot(table, neighbour[i], bits)
            table[at] = neighbour[i]
            row[at] = known
            ids[known] = neighbour[i]
            known += 1
        rows[i] = row[at]
    return rows, ids[:known]


@kernel
def _link_cubes(cubes: NDArray[np.int64], parent: NDArray[np.int64], used: int) -> None:
    """Give cubes at most four steps apart along every axis the same parent, in place."""
    for i in range(used):
        parent[i] = i
        for j in range(i):
            near = max(
                abs(cubes[i, 0] - cubes[j, 0]),
                abs(cubes[i, 1] - cubes[j, 1]),
                abs(cubes[i, 2] - cubes[j, 2]),
            )
            if near <= 4 and parent[i] != parent[j]:
                keep, drop = min(parent[i], parent[j]), max(parent[i], parent[j])
                for m in range(i + 1):
                    if parent[m] == drop:
                        parent[m] = keep


@kernel
def cubes_of(face: NDArray[np.int32], scale: NDArray[np.float64]) -> NDArray[np.int32]:
    """Cube of a fixed grid that each face lies in, int32 (n, 3); the lowest one is 0."""
    out = np.empty((face.shape[0], 3), np.int32)
    for a in range(3):
        least = np.int64(np.floor(face[:, a].min() * scale[a]))
        for i in range(face.shape[0]):
            out[i, a] = np.int64(np.floor(face[i, a] * scale[a])) - least
    return out


@kernel
def _sorted_rows(rows: NDArray[np.int32]) -> NDArray[np.int64]:
    """Positions ordered by row, stable (counting sort)."""
    begin = np.zeros(rows.max() + 2, np.int64)
    for r in rows:
        begin[r + 1] += 1
    begin = np.cumsum(begin)
    order = np.empty(rows.shape[0], np.int64)
    for i in range(rows.shape[0]):
        order[begin[rows[i]]] = i
        begin[rows[i]] += 1
    return order


@kernel
def patches(
    cube: NDArray[np.int32], rows: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Group each neighbour's faces into patches that lie apart from each other.

    Args:
        cube: From `cubes_of`. Faces in cubes at most four steps apart along every axis belong
            together.
        rows: int32 (n,), neighbour of each face.

    Returns:
        Patch of each face, int32 (n,) from 0; neighbour of each patch, int32.
    """
    n = rows.shape[0]
    order = _sorted_rows(rows)
    patch = np.zeros(n, np.int32)
    owner = np.empty(n, np.int32)
    total = 0
    stamp = np.full((cube[:, 0].max() + 1, cube[:, 1].max() + 1, cube[:, 2].max() + 1), -1)
    cubes = np.empty((n, 3), np.int64)
    parent = np.empty(n, np.int64)
    name = np.empty(n, np.int32)
    first = 0
    while first < n:
        k = rows[order[first]]
        used = 0
        last = first
        while last < n and rows[order[last]] == k:
            x, y, z = cube[order[last]]
            if stamp[x, y, z] < 0:
                stamp[x, y, z] = used
                cubes[used, 0], cubes[used, 1], cubes[used, 2] = x, y, z
                name[used] = -1
                used += 1
            last += 1
        _link_cubes(cubes, parent, used)
        for q in range(first, last):
            x, y, z = cube[order[q]]
            r = parent[stamp[x, y, z]]
            if name[r] < 0:
                name[r] = total
                owner[total] = k
                total += 1
            patch[order[q]] = name[r]
        for i in range(used):
            stamp[cubes[i, 0], cubes[i, 1], cubes[i, 2]] = -1
        first = last
    return patch, owner[:total]


@kernel
def sum_patches(
    face: NDArray[np.int32], patch: NDArray[np.int32], patches: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Whole-number sums over each patch, which are exact in any order.

    Args:
        face: From `touching_faces`.
        patch: int32 (n,); faces with a negative patch are left out.
        patches: Number of patches.

    Returns:
        Faces per patch and axis, int64 (patches, 3); those without a gap, the same; sums of the
        doubled positions per patch, axis and coordinate, int64 (patches, 3, 3).
    """
    number = np.zeros((patches, 3), np.int64)
    direct = np.zeros((patches, 3), np.int64)
    position = np.zeros((patches, 3, 3), np.int64)
    for i in range(face.shape[0]):
        k = patch[i]
        if k < 0:
            continue
        axis = face[i, 3]
        number[k, axis] += 1
        direct[k, axis] += face[i, 4] == 1
        for a in range(3):
            position[k, axis, a] += face[i, a]
    return number, direct, position


@kernel
def near_cursor(
    face: NDArray[np.int32], half_nm: NDArray[np.float64], at: NDArray[np.float64], radius_nm: float
) -> NDArray[np.bool_]:
    """Which faces lie within a radius of the cursor, nm."""
    out = np.empty(face.shape[0], np.bool_)
    for i in range(face.shape[0]):
        away = 0.0
        for a in range(3):
            away += (face[i, a] * half_nm[a] - at[a]) ** 2
        out[i] = away <= radius_nm**2
    return out


@kernel
def nearest_faces(
    face: NDArray[np.int32],
    patch: NDArray[np.int32],
    target: NDArray[np.float64],
    half_nm: NDArray[np.float64],
) -> NDArray[np.int64]:
    """For each patch, the face nearest its target; ties go to the lower x, then y, then z.

    Args:
        face: From `touching_faces`.
        patch: int32 (n,); faces with a negative patch are left out.
        target: float64 (patches, 3), nm.
        half_nm: float64 (3,), half a voxel.

    Returns:
        Row of the face, -1 for a patch without any.
    """
    best = np.full(target.shape[0], -1, np.int64)
    least = np.full(target.shape[0], np.inf)
    for i in range(face.shape[0]):
        k = patch[i]
        if k < 0:
            continue
        away = 0.0
        for a in range(3):
            away += (face[i, a] * half_nm[a] - target[k, a]) ** 2
        if away > least[k]:
            continue
        b = best[k]
        lower = (
            b < 0
            or away < least[k]
            or face[i, 0] < face[b, 0]
            or (face[i, 0] == face[b, 0] and face[i, 1] < face[b, 1])
            or (face[i, 0] == face[b, 0] and face[i, 1] == face[b, 1] and face[i, 2] < face[b, 2])
        )
        if lower:
            best[k] = i
            least[k] = away
    return best
