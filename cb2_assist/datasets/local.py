"""A dataset.toml as a `Source`: precomputed volumes on this machine or at a public address."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.errors import BadVolumeError, DatasetError, OutOfBoundsError
from cb2_assist.core.geometry import BoxVx, PointNm, PointVoxel, Resolution
from cb2_assist.core.patience import wait_for
from cb2_assist.core.records import SegmentId
from cb2_assist.datasets.chunk_cache import DEFAULT_BYTES, ChunkCache, ChunkKey
from cb2_assist.datasets.dataset_file import DatasetFile, local_folder, read_dataset_file
from cb2_assist.datasets.layer import Fit, Layer, fit_to
from cb2_assist.datasets.locate import (
    SEARCH_S,
    around,
    first_point,
    mesh_places,
    scale_places,
)
from cb2_assist.datasets.mesh_layer import MeshLayer
from cb2_assist.datasets.source import Cutout, DatasetInfo, EmStatistics, Mesh, ViewerLayers

_MAX_CUTOUT_VX = 2**30
_SAMPLE_CHUNKS = 64
_REMOTE_THREADS = 10
"""Requests at once to a bucket, as many as the storage library keeps connections for."""
_REMOTE_S = 120.0
"""Longest wait for the blocks of one cutout; the storage library tries again by itself."""

Value = TypeVar("Value", np.uint8, np.uint64)


def open_dataset_file(path: Path, *, cache_bytes: int = DEFAULT_BYTES) -> LocalSource:
    """Open the dataset that a dataset.toml describes.

    Args:
        path: The dataset.toml.
        cache_bytes: Decoded voxels that may be kept in memory.

    Raises:
        DatasetError: The file or a volume is missing or damaged, or the volumes do not fit.
    """
    return LocalSource(read_dataset_file(path), cache_bytes=cache_bytes)


class LocalSource:
    """EM and segments of one dataset.toml on the segmentation's grid.

    Chunks are read once and kept, so that a second cutout at the same place is a memory copy.

    Args:
        dataset: What the file says.
        cache_bytes: Decoded voxels that may be kept in memory.
        seg_info: The segmentation's info file, where its folder does not have it.

    Raises:
        DatasetError: A volume is missing or damaged, or the volumes do not fit.
    """

    def __init__(
        self,
        dataset: DatasetFile,
        *,
        cache_bytes: int = DEFAULT_BYTES,
        seg_info: dict[str, Any] | None = None,
    ) -> None:
        self._dataset = dataset
        seg = Layer("segmentation", dataset.segmentation, complete=dataset.complete, info=seg_info)
        em = Layer("em", dataset.em, complete=dataset.complete)
        if dataset.mip >= len(seg.scales):
            raise DatasetError(
                f"mip = {dataset.mip}, but {dataset.segmentation} has the scales 0 to "
                f"{len(seg.scales) - 1}."
            )
        self._scale = seg.scales[dataset.mip]
        self._resolution = self._scale.resolution
        self._layers = {"seg": seg, "em": em}
        self._fits = {name: self._fit(name) for name in self._layers}
        self._grids = {name: self._grid(name) for name in self._layers}
        self._bounds = self._common_bounds()
        self._info = DatasetInfo(
            name=dataset.name,
            version=dataset.version or seg.info_id,
            species=dataset.species,
            licence=dataset.licence,
            citation=dataset.citation,
        )
        self._meshes = MeshLayer(seg) if seg.mesh_folder else None
        if self._meshes is None and dataset.geometry == "meshes":
            raise DatasetError(
                f"The dataset {dataset.name} asks for views from meshes, but its segmentation "
                f"{dataset.segmentation} has none. Import it again, which makes meshes, or set "
                'geometry = "labels".'
            )
        self._lock = threading.Lock()
        self._em_statistics = dataset.em_statistics
        self._cache = ChunkCache(self._load, cache_bytes)
        remote = any(
            local_folder(p) is None for p in (dataset.em, dataset.segmentation, dataset.truth) if p
        )
        self._pool = ThreadPoolExecutor(_REMOTE_THREADS, "chunks") if remote else None
        self._closed = False

    @property
    def info(self) -> DatasetInfo:
        """Name, version, licence."""
        return self._info

    @property
    def resolution(self) -> Resolution:
        """Voxel size of the segmentation, nm; cutouts have it too."""
        return self._resolution

    @property
    def bounds(self) -> BoxVx:
        """Voxels that have both EM and segments."""
        return self._bounds

    @property
    def em_statistics(self) -> EmStatistics:
        """Grey level as import measured it, else of up to 64 chunks spread over the volume."""
        with self._lock:
            if self._em_statistics is None:
                self._em_statistics = self._measure_em()
            return self._em_statistics

    @property
    def layers(self) -> ViewerLayers:
        """Local volumes below ``/data/em`` and ``/data/seg``, others at their own address."""
        roots: dict[str, Path] = {}
        urls = {}
        for name, path in (("em", self._dataset.em), ("seg", self._dataset.segmentation)):
            folder = local_folder(path)
            if folder is None:
                urls[name] = f"precomputed://{path.removeprefix('precomputed://')}"
            else:
                roots[name] = folder
                urls[name] = name
        return ViewerLayers(urls["em"], urls["seg"], self._layers["em"].scales[0].resolution, roots)

    @property
    def geometry(self) -> str:
        """What geometry views are made from, as the dataset file says."""
        return self._dataset.geometry

    def mesh(self, segment: SegmentId, point: PointNm, reach_nm: float) -> Mesh | None:
        """Surface of a segment, at least within reach of the point along each axis.

        Returns:
            None when the segment has no mesh, or one too large to be read (`mesh_layer`).

        Raises:
            DatasetError: There is one, but it cannot be read.
        """
        self._check_open()
        return self._meshes.near(segment, point, reach_nm) if self._meshes else None

    @property
    def has_truth(self) -> bool:
        """Whether the dataset file names a truth."""
        return self._dataset.truth is not None

    def segment_at(self, point: PointNm) -> SegmentId:
        """Segment that holds the point; 0 on background.

        Raises:
            OutOfBoundsError: The point lies outside the volume.
            DatasetError: The data cannot be read.
        """
        voxel = point.to_voxel(self._resolution)
        if not self._bounds.contains(voxel):
            lo, hi = self._edges_nm(self._bounds)
            raise OutOfBoundsError(
                f"The point {tuple(point)} nm lies outside {self._dataset.name}, which reaches "
                f"from {lo} to {hi} nm. Move into the volume."
            )
        box = BoxVx(voxel, PointVoxel(voxel.x + 1, voxel.y + 1, voxel.z + 1))
        return SegmentId(int(self._gather("seg", box, np.uint64)[0, 0, 0]))

    def locate(self, segment: SegmentId) -> PointNm | None:
        """A point inside a segment: by its mesh, else by searching the voxels for some seconds.

        Returns:
            None when it is not there, or the volume is too large to be searched in that time.

        Raises:
            DatasetError: The data cannot be read.
        """
        layer, folder = self._layers["seg"], local_folder(self._dataset.segmentation)
        if folder is not None:
            places = mesh_places(folder, layer.info, segment)
            near = (around(p, self._resolution) for p in places)
            if (point := first_point(near, self.cutout, segment)) is not None:
                return point
        found = scale_places(layer, segment, time.monotonic() + SEARCH_S)
        return first_point(found, self.cutout, segment)

    def cutout(self, box: BoxVx) -> Cutout:
        """EM and segments of ``box`` clipped to the bounds; the caller owns the arrays.

        Raises:
            DatasetError: The data cannot be read, or the box is too large.
        """
        b = box.clip(self._bounds)
        return Cutout(
            b,
            self._resolution,
            self._gather("em", b, np.uint8),
            self._gather("seg", b, np.uint64),
        )

    def truth_cutout(self, box: BoxVx) -> NDArray[np.uint64]:
        """True segments of ``box`` clipped to the bounds, x, y, z, Fortran order.

        Only simulation and evaluation may read it.

        Raises:
            DatasetError: The dataset has no truth, or it cannot be read.
        """
        self._open_truth()
        return self._gather("truth", box.clip(self._bounds), np.uint64)

    def close(self) -> None:
        """Let go of the memory; later reads raise DatasetError."""
        self._closed = True
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        self._cache.clear()
        if self._meshes is not None:
            self._meshes.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise DatasetError(f"The dataset {self._dataset.name} was closed. Open it again.")

    def _gather(self, layer: str, box: BoxVx, dtype: type[Value]) -> NDArray[Value]:
        self._check_open()
        x, y, z = box.shape
        if x * y * z > _MAX_CUTOUT_VX:
            raise DatasetError(
                f"A cutout of {x} x {y} x {z} voxels is too large (at most {_MAX_CUTOUT_VX} "
                "voxels). Ask for smaller boxes."
            )
        out = np.empty(box.shape, dtype, order="F")
        keys = list(self._cells(layer, box))
        chunks = self._each(layer, self._cache.get, keys)
        for key, chunk in zip(keys, chunks, strict=True):
            cell = self._cell_box(key)
            part = box.clip(cell)
            out[_slices(part, box)] = chunk[_slices(part, cell)]
        return out

    def _each(
        self, layer: str, read: Callable[[ChunkKey], NDArray[Any]], keys: list[ChunkKey]
    ) -> Iterable[NDArray[Any]]:
        """Chunks in order; those of a server are fetched side by side, within a time."""
        if self._pool is None:
            return map(read, keys)
        try:
            futures = [self._pool.submit(read, key) for key in keys]
        except RuntimeError:  # closed meanwhile
            self._check_open()
            raise
        words = f"{len(keys)} blocks of {'segments' if layer == 'seg' else layer}"
        return wait_for(futures, f"{self._dataset.name}: {words}", _REMOTE_S)

    def _grid(self, name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Where the cells of a layer begin and how large they are, in voxels of the cutouts.

        They are the chunks as stored, so that none is fetched and decoded twice. Where those do
        not come out in whole voxels, the segmentation's serve.
        """
        fit = self._fits[name]
        stored = self._layers[name].scales[fit.scale]
        rows = list(zip(stored.bounds.lo, stored.chunk, fit.shrink, fit.grow, strict=True))
        if any(lo * g % s or c * g % s for lo, c, s, g in rows):
            return tuple(self._scale.bounds.lo), self._scale.chunk
        return tuple(lo * g // s for lo, _, s, g in rows), tuple(c * g // s for _, c, s, g in rows)

    def _cells(self, layer: str, box: BoxVx) -> Iterator[ChunkKey]:
        if box.is_empty:
            return
        origin, cell = self._grids[layer]
        ranges = [
            range((a - o) // c, (b - 1 - o) // c + 1)
            for a, b, o, c in zip(box.lo, box.hi, origin, cell, strict=True)
        ]
        for z, y, x in itertools.product(*reversed(ranges)):
            yield ChunkKey(layer, x, y, z)

    def _cell_box(self, key: ChunkKey) -> BoxVx:
        origin, cell = self._grids[key.layer]
        lo = [o + i * c for o, i, c in zip(origin, (key.x, key.y, key.z), cell, strict=True)]
        hi = [a + c for a, c in zip(lo, cell, strict=True)]
        return BoxVx(PointVoxel(*lo), PointVoxel(*hi)).clip(self._bounds)

    def _load(self, key: ChunkKey) -> NDArray[Any]:
        voxels = self._fits[key.layer].read(self._layers[key.layer], self._cell_box(key))
        return voxels if key.layer == "em" else voxels.astype(np.uint64, copy=False)

    def _fit(self, name: str) -> Fit:
        layer = self._layers[name]
        fit = fit_to(layer, self._resolution)
        if fit is None:
            raise BadVolumeError(
                f"The voxels of em, {tuple(layer.scales[0].resolution)} nm, and of segmentation, "
                f"{tuple(self._resolution)} nm, must fit by whole numbers along each axis. "
                "Resample one of the two."
            )
        return fit

    def _common_bounds(self) -> BoxVx:
        bounds = self._fits["seg"].bounds.clip(self._fits["em"].bounds)
        if bounds.is_empty:
            raise BadVolumeError(
                "The EM and the segmentation do not overlap: the EM reaches from "
                "{} to {} nm, the segmentation from {} to {} nm. Correct the offset of one.".format(
                    *self._edges_nm(self._fits["em"].bounds),
                    *self._edges_nm(self._fits["seg"].bounds),
                )
            )
        return bounds

    def _open_truth(self) -> None:
        with self._lock:
            if "truth" in self._layers:
                return
            if self._dataset.truth is None:
                raise DatasetError(
                    f"The dataset {self._dataset.name} has no truth. Import it with --truth, or "
                    'add truth = "precomputed://..." to its dataset file.'
                )
            truth = Layer("truth", self._dataset.truth, complete=self._dataset.complete)
            fit = fit_to(truth, self._resolution)
            exact = fit is not None and fit.shrink == fit.grow == (1, 1, 1)
            if fit is None or not exact or not fit.bounds.covers(self._bounds):
                raise BadVolumeError(
                    f"The truth of {self._dataset.name} must cover the segmentation with the same "
                    f"voxels of {tuple(self._resolution)} nm; it has "
                    f"{tuple(truth.scales[0].resolution)} nm. Import it again with the dataset."
                )
            self._fits["truth"] = fit
            self._layers["truth"] = truth
            self._grids["truth"] = self._grids["seg"]

    def _measure_em(self) -> EmStatistics:
        cells = list(self._cells("em", self._bounds))
        if len(cells) > _SAMPLE_CHUNKS:
            picked = np.linspace(0, len(cells) - 1, _SAMPLE_CHUNKS).round().astype(int)
            cells = [cells[i] for i in picked]
        n = total = squares = 0
        blocks = [
            np.bincount(block.ravel(order="K"), minlength=256)
            for block in self._each("em", self._load, cells)
        ]
        # volumes are boxes, tissue is not: what lies around it is black
        tissue = [counts for counts in blocks if counts[1:].any()] or blocks
        for counts in tissue:
            n += int(counts.sum())
            total += int(counts @ np.arange(256))
            squares += int(counts @ np.arange(256) ** 2)
        mean = total / n
        return EmStatistics(mean, max(0.0, squares / n - mean * mean) ** 0.5)

    def _edges_nm(self, box: BoxVx) -> tuple[tuple[float, ...], tuple[float, ...]]:
        lo = tuple(v * s for v, s in zip(box.lo, self._resolution, strict=True))
        hi = tuple(v * s for v, s in zip(box.hi, self._resolution, strict=True))
        return lo, hi


def _slices(part: BoxVx, whole: BoxVx) -> tuple[slice, slice, slice]:
    x, y, z = (slice(a - o, b - o) for a, b, o in zip(part.lo, part.hi, whole.lo, strict=True))
    return x, y, z
