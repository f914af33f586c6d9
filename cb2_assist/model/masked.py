"""Masked modelling of views: what trains the image encoder without any answer.

Of a geometry and an EM image of one site most patches are hidden. The encoder reads the patches
that are left, of both images as one sequence, and a small decoder says what the hidden ones hold;
so one kind of image can help with the other. Hidden patches never reach the encoder (masked
autoencoders: He et al. 2022, arXiv 2111.06377; several kinds of image at once: Bachmann et al.
2022, MultiMAE, arXiv 2204.01678). The encoder, both patch embeddings and the view embedding are
`network.MultiTaskViT`'s, by the same names; the decoder is thrown away.

Shape suffixes as in `network`; K = patches that are shown, M = hidden ones, X = pixels of a patch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cb2_assist.core.channels import EmChannel, GeometryChannel
from cb2_assist.core.errors import ModelError
from cb2_assist.model.network import N_VIEWS, check_plain, timm_encoder

SHARED = ("encoder.", "em_patches.", "view_embedding")
"""Weights that `MultiTaskViT` has, too, by the beginnings of their names."""
GEOMETRY_NAMES = tuple(c.name.lower() for c in GeometryChannel)
EM_NAMES = tuple(f"em_{c.name.lower()}".replace("em_em", "em_grey") for c in EmChannel)
CHANNEL_NAMES = (*GEOMETRY_NAMES, *EM_NAMES)
"""Of the losses, geometry first."""

_DECODER_HEADS = 4
_LEAST_DEPTH_VARIANCE = 1e-4
"""A hundredth of the view box: what is flatter than that is not blown up to unit variance."""
_LEAST_GREY_VARIANCE = 1e-2
_SURFACE = [
    GeometryChannel.DEPTH,
    GeometryChannel.NORMAL_X,
    GeometryChannel.NORMAL_Y,
    GeometryChannel.NORMAL_Z,
]
_NORMALS = slice(GeometryChannel.NORMAL_X, GeometryChannel.NORMAL_Z + 1)


@dataclass(frozen=True, slots=True)
class MaskedSpec:
    """What builds the network for masked modelling."""

    encoder: str = "vit_tiny_patch16_224"
    """A timm vision transformer."""
    image_px: int = 112
    decoder_width: int = 128
    decoder_blocks: int = 2


@dataclass(frozen=True, slots=True)
class Shown:
    """Which patches of a batch's images are shown and hidden, as positions; (B, K) and (B, M)."""

    geometry: Tensor
    geometry_hidden: Tensor
    em: Tensor
    em_hidden: Tensor


class MaskedViews(nn.Module):
    """The encoder of `MultiTaskViT` with a decoder of pixels.

    Raises:
        ModelError: The encoder cannot be built, or its patches do not fill the image.
    """

    encoder: Any

    def __init__(self, spec: MaskedSpec) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = timm_encoder(spec.encoder, spec.image_px, 0.0)
        check_plain(self.encoder, spec.encoder)
        D = int(self.encoder.embed_dim)
        embedding = self.encoder.patch_embed
        self.patches = int(embedding.num_patches)
        """Of each image."""
        self.patch_px = int(embedding.proj.kernel_size[0])
        if self.patches * self.patch_px**2 != spec.image_px**2:
            raise ModelError(
                f"Patches of {self.patch_px} px do not fill images of {spec.image_px} px. Give a "
                "--px that is a multiple, or another --encoder."
            )
        self.em_patches = nn.Conv2d(
            len(EmChannel), D, embedding.proj.kernel_size, embedding.proj.stride
        )
        self.view_embedding = nn.Parameter(torch.zeros(N_VIEWS, D))
        W = spec.decoder_width
        self.to_decoder = nn.Linear(D, W)
        self.hidden_token = nn.Parameter(torch.zeros(W))
        self.decoder_place = nn.Parameter(torch.zeros(1 + self.patches, W))
        self.decoder_view = nn.Parameter(torch.zeros(N_VIEWS, W))
        for parameter in (
            self.view_embedding, self.hidden_token, self.decoder_place, self.decoder_view
        ):  # fmt: skip
            nn.init.trunc_normal_(parameter, std=0.02)
        self.decoder = nn.ModuleList(
            nn.TransformerEncoderLayer(
                W, _DECODER_HEADS, 2 * W, 0.0, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(spec.decoder_blocks)
        )
        self.decoder_norm = nn.LayerNorm(W)
        X = self.patch_px**2
        self.geometry_pixels = nn.Linear(W, len(GeometryChannel) * X)
        self.em_pixels = nn.Linear(W, len(EmChannel) * X)

    def encode(
        self,
        geometry_BCHW: Tensor,
        geometry_view_B: Tensor,
        em_BCHW: Tensor,
        em_view_B: Tensor,
        shown: Shown,
    ) -> Tensor:
        """Tokens of what is shown, ``(B, 2 + 2K, D)``: class token and patches of each image.

        Args:
            geometry_BCHW: One geometry image of each site, ``(B, 7, px, px)``.
            geometry_view_B: Which of `VIEW_NAMES` each is.
            em_BCHW: One EM image of each, scaled, ``(B, 3, px, px)``.
            em_view_B: Which of `VIEW_NAMES` each is.
            shown: Which patches are read.
        """
        place = self.encoder.pos_embed
        first = self.encoder.cls_token + place[:, :1]
        both = (
            (self.encoder.patch_embed(geometry_BCHW), geometry_view_B, shown.geometry),
            (self.em_patches(em_BCHW).flatten(2).transpose(1, 2), em_view_B, shown.em),
        )
        tokens = []
        for patches, view, at in both:
            x = torch.cat(
                [first.expand(len(patches), -1, -1), _picked(patches + place[:, 1:], at)], 1
            )
            tokens.append(x + self.view_embedding[view][:, None])
        out: Tensor = self.encoder.norm(self.encoder.blocks(torch.cat(tokens, 1)))
        return out

    def forward(
        self,
        geometry_BCHW: Tensor,
        geometry_view_B: Tensor,
        em_BCHW: Tensor,
        em_view_B: Tensor,
        shown: Shown,
    ) -> tuple[Tensor, Tensor]:
        """What the hidden patches hold, ``(B, M, 7, X)`` and ``(B, M, 3, X)``, see `targets`."""
        read = self.to_decoder(
            self.encode(geometry_BCHW, geometry_view_B, em_BCHW, em_view_B, shown)
        )
        half = read.shape[1] // 2
        x = torch.cat(
            [
                self._placed(read[:, :half], geometry_view_B, shown.geometry),
                self._placed(read[:, half:], em_view_B, shown.em),
            ],
            1,
        )
        for block in self.decoder:
            x = block(x)
        x = self.decoder_norm(x)
        each = 1 + self.patches
        geometry = self.geometry_pixels(_picked(x[:, 1:each], shown.geometry_hidden))
        em = self.em_pixels(_picked(x[:, each + 1 :], shown.em_hidden))
        return (
            geometry.unflatten(2, (len(GeometryChannel), -1)),
            em.unflatten(2, (len(EmChannel), -1)),
        )

    def _placed(self, read_BTW: Tensor, view_B: Tensor, shown_BK: Tensor) -> Tensor:
        """All places of an image, those that are hidden with the same token."""
        B, _, W = read_BTW.shape
        patches = self.hidden_token.to(read_BTW.dtype).expand(B, self.patches, W)
        patches = patches.scatter(1, shown_BK[:, :, None].expand(-1, -1, W), read_BTW[:, 1:])
        x = torch.cat([read_BTW[:, :1], patches], 1)
        return x + self.decoder_place + self.decoder_view[view_B][:, None]


def targets(geometry_BCHW: Tensor, em_BCHW: Tensor, patch_px: int) -> tuple[Tensor, ...]:
    """What is to be said of every patch, each channel of a variance of about 1, and its weight.

    Grey and depth are normalised in each patch, depth over the pixels that have a surface. Normals
    are unit vectors already: they stay as they are, times the root of 3. Silhouettes and masks
    become -1 and 1. Depth and normals count where there is a surface only.

    Returns:
        Values and weights of geometry, ``(B, P, 7, X)``, then of EM, ``(B, P, 3, X)``.
    """
    geometry, em = _patches(geometry_BCHW, patch_px), _patches(em_BCHW, patch_px)
    surface = (geometry[:, :, GeometryChannel.SILHOUETTE] > 0.5).to(geometry.dtype)
    weight = torch.ones_like(geometry)
    weight[:, :, _SURFACE] = surface[:, :, None]
    value = 2 * geometry - 1
    value[:, :, GeometryChannel.DEPTH] = _normalised(
        geometry[:, :, GeometryChannel.DEPTH], surface, _LEAST_DEPTH_VARIANCE
    )
    value[:, :, _NORMALS] = geometry[:, :, _NORMALS] * 3**0.5
    em_value = 2 * em - 1
    grey = em[:, :, EmChannel.EM]
    em_value[:, :, EmChannel.EM] = _normalised(grey, torch.ones_like(grey), _LEAST_GREY_VARIANCE)
    return value, weight, em_value, torch.ones_like(em)


def channel_losses(said: Tensor, value_BMCX: Tensor, weight_BMCX: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of weighted squared errors and of weights of each site and channel, both (B, C)."""
    error = weight_BMCX * (said.float() - value_BMCX) ** 2
    return error.sum((1, 3)), weight_BMCX.sum((1, 3))


def shown_means(value_BPCX: Tensor, weight_BPCX: Tensor, shown_BK: Tensor) -> Tensor:
    """The cheap guess: the mean of each channel over the patches that are shown, (B, 1, C, 1)."""
    value, weight = (
        x.gather(1, shown_BK[:, :, None, None].expand(-1, -1, *x.shape[2:]))
        for x in (value_BPCX, weight_BPCX)
    )
    total = (weight * value).sum((1, 3), keepdim=True)
    return total / weight.sum((1, 3), keepdim=True).clamp(min=1)


def hidden_part(value_BPCX: Tensor, hidden_BM: Tensor) -> Tensor:
    """Targets of the hidden patches, ``(B, M, C, X)``."""
    return value_BPCX.gather(1, hidden_BM[:, :, None, None].expand(-1, -1, *value_BPCX.shape[2:]))


def _picked(x_BPW: Tensor, at_BK: Tensor) -> Tensor:
    return x_BPW.gather(1, at_BK[:, :, None].expand(-1, -1, x_BPW.shape[2]))


def _patches(image_BCHW: Tensor, px: int) -> Tensor:
    B, C, H, W = image_BCHW.shape
    x = image_BCHW.reshape(B, C, H // px, px, W // px, px)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(B, (H // px) * (W // px), C, px * px)


def _normalised(value_BPX: Tensor, weight_BPX: Tensor, least: float) -> Tensor:
    n = weight_BPX.sum(2, keepdim=True).clamp(min=1)
    mean = (weight_BPX * value_BPX).sum(2, keepdim=True) / n
    variance = (weight_BPX * (value_BPX - mean) ** 2).sum(2, keepdim=True) / n
    return (value_BPX - mean) / (variance + least).sqrt()
