"""Writes a whole local dataset: EM, segmentation, truth, meshes, dataset.toml.

The folder appears under its name only when everything in it is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.errors import BadVolumeError, DatasetError
from cb2_assist.core.geometry import BoxVx
from cb2_assist.datasets import meshes, precomputed
from cb2_assist.datasets.dataset_file import FILE_NAME, DatasetFile, write_dataset_file
from cb2_assist.datasets.meshes import write_meshes
from cb2_assist.datasets.meter import Meter, Progress
from cb2_assist.datasets.partial_folder import appearing
from cb2_assist.datasets.precomputed import Grid, write_em, write_segmentation
from cb2_assist.datasets.segment_table import EmHistogram, SegmentSizes, VersionDigest
from cb2_assist.datasets.source import EmStatistics
from cb2_assist.datasets.voxels import BLOCK_VX, Voxels, as_voxels, whole

MESH_MIN_VOXELS = 1000
"""Smaller segments get no mesh unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Volume:
    """Voxels of one dataset, axes x, y, z, all of one shape, on one grid.

    Arrays in memory, or anything that is read box by box.

    Attributes:
        em: uint8.
        seg: uint64 segment ids, 0 is background.
        truth: Segments as they should be, or None.
    """

    grid: Grid
    em: Voxels | NDArray[np.uint8]
    seg: Voxels | NDArray[np.uint64]
    truth: Voxels | NDArray[np.uint64] | None = None


@dataclass(frozen=True, slots=True)
class Description:
    """What every label from this dataset will carry."""

    name: str
    species: str = "other"
    licence: str = "unknown"
    citation: str = ""


def write_dataset(
    out: Path,
    volume: Volume,
    description: Description,
    *,
    mesh_min_voxels: int = MESH_MIN_VOXELS,
    progress: Progress | Meter | None = None,
    most_vx: int = BLOCK_VX,
) -> Path:
    """Write a dataset that `LocalSource` opens and the viewer shows.

    Args:
        out: Folder to make. It must not exist, or be empty.
        volume: Voxels and where they lie.
        description: Name, species, licence, citation.
        mesh_min_voxels: Segments with fewer voxels get no mesh.
        progress: Takes lines about how far the work is.
        most_vx: Voxels in memory as one array.

    Returns:
        The dataset.toml.

    Raises:
        BadVolumeError: There is no segment, or voxels cannot be read.
        DatasetError: The folder is in use or cannot be written. Nothing is left behind.
    """
    meter = progress if isinstance(progress, Meter) else Meter(progress)
    out = out.expanduser().absolute()
    check_out(out)
    with appearing(out) as folder:
        written = _Writing(folder, volume, meter, most_vx)
        statistics = written.em()
        version = written.segments(mesh_min_voxels)
        write_dataset_file(
            folder / FILE_NAME,
            DatasetFile(
                name=description.name,
                em="precomputed://file://em",
                segmentation="precomputed://file://seg",
                truth=None if volume.truth is None else "precomputed://file://truth",
                species=description.species,
                licence=description.licence,
                citation=description.citation,
                version=version,
                em_statistics=statistics,
                complete=True,
            ),
        )
    return out / FILE_NAME


class _Writing:
    """The parts of one dataset, each written in one pass over its voxels."""

    def __init__(self, folder: Path, volume: Volume, meter: Meter, most_vx: int) -> None:
        self._folder, self._volume = folder, volume
        self._meter, self._most_vx = meter, most_vx
        shape, grid = as_voxels(volume.seg).shape, volume.grid
        meter.plan(precomputed.work_of(shape, grid, em=True) + meshes.work_of(shape))
        for _ in (v for v in (volume.seg, volume.truth) if v is not None):
            meter.plan(precomputed.work_of(shape, grid, em=False))

    def em(self) -> EmStatistics:
        """Write the EM; returns its mean and spread."""
        self._meter.stage("writing EM")
        histogram = EmHistogram()
        write_em(
            self._folder / "em",
            self._volume.em,
            self._volume.grid,
            watch=lambda _box, block: histogram.see(block),
            meter=self._meter,
            most_vx=self._most_vx,
        )
        return EmStatistics(*histogram.mean_std())

    def segments(self, mesh_min_voxels: int) -> str:
        """Write segmentation, truth and meshes; returns the segmentation's version."""
        meter, grid = self._meter, self._volume.grid
        seg = as_voxels(self._volume.seg)
        sizes, digest = SegmentSizes(), _digest(grid, seg)

        def watch(box: BoxVx, block: NDArray[np.uint64]) -> None:
            sizes.see(block)
            digest.see(box, block)

        meter.stage("writing segmentation")
        written = write_segmentation(
            self._folder / "seg",
            seg,
            grid,
            mesh=True,
            watch=watch,
            meter=meter,
            most_vx=self._most_vx,
        )
        if not len(sizes.table()[0]):
            raise BadVolumeError("The segmentation holds only background (0): there is no segment.")
        if self._volume.truth is not None:
            meter.stage("writing truth")
            write_segmentation(
                self._folder / "truth",
                self._volume.truth,
                grid,
                mesh=False,
                meter=meter,
                most_vx=self._most_vx,
            )
        meter.stage("making meshes")
        n = write_meshes(
            self._folder / "seg" / "mesh",
            written,
            grid,
            mesh_min_voxels,
            sizes=sizes,
            meter=meter,
            most_vx=self._most_vx,
        )
        meter.note(f"{n} meshes written")
        return digest.hexdigest()


def content_version(seg: NDArray[np.uint64], grid: Grid) -> str:
    """Name of exactly this segmentation: 12 hex digits of SHA-256 over its place and its ids."""
    voxels = as_voxels(seg)
    digest = _digest(grid, voxels)
    digest.see(whole(voxels.shape), seg)
    return digest.hexdigest()


def _digest(grid: Grid, seg: Voxels) -> VersionDigest:
    return VersionDigest(f"{tuple(grid.resolution)} {tuple(grid.lo)}", seg.shape)


def check_out(out: Path) -> None:
    """Refuse an output folder that holds something.

    Raises:
        DatasetError: The folder exists and is not empty, or is a file.
    """
    if (out / FILE_NAME).exists():
        raise DatasetError(
            f"{out} already holds a dataset. Choose another --out, or delete that folder first."
        )
    if out.is_dir() and any(out.iterdir()):
        raise DatasetError(f"{out} is not empty. Choose another --out.")
    if out.exists() and not out.is_dir():
        raise DatasetError(f"{out} is a file. Choose another --out.")
