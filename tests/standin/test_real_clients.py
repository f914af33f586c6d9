"""caveclient and cloud-volume, as they are, against a stand-in over HTTP."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from caveclient import CAVEclient
from caveclient.base import AuthException
from cloudvolume import CloudVolume
from conftest import EDITOR, NEWCOMER, READER
from crossing import CHUNK, NM, SHAPE

from cb2_assist.standin.graph import FIRST_TIME
from cb2_assist.standin.server import StandIn

WHOLE = np.array([[0, n] for n in SHAPE])
LEFT_NM, RIGHT_NM = [98 * 8, 70 * 8, 30 * 40], [102 * 8, 70 * 8, 30 * 40]


@pytest.fixture
def client(cave: StandIn, home: Path) -> Any:
    del home
    return _client(cave, EDITOR.token)


def _client(cave: StandIn, token: str | None) -> Any:
    return CAVEclient(
        cave.datastack, server_address=cave.url, auth_token=token, write_server_cache=False
    )


def _volume(client: Any, **options: Any) -> Any:
    return CloudVolume(
        client.info.segmentation_source(),
        secrets=client.auth.token,
        progress=False,
        fill_missing=True,
        **options,
    )


def _at(client: Any, point_nm: list[float]) -> int:
    voxel = [int(v / r) for v, r in zip(point_nm, NM, strict=True)]
    found = _volume(client)[
        voxel[0] : voxel[0] + 1, voxel[1] : voxel[1] + 1, voxel[2] : voxel[2] + 1
    ]
    return int(np.asarray(found).item())


def _merge(client: Any) -> tuple[int, int]:
    """Join the two pieces of the broken neurite; operation and root."""
    svs = [_at(client, LEFT_NM), _at(client, RIGHT_NM)]
    done = client.chunkedgraph.do_merge(svs, [LEFT_NM, RIGHT_NM], resolution=[1, 1, 1])
    return int(done["operation_id"]), int(done["new_root_ids"][0])


def test_the_image_and_the_objects_come_through_cloud_volume(cave: StandIn, client: Any) -> None:
    box = np.s_[60:140, 40:100, 20:40]
    em = client.info.image_cloudvolume()[box]
    assert em.shape == (80, 60, 20, 1)
    assert em.std() > 10
    supervoxels = np.asarray(_volume(client)[box])[..., 0]
    roots = np.asarray(_volume(client, agglomerate=True)[box])[..., 0]
    graph = cave.deployment.graph
    for supervoxel in np.unique(supervoxels).tolist():
        here = np.unique(roots[supervoxels == supervoxel]).tolist()
        assert here == [graph.ancestor(supervoxel) if supervoxel else 0]
    assert len(np.unique(roots)) == 3


def test_points_are_looked_up_at_any_layer(client: Any) -> None:
    voxels = [[int(v / r) for v, r in zip(p, NM, strict=True)] for p in (LEFT_NM, RIGHT_NM)]
    volume = _volume(client)
    parts = volume.scattered_points(voxels, agglomerate=True, stop_layer=2)
    roots = volume.scattered_points(voxels, agglomerate=True)
    assert sorted(v >> 56 for v in map(int, parts.values())) == [2, 2]
    assert len({int(v) for v in roots.values()}) == 2
    for voxel, part in parts.items():
        assert client.chunkedgraph.get_root_id(int(part)) == roots[voxel]


def test_a_merge_makes_one_object_and_keeps_the_past(cave: StandIn, client: Any) -> None:
    graph = client.chunkedgraph
    svs = [_at(client, LEFT_NM), _at(client, RIGHT_NM)]
    before = [int(r) for r in graph.get_roots(svs)]
    assert len(set(before)) == 2
    operation, root = _merge(client)
    assert graph.get_roots(svs).tolist() == [root, root]
    assert graph.is_latest_roots([*before, root]).tolist() == [False, False, True]
    edited = cave.deployment.editor.operations[operation].at
    just_before = datetime.fromtimestamp(edited, UTC) - timedelta(milliseconds=1)
    assert graph.get_roots(svs, timestamp=just_before).tolist() == before
    assert sorted(graph.get_leaves(root).tolist()) == sorted(
        v for r in before for v in graph.get_leaves(r).tolist()
    )
    assert [int(r) for r in graph.get_latest_roots(before[0])] == [root]
    assert sorted(map(int, graph.get_original_roots(root))) == sorted(before)
    assert graph.get_delta_roots(just_before, datetime.now(UTC))[1].tolist() == [root]


def test_history_names_who_edited_what_where(client: Any) -> None:
    operation, root = _merge(client)
    log = client.chunkedgraph.get_tabular_change_log([root])[root]
    assert log.operation_id.tolist() == [operation]
    assert log.user_name.tolist() == ["Ada"]
    assert log.is_merge.tolist() == [True]
    detail = client.chunkedgraph.get_operation_details([operation])[str(operation)]
    assert detail["source_coords"] == [[98, 70, 30]]
    assert detail["sink_coords"] == [[102, 70, 30]]
    assert detail["user"] == "7"
    summary = client.chunkedgraph.get_change_log(root)
    assert (summary["n_mergers"], summary["n_splits"]) == (1, 0)
    assert client.chunkedgraph.get_merge_log(root)["merge_edge_coords"] == [
        [[[98, 70, 30]], [[102, 70, 30]]]
    ]


def test_a_cut_is_previewed_made_undone_and_redone(client: Any) -> None:
    graph = client.chunkedgraph
    svs = [_at(client, LEFT_NM), _at(client, RIGHT_NM)]
    _, root = _merge(client)
    asked = ([LEFT_NM], [RIGHT_NM], root)
    left, right, possible = graph.preview_split(*asked)
    assert possible
    assert svs[0] in left
    assert svs[1] in right
    assert graph.is_latest_roots([root]).tolist() == [True]
    operation, new = graph.execute_split(*asked)
    assert len(new) == 2
    assert sorted(graph.get_leaves(int(graph.get_root_id(svs[0]))).tolist()) == sorted(left)
    undone = graph.undo_operation(operation)
    assert len(undone["new_root_ids"]) == 1
    assert graph.undo_operation(operation)["operation_id"] is None
    redo = f"{graph.server_address}/segmentation/api/v1/table/mini/redo"
    assert (
        len(graph.session.post(redo, json={"operation_id": operation}).json()["new_root_ids"]) == 2
    )


def test_level_2_graph_connects_all_parts(client: Any) -> None:
    graph = client.chunkedgraph
    root = int(graph.get_root_id(_at(client, LEFT_NM)))
    links = graph.level2_chunk_graph(root)
    parts = graph.get_leaves(root, stop_layer=2).tolist()
    assert {n for link in links for n in link} == set(parts)
    near = graph.get_leaves(root, stop_layer=2, bounds=np.array([[0, 64], [0, 128], [0, 64]]))
    assert set(near.tolist()) < set(parts)
    assert graph.level2_chunk_graph(root, bounds=WHOLE) == links


def test_edges_to_other_objects_carry_affinity_and_area(cave: StandIn, client: Any) -> None:
    graph = client.chunkedgraph
    root = int(graph.get_root_id(_at(client, LEFT_NM)))
    answer = graph.session.get(
        f"{cave.url}/segmentation/api/v1/table/mini/node/{root}/subgraph",
        params={"bounds": "0-256_0-256_0-64", "only_internal_edges": "false"},
    ).json()
    own = set(graph.get_leaves(root).tolist())
    columns = (answer[k] for k in ("nodes", "affinities", "areas"))
    outer = [
        (b, affinity, area) for (_, b), affinity, area in zip(*columns, strict=True) if b not in own
    ]
    assert {round(a, 3) for _, a, _ in outer} == {0.1}
    assert sum(area for _, _, area in outer) == 91 + 37 + 169 + 76
    others = {int(r) for r in graph.get_roots([b for b, _, _ in outer])}
    assert others == {int(graph.get_root_id(_at(client, RIGHT_NM)))}


def test_meshes_come_from_shards_and_after_an_edit_from_single_files(client: Any) -> None:
    volume = _volume(client)
    root = int(client.chunkedgraph.get_root_id(_at(client, LEFT_NM)))
    first = volume.mesh.get(root)[root]
    lo, hi = first.vertices.min(axis=0), first.vertices.max(axis=0)
    # a rod along x that ends at x = 100, 200 nm around y = 70, z = 30
    assert lo[0] < 0 < 99 * 8 <= hi[0] <= 100 * 8
    assert np.abs([lo[1], hi[1]] - np.array([70 * 8 - 200, 70 * 8 + 200])).max() <= 8
    # cloud-volume stitches what lies in two chunks, and leaves what lies in four
    place = np.unique(first.vertices, axis=0, return_inverse=True)[1].ravel()
    edges = np.sort(place[first.faces[:, [0, 1, 1, 2, 2, 0]]].reshape(-1, 2), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all(), "not watertight"
    _, merged = _merge(client)
    second = volume.mesh.get(merged)[merged]
    assert second.vertices[:, 0].max() > 250 * 8
    part = int(client.chunkedgraph.get_leaves(merged, stop_layer=2)[0])
    alone = volume.mesh.get(part, bypass=True)[part]
    assert np.ptp(alone.vertices[:, 0]) <= CHUNK[0] * 8 + 8
    near = volume.mesh.get(merged, bounding_box=np.s_[0:64, 0:128, 0:64])[merged]
    assert len(near.vertices) < len(second.vertices)


def test_level_2_rows_say_size_place_and_direction(client: Any) -> None:
    graph = client.chunkedgraph
    root = int(graph.get_root_id(_at(client, LEFT_NM)))
    parts = graph.get_leaves(root, stop_layer=2).tolist()
    assert client.l2cache.has_cache()
    rows = client.l2cache.get_l2data(parts)
    volume = _volume(client, agglomerate=True)
    voxels = int((np.asarray(volume[:, :, :])[..., 0] == root).sum())
    assert sum(r["size_nm3"] for r in rows.values()) == voxels * 8 * 8 * 40
    for part, row in rows.items():
        point = row["rep_coord_nm"]
        assert graph.get_root_id(_at(client, point), level2=True) == int(part)
        assert abs(row["pca"][0][0]) > 0.9  # it runs along x
        assert 0 < row["mean_dt_nm"] <= row["max_dt_nm"] <= 240
    table = client.l2cache.get_l2data_table(parts, attributes=["rep_coord_nm", "size_nm3"])
    assert len(table) == len(parts)


def test_the_frozen_table_is_queried(client: Any) -> None:
    assert client.materialize.get_versions() == [1]
    assert client.materialize.get_tables() == ["largest_objects"]
    table = client.materialize.query_table("largest_objects", desired_resolution=[1, 1, 1])
    assert len(table) == 3
    for row in table.itertuples():
        assert _at(client, row.pt_position) == row.pt_supervoxel_id
    root = int(table.pt_root_id[0])
    same = client.materialize.query_table("largest_objects", filter_equal_dict={"pt_root_id": root})
    assert same.id.tolist() == [1]
    assert client.materialize.get_timestamp().timestamp() > FIRST_TIME


def test_who_may_not_is_told_why(
    cave: StandIn, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del home
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    with pytest.raises(AuthException):
        _client(cave, None)
    with pytest.raises(requests.HTTPError, match="invalid_token"):
        _client(cave, "f" * 32)
    with pytest.raises(requests.HTTPError, match="missing_tos"):
        _client(cave, NEWCOMER.token)
    assert [u.startswith(f"{cave.url}/sticky_auth/") for u in opened] == [True]
    with pytest.raises(requests.HTTPError, match="Missing permission: edit"):
        _merge(_client(cave, READER.token))
    with pytest.raises(requests.HTTPError, match="invalid_table_id"):
        CAVEclient(
            "other", server_address=cave.url, auth_token=EDITOR.token, write_server_cache=False
        )


def test_a_path_is_found_through_one_object(client: Any) -> None:
    graph = client.chunkedgraph
    root = int(graph.get_root_id(_at(client, LEFT_NM)))
    ends = np.array([20 * 8, 70 * 8, 30 * 40]), np.array(LEFT_NM)
    centroids, path, failed = graph.find_path(root, *ends)
    assert set(path.tolist()) <= set(graph.get_leaves(root, stop_layer=2).tolist())
    assert len(path) == len(centroids) == 2
    assert not len(failed)


def test_a_stale_root_is_still_edited_by_place(client: Any) -> None:
    graph = client.chunkedgraph
    stale = int(graph.get_root_id(_at(client, LEFT_NM)))
    _, merged = _merge(client)
    other = int(graph.get_root_id(_at(client, [60 * 8, 180 * 8, 30 * 40])))
    started = time.time()
    done = graph.do_merge(
        [stale, other], [[60 * 8, 70 * 8, 1200], [60 * 8, 180 * 8, 1200]], resolution=[1, 1, 1]
    )
    assert graph.is_latest_roots([merged]).tolist() == [False]
    assert graph.get_root_timestamps(done["new_root_ids"])[0].timestamp() >= started - 1
