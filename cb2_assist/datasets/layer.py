"""One precomputed volume, opened with cloud-volume: its scales, its bounds, its voxels."""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.errors import BadVolumeError, DatasetError
from cb2_assist.core.geometry import BoxVx, PointVoxel, Resolution
from cb2_assist.datasets.dataset_file import local_folder
from cb2_assist.datasets.precomputed import block_mean

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
"""cloud-volume colours its messages for terminals."""


@dataclass(frozen=True, slots=True)
class Scale:
    """One resolution of a volume, as its info file says."""

    resolution: Resolution
    bounds: BoxVx
    chunk: tuple[int, int, int]
    """Voxels of one stored chunk."""


class Layer:
    """A volume on its own grid.

    Args:
        key: What the dataset file calls it: ``em``, ``segmentation`` or ``truth``.
        cloudpath: As `read_dataset_file` returns it.
        complete: Whether a missing chunk is an error rather than background.
        info: The info file, where somebody else than the volume's folder has it.

    Raises:
        DatasetError: There is no volume, or it cannot be reached.
        BadVolumeError: Its info file does not describe a volume of the right kind.
    """

    def __init__(
        self, key: str, cloudpath: str, *, complete: bool, info: dict[str, Any] | None = None
    ) -> None:
        self._key = key
        self._cloudpath = _anonymous(cloudpath)
        self._complete = complete
        self._info = self._read_info() if info is None else info
        self.scales = self._read_scales()
        self._volumes: dict[int, Any] = {}

    @property
    def info(self) -> dict[str, Any]:
        """The info file."""
        return self._info

    @property
    def info_id(self) -> str:
        """12 hex digits of SHA-256 of the info file's content."""
        text = json.dumps(self._info, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def cloudpath(self) -> str:
        """Where the volume is."""
        return self._cloudpath

    @property
    def mesh_folder(self) -> str | None:
        """Folder of the segments' meshes below the volume; None when it has none."""
        folder = self._info.get("mesh")
        return folder if isinstance(folder, str) and folder else None

    def mesh_source(self) -> Any:  # noqa: ANN401  cloud-volume has no types
        """cloud-volume's reader of this volume's meshes."""
        return self._volume(0).mesh

    def read(self, scale: int, box: BoxVx) -> NDArray[Any]:
        """Voxels of a box that lies inside the scale's bounds, x, y, z, Fortran order.

        Raises:
            DatasetError: They cannot be read.
        """
        (x0, y0, z0), (x1, y1, z1) = box.lo, box.hi
        # cloud-volume, its decoders and its storage back ends share no base for their errors
        try:
            got = self._volume(scale)[x0:x1, y0:y1, z0:z1]
        except Exception as e:
            raise DatasetError(
                f"Cannot read the {self._key} volume {self._cloudpath} at voxels {tuple(box.lo)} "
                f"to {tuple(box.hi)}: {first_line(e)}. {self._advice}"
            ) from e
        return np.asfortranarray(np.asarray(got)[..., 0])

    @property
    def _advice(self) -> str:
        if local_folder(self._cloudpath) is None:
            return "Check the connection and try again; nothing is lost."
        return "Restore its files or import it again."

    def _volume(self, scale: int) -> Any:  # noqa: ANN401  cloud-volume has no types
        from cloudvolume import CloudVolume

        if scale not in self._volumes:
            self._volumes[scale] = CloudVolume(
                self._cloudpath,
                mip=scale,
                info=self._info,
                progress=False,
                fill_missing=not self._complete,
            )
        return self._volumes[scale]

    def _read_info(self) -> dict[str, Any]:
        folder = local_folder(self._cloudpath)
        info = self._remote_info() if folder is None else self._local_info(folder)
        if not isinstance(info, dict):
            raise BadVolumeError(f"The info file of {self._cloudpath} is not a JSON object.")
        return info

    def _local_info(self, folder: Path) -> object:
        path = folder / "info"
        try:
            info: object = json.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            raise DatasetError(
                f"There is no {self._key} volume in {folder}: no info file. Correct the path in "
                "the dataset file, or import the volume again."
            ) from None
        except OSError as e:
            raise DatasetError(f"Cannot read {path}: {e.strerror}.") from e
        except ValueError as e:
            raise BadVolumeError(
                f"{path} is not valid JSON: {first_line(e)}. Restore it or import again."
            ) from e
        return info

    def _remote_info(self) -> object:
        from cloudvolume import CloudVolume

        try:
            info: object = CloudVolume(self._cloudpath, progress=False).info
        except Exception as e:
            raise DatasetError(
                f"Cannot open the {self._key} volume {self._cloudpath}: {first_line(e)}. Check "
                "the address and the connection."
            ) from e
        return info

    def _read_scales(self) -> list[Scale]:
        info, where = self._info, f"The {self._key} volume {self._cloudpath}"
        wanted = "image" if self._key == "em" else "segmentation"
        if info.get("type") != wanted:
            raise BadVolumeError(
                f"{where} is of type {info.get('type')!r}, {wanted!r} is needed. Are em and "
                "segmentation swapped in the dataset file?"
            )
        dtypes = ("uint8",) if wanted == "image" else ("uint8", "uint16", "uint32", "uint64")
        if info.get("data_type") not in dtypes or info.get("num_channels") != 1:
            raise BadVolumeError(
                f"{where} has {info.get('num_channels')} channels of {info.get('data_type')}; "
                f"one channel of {' or '.join(dtypes)} is needed."
            )
        try:
            scales = [_scale(s) for s in info["scales"]]
        except (LookupError, TypeError, ValueError, AttributeError) as e:
            raise BadVolumeError(f"{where} has a damaged info file: {first_line(e)}.") from e
        if not scales:
            raise BadVolumeError(f"{where} has no scales in its info file.")
        return scales


def _anonymous(cloudpath: str) -> str:
    """The way to a public bucket that needs no account: plain https.

    Who has keys for Google's or Amazon's storage where cloud-volume looks for them keeps using
    them, for buckets of their own.
    """
    for scheme, keys in (("gs://", "google-secret.json"), ("s3://", "aws-secret.json")):
        if cloudpath.removeprefix("precomputed://").startswith(scheme):
            from cloudfiles import paths, secrets

            if not Path(secrets.secretpath(f"secrets/{keys}")).exists():
                return str(paths.to_https_protocol(cloudpath))
    return cloudpath


@dataclass(frozen=True, slots=True)
class Fit:
    """How a volume's scale is brought to the segmentation's grid.

    Attributes:
        scale: Index of the scale that is read.
        shrink: Voxels read for one voxel of the grid, averaged; 1 along axes that are not finer.
        grow: Voxels of the grid that one voxel read fills; 1 along axes that are not coarser.
        bounds: What the volume covers, in voxels of the grid.
    """

    scale: int
    shrink: tuple[int, int, int]
    grow: tuple[int, int, int]
    bounds: BoxVx

    def read(self, layer: Layer, box: BoxVx) -> NDArray[Any]:
        """Voxels of a box of the grid, which lies inside `bounds`."""
        lo = [a * s // g for a, s, g in zip(box.lo, self.shrink, self.grow, strict=True)]
        hi = [-(-b * s // g) for b, s, g in zip(box.hi, self.shrink, self.grow, strict=True)]
        got = layer.read(self.scale, BoxVx(PointVoxel(*lo), PointVoxel(*hi)))
        if self.shrink != (1, 1, 1):
            got = np.rint(block_mean(got, self.shrink)).astype(got.dtype)
        for axis, g in enumerate(self.grow):
            if g > 1:
                got = got.repeat(g, axis)
        start = [a - first * g for a, first, g in zip(box.lo, lo, self.grow, strict=True)]
        crop = tuple(slice(a, a + n) for a, n in zip(start, box.shape, strict=True))
        return np.asfortranarray(got[crop])


def fit_to(layer: Layer, grid: Resolution) -> Fit | None:
    """The coarsest scale that is not coarser than the grid, by whole numbers; else the finest one.

    Returns:
        None when no scale fits by whole numbers.
    """
    fits = [f for i, s in enumerate(layer.scales) if (f := _fit(i, s, grid)) is not None]
    finer = [f for f in fits if f.grow == (1, 1, 1)]
    if finer:
        return min(finer, key=lambda f: math.prod(f.shrink))
    return fits[0] if fits else None


def _fit(index: int, scale: Scale, grid: Resolution) -> Fit | None:
    shrink, grow = [], []
    for have, want in zip(scale.resolution, grid, strict=True):
        s, g = max(1, round(want / have)), max(1, round(have / want))
        if not math.isclose(have * s, want * g, rel_tol=1e-6):
            return None
        shrink.append(s)
        grow.append(g)
    ratios = list(zip(shrink, grow, strict=True))
    lo = [-(-v * g // s) for v, (s, g) in zip(scale.bounds.lo, ratios, strict=True)]
    hi = [v * g // s for v, (s, g) in zip(scale.bounds.hi, ratios, strict=True)]
    return Fit(
        index,
        (shrink[0], shrink[1], shrink[2]),
        (grow[0], grow[1], grow[2]),
        BoxVx(PointVoxel(*lo), PointVoxel(*hi)),
    )


def _scale(raw: dict[str, Any]) -> Scale:
    lo = PointVoxel(*(int(v) for v in raw.get("voxel_offset", (0, 0, 0))))
    x, y, z = (int(v) for v in raw["size"])
    cx, cy, cz = (int(v) for v in raw["chunk_sizes"][0])
    if min(x, y, z, cx, cy, cz) < 1:
        raise ValueError(f"size {raw['size']}, chunks {raw['chunk_sizes']}")
    rx, ry, rz = (float(v) for v in raw["resolution"])
    return Scale(
        Resolution(rx, ry, rz),
        BoxVx(lo, PointVoxel(lo.x + x, lo.y + y, lo.z + z)),
        (cx, cy, cz),
    )


def first_line(error: Exception) -> str:
    """What an error of cloud-volume says, in one line without colours."""
    text = _COLOURS.sub("", str(error)).strip()
    if type(error).__name__ == "EmptyVolumeException":
        return f"the chunk {text} is missing"
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
