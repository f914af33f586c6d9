"""Which cube of ConnectomeBench2's split a point lies in, from a table that the user brings.

Both public releases are split by cubes (50 µm in the first, 80 µm in the second), and neither
publishes the list of cubes of each part, so none is shipped here. A table is CSV with the header

    dataset,x0_nm,y0_nm,z0_nm,x1_nm,y1_nm,z1_nm,split

one cube a line: the dataset's name here, two corners in its frame (the second is outside), and
``train``, ``val`` or ``test``. Species is no key: another volume of the same animal has a frame of
its own.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.errors import UsageError

UNKNOWN = "unknown"
_CORNERS = ("x0_nm", "y0_nm", "z0_nm", "x1_nm", "y1_nm", "z1_nm")
_HEADER = ("dataset", *_CORNERS, "split")
_STRICTEST = ("test", "val", "train")
"""Where cubes overlap, the first of these counts: nothing that might be tested on is let out."""


@dataclass(frozen=True, slots=True, eq=False)
class _Boxes:
    corners: NDArray[np.float64]
    """(n, 6) nm."""
    split: NDArray[np.int64]
    """(n,) places in `_STRICTEST`."""


@dataclass(frozen=True, slots=True)
class Cubes:
    """Cubes by dataset."""

    by_dataset: Mapping[str, _Boxes] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """How many there are."""
        return sum(len(b.split) for b in self.by_dataset.values())

    def split_of(self, dataset: str, point_nm: Sequence[float]) -> str:
        """``train``, ``val``, ``test``, or ``unknown`` where no cube has the point."""
        boxes = self.by_dataset.get(dataset)
        if boxes is None:
            return UNKNOWN
        point = np.asarray(point_nm, np.float64)
        inside = (boxes.corners[:, :3] <= point) & (point < boxes.corners[:, 3:])
        found = boxes.split[inside.all(1)]
        return _STRICTEST[int(found.min())] if len(found) else UNKNOWN


NO_CUBES = Cubes()


def read_cubes(path: Path) -> Cubes:
    """Read a table.

    Raises:
        UsageError: It cannot be read or is no such table; names the line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _cubes(path, csv.reader(file))
    except (OSError, UnicodeError, csv.Error) as e:
        raise UsageError(f"--cb2-cubes {path} cannot be read: {e}.") from e


def _cubes(path: Path, lines: Iterable[list[str]]) -> Cubes:
    found: dict[str, list[tuple[list[float], int]]] = {}
    for number, line in enumerate(lines, 1):
        cells = [cell.strip() for cell in line]
        if number == 1:
            if tuple(cells) != _HEADER:
                raise UsageError(
                    f"--cb2-cubes {path} begins with {','.join(cells)!r}; a table of cubes begins "
                    f"with {','.join(_HEADER)}."
                )
            continue
        if not any(cells):
            continue
        dataset, corners, split = _cube(path, number, cells)
        found.setdefault(dataset, []).append((corners, _STRICTEST.index(split)))
    if not found:
        raise UsageError(f"--cb2-cubes {path} has no cubes: a line each, after the header.")
    return Cubes(
        {
            name: _Boxes(np.array([c for c, _ in boxes]), np.array([s for _, s in boxes]))
            for name, boxes in found.items()
        }
    )


def _cube(path: Path, number: int, cells: list[str]) -> tuple[str, list[float], str]:
    try:
        dataset, *middle, split = cells
        corners = [float(v) for v in middle]
    except ValueError:
        corners, dataset, split = [], "", ""
    is_box = len(corners) == len(_CORNERS) and all(map(math.isfinite, corners))
    if not dataset or not is_box or split not in _STRICTEST:
        raise UsageError(
            f"--cb2-cubes {path}, line {number}: a cube is {','.join(_HEADER)} with split train, "
            f"val or test, got {','.join(cells)!r}."
        )
    if not all(a < b for a, b in zip(corners[:3], corners[3:], strict=True)):
        raise UsageError(
            f"--cb2-cubes {path}, line {number}: the second corner must lie beyond the first, got "
            f"{','.join(cells)!r}."
        )
    return dataset, corners, split
