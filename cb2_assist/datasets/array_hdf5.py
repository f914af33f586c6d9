"""Datasets in HDF5 files, read part by part with h5py."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cb2_assist.core.errors import BadVolumeError, UsageError
from cb2_assist.datasets.stored import AnyArray, Hints, Index, StoredArray

if TYPE_CHECKING:
    import h5py

_MOST_LISTED = 20


def open_hdf5(path: Path, key: str | None) -> StoredArray:
    """Open a dataset of an HDF5 file; the key may be left out where only one has 3 dimensions.

    Raises:
        UsageError: The key is missing or wrong; names the datasets.
        OSError: Not an HDF5 file, or a damaged one.
    """
    import h5py

    with contextlib.suppress(ImportError):
        import hdf5plugin  # noqa: F401  registers more codecs where it is installed

    with contextlib.ExitStack() as stack:
        file = stack.enter_context(h5py.File(path, "r"))
        found = _datasets(file)
        if key is None:
            volumes = [name for name, d in found.items() if d.ndim >= 3]
            if len(volumes) != 1:
                raise UsageError(f"Say which dataset of {path}: give {path}:KEY. {_listed(found)}")
            key = volumes[0]
        dataset = file.get(key.strip("/") or "/")
        if not isinstance(dataset, h5py.Dataset):
            raise UsageError(f"There is no dataset {key!r} in {path}. {_listed(found)}")
        if dataset.shape is None:
            raise BadVolumeError(f"{path}:{key} is empty.")
        stack.pop_all()
        return _Hdf5Array(file, dataset)


def _datasets(file: h5py.File) -> dict[str, h5py.Dataset]:
    import h5py

    found: dict[str, h5py.Dataset] = {}

    def see(name: str, thing: object) -> None:
        if isinstance(thing, h5py.Dataset):
            found[f"/{name}"] = thing

    file.visititems(see)
    return found


def _listed(found: dict[str, h5py.Dataset]) -> str:
    some = [f"{name} {d.shape} {d.dtype}" for name, d in list(found.items())[:_MOST_LISTED]]
    more = f" and {len(found) - _MOST_LISTED} more" if len(found) > _MOST_LISTED else ""
    return f"Datasets: {', '.join(some) or 'none'}{more}."


class _Hdf5Array:
    def __init__(self, file: h5py.File, dataset: h5py.Dataset) -> None:
        self._file, self._dataset = file, dataset
        self.shape: tuple[int, ...] = dataset.shape
        self.dtype: np.dtype[Any] = dataset.dtype
        self.chunk: tuple[int, ...] = dataset.chunks or (1,) * dataset.ndim
        self.hints = _hints(dataset)

    def read(self, lo: Index, hi: Index) -> AnyArray:
        """Values of the box."""
        got: AnyArray = self._dataset[tuple(slice(a, b) for a, b in zip(lo, hi, strict=True))]
        return got

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _hints(dataset: h5py.Dataset) -> Hints:
    """Axis labels, and voxel sizes as CREMI (nm) and ilastik (µm) write them."""
    n = dataset.ndim
    labels = [str(d.label).lower() for d in dataset.dims]
    axes = "".join(labels) if all(len(v) == 1 for v in labels) and len(labels) == n else None
    for name, nm in (("resolution", 1.0), ("voxel_size", 1.0), ("element_size_um", 1000.0)):
        try:
            sizes = np.asarray(dataset.attrs[name], float).ravel() * nm
        except (KeyError, TypeError, ValueError, OSError):
            continue
        if 3 <= len(sizes) <= n and np.all(np.isfinite(sizes)) and np.all(sizes > 0):
            missing: list[float | None] = [None] * (n - len(sizes))
            return Hints(axes, (*missing, *(float(v) for v in sizes)), f"its attribute {name}")
    return Hints(axes, None, "its axis labels" if axes else "")
