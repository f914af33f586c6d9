"""What a simulation needs of a volume: pairs, overlaps and skeletons, kept on disk."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.errors import AssistError, DatasetError
from cb2_assist.learning.examples import PairTable, Volume, touching_pairs
from cb2_assist.learning.overlaps import Overlaps
from cb2_assist.learning.run_length import Skeletons, skeletonise

Part = TypeVar("Part", PairTable, Overlaps, Skeletons)


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """A part of a volume, boiled down.

    Attributes:
        pairs: Touching pairs whose contact lies in the part; sizes and bodies are of the whole
            volume.
        overlaps: Voxels of the part.
        skeletons: Of the part.
    """

    pairs: PairTable
    overlaps: Overlaps
    skeletons: Skeletons

    @property
    def segments(self) -> NDArray[np.uint64]:
        """Every segment that occurs, sorted."""
        s = self.skeletons.segment
        return np.unique(
            np.concatenate([self.pairs.a, self.pairs.b, self.overlaps.segment, s[s > 0]])
        )

    @property
    def is_true(self) -> NDArray[np.bool_]:
        """Pairs of which most of either side lies in one and the same body."""
        return self.pairs.same & (self.pairs.truth_a > 0)


def boil_down(volume: Volume, z_range: tuple[int, int], say: Callable[[str], None]) -> Ground:
    """Measure the part with z_range[0] <= z < z_range[1], absolute voxels.

    Raises:
        DatasetError: Nothing lies in it.
    """
    say(f"{volume.name}: looking for touching pairs")
    table = touching_pairs(volume)
    z = table.contact_z
    low = volume.box.lo.z
    part = slice(max(0, z_range[0] - low), max(0, z_range[1] - low))
    seg, truth = volume.seg[:, :, part], volume.truth[:, :, part]
    pairs = table.take((z >= z_range[0]) & (z < z_range[1]))
    overlaps = Overlaps.count(seg, truth) if seg.size else None
    if not len(pairs) or overlaps is None or not len(overlaps.voxels):
        raise DatasetError(
            f"{volume.name} has no touching pair, or no truth, at {z_range[0]} <= z < {z_range[1]}."
        )
    say(f"{volume.name}: thinning the true bodies for the run length")
    return Ground(pairs, overlaps, skeletonise(seg, truth, volume.resolution))


def save(ground: Ground, path: Path) -> None:
    """Keep it.

    Raises:
        AssistError: The file cannot be written.
    """
    parts: dict[str, PairTable | Overlaps | Skeletons] = {
        "pairs": ground.pairs,
        "overlaps": ground.overlaps,
        "skeletons": ground.skeletons,
    }
    arrays: dict[str, NDArray[np.generic]] = {
        f"{name}.{column.name}": getattr(part, column.name)
        for name, part in parts.items()
        for column in fields(part)
    }
    half = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with half.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        half.replace(path)
    except OSError as e:
        raise AssistError(f"{path} cannot be written: {e.strerror or e}.") from e


def load(path: Path) -> Ground:
    """Read what `save` kept.

    Raises:
        DatasetError: It is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:

            def of(name: str, kind: type[Part]) -> Part:
                return kind(*(file[f"{name}.{c.name}"] for c in fields(kind)))

            return Ground(
                of("pairs", PairTable), of("overlaps", Overlaps), of("skeletons", Skeletons)
            )
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as e:
        raise DatasetError(
            f"{path} is damaged: {e}. Delete it; the next run makes it again."
        ) from e
