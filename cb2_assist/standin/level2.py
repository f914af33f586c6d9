"""What the l2cache says about a level-2 node: size, place, thickness and direction in its chunk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cb2_assist.standin.graph import Box, ChunkedGraph, Indices
from cb2_assist.standin.node_ids import Ids
from cb2_assist.standin.volume import SupervoxelVolume

ATTRIBUTES = {
    "area_nm2": "UInt32",
    "chunk_intersect_count": "UInt16",
    "max_dt_nm": "UInt16",
    "mean_dt_nm": "Float16",
    "pca": "Float16",
    "pca_val": "Float32",
    "rep_coord_nm": "UInt64",
    "size_nm3": "UInt32",
}
"""Names and the types that the real service keeps them in."""

Mask = NDArray[np.bool_]


def attributes(graph: ChunkedGraph, volume: SupervoxelVolume, node: int) -> dict[str, Any]:
    """All attributes of a node; empty when it holds no voxel.

    Args:
        graph: Says which supervoxels the node has.
        volume: Their voxels.
        node: Of layer 2.
    """
    return rows_of_chunk(graph, volume, [node])[node]


def rows_of_chunk(
    graph: ChunkedGraph, volume: SupervoxelVolume, nodes: Sequence[int]
) -> dict[int, dict[str, Any]]:
    """Attributes of nodes of layer 2 that lie in one chunk, whose voxels are read once."""
    chunk = graph.corner(nodes[0])
    box = volume.clip(Box(chunk.lo, chunk.hi))
    ids = volume.read(box)
    edge = np.array(list(volume.resolution), np.float64)
    return {node: _row(ids, graph.below(node), box.lo, edge) for node in nodes}


def _row(ids: Ids, members: list[int], lo: Indices, edge: NDArray[np.float64]) -> dict[str, Any]:
    mask = np.isin(ids, np.array(members, np.uint64))
    places = np.argwhere(mask)
    if not len(places):
        return {}
    # nothing beyond a border of one voxel round the node changes a distance or an area
    first = np.maximum(places.min(axis=0) - 1, 0)
    part = mask[tuple(slice(a, b + 2) for a, b in zip(first, places.max(axis=0), strict=True))]
    depth = _depth(part, edge)
    deepest = places[int(depth.argmax())]
    values, axes = _principal(places * edge)
    return {
        "area_nm2": round(_area(part, edge)),
        "chunk_intersect_count": _at_borders(places, mask.shape),
        "max_dt_nm": round(float(depth.max())),
        "mean_dt_nm": float(depth.mean()),
        "pca": axes,
        "pca_val": values,
        "rep_coord_nm": ((deepest + lo) * edge).round().astype(int).tolist(),
        "size_nm3": round(len(places) * math.prod(edge.tolist())),
    }


def _depth(mask: Mask, edge: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of each voxel of the mask to the nearest one outside, within the chunk."""
    from scipy import ndimage

    if mask.all():
        half = float((np.array(mask.shape) * edge).min()) / 2
        return np.full(mask.size, half)
    depth: NDArray[np.float64] = ndimage.distance_transform_edt(mask, sampling=edge)[mask]
    return depth


def _area(mask: Mask, edge: NDArray[np.float64]) -> float:
    """Faces between inside and outside, within the chunk."""
    face = math.prod(edge.tolist()) / edge
    return float(sum(np.diff(mask, axis=a).sum() * face[a] for a in range(3)))


def _at_borders(places: NDArray[np.int64], shape: tuple[int, ...]) -> list[list[int]]:
    """Voxels at the low and at the high border of the chunk, along x, y, z."""
    low = (places == 0).sum(axis=0)
    high = (places == np.array(shape) - 1).sum(axis=0)
    return [low.tolist(), high.tolist()]


def _principal(nm: NDArray[np.float64]) -> tuple[list[float], list[list[float]]]:
    """Spread along the principal axes, longest first, and the axes as rows."""
    if len(nm) < 2:
        return [0.0] * 3, np.eye(3).tolist()
    values, columns = np.linalg.eigh(np.cov(nm.T))
    return np.sqrt(values[::-1].clip(0)).tolist(), columns.T[::-1].tolist()
