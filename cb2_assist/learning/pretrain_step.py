"""What one step of masked modelling sees, and its loss.

Each site shows one geometry and one EM image, drawn anew at each step. They are pictures of one
scene, mirrored as a whole along axes of the world that the geometry image does not look along, so
that what one image says of the other stays true. The grey level of EM is moved, too. A draw
belongs to one site of one step: a seed gives the same ones however often a run was interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cb2_assist.core.channels import EmView, GeometryView
from cb2_assist.learning.augment import EmDraw, GeometryDraw, Move, em_image, geometry_image
from cb2_assist.learning.pretrain_sites import Sites
from cb2_assist.model.inputs import scale_em
from cb2_assist.model.masked import (
    MaskedViews,
    Shown,
    channel_losses,
    hidden_part,
    shown_means,
    targets,
)
from cb2_assist.model.network import N_GEOMETRY
from cb2_assist.views.hitmap import CAMERAS

_EM_AXES = {EmView.XY: (0, 1), EmView.XZ: (0, 2), EmView.YZ: (1, 2)}
"""World axes of rows and columns (0 = x)."""


@dataclass(frozen=True, slots=True)
class SiteDraw:
    """How one site looks in one step; places of its patches, the first ones of which are shown."""

    swap: bool
    geometry: GeometryDraw
    em: EmDraw
    geometry_order: NDArray[np.int64]
    em_order: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Batch:
    """Some sites of a step; images are float32, (sites, channels, px, px)."""

    geometry: Tensor
    geometry_view: Tensor
    em: Tensor
    em_view: Tensor
    shown: Shown


@dataclass(frozen=True, slots=True)
class Sums:
    """Weighted squared errors and weights, (sites, `masked.CHANNEL_NAMES`)."""

    error: Tensor
    weight: Tensor

    @property
    def by_channel(self) -> Tensor:
        """Mean squared error of each channel."""
        return self.error.sum(0) / self.weight.sum(0).clamp(min=1)

    def take(self, rows: Tensor) -> Sums:
        """Some of the sites, by position; one may come several times."""
        return Sums(self.error[rows], self.weight[rows])

    def loss(self, geometry_channels: int) -> Tensor:
        """Mean over channels of each kind of image, then of both kinds."""
        each = self.by_channel
        return 0.5 * (each[:geometry_channels].mean() + each[geometry_channels:].mean())


def draw_site(patches: int, rng: np.random.Generator, *, moved: bool = True) -> SiteDraw:
    """Draw one site's looks.

    Args:
        patches: Of an image.
        rng: Its state decides.
        moved: Mirror the scene, swap the segments and move the grey level.
    """
    view = GeometryView(int(rng.integers(len(GeometryView))))
    plane = EmView(int(rng.integers(len(EmView))))
    mirror = rng.random(3) < 0.5
    swap, gain, offset = bool(rng.random() < 0.5), rng.uniform(0.75, 1.3), rng.uniform(-0.35, 0.35)
    if not moved:
        mirror[:], swap, gain, offset = False, False, 1.0, 0.0
    camera = CAMERAS[view]
    mirror[camera.depth_axis] = False
    rows, columns = _EM_AXES[plane]
    return SiteDraw(
        swap,
        GeometryDraw(
            view, Move(False, bool(mirror[camera.right_axis]), bool(mirror[camera.up_axis])), False
        ),
        EmDraw(plane, Move(False, bool(mirror[columns]), bool(mirror[rows])), gain, offset, 0.0, 0),
        rng.permutation(patches),
        rng.permutation(patches),
    )


def make_batch(
    sites: Sequence[tuple[Sites, int]],
    draws: Sequence[SiteDraw],
    shown: int,
    device: torch.device,
) -> Batch:
    """Some sites, looking as drawn.

    Args:
        sites: Each with its row.
        draws: One a site.
        shown: Patches of each image that the encoder reads.
        device: Of the tensors.
    """
    geometry, em = [], []
    for (of, row), how in zip(sites, draws, strict=True):
        geometry.append(geometry_image(of.geometry[row], how.geometry, how.swap))
        em.append(em_image(scale_em(of.em[row]), how.em, how.swap))
    first, second = (
        torch.from_numpy(np.stack(orders))
        for orders in ([d.geometry_order for d in draws], [d.em_order for d in draws])
    )
    return Batch(
        torch.from_numpy(np.stack(geometry)).to(device),
        torch.tensor([int(d.geometry.view) for d in draws], device=device),
        torch.from_numpy(np.stack(em)).to(device),
        torch.tensor([N_GEOMETRY + int(d.em.view) for d in draws], device=device),
        Shown(
            *(
                x.contiguous().to(device)
                for o in (first, second)
                for x in (o[:, :shown], o[:, shown:])
            )
        ),
    )


def step_sums(net: MaskedViews, batch: Batch) -> Sums:
    """Errors of the hidden patches."""
    said = net(batch.geometry, batch.geometry_view, batch.em, batch.em_view, batch.shown)
    return _sums(net, batch, said)


def cheap_sums(net: MaskedViews, batch: Batch) -> Sums:
    """Errors of the mean of the patches that are shown, by image and channel."""
    value, weight, em_value, em_weight = targets(batch.geometry, batch.em, net.patch_px)
    said = (
        shown_means(value, weight, batch.shown.geometry),
        shown_means(em_value, em_weight, batch.shown.em),
    )
    return _sums(net, batch, said)


def _sums(net: MaskedViews, batch: Batch, said: tuple[Tensor, Tensor]) -> Sums:
    value, weight, em_value, em_weight = targets(batch.geometry, batch.em, net.patch_px)
    found = [
        channel_losses(guess, hidden_part(v, hidden), hidden_part(w, hidden))
        for guess, v, w, hidden in (
            (said[0], value, weight, batch.shown.geometry_hidden),
            (said[1], em_value, em_weight, batch.shown.em_hidden),
        )
    ]
    return Sums(torch.cat([e for e, _ in found], 1), torch.cat([w for _, w in found], 1))
