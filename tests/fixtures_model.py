"""A small network with random weights in a real model folder.

Import from here and write a fixture, e.g. `return tiny_model(tmp_path_factory.mktemp("model"))`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from cb2_assist.core.records import Kind
from cb2_assist.model.card import ViewSpec
from cb2_assist.model.checkpoint import save_model
from cb2_assist.model.network import MultiTaskViT, NetworkSpec
from cb2_assist.model.ood.appearance import PICTURE_WIDTH
from cb2_assist.model.ood.distances import DISTANCES
from cb2_assist.model.ood.reference import OodReference, TaskReference
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
    """Mean 0 and unit covariance; percentiles are 0..20 for joins and 0..40 for cuts."""
    width = network.task_query.shape[1]
    seen = network.feature_mean.shape[0] + PICTURE_WIDTH
    unit, zero = np.eye(width, dtype=np.float32), np.zeros((1, width), np.float32)
    tensors = {
        "means": zero,
        "whiten": unit,
        "background_mean": zero,
        "background_whiten": unit,
        "sample": unit[:20].astype(np.float16),
        "seen_means": np.zeros((1, seen), np.float32),
        "seen_whiten": np.eye(seen, dtype=np.float32),
        "scales": np.ones(2, np.float32),
    }
    return OodReference(
        "mahalanobis",
        {
            kind: TaskReference(
                tensors, dict.fromkeys(DISTANCES, np.linspace(0, most, 101).astype(np.float32))
            )
            for kind, most in ((Kind.JOIN, 20), (Kind.CUT, 40))
        },
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
