"""Folders that `pretrain` writes: an image encoder to start from, and a card of what it has seen.

`encoder.safetensors` holds the encoder, both patch embeddings and the view embedding of
`network.MultiTaskViT`, by its names, in float16; `pretrain.json` says what they were made from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cb2_assist.core.errors import ModelError
from cb2_assist.model.card import sha256_of
from cb2_assist.model.masked import SHARED
from cb2_assist.model.network import MultiTaskViT, NetworkSpec

ENCODER, PRETRAIN = "encoder.safetensors", "pretrain.json"
FORMAT = 1


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """An encoder to start from.

    Attributes:
        card: Of the pretraining.
        sha256: Of the encoder's file.
        weights: By the names that they have in `MultiTaskViT`, float32.
    """

    folder: Path
    card: dict[str, Any]
    sha256: str
    weights: Mapping[str, Tensor]

    def check(self, spec: NetworkSpec) -> None:
        """Refuse another encoder or another image size.

        Raises:
            ModelError: The network to be trained is of another kind.
        """
        network = self.card["network"]
        mine = (network["encoder"], network["image_px"])
        if mine != (spec.encoder, spec.image_px):
            raise ModelError(
                f"{self.folder} was pretrained as {mine[0]} at {mine[1]} px, the network to be "
                f"trained is {spec.encoder} at {spec.image_px} px. Give train --encoder {mine[0]} "
                f"--px {mine[1]}, or pretrain another one."
            )

    def apply(self, net: MultiTaskViT) -> None:
        """Put the weights into a network, in place; the others stay.

        Raises:
            ModelError: Encoder, size, names or shapes of the weights are not the network's.
        """
        self.check(net.spec)
        wanted = {k: v.shape for k, v in net.state_dict().items() if k.startswith(SHARED)}
        found = {k: v.shape for k, v in self.weights.items()}
        if found != wanted:
            wrong = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))
            raise ModelError(
                f"The weights in {self.folder / ENCODER} do not fit the network: {len(wrong)} of "
                f"{len(wanted)} are missing, unknown or of another shape, first {wrong[0]}. They "
                "may be of another version: pretrain again."
            )
        net.load_state_dict(dict(self.weights), strict=False)


def save_start(folder: Path, net: nn.Module, card: Mapping[str, Any]) -> dict[str, Any]:
    """Write encoder and card; returns the whole card.

    Args:
        folder: Is there.
        net: Of `masked`, or any with the same names.
        card: What it was made from; format, file, SHA-256 and size are added.
    """
    path = folder / ENCODER
    state = {
        k: v.detach().cpu().half().contiguous().clone()
        for k, v in net.state_dict().items()
        if k.startswith(SHARED)
    }
    temporary = path.with_suffix(".tmp")
    save_file(state, temporary)
    temporary.replace(path)
    whole = {
        "format": FORMAT,
        **card,
        "weights": {"file": ENCODER, "sha256": sha256_of(path), "bytes": path.stat().st_size},
    }
    (folder / PRETRAIN).write_text(
        json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    # safetensors makes its file for its owner alone; whoever may read the card may read the weights
    path.chmod((folder / PRETRAIN).stat().st_mode)
    return whole


def read_start(folder: Path) -> Start:
    """Read what `save_start` wrote.

    Raises:
        ModelError: The folder is none of these, or damaged; the message says what to do.
    """
    path = folder / PRETRAIN
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise ModelError(
            f"There is no pretrained encoder at {folder} ({PRETRAIN}: {e.strerror}). Give "
            "--init-from the --out of a finished cb2-assist pretrain."
        ) from e
    except ValueError as e:
        raise ModelError(f"{path} is not JSON: {e}. Restore it or pretrain again.") from e
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        got = card.get("format") if isinstance(card, dict) else type(card).__name__
        raise ModelError(
            f"{path} has format {got!r}; this version reads format {FORMAT}. Update cb2-assist, or "
            "pretrain again."
        )
    try:
        wanted = str(card["weights"]["sha256"])
        str(card["network"]["encoder"]), int(card["network"]["image_px"]), list(card["data"])
    except (KeyError, TypeError, ValueError) as e:
        raise ModelError(
            f"The card {path} lacks or misnames something: {e}. Restore it or pretrain again."
        ) from e
    file = folder / ENCODER
    try:
        sha = sha256_of(file)
        weights = {k: v.float() for k, v in load_file(file).items()}
    except (SafetensorError, OSError) as e:
        raise ModelError(f"{file} cannot be read: {e}. Copy it again, or pretrain again.") from e
    if sha != wanted:
        raise ModelError(
            f"{file} is not the one of the card beside it: SHA-256 {sha[:12]}…, the card says "
            f"{wanted[:12]}…. One of the two was replaced; copy both together."
        )
    broken = next((k for k, v in weights.items() if not torch.isfinite(v).all()), None)
    if broken is not None:
        raise ModelError(f"{file} holds NaN or infinity ({broken}). Pretrain again.")
    return Start(folder, card, sha, weights)
