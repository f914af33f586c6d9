"""Cuts the segments in one chunk into pieces: connected ones, and those again at their necks.

Without the necks a false merge could only be undone at the borders of chunks. Thickness is flooded
from thick to thin, as `views.partition` does it for the model, here for all segments at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.geometry import Resolution
from cb2_assist.standin.node_ids import Ids

_KEEP_RATIO = 0.7
"""Two parts stay apart where the neck is below this share of the thinner one's thickness ..."""
_KEEP_VOXELS = 1.5
"""... and so many of the finest voxel edges below it."""

Pieces = NDArray[np.int32]


def pieces(seg: Ids, resolution: Resolution) -> Pieces:
    """Number of the piece that each voxel is in, from 1; 0 on background.

    Args:
        seg: Segments, axes x, y, z; 0 is background.
        resolution: Voxel size.
    """
    connected = _connected(seg)
    if not connected.any():
        return connected
    from scipy import ndimage

    from cb2_assist.views.basins import flood

    edge = np.array(list(resolution), np.float64)
    inner = _inner(connected)
    inside = connected > 0
    # voxels at a border are half a voxel from it
    depth = ndimage.distance_transform_edt(inner, sampling=edge)[inside].astype(np.float32)
    beside = _beside(connected, inside)
    order = np.argsort(-depth, kind="stable")
    keep_nm = _KEEP_VOXELS * resolution.finest
    out = np.zeros(seg.shape, np.int32)
    out[inside] = flood(order, depth + resolution.finest / 2, beside, _KEEP_RATIO, keep_nm)
    return out


def _connected(seg: Ids) -> Pieces:
    """Connected pieces across faces, numbered from 1."""
    from skimage import measure

    label: Any = measure.label  # typed in some releases, untyped in others
    # it takes no 64-bit ids
    _, small = np.unique(seg, return_inverse=True)
    numbers = small.reshape(seg.shape).astype(np.int32) + 1
    numbers[seg == 0] = 0
    found: Pieces = label(numbers, background=0, connectivity=1).astype(np.int32)
    return found


def _inner(piece: Pieces) -> NDArray[np.bool_]:
    """Voxels all of whose neighbours within the array are of the same piece."""
    inner = piece > 0
    for axis in range(3):
        lead = (slice(None),) * axis
        before, after = (*lead, slice(None, -1)), (*lead, slice(1, None))
        other = piece[before] != piece[after]
        inner[before] &= ~other
        inner[after] &= ~other
    return inner


def _beside(piece: Pieces, inside: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Row of each of the six neighbours of the same piece, -1 where there is none, (n, 6)."""
    n = int(inside.sum())
    row = np.full(piece.shape, -1, np.int32)
    row[inside] = np.arange(n, dtype=np.int32)
    out = np.full((n, 6), -1, np.int32)
    for axis in range(3):
        lead = (slice(None),) * axis
        before, after = (*lead, slice(None, -1)), (*lead, slice(1, None))
        same = inside[before] & (piece[before] == piece[after])
        a, b = row[before][same], row[after][same]
        out[a, 2 * axis], out[b, 2 * axis + 1] = b, a
    return out
