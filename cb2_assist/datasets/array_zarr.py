"""Zarr (2 and 3), OME-Zarr and N5 arrays in folders, read part by part with tensorstore."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cb2_assist.core.errors import BadVolumeError, UsageError
from cb2_assist.datasets.stored import AnyArray, Hints, Index, StoredArray
from cb2_assist.datasets.units import nm_of

METADATA: tuple[str, ...] = ("zarr.json", ".zarray", ".zgroup", "attributes.json")
"""Files that tell a folder of chunks from a folder of pictures."""

_MOST_LISTED = 20
_DEEPEST = 4
_LETTERS = "tczyx"


def open_zarr(path: Path, key: str | None) -> StoredArray:
    """Open an array in a Zarr or N5 folder.

    Args:
        path: The array, or a group that holds it.
        key: Path of the array below ``path``, e.g. a level of an OME-Zarr. Without it the group's
            only array is taken, or the finest level of a multiscale one.

    Raises:
        UsageError: The key is missing or wrong; names the arrays.
        BadVolumeError: There is no array, or tensorstore cannot read it.
    """
    folder = _inside(path, key) if key else path
    levels = _levels(folder)
    if not _is_array(folder):
        arrays = list(_arrays(folder))
        if levels:
            folder = folder / levels[0].path
        elif len(arrays) == 1:
            folder = arrays[0]
        if not _is_array(folder):
            wrong = f"There is no array {key!r} in {path}" if key else f"Say which array of {path}"
            listed = _listed(path)
            raise UsageError(f"{wrong}: give {path}:KEY. Arrays: {listed or 'none'}.")
    hints = _multiscale_hints(path, folder) or _own_hints(folder)
    # N5 names the fastest axis first
    return _opened(folder, replace(hints, reverse=(folder / "attributes.json").is_file()))


class _TensorArray:
    def __init__(self, store: Any, hints: Hints) -> None:  # noqa: ANN401  tensorstore's own class
        self._store = store
        self.shape: tuple[int, ...] = tuple(store.shape)
        self.dtype: np.dtype[Any] = store.dtype.numpy_dtype
        self.chunk = tuple(int(n) for n in store.chunk_layout.read_chunk.shape)
        self.hints = hints

    def read(self, lo: Index, hi: Index) -> AnyArray:
        """Values of the box; chunks that are not there hold the fill value."""
        box = tuple(slice(a, b) for a, b in zip(lo, hi, strict=True))
        return np.asarray(self._store[box].read().result())

    def close(self) -> None:
        """Nothing is held open."""


def _opened(folder: Path, hints: Hints) -> StoredArray:
    try:
        import tensorstore
    except ImportError as e:
        raise BadVolumeError(
            f"{folder} is Zarr or N5, which needs tensorstore: pip install tensorstore. It has no "
            "release for some platforms; HDF5, TIFF and .npy need nothing more."
        ) from e
    if (folder / "attributes.json").is_file():
        driver = "n5"
    else:
        driver = "zarr3" if (folder / "zarr.json").is_file() else "zarr"
    spec = {
        "driver": driver,
        "kvstore": {"driver": "file", "path": f"{folder.absolute()}/"},
        # what was read is written at once and not asked for again
        "context": {
            "cache_pool": {"total_bytes_limit": 0},
            "file_io_concurrency": {"limit": 4},
            "data_copy_concurrency": {"limit": os.cpu_count() or 1},
        },
    }
    return _TensorArray(tensorstore.open(spec, open=True, read=True).result(), hints)


def _inside(path: Path, key: str) -> Path:
    folder = path / key.strip("/")
    if not folder.resolve().is_relative_to(path.resolve()):
        raise UsageError(f"The key {key!r} leaves {path}. Arrays: {_listed(path) or 'none'}.")
    if not folder.is_dir():
        raise UsageError(
            f"There is no array {key!r} in {path}: give {path}:KEY. "
            f"Arrays: {_listed(path) or 'none'}."
        )
    return folder


def _read_json(path: Path) -> dict[str, Any]:
    try:
        got = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as e:
        raise BadVolumeError(f"{path} is not valid JSON: {e}.") from e
    return got if isinstance(got, dict) else {}


def _is_array(folder: Path) -> bool:
    if (folder / ".zarray").is_file():
        return True
    if _read_json(folder / "zarr.json").get("node_type") == "array":
        return True
    return "dataType" in _read_json(folder / "attributes.json")


def _arrays(folder: Path, depth: int = 0) -> Iterator[Path]:
    if _is_array(folder):
        yield folder
    elif depth < _DEEPEST:
        for below in sorted(p for p in folder.iterdir() if p.is_dir()):
            yield from _arrays(below, depth + 1)


def _listed(path: Path) -> str:
    names = [p.relative_to(path).as_posix() for p in _arrays(path)]
    more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    return ", ".join(names[:_MOST_LISTED]) + more


def _attributes(folder: Path) -> dict[str, Any]:
    """What users wrote about a group or an array, whichever format it is in."""
    found = {**_read_json(folder / ".zattrs"), **_read_json(folder / "attributes.json")}
    own = _read_json(folder / "zarr.json").get("attributes")
    return {**found, **own} if isinstance(own, dict) else found


@dataclass(frozen=True, slots=True)
class _Level:
    path: str
    axes: str
    voxel_nm: tuple[float | None, ...]


def _levels(folder: Path) -> list[_Level]:
    """Levels of an OME-Zarr image, finest first; empty when the folder is none."""
    attributes = _attributes(folder)
    ome = attributes.get("ome")
    images = (ome if isinstance(ome, dict) else attributes).get("multiscales")
    try:
        image = images[0] if isinstance(images, list) and images else {}
        axes = image.get("axes", list(_LETTERS[-5:]))
        named = [a if isinstance(a, dict) else {"name": a} for a in axes]
        letters = "".join(str(a["name"]).lower()[:1] for a in named)
        levels = []
        for dataset in image.get("datasets", []):
            scale = _scale(dataset) or [None] * len(named)
            sizes = tuple(
                nm_of(v, a.get("unit")) if v is not None else None
                for v, a in zip(scale, named, strict=True)
            )
            levels.append(_Level(str(dataset["path"]), letters, sizes))
    except (LookupError, TypeError, ValueError, AttributeError):
        return []
    return levels


def _scale(dataset: dict[str, Any]) -> list[float | None] | None:
    for transform in dataset.get("coordinateTransformations", []):
        if transform.get("type") == "scale":
            return list(transform["scale"])
    return None


def _multiscale_hints(root: Path, folder: Path) -> Hints | None:
    """What the OME-Zarr image says whose level this array is."""
    group = folder.parent
    while group.is_relative_to(root) or group == root.parent:
        for level in _levels(group):
            if group / level.path == folder:
                sizes = level.voxel_nm if any(level.voxel_nm) else None
                return Hints(level.axes, sizes, "OME-Zarr metadata")
        if group == group.parent:
            break
        group = group.parent
    return None


def _own_hints(folder: Path) -> Hints:
    """Names of dimensions, and voxel sizes as Zarr and N5 writers of EM volumes put them."""
    attributes = _attributes(folder)
    names = attributes.get("axes") or _read_json(folder / "zarr.json").get("dimension_names")
    axes = None
    if isinstance(names, list) and all(isinstance(v, str) and v for v in names):
        axes = "".join(v.lower()[0] for v in names)
    told, unit = "its attributes", attributes.get("units", attributes.get("unit", "nm"))
    sizes: object = attributes.get("resolution", attributes.get("voxel_size"))
    pixel = attributes.get("pixelResolution")
    if isinstance(pixel, dict):
        sizes, unit = pixel.get("dimensions"), pixel.get("unit", "nm")
    if not isinstance(sizes, list):
        return Hints(axes, None, told if axes else "")
    units = unit if isinstance(unit, list) else [unit] * len(sizes)
    nm = tuple(nm_of(v, u) for v, u in zip(sizes, units, strict=False))
    return Hints(axes, nm if any(nm) else None, told)
