"""From the demo's tissue to labels and an ideal micrograph, one section at a time.

Every voxel is evaluated on its own: the signed distance to each neurite near by, disturbed by
smooth noise; the nearest neurite owns the voxel, and the distance to the boundary with the second
draws the two membranes. So any block can be made alone and equals the same block of the whole.
Where no neurite is near enough there is glia (label 0), which fills what neurites leave.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba as nb
import numpy as np
from numpy.typing import NDArray

from cb2_assist.datasets.demo_format import VOXEL
from cb2_assist.datasets.demo_noise import mix64, noise_table, smooth_noise
from cb2_assist.datasets.demo_organelles import VESICLE_RADIUS, mitochondria, vesicles
from cb2_assist.datasets.demo_tissue import DENDRITE, Tissue

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]

BLOCK = 64
TILE = 8
"""Voxels along the edge of a block and of a tile; what is near is looked up once for each."""

LABEL_NOISE = 30.0
"""How far noise of its own moves each neurite's surface, nm."""

NEAR = 100.0 + 1.6 * LABEL_NOISE
"""Neurites whose surface is this much farther than the nearest cannot matter, nm."""

MEMBRANE, MITO_RIM, DENSITY = 54.0, 72.0, 60.0
"""Grey levels of an unblurred micrograph."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that the renderer reads.

    Attributes:
        capsules: See `Tissue`.
        mitos: See `mitochondria`.
        vesicles: See `vesicles`.
        synapses: See `Tissue`.
        table: Noise.
        shifts: ``(sections, 2)`` shift of each section in nm, along x and y.
        fold: section, x and y of a point on it, unit normal (x, y), half width, lost width; nm.
    """

    capsules: F64
    mitos: F64
    vesicles: F64
    synapses: F64
    table: F32
    shifts: F64
    fold: F64


def make_scene(tissue: Tissue, seed: int, shifts: F64, fold: F64) -> Scene:
    """A tissue with its organelles, ready to render."""
    return Scene(
        tissue.capsules,
        mitochondria(tissue, seed),
        vesicles(tissue, seed),
        tissue.synapses,
        noise_table(seed),
        shifts,
        fold,
    )


@nb.njit(cache=True)
def warp(table: F32, x: float, y: float, z: float) -> tuple[float, float, float]:
    """Where a place of the section lies in the smooth tissue: bends every surface a little."""
    u, v, w = x / 340.0, y / 340.0, z / 340.0
    p, q, r = x / 115.0, y / 115.0, z / 115.0
    return (
        x + 80.0 * smooth_noise(table, u, v, w) + 18.0 * smooth_noise(table, p + 9.3, q, r),
        y + 80.0 * smooth_noise(table, u + 21.7, v, w) + 18.0 * smooth_noise(table, p, q + 7.1, r),
        z + 80.0 * smooth_noise(table, u, v + 33.1, w) + 18.0 * smooth_noise(table, p, q, r + 5.9),
    )


@nb.njit(cache=True)
def fold_bend(table: F32, x: float, y: float) -> float:
    """How far a fold strays from a straight line, nm."""
    slow = 260.0 * smooth_noise(table, x / 1500.0, y / 1500.0, 3.3)
    return slow + 22.0 * smooth_noise(table, x / 160.0, y / 160.0, 5.1)


@nb.njit(cache=True)
def material(
    table: F32, shift: F64, fold: F64, x: float, y: float, z: float
) -> tuple[float, float, float]:
    """Tissue coordinates of a place in a section: its jitter, its fold, then the warp."""
    x += shift[0]
    y += shift[1]
    if abs(z - fold[0]) < 0.5 * VOXEL[2]:
        side = (x - fold[1]) * fold[3] + (y - fold[2]) * fold[4]
        side += fold_bend(table, x, y)
        lost = fold[6] * min(1.0, max(-1.0, side / fold[5]))
        x += lost * fold[3]
        y += lost * fold[4]
    return warp(table, x, y, z)


@nb.njit(cache=True)
def near_capsules(
    c: F64, mid: tuple[float, float, float], radius: float, near: float
) -> NDArray[np.int64]:
    """Rows of capsules that may own a point within ``radius`` of ``mid``, or lie next to it."""
    n = c.shape[0]
    low = np.empty(n)
    nearest = 1e18
    for i in range(n):
        bx, by, bz = c[i, 4] - c[i, 0], c[i, 5] - c[i, 1], c[i, 6] - c[i, 2]
        px, py, pz = mid[0] - c[i, 0], mid[1] - c[i, 1], mid[2] - c[i, 2]
        rough = px * px + py * py + pz * pz
        far = radius + near + 700.0
        if rough > far * far:
            low[i] = 1e18
            continue
        t = (px * bx + py * by + pz * bz) / max(bx * bx + by * by + bz * bz, 1e-9)
        t = min(1.0, max(0.0, t))
        px -= t * bx
        py -= t * by
        pz -= t * bz
        f = np.sqrt(px * px + py * py + pz * pz) - (c[i, 3] + t * (c[i, 7] - c[i, 3]))
        low[i] = f - radius
        nearest = min(nearest, f + radius)
    keep = np.empty(n, np.int64)
    m = 0
    for i in range(n):
        if low[i] <= nearest + near:
            keep[m] = i
            m += 1
    return keep[:m]


@nb.njit(cache=True)
def label_offset(label: float) -> float:
    """Where in the noise a neurite's own noise is read."""
    return float(mix64(np.uint64(int(label))) >> np.uint64(54)) / 7.0


@nb.njit(cache=True)
def two_nearest(c: F64, rows: NDArray[np.int64], table: F32, p: F64, out: F64) -> None:
    """The nearest two neurites (or glia) at ``p``.

    Writes to ``out``: label, f, gradient (3) of the first; the same of the second; and of the
    first the row of its capsule and the position along it.
    """
    glia = 66.0 + 84.0 * smooth_noise(table, p[0] / 900.0 + 11.0, p[1] / 900.0, p[2] / 900.0)
    out[:] = 0.0
    out[1] = glia
    out[6] = 1e9
    out[10] = -1.0
    i = 0
    n = rows.shape[0]
    while i < n:
        label = c[rows[i], 8]
        best, gx, gy, gz, row, at = 1e9, 0.0, 0.0, 0.0, -1.0, 0.0
        while i < n and c[rows[i], 8] == label:
            k = rows[i]
            bx, by, bz = c[k, 4] - c[k, 0], c[k, 5] - c[k, 1], c[k, 6] - c[k, 2]
            px, py, pz = p[0] - c[k, 0], p[1] - c[k, 1], p[2] - c[k, 2]
            i += 1
            t = min(1.0, max(0.0, (px * bx + py * by + pz * bz) * c[k, 18]))
            px -= t * bx
            py -= t * by
            pz -= t * bz
            q = px * px + py * py + pz * pz
            r = c[k, 3] + t * (c[k, 7] - c[k, 3])
            beat = min(best, out[6] + LABEL_NOISE) + r
            if beat <= 0.0 or q >= beat * beat:
                continue
            q = np.sqrt(q)
            best, row, at = q - r, float(k), t
            q = 1.0 / max(q, 1e-6)
            gx, gy, gz = px * q, py * q, pz * q
        if best - LABEL_NOISE > out[6]:
            continue
        o = label_offset(label)
        best += LABEL_NOISE * smooth_noise(table, p[0] / 95.0 + o, p[1] / 95.0, p[2] / 95.0 - o)
        if best < out[1]:
            out[5:10] = out[0:5]
            out[0], out[1], out[2], out[3], out[4] = label, best, gx, gy, gz
            out[10], out[11] = row, at
        elif best < out[6]:
            out[5], out[6], out[7], out[8], out[9] = label, best, gx, gy, gz


@nb.njit(cache=True)
def boundary_distance(o: F64) -> float:
    """Distance in nm from the boundary of the two nearest, of what `two_nearest` wrote."""
    x, y, z = o[7] - o[2], o[8] - o[3], o[9] - o[4]
    return float((o[6] - o[1]) / max(np.sqrt(x * x + y * y + z * z), 0.45))


@nb.njit(cache=True)
def bump(u: float) -> float:
    """1 at 0, 0 from +-1 on, smooth."""
    w = 1.0 - u * u
    return w * w if w > 0.0 else 0.0


@nb.njit(cache=True)
def cytoplasm(c: F64, table: F32, p: F64, o: F64) -> float:
    """Grey level inside a cell away from its membrane: tone, granules, microtubules, reticulum."""
    label = o[0]
    h = label_offset(label) / (1024.0 / 7.0)
    tone = 186.0 if label == 0.0 else 150.0 + 36.0 * h
    k = int(o[10])
    dendrite = k >= 0 and c[k, 9] == DENDRITE
    v = tone + 16.0 * smooth_noise(table, p[0] / 46.0, p[1] / 46.0, p[2] / 46.0)
    if k >= 0 and o[11] > 0.0 and o[11] < 1.0 and c[k, 9] <= DENDRITE:
        v -= microtubule(c[k], p, o[11])
    if dendrite or label == 0.0:
        er = smooth_noise(table, p[0] / 130.0 + 3.0, p[1] / 130.0, p[2] / 130.0)
        where = smooth_noise(table, p[0] / 380.0, p[1] / 380.0 + 8.0, p[2] / 380.0)
        if where > 0.12:
            v -= 46.0 * bump((abs(er - 0.1) - 0.055) / 0.05)
    return float(v)


@nb.njit(cache=True)
def microtubule(capsule: F64, p: F64, t: float) -> float:
    """Darkening by microtubules: dots on a disturbed lattice across the neurite."""
    x = p[0] - capsule[0] - t * (capsule[4] - capsule[0])
    y = p[1] - capsule[1] - t * (capsule[5] - capsule[1])
    z = p[2] - capsule[2] - t * (capsule[6] - capsule[2])
    u = (x * capsule[10] + y * capsule[11] + z * capsule[12]) / 62.0
    v = (x * capsule[13] + y * capsule[14] + z * capsule[15]) / 62.0
    i, j = np.floor(u), np.floor(v)
    cell = np.uint64(int(i) + 512) * np.uint64(4099) + np.uint64(int(j) + 512)
    h = mix64(cell * np.uint64(65537) + np.uint64(int(capsule[8])))
    if h & np.uint64(3) == np.uint64(0):
        return 0.0
    a = 0.25 + 0.5 * float((h >> np.uint64(8)) & np.uint64(255)) / 256.0
    b = 0.25 + 0.5 * float((h >> np.uint64(16)) & np.uint64(255)) / 256.0
    du, dv = (u - i - a) * 62.0, (v - j - b) * 62.0
    return float(80.0 * bump(np.sqrt(du * du + dv * dv) / 17.0))


@nb.njit(cache=True)
def with_mitochondrion(
    v: float, m: F64, rows: NDArray[np.int64], table: F32, p: F64, label: float, d: float
) -> float:
    """Grey level where mitochondria are drawn over the cytoplasm."""
    best, hit = 1e9, -1
    for k in rows:
        if m[k, 8] != label:
            continue
        bx, by, bz = m[k, 4] - m[k, 0], m[k, 5] - m[k, 1], m[k, 6] - m[k, 2]
        px, py, pz = p[0] - m[k, 0], p[1] - m[k, 1], p[2] - m[k, 2]
        t = (px * bx + py * by + pz * bz) / max(bx * bx + by * by + bz * bz, 1e-9)
        t = min(1.0, max(0.0, t))
        px -= t * bx
        py -= t * by
        pz -= t * bz
        f = np.sqrt(px * px + py * py + pz * pz) - m[k, 3]
        if f < best:
            best, hit = f, int(k)
    if hit < 0:
        return v
    best += 18.0 * smooth_noise(table, p[0] / 120.0, p[1] / 120.0 + 17.0, p[2] / 120.0)
    f = max(best, 24.0 - d)
    if f > 0.0:
        return v
    if f > -13.0:
        return MITO_RIM
    along = p[0] * m[hit, 9] + p[1] * m[hit, 10] + p[2] * m[hit, 11]
    phase = along / 46.0 + 1.1 * smooth_noise(table, p[0] / 90.0, p[1] / 90.0, p[2] / 90.0 + 4.0)
    saw = abs(2.0 * (phase - np.floor(phase)) - 1.0)
    depth = smooth_noise(table, p[0] / 70.0 + 5.0, p[1] / 70.0, p[2] / 70.0)
    matrix = 112.0 + 8.0 * smooth_noise(table, p[0] / 16.0, p[1] / 16.0, p[2] / 24.0)
    return float(matrix - (40.0 + 24.0 * depth) * bump(saw / 0.55) + 14.0 * bump((f + 22.0) / 9.0))


@nb.njit(cache=True)
def with_vesicles(v: float, s: F64, rows: NDArray[np.int64], p: F64, label: float) -> float:
    """Grey level where vesicles are drawn: a dark ring around a lighter lumen."""
    for k in rows:
        if s[k, 3] != label:
            continue
        x, y, z = p[0] - s[k, 0], p[1] - s[k, 1], p[2] - s[k, 2]
        q = x * x + y * y + z * z
        if q < VESICLE_RADIUS * VESICLE_RADIUS:
            u = np.sqrt(q) / VESICLE_RADIUS
            return float(172.0 - 104.0 * bump((u - 0.72) / 0.36))
    return v


@nb.njit(cache=True)
def with_density(v: float, s: F64, rows: NDArray[np.int64], p: F64, o: F64, d: float) -> float:
    """Grey level at a synapse: thick density on the spine's side, thin on the axon's."""
    for k in rows:
        post = o[0] == s[k, 8] and o[5] == s[k, 7]
        if not post and not (o[0] == s[k, 7] and o[5] == s[k, 8]):
            continue
        x, y, z = p[0] - s[k, 0], p[1] - s[k, 1], p[2] - s[k, 2]
        q = np.sqrt(x * x + y * y + z * z)
        if q > s[k, 6] + 40.0:
            continue
        edge = min(1.0, (s[k, 6] + 40.0 - q) / 40.0)
        if post:
            w = edge * min(1.0, max(0.0, (46.0 - d) / 14.0))
        else:
            w = edge * 0.65 * min(1.0, max(0.0, (24.0 - d) / 10.0))
        v = min(v, v * (1.0 - w) + DENSITY * w)
    return v


@nb.njit(cache=True)
def shade(
    c: F64,
    m: F64,
    near_m: NDArray[np.int64],
    ves: F64,
    near_v: NDArray[np.int64],
    syn: F64,
    near_s: NDArray[np.int64],
    table: F32,
    p: F64,
    o: F64,
) -> float:
    """Grey level of one point, before blur and noise."""
    d = boundary_distance(o)
    v = cytoplasm(c, table, p, o)
    if d > 16.0:
        v = with_vesicles(v, ves, near_v, p, o[0])
        v = with_mitochondrion(v, m, near_m, table, p, o[0], d)
    w = bump((d - 6.5) / 10.5)
    v = v * (1.0 - w) + MEMBRANE * w
    if near_s.shape[0] > 0:
        v = with_density(v, syn, near_s, p, o, d)
    return v


@nb.njit(cache=True)
def near_points(
    points: F64, extra: F64, mid: tuple[float, float, float], radius: float
) -> NDArray[np.int64]:
    """Rows of points (x, y, z first) that reach, with their extra radius, into a sphere."""
    keep = np.empty(points.shape[0], np.int64)
    n = 0
    for i in range(points.shape[0]):
        x, y, z = points[i, 0] - mid[0], points[i, 1] - mid[1], points[i, 2] - mid[2]
        r = radius + extra[i]
        if x * x + y * y + z * z < r * r:
            keep[n] = i
            n += 1
    return keep[:n]


@nb.njit(cache=True)
def tile_sphere(
    table: F32, shift: F64, fold: F64, lo: F64, hi: F64
) -> tuple[tuple[float, float, float], float]:
    """A sphere that holds the material of one tile of one section (corners, with slack)."""
    mid = material(
        table, shift, fold, 0.5 * (lo[0] + hi[0]), 0.5 * (lo[1] + hi[1]), 0.5 * (lo[2] + hi[2])
    )
    most = 0.0
    for corner in range(8):
        q = material(
            table,
            shift,
            fold,
            hi[0] if corner & 1 else lo[0],
            hi[1] if corner & 2 else lo[1],
            hi[2] if corner & 4 else lo[2],
        )
        x, y, z = q[0] - mid[0], q[1] - mid[1], q[2] - mid[2]
        most = max(most, x * x + y * y + z * z)
    return mid, np.sqrt(most) + 15.0


@nb.njit(cache=True)
def render_tile(
    c: F64,
    m: F64,
    near_m: NDArray[np.int64],
    ves: F64,
    near_v: NDArray[np.int64],
    syn: F64,
    near_s: NDArray[np.int64],
    table: F32,
    shift: F64,
    fold: F64,
    lo: F64,
    hi: F64,
    labels: NDArray[np.int32],
    grey: F64,
) -> None:
    """Fill one tile ``[y, x]`` of a section that covers ``lo`` to ``hi`` nm."""
    mid, radius = tile_sphere(table, shift, fold, lo, hi)
    rows = near_capsules(c, mid, radius, NEAR)
    p = np.empty(3)
    o = np.empty(12)
    for j in range(labels.shape[0]):
        y = lo[1] + (j + 0.5) * VOXEL[1]
        for i in range(labels.shape[1]):
            x = lo[0] + (i + 0.5) * VOXEL[0]
            total = 0.0
            px, py, pz = material(table, shift, fold, x, y, lo[2] + 14.0)
            for plane in range(3):
                p[0], p[1], p[2] = px, py, pz + (plane - 1) * 13.0
                two_nearest(c, rows, table, p, o)
                total += shade(c, m, near_m, ves, near_v, syn, near_s, table, p, o)
                if plane == 1:
                    labels[j, i] = int(o[0])
            grey[j, i] = total / 3.0


@nb.njit(cache=True)
def render_block(
    c: F64,
    m: F64,
    ves: F64,
    syn: F64,
    table: F32,
    shift: F64,
    fold: F64,
    corner: F64,
    labels: NDArray[np.int32],
    grey: F64,
) -> None:
    """Fill one block ``[y, x]`` of a section; ``corner`` is its first x, y and its middle z, nm."""
    ny, nx = labels.shape
    lo = np.array([corner[0], corner[1], corner[2] - 14.0])
    hi = np.array([corner[0] + nx * VOXEL[0], corner[1] + ny * VOXEL[1], corner[2] + 14.0])
    mid, radius = tile_sphere(table, shift, fold, lo, hi)
    c = c[near_capsules(c, mid, radius, NEAR)]
    reach = np.full(m.shape[0], 220.0)
    near_m = near_points(m, reach, mid, radius)
    near_v = near_points(ves, np.full(ves.shape[0], VESICLE_RADIUS), mid, radius)
    near_s = near_points(syn, syn[:, 6] + 60.0, mid, radius)
    for y0 in range(0, ny, TILE):
        y1 = min(y0 + TILE, ny)
        lo[1], hi[1] = corner[1] + y0 * VOXEL[1], corner[1] + y1 * VOXEL[1]
        for x0 in range(0, nx, TILE):
            x1 = min(x0 + TILE, nx)
            lo[0], hi[0] = corner[0] + x0 * VOXEL[0], corner[0] + x1 * VOXEL[0]
            render_tile(
                c,
                m,
                near_m,
                ves,
                near_v,
                syn,
                near_s,
                table,
                shift,
                fold,
                lo,
                hi,
                labels[y0:y1, x0:x1],
                grey[y0:y1, x0:x1],
            )


def render_section(
    scene: Scene, index: int, x: tuple[int, int], y: tuple[int, int]
) -> tuple[NDArray[np.int32], F64]:
    """Labels and ideal grey levels of a rectangle of one section.

    Args:
        scene: What to render.
        index: Section, from 0.
        x: First voxel, a multiple of `BLOCK`, and the one past the last, along x.
        y: The same along y.

    Returns:
        ``(labels, grey)``, both ``[y, x]``.
    """
    z = (index + 0.5) * VOXEL[2]
    height, width = y[1] - y[0], x[1] - x[0]
    labels = np.zeros((height, width), np.int32)
    grey = np.zeros((height, width))
    c = _slab(scene.capsules, z, 800.0)
    m = _slab(scene.mitos, z, 330.0)
    ves = _slab(scene.vesicles, z, 160.0)
    syn = _slab(scene.synapses, z, 460.0)
    for y0 in range(0, height, BLOCK):
        for x0 in range(0, width, BLOCK):
            part = (slice(y0, min(y0 + BLOCK, height)), slice(x0, min(x0 + BLOCK, width)))
            render_block(
                c,
                m,
                ves,
                syn,
                scene.table,
                scene.shifts[index],
                scene.fold,
                np.array([(x[0] + x0) * VOXEL[0], (y[0] + y0) * VOXEL[1], z]),
                labels[part],
                grey[part],
            )
    return labels, grey


def _slab(rows: F64, z: float, reach: float) -> F64:
    """Rows whose first point lies within ``reach`` of a z, in their order."""
    return np.ascontiguousarray(rows[np.abs(rows[:, 2] - z) < reach])
