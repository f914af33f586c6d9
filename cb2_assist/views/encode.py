"""Hit map to the 7-channel geometry tensors that a network reads.

Two profiles over the same hit map. ``cb2`` writes what ConnectomeBench2's renderer wrote
(arXiv 2606.21116, github.com/timfarkas/ConnectomeBench2), with its quirks; ``clean`` writes what
is there. A model is trained on one of them, its card says which, and they are never mixed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.channels import GeometryChannel
from cb2_assist.core.errors import BadRequestError
from cb2_assist.views.hitmap import EMPTY, NORMAL_SCALE, HitMap
from cb2_assist.views.jit import kernel

CLEAN_NEAREST, CLEAN_FARTHEST = 1.0, 0.1
"""Depth channel of `encode_clean` at the near and the far face of the view box."""

SILHOUETTE, DEPTH, NORMAL = (
    int(GeometryChannel.SILHOUETTE),
    int(GeometryChannel.DEPTH),
    int(GeometryChannel.NORMAL_X),
)
MASK_A, MASK_B = int(GeometryChannel.MASK_A), int(GeometryChannel.MASK_B)

Array = NDArray[Any]
Geometry = NDArray[np.float16]
"""float16, (view, `channels.GeometryChannel`, row, column)."""


def encode_cb2(hits: HitMap, normal_gamma: bool = True) -> Geometry:
    """ConnectomeBench2's encoding.

    Depth: per view and segment ``(d - min) / (max - min + 1e-8)`` over the segment's own
    foreground, 0 nearest, 0 in the background. Where both segments are hit, A is in front if its
    depth *so normalised* is not greater than B's: not physical, but what the published tensors
    have. Silhouette is the union, masks are full silhouettes, normals are in world axes.

    Args:
        hits: From `hitmap.render_hits`.
        normal_gamma: Store a component n as ``2 * sRGB((n + 1) / 2) - 1``, as the published
            tensors do (the renderer's linear colour is read back from an sRGB target). Background
            stays 0.
    """
    low, high, levels = _levels(hits)
    order = (levels - low) / (high - low + np.float32(1e-8))
    table = srgb_warp(_COMPONENTS) if normal_gamma else _COMPONENTS
    return _assemble(hits, order, np.clip(order, 0, 1), table)


def front_side(hits: HitMap) -> NDArray[np.int8]:
    """Which segment `encode_cb2` shows, (view, row, column): 0 is A, 1 is B, -1 neither."""
    low, high, _ = _levels(hits)
    depth = hits.depth_nm.astype(np.float32)
    order = (depth - low[..., None]) / (high - low + np.float32(1e-8))[..., None]
    has = hits.depth_nm != EMPTY
    is_b = has[:, 1] & (~has[:, 0] | (order[:, 0] > order[:, 1]))
    return np.where(is_b, 1, np.where(has[:, 0], 0, -1)).astype(np.int8)


def encode_clean(hits: HitMap, extent_nm: float) -> Geometry:
    """One metric depth for both segments, true normals, true occlusion.

    Depth falls linearly from `CLEAN_NEAREST` (1) at the view box's near face, ``-extent_nm``, to
    `CLEAN_FARTHEST` (0.1) at its far face, ``+extent_nm``; the background is 0, as if it lay
    behind everything, and so differs from every hit. Normals are unit vectors in world axes, 0 in
    the background. Silhouette is the union, masks are full silhouettes.
    """
    _, _, levels = _levels(hits)
    share = (levels + np.float32(extent_nm)) / np.float32(2 * extent_nm)
    value = CLEAN_NEAREST - np.clip(share, 0, 1) * np.float32(CLEAN_NEAREST - CLEAN_FARTHEST)
    shape = (*hits.depth_nm.shape[:2], len(levels))
    return _assemble(
        hits, np.broadcast_to(levels, shape), np.broadcast_to(value, shape), _COMPONENTS
    )


def as_one_segment(hits: HitMap) -> HitMap:
    """Both sides of a cut as the one segment that they are; B is empty.

    The first hit of the whole is the nearer one of its sides' first hits, so silhouette and depth
    are exact. Normals within two voxels of the seam are those of each side alone: hit maps do not
    hold what lies behind.
    """
    a, b = hits.depth_nm[:, 0], hits.depth_nm[:, 1]
    depth = np.full_like(hits.depth_nm, EMPTY)
    normal = np.zeros_like(hits.normal_i8)
    # EMPTY is greater than every depth
    depth[:, 0] = np.minimum(a, b)
    nearer = (b < a)[:, None]
    normal[:, 0] = np.where(nearer, hits.normal_i8[:, 1], hits.normal_i8[:, 0])
    return HitMap(depth, normal)


ENCODINGS: dict[str, Callable[[HitMap, float], Geometry]] = {
    "cb2": lambda hits, _extent_nm: encode_cb2(hits),
    "clean": encode_clean,
}
"""What a model card may ask for."""


def check_profile(profile: str) -> None:
    """Refuse an encoding that does not exist.

    Raises:
        BadRequestError: The name is unknown.
    """
    if profile not in ENCODINGS:
        raise BadRequestError(
            f"There is no view encoding {profile!r}. Known: {', '.join(sorted(ENCODINGS))}. "
            "The model card names the one that its weights were trained on."
        )


def encode(profile: str, hits: HitMap, extent_nm: float) -> Geometry:
    """Encode by the name on a model card.

    Raises:
        BadRequestError: The name is unknown.
    """
    check_profile(profile)
    return ENCODINGS[profile](hits, extent_nm)


def srgb_warp(n: NDArray[np.float32]) -> NDArray[np.float32]:
    """``2 * sRGB((n + 1) / 2) - 1`` with the transfer function of IEC 61966-2-1."""
    linear = (n.astype(np.float64) + 1) / 2
    encoded = np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0) ** (1 / 2.4) - 0.055
    )
    return (2 * encoded - 1).astype(np.float32)


def downsample_geometry(geometry: Geometry, factor: int = 2) -> Geometry:
    """Every `factor`-th row and column: a rendering with fewer lines of sight.

    Means would invent depths between two surfaces, normals that are no unit vectors and blends
    with the background at each edge. Every pixel that is left is one line of sight with its own
    consistent silhouette, depth, normal and masks.

    Raises:
        BadRequestError: The size is not a multiple of the factor.
    """
    _check_factor(geometry.shape[-2:], factor)
    return geometry[..., ::factor, ::factor]


def downsample_em(em: NDArray[np.uint8], factor: int = 2) -> NDArray[np.uint8]:
    """Mean over blocks of `factor` x `factor` pixels, rounded half up.

    Grey values are samples of a continuous signal, so the mean removes noise and aliasing; a
    mask becomes the share that it covers.

    Raises:
        BadRequestError: The size is not a multiple of the factor.
    """
    _check_factor(em.shape[-2:], factor)
    total = np.zeros((*em.shape[:-2], em.shape[-2] // factor, em.shape[-1] // factor), np.uint16)
    for i in range(factor):
        for j in range(factor):
            total += em[..., i::factor, j::factor]
    count = factor * factor
    return ((total + count // 2) // count).astype(np.uint8)


def _check_factor(size: tuple[int, ...], factor: int) -> None:
    if factor < 1 or any(n % factor for n in size):
        raise BadRequestError(
            f"Views of {size[0]} x {size[1]} px cannot be reduced by a factor of {factor}; "
            "it must divide both."
        )


_COMPONENTS: NDArray[np.float32] = (
    # index = the int8's bit pattern read as uint8
    np.concatenate([np.arange(128), np.arange(-128, 0)]) / NORMAL_SCALE
).astype(np.float32)


def _levels(
    hits: HitMap,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Least and greatest depth per view and segment (shape view, 2, 1), and all between, nm."""
    low, high = _ranges(np.ascontiguousarray(hits.depth_nm))
    lowest, highest = int(low.min()), int(high.max())
    levels = np.arange(lowest, max(lowest, highest) + 1, dtype=np.float32)
    empty = low > high
    low, high = np.where(empty, lowest, low), np.where(empty, lowest, high)
    return low[..., None].astype(np.float32), high[..., None].astype(np.float32), levels


def _assemble(hits: HitMap, order: Array, value: Array, component: NDArray[np.float32]) -> Geometry:
    """Fuse both segments and put channels in `GeometryChannel` order.

    Args:
        hits: Depths and normals.
        order: float, (view, segment, level): who is in front is decided by this; levels are the
            depths in nm from the least one on.
        value: The same for what the depth channel holds.
        component: What a normal's byte, read as unsigned, stands for.
    """
    views, _, rows, columns = hits.depth_nm.shape
    out = np.zeros((views, len(GeometryChannel), rows, columns), np.float16)
    least = int(hits.depth_nm.min())
    # numba has no float16: bit patterns go through it as they are; and it compiles once more for
    # each memory layout, so every array comes in C order
    _fuse(
        np.ascontiguousarray(hits.depth_nm),
        np.ascontiguousarray(hits.normal_i8).view(np.uint8),
        least,
        np.ascontiguousarray(order),
        np.ascontiguousarray(value.astype(np.float16)).view(np.uint16),
        component.astype(np.float16).view(np.uint16),
        out.view(np.uint16),
    )
    return out


@kernel
def _ranges(depth: Array) -> tuple[Array, Array]:
    low = np.full(depth.shape[:2], 32767, np.int64)
    high = np.full(depth.shape[:2], -32768, np.int64)
    for v in range(depth.shape[0]):
        for k in range(2):
            for r in range(depth.shape[2]):
                for d in depth[v, k, r]:
                    if d != EMPTY:
                        low[v, k] = min(low[v, k], d)
                        high[v, k] = max(high[v, k], d)
    return low, high


@kernel
def _fuse(
    depth: Array,
    normal: Array,
    least: int,
    order: Array,
    value: Array,
    component: Array,
    out: Array,
) -> None:
    one = np.uint16(0x3C00)  # 1.0
    for v in range(depth.shape[0]):
        for r in range(depth.shape[2]):
            for c in range(depth.shape[3]):
                a, b = depth[v, 0, r, c], depth[v, 1, r, c]
                if a == EMPTY and b == EMPTY:
                    continue
                k, d = 0, a
                if a == EMPTY or (b != EMPTY and order[v, 0, a - least] > order[v, 1, b - least]):
                    k, d = 1, b
                out[v, SILHOUETTE, r, c] = one
                out[v, DEPTH, r, c] = value[v, k, d - least]
                for i in range(3):
                    out[v, NORMAL + i, r, c] = component[normal[v, k, i, r, c]]
                if a != EMPTY:
                    out[v, MASK_A, r, c] = one
                if b != EMPTY:
                    out[v, MASK_B, r, c] = one
