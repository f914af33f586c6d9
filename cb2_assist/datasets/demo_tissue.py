"""Skeletons of the demo's neuropil: dendrites with spines, axons with boutons, packed densely.

Coordinates are nm; the volume shown is ``[0, size)`` and tissue reaches ``MARGIN`` beyond it, so
that its edges look like its middle. A neurite is a set of tapered capsules. They are laid one
after another into what is still empty: `clearance` holds, on a coarse grid, the distance to the
nearest surface laid so far.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba as nb
import numpy as np
from numpy.typing import NDArray

from cb2_assist.datasets.demo_noise import between, new_state, uniform, unit_vector

MARGIN = 520.0
GRID = 40.0
REACH = 440.0
"""How far from a capsule its distance is written into the clearance grid, nm."""

AXON, DENDRITE, SPINE = 0, 1, 2
CAPSULE_FIELDS = 19
"""a(3), ra, b(3), rb, label, kind, frame: e1(3) e2(3), arc length at a, length,
1 / length^2."""

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Tissue:
    """What the demo's tissue is made of; every length in nm, every array float64.

    Attributes:
        size: Extent of the shown volume along x, y, z.
        capsules: ``(n, CAPSULE_FIELDS)``, sorted by label.
        boutons: ``(n, 5)``: centre, radius, label.
        synapses: ``(n, 9)``: centre, unit normal towards the spine, radius, pre, post label.
    """

    size: tuple[float, float, float]
    capsules: F64
    boutons: F64
    synapses: F64


@nb.njit(cache=True)
def clearance_at(grid: F64, x: float, y: float, z: float) -> float:
    """Trilinear clearance in nm; -1 outside the tissue."""
    u, v, w = (x + MARGIN) / GRID - 0.5, (y + MARGIN) / GRID - 0.5, (z + MARGIN) / GRID - 0.5
    i, j, k = int(np.floor(u)), int(np.floor(v)), int(np.floor(w))
    if (
        i < 0
        or j < 0
        or k < 0
        or i + 1 >= grid.shape[0]
        or j + 1 >= grid.shape[1]
        or k + 1 >= grid.shape[2]
    ):
        return -1.0
    u -= i
    v -= j
    w -= k
    a = grid[i, j, k] * (1 - w) + grid[i, j, k + 1] * w
    b = grid[i, j + 1, k] * (1 - w) + grid[i, j + 1, k + 1] * w
    c = grid[i + 1, j, k] * (1 - w) + grid[i + 1, j, k + 1] * w
    d = grid[i + 1, j + 1, k] * (1 - w) + grid[i + 1, j + 1, k + 1] * w
    e = a * (1 - v) + b * v
    f = c * (1 - v) + d * v
    return float(e * (1 - u) + f * u)


@nb.njit(cache=True)
def lay_capsule(grid: F64, c: F64, reach: float) -> None:
    """Lower the clearance around one capsule."""
    rmax = max(c[3], c[7])
    lo = np.empty(3, np.int64)
    hi = np.empty(3, np.int64)
    for d in range(3):
        low = min(c[d], c[4 + d]) - rmax - reach
        high = max(c[d], c[4 + d]) + rmax + reach
        lo[d] = max(0, int(np.floor((low + MARGIN) / GRID)))
        hi[d] = min(grid.shape[d], int(np.floor((high + MARGIN) / GRID)) + 1)
    bx, by, bz = c[4] - c[0], c[5] - c[1], c[6] - c[2]
    bb = max(bx * bx + by * by + bz * bz, 1e-9)
    for i in range(lo[0], hi[0]):
        px = (i + 0.5) * GRID - MARGIN - c[0]
        for j in range(lo[1], hi[1]):
            py = (j + 0.5) * GRID - MARGIN - c[1]
            for k in range(lo[2], hi[2]):
                pz = (k + 0.5) * GRID - MARGIN - c[2]
                t = min(1.0, max(0.0, (px * bx + py * by + pz * bz) / bb))
                dx, dy, dz = px - t * bx, py - t * by, pz - t * bz
                f = np.sqrt(dx * dx + dy * dy + dz * dz) - (c[3] + t * (c[7] - c[3]))
                if f < grid[i, j, k]:
                    grid[i, j, k] = f


@nb.njit(cache=True)
def capsules_of_path(path: F64, label: float, kind: float, out: F64, at: int) -> int:
    """Write one capsule for each step of a path ``(n, 4)`` (x, y, z, r); returns the new count.

    The frame (two unit vectors across the path) is carried along without twist, so that what is
    drawn in it (microtubules) runs smoothly.
    """
    n = path.shape[0]
    e1 = np.array([0.36, 0.48, 0.8])
    e2 = np.zeros(3)
    arc = 0.0
    for i in range(n - 1):
        d = path[i + 1, :3] - path[i, :3]
        length = np.sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2])
        if length < 1e-6:
            continue
        d = d / length
        along = e1[0] * d[0] + e1[1] * d[1] + e1[2] * d[2]
        e1 = e1 - along * d
        q = np.sqrt(e1[0] * e1[0] + e1[1] * e1[1] + e1[2] * e1[2])
        if q < 1e-3:
            e1 = np.array([d[1], d[2], d[0]])
            e1 = e1 - (e1[0] * d[0] + e1[1] * d[1] + e1[2] * d[2]) * d
            q = np.sqrt(e1[0] * e1[0] + e1[1] * e1[1] + e1[2] * e1[2])
        e1 = e1 / q
        e2[0] = d[1] * e1[2] - d[2] * e1[1]
        e2[1] = d[2] * e1[0] - d[0] * e1[2]
        e2[2] = d[0] * e1[1] - d[1] * e1[0]
        out[at, 0:3] = path[i, :3]
        out[at, 3] = path[i, 3]
        out[at, 4:7] = path[i + 1, :3]
        out[at, 7] = path[i + 1, 3]
        out[at, 8] = label
        out[at, 9] = kind
        out[at, 10:13] = e1
        out[at, 13:16] = e2
        out[at, 16] = arc
        out[at, 17] = length
        out[at, 18] = 1.0 / max(length * length, 1e-9)
        arc += length
        at += 1
    return at


@nb.njit(cache=True)
def walk(
    grid: F64,
    state: NDArray[np.uint64],
    start: F64,
    heading: F64,
    step: float,
    wander: float,
    width: float,
    need: float,
    limit: int,
) -> F64:
    """A path ``(n, 4)`` through what is empty: x, y, z and the clearance met there.

    Args:
        grid: Clearance.
        state: Random numbers.
        start: First point.
        heading: Unit vector that the path keeps turning back to.
        step: Length of one step, nm.
        wander: How far a step may turn (0 straight, 1 anywhere in front).
        width: Clearance beyond this many nm is no better.
        need: The path ends where no direction has this much clearance.
        limit: Most steps.
    """
    out = np.empty((limit + 1, 4))
    out[0, :3] = start
    out[0, 3] = clearance_at(grid, start[0], start[1], start[2])
    direction = heading.copy()
    n = 1
    for _ in range(limit):
        best = -1e9
        found = np.zeros(3)
        room = -1.0
        p = out[n - 1]
        for _try in range(14):
            x, y, z = unit_vector(state)
            u = direction + 0.25 * heading + wander * np.array([x, y, z])
            u = u / np.sqrt(u[0] * u[0] + u[1] * u[1] + u[2] * u[2])
            q = p[:3] + step * u
            near = clearance_at(grid, q[0], q[1], q[2])
            far = clearance_at(grid, q[0] + step * u[0], q[1] + step * u[1], q[2] + step * u[2])
            if far < 0.0:
                far = near
            value = min(near, far, width)
            value += 0.3 * width * (u[0] * heading[0] + u[1] * heading[1] + u[2] * heading[2])
            if value > best:
                best, room = value, near
                found = u
        if room < need:
            break
        out[n, :3] = p[:3] + step * found
        out[n, 3] = room
        direction = found
        n += 1
    return out[:n]


@nb.njit(cache=True)
def nearest_other(rows: F64, p: F64, label: float) -> tuple[float, float]:
    """Label and surface distance of the capsule nearest to ``p`` of any other neurite."""
    best, found = 1e9, 0.0
    for i in range(rows.shape[0]):
        c = rows[i]
        if c[8] == label or abs(c[0] - p[0]) > 600.0:
            continue
        bx, by, bz = c[4] - c[0], c[5] - c[1], c[6] - c[2]
        px, py, pz = p[0] - c[0], p[1] - c[1], p[2] - c[2]
        t = (px * bx + py * by + pz * bz) / max(bx * bx + by * by + bz * bz, 1e-9)
        t = min(1.0, max(0.0, t))
        px -= t * bx
        py -= t * by
        pz -= t * bz
        f = np.sqrt(px * px + py * py + pz * pz) - (c[3] + t * (c[7] - c[3]))
        if f < best:
            best, found = f, c[8]
    return found, best


@nb.njit(cache=True)
def smooth_path(path: F64) -> None:
    """Blend each inner node with its neighbours, in place."""
    for _ in range(2):
        previous = path[0].copy()
        for i in range(1, path.shape[0] - 1):
            here = path[i].copy()
            path[i] = 0.5 * here + 0.25 * (previous + path[i + 1])
            previous = here


class Grower:
    """Lays neurites into an empty volume, in a fixed order."""

    def __init__(self, size: tuple[float, float, float], seed: int) -> None:
        self.size = np.array(size)
        shape = tuple(int((s + 2 * MARGIN) // GRID) for s in size)
        self.grid = np.full(shape, 2000.0)
        self.state = new_state(seed, 1)
        self.capsules: list[F64] = []
        self.boutons: list[list[float]] = []
        self.synapses: list[list[float]] = []
        self.heads: list[tuple[F64, float, float, F64]] = []
        self.label = 0

    def add(self, path: F64, kind: int, reach: float = REACH) -> None:
        """Make a path of the current label part of the tissue."""
        out = np.empty((len(path), CAPSULE_FIELDS))
        n = capsules_of_path(path, float(self.label), float(kind), out, 0)
        for c in out[:n]:
            lay_capsule(self.grid, c, reach)
        self.capsules.append(out[:n])

    def random_point(self, inset: float) -> F64:
        """A point of the tissue, at least ``inset`` nm from its faces."""
        s = self.state
        return np.array([between(s, -MARGIN + inset, w + MARGIN - inset) for w in self.size])

    def emptiest(self, tries: int, inset: float) -> tuple[F64, float]:
        """The best of some random points, and its clearance."""
        best, room = self.random_point(inset), -1.0
        for _ in range(tries):
            p = self.random_point(inset)
            c = clearance_at(self.grid, p[0], p[1], p[2])
            if c > room:
                best, room = p, c
        return best, room

    def both_ways(
        self, start: F64, heading: F64, step: float, wander: float, width: float, need: float
    ) -> F64:
        """A path through ``start`` in both directions, and the index of the start in it."""
        forth = walk(self.grid, self.state, start, heading, step, wander, width, need, 400)
        back = walk(self.grid, self.state, start, -heading, step, wander, width, need, 400)
        return np.concatenate([back[:0:-1], forth])

    def dendrite(self) -> None:
        """A trunk with up to two branches and its spines."""
        s = self.state
        self.label += 1
        start, room = self.emptiest(60, 700.0)
        heading = np.array(unit_vector(s))
        path = self.both_ways(start, heading, 60.0, 0.22, 900.0, 420.0)
        r0 = min(between(s, 260.0, 480.0), max(room - 120.0, 200.0))
        taper = between(s, 0.10, 0.35)
        t = np.linspace(-0.5, 0.5, len(path))
        path[:, 3] = np.minimum(r0 * (1.0 - taper * t), np.maximum(path[:, 3] - 100.0, 120.0))
        smooth_path(path)
        arms = [path]
        self.add(path, DENDRITE, 1500.0)
        for _ in range(2 if uniform(s) < 0.6 else 1):
            arms += self.branch(path)
        for arm in arms:
            self.spines(arm)

    def branch(self, trunk: F64) -> list[F64]:
        """One side branch of a dendrite, if there is room."""
        s = self.state
        if len(trunk) < 12:
            return []
        i = int(between(s, 4, len(trunk) - 4))
        along = trunk[i + 1, :3] - trunk[i, :3]
        along /= np.sqrt(along[0] ** 2 + along[1] ** 2 + along[2] ** 2)
        heading = 0.8 * along + 1.0 * np.array(unit_vector(s))
        heading /= np.sqrt(heading[0] ** 2 + heading[1] ** 2 + heading[2] ** 2)
        r = trunk[i, 3] * between(s, 0.5, 0.75)
        start = trunk[i, :3] + heading * (trunk[i, 3] + r + 80.0)
        if clearance_at(self.grid, start[0], start[1], start[2]) < r * 0.7:
            return []
        path = walk(self.grid, s, start, heading, 60.0, 0.3, 500.0, 160.0, 200)
        if len(path) < 6:
            return []
        path[:, 3] = np.minimum(r, np.maximum(path[:, 3] - 60.0, 90.0))
        path = np.concatenate([[[*trunk[i, :3], r * 1.1]], path])
        smooth_path(path)
        self.add(path, DENDRITE, 900.0)
        return [path]

    def spines(self, arm: F64) -> None:
        """Spines along a dendrite, about 2 per um, each with a thin neck and a head."""
        s = self.state
        for i in range(2, len(arm) - 2):
            if uniform(s) > 0.16:
                continue
            along = arm[i + 1, :3] - arm[i, :3]
            out = np.array(unit_vector(s))
            out -= along * ((out * along)[0] + (out * along)[1] + (out * along)[2]) / (60.0 * 60.0)
            q = np.sqrt(out[0] ** 2 + out[1] ** 2 + out[2] ** 2)
            if q < 0.4:
                continue
            self.spine(arm[i], out / q)

    def spine(self, base: F64, out: F64) -> None:
        """One spine that leaves the dendrite at node ``base`` along ``out``."""
        s = self.state
        neck, head = between(s, 42.0, 65.0), between(s, 140.0, 260.0)
        length = between(s, 150.0, 600.0)
        start = base[:3] + out * (base[3] + 70.0)
        path = walk(self.grid, s, start, out, 45.0, 0.35, 300.0, 60.0, int(length / 45.0) + 2)
        end = path[-1, :3]
        room = clearance_at(self.grid, end[0], end[1], end[2])
        if len(path) < 3 or room < 110.0:
            return
        head = min(head, room - 15.0)
        tip = end + out * head * 0.5
        path[:, 3] = neck
        body = [[*base[:3], neck * 1.6], *path.tolist(), [*(end + out * 20.0), head * 0.9]]
        full = np.array([*body, [*tip, head]])
        self.add(full, SPINE)
        self.heads.append((tip, head, float(self.label), out))

    def synapses_on_spines(self) -> None:
        """An axon with a bouton against most spine heads."""
        s = self.state
        for tip, head, post, out in self.heads:
            best, room, normal = tip, -1.0, out
            for _ in range(24):
                u = np.array(unit_vector(s)) + 0.8 * out
                u /= np.sqrt(u[0] ** 2 + u[1] ** 2 + u[2] ** 2)
                p = tip + u * (head + 190.0)
                c = clearance_at(self.grid, p[0], p[1], p[2])
                if c > room:
                    best, room, normal = p, c, u
            if room < 120.0:
                continue
            self.label += 1
            radius = min(between(s, 170.0, 270.0), room + 40.0)
            self.boutons.append([*best, radius, float(self.label)])
            disc = min(head, radius) * between(s, 0.7, 1.0)
            self.synapses.append(
                [*(tip + normal * (head + 5.0)), *(-normal), disc, float(self.label), post]
            )
            self.axon(best, radius)

    def other_synapses(self) -> None:
        """A synapse of about every second other bouton on a neurite that it touches."""
        s = self.state
        rows = np.concatenate(self.capsules)
        done = {row[7] for row in self.synapses}
        for x, y, z, r, label in self.boutons:
            if label in done or uniform(s) < 0.4:
                continue
            for _ in range(10):
                u = np.array(unit_vector(s))
                p = np.array([x, y, z]) + u * (r + 25.0)
                post, room = nearest_other(rows, p, label)
                if room < 15.0:
                    disc = between(s, 90.0, 170.0)
                    self.synapses.append([*(p - u * 12.0), *(-u), disc, label, post])
                    break

    def axon(self, start: F64, swelling: float) -> bool:
        """An axon through ``start``, swollen there and at boutons further on."""
        s = self.state
        heading = np.array(unit_vector(s))
        need = 48.0
        path = self.both_ways(start, heading, 50.0, 0.5, 180.0, need)
        if len(path) < 10:
            heading = np.array(unit_vector(s))
            path = self.both_ways(start, heading, 50.0, 0.7, 180.0, need)
        d = path[:, :3] - start
        middle = int(np.argmin(d[:, 0] ** 2 + d[:, 1] ** 2 + d[:, 2] ** 2))
        thin = between(s, 55.0, 120.0)
        radius = np.full(len(path), thin)
        self.swell(radius, middle, swelling)
        at = middle
        for sign in (-1, 1):
            at = middle
            while True:
                at += sign * int(between(s, 22.0, 70.0))
                if not 1 <= at < len(path) - 1:
                    break
                bulge = min(between(s, 130.0, 260.0), path[at, 3] + 25.0)
                self.swell(radius, at, bulge)
                if bulge > 140.0:
                    self.boutons.append([*path[at, :3], bulge, float(self.label)])
        path[:, 3] = np.maximum(np.minimum(radius, path[:, 3] + 25.0), 42.0)
        path[middle, 3] = swelling
        smooth_path(path)
        self.add(path, AXON)
        if uniform(s) < 0.45:
            self.collateral(path, thin)
        return len(path) >= 10

    def collateral(self, path: F64, thin: float) -> None:
        """A side branch of an axon, if there is room."""
        s = self.state
        i = int(between(s, 0, len(path)))
        way = walk(
            self.grid, s, path[i, :3] + 0.0, np.array(unit_vector(s)), 50.0, 0.9, 150.0, -900.0, 3
        )
        start = way[-1, :3]
        if clearance_at(self.grid, start[0], start[1], start[2]) < 50.0:
            return
        more = walk(self.grid, s, start, np.array(unit_vector(s)), 50.0, 0.7, 150.0, 48.0, 120)
        if len(more) < 8:
            return
        branch = np.concatenate([way[:-1], more])
        branch[:, 3] = np.maximum(np.minimum(thin * 0.9, branch[:, 3]), 40.0)
        smooth_path(branch)
        self.add(branch, AXON)

    @staticmethod
    def swell(radius: F64, at: int, bulge: float) -> None:
        """Raise the radius around one node to a spindle of about 0.6 um."""
        for i in range(max(0, at - 7), min(len(radius), at + 8)):
            u = (i - at) / 7.5
            w = (1.0 - u * u) ** 2
            radius[i] = max(radius[i], bulge * w + radius[i] * (1.0 - w))

    def fill(self, limit: int) -> None:
        """Axons into what is still empty."""
        misses = 0
        while misses < 60 and self.label < limit:
            start, room = self.emptiest(80, 60.0)
            if room < 62.0:
                misses += 1
                continue
            self.label += 1
            self.axon(start, min(room, between(self.state, 90.0, 210.0)))


def grow(size: tuple[float, float, float], seed: int, dendrites: int, limit: int) -> Tissue:
    """Lay a whole tissue.

    Args:
        size: Extent of the shown volume, nm.
        seed: Random seed; the same seed gives the same bits.
        dendrites: How many dendrites run through it.
        limit: Most neurites.
    """
    g = Grower(size, seed)
    for _ in range(dendrites):
        g.dendrite()
    g.synapses_on_spines()
    g.fill(limit)
    g.other_synapses()
    capsules = np.concatenate(g.capsules)
    order = np.argsort(capsules[:, 8], kind="stable")
    return Tissue(
        size,
        np.ascontiguousarray(capsules[order]),
        np.array(g.boutons).reshape(-1, 5),
        np.array(g.synapses).reshape(-1, 9),
    )
