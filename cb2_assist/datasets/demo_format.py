"""Names, numbers and info files of the demo's volumes, for packing and unpacking alike."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

VOXEL = (8.0, 8.0, 40.0)
"""Voxel size along x, y, z, nm."""

CHUNK = 64
BLOCK = 8

SEG_BASE, SEG_STEP = 864691128455135232, 37
TRUTH_BASE, TRUTH_STEP = 720575940379283456, 41
"""Ids are base + step * number: beyond 2**53, and nearer than doubles there can tell apart."""

SCALES = ((1, 1), (2, 1), (4, 1), (8, 2))
"""Coarser scales: factors across (x and y) and along z."""


def seg_ids(numbers: NDArray[np.int32]) -> NDArray[np.uint64]:
    """Segment ids of segment numbers from 1."""
    return np.uint64(SEG_BASE) + np.uint64(SEG_STEP) * numbers.astype(np.uint64)


def truth_ids(numbers: NDArray[np.int32]) -> NDArray[np.uint64]:
    """Ids of body numbers from 1."""
    return np.uint64(TRUTH_BASE) + np.uint64(TRUTH_STEP) * numbers.astype(np.uint64)


def scale_key(scale: tuple[int, int]) -> str:
    """Folder of a scale: its voxel size."""
    return "_".join(str(int(v * f)) for v, f in zip(VOXEL, (scale[0], *scale), strict=True))


def chunk_boxes(shape: tuple[int, int, int]) -> Iterator[tuple[str, tuple[slice, slice, slice]]]:
    """Name of each chunk of a volume of ``shape`` x, y, z, and its slices of ``[z, y, x]``."""
    edges = [[(lo, min(lo + CHUNK, n)) for lo in range(0, n, CHUNK)] for n in shape]
    for z, y, x in itertools.product(*reversed(edges)):
        name = "_".join(f"{lo}-{hi}" for lo, hi in (x, y, z))
        yield name, (slice(*z), slice(*y), slice(*x))


def info_of(
    kind: str, shape: tuple[int, int, int], scales: tuple[tuple[int, int], ...]
) -> dict[str, Any]:
    """Info file of a precomputed volume.

    Args:
        kind: ``em``, ``seg`` or ``truth``.
        shape: Voxels of the finest scale, x, y, z.
        scales: Factors of its scales.
    """
    image = kind == "em"
    encoding = "raw" if image else "compressed_segmentation"
    rows = []
    for across, along in scales:
        row: dict[str, Any] = {
            "key": scale_key((across, along)),
            "resolution": [int(v * f) for v, f in zip(VOXEL, (across, across, along), strict=True)],
            "voxel_offset": [0, 0, 0],
            "size": [-(-n // f) for n, f in zip(shape, (across, across, along), strict=True)],
            "chunk_sizes": [[CHUNK] * 3],
            "encoding": encoding,
        }
        if not image:
            row["compressed_segmentation_block_size"] = [BLOCK] * 3
        rows.append(row)
    info: dict[str, Any] = {
        "@type": "neuroglancer_multiscale_volume",
        "type": "image" if image else "segmentation",
        "data_type": "uint8" if image else "uint64",
        "num_channels": 1,
        "scales": rows,
    }
    if kind == "seg":
        info["mesh"] = "mesh"
    return info
