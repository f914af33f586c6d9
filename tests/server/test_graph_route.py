"""The graph for the viewer: read through our port, with a token that stays in Python."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import requests
from cave_worlds import EDITOR, CaveWorld, cave_world, own_home

from cb2_assist.core.geometry import PointNm
from cb2_assist.datasets.registry import open_dataset


@pytest.fixture(scope="module")
def world(tmp_path_factory, neurites_file) -> Iterator[CaveWorld]:
    folder = tmp_path_factory.mktemp("cave")
    with own_home(folder), cave_world(folder, neurites_file) as made:
        yield made


@pytest.fixture(scope="module")
def source(world):
    opened = open_dataset(None, world.file)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def route(source):
    return source.route


@pytest.fixture
def table(world):
    return world.cave.deployment.names.table


def test_the_graphs_description_is_passed_on(world, route, table):
    got = route.answer("GET", f"segmentation/table/{table}/info", {})
    assert (got.status, got.content_type.split(";")[0]) == (200, "application/json")
    assert json.loads(got.body)["graph"]["n_layers"] >= 2
    # without the token the server would have refused
    bare = requests.get(
        f"{world.cave.url}/segmentation/table/{table}/info", timeout=60, allow_redirects=False
    )
    assert bare.status_code != 200


def test_questions_are_passed_on_with_their_query_and_body(source, route, table):
    api = f"segmentation/api/v1/table/{table}"
    part = source._voxels.segment_at(PointNm(485.0, 365.0, 645.0))
    root = json.loads(route.answer("GET", f"{api}/node/{part}/root", {"int64_as_str": "1"}).body)
    assert root["root_id"].isdigit()
    asked = json.dumps({"node_ids": [root["root_id"]]}).encode()
    got = route.answer("POST", f"{api}/is_latest_roots", {}, asked)
    assert json.loads(got.body) == {"is_latest": [True]}
    mesh = route.answer(
        "GET", f"meshing/api/v1/table/{table}/manifest/{root['root_id']}:0", {"verify": "1"}
    )
    assert json.loads(mesh.body)["fragments"]


@pytest.mark.parametrize("edit", ["merge", "split", "undo", "redo"])
def test_no_edit_gets_through(route, table, edit):
    got = route.answer("POST", f"segmentation/api/v1/table/{table}/{edit}", {}, b"[]")
    assert got.status == 403
    assert "sends no edits" in json.loads(got.body)["message"]


@pytest.mark.parametrize(
    "path",
    [
        "info/api/v2/datastacks",
        "segmentation/table/other/info",
        "segmentation/api/v1/table/{t}/../../../../info/api/v2/datastacks",
        "sticky_auth/api/v1/refresh_token",
        "http://elsewhere.example/",
        "",
    ],
)
def test_nothing_but_this_graph_is_reached(route, table, path):
    assert route.answer("GET", path.format(t=table), {}).status == 403


def test_a_refusal_of_the_server_is_told_without_the_token(route, table):
    got = route.answer("GET", f"segmentation/api/v1/table/{table}/node/5/root", {})
    assert got.status >= 400
    assert json.loads(got.body)["message"]
    assert EDITOR.token.encode() not in got.body
