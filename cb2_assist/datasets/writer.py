"""Writes a whole local dataset from arrays: EM, segmentation, truth, meshes, dataset.toml.

The folder appears under its name only when everything in it is there.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.errors import DatasetError
from cb2_assist.datasets.dataset_file import FILE_NAME, DatasetFile, write_dataset_file
from cb2_assist.datasets.meshes import Progress, write_meshes
from cb2_assist.datasets.precomputed import Grid, write_em, write_segmentation
from cb2_assist.datasets.source import EmStatistics

MESH_MIN_VOXELS = 1000
"""Smaller segments get no mesh unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Volume:
    """Arrays of one dataset, axes x, y, z, all of one shape, on one grid.

    Attributes:
        truth: Segments as they should be, or None.
    """

    grid: Grid
    em: NDArray[np.uint8]
    seg: NDArray[np.uint64]
    truth: NDArray[np.uint64] | None = None


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
    progress: Progress | None = None,
) -> Path:
    """Write a dataset that `LocalSource` opens and the viewer shows.

    Args:
        out: Folder to make. It must not exist, or be empty.
        volume: Arrays and where they lie.
        description: Name, species, licence, citation.
        mesh_min_voxels: Segments with fewer voxels get no mesh.
        progress: Takes lines about how far the work is.

    Returns:
        The dataset.toml.

    Raises:
        DatasetError: The folder is in use or cannot be written. Nothing is left behind.
    """
    say = progress or (lambda _line: None)
    out = out.expanduser().absolute()
    check_out(out)
    with _appearing(out) as folder:
        say("writing EM")
        write_em(folder / "em", volume.em, volume.grid)
        say("writing segmentation")
        write_segmentation(folder / "seg", volume.seg, volume.grid, mesh=True)
        if volume.truth is not None:
            say("writing truth")
            write_segmentation(folder / "truth", volume.truth, volume.grid, mesh=False)
        n = write_meshes(
            folder / "seg" / "mesh", volume.seg, volume.grid, mesh_min_voxels, progress
        )
        say(f"{n} meshes written")
        em_mean, em_std = float(volume.em.mean()), float(volume.em.std())
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
                version=content_version(volume.seg, volume.grid),
                em_statistics=EmStatistics(em_mean, em_std),
                complete=True,
            ),
        )
    return out / FILE_NAME


def content_version(seg: NDArray[np.uint64], grid: Grid) -> str:
    """Name of exactly this segmentation: 12 hex digits of SHA-256 over its place and its ids."""
    digest = hashlib.sha256(
        f"{tuple(grid.resolution)} {tuple(grid.lo)} {seg.shape} x-fastest uint64 ".encode()
    )
    for z in range(seg.shape[2]):
        digest.update(seg[:, :, z].astype("<u8").tobytes(order="F"))
    return digest.hexdigest()[:12]


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


@contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """A temporary sibling that becomes `out` at the end, or goes away on any failure."""
    folder = out.with_name(f".{out.name}.importing-{os.getpid()}")
    try:
        folder.mkdir(parents=True)
        yield folder
        # over an empty folder this replaces it, over anything else it fails
        folder.rename(out)
    except OSError as e:
        full = e.errno in (errno.ENOSPC, errno.EDQUOT)
        why = "the disk is full" if full else (e.strerror or str(e))
        raise DatasetError(
            f"Cannot write the dataset {out}: {why}. Nothing was kept; choose another --out or "
            "make room."
        ) from e
    finally:
        shutil.rmtree(folder, ignore_errors=True)
