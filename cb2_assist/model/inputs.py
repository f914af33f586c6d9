"""A view stack as the network reads it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.channels import VIEW_SIZE_PX, EmChannel
from cb2_assist.views.encode import downsample_em, downsample_geometry, encode
from cb2_assist.views.features import FEATURE_NAMES
from cb2_assist.views.hitmap import HitMap
from cb2_assist.views.stack import ViewStack
from cb2_assist.views.surroundings import MEASURED_NAMES, resized, split_vector


@dataclass(frozen=True, slots=True)
class NetworkInput:
    """One decision.

    Attributes:
        geometry: float16, (3, 7, px, px).
        em: uint8, (3, 3, px, px), not yet scaled.
        features: float32, `views.surroundings.MEASURED_NAMES`; 0 what was not measured.
        neighbours: float32, `views.surroundings.SHAPE`; None where they were not measured.
    """

    geometry: NDArray[np.float16]
    em: NDArray[np.uint8]
    features: NDArray[np.float32]
    neighbours: NDArray[np.float32] | None = None


def network_input(stack: ViewStack, image_px: int) -> NetworkInput:
    """Reduce a stack to the size at which a network reads it.

    Args:
        stack: What was rendered.
        image_px: A divisor of `VIEW_SIZE_PX`.
    """
    factor = VIEW_SIZE_PX // image_px
    if stack.profile == "clean":
        # encoding is per pixel, so leaving out lines of sight first gives the same bytes for less
        hits = HitMap(
            stack.hits.depth_nm[..., ::factor, ::factor],
            stack.hits.normal_i8[..., ::factor, ::factor],
        )
        geometry = encode(stack.profile, hits, stack.extent_nm)
    else:
        geometry = downsample_geometry(stack.geometry(), factor)
    features, neighbours = split_vector(stack.features)
    if len(features) == len(FEATURE_NAMES):
        # views that were kept before more was measured go into one batch with later ones
        features = resized(features, len(MEASURED_NAMES))
    return NetworkInput(geometry, downsample_em(stack.em, factor), features, neighbours)


def scale_em(em: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Grey to about unit variance round 0, masks to 0..1; shape stays (..., 3, rows, columns)."""
    out = em.astype(np.float32)
    out[..., EmChannel.EM, :, :] = (out[..., EmChannel.EM, :, :] - 128.0) * (1 / 42.5)
    out[..., EmChannel.MASK_A :, :, :] *= 1 / 255.0
    return out
