"""`evaluate` from the command line: metrics.json as agreed, on a volume and on parquet."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from beads import PLANE, bead_dataset, bead_volume
from fixtures_model import TINY_VIEWS, tiny_model
from proofread import Proofreader
from release_makers import release_row, release_rows, write_shards

from cb2_assist.app import DatasetChoice, build_assistant
from cb2_assist.cli import main
from cb2_assist.core.records import Kind, Verdict
from cb2_assist.datasets.importer import grid_of
from cb2_assist.datasets.writer import Description, Volume, write_dataset
from cb2_assist.labels.store import open_store
from cb2_assist.learning.cb2_rows import em_png
from cb2_assist.learning.contract_figures import FIGURES
from cb2_assist.learning.evaluate import UNFILTERED, model_for
from cb2_assist.learning.export import export_labels
from cb2_assist.model.card import ViewSpec, check_card
from cb2_assist.model.shipped import shipped_models
from cb2_assist.views.encode import encode_cb2
from cb2_assist.views.stack import from_bytes

VIEWS = ViewSpec(profile="cb2", extent_nm=7500.0, image_px=32)


@pytest.fixture(scope="module")
def cb2_model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("cb2"), views=VIEWS)


@pytest.fixture(scope="module")
def beads(tmp_path_factory):
    return bead_dataset(tmp_path_factory.mktemp("beads"))


def run(*words) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", "--device", "cpu", "--draws", "40", *map(str, words)])
    return int(stopped.value.code or 0)


def metrics(folder):
    def refuse(text):
        raise AssertionError(f"{text} is no JSON")

    return json.loads((folder / "metrics.json").read_text(), parse_constant=refuse)


def is_task(entry) -> None:
    assert {"n", "n_scored", "positive_rate", "by"} <= set(entry)
    for name in FIGURES:
        figure = entry[name]
        if figure["value"] is not None:
            assert np.isfinite(figure["value"])
        if figure["ci95"] is not None:
            low, high = figure["ci95"]
            assert low <= high
    assert set(entry["by"]) == {"species", "sample_type", "modality"}


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_public_release_gives_the_agreed_file(tmp_path, capsys, version, cb2_model) -> None:
    rows = release_rows(version, 4) + [
        release_row(version, 60 + i, name, species="fly", source_archive="unified_fly")
        for i, name in enumerate(("merge_edit", "adjacent_control"))
    ]
    rows.append(release_row(version, 70, "merge_edit", task_routing=[]))
    data, out = write_shards(tmp_path / "data", version, rows), tmp_path / "out"

    assert run("--data", data, "--model", cb2_model, "--out", out) == 0
    got = metrics(out)
    assert {"model", "data", "n", "n_scored", "tasks"} <= set(got)
    assert (got["n"], got["n_scored"], got["rows"]) == (18, 18, 19)
    assert got["skipped"] == {"it is routed to no task": 1}
    assert set(got["tasks"]) == {"join", "cut"}
    for entry in got["tasks"].values():
        is_task(entry)
    assert set(got["tasks"]["join"]["by"]["species"]) == {"mouse", "fly"}
    assert set(got["tasks"]["cut"]["by"]["modality"]) == {"em", "geometry", "both"}
    assert got["interval"]["clusters"] == {"body": 18}
    assert got["published"]["tasks"]["join"]["people"] == 0.93
    text = (out / "report.md").read_text()
    plots = {p.name for p in out.glob("*.svg")}
    assert len(plots) == 6
    assert all(f"({name})" in text for name in plots)
    printed = capsys.readouterr().out
    assert "join, all, model: n 10" in printed
    assert "skipped: 1: it is routed to no task" in printed


def test_rows_say_which_shipped_model_is_asked(tmp_path) -> None:
    cubes, sections = map(check_card, shipped_models())
    told = {
        "theirs": {},
        "demo": {"cb2assist": {"dataset": "demo", "model": {"sha256": cubes.sha256}}},
        "mine": {"cb2assist": {"dataset": "mine", "model": {"sha256": sections.sha256}}},
        "by-hand": {"cb2assist": {"dataset": "mine", "model": None}},
    }
    asked = {}
    for name, about in told.items():
        row = release_row("v1", 1, "merge_edit", metadata=json.dumps(about))
        asked[name] = model_for(write_shards(tmp_path / name, "v1", [row])).name
    assert asked == {
        "theirs": sections.name,
        "demo": sections.name,
        "mine": sections.name,
        "by-hand": cubes.name,
    }


def test_one_answer_alone_is_null_not_a_number(tmp_path, capsys, cb2_model) -> None:
    rows = [release_row("v2", i, "merge_edit") for i in range(4)]
    data = write_shards(tmp_path / "data", "v2", rows)

    assert run("--data", data, "--model", cb2_model, "--out", tmp_path, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == metrics(tmp_path)
    join = printed["tasks"]["join"]
    assert join["balanced_accuracy"] == {"value": None, "ci95": None}
    assert join["accuracy"]["value"] is not None


def test_a_volume_with_truth_gives_the_agreed_file(tmp_path, capsys, beads) -> None:
    model = tiny_model(tmp_path / "model", views=TINY_VIEWS)
    out = tmp_path / "out"
    words = ["--data", beads, "--model", model, "--out", out, "--from-z", PLANE]
    words += ["--training", beads, "--below-z", PLANE, "--merges", 4]

    assert run(*words) == 0
    got = metrics(out)
    for entry in got["tasks"].values():
        is_task(entry)
    join = got["tasks"]["join"]
    assert set(join["by"]["modality"]) == {"em", "geometry", "both", "features", "neighbours"}
    assert set(join["by"]["sample_type"]) == {"touching_pair"}
    assert set(join["by"]["species"]) == {"fly"}
    assert {"model", "baseline"} == set(join["subsets"]["all"])
    assert join["subsets"]["all"]["model"]["auroc"] == join["auroc"]
    assert set(got["tasks"]["cut"]["by"]["sample_type"]) == {"synthetic_merge"}
    assert got["n"] == got["n_scored"] == sum(t["n"] for t in got["tasks"].values())
    assert "baseline" in capsys.readouterr().out


def test_mixed_segments_are_left_out_of_the_figures_and_judged_beside_them(tmp_path, beads) -> None:
    mixed = bead_volume()
    ball = np.argwhere(mixed.seg == mixed.seg.max())
    far = ball[ball[:, 2] > ball[:, 2].min() + 12]
    mixed.truth[tuple(far.T)] = mixed.truth.max() + 1
    data = write_dataset(
        tmp_path / "mixed",
        Volume(grid_of((10.0,) * 3, (0.0,) * 3), mixed.em, mixed.seg, mixed.truth),
        Description("mixed", "fly", "CC0 1.0", "nobody"),
        mesh_min_voxels=10**9,
    )
    model = tiny_model(tmp_path / "model", views=TINY_VIEWS)

    assert run("--data", data, "--model", model, "--out", tmp_path / "out") == 0

    join = metrics(tmp_path / "out")["tasks"]["join"]
    whole = join["subsets"][UNFILTERED]["model"]
    assert set(join["subsets"]) == {"all", UNFILTERED}
    # three neighbours along x, y and z: a corner of the lattice
    assert whole["n"] == join["n"] + 3
    assert UNFILTERED in (tmp_path / "out" / "report.md").read_text()
    assert run("--data", beads, "--model", model, "--out", tmp_path / "pure") == 0
    assert set(metrics(tmp_path / "pure")["tasks"]["join"]["subsets"]) == {"all"}


def test_our_own_export_is_read_back(tmp_path, neurites_file) -> None:
    views = ViewSpec(profile="cb2", extent_nm=320.0, image_px=32)
    model = tiny_model(tmp_path / "model", views=views)
    assistant = build_assistant(
        DatasetChoice(file=neurites_file), model=model, device="cpu", threads=1
    )
    stacks, given = {}, {}
    try:
        with open_store(f"sqlite:///{tmp_path}/labels.sqlite") as store:
            for user, verdict in (("ada", Verdict.ACCEPT), ("bob", Verdict.REJECT)):
                person = Proofreader(assistant, store, user)
                for kind in Kind:
                    asked = person.first(kind)
                    person.decide(asked, verdict)
                    stacks[kind] = from_bytes(assistant.views_of(asked.id)[1])
                    given[kind] = {v.name: v.score for v in asked.views}
            export_labels(store, out=tmp_path / "data", format="cb2-v1")
    finally:
        assistant.close()

    from collections import Counter

    from cb2_assist.learning.cb2_decisions import read_decisions
    from cb2_assist.learning.cb2_decode import read_em, read_geometry
    from cb2_assist.learning.cb2_schema import find_shards, release_of

    files, splits = find_shards(tmp_path / "data", None)
    found = list(read_decisions(files, release_of(files), Counter()))
    assert splits == ["train", "val"]
    assert sorted((d.kind, d.answer) for d in found) == sorted(
        (k, a) for k in Kind for a in (True, False)
    )
    for d in found:
        stack = stacks[d.kind]
        np.testing.assert_array_equal(read_geometry(d.geometry), encode_cb2(stack.hits))
        np.testing.assert_array_equal(read_em(d.em, d.kind), stack.em)
        assert d.em[0] == em_png(stack, 0, d.kind)
        assert (d.em_profile, d.extent_nm, d.cluster_kind) == ("cb2", 320.0, "body")

    out = tmp_path / "out"
    assert run("--data", tmp_path / "data", "--model", model, "--out", out) == 0
    got = metrics(out)
    assert {k: t["n"] for k, t in got["tasks"].items()} == {"join": 2, "cut": 2}
    # what was measured comes with the views
    assert got["mismatches"] == {}


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--data", "nowhere"], 1, "There is no nowhere"),
        (["--data", "FOLDER", "--from-z", "3"], 2, "--from-z does not go with parquet rows"),
        (["--data", "FOLDER", "--merges", "3"], 2, "--merges does not go with parquet rows"),
        (["--data", "BEADS", "--split", "val"], 2, "--split does not go with a dataset"),
        (["--data", "BEADS", "--from-z", "100000"], 1, "nothing to evaluate"),
        (["--data", "FOLDER", "--split", "val"], 1, "no split 'val'"),
        (["--data", "FOLDER", "--model", "CLEAN"], 1, "--any-profile"),
        (["--data", "FOLDER", "--model", "BROKEN"], 1, "not the ones of the card"),
        (["--data", "FOLDER", "--compare", "BROKEN"], 1, "not the ones of the card"),
        (["--data", "FOLDER", "--below-z", "3"], 2, "--training and --below-z"),
    ],
)
def test_what_does_not_fit_is_one_line(
    tmp_path, capsys, beads, cb2_model, tiny_model_folder, words, code, says
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(cb2_model, broken)
    (broken / "weights.safetensors").write_bytes(b"other weights")
    real = {
        "FOLDER": write_shards(tmp_path / "data", "v2", release_rows("v2", 1)),
        "BEADS": beads,
        "CLEAN": tiny_model_folder,
        "BROKEN": broken,
    }
    words = [str(real.get(w, w)) for w in words]
    if "--model" not in words:
        words += ["--model", str(tiny_model_folder if str(beads) in words else cb2_model)]

    assert run(*words, "--out", tmp_path / "out") == code
    err = capsys.readouterr().err
    assert says in err
    assert "Traceback" not in err
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_out_must_be_a_folder(tmp_path, capsys, cb2_model) -> None:
    data = write_shards(tmp_path / "data", "v2", release_rows("v2", 1))
    (tmp_path / "out").write_text("mine")
    words = ["--data", data, "--model", cb2_model]

    assert run(*words, "--out", tmp_path / "out") == 2
    assert run(*words, "--out", tmp_path / "out" / "below") == 1
    assert "Traceback" not in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == "mine"


def test_two_models_are_compared_on_the_same_decisions(tmp_path, capsys, cb2_model) -> None:
    other = tiny_model(tmp_path / "other", seed=1, views=VIEWS)
    data = write_shards(tmp_path / "data", "v2", release_rows("v2", 3))
    words = ["--data", data, "--model", cb2_model, "--out", tmp_path / "out"]

    assert run(*words, "--compare", other) == 0
    got = metrics(tmp_path / "out")["compare"]
    assert got["first"]["sha256"] != got["second"]["sha256"]
    for task in got["tasks"].values():
        assert (task["n"], task["only_first"], task["only_second"]) == (6, 0, 0)
        test = task["mcnemar"]
        counts = ("only_first_right", "only_second_right", "both_right", "both_wrong")
        assert sum(test[k] for k in counts) == 6
    assert "McNemar p" in capsys.readouterr().out


def test_models_of_other_extents_are_compared_on_a_volume(tmp_path, beads) -> None:
    one = tiny_model(tmp_path / "one", views=TINY_VIEWS)
    other = tiny_model(tmp_path / "other", views=ViewSpec(extent_nm=200.0, image_px=32))
    words = ["--data", beads, "--model", one, "--out", tmp_path, "--from-z", PLANE]

    assert run(*words, "--merges", 4, "--compare", other) == 0
    tasks = metrics(tmp_path)["compare"]["tasks"]
    assert tasks["join"]["only_first"] == tasks["join"]["only_second"] == 0
    assert tasks["join"]["n"] == metrics(tmp_path)["tasks"]["join"]["n"]
    assert tasks["cut"]["n"] + tasks["cut"]["only_first"] <= metrics(tmp_path)["tasks"]["cut"]["n"]
