"""Views of places where two segments touch, without any answer, for masked modelling.

No truth is read, also where the dataset has one. Views are rendered once, as `prepare` does, into
arrays on disk that training reads by memory map; a rendering that was stopped goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.channels import EmChannel, EmView, GeometryChannel, GeometryView
from cb2_assist.core.errors import DatasetError
from cb2_assist.core.geometry import BoxVx, PointNm, PointVoxel
from cb2_assist.core.records import Kind, SegmentId, Site
from cb2_assist.datasets.local import LocalSource
from cb2_assist.learning.examples import PairTable, Volume, touching_pairs
from cb2_assist.learning.prepare import grey_statistics
from cb2_assist.model.card import ViewSpec
from cb2_assist.model.inputs import network_input
from cb2_assist.views.features import FEATURE_NAMES
from cb2_assist.views.site import build_window
from cb2_assist.views.stack import render

HELD_OUT = 0.1
"""Share of the longest side of a volume whose sites are not learnt from."""
GUARD_NM = 200.0
"""Sites as near as this to the held-out ones are in neither set."""
BLOCK_NM = 500.0
_EVERY = 500
_DONE, _ASKED = "sites.json", "asked.json"


@dataclass(frozen=True, slots=True)
class Sites:
    """Rendered sites of one volume.

    Attributes:
        geometry: float16, (n, 3, 7, px, px), memory-mapped.
        em: uint8, (n, 3, 3, px, px), memory-mapped.
        held_out: bool, (n,).
        block: int64, (n,): which cube of `BLOCK_NM` it lies in; intervals resample these.
    """

    name: str
    geometry: NDArray[np.float16]
    em: NDArray[np.uint8]
    held_out: NDArray[np.bool_]
    block: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.held_out)


@dataclass(frozen=True, slots=True)
class Places:
    """Touching pairs of one volume among which sites are drawn.

    Attributes:
        volume: Its truth is all 0: nobody has read it.
        pairs: Those that are in one of the two sets.
        held_out: bool, one a pair.
    """

    volume: Volume
    pairs: PairTable
    held_out: NDArray[np.bool_]

    def take(self, rows: NDArray[np.intp]) -> Places:
        """Some of the pairs."""
        return Places(self.volume, self.pairs.take(rows), self.held_out[rows])


def unlabelled_volume(source: LocalSource, below_z: int | None) -> Volume:
    """EM and segments of a local dataset below a voxel plane; nothing else of it is read.

    Raises:
        DatasetError: It cannot be read, or nothing of it lies below the plane.
    """
    lo, hi = source.bounds.lo, source.bounds.hi
    top = hi.z if below_z is None else min(hi.z, below_z)
    if top <= lo.z:
        raise DatasetError(
            f"{source.info.name} starts at z {lo.z}, so nothing lies below z {below_z}. Give a "
            "greater --below-z, or leave this dataset out."
        )
    cutout = source.cutout(BoxVx(lo, PointVoxel(hi.x, hi.y, top)))
    nothing = np.broadcast_to(np.uint64(0), cutout.seg.shape)
    return Volume(source.info.name, cutout.box, cutout.resolution, cutout.em, cutout.seg, nothing)


def places_of(volume: Volume) -> Places:
    """All touching pairs; those at the end of the volume's longest side are held out.

    The plane depends on the volume's box alone, so that two segmentations of one place hold out
    the same part of it.
    """
    pairs = touching_pairs(volume)
    resolution = np.array(tuple(volume.resolution), np.float64)
    lo, hi = (np.array(tuple(v)) * resolution for v in (volume.box.lo, volume.box.hi))
    axis = int(np.argmax(hi - lo))
    plane = hi[axis] - HELD_OUT * (hi[axis] - lo[axis])
    at = pairs.point_nm[:, axis]
    used = (at >= plane) | (at < plane - GUARD_NM)
    return Places(volume, pairs.take(used), at[used] >= plane)


def drawn(places: Sequence[Places], sites: int, seed: int) -> list[Places]:
    """As many sites of all volumes together, each pair as likely as any other.

    Args:
        places: Of each volume.
        sites: How many; all, where there are fewer.
        seed: Of the draw.
    """
    counts = [len(p.pairs) for p in places]
    total = sum(counts)
    rng = np.random.default_rng((seed, 7))
    chosen = rng.permutation(total)[: min(sites, total)]
    of = np.repeat(np.arange(len(places)), counts)
    start = np.cumsum([0, *counts])
    return [p.take(chosen[of[chosen] == k] - start[k]) for k, p in enumerate(places)]


def render_sites(
    places: Places,
    folder: Path,
    view: ViewSpec,
    asked: Mapping[str, Any],
    say: Callable[[str], None],
) -> Sites:
    """Render sites into a folder, or go on with that, or open what is there.

    Args:
        places: Every pair becomes a site.
        folder: Made if it is not there.
        view: How the network wants its views.
        asked: What decided which sites these are, as JSON.
        say: Told about progress.

    Raises:
        DatasetError: The folder holds sites of another request.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _same_request(folder, asked)
    n, px, volume = len(places.pairs), view.image_px, places.volume
    files = {
        "geometry": (np.float16, (len(GeometryView), len(GeometryChannel), px, px)),
        "em": (np.uint8, (len(EmView), len(EmChannel), px, px)),
    }
    if not (folder / _DONE).is_file():
        size = {k: int(np.prod(s)) * np.dtype(t).itemsize for k, (t, s) in files.items()}
        paths = {k: folder / f"{k}.raw" for k in files}
        done = min((p.stat().st_size // size[k]) if p.is_file() else 0 for k, p in paths.items())
        statistics, cutout = grey_statistics(volume), volume.cutout
        nothing = np.zeros(len(FEATURE_NAMES), np.float32)
        with paths["geometry"].open("ab") as geometry, paths["em"].open("ab") as em:
            # a row that was half written when the process was killed is written again
            geometry.truncate(done * size["geometry"])
            em.truncate(done * size["em"])
            for row in range(done, n):
                site = Site(
                    Kind.JOIN,
                    SegmentId(int(places.pairs.a[row])),
                    SegmentId(int(places.pairs.b[row])),
                    PointNm.of(places.pairs.point_nm[row]),
                )
                stack = render(
                    build_window(cutout, site, view.extent_nm, volume.box),
                    extent_nm=view.extent_nm,
                    profile=view.profile,
                    statistics=statistics,
                    features=nothing,
                )
                x = network_input(stack, px)
                geometry.write(np.ascontiguousarray(x.geometry, np.float16).tobytes())
                em.write(np.ascontiguousarray(x.em, np.uint8).tobytes())
                if (row + 1) % _EVERY == 0:
                    say(f"{volume.name}: {row + 1} of {n} sites rendered")
        (folder / _DONE).write_text(json.dumps({"n": n}) + "\n")
    arrays = {
        k: np.memmap(folder / f"{k}.raw", dtype, "r", shape=(n, *shape))
        if n
        else np.zeros((0, *shape), dtype)
        for k, (dtype, shape) in files.items()
    }
    cubes = np.floor(places.pairs.point_nm / BLOCK_NM).astype(np.int64)
    block = np.unique(cubes, axis=0, return_inverse=True)[1].ravel()
    return Sites(volume.name, arrays["geometry"], arrays["em"], places.held_out, block)


def _same_request(folder: Path, asked: Mapping[str, Any]) -> None:
    path = folder / _ASKED
    if path.is_file():
        before = json.loads(path.read_text())
        if before != asked:
            raise DatasetError(
                f"{folder} holds sites for {before}, now wanted is {dict(asked)}. Give another "
                "--out, or delete it to render again."
            )
        return
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(dict(asked)))
    temporary.replace(path)
