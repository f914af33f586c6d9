"""`standin` as a person runs it: what it prints, and that it stops."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import requests

from cb2_assist.datasets.dataset_file import read_dataset_file
from cb2_assist.datasets.demo import CACHE_VARIABLE


def test_it_prints_how_to_reach_it_and_stops_on_a_signal(neurites_file, tmp_path) -> None:
    started = subprocess.Popen(
        [
            *(sys.executable, "-m", "cb2_assist", "standin"),
            *("--dataset-file", str(neurites_file), "--json"),
            *("--write", str(tmp_path / "graph.toml")),
        ],
        stdout=subprocess.PIPE,
        env={**os.environ, CACHE_VARIABLE: str(tmp_path)},
        text=True,
    )
    try:
        assert started.stdout is not None
        told = json.loads(started.stdout.readline())
        stack = requests.get(
            f"{told['server']}/info/api/v2/datastack/full/{told['datastack']}",
            headers={"Authorization": f"Bearer {told['token']}"},
            timeout=20,
        ).json()
        assert stack["segmentation_source"].startswith(f"graphene://{told['server']}/")
        assert f'server = "{told["server"]}"' in told["dataset_file"]
        written = read_dataset_file(tmp_path / "graph.toml")
        assert (tmp_path / "graph.toml").read_text() == told["dataset_file"]
        # labels of the graph and of the volume are kept apart; views follow the species
        assert (written.name, written.species) == ("neurites-graph", "fly")
        assert written.cave is not None
        started.send_signal(signal.SIGTERM)
        assert started.wait(120) == 0
    finally:
        started.kill()
        started.wait()
        started.stdout.close()


def test_a_dataset_must_be_named(call) -> None:
    code, _, err = call("standin")
    assert code == 2
    assert "--dataset" in err
