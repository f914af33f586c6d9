"""`import-volume`: arrays in files become a local dataset."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.errors import BadPointError, BadVolumeError, UsageError
from cb2_assist.core.geometry import PointVoxel, Resolution
from cb2_assist.datasets.arrays import AnyArray, read_array
from cb2_assist.datasets.dataset_file import check_name, check_species, check_text
from cb2_assist.datasets.meshes import Progress
from cb2_assist.datasets.precomputed import Grid
from cb2_assist.datasets.writer import (
    MESH_MIN_VOXELS,
    Description,
    Volume,
    check_out,
    write_dataset,
)

AXES: tuple[str, ...] = ("zyx", "xyz")
"""Order of the axes in the files."""

_MAX_ID = 2**64 - 1


def import_volume(
    *,
    em: str,
    segmentation: str,
    voxel_nm: tuple[float, float, float],
    out: Path,
    truth: str | None = None,
    axes: str = "zyx",
    offset_nm: tuple[float, float, float] = (0.0, 0.0, 0.0),
    id_offset: int = 0,
    name: str | None = None,
    species: str = "other",
    licence: str = "unknown",
    citation: str = "",
    mesh_min_voxels: int = MESH_MIN_VOXELS,
    progress: Progress | None = None,
) -> Path:
    """Make a local dataset from files.

    Args:
        em: uint8 volume, ``FILE`` or ``FILE.npz:KEY``.
        segmentation: Volume of whole numbers of the same shape; 0 is background.
        voxel_nm: Voxel size along x, y, z.
        out: Folder to make.
        truth: Segments as they should be, for `simulate` and `evaluate`.
        axes: Order of the axes in the files, ``zyx`` or ``xyz``.
        offset_nm: Place of the first voxel's lower corner along x, y, z.
        id_offset: Added to every id of the segmentation but 0; the truth keeps its ids.
        name: Default: the output folder's name.
        species: One of `dataset_file.SPECIES`.
        licence: Goes into every label.
        citation: What a user of the data must cite.
        mesh_min_voxels: Segments with fewer voxels get no mesh.
        progress: Takes lines about how far the work is.

    Returns:
        The dataset.toml.

    Raises:
        UsageError: An option does not make sense.
        BadVolumeError: A file cannot be read, or the volumes do not fit.
        DatasetError: The output folder is in use or cannot be written. Nothing is left behind.
    """
    out = out.expanduser().absolute()
    description = Description(
        check_name(out.name if name is None else name),
        check_species(species),
        check_text("licence", licence) or "unknown",
        check_text("citation", citation),
    )
    if axes not in AXES:
        raise UsageError(f"The axes are {' or '.join(AXES)}, got {axes!r}.")
    if mesh_min_voxels < 0:
        raise UsageError(f"A number of voxels cannot be negative, got {mesh_min_voxels}.")
    grid = grid_of(voxel_nm, offset_nm)
    check_out(out)
    say = progress or (lambda _line: None)
    say("reading volumes")
    volume = _volume(em, segmentation, truth, axes, grid, id_offset)
    return write_dataset(
        out, volume, description, mesh_min_voxels=mesh_min_voxels, progress=progress
    )


def grid_of(
    voxel_nm: tuple[float, float, float], offset_nm: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> Grid:
    """Voxel size and first voxel from sizes in nm.

    Raises:
        UsageError: Sizes are not positive, or the offset is not a whole number of voxels.
    """
    if len(tuple(voxel_nm)) != 3 or len(tuple(offset_nm)) != 3:
        raise BadPointError(
            f"Voxel size and offset are three numbers x, y, z in nm, got {tuple(voxel_nm)} and "
            f"{tuple(offset_nm)}."
        )
    resolution = Resolution(*(float(v) for v in voxel_nm))
    lo = []
    for axis, offset, size in zip("xyz", offset_nm, resolution, strict=True):
        steps = offset / size
        if not math.isfinite(steps) or abs(steps - round(steps)) > 1e-6:
            raise BadPointError(
                f"The offset along {axis}, {offset} nm, is not a whole number of voxels of "
                f"{size} nm. Round it to a multiple."
            )
        lo.append(round(steps))
    return Grid(resolution, PointVoxel(*lo))


def _volume(
    em: str, segmentation: str, truth: str | None, axes: str, grid: Grid, id_offset: int
) -> Volume:
    em_xyz = check_em(em, _oriented(read_array(em), axes))
    seg_raw = _oriented(read_array(segmentation), axes)
    _check_shapes(em, em_xyz, segmentation, seg_raw)
    seg_xyz = shift_ids(check_ids(segmentation, seg_raw), id_offset)
    if not seg_xyz.any():
        raise BadVolumeError(f"{segmentation} holds only background (0): there is no segment.")
    truth_xyz = None
    if truth is not None:
        truth_raw = _oriented(read_array(truth), axes)
        _check_shapes(em, em_xyz, truth, truth_raw)
        truth_xyz = check_ids(truth, truth_raw)
    return Volume(grid, em_xyz, seg_xyz, truth_xyz)


def _oriented(array: AnyArray, axes: str) -> AnyArray:
    return array.T if axes == "zyx" else array


def _check_dimensions(what: str, array: AnyArray) -> None:
    if array.ndim != 3:
        raise BadVolumeError(
            f"{what} has {array.ndim} dimensions, shape {array.shape}; a volume has 3. Take one "
            "channel, e.g. array[..., 0]."
        )
    if array.size == 0:
        raise BadVolumeError(f"{what} is empty, shape {array.shape}.")


def _check_shapes(first: str, a: AnyArray, second: str, b: AnyArray) -> None:
    _check_dimensions(second, b)
    if a.shape != b.shape:
        hint = ""
        if a.shape == b.shape[::-1]:
            hint = " They fit when one is transposed: save both with the same order of axes."
        raise BadVolumeError(
            f"{first} and {second} must have one shape, got {a.shape} and {b.shape} "
            f"(x, y, z).{hint}"
        )


def check_em(what: str, array: AnyArray) -> NDArray[np.uint8]:
    """Return the array in Fortran order when it can be EM.

    Raises:
        BadVolumeError: It is not a 3-D uint8 volume.
    """
    _check_dimensions(what, array)
    if array.dtype == np.uint16:
        lo, hi = int(array.min()), int(array.max())
        raise BadVolumeError(
            f"{what} is uint16 with values {lo} to {hi}; EM must be uint8. Choose black and white "
            "yourself, since it changes what the model sees, for instance: "
            f"np.clip((em.astype('f4') - {lo}) * (255 / {max(hi - lo, 1)}), 0, 255)"
            ".round().astype('u1')"
        )
    if array.dtype != np.uint8:
        raise BadVolumeError(
            f"{what} has values of type {array.dtype}; EM must be uint8, 0 black to 255 white."
        )
    return np.asfortranarray(array, np.uint8)


def check_ids(what: str, array: AnyArray) -> NDArray[np.uint64]:
    """Return the array as uint64 in Fortran order when it can hold segment ids.

    Raises:
        BadVolumeError: It is not a 3-D volume of whole numbers from 0.
    """
    _check_dimensions(what, array)
    if array.dtype.kind not in "iu":
        raise BadVolumeError(
            f"{what} has values of type {array.dtype}; segment ids must be whole numbers. Save it "
            "as uint64 (floats above 2**53 have already lost ids)."
        )
    if array.dtype.kind == "i" and (lowest := int(array.min())) < 0:
        raise BadVolumeError(
            f"{what} has negative ids, the lowest is {lowest}; ids start at 0 = background."
        )
    return np.asfortranarray(array.astype(np.uint64))


def shift_ids(seg: NDArray[np.uint64], id_offset: int) -> NDArray[np.uint64]:
    """Add to every id but 0.

    Raises:
        UsageError: The offset is negative or an id would need more than 64 bits.
    """
    highest = int(seg.max())
    if id_offset < 0 or highest + id_offset > _MAX_ID:
        raise UsageError(
            f"The id offset must be from 0 to {_MAX_ID - highest} here (the highest id is "
            f"{highest}, ids have 64 bits), got {id_offset}."
        )
    if id_offset == 0:
        return seg
    shifted: NDArray[Any] = np.where(seg == 0, seg, seg + np.uint64(id_offset))
    return np.asfortranarray(shifted)
