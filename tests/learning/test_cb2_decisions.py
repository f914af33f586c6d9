"""Both public releases in their exact schemas: what is read, what is skipped, what is refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from release_makers import V1_SCHEMA, V2_SCHEMA, release_row, release_rows, write_shards

from cb2_assist.core.errors import DatasetError, UsageError
from cb2_assist.core.records import Kind
from cb2_assist.learning import cb2_decisions
from cb2_assist.learning.cb2_decisions import read_decisions
from cb2_assist.learning.cb2_layout import CB2_V1, CB2_V2
from cb2_assist.learning.cb2_schema import V1, V2, find_shards, is_decision_folder, release_of

BOTH = pytest.mark.parametrize("version", ["v1", "v2"])


def read(folder: Path):
    files, _ = find_shards(folder, None)
    skipped: Counter[str] = Counter()
    return list(read_decisions(files, release_of(files), skipped)), skipped


@BOTH
def test_every_sample_type_becomes_its_question_and_answer(tmp_path, version) -> None:
    rows = [*release_rows(version, 2), release_row(version, 90, "synapse_control")]
    found, skipped = read(write_shards(tmp_path, version, rows))

    assert not skipped
    meant = {d.sample_type: (d.kind, d.answer) for d in found}
    assert meant == {
        "merge_edit": (Kind.JOIN, True),
        "adjacent_control": (Kind.JOIN, False),
        "synapse_control": (Kind.JOIN, False),
        "split_edit": (Kind.CUT, True),
        "junction_control": (Kind.CUT, False),
    }
    assert len(found) == 9
    assert all(d.geometry and all(d.em) and d.damage is None for d in found)
    assert {(d.em_profile, d.extent_nm, d.species) for d in found} == {("cb2", 7500.0, "mouse")}


def test_the_public_schemas_are_told_apart_and_ours_are_theirs(tmp_path) -> None:
    ours = (CB2_V1, V1_SCHEMA), (CB2_V2, V2_SCHEMA)
    for layout, released in ours:
        assert [(f.name, f.type) for f in layout.schema] == [(f.name, f.type) for f in released]
    v1 = write_shards(tmp_path / "1", "v1", release_rows("v1", 1))
    v2 = write_shards(tmp_path / "2", "v2", release_rows("v2", 1))

    assert release_of(find_shards(v1, None)[0]) is V1
    assert release_of(find_shards(v2, None)[0]) is V2


@BOTH
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sample_type": "odd"}, "its sample type is none of the release's five"),
        ({"task_routing": []}, "it is routed to no task"),
        ({"task_routing": None}, "it is routed to no task"),
        (
            {"task_routing": ["false_split_correction", "false_merge_identification"]},
            "it is routed to both tasks",
        ),
        ({"false_split_correction_label": None}, "it has no label"),
        ({"same_neuron": False}, "its label contradicts its same_neuron"),
        ({"metadata": "{"}, "its metadata is not a JSON object"),
        ({"metadata": "[1]"}, "its metadata is not a JSON object"),
        ({"source_archive_sample_hash": None}, "it has no hash that names its operation"),
    ],
)
def test_a_row_without_a_usable_answer_is_counted_by_its_reason(
    tmp_path, version, changes, reason
) -> None:
    rows = [
        release_row(version, 1, "merge_edit", **changes),
        release_row(version, 2, "merge_edit"),
    ]
    found, skipped = read(write_shards(tmp_path, version, rows))

    assert len(found) == 1
    assert skipped == {reason: 1}


@pytest.mark.parametrize(
    ("label", "reason"), [(0.5, "neither 0 nor 1"), (float("nan"), "no label")]
)
def test_a_label_of_v2_that_is_no_answer_is_counted(tmp_path, label, reason) -> None:
    row = release_row("v2", 1, "merge_edit", false_split_correction_label=label)
    found, skipped = read(write_shards(tmp_path, "v2", [row]))

    assert not found
    assert reason in next(iter(skipped))


@BOTH
def test_intervals_go_by_neuron_else_by_block_else_by_volume(tmp_path, version) -> None:
    far = {"root_id": None, "interface_point_nm": [1e12, 0, 0]}
    bad = {"root_id": None, "interface_point_nm": ["x", None, {}]}
    abouts = [{}, {"root_id": None}, far, bad, {"root_id": None, "interface_point_nm": None}]
    rows = [release_row(version, i, "merge_edit", about=a) for i, a in enumerate(abouts)]
    rows.append(release_row(version, 9, "merge_edit", metadata=None))
    found, _ = read(write_shards(tmp_path, version, rows))

    kinds = [d.cluster_kind for d in found]
    assert kinds == ["body", "block", "volume", "volume", "volume", "volume"]
    edge = {"v1": 50_000, "v2": 80_000}[version]
    assert found[1].cluster == f"mouse/{100_000 // edge},{200_000 // edge},{300_000 // edge}"


def test_the_same_hash_in_two_species_is_two_operations(tmp_path) -> None:
    rows = [
        release_row("v2", 1, "merge_edit", species=s, source_archive=f"unified_{s}")
        for s in ("human", "zebrafish")
    ]
    found, _ = read(write_shards(tmp_path, "v2", rows))

    assert len({d.operation for d in found}) == 2


@BOTH
def test_absent_views_are_absent_and_contradictions_are_damage(tmp_path, version) -> None:
    em = ("em_xy", "em_xz", "em_yz") if version == "v1" else V2.em
    cells = dict.fromkeys(em) | {em[1]: {"bytes": None, "path": None}}
    stray = {em[0]: {"bytes": None, "path": "a.png"}}
    rows = [
        release_row(version, 1, "merge_edit", **cells),
        release_row(version, 2, "merge_edit", **stray),
        release_row(version, 3, "merge_edit", geometry=None),
    ]
    without, path, bare = read(write_shards(tmp_path, version, rows))[0]

    assert without.em == (None, None, None)
    assert without.damage is None
    assert "path" in path.damage
    assert (bare.damage is None) == (version == "v2"), "v1 says that the geometry is there"


@BOTH
def test_missing_columns_are_named(tmp_path, version) -> None:
    folder = write_shards(tmp_path, version, release_rows(version, 1))
    file = folder / "test" / "test-00000.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["geometry", "species"]), file)

    with pytest.raises(DatasetError, match=r"test-00000\.parquet lacks species, geometry"):
        read(folder)


def test_a_column_of_another_type_is_named(tmp_path) -> None:
    folder = write_shards(tmp_path, "v2", release_rows("v2", 1))
    file = folder / "test" / "test-00000.parquet"
    table = pq.read_table(file)
    at = table.schema.get_field_index("geometry")
    text = pa.array(["x"] * len(table))
    pq.write_table(table.set_column(at, "geometry", text), file)

    with pytest.raises(DatasetError, match="column geometry is string"):
        read(folder)


def test_a_column_that_is_null_throughout_a_shard_is_no_other_type(tmp_path) -> None:
    folder = write_shards(tmp_path, "v2", [release_row("v2", 1, "merge_edit")])
    file = folder / "test" / "test-00000.parquet"
    table = pq.read_table(file)
    name = "false_merge_identification_label"
    table = table.set_column(table.schema.get_field_index(name), name, pa.nulls(len(table)))
    pq.write_table(table, file)

    assert len(read(folder)[0]) == 1


def test_two_releases_in_one_folder_are_refused(tmp_path) -> None:
    write_shards(tmp_path, "v1", release_rows("v1", 1))
    other = write_shards(tmp_path / "x", "v2", release_rows("v2", 1))
    (other / "test" / "test-00000.parquet").rename(tmp_path / "test" / "test-00001.parquet")

    with pytest.raises(DatasetError, match=r"test-00001.*v2.*test-00000.*v1"):
        read(tmp_path)


def test_parquet_of_something_else_is_refused(tmp_path) -> None:
    pq.write_table(pa.table({"a": [1], "b": [2]}), tmp_path / "x.parquet")
    with pytest.raises(DatasetError, match="neither release"):
        read(tmp_path)


@pytest.mark.parametrize("keep", [0, 100, -200])
def test_a_damaged_shard_is_named(tmp_path, keep) -> None:
    folder = write_shards(tmp_path, "v2", release_rows("v2", 1))
    file = folder / "test" / "test-00000.parquet"
    file.write_bytes(file.read_bytes()[:keep])

    with pytest.raises(DatasetError, match=r"test-00000\.parquet.*again"):
        read(folder)


def test_pages_that_are_damaged_are_named_too(tmp_path) -> None:
    folder = write_shards(tmp_path, "v2", release_rows("v2", 1))
    file = folder / "test" / "test-00000.parquet"
    data = bytearray(file.read_bytes())
    data[4 : len(data) // 2] = b"\xff" * (len(data) // 2 - 4)
    file.write_bytes(data)

    with pytest.raises(DatasetError, match=r"test-00000\.parquet"):
        read(folder)


def test_the_test_split_is_the_default_where_there_is_one(tmp_path) -> None:
    for split in ("train", "val"):
        write_shards(tmp_path, "v1", release_rows("v1", 1), split)
    assert find_shards(tmp_path, None)[1] == ["train", "val"]
    write_shards(tmp_path, "v1", release_rows("v1", 1), "test")

    assert find_shards(tmp_path, None)[1] == ["test"]
    assert find_shards(tmp_path, "val")[1] == ["val"]
    assert find_shards(tmp_path, "all")[1] == ["train", "val", "test"]


def test_flat_folders_and_single_files_are_read(tmp_path) -> None:
    folder = write_shards(tmp_path, "v1", release_rows("v1", 1))
    file = folder / "test" / "test-00000.parquet"

    assert find_shards(file, None) == ([file], [])
    assert find_shards(folder / "test", None) == ([file], [])
    assert is_decision_folder(file)
    assert is_decision_folder(folder)
    with pytest.raises(UsageError, match="--split val"):
        find_shards(file, "val")
    with pytest.raises(DatasetError, match="no split 'val'"):
        find_shards(folder, "val")
    with pytest.raises(DatasetError, match="holds no decisions"):
        find_shards(tmp_path / "nowhere", None)


def test_memory_does_not_grow_with_a_shard(tmp_path) -> None:
    file, n, size = tmp_path / "x.parquet", 240, 200_000
    one = release_row("v2", 1, "merge_edit")
    noise = np.random.default_rng(0)
    with pq.ParquetWriter(file, V2_SCHEMA) as shard:
        for _ in range(0, n, 10):
            rows = [one | {"geometry": noise.bytes(size)} for _ in range(10)]
            shard.write_table(pa.Table.from_pylist(rows, schema=V2_SCHEMA))
    del rows
    before, most = pa.total_allocated_bytes(), 0
    for _ in read_decisions([file], V2, Counter()):
        most = max(most, pa.total_allocated_bytes() - before)

    assert most < n * size / 3


def test_rows_are_read_as_they_are_asked_for(tmp_path, monkeypatch) -> None:
    rows = release_rows("v2", 10)
    file = tmp_path / "x.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=V2_SCHEMA), file, row_group_size=10)
    sizes = []
    real = cb2_decisions._decision
    monkeypatch.setattr(cb2_decisions, "_decision", lambda *a: sizes.append(1) or real(*a))
    stream = read_decisions([file], V2, Counter())

    next(stream)
    assert len(sizes) == 1
    assert sum(1 for _ in stream) == 39
