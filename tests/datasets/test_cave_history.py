"""What servers tell of edits, as recorded from real ones, and how fast they are asked."""

from __future__ import annotations

import csv
import gzip
import json
import math
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cb2_assist.datasets.cave import wire
from cb2_assist.datasets.cave.connection import GraphShape, chunk_voxels
from cb2_assist.datasets.cave.history import (
    Lineage,
    Operation,
    is_near_chunk,
    moment,
    read_change_log,
    read_lineage,
    read_operations,
)

# one split and one merge of minnie65 as caveclient's own tests have them (CAVEclient @ c57c15f5,
# MIT), some edges left out
SPLIT = {
    "operation_exception": "",
    "operation_status": 0,
    "operation_ts": "2021-03-25 19:06:18.177000+00:00",
    "removed_edges": [[99450140208950705, 99450140208951689]],
    "roots": [864691135100007968, 864691136089107255],
    "sink_coords": [[126012, 101764, 20218], [126179, 101638, 20215]],
    "sink_ids": [99450208928441939, 99450140208946136],
    "source_coords": [[125981, 101650, 20232], [126209, 101690, 20210]],
    "source_ids": [99450208928468497, 99450140208944278],
    "timestamp": "2021-03-25 19:06:27.532000+00:00",
    "user": "0",
}
MERGE = {
    "added_edges": [[99093279832296446, 99093279832302829]],
    "operation_exception": "",
    "operation_status": 0,
    "operation_ts": "2021-04-12 19:31:49.638000+00:00",
    "roots": [864691135490360423],
    "sink_coords": [[124760, 82888, 19383]],
    "source_coords": [[124700, 82887, 19377]],
    "timestamp": "2021-04-12 19:31:58.329000+00:00",
    "user": "0",
}
MINNIE = GraphShape(
    8,
    12,
    (256, 256, 512),
    {1: 10, 2: 10, 3: 9, 4: 8, 5: 7, 6: 6, 7: 5, 8: 4, 9: 3, 10: 2, 11: 1, 12: 1},
    (26385, 30308, 14850),
)


def test_details_say_when_objects_came_to_be_and_between_what() -> None:
    told = read_operations(json.dumps({"225368": MERGE, "217696": SPLIT}))
    merge, split = told[225368], told[217696]
    # not when the log was written, nine seconds later
    assert merge.at == datetime(2021, 4, 12, 19, 31, 49, 638000, UTC)
    assert merge.pair == (99093279832296446, 99093279832302829)
    assert split.pair is None
    assert split.source_ids[1] == 99450140208944278
    assert split.sinks[0] == (126012.0, 101764.0, 20218.0)
    assert (merge.undoes, merge.redoes, merge.failed) == (None, None, "")


def test_details_survive_being_kept() -> None:
    for told in read_operations(json.dumps({"1": MERGE, "2": SPLIT})).values():
        assert Operation.of_json(json.loads(json.dumps(told.to_json()))) == told


def test_an_edit_that_failed_and_one_that_takes_back_another_are_told() -> None:
    told = read_operations(
        json.dumps(
            {
                "1": {**MERGE, "operation_status": 4},
                "2": {**MERGE, "operation_exception": "lock lost"},
                "3": {"operation_ts": MERGE["operation_ts"], "undo_operation_id": 1},
                "4": {"operation_ts": MERGE["operation_ts"], "redo_operation_id": 1},
            }
        )
    )
    assert [told[n].failed for n in (1, 2, 3)] == ["status 4", "lock lost", ""]
    assert (told[3].undoes, told[4].redoes) == (1, 1)


def test_points_of_real_edits_count_in_the_voxels_of_the_graph() -> None:
    split = read_operations(json.dumps({"1": SPLIT}))[1]
    for voxel, part in zip(split.sinks, split.sink_ids, strict=True):
        assert is_near_chunk(MINNIE, voxel, part)
        # as they would be in the voxels that the viewer shows, 4 x 4 x 40 nm
        half = (voxel[0] / 2, voxel[1] / 2, voxel[2])
        assert not is_near_chunk(MINNIE, half, part)


def test_a_change_log_is_read_from_either_route() -> None:
    # recorded from PyChunkedGraph 2.21.1
    table = {
        "operation_id": {"1": 3, "3": 5},
        "timestamp": {"1": 1795398500118, "3": 1795398500789},
        "user_id": {"1": "0", "3": "0"},
        "before_root_ids": {"1": [288230376151712210], "3": [288230376151712170]},
        "after_root_ids": {
            "1": [288230376151712033, 288230376151712117],
            "3": [288230376151712054],
        },
        "is_merge": {"1": False, "3": False},
        "user_name": {"1": "Tester", "3": "Tester"},
    }
    edits = read_change_log(json.dumps(table))
    assert edits == read_change_log(json.dumps(json.dumps(table)))
    assert [e.number for e in edits] == [3, 5]
    assert edits[0].after == (288230376151712033, 288230376151712117)
    assert edits[0].at == datetime.fromtimestamp(1795398500, UTC).replace(microsecond=118000)
    empty = '{"operation_id":{},"timestamp":{},"user_id":{},"before_root_ids":{},"is_merge":{}}'
    assert read_change_log(empty) == []


def test_lineage_tells_splits_from_other_edits() -> None:
    nodes = [{"id": n, "operation_id": o} for n, o in ((1, 10), (2, 11), (3, 12))]
    links = [(1, 2), (2, 3), (2, 4), (3, 5), (9, 5)]
    text = {"nodes": [*nodes, {"id": 5}], "links": [{"source": a, "target": b} for a, b in links]}
    found = read_lineage(json.dumps(text))
    assert isinstance(found, Lineage)
    assert set(found.later(2)) == {2, 3, 4, 5}
    assert found.operations(1) == [10, 11, 12]
    assert found.operations(1, splits=True) == [11]
    assert found.operations(5) == []


def test_times_without_a_zone_are_utc() -> None:
    assert moment("2021-03-25 19:06:18.177") == moment("2021-03-25T20:06:18.177+01:00")
    assert moment(1616699178177) == moment("2021-03-25 19:06:18.177")


def test_requests_follow_each_other_no_faster_than_was_asked(monkeypatch) -> None:
    now, slept = [100.0], []

    def sleep(seconds: float) -> None:
        slept.append(round(seconds, 6))
        now[0] += seconds

    monkeypatch.setattr(wire.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(wire.time, "sleep", sleep)
    pace = wire.Pace()
    for _ in range(3):
        pace.wait()
    assert (pace.per_s, slept) == (math.inf, [])
    pace.per_s = 4.0
    for _ in range(3):
        pace.wait()
    assert slept == [0.25, 0.25]
    now[0] += 10.0
    pace.wait()
    assert slept == [0.25, 0.25]


@pytest.mark.shared
def test_the_shared_details_of_real_edits_are_understood(shared_data: Path) -> None:
    file = "cave_minnie65_fixtures/caveclient_test_chunkedgraph_literals.json"
    literals = json.loads((shared_data / file).read_text())
    told = read_operations(json.dumps(literals["test_operatin_details"]["operation_details"]))
    assert sorted(told) == [217696, 225368]
    assert all(t.sources and t.sinks and not t.failed for t in told.values())


@pytest.mark.shared
def test_real_synapses_lie_in_the_chunks_of_their_supervoxels(shared_data: Path) -> None:
    """Ids, voxel size and corner of minnie65 are read as its servers mean them."""
    file = shared_data / "cave_minnie65_fixtures" / "synapses_pre.csv.gz"
    with gzip.open(file, "rt") as text:
        rows = list(csv.DictReader(text))
    assert len(rows) == 6514
    for row in rows:
        lo, hi = chunk_voxels(MINNIE, int(row["pre_pt_supervoxel_id"]))
        nm = (float(row[f"pre_pt_position_{axis}"]) for axis in "xyz")
        voxel = [v / size for v, size in zip(nm, (8.0, 8.0, 40.0), strict=True)]
        assert all(a <= v < b for a, v, b in zip(lo, voxel, hi, strict=True))
