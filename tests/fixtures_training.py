"""A small network of another timm encoder, and joins to learn from, for tests of training."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cb2_assist.learning.prepare import Part
from cb2_assist.model.network import NetworkSpec
from cb2_assist.views.surroundings import SHAPE

STEADY_NETWORK = NetworkSpec(
    encoder="test_vit", image_px=32, feature_hidden=32, dropout=0.0, stochastic_depth=0.0
)
"""A ViT of 0.4 million weights without anything random in a forward pass."""


def toy_joins(
    features: NDArray[np.float32],
    geometry: NDArray[np.float16],
    em: NDArray[np.uint8],
    z: NDArray[np.int64],
) -> Part:
    """Joins with these measures and views; every other one is true, four are of a body."""
    n = len(features)
    return Part(
        name="toy",
        geometry=geometry,
        em=em,
        features=features,
        neighbours=np.zeros((n, *SHAPE), np.float32),
        contacts=np.full((n, *SHAPE[:2]), -1, np.int8),
        task=np.zeros(n, np.int64),
        answer=np.arange(n) % 2 == 0,
        sample_type=np.full(n, "touching_pair"),
        group=np.arange(n) // 4,
        point_nm=np.zeros((n, 3)),
        z=z,
        segment=np.arange(n, dtype=np.uint64),
        partner=np.arange(n, dtype=np.uint64) + n,
    )
