"""Surface meshes of a segmentation's segments, read with cloud-volume within bounds.

Memory and time stay bounded whatever a segment's size:

* legacy meshes (fragment files) are read whole up to `MAX_STORED_BYTES`; of larger ones only the
  fragments near the point, where their names say which voxels they cover (``…:0:0-512_0-512_0-64``,
  as igneous writes them); else there is no mesh;
* multi-resolution meshes are read at their finest level of detail within `MAX_STORED_BYTES`.

Nothing is simplified here: drawing is faster than simplifying.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.errors import BadVolumeError, DatasetError
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import SegmentId
from cb2_assist.datasets.layer import Layer, first_line
from cb2_assist.datasets.source import Mesh

MAX_STORED_BYTES = 1 << 28
"""Of one segment's mesh as stored: 256 MB, some ten million triangles when compressed."""
CACHE_BYTES = 1 << 29
"""Decoded meshes kept in memory."""

_BOUNDS = re.compile(r":(-?\d+)-(-?\d+)_(-?\d+)-(-?\d+)_(-?\d+)-(-?\d+)$")
_ORIENT_FACES = 1 << 20


class _Key(NamedTuple):
    segment: SegmentId
    parts: tuple[str, ...]


class MeshLayer:
    """Meshes of one segmentation. Safe to use from several threads.

    Args:
        layer: The segmentation; its info file says where the meshes are.
        max_stored_bytes: Most bytes to read for one segment.
        cache_bytes: Decoded meshes that may be kept in memory; the newest always stays.
    """

    def __init__(
        self,
        layer: Layer,
        *,
        max_stored_bytes: int = MAX_STORED_BYTES,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self._layer = layer
        self._max_stored_bytes = max_stored_bytes
        self._cache_bytes = cache_bytes
        self._kept: OrderedDict[_Key, Mesh] = OrderedDict()
        self._source: Any = None
        self._lock = threading.Lock()

    def near(self, segment: SegmentId, point: PointNm, reach_nm: float) -> Mesh | None:
        """The segment's surface, at least within `reach_nm` of the point along each axis.

        Returns:
            None when the segment has no mesh, or more than may be read.

        Raises:
            DatasetError: There is a mesh, but it cannot be read.
        """
        # one reader at a time: the second asks for the same segment more often than not
        with self._lock:
            # cloud-volume, its decoders and its storage back ends share no base for their errors
            try:
                return self._near(segment, point, reach_nm)
            except DatasetError:
                raise
            except Exception as e:
                raise DatasetError(
                    f"Cannot read the mesh of segment {segment} in {self._layer.cloudpath}: "
                    f'{first_line(e)}. Make the meshes again, or set geometry = "labels" in the '
                    "dataset file."
                ) from e

    def clear(self) -> None:
        """Forget all meshes."""
        with self._lock:
            self._kept.clear()

    def _near(self, segment: SegmentId, point: PointNm, reach_nm: float) -> Mesh | None:
        if self._source is None:
            self._source = self._layer.mesh_source()
        if hasattr(self._source, "get_manifest"):
            return self._multi_resolution(segment)
        return self._legacy(segment, point, reach_nm)

    def _multi_resolution(self, segment: SegmentId) -> Mesh | None:
        manifest = self._source.get_manifest(segment)
        sizes = [] if manifest is None else [int(np.sum(s)) for s in manifest.fragment_offsets]
        fitting = [lod for lod, size in enumerate(sizes) if 0 < size <= self._max_stored_bytes]
        if not fitting:
            return None
        key = _Key(segment, (f"lod {fitting[0]}",))
        if (kept := self._recall(key)) is not None:
            return kept
        got = self._source.get(segment, lod=fitting[0])[segment]
        return self._keep(key, outwards(got.vertices, got.faces))

    def _legacy(self, segment: SegmentId, point: PointNm, reach_nm: float) -> Mesh | None:
        from cloudfiles import CloudFiles
        from cloudvolume import Mesh as StoredMesh

        info = self._source.meta.info
        files = CloudFiles(f"{self._layer.cloudpath.removeprefix('precomputed://')}/{self._folder}")
        manifest = files.get_json(f"{segment}:0")
        names = [] if manifest is None else [str(n) for n in manifest["fragments"]]
        whole = self._affordable(files, names)
        if not whole:
            resolution = self._layer.scales[int(info.get("mip", 0))].resolution
            names = [n for n in names if _may_matter(n, point, reach_nm, tuple(resolution))]
            if not self._affordable(files, names):
                return None
        if not names:
            return None
        key = _Key(segment, tuple(names))
        if (kept := self._recall(key)) is not None:
            return kept
        contents = {f["path"]: f["content"] for f in files.get(names)}
        missing = [n for n in names if contents.get(n) is None]
        if missing:
            raise BadVolumeError(
                f"The mesh of segment {segment} in {self._layer.cloudpath} lacks {len(missing)} of "
                f"its {len(names)} fragments. Make the meshes again, or set "
                'geometry = "labels" in the dataset file.'
            )
        parts = [StoredMesh.from_precomputed(contents[n]) for n in names]
        joined = StoredMesh.concatenate(*parts)
        vertices, faces = _transformed(joined.vertices, info), joined.faces
        if len(parts) > 1:
            vertices, faces = welded(vertices, faces)
        mesh = outwards(vertices, faces) if whole else Mesh(vertices, faces)
        return self._keep(key, mesh)

    @property
    def _folder(self) -> str:
        return str(self._layer.mesh_folder)

    def _affordable(self, files: Any, names: list[str]) -> bool:  # noqa: ANN401  no types
        sizes = files.size(names) if names else {}
        return sum(size or 0 for size in sizes.values()) <= self._max_stored_bytes

    def _recall(self, key: _Key) -> Mesh | None:
        mesh = self._kept.get(key)
        if mesh is not None:
            self._kept.move_to_end(key)
        return mesh

    def _keep(self, key: _Key, mesh: Mesh) -> Mesh:
        self._kept[key] = mesh
        while len(self._kept) > 1 and sum(m.nbytes for m in self._kept.values()) > (
            self._cache_bytes
        ):
            self._kept.popitem(last=False)
        return mesh


def outwards(vertices: NDArray[Any], faces: NDArray[Any]) -> Mesh:
    """A mesh whose faces look outwards: turned over when they enclose a negative volume."""
    mesh = Mesh(vertices, faces)
    if not len(mesh.faces):
        return mesh
    middle = mesh.vertices.mean(0, dtype=np.float64)
    volume = 0.0
    for start in range(0, len(mesh.faces), _ORIENT_FACES):
        a, b, c = (
            mesh.vertices[mesh.faces[start : start + _ORIENT_FACES, k]] - middle for k in range(3)
        )
        volume += float(np.einsum("ij,ij->", np.cross(a, b), c))
    return Mesh(mesh.vertices, mesh.faces[:, ::-1]) if volume < 0 else mesh


def _may_matter(name: str, point: PointNm, reach_nm: float, resolution: tuple[float, ...]) -> bool:
    """Whether a fragment may come within reach; one whose name says nothing may."""
    bounds = _BOUNDS.search(name)
    if bounds is None:
        return True
    at = [int(v) for v in bounds.groups()]
    # marching cubes reach one voxel beyond the bounds
    return all(
        (lo - 1) * r <= p + reach_nm and (hi + 1) * r >= p - reach_nm
        for lo, hi, p, r in zip(at[::2], at[1::2], point, resolution, strict=True)
    )


def _transformed(vertices: NDArray[Any], info: dict[str, Any]) -> NDArray[Any]:
    if "transform" not in info:
        return vertices
    matrix = np.array(info["transform"], np.float64).reshape(3, 4)
    return vertices @ matrix[:, :3].T + matrix[:, 3]


def welded(vertices: NDArray[Any], faces: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """One vertex where fragments repeat it, so that normals are smooth across their borders."""
    unique, index = np.unique(vertices, axis=0, return_inverse=True)
    return unique, index.reshape(-1)[faces]
