"""A small network with random weights in a real model folder.

Import from here and write a fixture, e.g. `return tiny_model(tmp_path_factory.mktemp("model"))`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from cb2_assist.core.records import Kind
from cb2_assist.model.card import OodReference, ViewSpec
from cb2_assist.model.checkpoint import save_model
from cb2_assist.model.network import MultiTaskViT, NetworkSpec
from cb2_assist.views.surroundings import CONTACT_NAMES

EXTENT_NM = 320.0
"""Half width of the tiny model's views: small windows keep tests quick."""
TINY_VIEWS = ViewSpec(extent_nm=EXTENT_NM, image_px=32)
TINY_NETWORK = NetworkSpec(image_px=32, contact_measures=len(CONTACT_NAMES))
CALIBRATION = {
    kind.value: {"temperature": 1.5, "bias": 0.2, "draws": [[1.2, 0.1], [1.5, 0.2], [1.9, 0.4]]}
    for kind in Kind
}
BASE_RATES = {"join": 0.3, "cut": 0.1}


def tiny_network(seed: int = 0, spec: NetworkSpec = TINY_NETWORK) -> MultiTaskViT:
    """ViT-Tiny at 32 px with random weights, in evaluation mode."""
    torch.manual_seed(seed)
    return MultiTaskViT(spec).eval()


def tiny_ood(network: MultiTaskViT) -> OodReference:
    """Distances with mean 0 and unit covariance; percentiles 0..20."""
    width = network.task_query.shape[1]
    return OodReference(
        np.zeros(width, np.float32),
        np.eye(width, dtype=np.float32),
        np.linspace(0, 20, 101).astype(np.float32),
    )


def tiny_model(
    folder: Path,
    seed: int = 0,
    views: ViewSpec = TINY_VIEWS,
    spec: NetworkSpec = TINY_NETWORK,
) -> Path:
    """Write weights and card into `folder` and return it."""
    network = tiny_network(seed, spec)
    card = {"name": "tiny", "calibration": CALIBRATION, "base_rates": BASE_RATES}
    save_model(folder, network, views, tiny_ood(network), card)
    return folder
