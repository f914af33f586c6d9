"""Model folders: `card.json` beside `weights.safetensors`, and the checks that they fit.

The card says what the weights expect (views, features, network), what they were made from (data,
licences, recipe, seed) and what was measured. Weights are float16 on disk and float32 in memory.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cb2_assist.core.errors import ModelError
from cb2_assist.model.card import (
    CARD,
    CB2_ARCHITECTURE,
    FORMAT,
    WEIGHTS,
    ViewSpec,
    check_card,
    sha256_of,
)
from cb2_assist.model.cb2_network import Cb2Spec, Cb2ViT
from cb2_assist.model.network import MultiTaskViT, NetworkSpec
from cb2_assist.model.ood.appearance import PICTURE_WIDTH
from cb2_assist.model.ood.reference import OodReference
from cb2_assist.views.features import FEATURE_NAMES
from cb2_assist.views.surroundings import CONTACT_NAMES

MAX_BYTES = 16_000_000
"""Weights that the repository ships are not larger; those that are trained elsewhere may be."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model folder that was checked and loaded."""

    folder: Path
    card: dict[str, Any]
    sha256: str
    """Of the weights file."""
    views: ViewSpec
    """On a dataset of a species of which the card says nothing else."""
    network: MultiTaskViT | Cb2ViT
    ood: OodReference | None
    by_species: dict[str, ViewSpec]

    @property
    def name(self) -> str:
        """As on the card."""
        return str(self.card["name"])

    def views_for(self, species: str) -> ViewSpec:
        """How it wants its views on a dataset of this species."""
        return self.by_species.get(species, self.views)


def save_model(
    folder: Path,
    network: MultiTaskViT,
    views: ViewSpec,
    ood: OodReference,
    card: dict[str, Any],
) -> dict[str, Any]:
    """Write weights and card; returns the whole card.

    Args:
        folder: Made if it is not there.
        network: Its weights are kept as float16.
        views: How the network wants its views.
        ood: Where the training decisions lie.
        card: Name, data, licences, recipe, calibration, base rates, figures, and in ``ood`` how
            the distances were fitted; what this function knows itself (network, views, features,
            weights, the default distance) is added.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {f"network.{k}": v.detach().cpu() for k, v in network.state_dict().items()}
    # statistics span several orders of magnitude: too wide for float16
    wide = ("mean", "std")
    tensors: dict[str, Tensor] = {
        k: (v if k.endswith(wide) else v.half()).contiguous().clone() for k, v in state.items()
    }
    for key, value in ood.to_tensors().items():
        # a copy: two questions may share an array, and the file must not
        tensors[key] = torch.from_numpy(np.array(value, order="C"))
    path = folder / WEIGHTS
    save_file(tensors, path)
    size = path.stat().st_size
    whole = {
        "format": FORMAT,
        **card,
        "network": network.spec.to_json(),
        "views": asdict(views),
        "features": list(FEATURE_NAMES),
        **({"contact": list(CONTACT_NAMES)} if network.graph is not None else {}),
        "ood": {**card.get("ood", {}), "default": ood.default},
        "weights": {"file": WEIGHTS, "sha256": sha256_of(path), "bytes": size},
    }
    (folder / CARD).write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
    # safetensors makes its file for its owner alone; whoever may read the card may read the weights
    path.chmod((folder / CARD).stat().st_mode)
    return whole


def load_model(folder: Path, device: str = "cpu") -> Model:
    """Load a model folder after checking that its parts fit each other and this version.

    Raises:
        ModelError: Card, weights and code do not fit; the message says which part.
    """
    checked = check_card(folder)
    path = folder / WEIGHTS
    tensors = _read(path)
    broken = next((k for k, v in tensors.items() if not torch.isfinite(v).all()), None)
    if broken is not None:
        raise ModelError(
            f"The weights in {path} hold NaN or infinity ({broken}): every answer would be "
            "meaningless. Train again, or copy an earlier checkpoint."
        )
    state = {
        k[8:]: v.float() if v.is_floating_point() else v
        for k, v in tensors.items()
        if k.startswith("network.")
    }
    try:
        # without memory at first: drawing random weights only to replace them takes over a second
        with torch.device("meta"):
            network = _build(checked.card["network"])
        network.load_state_dict(state, assign=True)
    except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as e:
        raise ModelError(
            f"The weights in {path} do not fit the network on the card: {str(e).splitlines()[0]}. "
            "Restore the card or train again."
        ) from e
    if checked.ood is not None and isinstance(network, MultiTaskViT):
        width = network.task_query.shape[1]
        if checked.ood.widths != {width}:
            raise ModelError(
                f"The weights in {path} do not fit: their network's decisions have {width} "
                f"numbers, what says how unlike training they are has {checked.ood.widths}. "
                "Train again."
            )
        seen = network.feature_mean.shape[0] + PICTURE_WIDTH
        if not checked.ood.seen_widths <= {0, seen}:
            raise ModelError(
                f"The weights in {path} do not fit: what a site looks like has {seen} numbers, "
                f"what says how unlike training that is has {checked.ood.seen_widths}. Train again."
            )
    return Model(
        folder,
        checked.card,
        checked.sha256,
        checked.views,
        network.to(device).eval(),
        checked.ood,
        checked.by_species,
    )


def _build(described: dict[str, Any]) -> MultiTaskViT | Cb2ViT:
    if described.get("architecture") == CB2_ARCHITECTURE:
        return Cb2ViT(Cb2Spec(**described))
    return MultiTaskViT(NetworkSpec(**described))


def _read(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, "pt") as f:
            return {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as e:
        raise ModelError(f"{path} is not a safetensors file: {e}. Copy the weights again.") from e
