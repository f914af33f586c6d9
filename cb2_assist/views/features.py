"""Contact and membrane features of one site: the numbers behind the model's feature token.

What separates two neurons is a membrane, and a membrane is a dark sheet: the largest eigenvalue of
the Hessian of the smoothed EM, taken at the interface, tells most of what a small image network can
learn. These features are computed from the site window alone, so they are as pure as the views.
Lengths are nm, grey levels are z-scores of the dataset's EM, small/big is by voxels in the window.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cb2_assist.datasets.source import EmStatistics
from cb2_assist.views import measures
from cb2_assist.views.site import SiteWindow

CONTACT_RADIUS_NM = 320.0
"""Interface faces farther from the site's point than this are not measured."""
GAP_NM = 60.0
"""An interface may run through unlabelled voxels, as a membrane that the segmentation left out."""
LOCAL_NM = 120.0
"""Half width of the local neighbourhood in which the two sides are described."""
THICKNESS_NM = 200.0
"""Half width of the box in which local thickness is measured."""
_SMOOTH_NM = (10.0, 15.0, 20.0)
_PROFILE_NM = (20.0, 40.0, 70.0)
_UNIT_NM = 10.0

"""Derivatives are per this length, so that they mean the same at every voxel size."""
_STATS = ("mean", "std", "min", "max", "p10", "p50", "p90")
_VOLUMES = ("em", "g10", "g20", "grad10", "grad20", "sheet", "valley", "plate")

FEATURE_NAMES: tuple[str, ...] = (
    *(f"{v}_{s}" for v in _VOLUMES for s in _STATS),
    *(f"{n}{k:.0f}" for k in _PROFILE_NM for n in ("rise", "step")),
    *("log_area", "gap_nm", "direct", "spread1", "spread2", "spread3", "flat", "elongated"),
    *("log_small", "log_big", "log_ratio", "area_per_small", "share_small", "share_big"),
    *("grey_small", "grey_big", "grey_step", "grey_sd_small", "grey_sd_big"),
    *("neighbours_small", "neighbours_big", "rank_small", "rank_big"),
    *(f"axis{k}_{t}" for t in ("small", "big") for k in (1, 2, 3)),
    *(f"{n}_{t}" for t in ("small", "big") for n in ("away", "ahead", "along")),
    *("aligned", "opposed"),
    *(
        f"{n}_{t}"
        for t in ("small", "big")
        for n in ("near_volume", "thick", "near_grey", "near_grey_sd", "near_ahead", "neck")
    ),
    *("near_opposed", "near_other", "near_grey_step", "membrane_contrast"),
)
"""Order of the feature vector; part of every model card."""


def site_features(window: SiteWindow, statistics: EmStatistics) -> NDArray[np.float32]:
    """Measure one site.

    Args:
        window: The site with its labels.
        statistics: Mean and deviation of the dataset's EM, grey levels.

    Returns:
        float32, shape ``(len(FEATURE_NAMES),)``, finite. A site whose two sides have no interface
        within `CONTACT_RADIUS_NM` has zeros in the interface part.
    """
    res = np.array(tuple(window.resolution), np.float64)
    at = np.array(window.point_vx, np.float64)
    faces = measures.interface(
        window.label, window.seg, at, res, CONTACT_RADIUS_NM, max(1, int(GAP_NM / res.min()))
    )
    whole, around = _survey(window, res)
    small = 1 if whole[0, 0] <= whole[1, 0] else 2
    scale = (statistics.mean, max(statistics.std, 1e-6))
    interface, normal, area = _interface_features(window, faces, res, scale)
    parts = [
        interface,
        _segment_features(whole, around, area, small, scale, res),
        _shape_features(whole, at, normal, small, res),
        _local_features(window, at, normal, area, small, scale, res),
    ]
    membrane = interface[_INDEX["em_mean"]] - 0.5 * (
        parts[3][_NEAR_GREY[0]] + parts[3][_NEAR_GREY[1]]
    )
    out = np.concatenate([*parts, [membrane if len(faces) else 0.0]]).astype(np.float32)
    return np.nan_to_num(out, nan=0.0, posinf=0.0, neginf=0.0)


def has_interface(features: NDArray[np.float32]) -> bool:
    """Whether the two sides met anywhere: without that, more than half of the vector is zero."""
    return bool(features[_INDEX["log_area"]] > 0)


_INDEX = {name: i for i, name in enumerate(FEATURE_NAMES)}
_NEAR_GREY = (2, 8)
"""Positions of ``near_grey_small`` and ``near_grey_big`` within the local part."""


def _interface_features(
    window: SiteWindow,
    faces: NDArray[np.int32],
    res: NDArray[np.float64],
    scale: tuple[float, float],
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Everything measured on the faces; their normal (unit, nm frame) and area in nm²."""
    n = len(_VOLUMES) * len(_STATS) + 2 * len(_PROFILE_NM) + 8
    if not len(faces):
        return np.zeros(n), np.zeros(3), 0.0
    p0, p1, axis = faces[:, :3], faces[:, 3:6], faces[:, 6]
    face_area = np.prod(res) / res[axis]
    area = float(face_area.sum())
    reach = np.ceil(max(_PROFILE_NM) / res).astype(int) + 2
    lo = np.maximum(np.minimum(p0, p1).min(0) - reach, 0)
    hi = np.minimum(np.maximum(p0, p1).max(0) + reach + 1, window.em.shape)
    box = tuple(slice(a, b) for a, b in zip(lo, hi, strict=True))
    em = (window.em[box].astype(np.float32) - np.float32(scale[0])) / np.float32(scale[1])
    em = np.ascontiguousarray(em)
    q0, q1 = (p0 - lo).astype(np.int32), (p1 - lo).astype(np.int32)
    # the two voxels at the middle: the face itself, or the core of an unlabelled membrane
    m0, m1 = (q0 + q1) // 2, (q0 + q1 + 1) // 2
    near = measures.ranges_near(em.shape, m0, m1, measures.SAMPLE_REACH)
    fine, middle, coarse = (
        measures.blur_near(
            em, gaussian(s / res[0]), gaussian(s / res[1]), gaussian(s / res[2]), near
        )
        for s in _SMOOTH_NM
    )
    sampled = measures.sample(em, fine, middle, coarse, m0, m1, _UNIT_NM / res)
    columns = [_statistics(sampled)]
    for nm in _PROFILE_NM:
        away = np.maximum(1, np.rint(nm / res)).astype(np.int32)
        ea, eb = measures.profile(em, q0, q1, axis, away)
        columns.append(
            np.array([((ea + eb) / 2 - sampled[0]).mean(), abs(float((ea - eb).mean()))])
        )
    mid = (p0 + p1 + 1) / 2 * res
    centred = mid - mid.mean(0)
    w, v = np.linalg.eigh(centred.T @ centred / len(mid) + 0.25 * res.min() ** 2 * np.eye(3))
    s = np.sqrt(np.maximum(w, 1e-6))
    gap = np.abs((p1 - p0) * res).sum(1) - res[axis]
    shape = [math.log1p(area), gap.mean(), (gap <= 0).mean(), *s, s[0] / s[1], s[1] / s[2]]
    return np.concatenate([*columns, shape]), v[:, 0], area


def _statistics(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """`_STATS` of each row, one row after the other."""
    v = values.astype(np.float64)
    rows = [v.mean(1), v.std(1), v.min(1), v.max(1), *np.quantile(v, (0.1, 0.5, 0.9), axis=1)]
    return np.stack(rows, 1).ravel()


def _survey(
    window: SiteWindow, res: NDArray[np.float64]
) -> tuple[NDArray[np.float64], tuple[float, float, float, float, int, int]]:
    """Moments (see `measures.survey`); surfaces, largest contacts (nm²), numbers of neighbours."""
    label = np.asfortranarray(window.label).T
    sums, surface, faces, count = measures.survey(label, window.seg.T, window.em.T)
    face_nm2 = np.prod(res) / res
    areas = surface @ face_nm2
    largest = (faces @ face_nm2).max(1)
    around = (areas[0], areas[1], largest[0], largest[1], int(count[0]), int(count[1]))
    return sums.astype(np.float64), around


def _segment_features(
    whole: NDArray[np.float64],
    around: tuple[float, float, float, float, int, int],
    area: float,
    small: int,
    scale: tuple[float, float],
    res: NDArray[np.float64],
) -> NDArray[np.float64]:
    s, b = small - 1, 2 - small
    voxel = float(np.prod(res))
    surface, largest, degree = around[0:2], around[2:4], around[4:6]
    volume = whole[:, 0] * voxel
    mean = (whole[:, 10] / np.maximum(whole[:, 0], 1) - scale[0]) / scale[1]
    second = whole[:, 11] / np.maximum(whole[:, 0], 1)
    sd = np.sqrt(np.maximum(second - (whole[:, 10] / np.maximum(whole[:, 0], 1)) ** 2, 0))
    sd = sd / scale[1]
    return np.array(
        [
            math.log1p(volume[s]),
            math.log1p(volume[b]),
            math.log1p(volume[b]) - math.log1p(volume[s]),
            area / max(volume[s], 1.0) ** (2 / 3),
            area / max(surface[s], 1.0),
            area / max(surface[b], 1.0),
            mean[s],
            mean[b],
            mean[s] - mean[b],
            sd[s],
            sd[b],
            math.log1p(degree[s]),
            math.log1p(degree[b]),
            min(area / max(largest[s], 1.0), 4.0),
            min(area / max(largest[b], 1.0), 4.0),
        ]
    )


def _shape_features(
    whole: NDArray[np.float64],
    at: NDArray[np.float64],
    normal: NDArray[np.float64],
    small: int,
    res: NDArray[np.float64],
) -> NDArray[np.float64]:
    lengths, rows, axes, ways = [], [], [], []
    for side in (small - 1, 2 - small):
        m = whole[side]
        n = max(m[0], 1.0)
        centre = (m[1:4] / n + 0.5) * res
        cov = np.empty((3, 3))
        for k, (i, j) in enumerate(((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))):
            cov[i, j] = cov[j, i] = (m[4 + k] / n - m[1 + i] * m[1 + j] / n**2) * res[i] * res[j]
        w, v = np.linalg.eigh(cov + 0.05 * res.min() ** 2 * np.eye(3))
        way = centre - at * res
        away = float(np.linalg.norm(way))
        lengths += list(np.sqrt(np.maximum(w, 1e-6)))
        rows += [away, abs(way @ normal) / (away + 1e-6), abs(v[:, 2] @ normal)]
        axes.append(v[:, 2])
        ways.append(way / (away + 1e-6))
    return np.array([*lengths, *rows, abs(axes[0] @ axes[1]), ways[0] @ ways[1]])


def _local_features(
    window: SiteWindow,
    at: NDArray[np.float64],
    normal: NDArray[np.float64],
    area: float,
    small: int,
    scale: tuple[float, float],
    res: NDArray[np.float64],
) -> NDArray[np.float64]:
    near = np.maximum(1, np.rint(LOCAL_NM / res)).astype(int)
    c = np.floor(at).astype(int)
    a = np.maximum(c - near, 0)
    b = np.minimum(c + near + 1, window.label.shape)
    box = tuple(slice(i, j) for i, j in zip(a, b, strict=True))
    label = window.label[box]
    em = (window.em[box].astype(np.float64) - scale[0]) / scale[1]
    thick = _thickness(window, a, b, at, res)
    total = float(np.prod(2 * near + 1))
    rows: list[float] = []
    ways, greys = [], []
    for side in (small, 3 - small):
        mask = label == side
        n = int(mask.sum())
        if n:
            way = ((np.argwhere(mask).mean(0) + a + 0.5) - at) * res
            length = float(np.linalg.norm(way))
            grey, t = float(em[mask].mean()), float(thick[mask].max())
            rows += [n / total, t, grey, float(em[mask].std()), abs(way @ normal) / (length + 1e-6)]
            ways.append(way / (length + 1e-6))
        else:
            grey, t = 0.0, 0.0
            rows += [0.0] * 5
            ways.append(np.zeros(3))
        rows.append(math.sqrt(area) / (t + res.min()))
        greys.append(grey)
    other = 1.0 - float((label > 0).sum()) / total
    return np.array([*rows, float(ways[0] @ ways[1]), other, greys[0] - greys[1]])


def _thickness(
    window: SiteWindow,
    a: NDArray[np.int_],
    b: NDArray[np.int_],
    at: NDArray[np.float64],
    res: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Distance in nm to the nearest voxel on a border between segments, for the voxels a..b.

    Borders count within `THICKNESS_NM` of the point; without any there is no thickness, 0.
    """
    half = np.maximum(2, np.rint(THICKNESS_NM / res)).astype(int)
    c = np.floor(at).astype(int)
    lo = np.maximum(c - half, 0)
    hi = np.minimum(c + half + 1, window.label.shape)
    box = tuple(slice(i, j) for i, j in zip(lo, hi, strict=True))
    border = measures.borders(
        np.ascontiguousarray(window.seg[box]), np.ascontiguousarray(window.label[box])
    )
    if not border.any():
        return np.zeros(tuple(b - a))
    out: NDArray[np.float64] = measures.distances(border, res, a - lo, b - lo)
    return out


def gaussian(sigma_vx: float) -> NDArray[np.float32]:
    """Gaussian, cut at 3 sigma; an axis with sigma < 0.3 voxels stays as it is."""
    if sigma_vx < 0.3:
        return np.ones(1, np.float32)
    r = max(1, math.ceil(3 * sigma_vx))
    w = np.exp(-0.5 * (np.arange(-r, r + 1) / sigma_vx) ** 2)
    weights: NDArray[np.float32] = (w / w.sum()).astype(np.float32)
    return weights
