"""A model on a folder of decisions: stored views in, one score for each operation out."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.errors import DatasetError, ModelError
from cb2_assist.core.records import Kind
from cb2_assist.learning.cb2_decisions import StoredDecision, read_decisions
from cb2_assist.learning.cb2_decode import DamagedViewError, Seen, decode, fitting
from cb2_assist.learning.cb2_schema import Release
from cb2_assist.learning.judged import SUBSETS, Floats, Judged, calibrated
from cb2_assist.model.network import (
    FEATURE_TOKEN,
    GRAPH_TOKEN,
    N_GEOMETRY,
    N_TOKENS,
    N_VIEWS,
)

if TYPE_CHECKING:
    from cb2_assist.model.predictor import Predictor
    from cb2_assist.suggestions.calibration import Calibrator

Say = Callable[[str], None]

_CHUNK = 32
"""Rows whose images are in memory at once, about 3 MB each."""
_EXTENT_TOLERANCE = 0.01
_NO_SCORE = "the model's answer is not a number"


@dataclass(slots=True)
class Tally:
    """What a pass over a folder met besides decisions."""

    rows: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    """Rows that were left out, by reason: they are in no figure."""
    unscored: Counter[str] = field(default_factory=Counter)
    """Decisions without a score, by reason: they count as wrong."""
    mismatches: Counter[str] = field(default_factory=Counter)
    """Rows that were shown otherwise than the model's card asks, by how."""
    clusters: Counter[str] = field(default_factory=Counter)
    """Decisions by what their interval resamples."""


@dataclass(slots=True)
class _Operation:
    """Rows of one operation, as far as they were read."""

    answer: bool
    species: str
    sample_type: str
    cluster: str
    cluster_kind: str
    total: Floats
    count: NDArray[np.int64]
    present: NDArray[np.bool_]
    rows: int = 0
    contradicted: bool = False
    damage: str | None = None


def judge_rows(
    files: Sequence[Path],
    release: Release,
    predictor: Predictor,
    calibrator: Calibrator,
    *,
    any_profile: bool = False,
    say: Say,
) -> tuple[list[Judged], Tally]:
    """Score every operation of some shards.

    An operation with several rows has the mean of their scores, as ConnectomeBench2 takes the mean
    over an operation's views. One of whose stored views any is damaged has none.

    Args:
        files: Shards of one release.
        release: Their columns.
        predictor: The model.
        calibrator: Log-odds to score.
        any_profile: Also show views that are encoded otherwise than the model's card asks.
        say: Takes progress.

    Raises:
        DatasetError: A shard is damaged, or nothing with an answer is in them.
        ModelError: The views are of another encoding than the card's.
    """
    tally = Tally()
    no_answer: Counter[str] = Counter()
    operations: dict[tuple[Kind, str], _Operation] = {}
    stored = _once(read_decisions(files, release, no_answer), tally)
    wanted = _Wanted(predictor, tally, any_profile)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while chunk := list(itertools.islice(stored, _CHUNK)):
            shown = list(pool.map(wanted.look, chunk))
            scores = _scores(chunk, shown, predictor, calibrator)
            for row, seen, values in zip(chunk, shown, scores, strict=True):
                wanted.count(row, seen)
                if seen is not None:
                    _add(operations, row, seen, values)
            if tally.rows % (32 * _CHUNK) == 0:
                say(f"{tally.rows} rows read")
                if not operations:
                    break  # no use in reading 100 GB more of them
    tally.rows += no_answer.total()
    tally.skipped += no_answer
    for key in [key for key, o in operations.items() if o.contradicted]:
        tally.skipped["its operation has rows with both answers"] += operations.pop(key).rows
    if not operations:
        _refuse(files, tally, predictor)
    return _sets(operations, tally), tally


def _once(rows: Iterator[StoredDecision], tally: Tally) -> Iterator[StoredDecision]:
    known: set[str] = set()
    for row in rows:
        tally.rows += 1
        if row.row_key in known:
            tally.skipped["the same row was there before"] += 1
            continue
        known.add(row.row_key)
        yield row


class _Wanted:
    """Which of a row's views a model may see."""

    def __init__(self, predictor: Predictor, tally: Tally, any_profile: bool) -> None:
        self.views, self.name = predictor.model.views, predictor.model.name
        self.tally, self.any = tally, any_profile

    def look(self, row: StoredDecision) -> Seen | str | None:
        """What the model sees, why it sees nothing, or None: its encoding has none of the views."""
        geometry, em = (True, True) if self.any else fitting(row, self.views.profile)
        if not geometry and not em:
            return None
        try:
            seen = decode(row, self.views, use_geometry=geometry, use_em=em)
        except DamagedViewError as e:
            return str(e)
        if seen is None and not (geometry and em):
            return None
        return "it has no views" if seen is None else seen

    def count(self, row: StoredDecision, seen: Seen | str | None) -> None:
        """Keep what was shown otherwise than the card asks."""
        wants = self.views.profile
        if seen is None:
            self.tally.skipped[
                f"its views are not in the encoding that the model wants, {wants}"
            ] += 1
            return
        fits = fitting(row, wants)
        how = "shown all the same" if self.any else "left out"
        for name, good, stored in zip(
            ("geometry", "EM"), fits, ("cb2", row.em_profile), strict=True
        ):
            if not good:
                what = stored if stored != wants else f"{stored} of one segment, not of two sides"
                self.tally.mismatches[f"{name} is {what}, the card wants {wants}: {how}"] += 1
        extent = self.views.extent_nm
        if row.extent_nm is None:
            self.tally.mismatches["the views' extent is not known"] += 1
        elif abs(row.extent_nm - extent) > _EXTENT_TOLERANCE * extent:
            self.tally.mismatches[
                f"the views reach {row.extent_nm:g} nm, the card wants {extent:g} nm"
            ] += 1
        if not isinstance(seen, Seen) or not seen.present[FEATURE_TOKEN]:
            self.tally.mismatches["there are no contact features"] += 1


def _scores(
    rows: Sequence[StoredDecision],
    shown: Sequence[Seen | str | None],
    predictor: Predictor,
    calibrator: Calibrator,
) -> Floats:
    """Scores by row and subset; NaN where there is nothing to see."""
    out = np.full((len(rows), len(SUBSETS)), np.nan)
    at = [i for i, seen in enumerate(shown) if isinstance(seen, Seen)]
    seen = [s for s in shown if isinstance(s, Seen)]
    if seen:
        kinds = [rows[i].kind for i in at]
        logits = predictor.subset_logits(
            [s.input for s in seen],
            np.stack([s.present for s in seen]),
            kinds,
            list(SUBSETS.values()),
        )
        out[at] = calibrated(logits, kinds, calibrator.score)
    return out


def _add(
    operations: dict[tuple[Kind, str], _Operation],
    row: StoredDecision,
    seen: Seen | str,
    scores: Floats,
) -> None:
    found = operations.setdefault(
        (row.kind, row.operation),
        _Operation(
            row.answer,
            row.species,
            row.sample_type,
            row.cluster,
            row.cluster_kind,
            np.zeros(len(SUBSETS)),
            np.zeros(len(SUBSETS), np.int64),
            np.zeros(N_TOKENS, bool),
        ),
    )
    found.rows += 1
    found.contradicted |= found.answer != row.answer
    if isinstance(seen, str):
        found.damage = found.damage or seen
        return
    if not np.isfinite(scores[0]):
        found.damage = found.damage or _NO_SCORE
        return
    known = np.isfinite(scores)
    found.total[known] += scores[known]
    found.count += known
    found.present |= seen.present


def _sets(operations: dict[tuple[Kind, str], _Operation], tally: Tally) -> list[Judged]:
    out = []
    for kind in Kind:
        some = [(key, o) for (k, key), o in operations.items() if k is kind]
        if not some:
            continue
        for _, o in some:
            tally.clusters[o.cluster_kind] += 1
            if o.damage is not None:
                tally.unscored[o.damage] += 1
        ops = [o for _, o in some]
        good = np.array([o.damage is None for o in ops])
        count = np.stack([np.where(o.damage is None, o.count, 0) for o in ops])
        scores = np.full(count.shape, np.nan)
        np.divide(np.stack([o.total for o in ops]), count, out=scores, where=count > 0)
        present = np.stack([o.present for o in ops])
        em, geometry = present[:, N_GEOMETRY:N_VIEWS].any(1), present[:, :N_GEOMETRY].any(1)
        there = {
            "em": em,
            "geometry": geometry,
            "both": em & geometry,
            "features": present[:, FEATURE_TOKEN],
            "neighbours": present[:, GRAPH_TOKEN],
        }
        out.append(
            Judged(
                kind,
                np.array([key for key, _ in some]),
                np.array([o.answer for o in ops]),
                np.array([o.cluster for o in ops]),
                np.array([o.species for o in ops]),
                np.array([o.sample_type for o in ops]),
                {name: scores[:, k] for k, name in enumerate(SUBSETS)},
                {name: rows & good for name, rows in there.items()},
            )
        )
    return out


def _refuse(files: Sequence[Path], tally: Tally, predictor: Predictor) -> None:
    wants = predictor.model.views.profile
    other = sum(n for why, n in tally.skipped.items() if why.startswith("its views are not in"))
    if other:
        raise ModelError(
            f"The model {predictor.model.name!r} wants views in the encoding {wants!r}, and none "
            f"of {other} decisions in {files[0].parent} has such. ConnectomeBench2's releases are "
            "'cb2'. Give a model of that encoding, or --any-profile to show this one the views as "
            "they are and have the results say so."
        )
    reasons = "; ".join(f"{n}: {why}" for why, n in tally.skipped.items()) or "no rows"
    raise DatasetError(f"No decision with an answer is in {files[0].parent} ({reasons}).")
