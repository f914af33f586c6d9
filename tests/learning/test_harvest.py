"""Edits that people made, as decisions: each is what was done, whatever goes wrong meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from beads import bead_dataset
from cave_worlds import own_home
from histories import ADA, BEN, History, history, middle

from cb2_assist.core.errors import NoAnswerError, UsageError
from cb2_assist.core.geometry import PointNm
from cb2_assist.datasets.local import open_dataset_file
from cb2_assist.learning import harvest_edits
from cb2_assist.learning.export_rows import pseudonym
from cb2_assist.learning.harvest import Harvest, Progress, Report, Wanted
from cb2_assist.standin.faults import Fault
from cb2_assist.standin.served import Served, make_served

SALT = b"salt"


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory) -> Iterator[pytest.MonkeyPatch]:
    with own_home(tmp_path_factory.mktemp("home")) as patch:
        yield patch


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("beads")
    local = open_dataset_file(bead_dataset(folder / "d"))
    yield make_served(local, folder / "ws")
    local.close()


@pytest.fixture
def world(served, tmp_path) -> Iterator[History]:
    with history(served, tmp_path) as made:
        yield made


def run(
    world: History, out: Path, *beads: tuple[int, int, int], **options: object
) -> tuple[Report, list[dict]]:
    """Harvest the past of the objects that hold some beads; the report and the decisions."""
    work = begin(world, out, *beads, **options)
    try:
        return work.run(), list(work.rows())
    finally:
        work.close()


def begin(world: History, out: Path, *beads: tuple[int, int, int], **options) -> Harvest:
    near_nm, controls = options.pop("near_nm", 20.0), options.pop("controls", 3)
    since = options.pop("since", None)
    roots = tuple(dict.fromkeys(world.root(b) for b in beads))
    wanted = Wanted(roots, since, near_nm, controls, SALT)
    until = datetime.fromisoformat(world.source.timestamp)
    pauses = options.pop("pauses_s", (0.0, 0.0))
    return Harvest(world.source.history, world.source.info, wanted, out, until, pauses_s=pauses)


def of_type(rows: list[dict], name: str) -> list[dict]:
    return [r for r in rows if r["sample_type"] == name]


def test_a_merge_is_two_objects_as_they_were_before_it(world, tmp_path) -> None:
    a, b = (0, 0, 2), (1, 0, 2)
    before = world.root(a), world.root(b)
    number = world.merge(a, b, by=BEN)
    report, rows = run(world, tmp_path / "h", a)
    (edit,) = of_type(rows, "merge_edit")
    assert (edit["kind"], edit["verdict"], edit["label"]) == ("join", "accept", 1)
    assert (int(edit["segment"]), int(edit["partner"])) == before
    assert edit["operation_id"] == number
    assert PointNm.of(edit["point_nm"]).distance_nm(PointNm(200.0, 105.0, 505.0)) < 60.0
    assert edit["touching"]
    assert [int(s) for s in edit["supervoxels"]] == [world.part(a), world.part(b)]
    assert edit["user"] == pseudonym(BEN.user_id, SALT) != pseudonym(ADA.user_id, SALT)
    assert (edit["dataset"], edit["species"], edit["licence"]) == ("beads", "fly", "CC0 1.0")
    state = datetime.fromisoformat(edit["timestamp"])
    assert datetime.fromisoformat(edit["edited_at"]) - state == timedelta(milliseconds=1)
    world.source.read_at(state)
    assert world.source.segment_at(middle(a)) == before[0]
    assert (report.edits, report.used) == (1, 1)
