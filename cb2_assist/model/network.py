"""MultiTaskViT: one encoder for geometry and EM views, one decision from all views of a site.

Shape suffixes: B = decisions, V = views, N = B * V images, C = channels, P = patches, D = width,
F = features, K = third segments, S = sides, M = contact measures, H/W = pixels.

Two patch embeddings (7-channel geometry, 3-channel EM) share one timm encoder, as in
ConnectomeBench2 (arXiv 2606.21116). Beyond it: each view knows which one it is, and the views, a
token made of the contact features and one made of the neighbour graph (`model.graph`) are combined
by attention before the heads answer, so that the network gives one number per decision. Any subset
of the tokens is a valid input: training drops them at random, and the page asks each view alone for
its own opinion.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from cb2_assist.core.channels import VIEW_NAMES, EmChannel, GeometryChannel, GeometryView
from cb2_assist.core.errors import ModelError
from cb2_assist.core.records import Kind
from cb2_assist.model.graph import NeighbourGraph
from cb2_assist.views.surroundings import MEASURED_NAMES, resized

TASKS: tuple[str, ...] = (Kind.JOIN.value, Kind.CUT.value, "synapse")
"""Order of the decision heads."""
N_GEOMETRY = len(GeometryView)
N_VIEWS = len(VIEW_NAMES)
FEATURE_TOKEN = N_VIEWS
GRAPH_TOKEN = N_VIEWS + 1
N_TOKENS = N_VIEWS + 2
"""Views, then the feature token, then the graph token."""
TOKEN_NAMES: tuple[str, ...] = (*VIEW_NAMES, "features", "neighbours")


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """What builds the network; part of the model card."""

    encoder: str = "vit_tiny_patch16_224"
    """A timm vision transformer."""
    image_px: int = 112
    """Views are read at this size."""
    features: int = len(MEASURED_NAMES)
    """Of `MEASURED_NAMES`, the first ones."""
    contact_measures: int = 0
    """Numbers for each contact of the neighbour graph; 0 is a network without a graph token."""
    feature_hidden: int = 192
    dropout: float = 0.1
    stochastic_depth: float = 0.1

    def to_json(self) -> dict[str, Any]:
        """For the card."""
        return asdict(self)


def import_timm() -> ModuleType:
    """Import timm, also beside a torch build that PyPI's torchvision does not fit.

    timm imports torchvision, whose import declares kernels for two compiled operators. With a
    CPU-only torch the compiled part cannot be loaded and the declaration fails. Neither operator
    is used here, so declaring their names is enough.
    """
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            # torch.library carries no types
            library: Any = torch.library.Library(  # type: ignore[no-untyped-call]
                "torchvision", "FRAGMENT"
            )
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            _KEEP.append(library)  # the declaration lives as long as the object
    import timm

    return timm


_KEEP: list[torch.library.Library] = []


def timm_encoder(name: str, image_px: int, stochastic_depth: float) -> nn.Module:
    """A vision transformer of timm that reads geometry views, with random weights.

    Raises:
        ModelError: timm has no such network, or not at this size.
    """
    try:
        encoder: nn.Module = import_timm().create_model(
            name,
            pretrained=False,
            img_size=image_px,
            in_chans=len(GeometryChannel),
            num_classes=0,
            drop_path_rate=stochastic_depth,
            dynamic_img_size=False,  # some default to patches that stay an image
        )
    except (RuntimeError, ValueError, TypeError) as e:
        raise ModelError(
            f"timm cannot build {name!r} at {image_px} px: {e}. "
            "The card's encoder must be a timm vision transformer."
        ) from e
    return encoder


def check_plain(encoder: nn.Module, name: str) -> None:
    """Refuse encoders that the network would misread.

    Raises:
        ModelError: It is no plain vision transformer with one class token that has a position.
    """
    place, token = getattr(encoder, "pos_embed", None), getattr(encoder, "cls_token", None)
    plain = isinstance(getattr(encoder, "blocks", None), nn.Sequential)
    patches = getattr(getattr(encoder, "patch_embed", None), "num_patches", None)
    if token is None or place is None or patches is None or not plain or place.ndim != 3:
        fits = False
    else:
        fits = tuple(place.shape[:2]) == (1, patches + 1)
    if not fits:
        raise ModelError(
            f"{name} is no plain vision transformer with one class token and learnt "
            "positions, which is what the network is built on. Take e.g. vit_small_patch16_224 or "
            "vit_base_patch16_224."
        )


class MultiTaskViT(nn.Module):
    """The network. Inputs are what `model.inputs` makes of a view stack."""

    encoder: Any
    feature_mean: Tensor
    feature_std: Tensor

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = timm_encoder(spec.encoder, spec.image_px, spec.stochastic_depth)
        D = int(self.encoder.embed_dim)
        geometry = self.encoder.patch_embed.proj
        self.em_patches = nn.Conv2d(len(EmChannel), D, geometry.kernel_size, geometry.stride)
        self.view_embedding = nn.Parameter(torch.zeros(N_VIEWS, D))
        nn.init.trunc_normal_(self.view_embedding, std=0.02)
        H = spec.feature_hidden
        self.feature_token = nn.Sequential(
            nn.Linear(spec.features, H),
            nn.GELU(),
            nn.Dropout(3 * spec.dropout),
            nn.Linear(H, H),
            nn.GELU(),
            nn.Dropout(3 * spec.dropout),
            nn.Linear(H, D),
        )
        self.register_buffer("feature_mean", torch.zeros(spec.features))
        self.register_buffer("feature_std", torch.ones(spec.features))
        self.graph = (
            NeighbourGraph(spec.features, spec.contact_measures, D)
            if spec.contact_measures
            else None
        )
        self.task_query = nn.Parameter(torch.zeros(len(TASKS), D))
        nn.init.trunc_normal_(self.task_query, std=0.02)
        self.token_norm = nn.LayerNorm(D)
        # three heads as in ViT-Tiny; ViT-L's width has no third
        self.fusion = nn.MultiheadAttention(D, 3 if D % 3 == 0 else 4, batch_first=True)
        self.fusion_mlp = nn.Sequential(
            nn.LayerNorm(D), nn.Linear(D, 2 * D), nn.GELU(), nn.Linear(2 * D, D)
        )
        self.decision_norm = nn.LayerNorm(D)
        self.heads = nn.ModuleDict({t: nn.Linear(D, 1) for t in TASKS})
        self.mask = nn.Sequential(
            nn.ConvTranspose2d(D, 96, 2, 2),
            nn.GELU(),
            nn.ConvTranspose2d(96, 48, 2, 2),
            nn.GELU(),
            nn.ConvTranspose2d(48, 24, 2, 2),
            nn.GELU(),
            nn.ConvTranspose2d(24, 2, 2, 2),
        )

    def encode_views(
        self,
        geometry_NCHW: Tensor,
        geometry_view_N: Tensor,
        em_NCHW: Tensor,
        em_view_N: Tensor,
        *,
        keep: float = 1.0,
    ) -> tuple[Tensor, Tensor]:
        """Run the encoder over any mixture of views.

        Args:
            geometry_NCHW: Geometry images, ``(N1, 7, px, px)``; N1 may be 0.
            geometry_view_N: Which of `VIEW_NAMES` each is.
            em_NCHW: EM images, ``(N2, 3, px, px)``; N2 may be 0.
            em_view_N: Which of `VIEW_NAMES` each is.
            keep: Share of the patches that is kept, drawn at random for each image (training).

        Returns:
            Class tokens ``(N1 + N2, D)``, geometry first, and the geometry images' patch tokens
            ``(N1, P, D)`` for the mask head.
        """
        patches = []
        if len(geometry_NCHW):
            patches.append(self.encoder.patch_embed(geometry_NCHW))
        if len(em_NCHW):
            patches.append(self.em_patches(em_NCHW).flatten(2).transpose(1, 2))
        cls, place = self.encoder.cls_token, self.encoder.pos_embed
        x = torch.cat(patches) + place[:, 1:]
        if keep < 1.0:
            N, P, D = x.shape
            chosen = torch.rand(N, P, device=x.device).argsort(1)[:, : max(1, round(keep * P))]
            x = x.gather(1, chosen[:, :, None].expand(-1, -1, D))
        x = torch.cat([(cls + place[:, :1]).expand(x.shape[0], -1, -1), x], 1)
        x = x + self.view_embedding[torch.cat([geometry_view_N, em_view_N])][:, None]
        x = self.encoder.norm(self.encoder.blocks(x))
        return x[:, 0], x[: len(geometry_NCHW), 1:]

    def feature_tokens(self, features_BF: Tensor) -> Tensor:
        """The contact features as one token each, ``(B, D)``."""
        features_BF = self.measured(features_BF)
        z = (features_BF - self.feature_mean) / self.feature_std
        token: Tensor = self.feature_token(z.clamp(-4, 4))
        return token

    def scaled_features(self, features_BF: NDArray[np.float32]) -> NDArray[np.float32]:
        """What is measured, in deviations from its training mean, ``(B, F)``."""
        mean, std = (x.cpu().numpy() for x in (self.feature_mean, self.feature_std))
        out: NDArray[np.float32] = (resized(features_BF, self.spec.features) - mean) / std
        return out

    def graph_tokens(self, features_BF: Tensor, neighbours_BKSM: Tensor) -> Tensor:
        """The neighbour graph as one token each, ``(B, D)``.

        Raises:
            ModelError: The network has none.
        """
        if self.graph is None:
            raise ModelError(
                "This network has no graph token. Train one with contact measures, or leave the "
                "neighbours out."
            )
        return self.graph.tokens(self.graph.values(self.measured(features_BF), neighbours_BKSM))

    def measured(self, features_BF: Tensor) -> Tensor:
        """As many features as the network reads; what was not measured is 0.

        Views that were kept for another network may hold more, or fewer.
        """
        return functional.pad(features_BF, (0, self.spec.features - features_BF.shape[1]))

    def decide(
        self, tokens_BTD: Tensor, absent_BT: Tensor, task_B: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Combine a decision's tokens and answer its task.

        Args:
            tokens_BTD: In the order of `TOKEN_NAMES`; T = `N_TOKENS`.
            absent_BT: True where a token is missing. At least one must be there.
            task_B: Index into `TASKS`.

        Returns:
            Log-odds ``(B,)`` and the decision embedding ``(B, D)``.
        """
        tokens = self.token_norm(tokens_BTD)
        query = self.task_query[task_B][:, None]
        pooled, _ = self.fusion(
            query, tokens, tokens, key_padding_mask=absent_BT, need_weights=False
        )
        x = pooled[:, 0]
        embedding = self.decision_norm(x + self.fusion_mlp(x))
        every = torch.cat([self.heads[t](embedding) for t in TASKS], 1)
        return every.gather(1, task_B[:, None])[:, 0], embedding

    def masks(self, patches_NPD: Tensor) -> Tensor:
        """Log-odds of the two sides, ``(N, 2, px, px)``, from geometry views' patch tokens."""
        N, P, D = patches_NPD.shape
        side = round(P**0.5)
        out: Tensor = self.mask(patches_NPD.transpose(1, 2).reshape(N, D, side, side))
        return out
