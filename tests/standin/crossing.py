"""Three neurites with ready supervoxels: one is in two pieces, two are one object.

The volume on which exchanges of a real PyChunkedGraph were recorded: 256 x 256 x 64 voxels of
8 x 8 x 40 nm, 4 x 4 x 4 chunks. Neurite 1 runs along x and is broken at x = 100; neurite 2 runs
along y and is one object with the far piece of neurite 1; neurite 3 runs along z, alone.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from cloudvolume import CloudVolume
from numpy.typing import NDArray
from scipy import ndimage

from cb2_assist.core.geometry import Resolution
from cb2_assist.standin.graph import Watershed
from cb2_assist.standin.node_ids import SUPERVOXEL, NodeIds
from cb2_assist.standin.served import Served
from cb2_assist.standin.volume import SupervoxelVolume

SHAPE = (256, 256, 64)
CHUNK = (64, 64, 16)
NM = (8, 8, 40)
LEFT, RIGHT, ACROSS, ALONG_Z = 1, 2, 3, 4
"""Pieces of neurites: the first one's two, then the other neurites."""


def crossing(folder: Path) -> Served:
    """Write the volume and say what it is made of."""
    piece = _pieces()
    ids = NodeIds.for_chunks([n // c for n, c in zip(SHAPE, CHUNK, strict=True)])
    supervoxels, owner = _supervoxels(piece, ids)
    _write(folder / "ws", "segmentation", supervoxels)
    noise = np.random.default_rng(0).normal(120, 40, SHAPE)
    em = (noise + 60 * (piece > 0)).clip(0, 255).astype(np.uint8)
    _write(folder / "em", "image", em)
    names = np.array(sorted(owner), np.uint64)
    pairs, area = _contacts(supervoxels)
    owners = [{owner[a], owner[b]} for a, b in pairs.tolist()]
    same = np.array([len(o) == 1 for o in owners])
    # the false merge: neurite 2 and what it crosses
    false = np.array([ACROSS in o and o < {LEFT, RIGHT, ACROSS} and len(o) == 2 for o in owners])
    affinity = np.where(same, 0.95, np.where(false, 0.6, 0.1)).astype(np.float32)
    watershed = Watershed(
        names, np.searchsorted(names, pairs).astype(np.int64), affinity, area, same | false
    )
    return Served(SupervoxelVolume(folder / "ws", CHUNK), watershed, folder / "em", Resolution(*NM))


def _pieces() -> NDArray[np.uint8]:
    x, y, z = np.indices(SHAPE)
    piece = np.zeros(SHAPE, np.uint8)
    first = ((y - 70) * 8) ** 2 + ((z - 30) * 40) ** 2 < 200**2
    piece[first] = np.where(x < 100, LEFT, RIGHT)[first]
    second = ((x - 128) * 8) ** 2 + ((z - 36) * 40) ** 2 < 200**2
    piece[second & (piece == 0)] = ACROSS
    third = ((x - 60) * 8) ** 2 + ((y - 180) * 8) ** 2 < 220**2
    piece[third & (piece == 0)] = ALONG_Z
    return piece


def _supervoxels(
    piece: NDArray[np.uint8], ids: NodeIds
) -> tuple[NDArray[np.uint64], dict[int, int]]:
    out = np.zeros(SHAPE, np.uint64)
    owner: dict[int, int] = {}
    for chunk in np.ndindex(4, 4, 4):
        part = tuple(slice(i * c, (i + 1) * c) for i, c in zip(chunk, CHUNK, strict=True))
        number = 0
        for name in (LEFT, RIGHT, ACROSS, ALONG_Z):
            labels, n = ndimage.label(piece[part] == name)
            for k in range(1, n + 1):
                number += 1
                node = ids.base(SUPERVOXEL, chunk) | number
                out[part][labels == k] = node
                owner[node] = name
    return out, owner


def _contacts(supervoxels: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    faces = []
    for axis in range(3):
        a = supervoxels.take(range(SHAPE[axis] - 1), axis)
        b = supervoxels.take(range(1, SHAPE[axis]), axis)
        touch = (a != b) & (a > 0) & (b > 0)
        faces.append(np.sort(np.stack([a[touch], b[touch]], axis=1), axis=1))
    pairs, area = np.unique(np.concatenate(faces), axis=0, return_counts=True)
    return pairs, area.astype(np.int64)


def _write(folder: Path, kind: str, voxels: NDArray[np.generic]) -> None:
    segments = kind == "segmentation"
    info = CloudVolume.create_new_info(
        1,
        kind,
        str(voxels.dtype),
        "compressed_segmentation" if segments else "raw",
        NM,
        (0, 0, 0),
        SHAPE,
        chunk_size=CHUNK,
    )
    volume = CloudVolume(f"file://{folder}", info=info, compress="gzip", progress=False)
    volume.commit_info()
    volume[:, :, :] = voxels


@functools.cache
def crossing_parts() -> dict[int, tuple[int, tuple[float, float, float]]]:
    """Of each supervoxel: which neurite it is of, and a point in it, nm."""
    ids = NodeIds.for_chunks([n // c for n, c in zip(SHAPE, CHUNK, strict=True)])
    supervoxels, owner = _supervoxels(_pieces(), ids)
    names, first = np.unique(supervoxels.ravel(), return_index=True)
    out = {}
    for node, at in zip(names.tolist(), first.tolist(), strict=True):
        x, y, z = (
            (float(v) + 0.5) * r for v, r in zip(np.unravel_index(at, SHAPE), NM, strict=True)
        )
        out[node] = owner.get(node, 0), (x, y, z)
    return out
