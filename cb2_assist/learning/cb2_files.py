"""A release of ConnectomeBench2 as files: parquet shards in folders by split.

    OUT/train/train-00000.parquet …   OUT/val/val-00000.parquet …
    OUT/metadata/train.parquet        the same rows without images, and their shard
    OUT/shards.csv                    size and SHA-256 of every shard
    OUT/cb2-assist.json               what this export is, and how it was split

Rows go through a spool on disk, one record a row, because how labels are split is only known once
all have been seen. Memory does not grow with the number of images.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cb2_assist import __version__
from cb2_assist.core.errors import UsageError
from cb2_assist.labels.filesystem import sync_folder
from cb2_assist.learning.cb2_layout import Layout
from cb2_assist.learning.cb2_split import SPLITS, Sample, Split, split_samples

Row = dict[str, Any]

SHARD_BYTES = 250_000_000
ROW_GROUP = 10
MANIFEST = "cb2-assist.json"
_OURS = (*SPLITS, "metadata", "shards.csv", MANIFEST)


def write_cb2_files(
    rows: Iterable[tuple[Row, Sample]], out: Path, about: dict[str, Any], layout: Layout
) -> tuple[list[Path], Split]:
    """Write an export into a folder, in place of an earlier one of ours.

    Args:
        rows: From the layout's `row`, each with what the split must know.
        out: An existing folder.
        about: Goes into the manifest; read once all rows have been.
        layout: Which release's columns.

    Returns:
        The files, and how the rows were split.

    Raises:
        UsageError: The folder holds files of the same names that are not ours.
        OSError: It cannot be written; an earlier export is still there.
    """
    _check_ours(out)
    work = out / f".{layout.name}-{secrets.token_hex(4)}.part"
    work.mkdir()
    try:
        samples, sizes = _spool(rows, work / "spool.arrow", layout)
        split = split_samples(samples)
        made = work / "made"
        made.mkdir()
        with pa.OSFile(str(work / "spool.arrow")) as source:
            spool = pa.ipc.open_file(source)
            shards = [
                shard
                for name, places in zip(SPLITS, (split.train, split.val), strict=True)
                for shard in _write_split(
                    spool, places, sum(sizes[i] for i in places), made, name, layout
                )
            ]
        _write_list(shards, made)
        files = sorted(path.relative_to(made) for path in made.rglob("*") if path.is_file())
        manifest = {
            "format": layout.name,
            "program": f"cb2-assist {__version__}",
            "labels": len(samples),
            "rows": {"train": len(split.train), "val": len(split.val)},
            "split": split.rule,
            **about,
            "files": [path.as_posix() for path in files],
        }
        text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
        (made / MANIFEST).write_text(text, encoding="utf-8")
        _sync(made)
        _install(made, out, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return [out / path for path in files] + [out / MANIFEST], split


def _spool(
    rows: Iterable[tuple[Row, Sample]], path: Path, layout: Layout
) -> tuple[list[Sample], list[int]]:
    """Write every row as a record of its own; what the split must know of each, and its bytes."""
    samples: list[Sample] = []
    sizes: list[int] = []
    plain = layout.schema.remove_metadata()
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, plain) as spool:
        for row, sample in rows:
            record = pa.RecordBatch.from_pylist([row], schema=plain)
            spool.write_batch(record)
            samples.append(sample)
            sizes.append(record.nbytes)
    return samples, sizes


class _Shard:
    """A shard that was written."""

    def __init__(self, path: Path, split: str, number: int, rows: int) -> None:
        self.name = f"{split}/{path.name}"
        self.split, self.number, self.rows = split, number, rows
        self.bytes = path.stat().st_size
        with path.open("rb") as f:
            self.sha256 = hashlib.file_digest(f, "sha256").hexdigest()


def _write_split(
    spool: Any,  # noqa: ANN401
    places: Sequence[int],
    n_bytes: int,
    made: Path,
    name: str,
    layout: Layout,
) -> Iterator[_Shard]:
    """Shards of about `SHARD_BYTES` with equally many rows; one even where there are no rows."""
    (made / name).mkdir()
    (made / "metadata").mkdir(exist_ok=True)
    n_shards = min(max(1, -(-n_bytes // SHARD_BYTES)), max(1, len(places)))
    each = -(-len(places) // n_shards)
    with pq.ParquetWriter(made / "metadata" / f"{name}.parquet", layout.light) as light:
        for number in range(n_shards):
            part = places[number * each : (number + 1) * each]
            path = made / name / f"{name}-{number:05d}.parquet"
            with pq.ParquetWriter(
                path, layout.schema, compression="snappy", write_page_index=True
            ) as shard:
                for start in range(0, len(part), ROW_GROUP):
                    table = _table(spool, part[start : start + ROW_GROUP], name, layout)
                    shard.write_table(table, row_group_size=ROW_GROUP)
                    light.write_table(_without_images(table, f"{name}/{path.name}", layout))
            yield _Shard(path, name, number, len(part))


def _table(
    spool: Any,  # noqa: ANN401
    places: Sequence[int],
    split: str,
    layout: Layout,
) -> pa.Table:
    table = pa.Table.from_batches([spool.get_batch(i) for i in places])
    column = table.schema.get_field_index("split")
    table = table.set_column(column, "split", pa.array([split] * len(places), pa.string()))
    return table.cast(layout.schema)


def _without_images(table: pa.Table, shard: str, layout: Layout) -> pa.Table:
    light = table.drop_columns(list(layout.blobs))
    light = light.append_column("shard", pa.array([shard] * len(light), pa.string()))
    return light.cast(layout.light)


def _write_list(shards: Sequence[_Shard], made: Path) -> None:
    with (made / "shards.csv").open("x", encoding="utf-8", newline="") as f:
        lines = csv.writer(f, lineterminator="\n")
        lines.writerow(["path", "split", "shard_id", "n_samples", "size_bytes", "sha256"])
        lines.writerows([s.name, s.split, s.number, s.rows, s.bytes, s.sha256] for s in shards)


def _check_ours(out: Path) -> None:
    """Refuse to replace what another program made, e.g. a download of the public release.

    Raises:
        UsageError: There is such a thing.
    """
    there = [name for name in _OURS if (out / name).exists()]
    if not there:
        return
    try:
        manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
        known = {*manifest["files"], MANIFEST}
    except (OSError, ValueError, KeyError, TypeError):
        known = set()
    files = (
        path.relative_to(out).as_posix()
        for name in there
        for path in ([out / name] if (out / name).is_file() else sorted((out / name).rglob("*")))
        if path.is_file()
    )
    foreign = next((name for name in files if name not in known), None)
    if foreign is not None:
        raise UsageError(
            f"{out} holds {foreign}, which this export did not make and will not replace. Name "
            "another folder with --out."
        )


def _install(made: Path, out: Path, work: Path) -> None:
    """Put the new files in the place of the old ones, folder by folder."""
    for name in _OURS:
        if (out / name).exists():
            (out / name).rename(work / f"old-{name}")
        if (made / name).exists():
            (made / name).rename(out / name)
    sync_folder(out)


def _sync(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb+") as f:
                os.fsync(f.fileno())
        else:
            sync_folder(path)
