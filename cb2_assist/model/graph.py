"""The neighbour graph of a site: from contacts to a token.

Two stages, as measured on FIB-25: every contact of either side with a third segment is judged
alone first, then the verdicts round the question are combined. A third segment C that continues
both sides speaks for the join, one that continues A and is apart from B speaks against it.

Shape suffixes as in `model.network`; K = third segments, S = the two sides, M = contact measures.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

GRAPH_NAMES: tuple[str, ...] = (
    "own",
    "joined_most",
    "joined_any",
    "apart_most",
    "apart_mean",
    "weaker_mean",
    "common",
    "rival_high",
    "rival_low",
    "others_high",
    "others_low",
)
"""Order of `graph_values`."""


def graph_values(own_B: Tensor, contact_BKS: Tensor, there_BKS: Tensor) -> Tensor:
    """What the first stage's verdicts say together; the same when A and B change places.

    Args:
        own_B: Log-odds of the pair itself by its own features.
        contact_BKS: Probability that a side and a third segment are one neuron.
        there_BKS: Whether the two touch near the site.

    Returns:
        ``(B, len(GRAPH_NAMES))``. With pA, pB the probabilities of a common neighbour: the largest
        pA·pB, noisy-or of pA·pB, largest and mean abs(pA - pB), mean of the smaller one, log(1 +
        common neighbours); then the strongest rival of either side, larger side first, and the
        mean over each side's contacts, likewise.
    """
    p = torch.where(there_BKS, contact_BKS, torch.zeros_like(contact_BKS))
    common = there_BKS.all(2)
    n = common.sum(1)
    mean_of = 1.0 / n.clamp(min=1)
    product = torch.where(common, p.prod(2), torch.zeros_like(p[..., 0]))
    apart = torch.where(common, (p[..., 0] - p[..., 1]).abs(), torch.zeros_like(p[..., 0]))
    weaker = torch.where(common, p.amin(2), torch.zeros_like(p[..., 0]))
    rival = p.amax(1)
    others = p.sum(1) / there_BKS.sum(1).clamp(min=1)
    return torch.stack(
        [
            own_B,
            product.amax(1),
            1 - (1 - product).prod(1),
            apart.amax(1),
            apart.sum(1) * mean_of,
            weaker.sum(1) * mean_of,
            torch.log1p(n.to(p.dtype)),
            rival.amax(1),
            rival.amin(1),
            others.amax(1),
            others.amin(1),
        ],
        1,
    )


class Judge(nn.Module):
    """A small classifier on measured numbers: log-odds of "one neuron"."""

    mean: Tensor
    std: Tensor

    def __init__(self, measures: int, hidden: int, dropout: float = 0.3) -> None:
        super().__init__()
        self.measures, self.hidden, self.dropout = measures, hidden, dropout
        self.register_buffer("mean", torch.zeros(measures))
        self.register_buffer("std", torch.ones(measures))
        self.layers = nn.Sequential(
            nn.Linear(measures, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Log-odds, the last axis reduced."""
        z = ((x - self.mean) / self.std).clamp(-4, 4)
        out: Tensor = self.layers(z)[..., 0]
        return out


class NeighbourGraph(nn.Module):
    """First stage and token of the neighbour graph."""

    value_mean: Tensor
    value_std: Tensor

    def __init__(self, features: int, measures: int, width: int, hidden: int = 128) -> None:
        super().__init__()
        self.pair = Judge(features, hidden)
        self.contact = Judge(measures, hidden // 2)
        # fitted by themselves, before the token (`learning.first_stage`)
        self.pair.requires_grad_(False)
        self.contact.requires_grad_(False)
        F = len(GRAPH_NAMES)
        self.register_buffer("value_mean", torch.zeros(F))
        self.register_buffer("value_std", torch.ones(F))
        self.token = nn.Sequential(nn.Linear(F, hidden), nn.GELU(), nn.Linear(hidden, width))

    def train(self, mode: bool = True) -> NeighbourGraph:
        """As for any module; the judges always answer without dropout."""
        super().train(mode)
        self.pair.eval()
        self.contact.eval()
        return self

    def values(self, features_BF: Tensor, neighbours_BKSM: Tensor) -> Tensor:
        """`graph_values` of measured sites."""
        there = neighbours_BKSM[..., 0] > 0
        return graph_values(
            self.pair(features_BF), torch.sigmoid(self.contact(neighbours_BKSM)), there
        )

    def tokens(self, values_BG: Tensor) -> Tensor:
        """One token each, ``(B, D)``."""
        z = ((values_BG - self.value_mean) / self.value_std).clamp(-4, 4)
        token: Tensor = self.token(z)
        return token
