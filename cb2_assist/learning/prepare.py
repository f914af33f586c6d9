"""Renders examples once, into arrays on disk that training reads by memory map."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.channels import EmChannel, EmView, GeometryChannel, GeometryView
from cb2_assist.core.errors import DatasetError
from cb2_assist.core.records import Kind, Site
from cb2_assist.datasets.local import LocalSource
from cb2_assist.datasets.source import EmStatistics
from cb2_assist.learning.examples import (
    Example,
    Volume,
    cut_examples,
    join_examples,
    touching_pairs,
)
from cb2_assist.learning.pair_types import Synapses
from cb2_assist.model.card import ViewSpec
from cb2_assist.model.inputs import network_input
from cb2_assist.views.features import FEATURE_NAMES, site_features
from cb2_assist.views.stack import render
from cb2_assist.views.surroundings import CONTACT_NAMES, SIDES, surroundings


@dataclass(frozen=True, slots=True)
class Part:
    """Prepared examples of one volume.

    Attributes:
        geometry: float16, (n, 3, 7, px, px), memory-mapped.
        em: uint8, (n, 3, 3, px, px), memory-mapped.
        features: float32, (n, F).
        neighbours: float32, (n, third segment, side, measure), see `views.surroundings`.
        contacts: int8, (n, third segment, side): whether that side and that segment are one body;
            -1 where nobody knows, or the two do not touch.
        task: int64, index into the network's tasks (0 join, 1 cut).
        answer: bool.
        sample_type: str, see `pair_types`.
        group: int64, truth body of the smaller side.
        point_nm: float64, (n, 3).
        z: int64, voxel index along z by which parts are split: the contact's centroid for joins,
            the site's point for cuts.
        segment, partner: uint64; partner 0 for cuts.
    """

    name: str
    geometry: NDArray[np.float16]
    em: NDArray[np.uint8]
    features: NDArray[np.float32]
    neighbours: NDArray[np.float32]
    contacts: NDArray[np.int8]
    task: NDArray[np.int64]
    answer: NDArray[np.bool_]
    sample_type: NDArray[np.str_]
    group: NDArray[np.int64]
    point_nm: NDArray[np.float64]
    z: NDArray[np.int64]
    segment: NDArray[np.uint64]
    partner: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.task)

    def take(self, rows: NDArray[np.int64]) -> Part:
        """Some decisions, by position; their views are read into memory."""
        columns = {f.name: getattr(self, f.name) for f in fields(self)}
        return Part(**{k: v if k == "name" else v[rows] for k, v in columns.items()})


def load_volume(source: LocalSource, name: str | None = None) -> Volume:
    """Read a whole local dataset with truth into memory."""
    cutout = source.cutout(source.bounds)
    truth = source.truth_cutout(source.bounds)
    return Volume(
        name or source.info.name, cutout.box, cutout.resolution, cutout.em, cutout.seg, truth
    )


def grey_statistics(volume: Volume) -> EmStatistics:
    """Mean and deviation of the volume's EM."""
    return EmStatistics(float(volume.em.mean()), float(volume.em.std()))


def volume_examples(
    volume: Volume,
    view: ViewSpec,
    *,
    kinds: tuple[Kind, ...],
    z_range: tuple[int, int],
    seed: int,
    merges: int,
    on_truth: bool = True,
    synapses: Synapses | None = None,
) -> Iterator[tuple[Example, int]]:
    """Examples of one volume with the z by which they are split.

    Args:
        volume: Segments and truth; cut at the plane that must not be crossed.
        view: How wide a site window is.
        kinds: Which questions.
        z_range: Only contacts and points with lo <= z < hi, absolute voxels.
        seed: Of the synthetic cuts.
        merges: Synthetic merges for cuts, of segments and again of true bodies.
        on_truth: Also merge and cut true bodies, which have whole neurons' shapes.
        synapses: Where synapses are; contacts at them are a sample type of their own.
    """
    table = touching_pairs(volume)
    z = table.contact_z
    inside = (z >= z_range[0]) & (z < z_range[1])
    if Kind.JOIN in kinds:
        part = table.take(table.pure() & inside)
        zs = part.contact_z
        for example in join_examples(volume, part, view.extent_nm, synapses):
            yield example, int(zs[example.row])
    if Kind.CUT in kinds:
        rng = np.random.default_rng(seed)
        volumes = [(volume, table.take(inside))]
        if on_truth:
            whole = Volume(
                volume.name, volume.box, volume.resolution, volume.em, volume.truth, volume.truth
            )
            pairs = touching_pairs(whole)
            keep = (pairs.contact_z >= z_range[0]) & (pairs.contact_z < z_range[1])
            volumes.append((whole, pairs.take(keep)))
        for example in chain.from_iterable(
            cut_examples(v, t, view.extent_nm, rng=rng, merges=merges) for v, t in volumes
        ):
            at = int(example.window.site.point.z // volume.resolution.z)
            if z_range[0] <= at < z_range[1]:
                yield example, at


def prepare(
    examples: Iterator[tuple[Example, int]],
    folder: Path,
    name: str,
    view: ViewSpec,
    statistics: EmStatistics,
    *,
    say: Callable[[str], None],
    bodies: Mapping[int, int] | None = None,
    asked: Mapping[str, Any] | None = None,
) -> None:
    """Render examples into ``folder``; a finished folder is left as it is.

    Args:
        examples: Decisions, each with the z by which it is split.
        folder: Made if it is not there.
        name: Of the part.
        view: How the network wants its views.
        statistics: Grey level of the volume.
        say: Told about progress.
        bodies: Truth body of each segment that has one beyond doubt, see `examples.pure_bodies`:
            answers the contacts round each join.
        asked: What decided which examples these are, as JSON; `open_part` compares it.

    Raises:
        DatasetError: There is no example.
    """
    if (folder / "part.json").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    px = view.image_px
    shapes = {
        "geometry": (len(GeometryView), len(GeometryChannel), px, px),
        "em": (len(EmView), len(EmChannel), px, px),
    }
    rows: list[tuple[int, bool, str, int, tuple[float, ...], int, int, int]] = []
    features, neighbours, contacts = [], [], []
    with (folder / "geometry.raw").open("wb") as geometry, (folder / "em.raw").open("wb") as em:
        for example, z in examples:
            f = site_features(example.window, statistics)
            stack = render(
                example.window,
                extent_nm=view.extent_nm,
                profile=view.profile,
                statistics=statistics,
                features=f,
            )
            x = network_input(stack, px)
            geometry.write(np.ascontiguousarray(x.geometry, np.float16).tobytes())
            em.write(np.ascontiguousarray(x.em, np.uint8).tobytes())
            features.append(f)
            site = example.window.site
            around, ids = surroundings(example.window, statistics)
            neighbours.append(around)
            contacts.append(contact_answers(site, around, ids, bodies or {}))
            rows.append(
                (
                    0 if site.kind is Kind.JOIN else 1,
                    example.answer,
                    example.sample_type,
                    example.group,
                    tuple(site.point),
                    z,
                    site.segment,
                    site.partner or 0,
                )
            )
            if len(rows) % 500 == 0:
                say(f"{name}: {len(rows)} examples rendered")
    if not rows:
        raise DatasetError(
            f"{name}: no example with a known answer. The truth may not overlap the segmentation, "
            "or no contact lies in the part asked for."
        )
    task, answer, sample_type, group, point, z_, segment, partner = zip(*rows, strict=True)
    np.savez(
        folder / "rows.npz",
        features=np.stack(features),
        neighbours=np.stack(neighbours),
        contacts=np.stack(contacts),
        task=np.array(task, np.int64),
        answer=np.array(answer, bool),
        sample_type=np.array(sample_type, np.str_),
        group=np.array(group, np.int64),
        point_nm=np.array(point, np.float64),
        z=np.array(z_, np.int64),
        segment=np.array(segment, np.uint64),
        partner=np.array(partner, np.uint64),
    )
    meta = {
        "name": name,
        "n": len(rows),
        "shapes": {k: list(v) for k, v in shapes.items()},
        "profile": view.profile,
        "extent_nm": view.extent_nm,
        "em_mean": statistics.mean,
        "em_std": statistics.std,
        "features": list(FEATURE_NAMES),
        "contact": list(CONTACT_NAMES),
        **({} if asked is None else {"asked": dict(asked)}),
    }
    # a part without this file is made again, so it must not be there half written
    temporary = folder / "part.tmp"
    temporary.write_text(json.dumps(meta))
    temporary.replace(folder / "part.json")
    say(f"{name}: {len(rows)} examples ready")


def contact_answers(
    site: Site,
    neighbours: NDArray[np.float32],
    ids: NDArray[np.uint64],
    bodies: Mapping[int, int],
) -> NDArray[np.int8]:
    """Whether each side of a join and each third segment that it touches are one body.

    Args:
        site: Its segments are the sides.
        neighbours: From `surroundings`, as are ``ids``.
        ids: Of the third segments.
        bodies: Truth body by segment; a segment that is not there has no clear one.

    Returns:
        int8, (third segment, side): 1, 0, or -1 where it is not known. All -1 for cuts, whose
        sides have no ids.
    """
    out = np.full(neighbours.shape[:2], -1, np.int8)
    if site.partner is None:
        return out
    sides = (bodies.get(site.segment), bodies.get(site.partner))
    for k, third in enumerate(ids):
        body = bodies.get(int(third))
        for s in range(SIDES):
            if body is not None and sides[s] is not None and neighbours[k, s, 0] > 0:
                out[k, s] = body == sides[s]
    return out


def open_part(folder: Path, asked: Mapping[str, Any] | None = None) -> Part:
    """Open what `prepare` wrote.

    Raises:
        DatasetError: It was not finished, or made for another request or feature list.
    """
    try:
        meta = json.loads((folder / "part.json").read_text())
    except OSError as e:
        raise DatasetError(f"{folder} holds no prepared examples ({e.strerror}).") from e
    measured = (tuple(meta["features"]), tuple(meta.get("contact", ())))
    if measured != (FEATURE_NAMES, CONTACT_NAMES):
        raise DatasetError(
            f"{folder} was prepared with other features than this version has. Delete it; the "
            "next run of train makes it again."
        )
    if asked is not None and meta.get("asked", asked) != asked:
        raise DatasetError(
            f"{folder} was prepared for {meta['asked']}, now wanted is {asked}. Give another "
            "--out, or delete it; the next run of train makes it again."
        )
    n, shapes = int(meta["n"]), meta["shapes"]
    with np.load(folder / "rows.npz", allow_pickle=False) as rows:
        columns = {k: rows[k] for k in rows.files}
    if "sample_type" not in columns:
        raise DatasetError(
            f"{folder} was prepared by an earlier version, without sample types. Delete it; the "
            "next run of train makes it again."
        )
    return Part(
        name=meta["name"],
        geometry=np.memmap(
            folder / "geometry.raw", np.float16, "r", shape=(n, *shapes["geometry"])
        ),
        em=np.memmap(folder / "em.raw", np.uint8, "r", shape=(n, *shapes["em"])),
        **columns,
    )
