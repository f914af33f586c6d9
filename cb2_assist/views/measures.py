"""Compiled loops behind `views.features`.

Arrays are x, y, z. A window's EM and segments are often crops of something larger, so they come
with any strides; everything that is looped over more than once is copied to a small box first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cb2_assist.views.jit import kernel

Array = NDArray[Any]
_OTHER = 3
"""Code of a voxel of a third segment; 0 background, 1 and 2 the sides."""
_MOST_NEIGHBOURS = 512
_SLOTS = 2048
"""Size of the hash table of neighbours, several times `_MOST_NEIGHBOURS`: it stays sparse."""
_SPREAD, _SHIFT = np.uint64(0x9E3779B97F4A7C15), np.uint64(64 - 11)
"""Multiplicative hash to 11 bits (Knuth, The Art of Computer Programming 3, 6.4)."""


@kernel
def survey(  # noqa: C901, PLR0912 - a call for each face would cost more than the face
    label: Array, seg: Array, em: Array
) -> tuple[Array, Array, Array, Array]:
    """Size, shape, grey and surroundings of the two sides, in one pass over the window.

    Args:
        label: uint8 (z, y, x), C order.
        seg: uint64 (z, y, x), any strides.
        em: uint8 (z, y, x), any strides.

    Returns:
        Moments (2, 12): count, sums of x y z, sums of xx xy xz yy yz zz, sums of grey and grey²;
        faces of the surface (2, axis); faces shared with each other segment
        (2, slot of a hash table, axis); number of such neighbours (2,). All whole numbers.
    """
    nz, ny, nx = label.shape
    sums = np.zeros((2, 12), np.int64)
    surface = np.zeros((2, 3), np.int64)
    ids = np.zeros((2, _SLOTS), np.uint64)
    faces = np.zeros((2, _SLOTS, 3), np.int64)
    count = np.zeros(2, np.int64)
    for z in range(nz):
        for y in range(ny):
            used = np.uint8(0)
            for x in range(nx):
                used |= label[z, y, x]
            if used != 0:
                _moments(label, em, z, y, sums)
    for k in range(3):
        dz, dy, dx = int(k == 2), int(k == 1), int(k == 0)
        for z in range(nz - dz):
            for y in range(ny - dy):
                for x in range(nx - dx):
                    t, u = label[z, y, x], label[z + dz, y + dy, x + dx]
                    if t == u:
                        continue
                    if t != 0:
                        surface[t - 1, k] += 1
                    if u != 0:
                        surface[u - 1, k] += 1
                    if t != 0 and u != 0:
                        continue
                    beside = seg[z, y, x] if t == 0 else seg[z + dz, y + dy, x + dx]
                    if beside == 0:
                        continue
                    side = t + u - 1
                    slot = np.int64((beside * _SPREAD) >> _SHIFT)
                    while ids[side, slot] != beside and ids[side, slot] != 0:
                        slot = (slot + 1) % _SLOTS
                    if ids[side, slot] == 0:
                        if count[side] == _MOST_NEIGHBOURS:
                            continue
                        ids[side, slot] = beside
                        count[side] += 1
                    faces[side, slot, k] += 1
    return sums, surface, faces, count


@kernel
def _moments(label: Array, em: Array, z: int, y: int, sums: Array) -> None:
    """Add one row, run by run."""
    nx = label.shape[2]
    x = 0
    while x < nx:
        t = label[z, y, x]
        start = x
        while x < nx and label[z, y, x] == t:
            x += 1
        if t == 0:
            continue
        g, gg = np.int64(0), np.int64(0)
        for i in range(start, x):
            v = np.int64(em[z, y, i])
            g += v
            gg += v * v
        n = x - start
        sx = n * (start + x - 1) // 2
        sxx = ((x - 1) * x * (2 * x - 1) - (start - 1) * start * (2 * start - 1)) // 6
        row = (n, sx, n * y, n * z, sxx, sx * y, sx * z, n * y * y, n * y * z, n * z * z, g, gg)
        for k in range(12):
            sums[t - 1, k] += row[k]


@kernel
def interface(  # noqa: C901 - one loop nest
    label: Array, seg: Array, at: Array, res: Array, radius_nm: float, gap: int
) -> Array:
    """Faces between the two sides near the point: rows of voxel in A, voxel in B, axis.

    Through background only, at most ``gap`` voxels along an axis.
    """
    lo = np.empty(3, np.int64)
    hi = np.empty(3, np.int64)
    end = np.empty(3, np.int64)
    for k in range(3):
        reach = int(np.ceil(radius_nm / res[k])) + 1
        lo[k] = max(0, int(np.floor(at[k])) - reach)
        hi[k] = min(label.shape[k], int(np.floor(at[k])) + reach + 1)
        end[k] = min(label.shape[k], hi[k] + gap + 1)
    code = _codes(label, seg, lo, end)
    found = np.empty((4096, 7), np.int32)
    n = 0
    p = np.empty(3, np.int64)
    for z in range(lo[2], hi[2]):
        for y in range(lo[1], hi[1]):
            for x in range(lo[0], hi[0]):
                h, j, i = z - lo[2], y - lo[1], x - lo[0]
                t = code[h, j, i]
                if t == 0 or t == _OTHER:
                    continue
                if code[h, j, i + 1] == t and code[h, j + 1, i] == t and code[h + 1, j, i] == t:
                    continue
                p[0], p[1], p[2] = x, y, z
                for k in range(3):
                    # along +k only, from either side: each face is met once
                    far = _across(code, t, p[0] - lo[0], p[1] - lo[1], p[2] - lo[2], k, gap)
                    if far == 0:
                        continue
                    d = 0.0
                    for i in range(3):
                        q = p[i] + far if i == k else p[i]
                        d += (((p[i] + q + 1) * 0.5 - at[i]) * res[i]) ** 2
                    if d > radius_nm * radius_nm:
                        continue
                    if n == found.shape[0]:
                        more = np.empty((2 * n, 7), np.int32)
                        more[:n] = found
                        found = more
                    for i in range(3):
                        q = p[i] + far if i == k else p[i]
                        found[n, i] = p[i] if t == 1 else q
                        found[n, 3 + i] = q if t == 1 else p[i]
                    found[n, 6] = k
                    n += 1
    return found[:n]


@kernel
def _codes(label: Array, seg: Array, lo: Array, end: Array) -> Array:
    """The box as uint8 (z, y, x): the label, else 0 on background and `_OTHER` elsewhere.

    One layer of `_OTHER` follows the last voxel along each axis.
    """
    shape = (end[2] - lo[2] + 1, end[1] - lo[1] + 1, end[0] - lo[0] + 1)
    out = np.full(shape, np.uint8(_OTHER))
    for z in range(lo[2], end[2]):
        for y in range(lo[1], end[1]):
            for x in range(lo[0], end[0]):
                t = label[x, y, z]
                if t != 0 or seg[x, y, z] == 0:
                    out[z - lo[2], y - lo[1], x - lo[0]] = t
    return out


@kernel
def _across(code: Array, t: int, x: int, y: int, z: int, axis: int, gap: int) -> int:
    """Steps along +axis from a voxel of side t to one of the other side; 0 when there is none."""
    for step in range(1, gap + 2):
        if axis == 0:
            u = code[z, y, x + step]
        elif axis == 1:
            u = code[z, y + step, x]
        else:
            u = code[z + step, y, x]
        if u == 3 - t:
            return step
        if u != 0:
            return 0
    return 0


@kernel
def borders(seg: Array, label: Array) -> Array:
    """Voxels with a face to a voxel of another segment or label."""
    nx, ny, nz = seg.shape
    out = np.zeros(seg.shape, np.bool_)
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                s, t = seg[x, y, z], label[x, y, z]
                if x + 1 < nx and (seg[x + 1, y, z] != s or label[x + 1, y, z] != t):
                    out[x, y, z] = True
                    out[x + 1, y, z] = True
                if y + 1 < ny and (seg[x, y + 1, z] != s or label[x, y + 1, z] != t):
                    out[x, y, z] = True
                    out[x, y + 1, z] = True
                if z + 1 < nz and (seg[x, y, z + 1] != s or label[x, y, z + 1] != t):
                    out[x, y, z] = True
                    out[x, y, z + 1] = True
    return out


@kernel
def distances(  # noqa: C901 - one axis after the other
    border: Array, res: Array, lo: Array, hi: Array
) -> Array:
    """Exact distance in nm to the nearest border voxel, for the voxels lo..hi of the box.

    Axis by axis, each voxel searching outwards until nothing nearer can come. Infinite where the
    box has no border at all.
    """
    nx, ny, nz = border.shape
    along_x = np.full((nz, ny, nx), np.inf)
    for z in range(nz):
        for y in range(ny):
            last = -np.inf
            for x in range(nx):
                if border[x, y, z]:
                    last = x
                along_x[z, y, x] = ((x - last) * res[0]) ** 2
            last = np.inf
            for x in range(nx - 1, -1, -1):
                if border[x, y, z]:
                    last = x
                along_x[z, y, x] = min(along_x[z, y, x], ((last - x) * res[0]) ** 2)
    along_xy = np.empty((nz, hi[1] - lo[1], hi[0] - lo[0]))
    for z in range(nz):
        for y in range(along_xy.shape[1]):
            for x in range(along_xy.shape[2]):
                along_xy[z, y, x] = _nearest(along_x[z, :, x + lo[0]], y + lo[1], res[1])
    out = np.empty((hi[0] - lo[0], hi[1] - lo[1], hi[2] - lo[2]))
    for z in range(out.shape[2]):
        for y in range(out.shape[1]):
            for x in range(out.shape[0]):
                out[x, y, z] = np.sqrt(_nearest(along_xy[:, y, x], z + lo[2], res[2]))
    return out


@kernel
def _nearest(line: Array, at: int, size: float) -> float:
    """Least of ``line[i] + ((i - at) * size)²``."""
    best: float = line[at]
    for step in range(1, line.shape[0]):
        more = (step * size) ** 2
        if more >= best:
            break
        if at >= step:
            best = min(best, line[at - step] + more)
        if at + step < line.shape[0]:
            best = min(best, line[at + step] + more)
    return best


@kernel
def ranges_near(shape: tuple[int, int, int], q0: Array, q1: Array, reach: int) -> Array:
    """Per row (x, y) the z range, lo and hi, within ``reach`` of any given voxel; hi 0 = none."""
    out = np.zeros((shape[0], shape[1], 2), np.int64)
    out[:, :, 0] = shape[2]
    for f in range(q0.shape[0]):
        for turn in range(2):
            x, y, z = (
                (q0[f, 0], q0[f, 1], q0[f, 2]) if turn == 0 else (q1[f, 0], q1[f, 1], q1[f, 2])
            )
            for i in range(max(x - reach, 0), min(x + reach + 1, shape[0])):
                for j in range(max(y - reach, 0), min(y + reach + 1, shape[1])):
                    out[i, j, 0] = min(out[i, j, 0], max(z - reach, 0))
                    out[i, j, 1] = max(out[i, j, 1], min(z + reach + 1, shape[2]))
    return out


@kernel
def blur_near(  # noqa: C901 - one loop nest
    v: Array, wx: Array, wy: Array, wz: Array, near: Array
) -> Array:
    """Separable filter, edge values repeated, only where ``near`` wants it (0 elsewhere).

    Args:
        v: float32 (x, y, z), C order.
        wx: Weights along x, an odd number of float32.
        wy: Along y.
        wz: Along z.
        near: Ranges from `ranges_near`.
    """
    nx, ny, nz = v.shape
    ry, rz = wy.shape[0] // 2, wz.shape[0] // 2
    first = np.empty((nx, ny, 2), np.int64)
    first[:, :, 0] = nz
    first[:, :, 1] = 0
    for i in range(nx):
        for j in range(ny):
            if near[i, j, 1]:
                a, b = max(near[i, j, 0] - rz, 0), min(near[i, j, 1] + rz, nz)
                for jj in range(max(j - ry, 0), min(j + ry + 1, ny)):
                    first[i, jj, 0] = min(first[i, jj, 0], a)
                    first[i, jj, 1] = max(first[i, jj, 1], b)
    along_x = _across_rows(v, wx, 0, first)
    for i in range(nx):
        for j in range(ny):
            first[i, j, 0], first[i, j, 1] = 0, 0
            if near[i, j, 1]:
                first[i, j, 0] = max(near[i, j, 0] - rz, 0)
                first[i, j, 1] = min(near[i, j, 1] + rz, nz)
    along_y = _across_rows(along_x, wy, 1, first)
    out = np.zeros_like(v)
    for i in range(nx):
        for j in range(ny):
            row, to = along_y[i, j], out[i, j]
            lo, hi = near[i, j, 0], near[i, j, 1]
            for t in range(-rz, rz + 1):
                w = wz[t + rz]
                inner_lo, inner_hi = max(lo, -t), min(hi, nz - t)
                for k in range(lo, min(inner_lo, hi)):
                    to[k] += w * row[0]
                for k in range(inner_lo, inner_hi):
                    to[k] += w * row[k + t]
                for k in range(max(inner_hi, lo), hi):
                    to[k] += w * row[nz - 1]
    return out


@kernel
def _across_rows(v: Array, w: Array, axis: int, ranges: Array) -> Array:
    nx, ny = v.shape[0], v.shape[1]
    r = w.shape[0] // 2
    out = np.zeros_like(v)
    for i in range(nx):
        for j in range(ny):
            lo, hi = ranges[i, j, 0], ranges[i, j, 1]
            to = out[i, j]
            for t in range(-r, r + 1):
                a = min(max(i + t, 0), nx - 1) if axis == 0 else i
                b = min(max(j + t, 0), ny - 1) if axis == 1 else j
                row, f = v[a, b], w[t + r]
                for k in range(lo, hi):
                    to[k] += f * row[k]
    return out


@kernel
def at_edge(v: Array, x: int, y: int, z: int) -> float:
    """Value of the voxel; outside, of the nearest one inside."""
    x = min(max(x, 0), v.shape[0] - 1)
    y = min(max(y, 0), v.shape[1] - 1)
    z = min(max(z, 0), v.shape[2] - 1)
    value: float = v[x, y, z]
    return value


@kernel
def _gradient(v: Array, x: int, y: int, z: int, step: Array) -> float:
    gx = (at_edge(v, x + 1, y, z) - at_edge(v, x - 1, y, z)) * 0.5 * step[0]
    gy = (at_edge(v, x, y + 1, z) - at_edge(v, x, y - 1, z)) * 0.5 * step[1]
    gz = (at_edge(v, x, y, z + 1) - at_edge(v, x, y, z - 1)) * 0.5 * step[2]
    length: float = np.sqrt(gx * gx + gy * gy + gz * gz)
    return length


@kernel
def hessian(v: Array, x: int, y: int, z: int, step: Array, h: Array) -> None:
    """Second differences over +-2 voxels on the diagonal and +-1 off it, added to ``h``."""
    c = at_edge(v, x, y, z)
    h[0, 0] += (at_edge(v, x + 2, y, z) - 2 * c + at_edge(v, x - 2, y, z)) * 0.125 * step[0] ** 2
    h[1, 1] += (at_edge(v, x, y + 2, z) - 2 * c + at_edge(v, x, y - 2, z)) * 0.125 * step[1] ** 2
    h[2, 2] += (at_edge(v, x, y, z + 2) - 2 * c + at_edge(v, x, y, z - 2)) * 0.125 * step[2] ** 2
    xy = at_edge(v, x + 1, y + 1, z) - at_edge(v, x + 1, y - 1, z)
    xy += at_edge(v, x - 1, y - 1, z) - at_edge(v, x - 1, y + 1, z)
    xz = at_edge(v, x + 1, y, z + 1) - at_edge(v, x + 1, y, z - 1)
    xz += at_edge(v, x - 1, y, z - 1) - at_edge(v, x - 1, y, z + 1)
    yz = at_edge(v, x, y + 1, z + 1) - at_edge(v, x, y + 1, z - 1)
    yz += at_edge(v, x, y - 1, z - 1) - at_edge(v, x, y - 1, z + 1)
    h[0, 1] += xy * 0.125 * step[0] * step[1]
    h[0, 2] += xz * 0.125 * step[0] * step[2]
    h[1, 2] += yz * 0.125 * step[1] * step[2]


SAMPLE_REACH = 2
"""How far from a face's voxels `sample` reads."""


@kernel
def sample(
    em: Array, fine: Array, middle: Array, coarse: Array, q0: Array, q1: Array, step: Array
) -> Array:
    """The eight interface volumes at each face, mean of its two voxels: shape (8, faces)."""
    out = np.empty((8, q0.shape[0]), np.float32)
    h = np.empty((3, 3), np.float64)
    sums = np.empty(5, np.float64)
    for f in range(q0.shape[0]):
        sums[:] = 0
        h[:] = 0
        for turn in range(2):
            x, y, z = (
                (q0[f, 0], q0[f, 1], q0[f, 2]) if turn == 0 else (q1[f, 0], q1[f, 1], q1[f, 2])
            )
            sums[0] += em[x, y, z]
            sums[1] += fine[x, y, z]
            sums[2] += coarse[x, y, z]
            sums[3] += _gradient(fine, x, y, z, step)
            sums[4] += _gradient(coarse, x, y, z, step)
            hessian(middle, x, y, z, step, h)
        h[1, 0], h[2, 0], h[2, 1] = h[0, 1], h[0, 2], h[1, 2]
        w = np.linalg.eigvalsh(h)
        for k in range(5):
            out[k, f] = sums[k] * 0.5
        out[5, f] = w[2]
        out[6, f] = w[0]
        out[7, f] = w[2] - max(0.0, w[1])
    return out


@kernel
def profile(em: Array, q0: Array, q1: Array, axis: Array, away: Array) -> tuple[Array, Array]:
    """Grey level ``away`` voxels into each side, along the face's axis."""
    a = np.empty(q0.shape[0], np.float32)
    b = np.empty(q0.shape[0], np.float32)
    p = np.empty(3, np.int64)
    for f in range(q0.shape[0]):
        k = axis[f]
        s = 1 if q1[f, k] > q0[f, k] else -1
        for i in range(3):
            p[i] = q0[f, i]
        p[k] -= s * away[k]
        a[f] = at_edge(em, p[0], p[1], p[2])
        for i in range(3):
            p[i] = q1[f, i]
        p[k] += s * away[k]
        b[f] = at_edge(em, p[0], p[1], p[2])
    return a, b
