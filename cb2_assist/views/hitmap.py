"""First hits of three orthographic cameras on the two segments of a site window.

No mesh is made: one pass over the labels gives the first voxel on every line of sight, and the
normal there comes from the voxels around it. A hit map is what is kept of the geometry; every
encoding of `encode.py` is a pure function of it, so it is quantised here and nowhere else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.channels import VIEW_SIZE_PX, GeometryView
from cb2_assist.core.errors import BadRequestError
from cb2_assist.core.geometry import BoxVx, PointNm, Resolution
from cb2_assist.views.jit import kernel
from cb2_assist.views.site import SiteWindow

EMPTY = 32767
"""Depth of a pixel whose line of sight meets no voxel of the segment."""

NORMAL_SCALE = 127
"""A component of 1.0 is stored as this."""

MAX_DEPTH_NM = 32_000.0
"""Depths are int16 nm, so a view box and one voxel reach no farther than this from the anchor."""

Array = NDArray[Any]

SAMPLE_SHIFT_PX: dict[str, float] = {"cb2": 0.25, "clean": 0.0}
"""How far to the right of and below its centre a pixel looks, by encoding.

ConnectomeBench2 draws 448 x 448 pixels and keeps every second one from the second on, whose centre
is a quarter of a kept pixel off.
"""

_TAPS = 5  # of the normal's neighbourhood, per axis


class Camera(NamedTuple):
    """Axes (0 = x, 1 = y, 2 = z) and directions of `channels.GeometryView`."""

    depth_axis: int
    depth_sign: int
    right_axis: int
    right_sign: int
    up_axis: int


CAMERAS: dict[GeometryView, Camera] = {
    GeometryView.FRONT: Camera(depth_axis=0, depth_sign=1, right_axis=1, right_sign=-1, up_axis=2),
    GeometryView.SIDE: Camera(depth_axis=1, depth_sign=1, right_axis=0, right_sign=1, up_axis=2),
    GeometryView.TOP: Camera(depth_axis=2, depth_sign=-1, right_axis=0, right_sign=1, up_axis=1),
}


@dataclass(frozen=True, slots=True, eq=False)
class HitMap:
    """What the three cameras see of each segment alone.

    Attributes:
        depth_nm: int16, (view, segment A/B, row, column). Distance along the view direction from
            the anchor's plane to the near face of the first voxel, nm, positive = farther; `EMPTY`
            where there is none.
        normal_i8: int8, (view, segment, x/y/z, row, column). Outward unit normal in world axes
            times `NORMAL_SCALE`; 0 where there is no hit.
    """

    depth_nm: NDArray[np.int16]
    normal_i8: NDArray[np.int8]


def view_box(anchor: PointNm, extent_nm: float, resolution: Resolution) -> BoxVx:
    """Voxels that a view of half width `extent_nm` may show; nothing outside has any influence.

    Raises:
        BadRequestError: The extent is not a positive number of nm, or with one voxel more exceeds
            `MAX_DEPTH_NM`.
    """
    farthest = MAX_DEPTH_NM - max(resolution)
    if not 0 < extent_nm <= farthest:
        raise BadRequestError(
            f"The half width of a view must lie between 0 and {farthest:g} nm, got {extent_nm:g}."
        )
    return BoxVx.around(anchor, extent_nm, resolution)


def crop(array: NDArray[np.uint8], array_box: BoxVx, box: BoxVx) -> tuple[NDArray[np.uint8], BoxVx]:
    """The part of an array inside `box`, on the same memory, and the box that it fills."""
    inside = box.clip(array_box)
    part = tuple(
        slice(lo - o, hi - o) for lo, hi, o in zip(inside.lo, inside.hi, array_box.lo, strict=True)
    )
    return array[part], inside


def line_offsets(extent_nm: float, size_px: int, profile: str) -> NDArray[np.float64]:
    """Distance of each line of sight from the view's middle, rightwards and downwards, nm.

    Lines are ``2 * extent_nm / size_px`` apart and go through the pixels' centres, or where
    `SAMPLE_SHIFT_PX` says.
    """
    at = np.arange(size_px) + 0.5 + SAMPLE_SHIFT_PX[profile]
    return np.asarray(at * (2 * extent_nm / size_px) - extent_nm, np.float64)


def render_hits(
    window: SiteWindow, extent_nm: float, size_px: int = VIEW_SIZE_PX, profile: str = "clean"
) -> HitMap:
    """Look at both segments of a window from the three cameras.

    A line of sight (`line_offsets`) hits a voxel when it crosses the voxel's cube, so voxel centres
    need no offset of half a voxel. Labels outside the window, and outside `view_box`, are empty.

    Args:
        window: Segments round the anchor.
        extent_nm: Half width of every view.
        size_px: Rows and columns.
        profile: The encoding that the hits are for.

    Raises:
        BadRequestError: The extent is out of range.
    """
    anchor, res = window.site.point, window.resolution
    labels, box = crop(window.label, window.box, view_box(anchor, extent_nm, res))
    depth = np.full((len(CAMERAS), 2, size_px, size_px), EMPTY, np.int16)
    normal = np.zeros((len(CAMERAS), 2, 3, size_px, size_px), np.int8)
    if box.is_empty:
        return HitMap(depth, normal)
    # x fastest, whatever the order of the input; a rim of empty voxels spares bounds checks
    gradient = _gradient_kernel(res)
    rim = _TAPS // 2 * int(gradient.strides.max())
    padded = np.zeros(tuple(n + 2 * rim for n in reversed(box.shape)), np.uint8)
    padded[rim:-rim, rim:-rim, rim:-rim] = labels.transpose(2, 1, 0)
    first = _first_hits(padded, rim)
    offsets = line_offsets(extent_nm, size_px, profile)
    for view, camera in CAMERAS.items():
        rows = _voxels(camera.up_axis, -1, offsets, anchor, res, box)
        columns = _voxels(camera.right_axis, camera.right_sign, offsets, anchor, res, box)
        near = _near_faces(camera, anchor, res, box)
        _shade(
            padded,
            rim,
            first[view],
            int(view),
            rows,
            columns,
            near,
            gradient,
            depth[view],
            normal[view],
        )
    return HitMap(depth, normal)


def _voxels(
    axis: int, sign: int, offsets: NDArray[Any], anchor: PointNm, res: Resolution, box: BoxVx
) -> NDArray[np.int64]:
    """Voxel index within the box under each row or column; -1 outside."""
    # absolute voxels first: rounding then cannot depend on where the window begins
    at = (tuple(anchor)[axis] + sign * offsets) / tuple(res)[axis]
    index = np.floor(at).astype(np.int64) - tuple(box.lo)[axis]
    index[(index < 0) | (index >= box.shape[axis])] = -1
    return index


def _near_faces(camera: Camera, anchor: PointNm, res: Resolution, box: BoxVx) -> NDArray[np.int16]:
    """Depth of the near face of every voxel layer along the camera's axis, nm."""
    axis = camera.depth_axis
    layers = np.arange(box.shape[axis]) + tuple(box.lo)[axis] + (camera.depth_sign < 0)
    depth = camera.depth_sign * (layers * tuple(res)[axis] - tuple(anchor)[axis])
    rounded: NDArray[np.int16] = np.rint(depth).astype(np.int16)
    return rounded


class _Gradient(NamedTuple):
    """Tables for `_normal`.

    Attributes:
        row_moments: int64, (32, 2): sum and first moment of each occupancy of the taps along x.
        weights: int64, (z tap, y tap).
        strides: int64, voxels between two taps along x, y, z.
        scale: float64, factor of each component.
    """

    row_moments: Array
    weights: Array
    strides: Array
    scale: Array


def _gradient_kernel(res: Resolution) -> _Gradient:
    """Binomial smoothing over a neighbourhood of similar size in nm along each axis.

    Along axes that are much finer than the coarsest one taps are several voxels apart; a coarse
    axis gets three taps of weight, else it would be smoothed over hundreds of nm. The first moment
    of a half space under a separable kernel is -(variance * tap distance) times its normal, so
    each component is divided by both. Integers make the sums exact on every machine.
    """
    five, three = (1, 4, 6, 4, 1), (0, 1, 2, 1, 0)
    x_taps, y_taps, z_taps = taps = np.array(
        [three if r > 2 * res.finest else five for r in res], np.int64
    )
    strides = np.array([math.ceil(max(res) / (2 * r)) for r in res], np.int64)
    offset = np.arange(_TAPS) - _TAPS // 2
    variance = (taps * offset**2).sum(1) / taps.sum(1)
    bits = (np.arange(1 << _TAPS)[:, None] >> np.arange(_TAPS)) & 1
    return _Gradient(
        row_moments=np.stack([bits @ x_taps, bits @ (x_taps * offset)], axis=1),
        weights=np.outer(z_taps, y_taps),
        strides=strides,
        scale=-1.0 / (variance * strides * np.array(tuple(res))),
    )


@kernel
def _first_hits(padded: Array, rim: int) -> tuple[Array, Array, Array]:
    """Per camera: index along its axis of the first voxel of each segment, -1 for none."""
    nz = padded.shape[0] - 2 * rim
    ny = padded.shape[1] - 2 * rim
    nx = padded.shape[2] - 2 * rim
    front = np.full((2, nz, ny), np.int16(-1), np.int16)
    side = np.full((2, nz, nx), np.int16(-1), np.int16)
    top = np.full((2, ny, nx), np.int16(-1), np.int16)
    for z in range(nz):
        for y in range(ny):
            row = padded[z + rim, y + rim, rim : rim + nx]
            present = np.uint8(0)
            for x in range(nx):
                present |= row[x]
            if present == 0:
                continue
            for k in range(2):
                # loops without exits compile to vector instructions
                value, y16, z16 = np.uint8(k + 1), np.int16(y), np.int16(z)
                side_row, top_row = side[k, z], top[k, y]
                for x in range(nx):
                    top_row[x] = z16 if row[x] == value else top_row[x]
                for x in range(nx):
                    new = (row[x] == value) & (side_row[x] < 0)
                    side_row[x] = y16 if new else side_row[x]
                for x in range(nx):
                    if row[x] == value:
                        front[k, z, y] = x
                        break
    return front, side, top


@kernel
def _shade(
    padded: Array,
    rim: int,
    first: Array,
    view: int,
    rows: Array,
    columns: Array,
    near: Array,
    gradient: _Gradient,
    depth: Array,
    normal: Array,
) -> None:
    """Fill one view's depths and normals; neighbouring pixels on one voxel are copied."""
    size = rows.shape[0]
    for k in range(2):
        for r in range(size):
            v = rows[r]
            if v < 0:
                continue
            if r > 0 and rows[r - 1] == v:
                depth[k, r] = depth[k, r - 1]
                normal[k, :, r] = normal[k, :, r - 1]
                continue
            for c in range(size):
                u = columns[c]
                if c > 0 and columns[c - 1] == u:
                    depth[k, r, c] = depth[k, r, c - 1]
                    for i in range(3):
                        normal[k, i, r, c] = normal[k, i, r, c - 1]
                elif u >= 0 and first[k, v, u] >= 0:
                    w = first[k, v, u]
                    depth[k, r, c] = near[w]
                    n = _normal(padded, rim, view, w, u, v, k + 1, gradient)
                    for i in range(3):
                        normal[k, i, r, c] = np.int8(np.rint(n[i] * NORMAL_SCALE))


@kernel
def _normal(
    padded: Array,
    rim: int,
    view: int,
    along: int,
    across: int,
    upward: int,
    value: int,
    gradient: _Gradient,
) -> tuple[float, float, float]:
    """Outward unit normal: the occupancy gradient in the 5 x 5 x 5 voxels around a hit."""
    if view == 0:
        x, y, z = along, across, upward
    elif view == 1:
        x, y, z = across, along, upward
    else:
        x, y, z = across, upward, along
    row_moments, weights, strides, scale = gradient
    half = _TAPS // 2
    x, y, z = x + rim - half * strides[0], y + rim - half * strides[1], z + rim - half * strides[2]
    gx, gy, gz = 0, 0, 0
    for k in range(_TAPS):
        for j in range(_TAPS):
            row = padded[z + k * strides[2], y + j * strides[1], x:]
            code = np.uint64(0)
            for i in range(_TAPS):
                code |= np.uint64(row[i * strides[0]] == value) << np.uint64(i)
            if code == 0:
                continue
            weight = weights[k, j]
            total = weight * row_moments[code, 0]
            gx += weight * row_moments[code, 1]
            gy += total * (j - half)
            gz += total * (k - half)
    nx, ny, nz = gx * scale[0], gy * scale[1], gz * scale[2]
    length = np.sqrt(nx * nx + ny * ny + nz * nz)
    if length > 0.0:
        return nx / length, ny / length, nz / length
    # a sheet one voxel thin has no side: it faces the camera
    if view == 0:
        return -1.0, 0.0, 0.0
    if view == 1:
        return 0.0, -1.0, 0.0
    return 0.0, 0.0, 1.0
