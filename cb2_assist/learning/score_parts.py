"""Answers of a network on prepared parts."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from cb2_assist.learning.prepare import Part
from cb2_assist.model.inputs import scale_em
from cb2_assist.model.network import (
    FEATURE_TOKEN,
    GRAPH_TOKEN,
    N_GEOMETRY,
    N_TOKENS,
    N_VIEWS,
    MultiTaskViT,
)
from cb2_assist.model.ood.appearance import appearance

MODES: dict[str, tuple[int, ...]] = {
    "all": tuple(range(N_TOKENS)),
    "images": tuple(range(N_VIEWS)),
    "features": (FEATURE_TOKEN,),
    "neighbours": (GRAPH_TOKEN,),
    "measured": (FEATURE_TOKEN, GRAPH_TOKEN),
}
"""Which tokens may be used."""


_OF_GRAPH = ("neighbours", "measured")


def modes_of(net: MultiTaskViT) -> tuple[str, ...]:
    """The modes in which a network can answer."""
    return tuple(m for m in MODES if net.graph is not None or m not in _OF_GRAPH)


def part_logits(
    net: MultiTaskViT, part: Part, *, modes: tuple[str, ...] = ("all",), batch: int = 16
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.float32]]:
    """Log-odds of every decision of a part, and the joint decision embeddings.

    Returns:
        ``{mode: (n,)}`` and ``(n, D)``; the embeddings are those of mode ``all``, or of the last
        mode when that was not asked for.
    """
    device = next(net.parameters()).device
    out: dict[str, list[NDArray[np.float64]]] = {m: [] for m in modes}
    embeddings = []
    with_images = any(min(MODES[m]) < N_VIEWS for m in modes)
    for start in range(0, len(part), batch):
        s = slice(start, start + batch)
        task = torch.from_numpy(part.task[s]).to(device)
        with torch.inference_mode():
            features = torch.from_numpy(part.features[s]).to(device)
            token = net.feature_tokens(features)
            graph = torch.zeros_like(token)
            if net.graph is not None:
                around = torch.from_numpy(part.neighbours[s]).to(device)
                graph = net.graph_tokens(features, around)
            views = torch.zeros(len(task), N_VIEWS, token.shape[1], device=device)
            if with_images:
                views = _encode(net, part, s, device)
            tokens = torch.cat([views, token[:, None], graph[:, None]], 1)
            for mode in modes:
                absent = torch.ones(len(task), N_TOKENS, dtype=torch.bool, device=device)
                absent[:, list(MODES[mode])] = False
                if net.graph is None:
                    absent[:, GRAPH_TOKEN] = True
                logit, embedding = net.decide(tokens, absent, task)
                out[mode].append(logit.double().cpu().numpy())
                if mode == "all" or (mode == modes[-1] and "all" not in modes):
                    embeddings.append(embedding.float().cpu().numpy())
    return {m: np.concatenate(v) for m, v in out.items()}, np.concatenate(embeddings)


def part_seen(net: MultiTaskViT, part: Part, *, batch: int = 64) -> NDArray[np.float32]:
    """`model.ood.appearance` of every decision of a part, (n, A)."""
    rows = [slice(i, i + batch) for i in range(0, len(part), batch)]
    return np.concatenate(
        [
            appearance(
                net.scaled_features(part.features[s]),
                np.asarray(part.geometry[s]),
                np.asarray(part.em[s]),
            )
            for s in rows or [slice(0, 0)]
        ]
    )


def _encode(net: MultiTaskViT, part: Part, s: slice, device: torch.device) -> torch.Tensor:
    geometry = torch.from_numpy(np.array(part.geometry[s], np.float32)).to(device)
    em = torch.from_numpy(scale_em(np.array(part.em[s]))).to(device)
    decisions = len(geometry)
    view = torch.arange(N_VIEWS, device=device)
    cls, _ = net.encode_views(
        geometry.flatten(0, 1),
        view[:N_GEOMETRY].repeat(decisions),
        em.flatten(0, 1),
        view[N_GEOMETRY:].repeat(decisions),
    )
    n = decisions * N_GEOMETRY
    return torch.cat(
        [
            cls[:n].view(decisions, N_GEOMETRY, -1),
            cls[n:].view(decisions, N_VIEWS - N_GEOMETRY, -1),
        ],
        1,
    )
