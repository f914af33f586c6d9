"""ConnectomeBench2's decisions: the mean over all views of what each says alone.

Their rule (arXiv 2606.21116): p = softmax(logits)[1] of each view, mean over every view of an
operation, geometry and EM with equal weight; class 1 above 0.5. A join has three geometry views,
three cardinal EM planes and the best tilted one; a cut lacks the tilted one, which could only be
chosen from the answer (`views.oblique`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cb2_assist.core.channels import VIEW_NAMES, EmChannel, GeometryChannel
from cb2_assist.core.records import Kind, ModelOutput, ViewScore
from cb2_assist.model.cb2_network import Cb2ViT
from cb2_assist.model.encoders import Encoder
from cb2_assist.model.inputs import NetworkInput
from cb2_assist.model.transfer import to_device
from cb2_assist.views.stack import ViewStack

OBLIQUE = "em_oblique"
"""Name of the tilted plane among a decision's views."""

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, which their loader applies to the EM image and its two masks alike."""
_LEAST = 1e-13
"""A mean of probabilities is kept this far off 0 and 1, as far as calibration looks."""


def cb2_geometry(stack: ViewStack, kind: Kind) -> NDArray[np.float32]:
    """Geometry as their loader hands it on, float32, (view, `GeometryChannel`, row, column)."""
    return _geometry(stack.geometry(), kind)


def _geometry(stored: NDArray[Any], kind: Kind) -> NDArray[np.float32]:
    """A cut is one segment; their single renders have no masks."""
    out = np.array(stored, np.float32)
    if kind is Kind.CUT:
        out[:, GeometryChannel.MASK_A :] = 0
    return out


def cb2_em(stack: ViewStack, kind: Kind) -> NDArray[np.float32]:
    """EM as their loader hands it on, float32, (3 or 4 views, `EmChannel`, row, column)."""
    em = stack.em
    if kind is Kind.JOIN and stack.em_oblique is not None:
        em = np.concatenate([em, stack.em_oblique[None]])
    return _em(em, kind)


def _em(stored: NDArray[np.uint8], kind: Kind) -> NDArray[np.float32]:
    out = stored.astype(np.float32) / np.float32(255)
    if kind is Kind.CUT:
        out[:, EmChannel.MASK_A] = out[:, EmChannel.MASK_A :].max(1)
        out[:, EmChannel.MASK_B] = 0
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (_MEAN, _STD))
    return np.asarray((out - mean) / std, np.float32)


def subset_log_odds(
    own: NDArray[np.float64], subsets: Sequence[Sequence[int]]
) -> NDArray[np.float64]:
    """Their rule on some views only.

    Args:
        own: Probability of each view alone, (n, views), NaN where it is not there.
        subsets: Positions of the views behind each answer; further positions are left out.

    Returns:
        Log-odds of the mean, (n, subsets); NaN where none of a subset's views is there.
    """
    out = np.full((len(own), len(subsets)), np.nan)
    for k, subset in enumerate(subsets):
        some = own[:, [i for i in subset if i < own.shape[1]]]
        known = np.isfinite(some).any(axis=1)
        p = np.clip(np.nanmean(some[known], axis=1), _LEAST, 1 - _LEAST) if known.any() else []
        out[known, k] = np.log(p) - np.log1p(-np.asarray(p))
    return out


def answer_subsets(
    network: Cb2ViT,
    encoder: Encoder,
    inputs: Sequence[NetworkInput],
    present: NDArray[np.bool_],
    kinds: Sequence[Kind],
    subsets: Sequence[Sequence[int]],
    device: torch.device,
) -> NDArray[np.float64]:
    """As `Predictor.subset_logits`, by the mean of the views that are there."""
    found = []
    for x, there, kind in zip(inputs, present, kinds, strict=True):
        with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
            cls = encoder(*to_device([_geometry(x.geometry, kind), _em(x.em, kind)], device))
            odds = network.log_odds(cls, kind.value).double().cpu().numpy()
        own = 0.5 * (1 + np.tanh(odds / 2))
        found.append(np.where(there[: len(own)], own, np.nan))
    own_of_all = np.array(found).reshape(len(found), -1)
    return subset_log_odds(own_of_all, subsets)


def answer_by_views(
    network: Cb2ViT,
    encoder: Encoder,
    stacks: Sequence[ViewStack],
    kinds: Sequence[Kind],
    device: torch.device,
) -> list[ModelOutput]:
    """Answer one question per stack, in one pass of the network.

    `ModelOutput.logit` is the log-odds of the mean probability, so that its sigmoid is their
    number; `ModelOutput.ood_distance` is NaN, since nothing says what their training looked like.
    """
    geometry = [cb2_geometry(s, k) for s, k in zip(stacks, kinds, strict=True)]
    em = [cb2_em(s, k) for s, k in zip(stacks, kinds, strict=True)]
    with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
        cls = encoder(*to_device([np.concatenate(geometry), np.concatenate(em)], device))
        every = {k: network.log_odds(cls, k.value).double().cpu().numpy() for k in set(kinds)}
    out = []
    first_g, first_e = 0, sum(map(len, geometry))
    for kind, g, e in zip(kinds, geometry, em, strict=True):
        odds = every[kind]
        own = [*odds[first_g : first_g + len(g)], *odds[first_e : first_e + len(e)]]
        first_g, first_e = first_g + len(g), first_e + len(e)
        names = [*VIEW_NAMES, OBLIQUE][: len(own)]
        views = tuple(
            ViewScore(n, float(0.5 * (1 + math.tanh(v / 2))))
            for n, v in zip(names, own, strict=True)
        )
        p = min(max(math.fsum(v.score for v in views) / len(views), _LEAST), 1 - _LEAST)
        out.append(ModelOutput(math.log(p / (1 - p)), views, math.nan))
    return out
