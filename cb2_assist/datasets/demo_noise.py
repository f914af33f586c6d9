"""Random numbers and smooth noise for the demo, the same bits on every machine.

Only integer hashing and the IEEE operations + - * / sqrt are used (no libm, no fast-math, no
library generator), so that the demo can be made again bit for bit anywhere.
"""

from __future__ import annotations

import numba as nb
import numpy as np
from numpy.typing import NDArray

TABLE = 64
"""Edge of the periodic noise table, lattice points."""


@nb.njit(cache=True)
def mix64(x: np.uint64) -> np.uint64:
    """SplitMix64 finaliser: 64 well-mixed bits of one uint64 (Steele, Lea & Flood 2014)."""
    z = x + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@nb.njit(cache=True)
def uniform(state: NDArray[np.uint64]) -> float:
    """Next number of ``[0, 1)`` from a one-element state, which it advances."""
    state[0] += np.uint64(1)
    return (mix64(state[0]) >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@nb.njit(cache=True)
def between(state: NDArray[np.uint64], lo: float, hi: float) -> float:
    """Next number of ``[lo, hi)``."""
    return lo + (hi - lo) * uniform(state)


@nb.njit(cache=True)
def unit_vector(state: NDArray[np.uint64]) -> tuple[float, float, float]:
    """A direction, uniform on the sphere (by rejection, so without trigonometry)."""
    while True:
        x = 2.0 * uniform(state) - 1.0
        y = 2.0 * uniform(state) - 1.0
        z = 2.0 * uniform(state) - 1.0
        q = x * x + y * y + z * z
        if 0.01 < q <= 1.0:
            r = np.sqrt(q)
            return x / r, y / r, z / r


def new_state(seed: int, stream: int) -> NDArray[np.uint64]:
    """State of an independent stream of random numbers."""
    return np.array([mix64(np.uint64(seed) ^ mix64(np.uint64(stream)))], np.uint64)


@nb.njit(cache=True)
def noise_table(seed: int) -> NDArray[np.float32]:
    """White noise of ``[-1, 1)``, shape ``(TABLE, TABLE, TABLE)``."""
    out = np.empty((TABLE, TABLE, TABLE), np.float32)
    base = mix64(np.uint64(seed))
    n = np.uint64(0)
    for i in range(TABLE):
        for j in range(TABLE):
            for k in range(TABLE):
                h = mix64(base + n) >> np.uint64(11)
                out[i, j, k] = np.float32(h * (2.0 / 9007199254740992.0) - 1.0)
                n += np.uint64(1)
    return out


@nb.njit(cache=True)
def smooth_noise(table: NDArray[np.float32], x: float, y: float, z: float) -> float:
    """Periodic value noise at a lattice position: interpolated with 3t^2 - 2t^3, in ``(-1, 1)``."""
    fx, fy, fz = np.floor(x), np.floor(y), np.floor(z)
    tx, ty, tz = x - fx, y - fy, z - fz
    m = TABLE - 1
    i, j, k = int(fx) & m, int(fy) & m, int(fz) & m
    i1, j1, k1 = (i + 1) & m, (j + 1) & m, (k + 1) & m
    tx = tx * tx * (3.0 - 2.0 * tx)
    ty = ty * ty * (3.0 - 2.0 * ty)
    tz = tz * tz * (3.0 - 2.0 * tz)
    a = table[i, j, k] + (table[i, j, k1] - table[i, j, k]) * tz
    b = table[i, j1, k] + (table[i, j1, k1] - table[i, j1, k]) * tz
    c = table[i1, j, k] + (table[i1, j, k1] - table[i1, j, k]) * tz
    d = table[i1, j1, k] + (table[i1, j1, k1] - table[i1, j1, k]) * tz
    e = a + (b - a) * ty
    f = c + (d - c) * ty
    return float(e + (f - e) * tx)
