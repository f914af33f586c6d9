"""`examples/live_check.py` on a stand-in: what matches, what differs, and a server that is down."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from functools import partial

import live_check
import pytest
from cave_worlds import EDITOR, CaveWorld, cave_world, own_home

from cb2_assist import PointNm, open_assistant
from cb2_assist.datasets.registry import open_dataset

POINT = (485.0, 365.0, 625.0)


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory) -> Iterator[pytest.MonkeyPatch]:
    with own_home(tmp_path_factory.mktemp("home")) as patch:
        yield patch


@pytest.fixture(scope="module")
def world(tmp_path_factory, neurites_file) -> Iterator[CaveWorld]:
    about = '[dataset]\nname = "graph"\nspecies = "fly"'
    with cave_world(tmp_path_factory.mktemp("cave"), neurites_file, about) as world:
        yield world


@pytest.fixture
def walk(monkeypatch, capsys, tiny_model_folder):
    """Run the check: exit code and what was printed."""
    opened = partial(open_assistant, model=tiny_model_folder)
    monkeypatch.setattr(live_check, "open_assistant", opened)

    def run(*words: object) -> tuple[int, str]:
        try:
            live_check.main([str(w) for w in words])
        except SystemExit as e:
            return int(e.code or 0), capsys.readouterr().out
        return 0, capsys.readouterr().out

    return run


def test_every_step_matches_what_is_known(world, walk, tmp_path) -> None:
    source = open_dataset(None, world.file)
    root = source.segment_at(PointNm(*POINT))
    arbour = source.arbour(root)
    facts = {
        "viewer_nm": [10.0, 10.0, 10.0],
        "segment_nm": [10.0, 10.0, 10.0],
        "shared_seg": f"/segmentation/table/{world.cave.deployment.names.table}",
        "root": int(root),
        "point_nm": POINT,
        "supervoxel": int(source._voxels.segment_at(PointNm(*POINT))),
        "l2_nodes": len(arbour.points),
        "l2_edges": len(arbour.edges),
        "place_nm": arbour.points[0].tolist(),
        "em_mean": [60, 200],
    }
    source.close()
    file = tmp_path / "facts.json"
    file.write_text(json.dumps(facts))
    code, said = walk(world.file, "--facts", file)
    assert code == 0, said
    for step in ("info", "objects", "level2", "subgraph", "mesh", "em", "log", "suggest"):
        assert f"{step} took" in said
    assert said.count("matched ") >= 12
    assert "Everything that could be compared matched" in said
    assert EDITOR.token not in said

    file.write_text(json.dumps({**facts, "l2_nodes": 7, "viewer_nm": [4.0, 4.0, 40.0]}))
    code, said = walk(world.file, "--facts", file)
    assert code == 1
    assert "DIFFERS  info: viewer voxel, nm: (10.0, 10.0, 10.0), known: (4.0, 4.0, 40.0)" in said
    assert "DIFFERS  level2: parts of layer 2" in said
    assert "2 findings differ or failed" in said


def test_a_server_that_is_down_is_said_and_nothing_else_is_tried(walk, tmp_path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        file = tmp_path / "cave.toml"
        file.write_text(f'[cave]\ndatastack = "mini"\nserver = "http://127.0.0.1:{port}"\n')
        code, said = walk(file)
    assert code == 1
    assert "FAILED   info: " in said
    assert "refuses connections" in said
    assert "1 findings differ or failed" in said
    assert "objects" not in said


def test_a_fact_that_is_none_is_named(tmp_path) -> None:
    file = tmp_path / "facts.json"
    file.write_text('{"rooot": 1}')
    with pytest.raises(SystemExit, match="no fact is called rooot"):
        live_check.main(["minnie65", "--facts", str(file)])
