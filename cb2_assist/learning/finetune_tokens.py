"""Decisions as the frozen part of a network leaves them: what fine-tuning learns from.

The image encoder and the first stage of the neighbour graph stay as they are when a model is
fine-tuned, so what they say of a decision is computed once and kept. A step of learning then costs
milliseconds on a CPU, whatever the encoder is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray

from cb2_assist.learning.prepare import Part
from cb2_assist.learning.score_parts import part_seen
from cb2_assist.model.inputs import NetworkInput, scale_em
from cb2_assist.model.network import (
    FEATURE_TOKEN,
    GRAPH_TOKEN,
    N_GEOMETRY,
    N_TOKENS,
    N_VIEWS,
    MultiTaskViT,
)
from cb2_assist.model.ood.appearance import appearance
from cb2_assist.views.surroundings import SHAPE, resized

Rows = NDArray[np.intp]
_BATCH = 16


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """n decisions; every array has one entry a decision.

    Attributes:
        views: Class tokens of the views, float32, (n, `N_VIEWS`, D); zeros where one is absent.
        features: float32, (n, F).
        graph: Values of the neighbour graph, float32, (n, `model.graph.GRAPH_NAMES`); (n, 0) for
            networks without.
        there: Which tokens a decision has, (n, `N_TOKENS`); at least one.
        task: Index into the network's tasks, int64.
        answer: What is true, or what people said.
        seen: `model.ood.appearance`, float32, (n, A).
    """

    views: NDArray[np.float32]
    features: NDArray[np.float32]
    graph: NDArray[np.float32]
    there: NDArray[np.bool_]
    task: NDArray[np.int64]
    answer: NDArray[np.bool_]
    seen: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.task)

    def take(self, rows: Rows | NDArray[np.bool_]) -> Tokens:
        """Some of them."""
        return Tokens(*(getattr(self, f.name)[rows] for f in fields(self)))


def joined(parts: Sequence[Tokens]) -> Tokens:
    """Several as one."""
    return Tokens(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Tokens)))


def tokens_of_inputs(
    net: MultiTaskViT,
    inputs: Sequence[NetworkInput],
    present: NDArray[np.bool_],
    task: NDArray[np.int64],
    answer: NDArray[np.bool_],
) -> Tokens:
    """Run the frozen part of a network.

    Args:
        net: In eval mode.
        inputs: n decisions; what is absent may hold anything finite.
        present: Which tokens there are, (n, `N_TOKENS`), at least one of each.
        task: Index into the network's tasks, (n,).
        answer: (n,).
    """
    there = present.copy()
    there[:, GRAPH_TOKEN] &= net.graph is not None
    geometry = np.stack([x.geometry for x in inputs])
    em = np.stack([x.em for x in inputs])
    around = np.zeros((len(inputs), *SHAPE), np.float32)
    for row, x in zip(around, inputs, strict=True):
        if x.neighbours is not None:
            row[:] = x.neighbours
    features = resized(np.stack([x.features for x in inputs]), net.spec.features)
    views = _encoded(net, geometry, em)
    views[~there[:, :N_VIEWS]] = 0
    seen = appearance(net.scaled_features(features), geometry, em)
    return Tokens(views, features, _graph(net, features, around), there, task, answer, seen)


def tokens_of_part(net: MultiTaskViT, part: Part, *, images: bool = True) -> Tokens:
    """The same for prepared decisions, which have every token.

    Args:
        net: In eval mode.
        part: Prepared decisions.
        images: False leaves the images out, which takes almost all of the time.
    """
    n, width = len(part), int(net.task_query.shape[1])
    features = resized(part.features, net.spec.features)
    views = np.zeros((n, N_VIEWS, width), np.float32)
    if images:
        for start in range(0, n, _BATCH):
            s = slice(start, start + _BATCH)
            views[s] = _encoded(net, np.array(part.geometry[s]), np.array(part.em[s]))
    there = np.ones((n, N_TOKENS), bool)
    there[:, :N_VIEWS] = images
    there[:, GRAPH_TOKEN] = net.graph is not None
    return Tokens(
        views,
        features,
        _graph(net, features, part.neighbours),
        there,
        part.task,
        part.answer,
        part_seen(net, part) if images else np.zeros((n, 0), np.float32),
    )


def answers(
    net: MultiTaskViT, tokens: Tokens, batch: int = 512
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Log-odds (n,) and decision embeddings (n, D) from all that each decision has."""
    logits, embeddings = [], []
    for start in range(0, len(tokens), batch):
        some = tokens.take(np.arange(start, min(start + batch, len(tokens))))
        with torch.inference_mode():
            stack = token_stack(net, some)
            logit, embedding = net.decide(
                stack, torch.from_numpy(~some.there), torch.from_numpy(some.task)
            )
        logits.append(logit.double().numpy())
        embeddings.append(embedding.numpy())
    width = int(net.task_query.shape[1])
    if not logits:
        return np.zeros(0), np.zeros((0, width), np.float32)
    return np.concatenate(logits), np.concatenate(embeddings)


def token_stack(net: MultiTaskViT, some: Tokens) -> torch.Tensor:
    """All tokens in the order of `TOKEN_NAMES`, (n, `N_TOKENS`, D); features and graph anew."""
    token = net.feature_tokens(torch.from_numpy(some.features))
    graph = torch.zeros_like(token)
    if net.graph is not None:
        graph = net.graph.tokens(torch.from_numpy(some.graph))
    return torch.cat([torch.from_numpy(some.views), token[:, None], graph[:, None]], 1)


def _graph(
    net: MultiTaskViT, features: NDArray[np.float32], around: NDArray[np.float32]
) -> NDArray[np.float32]:
    if net.graph is None:
        return np.zeros((len(features), 0), np.float32)
    out = []
    for start in range(0, len(features), 2048):
        s = slice(start, start + 2048)
        with torch.inference_mode():
            values = net.graph.values(torch.from_numpy(features[s]), torch.from_numpy(around[s]))
        out.append(values.numpy())
    return np.concatenate(out)


def _encoded(
    net: MultiTaskViT, geometry: NDArray[np.float16], em: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """Class tokens of all views of some decisions, (n, `N_VIEWS`, D)."""
    n, view = len(geometry), torch.arange(N_VIEWS)
    with torch.inference_mode():
        cls, _ = net.encode_views(
            torch.from_numpy(geometry.astype(np.float32)).flatten(0, 1),
            view[:N_GEOMETRY].repeat(n),
            torch.from_numpy(scale_em(em)).flatten(0, 1),
            view[N_GEOMETRY:].repeat(n),
        )
    split = n * N_GEOMETRY
    out = torch.cat(
        [cls[:split].view(n, N_GEOMETRY, -1), cls[split:].view(n, N_VIEWS - N_GEOMETRY, -1)], 1
    )
    found: NDArray[np.float32] = out.numpy()
    return found


def measured(n: int) -> NDArray[np.bool_]:
    """`Tokens.there` of decisions that have their measures alone."""
    out = np.zeros((n, N_TOKENS), bool)
    out[:, [FEATURE_TOKEN, GRAPH_TOKEN]] = True
    return out
