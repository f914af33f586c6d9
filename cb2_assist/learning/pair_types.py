"""Which kind of contact a touching pair has, by its geometry alone.

Touching neighbours differ in how easily they are taken for one neuron. Most contacts are small and
plain; processes that run side by side, cross each other or share a broad face are what a model that
only learnt "they touch" or "they are aligned" gets wrong. The type is recorded on each example,
whatever its answer, so that figures can be given for each and training can weigh them; no answer
takes part in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.errors import DatasetError, UsageError
from cb2_assist.core.geometry import PointVoxel, Resolution
from cb2_assist.views.jit import kernel

TOUCHING, PARALLEL, CROSSING, BROAD, SYNAPSE = (
    "touching_pair",
    "parallel",
    "crossing",
    "broad",
    "synapse",
)
PAIR_TYPES: tuple[str, ...] = (TOUCHING, PARALLEL, CROSSING, BROAD, SYNAPSE)
"""Of joins."""
MERGED, WHOLE = "synthetic_merge", "whole_segment"
"""Of cuts: asked in a segment made of two touching neighbours, and in one left as it is."""

LOOK_NM = 400.0
"""Half width of the box around the contact in which the two are described."""
ELONGATED = 1.8
"""A process is at least so many times longer than it is wide, within the box: square root of the
ratio of the two largest variances. A box of 800 nm holds no more of a tube than its length."""
PARALLEL_COS, CROSSING_COS = 0.85, 0.5
"""Axes within 32 degrees of each other are parallel, those more than 60 degrees apart cross."""
BESIDE = 0.5
"""Side by side: the way from one middle to the other is at most so much along their axes (cosine);
one that goes on where the other ends is no parallel."""
BROAD_NM2 = 60_000.0
"""A broad contact is as large as a square of 245 nm."""
SYNAPSE_NM = 150.0
"""A contact this near to an annotated synapse of the same two segments is synaptic."""


@dataclass(frozen=True, slots=True)
class Synapses:
    """Annotated synapses of one volume.

    Attributes:
        pre, post: uint64, (n,), segments of either side; in either order for what is done here.
        point_nm: float64, (n, 3).
    """

    pre: NDArray[np.uint64]
    post: NDArray[np.uint64]
    point_nm: NDArray[np.float64]


def read_synapses(path: Path) -> Synapses:
    """Read ``pre,post,x_nm,y_nm,z_nm`` with that header from CSV.

    Raises:
        DatasetError: The file cannot be read, or does not have the columns.
    """
    names = ("pre", "post", "x_nm", "y_nm", "z_nm")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        header = [h.strip() for h in lines[0].split(",")]
        columns = [header.index(n) for n in names]
        rows = [[line.split(",")[k] for k in columns] for line in lines[1:] if line.strip()]
        # ids need all 64 bits, which a float does not have
        ids = np.array([[int(r[0]), int(r[1])] for r in rows], np.uint64).reshape(-1, 2)
        points = np.array([[float(v) for v in r[2:]] for r in rows], np.float64).reshape(-1, 3)
    except (OSError, ValueError, IndexError, OverflowError) as e:
        raise DatasetError(
            f"{path} cannot be read as synapses: {e}. It must be CSV with the columns "
            f"{','.join(names)}: two segment ids and a point in nm a row."
        ) from e
    return Synapses(ids[:, 0], ids[:, 1], points)


def pair_types(
    seg: NDArray[np.uint64],
    corner_vx: PointVoxel,
    resolution: Resolution,
    pairs: tuple[NDArray[np.uint64], NDArray[np.uint64]],
    point_nm: NDArray[np.float64],
    synapses: Synapses | None = None,
) -> NDArray[np.str_]:
    """The type of each touching pair, one of `PAIR_TYPES`.

    A synapse goes before everything else, then parallel, crossing, broad.

    Args:
        seg: Segments, axes x, y, z.
        corner_vx: Absolute voxel of ``seg[0, 0, 0]``.
        resolution: Voxel size.
        pairs: Ids of the two segments of each pair, (n,) each.
        point_nm: A place on each contact, (n, 3).
        synapses: Where synapses are, if that is known.

    Returns:
        (n,) names.
    """
    seg = np.asfortranarray(seg)
    res = np.array(tuple(resolution), np.float64)
    out = np.full(len(point_nm), TOUCHING, dtype="<U16")
    reach = np.maximum(1, np.ceil(LOOK_NM / res)).astype(np.int64)
    at = np.floor(point_nm / res).astype(np.int64) - np.array(tuple(corner_vx))
    for k, (a, b) in enumerate(zip(*pairs, strict=True)):
        lo = np.maximum(at[k] - reach, 0)
        hi = np.minimum(at[k] + reach + 1, seg.shape)
        moments, faces = _survey(seg, a, b, lo, hi)
        out[k] = _type_of(moments, faces, res)
    if synapses is not None:
        out[_at_synapse(pairs, point_nm, synapses)] = SYNAPSE
    return out


def _type_of(
    moments: NDArray[np.float64], faces: NDArray[np.int64], res: NDArray[np.float64]
) -> str:
    axes, middles, long = [], [], []
    for m in moments:
        n = max(m[0], 1.0)
        middle = m[1:4] / n
        second = m[4:].reshape(3, 3) / n - np.outer(middle, middle)
        # a voxel is no point: its own spread keeps flat pieces finite
        spread = second * np.outer(res, res) + np.diag(res**2) / 12
        values, vectors = np.linalg.eigh(spread)
        axes.append(vectors[:, 2])
        middles.append(middle * res)
        long.append(bool(values[2] >= ELONGATED**2 * values[1]))
    if all(long):
        cos = abs(float(axes[0] @ axes[1]))
        way = middles[1] - middles[0]
        along = max(abs(float(way @ a)) for a in axes) / max(float(np.linalg.norm(way)), 1e-9)
        if cos >= PARALLEL_COS and along <= BESIDE:
            return PARALLEL
        if cos <= CROSSING_COS:
            return CROSSING
    area = float((faces * (np.prod(res) / res)).sum())
    return BROAD if area >= BROAD_NM2 else TOUCHING


def _at_synapse(
    pairs: tuple[NDArray[np.uint64], NDArray[np.uint64]],
    point_nm: NDArray[np.float64],
    synapses: Synapses,
) -> NDArray[np.bool_]:
    places: dict[tuple[int, int], list[Any]] = {}
    for pre, post, point in zip(
        synapses.pre.tolist(), synapses.post.tolist(), synapses.point_nm, strict=True
    ):
        places.setdefault((min(pre, post), max(pre, post)), []).append(point)
    out = np.zeros(len(point_nm), bool)
    for k, (a, b) in enumerate(zip(pairs[0].tolist(), pairs[1].tolist(), strict=True)):
        found = places.get((min(a, b), max(a, b)))
        if found:
            away = np.linalg.norm(np.stack(found) - point_nm[k], axis=1)
            out[k] = bool(away.min() <= SYNAPSE_NM)
    return out


@kernel
def _survey(
    seg: NDArray[np.uint64],
    a: np.uint64,
    b: np.uint64,
    lo: NDArray[np.int64],
    hi: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Number, sums and sums of products of both segments' voxels, and their common faces by axis.

    Voxel indices count from ``lo``; the rows are n, x, y, z, then the 3 x 3 products.
    """
    moments = np.zeros((2, 13))
    faces = np.zeros(3, np.int64)
    step = np.zeros(3, np.int64)
    for z in range(lo[2], hi[2]):
        for y in range(lo[1], hi[1]):
            for x in range(lo[0], hi[0]):
                here = seg[x, y, z]
                if here != a and here != b:
                    continue
                side = 0 if here == a else 1
                other = b if here == a else a
                p = (x - lo[0], y - lo[1], z - lo[2])
                moments[side, 0] += 1
                for i in range(3):
                    moments[side, 1 + i] += p[i]
                    for j in range(3):
                        moments[side, 4 + 3 * i + j] += p[i] * p[j]
                for axis in range(3):
                    step[:] = 0
                    step[axis] = 1
                    u, v, w = x + step[0], y + step[1], z + step[2]
                    if u < hi[0] and v < hi[1] and w < hi[2] and seg[u, v, w] == other:
                        faces[axis] += 1
    return moments, faces


MOST_WEIGHT = 10.0
"""A quota never makes an example count more than this many plain ones."""


def quota_weights(
    sample_type: NDArray[np.str_], quotas: Mapping[str, float]
) -> NDArray[np.float32]:
    """Weights, of mean 1, that give each named type at least its share of the total.

    Nothing is drawn or left out: each example still occurs once an epoch. A rare type gets no more
    than `MOST_WEIGHT` times the weight that it has by its number.

    Args:
        sample_type: Types of the examples that share a total, e.g. one task's negatives, (n,).
        quotas: Least share by type; others share what is left in proportion to their numbers.

    Raises:
        UsageError: A type that cannot occur is named.
    """
    unknown = sorted(set(quotas) - {*PAIR_TYPES, MERGED, WHOLE})
    if unknown:
        raise UsageError(
            f"There is no sample type {', '.join(unknown)}. Known: "
            f"{', '.join((*PAIR_TYPES, MERGED, WHOLE))}."
        )
    names, index, count = np.unique(sample_type, return_inverse=True, return_counts=True)
    natural = count / count.sum()
    wanted = np.array([quotas.get(str(n), 0.0) for n in names])
    wanted = np.minimum(wanted, MOST_WEIGHT * natural)
    raised = np.zeros(len(names), bool)
    share = natural.copy()
    while True:
        # what goes to one type is missing elsewhere, and may push another below its own quota
        below = (share < wanted - 1e-12) & ~raised
        if not below.any():
            break
        raised |= below
        free = natural[~raised].sum()
        rest = 1 - wanted[raised].sum()
        share = np.where(raised, wanted, natural * rest / free if free else 0.0)
    weights: NDArray[np.float32] = (share / natural)[index].astype(np.float32)
    weights /= weights.mean()
    return weights
