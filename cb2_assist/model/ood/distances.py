"""Distances of decision embeddings to those of the training decisions: pure functions of arrays.

Shape suffixes as in `model.network`: n decisions, D = width of an embedding. Distances of one
decision are in `DISTANCES`; `sliced_wasserstein` is one of two sets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Array = NDArray[np.floating[Any]]

K_NEAREST = 10
DIRECTIONS = 128


def class_mahalanobis(x_nD: Array, means: Array, whiten: Array) -> Floats:
    """Mahalanobis distance to the nearest class: ``min_c sqrt((x - m_c)' S^-1 (x - m_c))``.

    The classes are the answers; S is their shared, shrunk covariance (Lee et al. 2018, A simple
    unified framework for detecting out-of-distribution samples, NeurIPS).

    Args:
        x_nD: Embeddings.
        means: One a class, (C, D).
        whiten: W with ``W W' = S^-1``, (D, D).

    Returns:
        (n,).
    """
    return np.sqrt(_squared(x_nD, means, whiten))


def relative_mahalanobis(
    x_nD: Array, means: Array, whiten: Array, background_mean: Array, background_whiten: Array
) -> Floats:
    """Class Mahalanobis less background: ``min_c d_c(x)^2 - d_0(x)^2``; may be negative.

    d_0 is the distance to one Gaussian of all training decisions of the task, whatever their
    answer: directions in which embeddings vary anyway cancel (Ren et al. 2021, A simple fix to
    Mahalanobis distance for improving near-OOD detection, arXiv 2106.09022).

    Args:
        x_nD: Embeddings.
        means: As in `class_mahalanobis`.
        whiten: As in `class_mahalanobis`.
        background_mean: (1, D).
        background_whiten: As ``whiten``, of the background.

    Returns:
        (n,).
    """
    background = _squared(x_nD, background_mean, background_whiten)
    return _squared(x_nD, means, whiten) - background


def nearest_neighbour(x_nD: Array, sample: Array) -> Floats:
    """Euclidean distance to the `K_NEAREST`-th neighbour, all vectors scaled to length 1.

    Sun et al. 2022, Out-of-distribution detection with deep nearest neighbors, ICML; here against
    a bounded random sample of the training decisions.

    Args:
        x_nD: Embeddings.
        sample: Training embeddings of length 1, (m, D). Of fewer than `K_NEAREST` the farthest.

    Returns:
        (n,), 0..2.
    """
    x, y = on_sphere(x_nD), sample.astype(np.float64)
    # |x - y|^2 of unit vectors; einsum, since BLAS would split it over threads that then wait
    squared = (x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * np.einsum("nd,md->nm", x, y)
    k = min(K_NEAREST, len(y)) - 1
    return np.sqrt(np.maximum(np.partition(squared, k, axis=1)[:, k], 0.0))


def sliced_wasserstein(x_nD: Array, y_mD: Array, *, seed: int = 0) -> float:
    """Sliced 1-Wasserstein distance of two sets: mean over directions of the distance on a line.

    ``mean_t integral |F_t(s) - G_t(s)| ds``, with F_t and G_t the distribution functions of the
    two sets projected on direction t (Bonneel et al. 2015, Sliced and Radon Wasserstein barycenters
    of measures, J Math Imaging Vis 51:22). `DIRECTIONS` random directions, the same at every call.

    Args:
        x_nD: One set.
        y_mD: The other, of any size.
        seed: Of the directions.

    Returns:
        0 for equal sets, in units of the embedding; NaN where a set is empty.
    """
    if not len(x_nD) or not len(y_mD):
        return float("nan")
    t = directions(x_nD.shape[1], seed)
    return line_wasserstein(
        np.einsum("nd,dt->nt", x_nD.astype(np.float64), t),
        np.einsum("md,dt->mt", y_mD.astype(np.float64), t),
    )


def directions(width: int, seed: int = 0) -> Floats:
    """`DIRECTIONS` random unit vectors, (width, directions)."""
    t = np.random.default_rng(seed).normal(size=(width, DIRECTIONS))
    out: Floats = t / np.linalg.norm(t, axis=0)
    return out


def line_wasserstein(x_nT: Floats, y_mT: Floats) -> float:
    """Mean over columns of the 1-Wasserstein distance of two sets of numbers."""
    both = np.concatenate([x_nT, y_mT])
    order = np.argsort(both, axis=0, kind="stable")
    step = np.where(order < len(x_nT), 1 / len(x_nT), -1 / len(y_mT))
    apart = np.abs(np.cumsum(step, axis=0)[:-1])
    return float((apart * np.diff(np.take_along_axis(both, order, 0), axis=0)).sum(0).mean())


def on_sphere(x_nD: Array) -> Floats:
    """Vectors scaled to length 1; a vector of zeros stays."""
    x = x_nD.astype(np.float64)
    out: Floats = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return out


def _squared(x_nD: Array, means: Array, whiten: Array) -> Floats:
    x, w = x_nD.astype(np.float64), whiten.astype(np.float64)
    squared = [(np.einsum("nd,de->ne", x - m, w) ** 2).sum(1) for m in means.astype(np.float64)]
    out: Floats = np.min(squared, axis=0)
    return out


def either(
    x_nW: Array,
    means: Array,
    whiten: Array,
    seen_means: Array,
    seen_whiten: Array,
    scales: Array,
) -> Floats:
    """Class Mahalanobis in the decision embedding or in appearance, whichever is stranger.

    Args:
        x_nW: Decision embeddings, then `appearance.appearance`, in the same rows.
        means: As in `class_mahalanobis`, of the embeddings.
        whiten: Likewise.
        seen_means: As in `class_mahalanobis`, of appearance.
        seen_whiten: Likewise.
        scales: (2,), the distance in either space that is called 1.

    Returns:
        (n,), in those units.
    """
    D = means.shape[1]
    inside = class_mahalanobis(x_nW[:, :D], means, whiten) / float(scales[0])
    seen = class_mahalanobis(x_nW[:, D:], seen_means, seen_whiten) / float(scales[1])
    return np.maximum(inside, seen)


class Space(StrEnum):
    """What a distance is measured in."""

    DECISION = "decision"
    """The decision embedding, after everything was put together."""
    APPEARANCE = "appearance"
    """`appearance.appearance`: what was measured, before the network."""
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class Distance:
    """A distance of single decisions.

    Attributes:
        of: Vectors (n, width of the space), then what it needs: distances, (n,); larger is
            stranger.
        needs: Names of its arguments, tensors of `reference.TaskReference`, in order.
        words: For tables.
        space: What the vectors are.
    """

    of: Callable[..., Floats]
    needs: tuple[str, ...]
    words: str
    space: Space = Space.DECISION


DISTANCES: Mapping[str, Distance] = {
    "mahalanobis": Distance(class_mahalanobis, ("means", "whiten"), "class Mahalanobis"),
    "relative": Distance(
        relative_mahalanobis,
        ("means", "whiten", "background_mean", "background_whiten"),
        "relative Mahalanobis",
    ),
    "neighbour": Distance(nearest_neighbour, ("sample",), f"{K_NEAREST}th neighbour"),
    "appearance": Distance(
        class_mahalanobis,
        ("seen_means", "seen_whiten"),
        "class Mahalanobis of appearance",
        Space.APPEARANCE,
    ),
    "either": Distance(
        either,
        ("means", "whiten", "seen_means", "seen_whiten", "scales"),
        "decision or appearance, the stranger",
        Space.BOTH,
    ),
}
"""By name on cards and in tensors; add, never rename."""
