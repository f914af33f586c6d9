"""Decisions of one shifted volume, as a model sees them; kept in a file, so that a run goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.errors import AssistError
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import Kind, SegmentId, Site
from cb2_assist.datasets.source import EmStatistics
from cb2_assist.learning.examples import PairTable, Volume, crop_round
from cb2_assist.learning.judge_volume import looker
from cb2_assist.learning.judged import SUBSETS
from cb2_assist.learning.prepare import grey_statistics
from cb2_assist.learning.shifts import KEEPS_STATISTICS, Cell
from cb2_assist.model.card import reads_neighbours, reads_passage
from cb2_assist.model.inputs import NetworkInput, network_input
from cb2_assist.model.network import GRAPH_TOKEN, N_TOKENS
from cb2_assist.views.features import has_interface
from cb2_assist.views.site import build_window

if TYPE_CHECKING:
    from cb2_assist.model.predictor import Predictor

_CHUNK = 32
"""Decisions in memory at once."""
_FIELDS = ("answer", "group", "judged", "logit", "embedding", "interface")
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """The joins of one cell; every array has one entry a join.

    Attributes:
        answer: What is true.
        group: Truth body of the smaller segment: what intervals resample as a whole.
        judged: False where the shift has left nothing that could be judged; the rest is NaN there.
        logit: The network's log-odds.
        embedding: float32, (n, D).
        interface: Whether the two sides met: without that the page never calls an answer reliable.
    """

    answer: NDArray[np.bool_]
    group: NDArray[np.int64]
    judged: NDArray[np.bool_]
    logit: Floats
    embedding: NDArray[np.float32]
    interface: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.answer)

    def take(self, rows: NDArray[Any]) -> Seen:
        """Some of them."""
        return Seen(*(getattr(self, f.name)[rows] for f in fields(self)))


def draw_pairs(table: PairTable, n: int, seed: int) -> PairTable:
    """Pure pairs, as many of either answer as there are, n in all at most.

    Equal numbers, since the score is a probability at equal priors.
    """
    pure = np.flatnonzero(table.pure())
    rng = np.random.default_rng(seed)
    halves = [pure[table.same[pure] == answer] for answer in (True, False)]
    drawn = [rng.permutation(half)[: n // 2] for half in halves]
    return table.take(np.sort(np.concatenate(drawn)))


def see(
    volume: Volume, table: PairTable, predictor: Predictor, species: str, cell: Cell | None = None
) -> Seen:
    """Judge joins of a volume, shifted or as it is.

    Args:
        volume: With the segments of the table.
        table: The joins, with their answers.
        predictor: The model.
        species: Of the dataset.
        cell: What is done to the volume first; None is nothing.
    """
    views = predictor.model.views_for(species)
    shifted = volume if cell is None else cell.apply(volume)
    statistics = _statistics(volume, shifted, cell)
    card = predictor.model.card
    neighbours, way_between = reads_neighbours(card), reads_passage(card)
    present = np.ones(N_TOKENS, bool)
    if cell is not None:
        for part in cell.absent:
            present[list(SUBSETS[part])] = False
            # the neighbours are measured in the same voxels as the features
            present[GRAPH_TOKEN] &= part != "features"

    def look(site: Site) -> tuple[NetworkInput, bool] | None:
        if not shifted.box.contains(site.point.to_voxel(shifted.resolution)):
            return None
        around = shifted
        if cell is not None and cell.at_site:
            around = cell.apply_at(crop_round(shifted, site.point, views.reach_nm), site.point)
        try:
            window = build_window(around.cutout, site, views.site_nm, shifted.box)
        except AssistError:
            return None  # a segment is no longer there
        seen = looker(views, statistics, around, neighbours=neighbours, way_between=way_between)
        stack = seen(window)
        return network_input(stack, views.image_px), has_interface(stack.features)

    n = len(table)
    logit = np.full(n, np.nan)
    judged, interface = np.zeros(n, bool), np.zeros(n, bool)
    embedding: NDArray[np.float32] | None = None
    sites, start = _sites(table), 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while chunk := list(islice(sites, _CHUNK)):
            shown = list(pool.map(look, chunk))
            rows = [start + k for k, s in enumerate(shown) if s is not None]
            good = [s for s in shown if s is not None]
            start += len(chunk)
            if not good:
                continue
            logit[rows], found = predictor.embed(
                [x for x, _ in good], np.tile(present, (len(good), 1)), [Kind.JOIN] * len(good)
            )
            if embedding is None:
                embedding = np.full((n, found.shape[1]), np.nan, np.float32)
            embedding[rows] = found
            judged[rows], interface[rows] = True, [met for _, met in good]
    small_a = table.voxels_a <= table.voxels_b
    return Seen(
        table.same,
        np.where(small_a, table.truth_a, table.truth_b).astype(np.int64),
        judged,
        logit,
        np.zeros((n, 0), np.float32) if embedding is None else embedding,
        interface,
    )


def _statistics(volume: Volume, shifted: Volume, cell: Cell | None) -> EmStatistics:
    if cell is not None and cell.does in KEEPS_STATISTICS:
        return grey_statistics(volume)
    found = grey_statistics(shifted)
    # labels without EM: nothing that could be normalised, so any scale shows it as one grey
    return found if found.std > 0 else EmStatistics(found.mean, 1.0)


def _sites(table: PairTable) -> Iterator[Site]:
    for i in range(len(table)):
        yield Site(
            Kind.JOIN,
            SegmentId(int(table.a[i])),
            SegmentId(int(table.b[i])),
            PointNm.of(table.point_nm[i]),
        )


def kept(path: Path, asked: dict[str, Any], make: Callable[[], Seen]) -> tuple[Seen, bool]:
    """What a file holds, if it was made for the same question; else it is made and written.

    Args:
        path: Written as a whole or not at all.
        asked: What decides the result, as JSON.
        make: Makes it.

    Returns:
        The decisions, and whether they were there already.
    """
    text = json.dumps(asked, sort_keys=True)
    found = _read(path, text)
    if found is not None:
        return found, True
    seen = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as f:
        np.savez(f, asked=np.array(text), **{k: getattr(seen, k) for k in _FIELDS})
    temporary.replace(path)
    return seen, False


def _read(path: Path, asked: str) -> Seen | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            if str(file["asked"]) != asked:
                return None
            return Seen(*(file[k] for k in _FIELDS))
    except (OSError, ValueError, KeyError, EOFError):
        return None  # absent, or damaged: it is made again
