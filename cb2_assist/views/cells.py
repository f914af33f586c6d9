"""Loops of `partition` over voxels: from a mask to a coarse grid of cells, and back to voxels.

A *cell* is a block of voxels that is about 20 nm wide. Volumes are three-dimensional, axes x, y, z,
Fortran order. Cells of the segment are numbered, x fastest, and what is known of them lies in flat
arrays. Two cells are neighbours only where voxels of the segment touch face to face across
their border, so a gap of background that runs along a cell's border keeps them apart. Everything
runs in a fixed order, so equal input gives equal output.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cb2_assist.views.jit import kernel

FAR = np.float32(1e18)
"""Squared nm that stands for "no background seen yet"."""
DEPTH_STEP = 8.0
"""Thickness is kept in steps of 1/8 nm, so that cells can be sorted by a 16-bit number."""


@kernel
def bounding_box(mask: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Half-open box of the nonzero voxels: int64 (3, 2); all zero when there are none."""
    nx, ny, nz = mask.shape
    lo = np.array([nx, ny, nz])
    hi = np.zeros(3, np.int64)
    for z in range(nz):
        for y in range(ny):
            first = -1
            last = -1
            for x in range(nx):
                if mask[x, y, z]:
                    if first < 0:
                        first = x
                    last = x
            if first >= 0:
                lo[0] = min(lo[0], first)
                hi[0] = max(hi[0], last + 1)
                lo[1] = min(lo[1], y)
                hi[1] = max(hi[1], y + 1)
                lo[2] = min(lo[2], z)
                hi[2] = z + 1
    box = np.zeros((3, 2), np.int64)
    if hi[2] > 0:
        box[:, 0] = lo
        box[:, 1] = hi
    return box


@kernel
def coarsen(
    mask: NDArray[np.uint8], factor: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Count voxels per cell, and touching voxel faces between each cell and its next in x, y, z.

    Args:
        mask: uint8, nonzero inside the segment.
        factor: int64 (3,), voxels per cell along each axis.

    Returns:
        count: int32, cells; faces: int32, cells + (3,).
    """
    nx, ny, nz = mask.shape
    fx, fy, fz = factor
    cx, cy, cz = (nx + fx - 1) // fx, (ny + fy - 1) // fy, (nz + fz - 1) // fz
    # allocated reversed, then transposed: numba's own allocation has no order argument
    count = np.zeros((cz, cy, cx), np.int32).T
    faces = np.zeros((3, cz, cy, cx), np.int32).T
    for z in range(nz):
        c = z // fz
        z_edge = z + 1 < nz and (z + 1) % fz == 0
        for y in range(ny):
            b = y // fy
            y_edge = y + 1 < ny and (y + 1) % fy == 0
            for x in range(nx):
                if not mask[x, y, z]:
                    continue
                a = x // fx
                count[a, b, c] += 1
                if x + 1 < nx and (x + 1) % fx == 0 and mask[x + 1, y, z]:
                    faces[a, b, c, 0] += 1
                if y_edge and mask[x, y + 1, z]:
                    faces[a, b, c, 1] += 1
                if z_edge and mask[x, y, z + 1]:
                    faces[a, b, c, 2] += 1
    return count, faces


@kernel
def _envelope(
    line: NDArray[np.float64], apex: NDArray[np.int64], start: NDArray[np.float64]
) -> int:
    """Lower envelope of the parabolas on one line, in steps; where each begins. -1 for none."""
    k = -1
    for i in range(line.shape[0]):
        if line[i] >= FAR:
            continue
        meet = -np.inf
        while k >= 0:
            j = apex[k]
            meet = (line[i] + i * i - line[j] - j * j) / (2.0 * (i - j))
            if meet > start[k]:
                break
            k -= 1
        k += 1
        apex[k] = i
        start[k] = meet if k > 0 else -np.inf
        start[k + 1] = np.inf
    return k


@kernel
def _scan_lines(squared: NDArray[np.float32], step: float) -> None:
    """One axis (the first) of the exact squared distance transform, in place.

    P. Felzenszwalb and D. Huttenlocher, Theory of Computing 8 (2012) 415. What lies beyond the
    array is unknown, not background.
    """
    n, ny, nz = squared.shape
    line = np.zeros(n, np.float64)
    apex = np.zeros(n, np.int64)
    start = np.zeros(n + 1, np.float64)
    for z in range(nz):
        for y in range(ny):
            inside = 0
            for i in range(n):
                inside += squared[i, y, z] > 0
                line[i] = FAR if squared[i, y, z] >= FAR else squared[i, y, z] / step**2
            if inside == 0 or _envelope(line, apex, start) < 0:
                continue
            j = 0
            for i in range(n):
                while start[j + 1] < i:
                    j += 1
                if squared[i, y, z] > 0:
                    squared[i, y, z] = (line[apex[j]] + (i - apex[j]) ** 2) * step**2


@kernel
def thickness(
    count: NDArray[np.int32], full: int, edge_nm: NDArray[np.float64], longest_nm: float
) -> NDArray[np.float32]:
    """Distance in nm from each cell's centre to the segment's surface; 0 outside.

    Cells that are at least half full count as inside, which keeps the surface where the voxels
    have it. Emptier cells keep a small value in proportion to their filling, so that thin
    processes stay connected.

    Args:
        count: int32, voxels of the segment per cell.
        full: Voxels in a whole cell.
        edge_nm: float64 (3,), edges of a cell.
        longest_nm: Value where no background is in sight.
    """
    nx, ny, nz = count.shape
    half = 0.5 * min(edge_nm[0], edge_nm[1], edge_nm[2])
    squared = np.zeros((nz, ny, nx), np.float32).T
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                if 2 * count[x, y, z] >= full:
                    squared[x, y, z] = FAR
    _scan_lines(squared, edge_nm[0])
    _scan_lines(squared.transpose(1, 0, 2), edge_nm[1])
    _scan_lines(squared.transpose(2, 0, 1), edge_nm[2])
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                if squared[x, y, z] > 0:
                    away = min(longest_nm, np.sqrt(squared[x, y, z]) - half)
                elif count[x, y, z] > 0:
                    away = half * 2 * count[x, y, z] / full
                else:
                    continue
                squared[x, y, z] = max(1.0, np.rint(away * DEPTH_STEP)) / DEPTH_STEP
    return squared


@kernel
def list_cells(
    count: NDArray[np.int32], depth: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.uint16]]:
    """Places (n, 3) int32 of the segment's cells, x fastest, and sort keys, thickest lowest."""
    n = 0
    for z in range(count.shape[2]):
        for y in range(count.shape[1]):
            for x in range(count.shape[0]):
                n += count[x, y, z] > 0
    place = np.empty((n, 3), np.int32)
    key = np.empty(n, np.uint16)
    n = 0
    for z in range(count.shape[2]):
        for y in range(count.shape[1]):
            for x in range(count.shape[0]):
                if count[x, y, z] > 0:
                    place[n, 0], place[n, 1], place[n, 2] = x, y, z
                    key[n] = 65535 - min(65535, int(depth[x, y, z] * DEPTH_STEP))
                    n += 1
    return place, key


@kernel
def link_cells(
    place: NDArray[np.int32],
    count: NDArray[np.int32],
    depth: NDArray[np.float32],
    faces: NDArray[np.int32],
) -> tuple[
    NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]
]:
    """Neighbours of numbered cells.

    Args:
        place: int32 (n, 3), in the order that numbers them.
        count: From `coarsen`.
        depth: From `thickness`.
        faces: From `coarsen`.

    Returns:
        number: int32 volume, each cell's number, -1 outside; beside: int32 (n, 6), neighbours
        towards +x -x +y -y +z -z, -1 for none; touch: int32 (n, 3), voxel faces shared with the
        neighbours towards +x +y +z; and voxel count and depth, (n,).
    """
    n = place.shape[0]
    nx, ny, nz = count.shape
    number = np.full((nz, ny, nx), -1, np.int32).T
    for i in range(n):
        number[place[i, 0], place[i, 1], place[i, 2]] = i
    beside = np.full((n, 6), -1, np.int32)
    touch = np.zeros((n, 3), np.int32)
    voxels = np.empty(n, np.int32)
    thick = np.empty(n, np.float32)
    for i in range(n):
        x, y, z = place[i]
        voxels[i] = count[x, y, z]
        thick[i] = depth[x, y, z]
        for axis in range(3):
            area = faces[x, y, z, axis]
            if area:
                j = number[x + int(axis == 0), y + int(axis == 1), z + int(axis == 2)]
                touch[i, axis] = area
                beside[i, 2 * axis] = j
                beside[j, 2 * axis + 1] = i
    return number, beside, touch, voxels, thick


@kernel
def nearest_cell(
    place: NDArray[np.int32], edge_nm: NDArray[np.float64], point_nm: NDArray[np.float64]
) -> int:
    """Number of the cell nearest a point: by its box, then by its centre, then the first."""
    best = 0
    best_box = np.inf
    best_middle = np.inf
    for i in range(place.shape[0]):
        box = 0.0
        middle = 0.0
        for k in range(3):
            off = abs(point_nm[k] - (place[i, k] + 0.5) * edge_nm[k])
            middle += off * off
            box += max(off - 0.5 * edge_nm[k], 0.0) ** 2
        if box < best_box or (box == best_box and middle < best_middle):
            best, best_box, best_middle = i, box, middle
    return best


@kernel
def spread(
    mask: NDArray[np.uint8],
    factor: NDArray[np.int64],
    number: NDArray[np.int32],
    side: NDArray[np.uint8],
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Give every voxel of the mask its cell's side; uint8, and the voxel count of each side."""
    nx, ny, nz = mask.shape
    out = np.zeros((nz, ny, nx), np.uint8).T
    total = np.zeros(256, np.int64)
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                if mask[x, y, z]:
                    s = side[number[x // factor[0], y // factor[1], z // factor[2]]]
                    out[x, y, z] = s
                    total[s] += 1
    return out, total


@kernel
def axis_moments(
    inside: NDArray[np.uint8],
    voxel_nm: NDArray[np.float64],
    point_nm: NDArray[np.float64],
    radius_nm: float,
) -> tuple[int, NDArray[np.float64], NDArray[np.float64]]:
    """Number, sum (3,) and second moments (3, 3) of voxel centres near a point, nm from it."""
    total = 0
    first = np.zeros(3)
    second = np.zeros((3, 3))
    at = np.zeros(3)
    for z in range(inside.shape[2]):
        at[2] = (z + 0.5) * voxel_nm[2] - point_nm[2]
        for y in range(inside.shape[1]):
            at[1] = (y + 0.5) * voxel_nm[1] - point_nm[1]
            for x in range(inside.shape[0]):
                if not inside[x, y, z]:
                    continue
                at[0] = (x + 0.5) * voxel_nm[0] - point_nm[0]
                if at[0] ** 2 + at[1] ** 2 + at[2] ** 2 > radius_nm**2:
                    continue
                total += 1
                for i in range(3):
                    first[i] += at[i]
                    for j in range(3):
                        second[i, j] += at[i] * at[j]
    return total, first, second


@kernel
def plane_split(
    inside: NDArray[np.uint8],
    voxel_nm: NDArray[np.float64],
    through_nm: NDArray[np.float64],
    normal: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Sides of a plane, 1 below and 2 above, in place; the voxel count of each side."""
    total = np.zeros(256, np.int64)
    for z in range(inside.shape[2]):
        for y in range(inside.shape[1]):
            for x in range(inside.shape[0]):
                if inside[x, y, z]:
                    above = (
                        ((x + 0.5) * voxel_nm[0] - through_nm[0]) * normal[0]
                        + ((y + 0.5) * voxel_nm[1] - through_nm[1]) * normal[1]
                        + ((z + 0.5) * voxel_nm[2] - through_nm[2]) * normal[2]
                    )
                    inside[x, y, z] = 2 if above > 0 else 1
                    total[inside[x, y, z]] += 1
    return total


@kernel
def swap_sides(label: NDArray[np.uint8]) -> None:
    """Exchange 1 and 2, in place."""
    for z in range(label.shape[2]):
        for y in range(label.shape[1]):
            for x in range(label.shape[0]):
                if label[x, y, z]:
                    label[x, y, z] = 3 - label[x, y, z]
