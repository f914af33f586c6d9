"""Meshes of a graph's objects, only what lies near a point: a neuron has thousands of fragments.

A place that would take more than `MOST_PARTS` fragments is shown in part: the nearest of them. The
meshes of a new object are made minutes after the edit; until then there are fewer, or none.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cb2_assist.core.errors import DatasetError
from cb2_assist.core.geometry import BoxVx, PointVoxel
from cb2_assist.core.patience import wait_for
from cb2_assist.core.records import SegmentId
from cb2_assist.datasets.cave.connection import Connection
from cb2_assist.datasets.cave.graph import Graph
from cb2_assist.datasets.layer import first_line
from cb2_assist.datasets.mesh_layer import welded
from cb2_assist.datasets.source import Mesh

MOST_PARTS = 800
"""Fragments of one mesh that are read, about 100 kB each."""
_KEPT = 16
_ANSWER_S = 90.0


class GraphMeshes:
    """Meshes of one graph. Safe to use from several threads."""

    def __init__(self, connection: Connection, graph: Graph) -> None:
        self._connection, self._graph = connection, graph
        self._pool = ThreadPoolExecutor(2, "meshes")
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[SegmentId, BoxVx], Mesh | None] = OrderedDict()
        self._volume: Any = None

    def near(self, segment: SegmentId, box: BoxVx) -> Mesh | None:
        """Surface of an object in the chunks that a box touches.

        Args:
            segment: The object.
            box: In voxels of the finest scale.

        Returns:
            None when there is none.

        Raises:
            DatasetError: There is one, but it cannot be read.
        """
        if self._connection.account.token is None:
            return None  # cloud-volume reads no graph without one
        with self._lock:
            if (segment, box) in self._kept:
                self._kept.move_to_end((segment, box))
                return self._kept[segment, box]
        wanted, smaller = box, _smaller(box)
        # one voxel's chunk is read in any case
        while smaller != wanted and len(self._graph.parts(segment, wanted)) > MOST_PARTS:
            wanted, smaller = smaller, _smaller(smaller)
        future = self._pool.submit(self._read, segment, wanted)
        (mesh,) = wait_for([future], f"{self._connection.stack.name}: mesh of {segment}", _ANSWER_S)
        with self._lock:
            if mesh is not None:  # one that is missing may come yet
                self._kept[segment, box] = mesh
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return mesh

    def close(self) -> None:
        """Stop reading."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._kept.clear()

    def _read(self, segment: SegmentId, box: BoxVx) -> Mesh | None:
        from cloudvolume import Bbox

        # cloud-volume, its decoders and its storage back ends share no base for their errors
        try:
            found = self._open().mesh.get(
                segment,
                bounding_box=Bbox(tuple(box.lo), tuple(box.hi)),
                allow_missing=True,
                # where it cannot, it says so on stdout, which is ours
                deduplicate_chunk_boundaries=False,
            )
        except IndexError:
            return None
        except Exception as e:
            raise DatasetError(
                f"Cannot read the mesh of {segment} from {self._connection.stack.name}: "
                f"{type(e).__name__}: {first_line(e)[:120]}. Try again, or set "
                'geometry = "labels".'
            ) from e
        mesh = found.get(segment)
        if mesh is None or not len(mesh.faces):
            return None
        return Mesh(*welded(mesh.vertices, mesh.faces))

    def _open(self) -> Any:  # noqa: ANN401 - cloud-volume has no types
        from cloudvolume import CloudVolume

        with self._lock:
            if self._volume is None:
                connection = self._connection
                assert connection.account.token is not None
                self._volume = CloudVolume(
                    connection.segmentation,
                    mip=0,
                    use_https=True,
                    progress=False,
                    secrets=connection.account.token.value,
                )
            return self._volume


def _smaller(box: BoxVx) -> BoxVx:
    """Three quarters of a box along each axis, about its middle."""
    lo, hi = [], []
    for a, b in zip(box.lo, box.hi, strict=True):
        cut = max(1, (b - a) // 8)
        lo.append(min(a + cut, (a + b) // 2))
        hi.append(max(b - cut, (a + b) // 2 + 1))
    return BoxVx(PointVoxel(*lo), PointVoxel(*hi))
