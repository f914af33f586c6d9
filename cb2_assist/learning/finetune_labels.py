"""Collected labels as decisions that a model can learn from, each site once.

They come from a label file (`Source.labels`), from a ``jsonl`` export with the views beside it, or
from parquet: a ``cb2-v1`` or ``cb2-v2`` export. What the model saw comes with them, so the dataset
is not opened.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.errors import DatasetError, ModelError, UsageError
from cb2_assist.core.records import Kind
from cb2_assist.labels.store import open_store
from cb2_assist.labels.views_store import ViewsStore
from cb2_assist.learning.cb2_decisions import StoredDecision, read_decisions
from cb2_assist.learning.cb2_decode import DamagedViewError, decode, fitting
from cb2_assist.learning.cb2_schema import find_shards, is_decision_folder, release_of
from cb2_assist.learning.export import VIEWS
from cb2_assist.learning.export_rows import label_rows
from cb2_assist.learning.export_views import ExportViews, NoViewsError
from cb2_assist.model.card import ViewSpec
from cb2_assist.model.inputs import NetworkInput, network_input
from cb2_assist.model.network import GRAPH_TOKEN, N_TOKENS
from cb2_assist.views.stack import ViewStack
from cb2_assist.views.surroundings import MEASURED_NAMES

JSONL = "labels.jsonl"


@dataclass(frozen=True, slots=True)
class Source:
    """Where labels are.

    Attributes:
        data: Folder of an export, or None.
        labels: URL of a label file, or None; beside ``data`` it only gives the views.
        dataset: Only this one; None asks for there to be one only.
        version: Only of this segmentation.
    """

    data: Path | None = None
    labels: str | None = None
    dataset: str | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Collected:
    """One label, before its views are read.

    Attributes:
        key: Names label and views: the same key, the same input.
        kind, answer: The question and what people said.
        names: Dataset and segment of each side; of a cut one.
        point_nm: Where.
        dataset, version, licence, species: As kept with it; empty where unknown.
        explore: Drawn at random by the queue.
        chosen: Chosen by the queue's order, or on the list beside such a site.
        stored: Where its views are.
    """

    key: str
    kind: Kind
    answer: bool
    names: tuple[str, str]
    point_nm: tuple[float, float, float]
    dataset: str
    version: str
    licence: str
    species: str
    explore: bool
    chosen: bool
    stored: StoredDecision | dict[str, Any]


@dataclass(slots=True)
class Harvest:
    """Labels, and what was left out."""

    rows: list[Collected]
    left_out: Counter[str] = field(default_factory=Counter)
    views: ExportViews | None = None


def collect(source: Source) -> Harvest:
    """Every label that may be learnt from, oldest first.

    Two people on one site count once: by majority, not at all on a tie.

    Raises:
        UsageError: Neither folder nor label file, or labels of several datasets and none chosen.
        DatasetError: The folder holds no labels, or a file is damaged.
        LabelError: The label file cannot be read.
    """
    left_out: Counter[str] = Counter()
    if source.data is None and source.labels is None:
        raise UsageError("Say which labels: --data DIR (an export) or --labels URL.")
    views = None
    if source.data is None:
        assert source.labels is not None
        with open_store(source.labels, read_only=True) as store:
            views = ExportViews(ViewsStore(store.views_folder))
            given = [_of_row(r) for r in label_rows(store, skipped=left_out)]
    elif (source.data / JSONL).is_file():
        views = ExportViews(ViewsStore(_views_folder(source)))
        given = [_of_row(r) for r in _json_rows(source.data / JSONL)]
    else:
        given = list(_of_parquet(source.data, left_out))
    kept = _of_one_dataset(given, source, left_out)
    return Harvest(_each_site_once(kept, left_out), left_out, views)


def _views_folder(source: Source) -> Path:
    assert source.data is not None
    if source.labels is not None:
        with open_store(source.labels, read_only=True) as store:
            return store.views_folder
    return source.data / VIEWS


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise DatasetError(f"{path} cannot be read: {e}. Export the labels again.") from e
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            _of_row(row)
        except (ValueError, KeyError, TypeError) as e:
            raise DatasetError(
                f"{path} line {number} is no label as export writes it ({e!r}). Export the labels "
                "again."
            ) from e
        yield row


def _of_row(row: dict[str, Any]) -> Collected:
    """A row of `export_rows`."""
    kind = Kind(row["kind"])
    sides = [row["segment"]] if row["partner"] is None else [row["segment"], row["partner"]]
    names = [f"{row['dataset']}/{s}" for s in sides]
    x, y, z = (float(v) for v in row["point_nm"])
    propensity = row.get("propensity") or {}
    return Collected(
        key=f"{row['label_id']} {row['views_sha256']} {row['verdict']}",
        kind=kind,
        answer=row["verdict"] == "accept",
        names=(names[0], names[1] if len(names) > 1 else ""),
        point_nm=(x, y, z),
        dataset=row["dataset"],
        version=row["version"],
        licence=row["licence"],
        species=row["species"],
        explore=is_explored(propensity),
        chosen=is_chosen(propensity),
        stored=row,
    )


def is_explored(propensity: Mapping[str, Any]) -> bool:
    """Whether the queue drew the site at random."""
    return propensity.get("how") == "queue" and propensity.get("explore") is True


def is_chosen(propensity: Mapping[str, Any]) -> bool:
    """Whether an order chose the site, or one that it stood beside."""
    how = propensity.get("how")
    return how == "queue_list" or (how == "queue" and not is_explored(propensity))


def _of_parquet(data: Path, left_out: Counter[str]) -> Iterator[Collected]:
    if not data.exists():
        raise DatasetError(
            f"There is no {data}. --data takes a folder that cb2-assist export has written."
        )
    if not is_decision_folder(data):
        raise UsageError(
            f"{data} is a dataset, not labels. Give it as --replay, or train on it with "
            "cb2-assist train."
        )
    files, _ = find_shards(data, "all")
    for row in read_decisions(files, release_of(files), left_out):
        names = [f"{row.dataset}/{s}" for s in row.segments if s]
        yield Collected(
            key=row.row_key,
            kind=row.kind,
            answer=row.answer,
            names=(names[0] if names else row.cluster, names[1] if len(names) > 1 else ""),
            point_nm=row.point_nm,
            dataset=row.dataset,
            version=row.version,
            licence=row.licence,
            species=row.species,
            explore=is_explored(row.propensity),
            chosen=is_chosen(row.propensity),
            stored=row,
        )


def _of_one_dataset(
    given: Sequence[Collected], source: Source, left_out: Counter[str]
) -> list[Collected]:
    known = Counter(r.dataset for r in given)
    told = ", ".join(f"{name} ({n})" for name, n in known.items())
    if source.dataset is None and len(known) > 1:
        raise UsageError(
            f"There are labels of several datasets: {told}. Choose one with --dataset NAME."
        )
    wanted = source.dataset or next(iter(known), None)
    kept = [r for r in given if r.dataset == wanted]
    if known and not kept:
        raise DatasetError(f"There is no label of {wanted!r}; there are those of {told}.")
    if len(given) > len(kept):
        left_out["of another dataset"] += len(given) - len(kept)
    if source.version is not None:
        versions = Counter(r.version for r in kept)
        rest = [r for r in kept if r.version == source.version]
        if kept and not rest:
            there = ", ".join(f"{name} ({n})" for name, n in versions.items())
            raise DatasetError(
                f"No label is of the segmentation {source.version!r}; there are those of {there}."
            )
        if len(kept) > len(rest):
            left_out["of another version of the segmentation"] += len(kept) - len(rest)
        kept = rest
    return kept


def _each_site_once(given: Iterable[Collected], left_out: Counter[str]) -> list[Collected]:
    """The site is where it is and what is asked; segments may have new names since."""
    sites: dict[tuple[str, str, tuple[int, ...]], list[Collected]] = defaultdict(list)
    for row in given:
        place = tuple(round(v) for v in row.point_nm)
        is_unknown = isinstance(row.stored, StoredDecision) and not any(row.point_nm)
        key = row.key if is_unknown else ""
        sites[f"{row.dataset}{key}", row.kind.value, place].append(row)
    out = []
    for rows in sites.values():
        yes = sum(r.answer for r in rows)
        if 2 * yes == len(rows):
            left_out["people disagree on the site"] += len(rows)
            continue
        answer = 2 * yes > len(rows)
        out.append(next(r for r in reversed(rows) if r.answer == answer))
        if len(rows) > 1:
            left_out["the same site again"] += len(rows) - 1
    return out


class Reader:
    """Reads what a network sees of labels; what it cannot see is counted."""

    def __init__(self, harvest: Harvest, views: ViewSpec, *, graph: bool) -> None:
        self._harvest, self._views, self._graph = harvest, views, graph

    def read(self, row: Collected) -> tuple[NetworkInput, NDArray[np.bool_]] | None:
        """Input and which tokens there are; None where the views cannot be had or do not fit."""
        try:
            if isinstance(row.stored, StoredDecision):
                return self._decoded(row.stored)
            assert self._harvest.views is not None
            return self._of_stack(self._harvest.views.stack(row.stored))
        except (NoViewsError, DamagedViewError) as e:
            self._harvest.left_out[str(e)] += 1
            return None

    def _of_stack(self, stack: ViewStack) -> tuple[NetworkInput, NDArray[np.bool_]] | None:
        views = self._views
        seen = (stack.profile, stack.extent_nm, stack.em_half_nm)
        if seen != (views.profile, views.extent_nm, views.em_nm):
            self._refuse(f"{stack.profile} views of {stack.extent_nm:g} nm")
            return None
        made = network_input(stack, views.image_px)
        if len(made.features) != len(MEASURED_NAMES):
            self._refuse(f"{len(made.features)} features, measured by another version")
            return None
        there = np.ones(N_TOKENS, bool)
        there[GRAPH_TOKEN] = self._graph and made.neighbours is not None
        return made, there

    def _decoded(self, row: StoredDecision) -> tuple[NetworkInput, NDArray[np.bool_]] | None:
        geometry, em = fitting(row, self._views.profile)
        if row.extent_nm is not None and row.extent_nm != self._views.extent_nm:
            self._refuse(f"views of {row.extent_nm:g} nm")
            return None
        seen = decode(row, self._views, use_geometry=geometry, use_em=em)
        if seen is None:
            self._refuse(f"nothing in the encoding {self._views.profile}")
            return None
        there = seen.present.copy()
        there[GRAPH_TOKEN] &= self._graph
        if not there.any():
            self._refuse(f"nothing in the encoding {self._views.profile}")
            return None
        return seen.input, there

    def _refuse(self, why: str) -> None:
        self._harvest.left_out[f"the model cannot see it: {why}"] += 1


def check_readable(harvest: Harvest, n: int, model: str, views: ViewSpec) -> None:
    """Say why nothing is left.

    Raises:
        DatasetError: There are no labels, or none has its views.
        ModelError: What people answered on is not what the model sees.
    """
    if n:
        return
    told = "; ".join(f"{k} {why}" for why, k in harvest.left_out.items()) or "none was recorded"
    if any(why.startswith("the model cannot see it") for why in harvest.left_out):
        raise ModelError(
            f"The model {model} wants {views.profile} views of {views.extent_nm:g} nm, and no "
            f"label has such ({told}). Give --init the model that the labels were made with, or "
            "one that sees the same."
        )
    raise DatasetError(
        f"There is no label to learn from: {told}. Accept and reject suggestions first (a verdict "
        "of unsure or skip is no label), with --keep-views on."
    )


def digest(rows: Sequence[Collected], *more: str) -> str:
    """Names some labels and what else decides about their tokens."""
    text = "\n".join([*more, *(r.key for r in rows)])
    return hashlib.sha256(text.encode()).hexdigest()
