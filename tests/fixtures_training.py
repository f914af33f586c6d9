"""A small network of another timm encoder for tests of training."""

from __future__ import annotations

from cb2_assist.model.network import NetworkSpec

STEADY_NETWORK = NetworkSpec(
    encoder="test_vit", image_px=32, feature_hidden=32, dropout=0.0, stochastic_depth=0.0
)
"""A ViT of 0.4 million weights without anything random in a forward pass."""
