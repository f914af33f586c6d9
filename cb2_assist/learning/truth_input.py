"""A truth that is not named in the dataset file."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.errors import BadVolumeError
from cb2_assist.core.geometry import BoxVx, PointVoxel, Resolution
from cb2_assist.datasets.input_volume import InputVolume
from cb2_assist.datasets.layer import Layer, fit_to

_PREFIX = "precomputed://"


def read_truth(path: str, box: BoxVx, resolution: Resolution) -> NDArray[np.uint64]:
    """Read the truth of a box, x, y, z.

    Args:
        path: A precomputed volume (folder or ``precomputed://...``), or a file as `import-volume`
            takes it, of exactly the box's shape.
        box: Where, in the dataset's voxels.
        resolution: Of the dataset, nm.

    Raises:
        DatasetError: It cannot be read, or does not cover the box.
    """
    is_folder = (Path(path).expanduser() / "info").is_file()
    if is_folder or path.startswith(_PREFIX):
        folder = f"file://{Path(path).expanduser().resolve()}"
        return _of_layer(f"{_PREFIX}{folder}" if is_folder else path, box, resolution)
    with tempfile.TemporaryDirectory() as scratch:
        volume = InputVolume(path, None, Path(scratch))
        try:
            if volume.shape != box.shape:
                raise BadVolumeError(
                    f"The truth {path} has {volume.shape} voxels along x, y, z, the dataset "
                    f"{box.shape}. Give a truth of the same voxels."
                )
            lo, hi = PointVoxel(0, 0, 0), PointVoxel(*volume.shape)
            got = volume.read(BoxVx(lo, hi))
        finally:
            volume.close()
    if got.dtype.kind not in "iu":
        raise BadVolumeError(f"The truth {path} holds {got.dtype}, not whole numbers.")
    return np.asfortranarray(got.astype(np.uint64))


def _of_layer(path: str, box: BoxVx, resolution: Resolution) -> NDArray[np.uint64]:
    layer = Layer("truth", path, complete=False)
    fit = fit_to(layer, resolution)
    if fit is None or not fit.bounds.covers(box):
        raise BadVolumeError(
            f"The truth {path} does not cover the dataset, voxels {tuple(box.lo)} to "
            f"{tuple(box.hi)} of {tuple(resolution)} nm, by whole numbers."
        )
    return np.asfortranarray(fit.read(layer, box).astype(np.uint64))
