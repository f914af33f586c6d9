"""Compiled loops behind `views.surroundings`: the sides' contacts with every other segment.

Arrays are x, y, z unless said otherwise, as in `views.measures`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cb2_assist.views.jit import kernel
from cb2_assist.views.measures import at_edge, hessian

Array = NDArray[Any]
_SIDES = 2
_FIRST = 3
"""Code of the first other segment; 0 is background, 1 and 2 are the sides."""
_SLOTS = 4096
"""Size of the hash table of segments: a power of two, sparse for what fits in a box."""
_SPREAD, _SHIFT = np.uint64(0x9E3779B97F4A7C15), np.uint64(64 - 12)
MOST_SEGMENTS = 1024
"""Other segments in one box that are told apart; later ones count as background."""


@kernel
def codes(label: Array, seg: Array, lo: Array, hi: Array) -> tuple[Array, Array]:
    """The box lo..hi as small numbers, and the ids behind them.

    Returns:
        uint16 (z, y, x): 0 background, 1 and 2 the sides, from 3 on the other segments in the
        order in which they are met; uint64 ids of those.
    """
    shape = (hi[2] - lo[2], hi[1] - lo[1], hi[0] - lo[0])
    out = np.zeros(shape, np.uint16)
    ids = np.zeros(MOST_SEGMENTS, np.uint64)
    keys = np.zeros(_SLOTS, np.uint64)
    values = np.zeros(_SLOTS, np.uint16)
    n = 0
    for z in range(lo[2], hi[2]):
        for y in range(lo[1], hi[1]):
            last, code = np.uint64(0), np.uint16(0)
            for x in range(lo[0], hi[0]):
                t = label[x, y, z]
                if t != 0:
                    out[z - lo[2], y - lo[1], x - lo[0]] = t
                    continue
                s = seg[x, y, z]
                if s == 0:
                    continue
                if s != last:
                    slot = np.int64((s * _SPREAD) >> _SHIFT)
                    while keys[slot] != s and keys[slot] != 0:
                        slot = (slot + 1) % _SLOTS
                    if keys[slot] == 0 and n < MOST_SEGMENTS:
                        keys[slot] = s
                        values[slot] = _FIRST + n
                        ids[n] = s
                        n += 1
                    last, code = s, values[slot]
                out[z - lo[2], y - lo[1], x - lo[0]] = code
    return out, ids[:n]


@kernel
def faces_with_others(  # noqa: C901 - one loop nest
    code: Array, at: Array, res: Array, radius_nm: float, gap: int
) -> Array:
    """Faces between a side and another segment, through at most ``gap`` background voxels.

    Args:
        code: From `codes`, (z, y, x).
        at: The site's point in voxels of the box, x, y, z.
        res: nm.
        radius_nm: Faces farther from the point are left out.
        gap: Voxels.

    Returns:
        int32 rows: voxel in the side (x, y, z), voxel in the other, axis, side 1 or 2, code.
    """
    nz, ny, nx = code.shape
    found = np.empty((4096, 9), np.int32)
    n = 0
    p, q = np.empty(3, np.int64), np.empty(3, np.int64)
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                c = code[z, y, x]
                if c == 0:
                    continue
                p[0], p[1], p[2] = x, y, z
                for k in range(3):
                    length = nx if k == 0 else (ny if k == 1 else nz)
                    q[0], q[1], q[2] = x, y, z
                    u = np.uint16(0)
                    for _ in range(gap + 1):
                        q[k] += 1
                        if q[k] >= length:
                            break
                        u = code[q[2], q[1], q[0]]
                        if u != 0:
                            break
                    # exactly one of the two is a side
                    if u == 0 or (c <= _SIDES) == (u <= _SIDES):
                        continue
                    d = 0.0
                    for i in range(3):
                        d += (((p[i] + q[i] + 1) * 0.5 - at[i]) * res[i]) ** 2
                    if d > radius_nm * radius_nm:
                        continue
                    if n == found.shape[0]:
                        more = np.empty((2 * n, 9), np.int32)
                        more[:n] = found
                        found = more
                    inside, outside = (p, q) if c <= _SIDES else (q, p)
                    for i in range(3):
                        found[n, i] = inside[i]
                        found[n, 3 + i] = outside[i]
                    found[n, 6] = k
                    found[n, 7] = c if c <= _SIDES else u
                    found[n, 8] = u if c <= _SIDES else c
                    n += 1
    return found[:n]


@kernel
def greys(code: Array, em: Array, n: int) -> tuple[Array, Array]:
    """Voxels and sum of grey of each code below ``n``, both float64 (n,); em is (x, y, z)."""
    count, total = np.zeros(n), np.zeros(n)
    for z in range(code.shape[0]):
        for y in range(code.shape[1]):
            for x in range(code.shape[2]):
                c = code[z, y, x]
                count[c] += 1
                total[c] += em[x, y, z]
    return count, total


COLUMNS = 7
"""Of `look`: grey, sheet, valley, plate, rise and step at the middle distance, gap."""


@kernel
def look(em: Array, smooth: Array, faces: Array, step: Array, away: Array) -> Array:
    """What lies at each face: float32 (faces, `COLUMNS`).

    Args:
        em: float32 z-scores, (x, y, z).
        smooth: The same, blurred, where faces are.
        faces: Rows of `faces_with_others`.
        step: Derivative scale along each axis.
        away: Voxels into either side at which the profile is read, along each axis.
    """
    out = np.empty((faces.shape[0], COLUMNS), np.float32)
    h = np.empty((3, 3), np.float64)
    p, q = np.empty(3, np.int64), np.empty(3, np.int64)
    m = np.empty(3, np.int64)
    for f in range(faces.shape[0]):
        for i in range(3):
            p[i], q[i] = faces[f, i], faces[f, 3 + i]
        k = faces[f, 6]
        h[:] = 0
        grey = 0.0
        for turn in range(2):
            for i in range(3):
                # the two voxels at the middle: the face itself, or the core of a membrane
                m[i] = (p[i] + q[i] + turn) // 2
            grey += 0.5 * em[m[0], m[1], m[2]]
            hessian(smooth, m[0], m[1], m[2], step, h)
        h[1, 0], h[2, 0], h[2, 1] = h[0, 1], h[0, 2], h[1, 2]
        w = np.linalg.eigvalsh(h)
        gap = abs(q[k] - p[k]) - 1
        s = 1 if q[k] > p[k] else -1
        p[k] -= s * away[k]
        q[k] += s * away[k]
        a, b = at_edge(em, p[0], p[1], p[2]), at_edge(em, q[0], q[1], q[2])
        out[f, 0] = grey
        out[f, 1] = w[2]
        out[f, 2] = w[0]
        out[f, 3] = w[2] - max(0.0, w[1])
        out[f, 4] = 0.5 * (a + b) - grey
        out[f, 5] = a - b
        out[f, 6] = gap
    return out
