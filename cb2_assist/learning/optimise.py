"""Optimiser, learning rate schedule and the running average of the weights."""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor

from cb2_assist.learning.recipe import Recipe
from cb2_assist.model.network import MultiTaskViT

_ENCODER = ("encoder", "em_patches", "view_embedding")
_BLOCK = re.compile(r"encoder\.blocks\.(\d+)\.")


def make_optimizer(net: MultiTaskViT, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW with one group for each depth of the encoder, and one for everything after it.

    A block ``k`` blocks before the encoder's end learns at ``lr * layer_decay ** k``, the patch and
    position embeddings one step slower than the first block. With a decay of 1 the encoder is one
    group.
    """
    depth = len(net.encoder.blocks)
    body: dict[float, list[Tensor]] = {}
    heads: list[Tensor] = []
    for name, parameter in net.named_parameters():
        if not name.startswith(_ENCODER):
            heads.append(parameter)
            continue
        block = _BLOCK.match(name)
        if block:
            below = depth - 1 - int(block[1])
        else:
            below = 0 if name.startswith("encoder.norm") else depth
        body.setdefault(recipe.layer_decay**below, []).append(parameter)
    groups = [
        {"params": parameters, "peak": recipe.lr * scale}
        for scale, parameters in sorted(body.items())
    ]
    groups.append({"params": heads, "peak": recipe.lr_heads})
    return torch.optim.AdamW(groups, lr=recipe.lr, weight_decay=recipe.weight_decay)


def rate_at(step: int, total: int, warmup: float) -> float:
    """Share of the peak learning rate: linear warm-up, times half a cosine down to 0."""
    warm = max(1, int(warmup * total))
    return min(1.0, (step + 1) / warm) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / total)))


def set_rate(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Set every group to a share of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share


class Average:
    """Exponential moving average of a network's weights; its first steps count more."""

    def __init__(self, net: MultiTaskViT, keep: float) -> None:
        self._keep = keep
        self.weights: dict[str, Tensor] = {
            k: v.detach().clone() for k, v in net.state_dict().items()
        }

    def update(self, net: MultiTaskViT, step: int) -> None:
        """Take over a share of the network's weights after its ``step``-th step."""
        keep = min(self._keep, step / (step + 10))
        with torch.no_grad():
            for k, v in net.state_dict().items():
                self.weights[k].lerp_(v, 1 - keep)
