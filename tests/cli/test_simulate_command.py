"""`simulate`: curves, a summary and one-line errors."""

from __future__ import annotations

import json

import numpy as np
import pytest
from beads import TOP, bead_dataset, beads

from cb2_assist.learning.simulate import seen_of
from cb2_assist.learning.strategies.registry import STRATEGIES

pytestmark = pytest.mark.usefixtures("own_data_home")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return bead_dataset(tmp_path_factory.mktemp("beads"))


@pytest.fixture
def run(call, dataset, tiny_model_folder, tmp_path):
    def simulate(*words, out=tmp_path / "out"):
        code, told, err = call(
            "simulate", "--dataset-file", dataset, "--model", tiny_model_folder,
            "--device", "cpu", "--orders", 3, "--out", out, "--json", *words,
        )  # fmt: skip
        assert code == 0, err
        return json.loads(told), err

    return simulate


def test_every_strategy_shares_the_scores_and_a_second_run_makes_none(run, tmp_path) -> None:
    words = [w for name in STRATEGIES for w in ("--strategy", name)]
    words += ["--decisions", 12, "--candidates", 24]
    summary, err = run(*words)
    assert "24 of 24 pairs judged" in err
    assert set(summary["strategies"]) == {*STRATEGIES, "oracle"}
    assert summary["candidates"] == 24
    assert not summary["model_has_seen"]
    out = tmp_path / "out"
    for name, told in summary["strategies"].items():
        curve = json.loads((out / name / "curve.json").read_text())
        assert curve["strategy"] == name
        assert curve["decisions"] == list(range(told["decisions"] + 1))
        assert curve["voi_split"][0] == summary["start"]["voi_split"]
    assert json.loads((out / "curve.json").read_text())["strategy"] == "random"
    assert (out / "voi.svg").read_text().startswith("<svg")
    again, err = run(*words)
    assert "judged" not in err
    for name, told in again["strategies"].items():
        assert told["share"] == summary["strategies"][name]["share"]


def test_orders_without_a_model_need_none(run, tmp_path) -> None:
    summary, err = run("--strategy", "contact", "--decisions", 500)
    assert "judged" not in err
    assert not (tmp_path / "out" / "scores").exists()
    assert summary["strategies"]["contact"]["decisions"] < 500
    assert summary["true_joins"] > 0


def test_boosted_trees_stand_beside_the_order(run, dataset) -> None:
    summary, _ = run(
        "--strategy", "value", "--decisions", 10, "--from-z", 60,
        "--training", dataset, "--below-z", 60,
    )  # fmt: skip
    assert {"boosted", "boosted value"} <= set(summary["strategies"])
    assert summary["z_vx"] == [60, TOP]
    assert "ci95" in summary["strategies"]["value"]["above_best_baseline"]


def test_the_truth_may_be_a_file_or_a_volume(run, dataset, tmp_path) -> None:
    own, _ = run("--strategy", "size", "--decisions", 20)
    truth = beads().truth
    np.save(tmp_path / "truth.npy", truth.T)
    for path in (tmp_path / "truth.npy", dataset.parent / "truth"):
        given, _ = run("--strategy", "size", "--decisions", 20, "--truth", path)
        assert given["strategies"].keys() == own["strategies"].keys()
        for name in own["strategies"]:
            assert given["strategies"][name]["voi"] == own["strategies"][name]["voi"]
    whole = np.full(truth.shape, 3, np.uint64)
    np.save(tmp_path / "one.npy", whole.T)
    one, _ = run("--strategy", "size", "--decisions", 20, "--truth", tmp_path / "one.npy")
    assert one["true_joins"] == one["candidates"]


def test_what_cannot_be_done_is_said_in_one_line(call, dataset, tmp_path) -> None:
    np.save(tmp_path / "small.npy", np.ones((3, 3, 3), np.uint8))
    (tmp_path / "file").write_text("")
    plain = ("simulate", "--dataset-file", dataset, "--out", tmp_path / "out", "--strategy", "size")
    for words, code, what in (
        ((*plain, "--strategy", "best"), 2, "no order 'best'"),
        ((*plain, "--truth", tmp_path / "small.npy"), 1, "Give a truth of the same voxels"),
        ((*plain, "--from-z", 100000), 1, "no touching pair"),
        ((*plain, "--from-z", 9, "--to-z", 9), 2, "must lie below"),
        ((*plain, "--training", dataset), 2, "go together"),
    ):
        got, _, err = call(*words)
        assert got == code, err
        assert what in err.splitlines()[-1]
        assert "Traceback" not in err


def test_a_folder_of_other_scores_is_left_alone(run, call, dataset, tiny_model_folder, tmp_path):
    run("--strategy", "margin", "--decisions", 3, "--candidates", 8)
    code, _, err = call(
        "simulate", "--dataset-file", dataset, "--model", tiny_model_folder, "--strategy",
        "margin", "--decisions", 3, "--candidates", 9, "--out", tmp_path / "out",
    )  # fmt: skip
    assert code == 1
    assert "scores of another run" in err


class Named:
    def __init__(self, name: str, version: str) -> None:
        self.name, self.version = name, version
        self.info = self


def test_what_the_model_learnt_from_is_told_by_its_card() -> None:
    card = {
        "data": [{"name": "fib25-ws", "version": "aa"}],
        "split": {"train_below_z_vx": 125, "validation_z_vx": [140, 165]},
    }
    assert seen_of(card, Named("fib25-ws", "other")) == 165
    assert seen_of(card, Named("mine", "aa")) == 165
    assert seen_of(card, Named("mine", "bb")) is None
    assert seen_of({}, Named("mine", "bb")) is None
