"""Fits the first stage of the neighbour graph, and gives training rows honest verdicts.

The second stage learns how far the first can be trusted. Verdicts on rows that the first stage was
fitted to are too sure, so each training row is judged by a first stage that has not seen its slab
of the volume (stacking, Wolpert 1992, Neural Networks 5:241). The one that is kept is fitted to all
of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import binary_cross_entropy_with_logits

from cb2_assist.learning.prepare import Part
from cb2_assist.model.graph import Judge, NeighbourGraph, graph_values

FOLDS = 5
GUARD_VX = 8
"""Rows this near a held-out slab, along z, are not learnt from either: contacts reach across."""
_NOISE = 0.05
_JOIN = 0


@dataclass(frozen=True, slots=True)
class Fit:
    """How long a judge learns.

    Attributes:
        epochs: Passes over the rows.
        batch: Rows of a step.
        lr: Of AdamW, falling linearly to 0.
        weight_decay: Of AdamW.
        most: Rows; more are drawn from.
    """

    epochs: int
    batch: int
    lr: float = 1e-3
    weight_decay: float = 0.1
    most: int = 120_000


PAIRS = Fit(epochs=25, batch=64)
CONTACTS = Fit(epochs=6, batch=256)


@dataclass(frozen=True, slots=True)
class Sides:
    """What the first stage learns from, one row a decision.

    Attributes:
        features: float32, (n, F).
        one: Whether the two sides are one body, (n,).
        neighbours: float32, (n, K, S, M).
        contacts: int8, (n, K, S); see `prepare.Part`.
        z: Voxel index by which slabs are held out, (n,).
    """

    features: NDArray[np.float32]
    one: NDArray[np.bool_]
    neighbours: NDArray[np.float32]
    contacts: NDArray[np.int8]
    z: NDArray[np.int64]

    @classmethod
    def of(cls, parts: Sequence[Part]) -> Sides:
        """Rows of several parts. A join's sides are one if it is right, a cut's if it is wrong."""
        return cls(
            np.concatenate([p.features for p in parts]),
            np.concatenate([p.answer == (p.task == _JOIN) for p in parts]),
            np.concatenate([p.neighbours for p in parts]),
            np.concatenate([p.contacts for p in parts]),
            np.concatenate([p.z for p in parts]),
        )

    def take(self, rows: NDArray[np.bool_]) -> Sides:
        """Some of the rows."""
        return Sides(*(getattr(self, k)[rows] for k in self.__slots__))


def fit_first_stage(
    graph: NeighbourGraph, data: Sides, *, seed: int, say: Callable[[str], None]
) -> NDArray[np.float32]:
    """Fit the graph's two judges and its scales, on the CPU.

    Args:
        graph: Changed in place; its token is not.
        data: Training rows.
        seed: Of weights, order and noise.
        say: Told about progress.

    Returns:
        float32, (n, `model.graph.GRAPH_NAMES`): each row judged without its own slab.
    """
    values = np.zeros((len(data.z), graph.value_mean.shape[0]), np.float32)
    edges = np.quantile(data.z, np.linspace(0, 1, FOLDS + 1))
    edges[0], edges[-1] = -np.inf, np.inf
    for k in range(FOLDS):
        held = (data.z > edges[k]) & (data.z <= edges[k + 1])
        near = (data.z > edges[k] - GUARD_VX) & (data.z <= edges[k + 1] + GUARD_VX)
        if not held.any():
            continue
        judges = _fit_judges(graph, data.take(~near), seed)
        values[held] = judged(judges, data.take(held))
        say(f"first stage, slab {k + 1} of {FOLDS}: {int(held.sum())} rows judged from outside")
    pair, contact = _fit_judges(graph, data, seed)
    graph.pair.load_state_dict(pair.state_dict())
    graph.contact.load_state_dict(contact.state_dict())
    graph.value_mean.copy_(torch.from_numpy(values.mean(0)))
    graph.value_std.copy_(torch.from_numpy(np.maximum(values.std(0), 1e-3)))
    return values


def judged(judges: tuple[Judge, Judge], data: Sides, batch: int = 2048) -> NDArray[np.float32]:
    """Graph values of rows by a pair judge and a contact judge."""
    pair, contact = judges
    out: list[NDArray[np.float32]] = []
    with torch.inference_mode():
        for start in range(0, len(data.z), batch):
            s = slice(start, start + batch)
            around = torch.from_numpy(data.neighbours[s])
            own = pair.eval()(torch.from_numpy(data.features[s]))
            each = torch.sigmoid(contact.eval()(around))
            out.append(graph_values(own, each, around[..., 0] > 0).numpy())
    return np.concatenate(out)


def _fit_judges(graph: NeighbourGraph, data: Sides, seed: int) -> tuple[Judge, Judge]:
    known = data.contacts >= 0
    pair = _fit(graph.pair, data.features, data.one, PAIRS, seed)
    contact = _fit(graph.contact, data.neighbours[known], data.contacts[known] > 0, CONTACTS, seed)
    return pair, contact


def _fit(like: Judge, x: NDArray[np.float32], y: NDArray[np.bool_], how: Fit, seed: int) -> Judge:
    """A new judge of the same shape, fitted; each answer has half of the weight."""
    rng = np.random.default_rng((seed, 2))
    if len(y) > how.most:
        rows = rng.permutation(len(y))[: how.most]
        x, y = x[rows], y[rows]
    torch.manual_seed(seed)
    judge = Judge(like.measures, like.hidden, like.dropout)
    if not len(y):
        return judge
    std = x.std(0)
    judge.mean.copy_(torch.from_numpy(x.mean(0)))
    judge.std.copy_(torch.from_numpy(np.where(std < 1e-6, 1, std).astype(np.float32)))
    share = np.clip(y.mean(), 0.5 / len(y), 1 - 0.5 / len(y))
    weight = torch.from_numpy(np.where(y, 0.5 / share, 0.5 / (1 - share)).astype(np.float32))
    inputs, target = torch.from_numpy(x), torch.from_numpy(y.astype(np.float32))
    optimizer = torch.optim.AdamW(judge.parameters(), how.lr, weight_decay=how.weight_decay)
    judge.train()
    steps = -(-len(y) // how.batch)
    for epoch in range(how.epochs):
        order = torch.from_numpy(rng.permutation(len(y)))
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = how.lr * (1 - (epoch * steps + step) / (how.epochs * steps))
            rows_ = order[step * how.batch : (step + 1) * how.batch]
            noisy = inputs[rows_] + _NOISE * judge.std * torch.randn_like(inputs[rows_])
            loss = binary_cross_entropy_with_logits(
                judge(noisy), target[rows_], weight=weight[rows_]
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return judge.eval()
