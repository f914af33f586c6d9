"""Which columns each public ConnectomeBench2 release has, and the shards of a download.

The two releases do not fit together: v2 has one ``geometry``, other EM names and two labels of
which one is null. Our own ``cb2-v1`` export has v1's columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cb2_assist.core.errors import DatasetError, UsageError
from cb2_assist.core.records import Kind

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Release:
    """How one release names what we read.

    Attributes:
        name: ``v1`` or ``v2``.
        columns: Name and kind of every column that must be there.
        geometry: Column of the geometry of a join and of a cut.
        em: Columns of the three cardinal planes, in `core.channels.EmView` order. The oblique
            plane is not read: our networks have no token for it, and in a cut it is chosen from
            the answer.
        block_nm: Edge of the cubes by which the release was split.
    """

    name: str
    columns: dict[str, str]
    geometry: dict[Kind, str]
    em: tuple[str, str, str]
    block_nm: float

    @property
    def wanted(self) -> list[str]:
        """Columns to read."""
        return [*self.columns, "metadata"]


LABELS = {
    Kind.JOIN: "false_split_correction_label",
    Kind.CUT: "false_merge_identification_label",
}
_COMMON = {
    "combined_sample_hash": "text",
    "source_archive_sample_hash": "text",
    "source_archive": "text",
    "sample_type": "text",
    "same_neuron": "bool",
    "task_routing": "texts",
    "species": "text",
    "has_em": "bool",
    "geometry": "bytes",
}
_V1_EM = ("em_xy", "em_xz", "em_yz")
_V2_EM = ("em_xy_before", "em_xz_before", "em_yz_before")

V1 = Release(
    "v1",
    {
        **_COMMON,
        **dict.fromkeys(LABELS.values(), "bool"),
        "has_single_mask": "bool",
        "has_dual_mask": "bool",
        "geometry_single": "bytes",
        **dict.fromkeys(_V1_EM, "image"),
    },
    {Kind.JOIN: "geometry", Kind.CUT: "geometry_single"},
    _V1_EM,
    50_000.0,
)
V2 = Release(
    "v2",
    {
        **_COMMON,
        **dict.fromkeys(LABELS.values(), "number"),
        "has_after_mask": "bool",
        **dict.fromkeys(_V2_EM, "image"),
    },
    {Kind.JOIN: "geometry", Kind.CUT: "geometry"},
    _V2_EM,
    80_000.0,
)
_MARKS = {"has_dual_mask": V1, "geometry_single": V1, "em_xy": V1}
_MARKS |= {"em_xy_before": V2, "has_after_mask": V2}


def is_decision_folder(data: Path) -> bool:
    """Whether this is parquet, not a dataset file."""
    if data.is_file():
        return data.suffix == ".parquet"
    return data.is_dir() and not (data / "dataset.toml").is_file()


def find_shards(data: Path, split: str | None) -> tuple[list[Path], list[str]]:
    """The shards of a release, of an export of ours, or a single parquet file.

    Args:
        data: ``DIR/test/test-00000.parquet``, ``DIR/*.parquet``, or a file.
        split: One of `SPLITS`, or ``all``; None is ``test`` where there is such a folder and else
            everything.

    Returns:
        The files, sorted, and the splits that they are of (none where there are no split folders).

    Raises:
        DatasetError: There is none.
    """
    found = {name: sorted(data.glob(f"{name}/{name}-*.parquet")) for name in SPLITS}
    found = {name: files for name, files in found.items() if files}
    if found:
        wanted = [split] if split in SPLITS else list(found)
        if split is None and "test" in found:
            wanted = ["test"]
        if not set(wanted) <= set(found):
            raise DatasetError(
                f"{data} has no split {split!r}, only {', '.join(found)}. Choose one with --split."
            )
        return [f for name in wanted for f in found[name]], wanted
    if split not in (None, "all"):
        raise UsageError(
            f"--split {split} needs folders by split ({split}/{split}-*.parquet); {data} has none."
        )
    flat = [data] if data.is_file() else sorted(data.glob("*.parquet"))
    if not flat:
        raise DatasetError(
            f"{data} holds no decisions: no parquet file there, nor in train/, val/ or test/. "
            "--data takes a cb2-v1 export of ours, a download of ConnectomeBench2 (v1 or v2), or "
            "a dataset.toml with truth."
        )
    return flat, []


def release_of(files: Sequence[Path]) -> Release:
    """The release that all shards are of; nothing but their footers is read.

    Raises:
        DatasetError: A file is damaged, columns are missing or of another type, or the files are of
            different releases.
    """
    known: Release | None = None
    for file in files:
        release = _checked(file)
        if known is not None and known != release:
            raise DatasetError(
                f"{file} has the columns of ConnectomeBench2 {release.name}, {files[0]} those of "
                f"{known.name}. Evaluate each release on its own."
            )
        known = release
    if known is None:
        raise DatasetError("There is no shard to read.")
    return known


def _checked(file: Path) -> Release:
    try:
        schema = pq.read_schema(file)
    except (OSError, pa.ArrowException) as e:
        raise DatasetError(
            f"{file} cannot be read as parquet: {str(e).splitlines()[0]}. It may be cut off; "
            "download or export it again."
        ) from e
    marks = {_MARKS[name].name for name in schema.names if name in _MARKS}
    if len(marks) != 1:
        why = "of both releases at once" if marks else "of neither release"
        raise DatasetError(
            f"{file} has columns {why} of ConnectomeBench2 ({', '.join(schema.names[:8])}, …). "
            "Known: v1 (tag v1-may06, also our export cb2-v1) and v2."
        )
    release = V1 if marks == {"v1"} else V2
    missing = [name for name in release.columns if name not in schema.names]
    if missing:
        raise DatasetError(
            f"{file} lacks {', '.join(missing)} of ConnectomeBench2 {release.name}. "
            "Export or download it again, with all columns."
        )
    for name, kind in release.columns.items():
        got = schema.field(name).type
        if not _is(got, kind):
            raise DatasetError(
                f"{file}: column {name} is {got}, ConnectomeBench2 {release.name} has {kind}. "
                "Export or download it again."
            )
    return release


def _is(got: pa.DataType, kind: str) -> bool:
    t = pa.types
    if t.is_null(got):
        return kind in ("number", "bytes", "image")  # a shard in which it is null throughout
    if kind == "text":
        return bool(t.is_string(got) or t.is_large_string(got))
    if kind == "texts":
        return bool(t.is_list(got) or t.is_large_list(got)) and _is(got.value_type, "text")
    if kind == "bytes":
        return bool(t.is_binary(got) or t.is_large_binary(got))
    if kind == "number":
        return bool(t.is_floating(got))
    if kind == "bool":
        return bool(t.is_boolean(got))
    return bool(t.is_struct(got)) and {"bytes", "path"} <= {f.name for f in got}
