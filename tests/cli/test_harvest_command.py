"""`harvest`, and what reads what it writes, over real HTTP."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from beads import bead_dataset
from cave_worlds import own_home
from histories import BEN, History, history
from page_fakes import wait_until

from cb2_assist.datasets.local import open_dataset_file
from cb2_assist.learning.cb2_schema import find_shards
from cb2_assist.standin.faults import Fault
from cb2_assist.standin.served import make_served


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory) -> Iterator[pytest.MonkeyPatch]:
    with own_home(tmp_path_factory.mktemp("home")) as patch:
        yield patch


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Iterator[History]:
    """Two merges and a cut of two people."""
    folder = tmp_path_factory.mktemp("beads")
    local = open_dataset_file(bead_dataset(folder / "d"))
    try:
        with history(make_served(local, folder / "ws"), folder) as made:
            made.merge((0, 0, 2), (1, 0, 2))
            made.merge((1, 0, 2), (2, 0, 2), by=BEN)
            made.split((1, 0, 2), (2, 0, 2))
            yield made
    finally:
        local.close()


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_harvest_is_scored_in_its_states_and_evaluated(
    call, world, tiny_model_folder, tmp_path
) -> None:
    roots, out = tmp_path / "roots.csv", tmp_path / "h"
    roots.write_text(f"root_id,name\n{world.root((0, 0, 2))},one\n{world.root((2, 0, 2))}  # two\n")
    dataset = ["--dataset-file", world.file]
    options = ["--roots", roots, "--out", out, "--near-nm", "20", "--rate", "100", "--json"]
    views = ["--views", "--model", tiny_model_folder]
    code, text, err = call("harvest", *dataset, *options, *views)
    assert code == 0, err
    summary = json.loads(text)
    assert summary["edits"] == 3
    assert summary["by_type"]["merge_edit"] == summary["by_type"]["split_edit"] == 1
    assert "3 of 3 edits (100 %)" in err
    n = sum(summary["by_type"].values())
    labels = lines(out / "labels.jsonl")
    assert len(labels) == n
    assert all(row["views_sha256"] and row["timestamp"] for row in labels)
    # shards say what came of each edit, as text
    cut = next(row for row in labels if row["sample_type"] == "split_edit")
    files, _ = find_shards(out, "all")
    metas = [json.loads(m) for f in files for m in pq.read_table(f)["metadata"].to_pylist()]
    after = {m["cb2assist"]["sample_type"]: m["after_root_ids"] for m in metas}
    assert after["split_edit"] == cut["sides"]
    assert len(set(after["split_edit"])) == 2
    assert len(after["merge_edit"]) == 1
    assert after["adjacent_control"] == []
    assert all(type(row["operation_id"]) is type(row["event_id"]) is str for row in labels)
    # the same command again finds everything there
    world.cave.faults.forget()
    code, text, _ = call("harvest", *dataset, *options, *views)
    assert (code, json.loads(text)["by_type"]) == (0, summary["by_type"])
    assert not [s for s in world.cave.faults.requests() if "operation_details" in s.path]

    scores = tmp_path / "scores.jsonl"
    sites = ["--sites", out / "sites.jsonl", "--out", scores]
    model = ["--model", tiny_model_folder, "--device", "cpu"]
    code, _, err = call("score", *dataset, *model, *sites)
    assert code == 0, err
    answers = lines(scores)
    assert [a["id"] for a in answers] == [row["label_id"] for row in labels]
    assert all("score" in a for a in answers), answers

    code, text, err = call(
        "evaluate", "--data", out, *model, "--out", tmp_path / "e", "--split", "all", "--json",
        "--draws", "20", "--any-profile",
    )  # fmt: skip
    assert code == 0, err
    tasks = json.loads(text)["tasks"]
    assert {task: tasks[task]["n"] for task in tasks} == {
        "join": sum(row["kind"] == "join" for row in labels),
        "cut": sum(row["kind"] == "cut" for row in labels),
    }


def has_met(world: History, fault: Fault) -> bool:
    """Whether a request suffers it."""
    return world.cave.faults.to_json()[0]["seen"] > fault.skip


def test_one_that_is_killed_goes_on_without_losing_or_doubling_a_row(call, world, tmp_path) -> None:
    ids = [word for bead in ((0, 0, 2), (2, 0, 2)) for word in ("--root", str(world.root(bead)))]
    words = ["harvest", "--dataset-file", str(world.file), *ids, "--near-nm", "20", "--rate", "100"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert call(*words, "--out", whole)[0] == 0
    edits = lines(whole / "edits.jsonl")
    command = [sys.executable, "-m", "cb2_assist", *words, "--out", str(killed)]
    for asked_before in (4, 1):
        # the server keeps it waiting in the middle of an edit, for as long as it takes to be killed
        slow = Fault("latency", "/lineage_graph_multiple$", skip=asked_before, seconds=60)
        world.cave.faults.add(slow)
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as child:
            try:
                wait_until(partial(has_met, world, slow), 120)
            finally:
                child.send_signal(signal.SIGKILL)
        world.cave.faults.clear()
        assert child.returncode == -signal.SIGKILL
        assert 0 < len(lines(killed / "edits.jsonl")) < len(edits)
        assert not (killed / "labels.jsonl").exists()
    # what was being written when it was killed
    with (killed / "edits.jsonl").open("a") as file:
        file.write('{"edit":3,"root":"')
    assert call(*words, "--out", killed)[0] == 0
    assert lines(killed / "edits.jsonl") == edits
    for name in ("sites.jsonl", "labels.jsonl"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


def test_a_site_without_a_time_is_scored_in_the_present_state(
    call, world, tiny_model_folder, tmp_path
) -> None:
    a, b = (0, 0, 2), (1, 0, 2)
    at = {"kind": "cut", "partner": None, "point_nm": [200.0, 105.0, 505.0]}
    now = {"id": "now", "segment": str(world.root(a)), **at}
    assert world.root(a) == world.root(b)
    early = {"id": "early", "segment": now["segment"], "timestamp": "2021-01-01", **at}
    wrong = {**early, "id": "wrong", "timestamp": "yesterday"}
    sites, out = tmp_path / "sites.jsonl", tmp_path / "out.jsonl"
    sites.write_text("".join(json.dumps(s) + "\n" for s in (now, early, wrong, now)))
    code, _, err = call(
        "score", "--dataset-file", world.file, "--model", tiny_model_folder, "--device", "cpu",
        "--sites", sites, "--out", out,
    )  # fmt: skip
    assert code == 0, err
    first, second, third, fourth = lines(out)
    assert first == fourth
    assert "score" in first
    # that object did not exist then
    assert "is not within" in second["error"]
    assert "ISO 8601" in third["error"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--root", "1", "--roots", "x"], "Name objects"),
        ([], "Name objects"),
        (["--root", "1", "--model", "m"], "goes with --views"),
        (["--roots", "missing.txt"], "cannot be read"),
        (["--root", "1", "--since", "last week"], "ISO 8601"),
    ],
)
def test_wrong_usage_is_said(call, world, tmp_path, words, said) -> None:
    code, _, err = call("harvest", "--dataset-file", world.file, "--out", tmp_path / "h", *words)
    assert code == 2
    assert said in err


def test_a_volume_without_history_is_refused(call, neurites_file, tmp_path) -> None:
    code, _, err = call(
        "harvest", "--dataset-file", neurites_file, "--root", "1", "--out", tmp_path / "h"
    )
    assert code == 2
    assert "without an edit history" in err
