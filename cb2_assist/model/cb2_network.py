"""ConnectomeBench2's network: each view is judged on its own, and nothing combines them.

arXiv 2606.21116, github.com/timfarkas/ConnectomeBench2: a ViT with two patch embeddings, 7-channel
geometry and 3-channel EM, over one encoder; three heads of two classes on the class token, and a
mask decoder on the patch tokens. Names inside are ours; `model.cb2_import` maps theirs onto them.

Shape suffixes: N = images, C = channels, P = patches, D = width, H/W = pixels.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from cb2_assist.core.channels import VIEW_SIZE_PX, EmChannel, GeometryChannel
from cb2_assist.core.errors import ModelError
from cb2_assist.model.card import CB2_ARCHITECTURE
from cb2_assist.model.network import TASKS, import_timm


@dataclass(frozen=True, slots=True)
class Cb2Spec:
    """What builds the network; part of the model card."""

    encoder: str = "vit_base_patch16_224"
    """A timm vision transformer with heads of 64 and a class token."""
    architecture: str = CB2_ARCHITECTURE

    def to_json(self) -> dict[str, Any]:
        """For the card."""
        return asdict(self)


class Cb2ViT(nn.Module):
    """The network, for inference: dropout and stochastic depth of its training are left out."""

    def __init__(self, spec: Cb2Spec) -> None:
        super().__init__()
        self.spec = spec
        try:
            self.encoder = import_timm().create_model(
                spec.encoder, pretrained=False, in_chans=len(GeometryChannel), num_classes=0
            )
        except (RuntimeError, ValueError, TypeError) as e:
            raise ModelError(
                f"timm cannot build {spec.encoder!r}: {e}. The card's encoder must be a timm "
                "vision transformer."
            ) from e
        D = int(self.encoder.embed_dim)
        geometry = self.encoder.patch_embed.proj
        self.em_patches = nn.Conv2d(len(EmChannel), D, geometry.kernel_size, geometry.stride)
        self.heads = nn.ModuleDict({t: nn.Linear(D, 2) for t in TASKS})
        widths = (D, 256, 128, 64)
        rise: list[nn.Module] = []
        for below, above in pairwise(widths):
            rise += [nn.ConvTranspose2d(below, above, 2, 2), nn.BatchNorm2d(above), nn.ReLU()]
        self.mask = nn.Sequential(*rise, nn.ConvTranspose2d(widths[-1], 2, 2, 2))

    def encode(self, geometry_NCHW: Tensor, em_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Run the encoder over any mixture of views.

        Args:
            geometry_NCHW: ``(N1, 7, 224, 224)``; N1 may be 0.
            em_NCHW: ``(N2, 3, 224, 224)``; N2 may be 0.

        Returns:
            Class tokens ``(N1 + N2, D)``, geometry first, and the geometry images' patch tokens
            ``(N1, P, D)`` for `masks`.
        """
        em = self.em_patches(em_NCHW).flatten(2).transpose(1, 2)
        x = torch.cat([self.encoder.patch_embed(geometry_NCHW), em])
        x = torch.cat([self.encoder.cls_token.expand(x.shape[0], -1, -1), x], 1)
        x = self.encoder.norm(self.encoder.blocks(x + self.encoder.pos_embed))
        return x[:, 0], x[: len(geometry_NCHW), 1:]

    def log_odds(self, cls_ND: Tensor, task: str) -> Tensor:
        """Of class 1 against class 0, ``(N,)``; their sigmoid is softmax[1] of the two logits."""
        logits: Tensor = self.heads[task](cls_ND)
        return logits[:, 1] - logits[:, 0]

    def masks(self, patches_NPD: Tensor) -> Tensor:
        """Logits of the two sides, ``(N, 2, 224, 224)``; which of the two is A is arbitrary."""
        N, P, D = patches_NPD.shape
        side = round(P**0.5)
        out: Tensor = self.mask(patches_NPD.transpose(1, 2).reshape(N, D, side, side))
        assert out.shape[-1] == VIEW_SIZE_PX
        return out
