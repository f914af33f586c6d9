"""Looks at the parts of a dataset one by one, so that one that is broken hides no other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from cb2_assist.core.errors import DatasetError
from cb2_assist.core.geometry import BoxVx, PointVoxel
from cb2_assist.datasets.dataset_file import DatasetFile, local_folder
from cb2_assist.datasets.layer import Layer

_PROBE_VX = 16


def parts_of(dataset: DatasetFile) -> Iterator[tuple[str, Callable[[], str]]]:
    """Name of each part, and what looks at it: returns a line, raises DatasetError."""
    yield "em", lambda: _look_at_volume("em", dataset.em, dataset.complete)
    yield (
        "segmentation",
        lambda: _look_at_volume("segmentation", dataset.segmentation, dataset.complete),
    )
    yield "meshes", lambda: _look_at_meshes(dataset.segmentation)
    truth = dataset.truth
    if truth is not None:
        yield "truth", lambda: _look_at_volume("truth", truth, dataset.complete)


def _look_at_volume(key: str, cloudpath: str, complete: bool) -> str:
    """Read some voxels in the middle.

    Raises:
        DatasetError: There is no such volume, or it cannot be read.
    """
    layer = Layer(key, cloudpath, complete=complete)
    scale = layer.scales[0]
    lo, hi = scale.bounds.lo, scale.bounds.hi
    middle = [(a + b) // 2 for a, b in zip(lo, hi, strict=True)]
    corner = PointVoxel(*(max(a, m - _PROBE_VX // 2) for a, m in zip(lo, middle, strict=True)))
    end = PointVoxel(*(v + _PROBE_VX for v in corner))
    voxels = layer.read(0, BoxVx(corner, end).clip(scale.bounds))
    if key == "em":
        found = f"grey values {voxels.min()} to {voxels.max()} in the middle"
    else:
        found = f"segments in the middle: {len(np.unique(voxels[voxels != 0]))}"
    size = " x ".join(str(b - a) for a, b in zip(lo, hi, strict=True))
    nm = ", ".join(f"{r:g}" for r in scale.resolution)
    return f"{size} voxels of {nm} nm, {found}"


def _look_at_meshes(cloudpath: str) -> str:
    """Find the folder that the info file of the segmentation names, and something in it.

    Raises:
        DatasetError: There is none, so that the 3-D panel stays empty.
    """
    folder = local_folder(cloudpath)
    if folder is None:
        return "with the segmentation, not on this machine"
    advice = "Import the volume again to make them."
    try:
        name = json.loads((folder / "info").read_bytes()).get("mesh")
    except (OSError, ValueError, AttributeError) as e:
        raise DatasetError(f"The info file of {folder} cannot be read ({e}). {advice}") from e
    if not name:
        raise DatasetError(f"{folder} names no meshes in its info file. {advice}")
    meshes = Path(folder, str(name))
    try:
        count = sum(1 for p in meshes.iterdir() if p.name != "info")
    except OSError as e:
        raise DatasetError(
            f"The mesh folder {meshes} cannot be read: {e.strerror}. {advice}"
        ) from e
    if not count:
        raise DatasetError(f"The mesh folder {meshes} is empty. {advice}")
    return f"{count} files in {meshes}"
