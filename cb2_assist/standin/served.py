"""What a stand-in serves, made from a dataset and kept for the next time."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cb2_assist.core.errors import DatasetError
from cb2_assist.core.geometry import Resolution
from cb2_assist.datasets.meter import Meter
from cb2_assist.datasets.source import Source
from cb2_assist.standin.graph import Watershed
from cb2_assist.standin.volume import SupervoxelVolume, default_chunk
from cb2_assist.standin.watershed import write_watershed

_LAYOUT = 1
"""Raised whenever the same dataset gives other supervoxels or files."""
_VOXELS, _GRAPH = "supervoxels", "watershed.npz"


@dataclass(frozen=True, slots=True)
class Served:
    """What a stand-in serves.

    Attributes:
        volume: Supervoxels as voxels.
        watershed: Supervoxels as a graph.
        em: Cloud-volume path of the image, or its folder on this machine.
        viewer: Voxel size that the info service gives.
    """

    volume: SupervoxelVolume
    watershed: Watershed
    em: str | Path
    viewer: Resolution


def make_served(source: Source, folder: Path, meter: Meter | None = None) -> Served:
    """Make supervoxels from a dataset's segments: a minute for 60 million voxels.

    Args:
        source: EM and segments.
        folder: Folder to write the supervoxels to.
        meter: Told about the progress.

    Raises:
        DatasetError: The data cannot be read.
    """
    chunk = default_chunk(source.resolution)
    return _served(source, folder, write_watershed(source, folder, chunk, meter))


def kept_served(source: Source, cache: Path, meter: Meter | None = None) -> Served:
    """The same, from a cache folder where it was made before.

    Args:
        source: EM and segments; its name and version say what was made of it.
        cache: Folder for derived data, made when needed.
        meter: Told about the progress.

    Raises:
        DatasetError: The data cannot be read, or the cache folder cannot be written.
    """
    target = cache / f"standin-{_LAYOUT}-{source.info.name}-{source.info.version}"
    try:
        if not (target / _GRAPH).is_file():
            _make(source, target, meter)
        return _served(source, target / _VOXELS, _load(target / _GRAPH))
    except (OSError, ValueError, KeyError) as e:
        raise DatasetError(
            f"Cannot keep or read the supervoxels in {target}: {e}. Make room there, or delete "
            "that folder and start again."
        ) from e


def _make(source: Source, target: Path, meter: Meter | None) -> None:
    """Make it beside the target, then put it there in one step."""
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        new = work / "new"
        w = make_served(source, new / _VOXELS, meter).watershed
        np.savez(
            new / _GRAPH,
            supervoxels=w.supervoxels,
            pairs=w.pairs,
            affinity=w.affinity,
            area=w.area,
            on=w.on,
        )
        try:
            new.rename(target)
        except OSError:
            # another process was first
            if not (target / _GRAPH).is_file():
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _load(path: Path) -> Watershed:
    with np.load(path, allow_pickle=False) as found:
        return Watershed(
            supervoxels=found["supervoxels"],
            pairs=found["pairs"],
            affinity=found["affinity"],
            area=found["area"],
            on=found["on"],
        )


def _served(source: Source, folder: Path, watershed: Watershed) -> Served:
    layers = source.layers
    em = layers.roots.get(layers.em, layers.em)
    volume = SupervoxelVolume(folder, default_chunk(source.resolution))
    return Served(volume, watershed, em, layers.resolution)
