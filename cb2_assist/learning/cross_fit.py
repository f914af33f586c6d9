"""Calibration without a part kept back: every slab is judged by a network that has not seen it.

A slab that is kept back only for calibration is lost to learning, and one slab says little: how
hard a place is varies more between places than within one. Here the training part is cut into
slabs, a network is trained without each, and what all of them say of the slabs that they have not
seen calibrates the network that is trained on everything (cross-fitting; Chernozhukov et al. 2018,
Econometrics Journal 21:C1). It is a little better than they are, so if anything too modest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cb2_assist.learning.ood_chimera import chimeras
from cb2_assist.learning.ood_fit import Embedded, choose, fit_reference, fit_reference_across
from cb2_assist.learning.prepare import Part
from cb2_assist.learning.score_parts import modes_of, part_logits, part_seen
from cb2_assist.model.network import MultiTaskViT
from cb2_assist.model.ood.reference import OodReference

GUARD_VX = 20
"""Decisions this near a slab, along z, are not learnt from by the network that judges it."""
_CHUNK = 256
Rows = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Slab:
    """One slab along z, ``low < z <= high`` in voxels, the outer ones open."""

    low: float
    high: float

    def held(self, part: Part) -> Rows:
        """Decisions of a part in the slab."""
        return (part.z > self.low) & (part.z <= self.high)

    def learnt(self, part: Part) -> Rows:
        """Decisions of a part that a network may learn from that judges the slab."""
        return (part.z <= self.low - GUARD_VX) | (part.z > self.high + GUARD_VX)


def slabs(parts: Sequence[Part], folds: int) -> list[Slab]:
    """Slabs with equal numbers of decisions of all parts together."""
    z = np.concatenate([p.z for p in parts])
    edges = np.quantile(z, np.linspace(0, 1, folds + 1))
    edges[0], edges[-1] = -np.inf, np.inf
    return [Slab(float(a), float(b)) for a, b in pairwise(edges)]


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """What networks say of decisions that they have not seen; one entry a decision.

    Attributes:
        logits: By tokens used (`score_parts.MODES`), (n,).
        task: 0 join, 1 cut.
        answer: What is true.
        group: Truth body of the smaller side.
        sample_type: See `pair_types`.
        source: Name of the part, which is one of a segmentation and a question.
        point_nm: Where, (n, 3).
    """

    logits: Mapping[str, NDArray[np.float64]]
    task: NDArray[np.int64]
    answer: NDArray[np.bool_]
    group: NDArray[np.int64]
    sample_type: NDArray[np.str_]
    source: NDArray[np.str_]
    point_nm: NDArray[np.float64]


def judged(network: MultiTaskViT, parts: Sequence[Part]) -> Held:
    """A network on whole parts that it has not seen."""
    return _held(network, parts, [np.ones(len(p), bool) for p in parts])


def joined(held: Sequence[Held]) -> Held:
    """Several as one."""
    return Held(
        {m: np.concatenate([h.logits[m] for h in held]) for m in held[0].logits},
        *(
            np.concatenate([getattr(h, k) for h in held])
            for k in ("task", "answer", "group", "sample_type", "source", "point_nm")
        ),
    )


def _held(network: MultiTaskViT, parts: Sequence[Part], rows: Sequence[Rows]) -> Held:
    modes = modes_of(network)
    found = [
        Held(
            part_logits(network, piece, modes=modes)[0],
            piece.task,
            piece.answer,
            piece.group,
            piece.sample_type,
            np.full(len(piece), piece.name),
            piece.point_nm,
        )
        for piece in _pieces(parts, rows)
    ]
    return joined(found)


def embedded(
    network: MultiTaskViT, parts: Sequence[Part], rows: Sequence[Rows] | None = None
) -> Embedded:
    """Decisions as the network sees them.

    Args:
        network: Any.
        parts: Of which.
        rows: Which of each part; None: all.
    """
    found = []
    for p in _pieces(parts, rows or [np.ones(len(p), bool) for p in parts]):
        inside, seen = part_logits(network, p)[1], part_seen(network, p)
        found.append(Embedded(inside, p.task, p.answer, p.group, seen))
    return Embedded(
        np.concatenate([f.embedding for f in found]),
        np.concatenate([f.task for f in found]),
        np.concatenate([f.answer for f in found]),
        np.concatenate([f.group for f in found]),
        np.concatenate([f.seen for f in found if f.seen is not None]),
    )


def _pieces(parts: Sequence[Part], rows: Sequence[Rows]) -> Iterator[Part]:
    """A bounded number of decisions at a time: their views would not fit into memory together."""
    for part, some in zip(parts, rows, strict=True):
        at = np.flatnonzero(some)
        for start in range(0, len(at), _CHUNK):
            yield part.take(at[start : start + _CHUNK])


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """What is kept of one slab's network.

    Attributes:
        held: Its answers for the slab.
        learnt: A sample of its training decisions, as it sees them.
        unseen: The slab's decisions, as it sees them.
        auroc: By distance, how well it tells chimeras of the slab from the slab.
    """

    held: Held
    learnt: Embedded
    unseen: Embedded
    auroc: Mapping[str, float]


def judge_fold(
    network: MultiTaskViT, slab: Slab, parts: Sequence[Part], *, sample: int, mixed: int, seed: int
) -> Fold:
    """Let the network of a slab judge it.

    Args:
        network: Trained on `Slab.learnt`.
        slab: Which.
        parts: All of the training part.
        sample: Most training decisions of each part that say where training lies.
        mixed: Most decisions of each part that chimeras are made of.
        seed: Of the samples.
    """
    rng = np.random.default_rng(seed)

    def some(rows: Rows, most: int) -> Rows:
        at = np.flatnonzero(rows)
        out = np.zeros(len(rows), bool)
        out[rng.permutation(at)[:most]] = True
        return out

    held = [slab.held(p) for p in parts]
    learnt = embedded(network, parts, [some(slab.learnt(p), sample) for p in parts])
    unseen = embedded(network, parts, held)
    few = [some(rows, mixed) for rows in held]
    strange = embedded(
        network,
        [
            chimeras(p.take(np.flatnonzero(rows)), seed=seed)
            for p, rows in zip(parts, few, strict=True)
            if rows.any()
        ],
    )
    _, auroc = choose(fit_reference(learnt, unseen, seed=seed), unseen, strange)
    return Fold(_held(network, parts, held), learnt, unseen, auroc)


def reference_across(
    inside: Embedded, folds: Sequence[Fold], *, seed: int
) -> tuple[OodReference, dict[str, Any]]:
    """Where training lies for the network of everything, and how that was found, for the card.

    Args:
        inside: Its training decisions.
        folds: Their distances in their own networks are what is usual for decisions not seen.
        seed: Of the sample of neighbours.
    """
    found = {
        m: float(np.mean([f.auroc[m] for f in folds]))
        for m in folds[0].auroc
        if all(m in f.auroc for f in folds)
    }
    reference = fit_reference_across(inside, [(f.learnt, f.unseen) for f in folds], seed=seed)
    known = {m: a for m, a in found.items() if m in reference.methods}
    about = {
        "n_training": len(inside),
        "percentiles_from": "training decisions, each by a network that has not seen its slab",
        "n_validation": sum(len(f.unseen) for f in folds),
        "chosen": "greatest AUROC of chimeras of unseen decisions against these, mean over "
        "questions and slabs",
        "auroc": {k: round(v, 4) for k, v in known.items()},
    }
    best = max(known, key=lambda m: known[m])
    return OodReference(best, reference.tasks), about
