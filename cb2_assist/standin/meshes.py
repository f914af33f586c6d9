"""Surfaces of level-2 nodes as Draco fragments, made when they are first asked for.

A fragment ends at its chunk's border and shares the border's vertices with the next one, so that
clients can stitch them. As in the real meshes, vertex coordinates are voxel indices times the voxel
size: half a voxel below the place that `core.geometry` gives a voxel's centre.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cb2_assist.standin.graph import FIRST_TIME, Box, ChunkedGraph
from cb2_assist.standin.volume import SupervoxelVolume

FOLDER = "graphene_meshes"
"""Where clients look for fragments, below the volume."""
DYNAMIC = "dynamic"
"""Where they look for those of nodes that edits made."""

Fragment = bytes


class FragmentMeshes:
    """Fragments of one graph.

    Args:
        graph: Read under `lock`.
        volume: Its voxels.
        lock: The graph's.
    """

    def __init__(
        self, graph: ChunkedGraph, volume: SupervoxelVolume, lock: threading.RLock
    ) -> None:
        self._graph, self._volume, self._lock = graph, volume, lock
        self._made: dict[int, Fragment] = {}

    @property
    def grid_nm(self) -> float:
        """Vertices lie on multiples of this: half of the finest voxel edge."""
        return self._volume.resolution.finest / 2

    def is_initial(self, node: int) -> bool:
        """Whether a node was there from the start, so that its fragment is in a shard."""
        return self._graph.created(node) == FIRST_TIME

    def name(self, node: int) -> str:
        """File name of a fragment, which says its chunk."""
        edge = self._graph.chunk_vx
        lo = np.array(self._graph.ids.chunk(node), np.int64) * edge
        box = "_".join(f"{a}-{b}" for a, b in zip(lo, lo + edge, strict=True))
        return f"{node}:0:{box}"

    def shard(self, node: int) -> str:
        """File name of the shard that holds a node's fragment, and nothing else."""
        return f"{node}-0.shard"

    def fragment(self, node: int) -> Fragment:
        """Draco bytes of a level-2 node; empty when it has no surface in its chunk."""
        found = self._made.get(node)
        if found is None:
            found = self._made[node] = self._make(node)
        return found

    def _make(self, node: int) -> Fragment:
        mask, lo = self._mask(node)
        if mask.all() or not mask.any():
            return b""
        from skimage import measure

        marching_cubes: Any = measure.marching_cubes  # typed in some releases, untyped in others
        vertices, faces, _, _ = marching_cubes(
            mask.astype(np.float32), 0.5, gradient_direction="ascent", allow_degenerate=False
        )
        nm = (vertices + lo) * np.array(list(self._volume.resolution))
        return encode(nm.astype(np.float32), faces.astype(np.uint32), self.grid_nm)

    def _mask(self, node: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """The node's voxels, one layer into the next chunks, and where the array starts."""
        chunk = self._graph.corner(node)
        box = self._volume.clip(Box(chunk.lo, chunk.hi + 1))
        ids = self._volume.read(box)
        with self._lock:
            own = self._graph.below(node)
            beyond = [v for v in np.unique(ids).tolist() if v and self._continues(node, v)]
        mask = np.isin(ids, np.array(own, np.uint64))
        inside = np.ones(ids.shape, bool)
        for axis, size in enumerate((chunk.hi - box.lo).tolist()):
            inside[(slice(None),) * axis + (slice(size, None),)] = False
        mask |= np.isin(ids, np.array(beyond, np.uint64)) & ~inside
        # where the volume ends, so does the surface
        ends = [
            (int(a == first), int(b == last))
            for a, b, first, last in zip(
                box.lo, box.hi, self._volume.box.lo, self._volume.box.hi, strict=True
            )
        ]
        return np.pad(mask, ends), box.lo - np.array([before for before, _ in ends])

    def _continues(self, node: int, supervoxel: int) -> bool:
        """Whether a supervoxel was part of the node's object when the node was new."""
        at = self._graph.created(node)
        return self._graph.ancestor(supervoxel, at=at) == self._graph.ancestor(node, at=at)


def encode(vertices: NDArray[np.float32], faces: NDArray[np.uint32], grid_nm: float) -> Fragment:
    """Draco bytes of a mesh whose vertices are moved to a grid that all fragments share."""
    import DracoPy

    lo = np.floor(vertices.min(axis=0) / grid_nm) * grid_nm
    span = float((vertices.max(axis=0) - lo).max()) / grid_nm + 1
    bits = max(1, math.ceil(math.log2(span + 1)))
    return bytes(
        DracoPy.encode(
            vertices,
            faces,
            quantization_bits=bits,
            quantization_range=grid_nm * (2**bits - 1),
            quantization_origin=lo.tolist(),
            create_metadata=True,
        )
    )


def mesh_info(chunk_vx: Sequence[int], layers: int) -> dict[str, Any]:
    """The ``info`` file of the mesh folder."""
    spec = {
        "@type": "neuroglancer_uint64_sharded_v1",
        "preshift_bits": 0,
        "hash": "murmurhash3_x86_128",
        "minishard_bits": 0,
        "shard_bits": 0,
        "minishard_index_encoding": "gzip",
        "data_encoding": "raw",
    }
    return {
        "@type": "neuroglancer_legacy_mesh",
        "mip": 0,
        "chunk_size": list(chunk_vx),
        "spatial_index": None,
        "sharding": {str(layer): spec for layer in range(2, layers + 1)},
    }
