"""What a model says of many touching pairs, kept on disk part by part.

Several strategies and several runs share one folder; a run that was broken off goes on with the
part that it had not finished.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.errors import AssistError, DatasetError
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import Kind, SegmentId, Site
from cb2_assist.learning.examples import PairTable
from cb2_assist.views.features import FEATURE_NAMES

if TYPE_CHECKING:
    from cb2_assist.suggestions.pipeline import Answer, Signals

Floats = NDArray[np.float64]

PART = 64
"""Pairs of one file: what a run that is broken off may lose."""
_ABOUT = "about.json"


class Judge(Protocol):
    """The assistant."""

    @property
    def judge(self) -> str:
        """Names model and calibrator: the same text, the same numbers."""

    def score(self, sites: Iterable[Site]) -> Iterator[Answer]:
        """Judge given sites, in order."""

    def signals_of(self, suggestion_id: str) -> Signals | None:
        """Features and embedding of what was judged just now."""


@dataclass(frozen=True, slots=True, eq=False)
class ScoredPairs:
    """Numbers of n pairs, in the order of their table; NaN in a row that could not be judged.

    Attributes:
        score: At a 50:50 prior, (n,).
        confidence: At the base rate in force, (n,).
        views: What each view says alone, (n, V).
        embedding: float32, (n, D); D is 0 when the network has no joint embedding.
        features: float32, (n, F), see `views.features.FEATURE_NAMES`.
    """

    score: Floats
    confidence: Floats
    views: Floats
    embedding: NDArray[np.float32]
    features: NDArray[np.float32]

    def take(self, rows: NDArray[np.intp]) -> ScoredPairs:
        """Some of them."""
        return ScoredPairs(*(getattr(self, name)[rows] for name in self.__slots__))


def score_pairs(
    judge: Judge, table: PairTable, folder: Path, about: dict[str, Any], say: Callable[[str], None]
) -> ScoredPairs:
    """Judge every pair of a table that the folder does not have yet.

    Args:
        judge: Model and calibration.
        table: The pairs.
        folder: Made if it is not there.
        about: What else the numbers depend on, as JSON: dataset and version.
        say: Told about progress.

    Raises:
        DatasetError: The folder holds numbers of other pairs, or of another model.
        AssistError: The folder cannot be written.
    """
    wanted = {**about, "judge": judge.judge, "pairs": _digest(table), "part": PART}
    _claim(folder, wanted)
    starts = range(0, len(table), PART)
    for start in starts:
        path = folder / f"{start:08d}.npz"
        if path.is_file():
            continue
        rows = np.arange(start, min(start + PART, len(table)))
        _write(path, _judged(judge, table.take(rows)))
        say(f"{rows[-1] + 1} of {len(table)} pairs judged")
    parts = [_read(folder / f"{start:08d}.npz") for start in starts]
    return ScoredPairs(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def sites_of(table: PairTable) -> Iterator[Site]:
    """One join a row."""
    for a, b, point in zip(table.a, table.b, table.point_nm, strict=True):
        yield Site(Kind.JOIN, SegmentId(int(a)), SegmentId(int(b)), PointNm.of(point))


def _digest(table: PairTable) -> str:
    columns = (table.a, table.b, table.point_nm)
    return hashlib.sha256(b"".join(np.ascontiguousarray(c).tobytes() for c in columns)).hexdigest()


def _claim(folder: Path, wanted: dict[str, Any]) -> None:
    path = folder / _ABOUT
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            path.write_text(json.dumps(wanted, indent=1), encoding="utf-8")
        got = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise AssistError(f"{path} cannot be used: {e}. Name another folder with --out.") from e
    if got != wanted:
        other = sorted(k for k in wanted.keys() | got.keys() if wanted.get(k) != got.get(k))
        raise DatasetError(
            f"{folder} holds scores of another run ({', '.join(other)} differ). Give another "
            "--out, or delete that folder."
        )


def _judged(judge: Judge, table: PairTable) -> tuple[NDArray[Any], ...]:
    n = len(table)
    score, confidence = np.full(n, np.nan), np.full(n, np.nan)
    views: list[list[float]] = []
    embedding: dict[int, NDArray[np.float32]] = {}
    features = np.full((n, len(FEATURE_NAMES)), np.nan, np.float32)
    for i, answer in enumerate(judge.score(sites_of(table))):
        found = answer.suggestion
        signals = None if found is None else judge.signals_of(found.id)
        views.append([] if found is None else [v.score for v in found.views])
        if found is None or signals is None:
            continue
        score[i], confidence[i] = found.score, found.confidence
        features[i] = signals.features
        if signals.embedding is not None:
            embedding[i] = signals.embedding
    width = max((len(v) for v in views), default=0)
    seen = np.array([v + [np.nan] * (width - len(v)) for v in views]).reshape(n, width)
    depth = max((len(e) for e in embedding.values()), default=0)
    where = np.full((n, depth), np.nan, np.float32)
    for i, e in embedding.items():
        where[i] = e
    return score, confidence, seen, where, features


def _write(path: Path, columns: tuple[NDArray[Any], ...]) -> None:
    half = path.with_suffix(".part")
    try:
        with half.open("wb") as file:
            named: dict[str, Any] = dict(zip(ScoredPairs.__slots__, columns, strict=True))
            np.savez(file, **named)
        os.replace(half, path)  # noqa: PTH105 - atomic on every system
    except OSError as e:
        raise AssistError(f"{path} cannot be written: {e.strerror or e}. Free some space.") from e


def _read(path: Path) -> tuple[NDArray[Any], ...]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return tuple(file[name] for name in ScoredPairs.__slots__)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as e:
        raise DatasetError(
            f"{path} is damaged: {e}. Delete it; the next run makes it again."
        ) from e
