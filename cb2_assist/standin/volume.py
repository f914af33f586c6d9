"""The supervoxels as voxels: read, searched around a point, described for clients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.geometry import BoxVx, PointVoxel, Resolution
from cb2_assist.datasets.layer import Layer
from cb2_assist.standin.errors import ApiError, bad_request
from cb2_assist.standin.graph import Box, ChunkedGraph, Indices
from cb2_assist.standin.node_ids import SUPERVOXEL, Ids

_SEARCH_VX = (4, 8, 14, 28)
"""How far around a point PyChunkedGraph looks for a supervoxel, in voxels of mean edge."""
_SCALE_KEYS = (
    "chunk_sizes",
    "compressed_segmentation_block_size",
    "encoding",
    "key",
    "resolution",
    "size",
    "voxel_offset",
)


class SupervoxelVolume:
    """A precomputed volume of supervoxel ids on this machine.

    Args:
        folder: Where it lies.
        chunk_vx: Voxels of a chunk of the graph.

    Raises:
        DatasetError: There is no such volume.
    """

    def __init__(self, folder: Path, chunk_vx: Sequence[int]) -> None:
        self.folder = folder
        self.chunk_vx: Indices = np.array(chunk_vx, np.int64)
        self._layer = Layer("segmentation", f"precomputed://file://{folder}", complete=False)

    @property
    def resolution(self) -> Resolution:
        """Voxel size, nm."""
        return self._layer.scales[0].resolution

    @property
    def box(self) -> Box:
        """Voxels that exist."""
        bounds = self._layer.scales[0].bounds
        return Box(np.array(list(bounds.lo), np.int64), np.array(list(bounds.hi), np.int64))

    @property
    def chunk_counts(self) -> tuple[int, int, int]:
        """Chunks of the graph along x, y, z."""
        x, y, z = (-(-(self.box.hi - self.box.lo) // self.chunk_vx)).tolist()
        return x, y, z

    def scales(self) -> list[dict[str, Any]]:
        """Scales as clients are told of them."""
        return [{k: s[k] for k in _SCALE_KEYS if k in s} for s in self._layer.info["scales"]]

    def read(self, box: Box) -> Ids:
        """Supervoxels of a box inside the volume, axes x, y, z."""
        lo, hi = (PointVoxel(*v.tolist()) for v in (box.lo, box.hi))
        return self._layer.read(0, BoxVx(lo, hi)).astype(np.uint64, copy=False)

    def clip(self, box: Box) -> Box:
        """The part of a box that lies in the volume."""
        return Box(np.maximum(box.lo, self.box.lo), np.minimum(box.hi, self.box.hi))

    def voxel_of(self, point_nm: NDArray[np.float64]) -> Indices:
        """Absolute voxel that holds a point."""
        at: Indices = np.floor(point_nm / self._edge_nm()).astype(np.int64)
        return at

    def supervoxel_near(self, graph: ChunkedGraph, node: int, point_nm: Sequence[float]) -> int:
        """Supervoxel under a node nearest to a point.

        A supervoxel is its own answer. Any other node is looked up as of when it was made, so that
        an id that was retired still finds its place.

        Raises:
            ApiError: No such supervoxel near the point, or the point is at the volume's edge.
        """
        layer = graph.ids.layer(node)
        if layer == SUPERVOXEL:
            return node
        if not SUPERVOXEL <= layer <= graph.ids.layers:
            raise ApiError(500, "list index out of range")
        at = graph.created(node) if graph.is_node(node) else None
        voxel = self.voxel_of(np.array(point_nm, np.float64))
        for reach in _SEARCH_VX:
            half = np.ceil(reach * self._edge_nm().mean() / self._edge_nm()).astype(np.int64)
            box = Box(voxel - half, voxel + half + 1)
            self._must_hold(box)
            found = self._nearest(graph, node, layer, at, box, voxel)
            if found is not None:
                return found
        raise bad_request(
            f"Could not determine supervoxel ID for coordinates {voxel.tolist()} - Lookup stage."
        )

    def _nearest(
        self,
        graph: ChunkedGraph,
        node: int,
        layer: int,
        at: float | None,
        box: Box,
        voxel: Indices,
    ) -> int | None:
        ids = self.read(box)
        own = [v for v in np.unique(ids).tolist() if v and graph.ancestor(v, layer, at) == node]
        if not own:
            return None
        places = np.argwhere(np.isin(ids, np.array(own, np.uint64)))
        away = (((places + box.lo - voxel) * self._edge_nm()) ** 2).sum(axis=1)
        return int(ids[tuple(places[int(away.argmin())])])

    def _must_hold(self, box: Box) -> None:
        """Refuse a box that leaves the volume, in the words of the reader of the real server."""
        for corner in (box.lo, box.hi):
            for axis, (value, lo, hi) in enumerate(
                zip(corner, self.box.lo, self.box.hi, strict=True)
            ):
                if not lo <= value <= hi:
                    raise ApiError(
                        500,
                        f"Value {value} (index={axis}) cannot be outside of inclusive range "
                        f"{lo} to {hi}",
                    )

    def _edge_nm(self) -> NDArray[np.float64]:
        return np.array(list(self.resolution), np.float64)


def default_chunk(resolution: Resolution) -> tuple[int, int, int]:
    """Voxels of a chunk that is about as long along each axis, a power of two up to 64.

    Storage chunks are 64 voxels, and a graph chunk must not cross their borders.
    """
    x, y, z = (2 ** round(math.log2(64 * resolution.finest / v)) for v in resolution)
    # slices are often thick; a chunk of very few would make every neurite a row of chips
    return max(16, x), max(16, y), max(16, z)
