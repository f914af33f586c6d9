"""What a decision looks like before a network has made anything of it, as plain numbers.

A network can map pictures that are nothing like its training onto decisions that are: strong blur,
turned grey levels and black sections did. What was measured and what the pictures are made of shows
them at once. Shape suffixes: n decisions, F measured features, V views, P pixels along an edge.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.channels import EmChannel, GeometryChannel

Floats = NDArray[np.float32]

EM_NAMES: tuple[str, ...] = (
    "mean",
    "deviation",
    "clipped",
    "fine_step",
    "coarse_step",
    "step_between_planes",
    "side_a",
    "side_b",
)
"""Order of what is measured in EM planes."""
GEOMETRY_NAMES: tuple[str, ...] = ("silhouette", "side_a", "side_b", "depth_deviation", "least")
"""Order of what is measured in geometry views."""
PICTURE_WIDTH = len(EM_NAMES) + len(GEOMETRY_NAMES)
"""Numbers of `appearance` beside the features."""

_COARSE_PX = 4
_LEAST = 1e-3


def appearance(
    features_nF: NDArray[np.floating[Any]],
    geometry_nVCPP: NDArray[np.floating[Any]],
    em_nVCPP: NDArray[np.uint8],
) -> Floats:
    """Numbers behind the distances of `distances` that do not ask the network.

    Args:
        features_nF: Contact and membrane features, in deviations from their training mean.
        geometry_nVCPP: Geometry views, channels as `core.channels.GeometryChannel`; zeros where
            there are none.
        em_nVCPP: EM planes before scaling, channels as `core.channels.EmChannel`; zeros where there
            are none.

    Returns:
        ``(n, F + PICTURE_WIDTH)``: features under arsinh, which keeps a long tail from deciding
        alone; then `EM_NAMES` and `GEOMETRY_NAMES`, means over the views. Steps are logarithms of
        the mean difference of pixels 1 and `_COARSE_PX` apart, in deviations of the dataset's grey.
    """
    n = len(features_nF)
    return np.concatenate(
        [
            np.arcsinh(features_nF.astype(np.float32)),
            _em(em_nVCPP) if n else np.zeros((0, len(EM_NAMES)), np.float32),
            _geometry(geometry_nVCPP) if n else np.zeros((0, len(GEOMETRY_NAMES)), np.float32),
        ],
        1,
    )


def _em(em: NDArray[np.uint8]) -> Floats:
    raw = em[:, :, EmChannel.EM]
    grey = (raw.astype(np.float32) - 128) * np.float32(1 / 42.5)

    def step(apart: int) -> Floats:
        down = np.abs(grey[..., apart:, :] - grey[..., :-apart, :]).mean((2, 3))
        across = np.abs(grey[..., apart:] - grey[..., :-apart]).mean((2, 3))
        out: Floats = np.log(0.5 * (down + across) + _LEAST)
        return out

    fine = step(1)
    columns = [
        grey.mean((1, 2, 3)),
        grey.std((2, 3)).mean(1),
        ((raw == 0) | (raw == 255)).mean((1, 2, 3)),
        fine.mean(1),
        step(_COARSE_PX).mean(1),
        fine.max(1) - fine.min(1),
        em[:, :, EmChannel.MASK_A].mean((1, 2, 3)) / 255,
        em[:, :, EmChannel.MASK_B].mean((1, 2, 3)) / 255,
    ]
    return np.stack(columns, 1).astype(np.float32)


def _geometry(views: NDArray[np.floating[Any]]) -> Floats:
    there = views[:, :, GeometryChannel.SILHOUETTE].astype(np.float32)
    depth = views[:, :, GeometryChannel.DEPTH].astype(np.float32)
    share = there.mean((2, 3))
    middle = (depth * there).mean((2, 3)) / np.maximum(share, _LEAST)
    apart = ((depth - middle[..., None, None]) ** 2 * there).mean((2, 3))
    columns = [
        share.mean(1),
        views[:, :, GeometryChannel.MASK_A].astype(np.float32).mean((1, 2, 3)),
        views[:, :, GeometryChannel.MASK_B].astype(np.float32).mean((1, 2, 3)),
        np.sqrt(apart / np.maximum(share, _LEAST)).mean(1),
        share.min(1),
    ]
    return np.stack(columns, 1).astype(np.float32)
