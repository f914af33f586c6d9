"""What else the two sides of a site touch: the numbers behind the model's graph token.

Whether A and B are one neuron is also said by their neighbours: a segment C that clearly continues
both ties them together, one that continues A and is clearly apart from B sets them apart. Each
contact of a side with a third segment near the site is described by a few membrane measures; the
model judges them and combines the verdicts. Everything is measured in a part of the site window, so
it is as pure as the views. Lengths are nm, grey levels are z-scores of the dataset's EM.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cb2_assist.datasets.source import EmStatistics
from cb2_assist.views import contacts, measures
from cb2_assist.views.features import (
    CONTACT_RADIUS_NM,
    FEATURE_NAMES,
    GAP_NM,
    gaussian,
    site_features,
)
from cb2_assist.views.passage import PASSAGE_NAMES, passage
from cb2_assist.views.site import SiteWindow

NEIGHBOURS = 16
"""Third segments that are described, largest total contact first."""
SIDES = 2
_SMOOTH_NM = 15.0
_PROFILE_NM = 40.0
_UNIT_NM = 10.0
_MOST_FACES = 96
"""Of one contact; more are thinned out evenly."""
_LEAST_FACES = 4

CONTACT_NAMES: tuple[str, ...] = (
    *("there", "log_area", "gap_nm", "direct"),
    *("em_mean", "em_sd", "em_p10", "em_p90"),
    *("sheet_mean", "sheet_p10", "sheet_p50", "sheet_p90"),
    *("valley_mean", "plate_mean", "plate_p10", "rise", "step"),
    *("grey_side", "grey_other", "grey_step", "contrast"),
    *("log_side", "log_other", "away_nm"),
)
"""Of one contact. ``there`` is 1 where the two touch; without it the rest is 0."""
SHAPE = (NEIGHBOURS, SIDES, len(CONTACT_NAMES))
"""Third segment, side A or B, measure."""


MEASURED_NAMES: tuple[str, ...] = (*FEATURE_NAMES, *PASSAGE_NAMES)
"""What a network reads that also knows the way between the sides of a cut; 0 there for joins."""


def site_vector(
    window: SiteWindow,
    statistics: EmStatistics,
    *,
    neighbours: bool,
    way_between: bool = False,
) -> NDArray[np.float32]:
    """All that is measured of one site, as it is kept with its views.

    Args:
        window: The site with its labels.
        statistics: Mean and deviation of the dataset's EM, grey levels.
        neighbours: Also the contacts with third segments, for models with a graph token.
        way_between: Also the way between the sides of a cut, for models that read it.

    Returns:
        float32: `FEATURE_NAMES`, then, where asked for, `passage`, then `surroundings` in C
        order.
    """
    parts = [site_features(window, statistics)]
    if way_between:
        parts.append(passage(window, statistics))
    if neighbours:
        parts.append(surroundings(window, statistics)[0].ravel())
    return np.concatenate(parts)


def split_vector(
    vector: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Features and surroundings of a `site_vector`; None where those were not measured.

    The features end with `passage`, where that was measured. A vector of any other length, e.g. of
    no features at all, has no surroundings.
    """
    n = len(vector) - math.prod(SHAPE)
    if n not in (len(FEATURE_NAMES), len(MEASURED_NAMES)):
        return vector, None
    return vector[:n], vector[n:].reshape(SHAPE)


def resized(features: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """The first ``width`` of `MEASURED_NAMES`, of features (..., F); what was not measured is 0."""
    out = np.zeros((*features.shape[:-1], width), np.float32)
    n = min(width, features.shape[-1])
    out[..., :n] = features[..., :n]
    return out


def surroundings(
    window: SiteWindow, statistics: EmStatistics
) -> tuple[NDArray[np.float32], NDArray[np.uint64]]:
    """Describe the contacts of both sides with third segments near the site's point.

    Args:
        window: The site with its labels.
        statistics: Mean and deviation of the dataset's EM, grey levels.

    Returns:
        float32, `SHAPE`, finite; rows without a segment are zero. The segments' ids, (rows with a
        segment,): for learning, whose answers the model must not see.
    """
    out = np.zeros(SHAPE, np.float32)
    res = np.array(tuple(window.resolution), np.float64)
    at = np.array(window.point_vx, np.float64)
    reach = np.ceil(CONTACT_RADIUS_NM / res).astype(np.int64) + 1
    lo = np.maximum(np.floor(at).astype(np.int64) - reach, 0)
    hi = np.minimum(np.floor(at).astype(np.int64) + reach + 1, window.label.shape)
    box = tuple(slice(a, b) for a, b in zip(lo, hi, strict=True))
    code, ids = contacts.codes(window.label, window.seg, lo, hi)
    gap = max(1, int(GAP_NM / res.min()))
    faces = contacts.faces_with_others(code, at - lo, res, CONTACT_RADIUS_NM, gap)
    key = SIDES * (faces[:, 8].astype(np.int64) - 3) + faces[:, 7] - 1
    face_nm2 = np.prod(res) / res
    size = SIDES * len(ids)
    number = np.bincount(key, minlength=size)
    area = np.bincount(key, face_nm2[faces[:, 6]], minlength=size).astype(np.float64)
    area[number < _LEAST_FACES] = 0
    total = area.reshape(-1, SIDES).sum(1)
    # ids break ties, so that the order is the site's and not the scan's
    chosen = [k for k in np.lexsort((ids, -total)) if total[k] > 0][:NEIGHBOURS]
    if not chosen:
        return out, ids[:0]
    thinned, starts = _thin(faces, key, number, area, chosen)
    em = (window.em[box].astype(np.float32) - np.float32(statistics.mean)) / np.float32(
        max(statistics.std, 1e-6)
    )
    em = np.ascontiguousarray(em)
    p, q = thinned[:, :3], thinned[:, 3:6]
    near = measures.ranges_near(em.shape, (p + q) // 2, (p + q + 1) // 2, measures.SAMPLE_REACH)
    wx, wy, wz = (gaussian(_SMOOTH_NM / r) for r in res)
    smooth = measures.blur_near(em, wx, wy, wz, near)
    away = np.maximum(1, np.rint(_PROFILE_NM / res)).astype(np.int64)
    seen = contacts.look(em, smooth, thinned, _UNIT_NM / res, away).astype(np.float64)
    voxels, grey = contacts.greys(code, em, 3 + len(ids))
    grey = grey / np.maximum(voxels, 1)
    volume = voxels * np.prod(res)
    middle = (p + q + 1) / 2 * res - (at - lo) * res
    for slot, k in enumerate(chosen):
        for side in range(SIDES):
            g = SIDES * k + side
            if not area[g]:
                continue
            rows = slice(*starts[g])
            step = res[thinned[rows, 6]]
            out[slot, side] = _describe(
                seen[rows],
                step,
                area=float(area[g]),
                greys=(grey[1 + side], grey[3 + k]),
                volumes=(volume[1 + side], volume[3 + k]),
                away_nm=float(np.linalg.norm(middle[rows].mean(0))),
            )
    return np.nan_to_num(out, nan=0.0, posinf=0.0, neginf=0.0), ids[chosen]


def _thin(
    faces: NDArray[np.int32],
    key: NDArray[np.int64],
    number: NDArray[np.int64],
    area: NDArray[np.float64],
    chosen: list[int],
) -> tuple[NDArray[np.int32], dict[int, tuple[int, int]]]:
    """At most `_MOST_FACES` of each chosen contact, evenly along the scan; where each begins."""
    order = np.argsort(key, kind="stable")
    begin = np.concatenate([[0], np.cumsum(number)])
    rows, starts, n = [], {}, 0
    for k in chosen:
        for g in range(SIDES * k, SIDES * k + SIDES):
            if not area[g]:
                continue
            count = int(number[g])
            take = min(count, _MOST_FACES)
            picked = begin[g] + (np.arange(take) * count) // take
            rows.append(order[picked])
            starts[g] = (n, n + take)
            n += take
    return np.ascontiguousarray(faces[np.concatenate(rows)]), starts


def _describe(
    seen: NDArray[np.float64],
    step_nm: NDArray[np.float64],
    *,
    area: float,
    greys: tuple[float, float],
    volumes: tuple[float, float],
    away_nm: float,
) -> list[float]:
    em, sheet, valley, plate, rise, step, gap = seen.T
    e10, e90 = np.quantile(em, (0.1, 0.9))
    s10, s50, s90 = np.quantile(sheet, (0.1, 0.5, 0.9))
    mean = float(em.mean())
    return [
        1.0,
        float(np.log1p(area)),
        float((gap * step_nm).mean()),
        float((gap == 0).mean()),
        mean,
        float(em.std()),
        float(e10),
        float(e90),
        float(sheet.mean()),
        float(s10),
        float(s50),
        float(s90),
        float(valley.mean()),
        float(plate.mean()),
        float(np.quantile(plate, 0.1)),
        float(rise.mean()),
        abs(float(step.mean())),
        greys[0],
        greys[1],
        abs(greys[0] - greys[1]),
        mean - 0.5 * (greys[0] + greys[1]),
        float(np.log1p(volumes[0])),
        float(np.log1p(volumes[1])),
        away_nm,
    ]


def warm_up() -> None:
    """Compile what measures a site, or load it from the cache, on a toy site."""
    # imported here: only the warm-up builds a site of its own
    from cb2_assist.core.geometry import BoxVx, PointNm, PointVoxel, Resolution
    from cb2_assist.core.records import Kind, SegmentId, Site
    from cb2_assist.datasets.source import Cutout
    from cb2_assist.views.site import build_window

    size, res = 24, Resolution(10, 10, 10)
    seg = np.zeros((size, size, size), np.uint64, order="F")
    seg[:12], seg[12:], seg[:, 16:] = 1, 2, 3
    em = np.asfortranarray((np.indices(seg.shape).sum(0) * 3).astype(np.uint8))
    box = BoxVx(PointVoxel(0, 0, 0), PointVoxel(size, size, size))
    site = Site(Kind.JOIN, SegmentId(1), SegmentId(2), PointNm(120, 120, 120))
    # a crop of a larger cutout and a cutout that was read alone differ in memory layout, and each
    # layout is compiled apart
    for half_width_nm in (100.0, 200.0):
        window = build_window(Cutout(box, res, em, seg), site, half_width_nm, box)
        site_vector(window, EmStatistics(100.0, 30.0), neighbours=True)
        cut = replace(window, site=Site(Kind.CUT, SegmentId(1), None, site.point))
        passage(cut, EmStatistics(100.0, 30.0))
