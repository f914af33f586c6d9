"""How open the way is from one side of a cut to the other: measures that only cuts have.

Two neurons in one segment are apart by a membrane, but the neck, where geometry would cut, need
not lie on it. So nothing is measured at the neck alone. Both sides are flooded from well behind it,
over the darkness of membranes (the largest eigenvalue of the Hessian of the smoothed EM), lowest
first, as in S. Beucher and C. Lantuéjoul's watershed. The level at which the two floods meet is how
much membrane every way from one side to the other has to cross: cytoplasm that is open anywhere
keeps it low, wherever the membrane lies. Where the floods meet is the surface along which a cut
would run.

Everything is a pure function of the part of the site window within `PATCH_NM` of the point. Lengths
are nm, grey levels z-scores of the dataset's EM, derivatives per 10 nm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.records import Kind
from cb2_assist.datasets.source import EmStatistics
from cb2_assist.views import measures
from cb2_assist.views.features import gaussian
from cb2_assist.views.jit import kernel
from cb2_assist.views.site import SiteWindow

PATCH_NM = 320.0
"""Half width of what is looked at."""
CORE_NM = 180.0
"""Floods start from what lies farther than this from the neck."""
CORES_NM = (120.0, 180.0, 260.0)
SHEET_NM = (15.0, 20.0, 30.0)
"""Smoothing before the Hessian. A membrane of FIB-SEM is about 15 nm thick."""
_GREY_NM = 10.0
_UNIT_NM = 10.0
_LEAST_SEEDS = 30
_FAR = 0.8
"""Of a side with fewer voxels behind the core, floods start from those beyond this quantile."""
_LEVELS = 256
_SHEET = (-0.05, 0.65)
_DARK = (-2.0, 3.0)
"""Levels 0 and 255 of sheetness and of darkness."""

PASSAGE_NAMES: tuple[str, ...] = (
    *(f"passage_sheet{s:.0f}" for s in SHEET_NM),
    *(f"passage_core{c:.0f}" for c in CORES_NM if c != CORE_NM),
    "passage_dark",
    *("seam_sheet_mean", "seam_sheet_p10", "seam_grey"),
    *("near_sheet_p50", "near_sheet_p90", "seam_away"),
)
"""Order of `passage`; part of the card of every model that reads it.

``passage_*``: the level at which the floods meet, 0 to 1, by smoothing or by where they start;
``seam_*``: on the surface where they meet, ``seam_away`` its mean distance from the neck;
``near_*``: in the segment near the neck, for comparison.
"""


@dataclass(frozen=True, slots=True)
class _Patch:
    """The part of a window round its point.

    Attributes:
        label: uint8, C order.
        em: Grey levels as z-scores, float32.
        away_nm: Distance from the neck.
        res: Voxel size, nm.
    """

    label: NDArray[np.uint8]
    em: NDArray[np.float32]
    away_nm: NDArray[np.float64]
    res: NDArray[np.float64]


def passage(window: SiteWindow, statistics: EmStatistics) -> NDArray[np.float32]:
    """Measure the way between the two sides of a cut.

    Args:
        window: The site with its labels.
        statistics: Mean and deviation of the dataset's EM, grey levels.

    Returns:
        float32, ``(len(PASSAGE_NAMES),)``, finite. All zero for joins, whose sides the
        segmentation has told apart already, and where the sides do not meet near the point.
    """
    out = np.zeros(len(PASSAGE_NAMES), np.float32)
    patch = _patch(window, statistics) if window.site.kind is Kind.CUT else None
    if patch is None:
        return out
    inside = patch.label > 0
    near = inside & (patch.away_nm <= CORE_NM)
    seeds = _seeds(patch, CORE_NM)
    row: list[float] = []
    for nm in SHEET_NM:
        sheet = _sheetness(patch, nm)
        side, met = _flood(sheet, _SHEET, seeds, inside)
        row.append(met)
        if nm == SHEET_NM[1]:
            kept, seam = sheet, _seam(side)
    others = (core for core in CORES_NM if core != CORE_NM)
    row += [_flood(kept, _SHEET, _seeds(patch, core), inside)[1] for core in others]
    grey = _smooth(patch, _GREY_NM)
    row.append(_flood(-grey, _DARK, seeds, inside)[1])
    if seam.any():
        row += [float(kept[seam].mean()), float(np.quantile(kept[seam], 0.1))]
        row.append(float(grey[seam].mean() - grey[near].mean()))
    else:
        row += [0.0, 0.0, 0.0]
    row += [float(v) for v in np.quantile(kept[near], (0.5, 0.9))]
    row.append(float(patch.away_nm[seam].mean()) if seam.any() else 0.0)
    out[:] = row
    return np.nan_to_num(out, nan=0.0, posinf=0.0, neginf=0.0)


def _patch(window: SiteWindow, statistics: EmStatistics) -> _Patch | None:
    res = np.array(tuple(window.resolution), np.float64)
    at = np.floor(np.array(window.point_vx)).astype(np.int64)
    reach = np.rint(PATCH_NM / res).astype(np.int64)
    lo, hi = np.maximum(at - reach, 0), np.minimum(at + reach + 1, window.label.shape)
    box = tuple(slice(int(a), int(b)) for a, b in zip(lo, hi, strict=True))
    label = np.ascontiguousarray(window.label[box])
    neck = _neck(label)
    if not neck.any():
        return None
    used = np.argwhere(label > 0)
    first, last = used.min(0), used.max(0) + 1
    small = tuple(slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
    box = tuple(slice(int(a + i), int(a + j)) for a, i, j in zip(lo, first, last, strict=True))
    away = measures.distances(
        np.ascontiguousarray(neck[small]), res, np.zeros(3, np.int64), last - first
    )
    em = (window.em[box].astype(np.float32) - np.float32(statistics.mean)) / np.float32(
        max(statistics.std, 1e-6)
    )
    return _Patch(np.ascontiguousarray(label[small]), np.ascontiguousarray(em), away, res)


def _seeds(patch: _Patch, core_nm: float) -> NDArray[np.uint8]:
    """Where the floods start."""
    seeds = np.where(patch.away_nm > core_nm, patch.label, 0).astype(np.uint8)
    for side in (1, 2):
        if np.count_nonzero(seeds == side) >= _LEAST_SEEDS:
            continue
        mine = patch.label == side
        if mine.any():
            seeds[mine & (patch.away_nm >= np.quantile(patch.away_nm[mine], _FAR))] = side
    return seeds


def _smooth(patch: _Patch, nm: float) -> NDArray[np.float32]:
    weights = [gaussian(nm / r) for r in patch.res]
    return _blur(patch.em, *weights)


def _sheetness(patch: _Patch, nm: float) -> NDArray[np.float32]:
    """Largest eigenvalue of the Hessian, scaled so that smoothings compare; 0 outside."""
    step = (_UNIT_NM / patch.res).astype(np.float64)
    return _sheets(_smooth(patch, nm), patch.label, step, (nm / _UNIT_NM) ** 2)


def _flood(
    cost: NDArray[np.float32],
    ends: tuple[float, float],
    seeds: NDArray[np.uint8],
    inside: NDArray[np.bool_],
) -> tuple[NDArray[np.uint8], float]:
    """Sides, 0 where neither flood came, and the level at which they met, 0 to 1."""
    level = (cost - ends[0]) * ((_LEVELS - 1) / (ends[1] - ends[0]))
    side, met = _flood_levels(np.clip(level, 0, _LEVELS - 1).astype(np.uint8), seeds.copy(), inside)
    return side, met / _LEVELS


def _neck(label: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Voxels with a face to the other side."""
    out = np.zeros(label.shape, bool)
    for axis in range(label.ndim):
        a, o = np.moveaxis(label, axis, 0), np.moveaxis(out, axis, 0)
        met = (a[:-1] != a[1:]) & (a[:-1] > 0) & (a[1:] > 0)
        o[:-1] |= met
        o[1:] |= met
    return out


_seam = _neck


@kernel
def _blur(  # noqa: C901 - one loop nest an axis
    v: NDArray[np.float32],
    wx: NDArray[np.float32],
    wy: NDArray[np.float32],
    wz: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Separable filter; beyond the border lies the border's value."""
    nx, ny, nz = v.shape
    a = np.zeros(v.shape, np.float32)
    r = wz.shape[0] // 2
    for x in range(nx):
        for y in range(ny):
            for k in range(-r, r + 1):
                w = wz[k + r]
                for z in range(nz):
                    a[x, y, z] += w * v[x, y, min(max(z + k, 0), nz - 1)]
    b = np.zeros(v.shape, np.float32)
    r = wy.shape[0] // 2
    for x in range(nx):
        for y in range(ny):
            for k in range(-r, r + 1):
                w, j = wy[k + r], min(max(y + k, 0), ny - 1)
                for z in range(nz):
                    b[x, y, z] += w * a[x, j, z]
    out = np.zeros(v.shape, np.float32)
    r = wx.shape[0] // 2
    for x in range(nx):
        for k in range(-r, r + 1):
            w, i = wx[k + r], min(max(x + k, 0), nx - 1)
            for y in range(ny):
                for z in range(nz):
                    out[x, y, z] += w * b[i, y, z]
    return out


@kernel
def _sheets(
    v: NDArray[np.float32], label: NDArray[np.uint8], step: NDArray[np.float64], scale: float
) -> NDArray[np.float32]:
    """Largest eigenvalue of the Hessian times ``scale``, in closed form (Smith 1961)."""
    nx, ny, nz = v.shape
    out = np.zeros(v.shape, np.float32)
    h = np.empty((3, 3), np.float64)
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                if label[x, y, z] == 0:
                    continue
                h[:] = 0
                measures.hessian(v, x, y, z, step, h)
                mean = (h[0, 0] + h[1, 1] + h[2, 2]) / 3
                off = h[0, 1] ** 2 + h[0, 2] ** 2 + h[1, 2] ** 2
                a, b, c = h[0, 0] - mean, h[1, 1] - mean, h[2, 2] - mean
                spread = a * a + b * b + c * c + 2 * off
                if spread < 1e-18:
                    out[x, y, z] = mean * scale
                    continue
                p = np.sqrt(spread / 6)
                det = (
                    a * (b * c - h[1, 2] ** 2)
                    - h[0, 1] * (h[0, 1] * c - h[1, 2] * h[0, 2])
                    + h[0, 2] * (h[0, 1] * h[1, 2] - b * h[0, 2])
                )
                turn = min(1.0, max(-1.0, det / (2 * p**3)))
                out[x, y, z] = (mean + 2 * p * np.cos(np.arccos(turn) / 3)) * scale
    return out


@kernel
def _flood_levels(  # noqa: C901, PLR0912 - one loop over a bucket queue
    cost: NDArray[np.uint8], side: NDArray[np.uint8], inside: NDArray[np.bool_]
) -> tuple[NDArray[np.uint8], int]:
    """Grow sides over ``inside``, lowest cost first; the level of the first meeting, 256 if none.

    Equal costs are served first come, first served, so that a flat region is shared halfway.
    """
    nx, ny, nz = cost.shape
    n = nx * ny * nz
    first, last = np.full(256, -1, np.int64), np.full(256, -1, np.int64)
    following = np.full(n, -1, np.int64)
    reached = np.zeros(n, np.bool_)
    c, s, m = cost.ravel(), side.ravel(), inside.ravel()
    for i in range(n):
        if m[i] and s[i] > 0:
            if first[0] < 0:
                first[0] = i
            else:
                following[last[0]] = i
            last[0] = i
            reached[i] = True
    met, level = 256, 0
    while level < 256:
        i = first[level]
        if i < 0:
            level += 1
            continue
        first[level] = following[i]
        x, y, z = i // (ny * nz), i // nz % ny, i % nz
        for d in range(6):
            p, q, r = x, y, z
            if d < 2:
                p += 2 * d - 1
            elif d < 4:
                q += 2 * d - 5
            else:
                r += 2 * d - 9
            if p < 0 or q < 0 or r < 0 or p >= nx or q >= ny or r >= nz:
                continue
            j = (p * ny + q) * nz + r
            if not m[j]:
                continue
            if reached[j]:
                if s[j] != s[i] and level < met:
                    met = level
                continue
            reached[j] = True
            s[j] = s[i]
            k = int(c[j])
            if k < level:
                k = level
            following[j] = -1
            if first[k] < 0:
                first[k] = j
            else:
                following[last[k]] = j
            last[k] = j
    return side, met
