"""`import-volume`: volumes in files become a local dataset, read and written part by part."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.errors import BadPointError, BadVolumeError, UsageError
from cb2_assist.core.geometry import BoxVx, PointVoxel, Resolution
from cb2_assist.datasets.dataset_file import check_name, check_species, check_text
from cb2_assist.datasets.input_volume import AXES, InputVolume
from cb2_assist.datasets.meter import Meter, Progress
from cb2_assist.datasets.precomputed import Grid
from cb2_assist.datasets.stored import AnyArray
from cb2_assist.datasets.voxels import BLOCK_VX, CHUNK_VX, blocks
from cb2_assist.datasets.writer import (
    MESH_MIN_VOXELS,
    Description,
    Volume,
    check_out,
    write_dataset,
)

_MAX_ID = 2**64 - 1
_SAMPLED = 8
"""Blocks that are looked at to propose black and white."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How the numbers in the files are taken.

    Attributes:
        axes: Order of the axes in the files, ``zyx`` or ``xyz``; None takes what a file says of
            itself, else ``zyx``.
        em_range: Values that become black and white; None takes uint8 as it is and nothing else.
        id_offset: Added to every id of the segmentation but 0; the truth keeps its ids.
    """

    axes: str | None = None
    em_range: tuple[float, float] | None = None
    id_offset: int = 0


def import_volume(
    *,
    em: str,
    segmentation: str,
    voxel_nm: tuple[float, float, float],
    out: Path | str,
    truth: str | None = None,
    axes: str | None = None,
    em_range: tuple[float, float] | None = None,
    offset_nm: tuple[float, float, float] = (0.0, 0.0, 0.0),
    id_offset: int = 0,
    name: str | None = None,
    species: str = "other",
    licence: str = "unknown",
    citation: str = "",
    mesh_min_voxels: int = MESH_MIN_VOXELS,
    progress: Progress | None = None,
    every_s: float = 1.0,
    most_vx: int = BLOCK_VX,
) -> Path:
    """Make a local dataset from files, which may be larger than memory.

    Args:
        em: uint8 volume: .npy, .npz, .h5, .tif, Zarr, N5 or a folder of sections; ``FILE`` or
            ``FILE:KEY``.
        segmentation: Volume of whole numbers of the same shape; 0 is background.
        voxel_nm: Voxel size along x, y, z.
        out: Folder to make.
        truth: Segments as they should be, for `simulate` and `evaluate`.
        axes: Order of the axes in the files, ``zyx`` or ``xyz``; None takes what a file says of
            itself, else ``zyx``.
        em_range: Values that become black and white, for EM that is not uint8.
        offset_nm: Place of the first voxel's lower corner along x, y, z.
        id_offset: Added to every id of the segmentation but 0; the truth keeps its ids.
        name: Default: the output folder's name.
        species: One of `dataset_file.SPECIES`.
        licence: Goes into every label.
        citation: What a user of the data must cite.
        mesh_min_voxels: Segments with fewer voxels get no mesh.
        progress: Takes lines about how far the work is, and what was found odd.
        every_s: Least time between two such lines.
        most_vx: Voxels in memory as one array; a few such arrays exist at once.

    Returns:
        The dataset.toml.

    Raises:
        UsageError: An option does not make sense.
        BadVolumeError: A file cannot be read, or the volumes do not fit.
        DatasetError: The output folder is in use or cannot be written. Nothing is left behind.
    """
    out = Path(out).expanduser().absolute()
    description = Description(
        check_name(out.name if name is None else name),
        check_species(species),
        check_text("licence", licence) or "unknown",
        check_text("citation", citation),
    )
    _check_options(axes, em_range, mesh_min_voxels, most_vx)
    grid = grid_of(voxel_nm, offset_nm)
    check_out(out)
    meter = Meter(progress, every_s=every_s)
    files = {"em": em, "segmentation": segmentation, **({"truth": truth} if truth else {})}
    with contextlib.ExitStack() as stack:
        inputs: dict[str, InputVolume] = {}
        for key, file in files.items():
            inputs[key] = InputVolume(file, axes, _existing_above(out), most_vx)
            stack.callback(inputs[key].close)
        for volume in inputs.values():
            for note in volume.notes(grid.resolution):
                meter.note(note)
        checked = _checked(inputs, Reading(axes, em_range, id_offset), grid, most_vx)
        return write_dataset(
            out,
            checked,
            description,
            mesh_min_voxels=mesh_min_voxels,
            progress=meter,
            most_vx=most_vx,
        )


def _check_options(
    axes: str | None, em_range: tuple[float, float] | None, mesh_min_voxels: int, most_vx: int
) -> None:
    if axes is not None and axes not in AXES:
        raise UsageError(f"The axes are {' or '.join(AXES)}, got {axes!r}.")
    if mesh_min_voxels < 0:
        raise UsageError(f"A number of voxels cannot be negative, got {mesh_min_voxels}.")
    if most_vx < CHUNK_VX**3:
        raise UsageError(f"At least {CHUNK_VX**3} voxels must fit into memory, got {most_vx}.")
    if em_range is not None and not (
        len(tuple(em_range)) == 2
        and all(math.isfinite(v) for v in em_range)
        and em_range[0] < em_range[1]
    ):
        raise UsageError(f"The EM range is two numbers, black below white, got {tuple(em_range)}.")


def _existing_above(out: Path) -> Path:
    return next(p for p in out.parents if p.is_dir())


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


def _checked(inputs: dict[str, InputVolume], reading: Reading, grid: Grid, most_vx: int) -> Volume:
    """The volumes as they will be written; everything that can be seen without reading is checked.

    Raises:
        BadVolumeError: Types or shapes do not fit.
    """
    em, seg, truth = inputs["em"], inputs["segmentation"], inputs.get("truth")
    for other in (seg, truth):
        if other is not None:
            _check_shapes(em, other)
            _check_id_type(other.name, other.dtype)
    if reading.em_range is None:
        _check_em_type(em.name, em.dtype, lambda: _sample(em, most_vx))
    elif em.dtype.kind not in "iuf":
        raise BadVolumeError(f"{em.name} has values of type {em.dtype}, which cannot be scaled.")
    return Volume(
        grid,
        _Em(em, reading.em_range),
        _Segments(seg, reading.id_offset, most_vx),
        None if truth is None else _Segments(truth, 0, most_vx),
    )


class _Em:
    """EM of an input as uint8."""

    def __init__(self, volume: InputVolume, em_range: tuple[float, float] | None) -> None:
        self.shape, self.layout = volume.shape, volume.layout
        self._volume, self._range = volume, em_range

    def read(self, box: BoxVx) -> NDArray[np.uint8]:
        """Grey values of the box."""
        block = self._volume.read(box)
        if self._range is not None:
            block = scaled(block, *self._range)
        return np.asfortranarray(block, np.uint8)


class _Segments:
    """Ids of an input as uint64, shifted."""

    def __init__(self, volume: InputVolume, id_offset: int, most_vx: int) -> None:
        self.shape, self.layout = volume.shape, volume.layout
        self._volume, self._id_offset, self._most_vx = volume, id_offset, most_vx

    def read(self, box: BoxVx) -> NDArray[np.uint64]:
        """Ids of the box."""
        ids = check_ids(self._volume.name, self._volume.read(box))
        try:
            return shift_ids(ids, self._id_offset)
        except UsageError:
            # the limit that the message names is that of the whole volume
            highest = max(
                int(self._volume.read(b).max())
                for b in blocks(self.shape, self.layout, self._most_vx)
            )
            raise _bad_offset(highest, self._id_offset) from None


def scaled(block: AnyArray, black: float, white: float) -> NDArray[np.uint8]:
    """Grey values 0 to 255, rounded; what lies beyond black or white becomes that."""
    grey = (block.astype(np.float32) - np.float32(black)) * np.float32(255 / (white - black))
    rounded: NDArray[np.uint8] = np.rint(np.clip(np.nan_to_num(grey), 0, 255)).astype(np.uint8)
    return rounded


def _sample(volume: InputVolume, most_vx: int) -> tuple[float, float]:
    """Values that 1 % of some of the voxels lie below, and above."""
    parts = blocks(volume.shape, volume.layout, min(most_vx, 2**20))
    picked = np.linspace(0, len(parts) - 1, min(_SAMPLED, len(parts))).round().astype(int)
    some = np.concatenate([volume.read(parts[i]).ravel()[::7] for i in picked])
    black, white = np.nanpercentile(some.astype(np.float64), [1, 99])
    return float(black), float(max(white, black + 1e-6))


def _check_shapes(first: InputVolume, second: InputVolume) -> None:
    a, b = first.shape, second.shape
    if a != b:
        hint = ""
        if a == b[::-1]:
            hint = " They fit when one is transposed: save both with the same order of axes."
        raise BadVolumeError(
            f"{first.name} and {second.name} must have one shape, got {a} and {b} (x, y, z; "
            f"axes {first.axes} and {second.axes} in the files).{hint}"
        )


def _check_dimensions(what: str, array: AnyArray) -> None:
    if array.ndim != 3 or array.size == 0:
        raise BadVolumeError(f"{what} has shape {array.shape}; a volume has 3 dimensions.")


def check_em(what: str, array: AnyArray) -> NDArray[np.uint8]:
    """Return the array in Fortran order when it can be EM.

    Raises:
        BadVolumeError: It is not a 3-D uint8 volume.
    """
    _check_dimensions(what, array)
    _check_em_type(what, array.dtype, lambda: (float(array.min()), float(array.max())))
    return np.asfortranarray(array, np.uint8)


def _check_em_type(
    what: str, dtype: np.dtype[Any], extremes: Callable[[], tuple[float, float]]
) -> None:
    if dtype == np.uint8:
        return
    text = f"{what} has values of type {dtype}; EM must be uint8, 0 black to 255 white."
    if dtype.kind in "iuf":
        black, white = extremes()
        text += (
            " Choose black and white yourself, since it changes what the model sees: --em-range "
            f"LO,HI; most values lie between {black:.6g} and {white:.6g}, so for instance "
            f"--em-range {black:.6g},{white:.6g}."
        )
    raise BadVolumeError(text)


def check_ids(what: str, array: AnyArray) -> NDArray[np.uint64]:
    """Return the array as uint64 in Fortran order when it can hold segment ids.

    Raises:
        BadVolumeError: It is not a 3-D volume of whole numbers from 0.
    """
    _check_dimensions(what, array)
    _check_id_type(what, array.dtype)
    if array.dtype.kind == "i" and (low := int(array.min())) < 0:
        raise BadVolumeError(
            f"{what} has negative ids, for instance {low}; ids start at 0 = background."
        )
    # the same type under one name: NumPy has two for 64 bits, and writers compare names
    return np.asfortranarray(array, np.uint64).view(np.uint64)


def _check_id_type(what: str, dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "iu":
        raise BadVolumeError(
            f"{what} has values of type {dtype}; segment ids must be whole numbers. Save it "
            "as uint64 (floats above 2**53 have already lost ids)."
        )


def shift_ids(seg: NDArray[np.uint64], id_offset: int) -> NDArray[np.uint64]:
    """Add to every id but 0.

    Raises:
        UsageError: The offset is negative or an id would need more than 64 bits.
    """
    highest = int(seg.max())
    if id_offset < 0 or highest + id_offset > _MAX_ID:
        raise _bad_offset(highest, id_offset)
    if id_offset == 0:
        return seg
    shifted: NDArray[Any] = np.where(seg == 0, seg, seg + np.uint64(id_offset))
    return np.asfortranarray(shifted)


def _bad_offset(highest: int, id_offset: int) -> UsageError:
    return UsageError(
        f"The id offset must be from 0 to {_MAX_ID - highest} here (the highest id is {highest}, "
        f"ids have 64 bits), got {id_offset}."
    )
