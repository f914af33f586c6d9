"""A volume in files as `import-volume` sees it: three axes x, y, z, whatever the file's order."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cb2_assist.core.errors import BadVolumeError
from cb2_assist.core.geometry import BoxVx, Resolution
from cb2_assist.datasets.array_slab import SlabArray
from cb2_assist.datasets.arrays import open_array
from cb2_assist.datasets.stored import AnyArray, Hints, Squeezed, StoredArray
from cb2_assist.datasets.voxels import BLOCK_VX, CHUNK_VX, Layout, Shape

AXES: tuple[str, ...] = ("zyx", "xyz")
"""Order of the axes in the files, where they do not say it themselves."""

_SAME_SIZE = 0.01
"""Voxel sizes that differ by less than this part are one size, rounded."""


class InputVolume:
    """Voxels of one input, axes x, y, z; nothing is read before `read`.

    Args:
        name: What the user called it.
        axes: Order that the user gave; None takes the file's own, else ``zyx``.
        scratch: Folder for what must be unpacked to be read; nothing stays there.
        most_vx: Voxels that may be in memory at once.

    Raises:
        UsageError: The key inside the file is missing or wrong.
        BadVolumeError: The file cannot be read or holds no volume.
    """

    def __init__(self, name: str, axes: str | None, scratch: Path, most_vx: int = BLOCK_VX) -> None:
        self.name, self._given_axes = name, axes
        array = open_array(name)
        turn = -1 if array.hints.reverse else 1
        self._known_shape = array.shape[::turn]
        try:
            kept = _kept(name, array)
        except BaseException:
            array.close()
            raise
        self._array: StoredArray = array if len(array.shape) == 3 else Squeezed(array, kept)
        self.hints: Hints = self._array.hints
        self.axes = axes or _told_axes(self.hints) or AXES[0]
        stored = self.axes[::turn]
        # of x, y and z: their dimensions in the file
        self._dims: Shape = (stored.index("x"), stored.index("y"), stored.index("z"))
        self.shape = self._xyz(self._array.shape)
        self.dtype: np.dtype[Any] = self._array.dtype
        x, y, z = (CHUNK_VX * -(-c // CHUNK_VX) for c in self._xyz(self._array.chunk))
        unit = (x, y, z)
        if math.prod(self.shape) > most_vx and math.prod(unit) > most_vx:
            thickness = CHUNK_VX * -(-self._array.chunk[0] // CHUNK_VX)
            self._array = SlabArray(self._array, thickness, scratch)
            unit = (CHUNK_VX,) * 3
        slow, middle, fast = ("xyz".index(a) for a in stored)
        self.layout = Layout(unit, (slow, middle, fast))

    def read(self, box: BoxVx) -> AnyArray:
        """Values of the box, axes x, y, z.

        Raises:
            BadVolumeError: The file cannot be read there.
            OSError: A part that must be unpacked cannot be written.
        """
        lo, hi = [0, 0, 0], [0, 0, 0]
        for dim, a, b in zip(self._dims, box.lo, box.hi, strict=True):
            lo[dim], hi[dim] = a, b
        return self._array.read(lo, hi).transpose(self._dims)

    def close(self) -> None:
        """Let go of the file."""
        self._array.close()

    def notes(self, voxel_nm: Resolution) -> Iterator[str]:
        """What a person should know of how the file was understood, in sentences."""
        if len(self._known_shape) > 3:
            yield f"{self.name} has shape {self._known_shape}; axes of length 1 are left out"
        told = _told_axes(self.hints)
        if told and self._given_axes and told != self._given_axes:
            yield (
                f"{self.name}: {self.hints.told_by} says that the axes are {told}, but "
                f"{self._given_axes} was given and is used. Check which is right"
            )
        elif told:
            yield f"{self.name}: axes {told}, as {self.hints.told_by} says"
        sizes = self.hints.voxel_nm
        if sizes is None:
            return
        said = [sizes[d] for d in self._dims]
        if any(
            s is not None and not math.isclose(s, v, rel_tol=_SAME_SIZE)
            for s, v in zip(said, voxel_nm, strict=True)
        ):
            text = " x ".join("?" if s is None else f"{s:g}" for s in said)
            given = " x ".join(f"{v:g}" for v in voxel_nm)
            yield (
                f"{self.name}: {self.hints.told_by} says that voxels are {text} nm (x, y, z), but "
                f"{given} was given and is used. Check which is right"
            )

    def _xyz(self, per_dimension: tuple[int, ...]) -> Shape:
        x, y, z = (per_dimension[d] for d in self._dims)
        return x, y, z


def _told_axes(hints: Hints) -> str | None:
    """Order of the axes as users know the array."""
    if not hints.axes or sorted(hints.axes) != ["x", "y", "z"]:
        return None
    return hints.axes[::-1] if hints.reverse else hints.axes


def _kept(what: str, array: StoredArray) -> tuple[int, ...]:
    """The three dimensions of the volume; the others have length 1.

    Raises:
        BadVolumeError: There are fewer or more, or nothing is in them.
    """
    shape, letters = array.shape, array.hints.axes
    if letters is None or len(letters) != len(shape):
        letters = ""
    turn = -1 if array.hints.reverse else 1
    if 0 in shape:
        raise BadVolumeError(f"{what} is empty, shape {shape[::turn]}.")
    kept = list(range(len(shape)))
    if set("xyz") <= set(letters):
        kept = [d for d in kept if letters[d] in "xyz" or shape[d] > 1]
    for d in range(len(shape))[::turn]:
        if len(kept) > 3 and shape[d] == 1 and d in kept:
            kept.remove(d)
    if len(kept) != 3:
        raise BadVolumeError(
            f"{what} has {len(shape)} dimensions, shape {shape[::turn]}"
            + (f", axes {letters[::turn]}" if letters else "")
            + "; a volume has 3. "
            + ("Save one channel, e.g. array[..., 0]." if len(shape) > 3 else "Stack its sections.")
        )
    return tuple(kept)
