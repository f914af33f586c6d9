"""Streams decisions with truth out of ConnectomeBench2 shards, ours and the public ones.

Blobs stay as bytes here; a few rows are in memory at once, whatever a shard's size. A row without
a usable answer is counted under its reason and left out.
"""

from __future__ import annotations

import base64
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from cb2_assist.core.errors import DatasetError
from cb2_assist.core.records import Kind
from cb2_assist.learning.cb2_schema import LABELS, Release

_ROWS = 16
_ORIGINS = 200
_ROUTES = {"false_split_correction": Kind.JOIN, "false_merge_identification": Kind.CUT}
SAMPLE_TYPES = (
    "merge_edit",
    "split_edit",
    "adjacent_control",
    "junction_control",
    "synapse_control",
)
_FARTHEST_NM = 1e9
MEASURED = "cb2assist_measured"
"""Key of the measured numbers in a row's metadata."""
Row = dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class StoredDecision:
    """One row: a question, its answer, and its views as stored.

    Attributes:
        place: File and row, for messages.
        row_key: Names the row; equal rows have equal ones.
        operation: Rows that share it are views of one operation. The species is in it: the
            releases' own hash leaves it out, so that operations of two species share some.
        cluster: What intervals resample as a whole.
        cluster_kind: ``body``, ``block`` or ``volume``.
        em_profile: How the EM was encoded; geometry is always ``cb2``.
        extent_nm: Half width of the views, where known. The releases store the middle of a range.
        geometry: An npz, or None.
        em: PNG files in `core.channels.EmView` order, or None.
        damage: Why the views cannot be read as they are stored.
        dataset: Ours, or the archive.
        version, licence: As an export of ours says; empty in others.
        segments: Ids of the sides, as the row says.
        point_nm: Where; zeros where the row does not say.
        propensity: How our queue came to ask for it; empty in others.
        measured: `views.surroundings.site_vector` of an export of ours; empty in others.
    """

    place: str
    row_key: str
    operation: str
    kind: Kind
    answer: bool
    species: str
    sample_type: str
    cluster: str
    cluster_kind: str
    em_profile: str
    extent_nm: float | None
    geometry: bytes | None
    em: tuple[bytes | None, ...]
    damage: str | None
    dataset: str
    version: str
    licence: str
    segments: tuple[str, ...]
    point_nm: tuple[float, float, float]
    propensity: Row
    measured: bytes


class _SkipError(Exception):
    """A row cannot be asked about; its text is the reason."""


def read_decisions(
    files: Sequence[Path], release: Release, skipped: Counter[str]
) -> Iterator[StoredDecision]:
    """Every row with a clear answer, in the order of the files.

    Args:
        files: Shards that `cb2_schema.release_of` has checked.
        release: What it said.
        skipped: Counts rows that are left out, by reason.

    Raises:
        DatasetError: A shard is damaged.
    """
    for file in files:
        try:
            with pq.ParquetFile(file) as parquet:
                names = [n for n in release.wanted if n in parquet.schema_arrow.names]
                for number, row in enumerate(_rows(parquet, names)):
                    try:
                        yield _decision(row, release, f"{file.name} row {number}")
                    except _SkipError as e:
                        skipped[str(e)] += 1
        except (OSError, pa.ArrowException) as e:
            raise _damaged(file, e) from e


class Origin(NamedTuple):
    """What a row of our export says of itself; both empty in others' rows."""

    dataset: str
    model_sha256: str


def origins(file: Path) -> list[Origin]:
    """Where the first rows of a shard are from; nothing but their metadata is read.

    Raises:
        DatasetError: The shard is damaged.
    """
    try:
        with pq.ParquetFile(file) as parquet:
            if "metadata" not in parquet.schema_arrow.names:
                return []
            first = next(parquet.iter_batches(_ORIGINS, columns=["metadata"]), None)
            return [] if first is None else [_origin(row) for row in first.to_pylist()]
    except (OSError, pa.ArrowException) as e:
        raise _damaged(file, e) from e


def _origin(row: Row) -> Origin:
    try:
        ours = _about(row).get("cb2assist")
    except _SkipError:
        ours = None
    ours = ours if isinstance(ours, dict) else {}
    model = ours.get("model")
    sha256 = model.get("sha256") if isinstance(model, dict) else None
    return Origin(str(ours.get("dataset") or ""), str(sha256 or ""))


def _damaged(file: Path, error: Exception) -> DatasetError:
    return DatasetError(
        f"{file} is damaged: {str(error).splitlines()[0]}. Download or export it again."
    )


def _rows(parquet: pq.ParquetFile, names: list[str]) -> Iterator[Row]:
    # asked for all groups at once, pyarrow keeps what it has read of the file until the end
    for group in range(parquet.num_row_groups):
        for batch in parquet.iter_batches(_ROWS, row_groups=[group], columns=names):
            yield from batch.to_pylist()


def _decision(row: Row, release: Release, place: str) -> StoredDecision:
    kind = _kind(row)
    answer = _answer(row, kind)
    about = _about(row)
    species = row["species"] or "other"
    volume = f"{species}/{row['source_archive']}"
    cluster_kind, cluster = _cluster(about, species, volume, release.block_nm)
    geometry, em, damage = _views(row, kind, release)
    extent = about.get("view_extent_nm")
    return StoredDecision(
        place=place,
        row_key=row["combined_sample_hash"],
        operation=f"{species}/{kind.value}/{row['source_archive_sample_hash']}",
        kind=kind,
        answer=answer,
        species=species,
        sample_type=row["sample_type"],
        cluster=cluster,
        cluster_kind=cluster_kind,
        em_profile=str(about.get("cb2assist_profile") or "cb2"),
        extent_nm=float(extent) if isinstance(extent, int | float) else None,
        geometry=geometry,
        em=em,
        damage=damage,
        **_provenance(row, about),
    )


def _provenance(row: Row, about: Row) -> Row:
    """Where a row is from; everything in it may be missing, and nothing of it need be true."""
    ours = about.get("cb2assist")
    ours = ours if isinstance(ours, dict) else {}
    propensity = ours.get("propensity")
    propensity = propensity if isinstance(propensity, dict) else {}
    archive = str(row["source_archive"])
    ids = [about.get("segment1_id", about.get("root_id")), about.get("segment2_id")]
    return {
        "dataset": str(ours.get("dataset") or archive),
        "version": str(ours.get("version") or ""),
        "licence": str(about.get("licence") or ""),
        "segments": tuple(str(i) for i in ids if isinstance(i, int | str) and str(i)),
        "point_nm": _point(about.get("interface_point_nm")),
        "propensity": propensity,
        "measured": _measured(about.get(MEASURED)),
    }


def _point(given: object) -> tuple[float, float, float]:
    try:
        x, y, z = (float(v) for v in given)  # type: ignore[attr-defined]
    except (TypeError, ValueError, OverflowError):
        return 0.0, 0.0, 0.0
    known = all(abs(v) <= _FARTHEST_NM for v in (x, y, z))
    return (x, y, z) if known else (0.0, 0.0, 0.0)


def _measured(given: object) -> bytes:
    """Little-endian float32, as an export of ours keeps it in base64."""
    try:
        return base64.b64decode(given, validate=True) if isinstance(given, str) else b""
    except ValueError:
        return b""


def _kind(row: Row) -> Kind:
    if row["sample_type"] not in SAMPLE_TYPES:
        raise _SkipError("its sample type is none of the release's five")
    if not row["combined_sample_hash"] or not row["source_archive_sample_hash"]:
        raise _SkipError("it has no hash that names its operation")
    kinds = {_ROUTES[name] for name in row["task_routing"] or () if name in _ROUTES}
    if len(kinds) != 1:
        raise _SkipError("it is routed to no task" if not kinds else "it is routed to both tasks")
    return kinds.pop()


def _answer(row: Row, kind: Kind) -> bool:
    label = row[LABELS[kind]]
    if label is None or (isinstance(label, float) and math.isnan(label)):
        raise _SkipError("it has no label")
    if label not in (0, 1):
        raise _SkipError("its label is neither 0 nor 1")
    same = row["same_neuron"]
    if same is not None and bool(label) != (same if kind is Kind.JOIN else not same):
        raise _SkipError("its label contradicts its same_neuron")
    return bool(label)


def _about(row: Row) -> Row:
    text = row.get("metadata")
    if text is None:
        return {}
    try:
        about = json.loads(text)
    except ValueError:
        about = None
    if not isinstance(about, dict):
        raise _SkipError("its metadata is not a JSON object")
    return about


def _cluster(about: Row, species: str, volume: str, block_nm: float) -> tuple[str, str]:
    """The neuron that was proofread, else a block of space, else the whole volume.

    Other root ids in the metadata are no neurons: each edit gives one a new id.
    """
    body = about.get("root_id")
    if isinstance(body, int | str) and str(body) not in ("", "0"):
        return "body", f"{species}/{body}"
    point = about.get("interface_point_nm")
    try:
        block = [math.floor(float(v) / block_nm) for v in point or ()]
        near = all(abs(float(v)) <= _FARTHEST_NM for v in point or ())
    except (TypeError, ValueError, OverflowError):
        return "volume", volume
    if len(block) == 3 and near:
        return "block", f"{species}/{block[0]},{block[1]},{block[2]}"
    return "volume", volume


def _views(
    row: Row, kind: Kind, release: Release
) -> tuple[bytes | None, tuple[bytes | None, ...], str | None]:
    geometry = row[release.geometry[kind]]
    em: list[bytes | None] = []
    damage = None
    if release.name == "v1":
        flag = "has_dual_mask" if kind is Kind.JOIN else "has_single_mask"
        if row[flag] and geometry is None:
            damage = f"{flag} is true and its geometry is null"
    for name in release.em:
        cell = row[name] or {"bytes": None, "path": None}
        if cell["bytes"] is None and cell["path"] is not None:
            damage = "an image is stored as a path, not as bytes"
        em.append(cell["bytes"])
    return geometry, tuple(em), damage
