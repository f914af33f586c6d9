"""Counting the errors of a segmentation against its truth.

Only overlaps of at least `PIECE_VX` voxels are pieces of a body; a segment is a false merge when
it holds such pieces of two or more bodies, each at least `MERGE_SHARE` of its body.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

PIECE_VX = 1000
MERGE_SHARE = 0.3


@dataclass(frozen=True, slots=True)
class ErrorCount:
    """Errors of a segmentation, over voxels where both volumes have an id.

    Attributes:
        false_splits: Pieces beyond the first, summed over all bodies.
        bodies_split: Bodies with two or more pieces.
        false_merges: Segments that hold large parts of two or more bodies.
        voi_split: H(segmentation | truth), bits.
        voi_merge: H(truth | segmentation), bits.
    """

    false_splits: int
    bodies_split: int
    false_merges: int
    voi_split: float
    voi_merge: float


def count_errors(seg: NDArray[Any], truth: NDArray[Any]) -> ErrorCount:
    """Count splits and merges.

    Args:
        seg: Segment ids, any integer type; 0 is left out.
        truth: Ids of the true bodies, of the same shape; 0 is left out.
    """
    s_run, t_run, length = _runs(seg, truth)
    s_ids, s = np.unique(s_run, return_inverse=True)
    t_ids, t = np.unique(t_run, return_inverse=True)
    pair, at = np.unique(t.astype(np.int64) * len(s_ids) + s, return_inverse=True)
    overlap = np.bincount(at, length, len(pair)).astype(np.int64)
    body, segment = pair // max(len(s_ids), 1), pair % max(len(s_ids), 1)
    body_size = np.bincount(body, overlap, len(t_ids)).astype(np.int64)
    segment_size = np.bincount(segment, overlap, len(s_ids)).astype(np.int64)
    pieces = np.bincount(body[overlap >= PIECE_VX], minlength=len(t_ids))
    # whole numbers: share >= 3 / 10 without rounding
    share = overlap * 10 >= body_size[body] * round(10 * MERGE_SHARE)
    large = share & (overlap >= PIECE_VX)
    held = np.bincount(segment[large], minlength=len(s_ids))
    p = overlap / max(int(overlap.sum()), 1)
    return ErrorCount(
        false_splits=int(np.maximum(pieces - 1, 0).sum()),
        bodies_split=int((pieces >= 2).sum()),
        false_merges=int((held >= 2).sum()),
        voi_split=float(-(p * np.log2(overlap / body_size[body])).sum()),
        voi_merge=float(-(p * np.log2(overlap / segment_size[segment])).sum()),
    )


def _runs(
    seg: NDArray[Any], truth: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
    """Ids of both volumes and voxels of each run of equal pairs, without background."""
    s, t = seg.ravel(), truth.ravel()
    if not s.size:
        return s, t, np.empty(0, np.int64)
    first = np.flatnonzero(np.concatenate([[True], (s[1:] != s[:-1]) | (t[1:] != t[:-1])]))
    length = np.diff(first, append=s.size)
    s, t = s[first], t[first]
    inside = (s > 0) & (t > 0)
    return s[inside], t[inside], length[inside]
