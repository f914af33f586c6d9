"""From ideal grey levels to what a microscope would deliver: blur, uneven staining, noise.

What comes out are stored levels without noise; `demo_grain` makes the 8-bit image from them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba as nb
import numpy as np
from numpy.typing import NDArray

from cb2_assist.datasets.demo_format import VOXEL
from cb2_assist.datasets.demo_grain import STEP
from cb2_assist.datasets.demo_noise import TABLE, between, new_state, smooth_noise, uniform
from cb2_assist.datasets.demo_render import fold_bend

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sections:
    """How each section was cut, stained and imaged.

    Attributes:
        gain: Contrast about mid grey.
        offset: Added grey levels.
        shading: Amplitude of the uneven illumination, grey levels.
        shifts: ``(n, 2)`` nm along x, y: what registration left.
        missing: Index of the section that was lost.
        fold: See `Scene`.
        spots: ``(n, 4)`` stain precipitate: section, x, y, radius in nm.
    """

    gain: F64
    offset: F64
    shading: F64
    shifts: F64
    missing: int
    fold: F64
    spots: F64


def cut_sections(count: int, size: tuple[float, float, float], seed: int) -> Sections:
    """Draw the fate of each section of a series."""
    s = new_state(seed, 4)
    gain, offset, shading = np.empty(count), np.empty(count), np.empty(count)
    shifts = np.empty((count, 2))
    batch = (1.0, 0.0)
    for k in range(count):
        if uniform(s) < 0.05:
            batch = (between(s, 0.86, 1.1), between(s, -12.0, 10.0))
        odd = 3.0 if uniform(s) < 0.04 else 1.0
        gain[k] = batch[0] + odd * between(s, -0.02, 0.02)
        offset[k] = batch[1] + odd * between(s, -2.5, 2.5)
        shading[k] = between(s, 2.0, 7.0)
        shifts[k] = between(s, -9.0, 9.0), between(s, -9.0, 9.0)
    fold_at = int(count * 0.63)
    fold = np.array(
        [
            (fold_at + 0.5) * VOXEL[2],
            0.58 * size[0],
            0.55 * size[1],
            0.8,
            0.6,
            65.0,
            115.0,
        ]
    )
    n = max(2, int(size[0] * size[1] * size[2] / 6e9))
    spots = np.array(
        [
            [
                float(int(between(s, 0.0, count))),
                between(s, 0.0, size[0]),
                between(s, 0.0, size[1]),
                between(s, 25.0, 60.0),
            ]
            for _ in range(n)
        ]
    )
    return Sections(gain, offset, shading, shifts, int(count * 0.34), fold, spots)


@nb.njit(cache=True)
def _uneven(table: NDArray[np.float32], index: int, shape: tuple[int, int], nm: F64) -> F64:
    """Slow change of brightness over one section, in ``(-1, 1)``; ``nm`` is its corner x, y."""
    out = np.empty(shape)
    for j in range(shape[0]):
        y = (nm[1] + j * VOXEL[1]) / 2900.0
        for i in range(shape[1]):
            x = (nm[0] + i * VOXEL[0]) / 2900.0
            out[j, i] = smooth_noise(table, x, y, 7.0 * index + 0.5)
    return out


@nb.njit(cache=True)
def _fold_profile(table: NDArray[np.float32], fold: F64, shape: tuple[int, int], nm: F64) -> F64:
    """How much of the fold lies over each pixel, 0 to 1; `material` bends it the same way."""
    out = np.zeros(shape)
    for j in range(shape[0]):
        y = nm[1] + (j + 0.5) * VOXEL[1]
        for i in range(shape[1]):
            x = nm[0] + (i + 0.5) * VOXEL[0]
            side = (x - fold[1]) * fold[3] + (y - fold[2]) * fold[4]
            side += fold_bend(table, x, y)
            u = abs(side) / fold[5]
            depth = 0.85 + 0.15 * smooth_noise(table, x / 120.0, y / 120.0, 6.4)
            out[j, i] = depth * min(1.0, max(0.0, 2.2 * (1.25 - u)))
    return out


def _blur(a: F64) -> F64:
    """Binomial blur (1, 2, 1) / 4 along both axes, edges repeated."""
    p = np.pad(a, 1, mode="edge")
    q = (p[:-2] + p[2:]) * 0.25 + p[1:-1] * 0.5
    return (q[:, :-2] + q[:, 2:]) * 0.25 + q[:, 1:-1] * 0.5


def expose(
    grey: F64,
    index: int,
    corner: tuple[int, int],
    sections: Sections,
    table: NDArray[np.float32],
) -> NDArray[np.uint8]:
    """Stored levels of a rectangle of one section.

    Args:
        grey: Ideal grey levels ``[y, x]``, with one voxel more on each side than wanted.
        index: Section.
        corner: Voxel x, y of the first wanted pixel.
        sections: How it was imaged.
        table: Noise table of the scene.

    Returns:
        uint8 ``[y, x]``, two smaller than ``grey`` along each axis.
    """
    shape = (grey.shape[0] - 2, grey.shape[1] - 2)
    if index == sections.missing:
        return np.zeros(shape, np.uint8)
    g = _blur(grey)[1:-1, 1:-1]
    nm = np.array([corner[0] * VOXEL[0], corner[1] * VOXEL[1]])
    g = (g - 128.0) * sections.gain[index] + 128.0 + sections.offset[index]
    g += sections.shading[index] * _uneven(table, index % TABLE, shape, nm)
    if abs((index + 0.5) * VOXEL[2] - sections.fold[0]) < 1.0:
        band = _fold_profile(table, sections.fold, shape, nm + sections.shifts[index])
        g = g * (1.0 - 0.66 * band)
    g = _spotted(g, index, nm, sections.spots)
    return np.clip(np.floor(g / STEP + 0.5), 1.0, 42.0).astype(np.uint8)


def _spotted(g: F64, index: int, nm: F64, spots: F64) -> F64:
    """Dark grains of stain."""
    x = nm[0] + (np.arange(g.shape[1]) + 0.5) * VOXEL[0]
    y = nm[1] + (np.arange(g.shape[0]) + 0.5) * VOXEL[1]
    for _, sx, sy, r in spots[spots[:, 0] == index]:
        q = np.sqrt((x[None, :] - sx) ** 2 + (y[:, None] - sy) ** 2) / r
        w = np.clip(2.0 - 2.0 * q, 0.0, 1.0)
        g = g * (1.0 - w) + 22.0 * w
    return g
