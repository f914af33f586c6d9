"""Named shifts of a volume, from mild to strong, as pure functions; `shifts.toml` lists them.

A shift changes EM and labels where they lie, so that views and contact features are made of the
shifted data, by the same code as ever. Sites are places in nm and stay what they are.
"""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fastremap
import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.errors import UsageError
from cb2_assist.core.geometry import BoxVx, PointNm, PointVoxel, Resolution
from cb2_assist.learning.examples import Volume

SHIPPED = Path(__file__).with_suffix(".toml")
SEVERITIES = 4
PARTS = ("geometry", "em", "features")
"""What may be absent where the model looks; names of `judged.SUBSETS`."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Cell:
    """One family at one severity.

    Attributes:
        code: A letter for the family and the severity, for plots.
        about: The family, in words.
        does: What is done: a name in `VOLUME_SHIFTS` or `SITE_SHIFTS`, or `OTHER`.
        parameters: Of that; none leaves EM and labels as they are.
        absent: Of `PARTS`, what is left out where the model looks.
        far: Whether it counts as a far shift.
    """

    family: str
    severity: int
    code: str
    about: str
    does: str
    parameters: Mapping[str, Any]
    absent: tuple[str, ...]
    far: bool

    @property
    def name(self) -> str:
        """Family and severity, a file name."""
        return f"{self.family}-{self.severity}"

    @property
    def dataset(self) -> str | None:
        """The other volume that it needs."""
        return self.parameters.get("dataset")

    def prepare(self, volume: Volume) -> Volume:
        """The other volume with the pairs that are asked about."""
        length = self.parameters.get("pieces_nm")
        return volume if length is None else pieces(volume, pieces_nm=length)

    def apply(self, volume: Volume) -> Volume:
        """The shifted volume."""
        shift = VOLUME_SHIFTS.get(self.does)
        return volume if shift is None or not self.parameters else shift(volume, **self.parameters)

    def apply_at(self, around: Volume, site: PointNm) -> Volume:
        """The shifted surroundings of a site, where the shift depends on the site."""
        shift = SITE_SHIFTS.get(self.does)
        if shift is None or not self.parameters:
            return around
        return shift(around, site, **self.parameters)

    @property
    def at_site(self) -> bool:
        """Whether `apply_at` does anything."""
        return self.does in SITE_SHIFTS and bool(self.parameters)


@dataclass(frozen=True, slots=True)
class Shifts:
    """A file of shifts."""

    version: int
    cells: tuple[Cell, ...]


def read_shifts(path: Path = SHIPPED) -> Shifts:
    """Read a file of shifts.

    Raises:
        UsageError: It cannot be read, or names what there is not.
    """
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise UsageError(f"The shifts {path} cannot be read: {e.strerror or e}.") from e
    except ValueError as e:
        raise UsageError(f"{path} is not TOML: {e}.") from e
    try:
        far_from = int(given["far_from"])
        cells = tuple(
            _cell(number, family, severity, entry, far_from)
            for number, (family, entry) in enumerate(given["families"].items())
            for severity in range(1, SEVERITIES + 1)
        )
        return Shifts(int(given["version"]), cells)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as e:
        raise UsageError(
            f"{path} does not say what the shifts are: {e}. See {SHIPPED} for one that does."
        ) from e


def _cell(number: int, family: str, severity: int, entry: Mapping[str, Any], far_from: int) -> Cell:
    step, does = entry["severities"][severity - 1], str(entry["does"])
    parameters = {k: v for k, v in step.items() if k != "absent"}
    absent = tuple(step.get("absent", ()))
    code = f"{chr(ord('A') + number)}{severity}"
    cell = Cell(
        family, severity, code, str(entry["about"]), does, parameters, absent, severity >= far_from
    )
    known = {**VOLUME_SHIFTS, **SITE_SHIFTS}
    if does not in known and does != OTHER:
        raise ValueError(f"{family} does {does!r}; known are {', '.join(known)}, {OTHER}")
    if set(absent) - set(PARTS) or set(absent) == set(PARTS):
        raise ValueError(f"{family} leaves out {list(absent)}; known are {', '.join(PARTS)}")
    if does == OTHER:
        takes = ["dataset", "pieces_nm"]
        fits = "dataset" in parameters and set(parameters) <= set(takes)
    else:
        takes = inspect.getfullargspec(known[does]).kwonlyargs
        # views that are absent are a shift without anything else being done
        fits = set(parameters) == set(takes) or (not parameters and bool(absent))
    if not fits:
        raise ValueError(f"{family} has {sorted(parameters)}; {does} takes {takes}")
    return cell


def blur(volume: Volume, *, sigma_nm: float) -> Volume:
    """EM smoothed by a Gaussian of this deviation."""
    from scipy import ndimage

    sigma = [sigma_nm / r for r in volume.resolution]
    return _with_em(volume, ndimage.gaussian_filter(volume.em.astype(np.float32), sigma))


def noise(volume: Volume, *, deviations: float) -> Volume:
    """White noise added to EM, of this many deviations of the EM."""
    rng = np.random.default_rng(0)
    drawn = rng.standard_normal(volume.em.shape, np.float32)
    return _with_em(volume, volume.em + np.float32(deviations * volume.em.std()) * drawn)


def contrast(volume: Volume, *, gain: float) -> Volume:
    """Grey levels stretched about their mean and clipped; a negative gain turns them over."""
    mean = np.float32(volume.em.mean())
    return _with_em(volume, mean + np.float32(gain) * (volume.em.astype(np.float32) - mean))


def coarser(volume: Volume, *, factor: int, labels: bool) -> Volume:
    """Read at a coarser level of the pyramid, whose voxels are cubes of ``factor`` voxels.

    Args:
        volume: Blocks lie at whole multiples of the factor, as in a pyramid.
        factor: Whole, at least 2.
        labels: Whether labels, too, are of that level, and so everything is on its grid; otherwise
            only EM is, shown on the grid of the labels.
    """
    em: Floats = volume.em.astype(np.float32)
    lo, hi = np.array(tuple(volume.box.lo)), np.array(tuple(volume.box.hi))
    places, inside = [], []
    for axis in range(3):
        block = np.arange(lo[axis], hi[axis]) // factor
        starts = np.flatnonzero(np.diff(block, prepend=block[0] - 1))
        counts = np.diff(starts, append=len(block))
        shape = [-1 if k == axis else 1 for k in range(3)]
        em = (np.add.reduceat(em, starts, axis) / counts.reshape(shape)).astype(np.float32)
        places.append(block - block[0])
        inside.append(starts + np.minimum(factor // 2, counts - 1))
    if not labels:
        return _with_em(volume, em[np.ix_(*places)])
    box = BoxVx(PointVoxel(*(lo // factor).tolist()), PointVoxel(*(-(-hi // factor)).tolist()))
    resolution = Resolution(*(factor * r for r in volume.resolution))
    at = np.ix_(*inside)
    return _volume(volume, box, resolution, em, volume.seg[at], volume.truth[at])


def sections(volume: Volume, *, voxel_nm: Sequence[float]) -> Volume:
    """What a microscope with voxels of this size would give: EM averaged over each, labels nearest.

    Args:
        volume: At any voxel size.
        voxel_nm: Edges along x, y, z.
    """
    em = volume.em.astype(np.float32)
    lo, hi, nearest = [], [], []
    for axis, (have, want) in enumerate(zip(volume.resolution, voxel_nm, strict=True)):
        start, stop = volume.box.lo, volume.box.hi
        first = -int(-tuple(start)[axis] * have // want)
        last = int(tuple(stop)[axis] * have // want)
        edges = np.arange(first, last + 1, dtype=np.float64) * (want / have) - tuple(start)[axis]
        em = _averages(em, edges, axis)
        middle = np.floor((edges[:-1] + edges[1:]) / 2).astype(int)
        nearest.append(np.clip(middle, 0, volume.em.shape[axis] - 1))
        lo.append(first)
        hi.append(last)
    at = np.ix_(*nearest)
    box = BoxVx(PointVoxel(*lo), PointVoxel(*hi))
    resolution = Resolution(*(float(v) for v in voxel_nm))
    return _volume(volume, box, resolution, em, volume.seg[at], volume.truth[at])


def _averages(em: Floats, edges: NDArray[np.float64], axis: int) -> Floats:
    """Means between edges, in voxels, along an axis; beyond the volume its last voxel counts."""
    n = em.shape[axis]
    voxel = np.arange(n)
    lower = np.maximum(edges[:-1, None], np.where(voxel == 0, -np.inf, voxel))
    upper = np.minimum(edges[1:, None], np.where(voxel == n - 1, np.inf, voxel + 1))
    share = np.maximum(upper - lower, 0.0) / np.diff(edges)[:, None]
    out = np.tensordot(share.astype(np.float32), em, axes=(1, axis))
    mean: Floats = np.moveaxis(out, 0, axis)
    return mean


def black_sections(volume: Volume, *, every: int) -> Volume:
    """Every so-many-th section along z is black, 1 being all of them."""
    em = volume.em.copy(order="F")
    z = np.arange(volume.box.lo.z, volume.box.hi.z)
    em[:, :, z % every == 0] = 0
    return replace(volume, em=em)


def labels_near(volume: Volume, site: PointNm, *, radius_nm: float) -> Volume:
    """No labels farther than this from the site."""
    squared: Any = 0.0
    lo = volume.box.lo
    for axis, (n, r) in enumerate(zip(volume.seg.shape, volume.resolution, strict=True)):
        along = (np.arange(n) + tuple(lo)[axis] + 0.5) * r - tuple(site)[axis]
        squared = squared + (along**2).reshape([-1 if k == axis else 1 for k in range(3)])
    kept = np.where(squared <= radius_nm**2, volume.seg, np.uint64(0))
    return replace(volume, seg=np.asfortranarray(kept))


def pieces(volume: Volume, *, pieces_nm: float) -> Volume:
    """Cut every segment across its longest side into pieces this long; the truth is the segments.

    For labels without a truth of their own: pieces of one segment are one, touching pieces of two
    segments are not, as far as the segmentation is right.
    """
    from scipy import ndimage

    index, _ = fastremap.renumber(volume.seg, preserve_zero=True)
    rng = np.random.default_rng(0)
    cut = np.zeros(volume.seg.shape, np.uint64, order="F")
    first = 1
    for number, box in enumerate(ndimage.find_objects(index), 1):
        sides = [(s.stop - s.start) * r for s, r in zip(box, volume.resolution, strict=True)]
        axis = int(np.argmax(sides))
        length, offset = tuple(volume.resolution)[axis], rng.uniform(0, pieces_nm)
        along = np.arange(box[axis].stop - box[axis].start) * length + offset
        piece = (along // pieces_nm).astype(np.uint64) + np.uint64(first)
        shape = [-1 if k == axis else 1 for k in range(3)]
        np.copyto(cut[box], piece.reshape(shape), where=index[box] == number)
        first = int(piece[-1]) + 1
    return replace(volume, seg=cut, truth=volume.seg)


def _with_em(volume: Volume, em: NDArray[Any]) -> Volume:
    return replace(volume, em=_grey(em))


def _grey(em: NDArray[Any]) -> NDArray[np.uint8]:
    return np.asfortranarray(np.clip(np.rint(em), 0, 255).astype(np.uint8))


def _volume(
    volume: Volume,
    box: BoxVx,
    resolution: Resolution,
    em: Floats,
    seg: NDArray[np.uint64],
    truth: NDArray[np.uint64],
) -> Volume:
    seg, truth = np.asfortranarray(seg), np.asfortranarray(truth)
    return Volume(volume.name, box, resolution, _grey(em), seg, truth)


VOLUME_SHIFTS: Mapping[str, Callable[..., Volume]] = {
    "blur": blur,
    "noise": noise,
    "contrast": contrast,
    "coarser": coarser,
    "sections": sections,
    "black_sections": black_sections,
}
"""Of a volume; parameters are the keywords."""
SITE_SHIFTS: Mapping[str, Callable[..., Volume]] = {"labels_near": labels_near}
"""Of the surroundings of one site."""
OTHER = "other_volume"
"""Another dataset, by name, cut into `pieces` where it has no truth of its own."""
KEEPS_STATISTICS = ("black_sections",)
"""After which grey statistics stay those of the whole: EM is missing, not other."""
