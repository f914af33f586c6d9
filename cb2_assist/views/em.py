"""Three cardinal EM planes through a site, with the masks of both segments.

``clean`` has a fixed field of view and a grey scale fixed per dataset; ``cb2`` stretches each
image by its own percentiles, as ConnectomeBench2 does (arXiv 2606.21116).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cb2_assist.core.channels import VIEW_SIZE_PX, EmChannel, EmView
from cb2_assist.core.errors import BadRequestError
from cb2_assist.core.geometry import BoxVx
from cb2_assist.datasets.source import EmStatistics
from cb2_assist.views.encode import check_profile
from cb2_assist.views.hitmap import crop, view_box
from cb2_assist.views.jit import kernel
from cb2_assist.views.site import SiteWindow

SLAB_SAMPLES = 3
"""Thickness of a plane, in samples one finest voxel edge apart."""

CLEAN_OUTSIDE = 128
"""Grey of `clean` beyond the volume: the dataset's mean."""

_Z_LIMIT = 3.0

Array = NDArray[Any]

# (row axis, column axis, collapsed axis); 0 = x, 1 = y, 2 = z
_PLANES: dict[EmView, tuple[int, int, int]] = {
    EmView.XY: (0, 1, 2),
    EmView.XZ: (0, 2, 1),
    EmView.YZ: (1, 2, 0),
}


def render_em(
    window: SiteWindow, extent_nm: float, profile: str, statistics: EmStatistics
) -> NDArray[np.uint8]:
    """Cut three planes out of a window.

    Rows run along the plane's first axis and columns along its second, both towards larger
    coordinates. A plane is `SLAB_SAMPLES` samples thick, one finest voxel edge apart: mean of the
    grey values, union of the masks (0 or 255). EM is sampled linearly, masks to the nearest voxel.

    ``clean``: pixel centres span ``±extent_nm`` around the site's point; grey is the z-score by
    the dataset's statistics, -3..3 mapped to 0..255; `CLEAN_OUTSIDE` beyond the volume.
    ``cb2``: a square of finest voxel edges centred on the voxel that holds the point, zero beyond
    the volume, stretched from its 1st to its 99th percentile and resized together with the masks
    by Lanczos, so masks are not binary at edges.

    Returns:
        uint8, (`channels.EmView`, `channels.EmChannel`, row, column).

    Raises:
        BadRequestError: Unknown profile, extent out of range, or statistics without spread.
    """
    check_profile(profile)
    box = view_box(window.site.point, extent_nm, window.resolution)
    em, inside = crop(window.em, window.box, box)
    label, _ = crop(window.label, window.box, box)
    return _RENDERERS[profile](window, extent_nm, em, label, inside, statistics)


def grey_scale(statistics: EmStatistics) -> tuple[np.float32, np.float32]:
    """Gain and offset of `clean`: z-scores from -3 to 3 become 0 to 255.

    Raises:
        BadRequestError: Statistics without spread.
    """
    if not (math.isfinite(statistics.mean) and 0 < statistics.std < math.inf):
        raise BadRequestError(
            f"Grey values cannot be normalised with mean {statistics.mean} and standard deviation "
            f"{statistics.std}: the EM of this dataset has no contrast, or its statistics are "
            "damaged. Import it again."
        )
    gain = 255 / (2 * _Z_LIMIT * statistics.std)
    return np.float32(gain), np.float32(127.5 - gain * statistics.mean)


def stretched(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Grey of `cb2`: the image's 1st percentile becomes 0 and its 99th 255."""
    low, high = np.percentile(grey, (1, 99))
    share = np.clip((grey - low) / max(float(high - low), 1e-6), 0, 1)
    return np.asarray(share * 255, np.float32)


def _render_clean(
    window: SiteWindow,
    extent_nm: float,
    em: NDArray[np.uint8],
    label: NDArray[np.uint8],
    box: BoxVx,
    statistics: EmStatistics,
) -> NDArray[np.uint8]:
    gain, offset = grey_scale(statistics)
    size, finest = VIEW_SIZE_PX, window.resolution.finest
    anchor, step = tuple(window.site.point), 2 * extent_nm / VIEW_SIZE_PX
    in_plane = (np.arange(size) + 0.5) * step - extent_nm
    out = np.zeros((len(EmView), len(EmChannel), size, size), np.uint8)
    out[:, EmChannel.EM] = CLEAN_OUTSIDE
    for view, (row, column, depth) in _PLANES.items():
        slab = _slab(em, label, (row, column, depth), anchor[depth], finest, window, box)
        if slab is None:
            continue
        rows = _samples(anchor[row] + in_plane, row, step, window, box)
        columns = _samples(anchor[column] + in_plane, column, step, window, box)
        grey = _resample(slab[0], rows, columns)
        _write_clean(
            grey, slab[1], rows.nearest, columns.nearest, gain, offset, out[view],
        )  # fmt: skip
    return out


def _render_cb2(
    window: SiteWindow,
    extent_nm: float,
    em: NDArray[np.uint8],
    label: NDArray[np.uint8],
    box: BoxVx,
    _statistics: EmStatistics,
) -> NDArray[np.uint8]:
    finest = window.resolution.finest
    centre = tuple(window.site.point.to_voxel(window.resolution).to_nm(window.resolution))
    reach = math.ceil(extent_nm / finest)
    in_plane = np.arange(-reach, reach + 1) * finest
    size = len(in_plane)
    out = np.empty((len(EmView), len(EmChannel), VIEW_SIZE_PX, VIEW_SIZE_PX), np.uint8)
    for view, (row, column, depth) in _PLANES.items():
        grey, rgb = np.zeros((size, size), np.float32), np.zeros((size, size, 3), np.uint8)
        slab = _slab(em, label, (row, column, depth), centre[depth], finest, window, box)
        if slab is not None:
            rows = _samples(centre[row] + in_plane, row, finest, window, box)
            columns = _samples(centre[column] + in_plane, column, finest, window, box)
            inside = (rows.nearest >= 0)[:, None] & (columns.nearest >= 0)
            grey[inside] = _resample(slab[0], rows, columns)[inside]
            bits = np.where(inside, slab[1][np.ix_(rows.nearest, columns.nearest)], 0)
            rgb[..., 1] = 255 * (bits & 1)
            rgb[..., 2] = 255 * (bits >> 1)
        rgb[..., 0] = stretched(grey)
        image = Image.fromarray(rgb).resize((VIEW_SIZE_PX,) * 2, Image.Resampling.LANCZOS)
        out[view] = np.asarray(image).transpose(2, 0, 1)
    return out


_RENDERERS: dict[str, Callable[..., NDArray[np.uint8]]] = {
    "clean": _render_clean,
    "cb2": _render_cb2,
}


class _Samples(NamedTuple):
    """How places along one axis are read from the voxels of a box.

    Attributes:
        taps: int64, (place, tap), voxels within the box.
        weight: float32, (place, tap), sums to 1 where the place is inside.
        nearest: int64, (place,), the voxel that holds the place; -1 outside the box.
    """

    taps: Array
    weight: Array
    nearest: Array


def _samples(at_nm: Array, axis: int, step_nm: float, window: SiteWindow, box: BoxVx) -> _Samples:
    """Triangle filter as wide as the coarser of voxel and step.

    Linear interpolation where voxels are coarser than the places' distance, a weighted mean where
    they are finer (no aliasing). Taps outside the box are left out, so edges are replicated.
    """
    res, lo, n = tuple(window.resolution)[axis], tuple(box.lo)[axis], box.shape[axis]
    width = max(1.0, step_nm / res)
    at = at_nm / res
    # absolute voxels first: rounding must not depend on where the box begins
    nearest = np.floor(at).astype(np.int64) - lo
    first = np.floor(at - 0.5 - width).astype(np.int64) + 1
    index = first[:, None] + np.arange(math.ceil(2 * width))
    weight = np.maximum(0, 1 - np.abs(index + 0.5 - at[:, None]) / width)
    index -= lo
    weight[(index < 0) | (index >= n)] = 0
    total = weight.sum(1, keepdims=True)
    weight = np.divide(weight, total, out=np.zeros_like(weight), where=total > 0)
    nearest[(nearest < 0) | (nearest >= n)] = -1
    return _Samples(np.clip(index, 0, max(n - 1, 0)), weight.astype(np.float32), nearest)


def _slab(
    em: NDArray[np.uint8],
    label: NDArray[np.uint8],
    axes: tuple[int, int, int],
    centre_nm: float,
    finest_nm: float,
    window: SiteWindow,
    box: BoxVx,
) -> tuple[Array, Array] | None:
    """Mean grey and union of masks over `SLAB_SAMPLES` places along the collapsed axis.

    Places outside the box are left out. Returns float32 grey and uint8 bits (1 = A, 2 = B), both
    (rows, columns) in voxels, or None when every place lies outside.
    """
    places = centre_nm + (np.arange(SLAB_SAMPLES) - SLAB_SAMPLES // 2) * finest_nm
    samples = _samples(places, axes[2], finest_nm, window, box)
    inside = samples.nearest >= 0
    if box.is_empty or not inside.any():
        return None
    weight = np.zeros(box.shape[axes[2]], np.float64)
    np.add.at(weight, samples.taps[inside], samples.weight[inside])
    planes, mask_planes = np.flatnonzero(weight), np.unique(samples.nearest[inside])
    start = planes[0]
    # a small C-order copy: one machine-code version whatever the order of the window
    near = np.s_[:, :, start : planes[-1] + 1]
    return _collapse(
        np.array(em.transpose(axes)[near], order="C"),
        np.array(label.transpose(axes)[near], order="C"),
        planes - start,
        (weight[planes] / inside.sum()).astype(np.float32),
        mask_planes - start,
    )


def _resample(slab: Array, rows: _Samples, columns: _Samples) -> Array:
    return _resample_taps(slab, rows.taps, rows.weight, columns.taps, columns.weight)


@kernel
def _collapse(
    em: Array, label: Array, planes: Array, weights: Array, mask_planes: Array
) -> tuple[Array, Array]:
    slab = np.zeros((em.shape[0], em.shape[1]), np.float32)
    bits = np.zeros((em.shape[0], em.shape[1]), np.uint8)
    for i in range(em.shape[0]):
        for j in range(em.shape[1]):
            for p in range(planes.shape[0]):
                slab[i, j] += weights[p] * np.float32(em[i, j, planes[p]])
            for p in mask_planes:
                value = label[i, j, p]
                if value == 1 or value == 2:
                    bits[i, j] |= value
    return slab, bits


@kernel
def _resample_taps(
    slab: Array, rows: Array, row_w: Array, columns: Array, column_w: Array
) -> Array:
    """Separable weighted sums: first down the columns, then along the rows."""
    out = np.empty((rows.shape[0], columns.shape[0]), np.float32)
    line = np.empty(slab.shape[1], np.float32)
    for r in range(rows.shape[0]):
        line[:] = np.float32(0)
        for t in range(rows.shape[1]):
            weight, source = row_w[r, t], slab[rows[r, t]]
            for j in range(line.shape[0]):
                line[j] += weight * source[j]
        for c in range(columns.shape[0]):
            value = np.float32(0)
            for t in range(columns.shape[1]):
                value += column_w[c, t] * line[columns[c, t]]
            out[r, c] = value
    return out


@kernel
def _write_clean(
    grey: Array,
    bits: Array,
    rows: Array,
    columns: Array,
    gain: np.float32,
    offset: np.float32,
    out: Array,
) -> None:
    for r in range(rows.shape[0]):
        if rows[r] < 0:
            continue
        for c in range(columns.shape[0]):
            if columns[c] < 0:
                continue
            value = min(max(gain * grey[r, c] + offset, np.float32(0)), np.float32(255))
            out[0, r, c] = np.uint8(np.rint(value))
            here = bits[rows[r], columns[c]]
            out[1, r, c] = 255 * (here & 1)
            out[2, r, c] = 255 * (here >> 1)
