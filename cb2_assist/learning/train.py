"""What one training step of MultiTaskViT sees, and what it is told: batches and losses.

Each step answers every decision three times, from all its tokens, from the images alone and from
what is measured alone, so that no half leans on the other: image statistics do not carry over
between datasets as well as the features do, and features miss what only a picture shows. Features
and neighbour graph are left out now and then for the same reason. Half of the patches are left out
at random, which also halves the cost on a CPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from cb2_assist.core.channels import GeometryChannel
from cb2_assist.learning.augment import Draw, draw, em_image, geometry_image, hide_sides
from cb2_assist.learning.pair_types import quota_weights
from cb2_assist.learning.prepare import Part
from cb2_assist.learning.recipe import Recipe
from cb2_assist.model.inputs import scale_em
from cb2_assist.model.network import N_GEOMETRY, N_TOKENS, N_VIEWS, MultiTaskViT


@dataclass(slots=True)
class Rows:
    """One step's decisions as arrays."""

    features: NDArray[np.float32]
    graph: NDArray[np.float32]
    task: NDArray[np.int64]
    target: NDArray[np.float32]
    weight: NDArray[np.float32]
    geometry: NDArray[np.float32]
    geometry_of: NDArray[np.int64]
    geometry_view: NDArray[np.int64]
    sides: NDArray[np.float32]
    hidden: NDArray[np.bool_]
    em: NDArray[np.float32]
    em_of: NDArray[np.int64]
    em_view: NDArray[np.int64]
    per: Per


@dataclass(frozen=True, slots=True)
class Per:
    """What sums of losses are divided by: a step's numbers over all processes, by process.

    With them the mean over processes of what each one gets, and the sum over the passes of a step,
    are the loss of the whole batch at once.
    """

    decisions: float
    imaged: float
    hidden: float


class Examples:
    """Several parts as one list of decisions, balanced by task and answer through weights.

    Every decision occurs once an epoch; what is rare weighs more instead of being drawn more often.

    Args:
        parts: Prepared decisions.
        quotas: Least share of a sample type in the weight of its task's negatives.
        rows: Which decisions of each part, bool; None: all.

    Raises:
        UsageError: A quota names an unknown type.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        quotas: Mapping[str, float] | None = None,
        rows: Sequence[NDArray[np.bool_]] | None = None,
    ) -> None:
        self.parts = list(parts)
        if rows is None:
            rows = [np.ones(len(p), bool) for p in self.parts]
        self.kept = np.concatenate(rows)
        """Which decisions of all parts, one after the other, are in the list."""
        self.index = np.array(
            [(k, i) for k, p in enumerate(self.parts) for i in range(len(p))], np.int64
        )[self.kept]
        self.features = np.concatenate([p.features for p in self.parts])[self.kept]
        self.task = np.concatenate([p.task for p in self.parts])[self.kept]
        self.answer = np.concatenate([p.answer for p in self.parts])[self.kept]
        self.group = np.concatenate([p.group for p in self.parts])[self.kept]
        self.z = np.concatenate([p.z for p in self.parts])[self.kept]
        self.target = self.answer.astype(np.float32)
        """What is learnt, 0..1: the answer, moved by `Trainer.fit_teacher`."""
        self.graph = np.zeros((len(self.task), 0), np.float32)
        """Graph values, (n, `model.graph.GRAPH_NAMES`), once `Trainer.fit_graph` has made them; no
        column for networks without a graph."""
        self.sample_type = np.concatenate([p.sample_type for p in self.parts])[self.kept]
        self.weight = np.ones(len(self.task), np.float32)
        for task in np.unique(self.task):
            of = self.task == task
            for answer in (False, True):
                m = of & (self.answer == answer)
                if m.any():
                    # each answer has half of its task's weight: the model's prior is 50:50
                    self.weight[m] = 0.5 * of.sum() / m.sum()
                if m.any() and not answer:
                    self.weight[m] *= quota_weights(self.sample_type[m], quotas or {})

    def __len__(self) -> int:
        return len(self.task)

    def views(self, row: int) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
        """Geometry and EM of one decision."""
        k, i = self.index[row]
        return self.parts[k].geometry[i], self.parts[k].em[i]


def step_draws(n: int, step: int, recipe: Recipe) -> list[Draw]:
    """How each of a step's decisions looks; a function of seed, step and place in the batch."""
    return [
        draw(recipe, np.random.default_rng((recipe.seed, 1, step, place))) for place in range(n)
    ]


def per_of(draws: Sequence[Draw], processes: int) -> Per:
    """The numbers of a whole batch, by process."""
    return Per(
        len(draws) / processes,
        sum(bool(d.geometry) for d in draws) / processes,
        sum(g.hide for d in draws for g in d.geometry) / processes,
    )


def step_rows(data: Examples, rows: NDArray[np.int64], draws: Sequence[Draw], per: Per) -> Rows:
    """Some decisions of a step as arrays, looking as drawn."""
    geometry, g_of, g_view, sides, hidden, em, e_of, e_view = ([] for _ in range(8))
    for b, (row, how) in enumerate(zip(rows, draws, strict=True)):
        if not how.geometry:
            continue
        g, e = data.views(int(row))
        for one in how.geometry:
            image = geometry_image(g, one, how.swap)
            sides.append(image[[GeometryChannel.MASK_A, GeometryChannel.MASK_B]])
            geometry.append(hide_sides(image) if one.hide else image)
            hidden.append(one.hide)
            g_of.append(b)
            g_view.append(one.view)
        planes = scale_em(e)
        for plane in how.em:
            em.append(em_image(planes, plane, how.swap))
            e_of.append(b)
            e_view.append(plane.view + N_GEOMETRY)
    px = data.parts[0].em.shape[-1]
    return Rows(
        features=data.features[rows],
        graph=data.graph[rows],
        task=data.task[rows],
        target=data.target[rows],
        weight=data.weight[rows],
        geometry=np.stack(geometry) if geometry else np.zeros((0, 7, px, px), np.float32),
        geometry_of=np.array(g_of, np.int64),
        geometry_view=np.array(g_view, np.int64),
        sides=np.stack(sides) if sides else np.zeros((0, 2, px, px), np.float32),
        hidden=np.array(hidden, bool),
        em=np.stack(em) if em else np.zeros((0, 3, px, px), np.float32),
        em_of=np.array(e_of, np.int64),
        em_view=np.array(e_view, np.int64),
        per=per,
    )


def step_loss(
    net: MultiTaskViT, rows: Rows, recipe: Recipe, device: torch.device
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of some decisions of a step, and its terms without gradients."""

    def to(x: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(x)).to(device)

    B = len(rows.task)
    task, target = to(rows.task), to(rows.target)
    target = target * (1 - recipe.smoothing) + 0.5 * recipe.smoothing
    weight = to(rows.weight)
    absent = torch.ones(B, N_TOKENS, dtype=torch.bool, device=device)
    features = to(rows.features)
    noise = torch.randn_like(features) * recipe.feature_noise * net.feature_std
    token = net.feature_tokens(features + noise)
    tokens = torch.zeros(B, N_TOKENS, token.shape[1], device=device)
    if len(rows.geometry) + len(rows.em):
        cls, _ = net.encode_views(
            to(rows.geometry),
            to(rows.geometry_view),
            to(rows.em),
            to(rows.em_view),
            keep=recipe.keep_patches,
        )
        of = to(np.concatenate([rows.geometry_of, rows.em_of]))
        view = to(np.concatenate([rows.geometry_view, rows.em_view]))
        tokens = tokens.index_put((of, view), cls.to(tokens.dtype))
        absent[of, view] = False
    imaged = ~absent[:, :N_VIEWS].all(1)
    graph = torch.zeros_like(token)
    if net.graph is not None:
        graph = net.graph.tokens(to(rows.graph))
    tokens = torch.cat([tokens[:, :N_VIEWS], token[:, None], graph[:, None]], 1)
    measured = torch.zeros(B, 2, dtype=torch.bool, device=device)
    measured[:, 1] = net.graph is None
    dropped = measured | (torch.rand(B, 2, device=device) < recipe.drop_features)
    # what is left must say something: no image, no features and no graph is no question
    dropped = torch.where(imaged[:, None] | ~dropped.all(1, keepdim=True), dropped, measured)
    alone = torch.ones_like(absent)
    alone[:, N_VIEWS:] = torch.where(dropped.all(1, keepdim=True), measured, dropped)
    both = absent.clone()
    both[:, N_VIEWS:] = dropped

    def answer(missing: Tensor, use: Tensor, per: float) -> Tensor:
        if not bool(use.any()):
            return tokens.sum() * 0
        logit, _ = net.decide(tokens[use], missing[use], task[use])
        each = F.binary_cross_entropy_with_logits(logit.float(), target[use], reduction="none")
        return (each * weight[use]).sum() / per

    everyone = torch.ones(B, dtype=torch.bool, device=device)
    losses = {
        "joint": answer(both, everyone, rows.per.decisions),
        "images": answer(absent, imaged, rows.per.imaged),
        "features": answer(alone, everyone, rows.per.decisions),
    }
    total = losses["joint"] + 0.5 * losses["images"] + 0.5 * losses["features"]
    if rows.hidden.any() and recipe.mask_weight:
        hidden = to(rows.hidden)
        _, kept = net.encode_views(
            to(rows.geometry[rows.hidden]),
            to(rows.geometry_view[rows.hidden]),
            to(rows.em[:0]),
            to(rows.em_view[:0]),
        )
        sides = to(rows.sides)[hidden]
        masks = net.masks(kept).float()
        if masks.shape[-1] != sides.shape[-1]:
            # the head doubles four times, which fits patches of 16 px
            masks = F.interpolate(masks, size=sides.shape[-2:], mode="bilinear")
        losses["mask"] = mask_loss(masks, sides) * len(sides) / rows.per.hidden
        total = total + recipe.mask_weight * losses["mask"]
    return total, {k: v.detach() for k, v in losses.items()}


def mask_loss(logits_NSHW: Tensor, sides_NSHW: Tensor) -> Tensor:
    """Half cross entropy, half soft Dice on the foreground, for the better assignment of sides.

    Which piece is called A is arbitrary, so both assignments are tried and the smaller loss of
    each image counts (ConnectomeBench2, arXiv 2606.21116). Pixels that both sides cover carry no
    answer.
    """
    only = (sides_NSHW.sum(1) == 1).float()
    n = only.sum((1, 2)).clamp(min=1)
    share = logits_NSHW.softmax(1)
    per_way = []
    for sides in (sides_NSHW, sides_NSHW.flip(1)):
        ce = -(logits_NSHW.log_softmax(1) * sides).sum(1)
        ce = (ce * only).sum((1, 2)) / n
        inter = (share * sides * only[:, None]).sum((2, 3))
        size = ((share + sides) * only[:, None]).sum((2, 3)) + 1e-6
        dice = (2 * inter / size).mean(1)
        per_way.append(0.5 * ce + 0.5 * (1 - dice))
    return torch.stack(per_way).min(0).values.mean()
