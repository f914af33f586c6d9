"""Joins and cuts under every kind of fault: none is lost and none is made twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from faulted_edits import FAULTS, run
from people import EDITOR

from cb2_assist.datasets.registry import open_dataset
from cb2_assist.labels.store import labels_url, open_store
from cb2_assist.standin.server import StandIn


def test_no_edit_is_lost_or_made_twice(
    cave: StandIn, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAVE_TOKEN", EDITOR.token)
    file = home / "cave.toml"
    file.write_text(cave.dataset_file())
    source = open_dataset(None, file)
    try:
        with open_store(labels_url(home / "labels.sqlite")) as store:
            result = run(cave, source, store.edits, 2 * len(FAULTS))
    finally:
        source.close()
    assert (result.lost, result.repeated) == (0, 0), result.words
    assert result.faults == dict.fromkeys(FAULTS, 2)
    assert min(result.kinds["join"], result.kinds["cut"]) >= 5
