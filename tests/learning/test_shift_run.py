"""`shifts` from the command line: all cells, kept one by one, and what cannot be done."""

import json

import numpy as np
import pytest
from beads import bead_dataset
from fixtures_model import tiny_model
from neurites import neurite_dataset

from cb2_assist.cli import main
from cb2_assist.learning import shift_run
from cb2_assist.learning.shift_cells import see
from cb2_assist.learning.shifts import SHIPPED


@pytest.fixture(scope="module")
def beads(tmp_path_factory):
    return bead_dataset(tmp_path_factory.mktemp("beads"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Two families of the shipped file, and beads as another volume."""
    words = SHIPPED.read_text().replace('"gala_train"', '"beads"')
    parts = words.split("[families.")
    chosen = [p for p in parts[1:] if p.split("]")[0] in ("wrong_mip", "other_volume")]
    file = tmp_path_factory.mktemp("few") / "few.toml"
    file.write_text("[families.".join([parts[0], *chosen]))
    return file


def run(*words) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(["shifts", "--device", "cpu", "--draws", "20", "--n", "6", *map(str, words)])
    return int(stopped.value.code or 0)


def result(folder):
    def refuse(text):
        raise AssertionError(f"{text} is no JSON")

    return json.loads((folder / "shifts.json").read_text(), parse_constant=refuse)


def test_every_shipped_shift_is_run_and_reported(beads, model, tmp_path, capsys):
    assert run("--data", beads, "--model", model, "--out", tmp_path) == 0
    got = result(tmp_path)

    assert len(got["cells"]) == 28
    assert {m["cell"] for m in got["not_run"]} == {f"other_volume-{k}" for k in range(1, 5)}
    assert all(c["n"] == 6 for c in got["cells"] if c["family"] in ("blur", "noise", "contrast"))
    assert got["shifts_version"] == 1
    text = (tmp_path / "report.md").read_text()
    for name in ("distance-accuracy.svg", "distance-ece.svg"):
        assert f"({name})" in text
        assert (tmp_path / name).read_text().startswith("<svg")
    printed = capsys.readouterr()
    assert "28 cells" in printed.out
    assert "needs --other for the dataset gala_train" in printed.out
    assert "blur-1: 6 of 6 judged" in printed.err


def test_a_run_goes_on_where_it_was_stopped(beads, model, few, tmp_path, monkeypatch, capsys):
    words = ("--data", beads, "--model", model, "--shifts", few, "--other", beads)
    assert run(*words, "--out", tmp_path / "whole") == 0
    out = tmp_path / "broken"
    left = iter(range(3))

    def see_three(*given):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return see(*given)

    monkeypatch.setattr(shift_run, "see", see_three)
    assert run(*words, "--out", out) == 1
    monkeypatch.setattr(shift_run, "see", see)
    # one of the three was damaged on the way
    (out / "cells" / "unshifted.npz").write_bytes(b"PK and no more")
    capsys.readouterr()
    assert run(*words, "--out", out) == 0

    said = capsys.readouterr().err
    assert said.count("judged before") == 2
    assert "unshifted: 6 of 6 judged\n" in said
    assert result(out) == result(tmp_path / "whole")


def test_cells_of_another_request_are_not_taken_for_this_one(beads, model, few, tmp_path, capsys):
    words = ("--data", beads, "--model", model, "--shifts", few, "--out", tmp_path)
    assert run(*words) == 0
    capsys.readouterr()
    assert run(*words, "--seed", "1", "--z", "0:90", "--json") == 0

    printed = capsys.readouterr()
    assert "judged before" not in printed.err
    assert json.loads(printed.out) == result(tmp_path)
    assert result(tmp_path)["z_vx"] == [0, 90]


def test_what_the_shift_leaves_is_the_same_question(beads, model, few, tmp_path):
    assert run("--data", beads, "--model", model, "--shifts", few, "--out", tmp_path) == 0
    cells = {}
    for path in (tmp_path / "cells").glob("*.npz"):
        with np.load(path) as file:
            cells[path.stem] = dict(file)

    assert len(cells) == 5
    for cell in cells.values():
        np.testing.assert_array_equal(cell["answer"], cells["unshifted"]["answer"])
        np.testing.assert_array_equal(cell["group"], cells["unshifted"]["group"])
    assert (cells["wrong_mip-1"]["logit"] != cells["unshifted"]["logit"]).all()


def test_a_model_without_a_reference_is_refused_in_words(beads, model, tmp_path, capsys):
    import shutil

    from safetensors.torch import load_file, save_file

    from cb2_assist.model.card import CARD, WEIGHTS, sha256_of

    bare = shutil.copytree(model, tmp_path / "bare")
    weights = {k: v for k, v in load_file(bare / WEIGHTS).items() if not k.startswith("ood.")}
    save_file(weights, bare / WEIGHTS)
    card = json.loads((bare / CARD).read_text())
    card |= {"ood": "unknown", "weights": {"sha256": sha256_of(bare / WEIGHTS)}}
    (bare / CARD).write_text(json.dumps(card))

    assert run("--data", beads, "--model", bare, "--out", tmp_path / "out") == 1
    assert "does not say where its training joins lie" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (["--z", "9"], 2, "--z takes two voxel planes"),
        (["--z", "500:600"], 1, "no touching pairs of both answers"),
        (["--shifts", "absent.toml"], 2, "cannot be read"),
        (["--other", "{beads}", "--other", "{beads}"], 2, "both named beads"),
    ],
)
def test_bad_requests_are_refused_in_words(beads, model, tmp_path, capsys, words, code, why):
    given = [w.format(beads=beads) for w in words]

    assert run("--data", beads, "--model", model, "--out", tmp_path / "out", *given) == code
    said = capsys.readouterr().err
    assert why in said
    assert "Traceback" not in said


def test_a_dataset_of_one_answer_is_refused_in_words(model, tmp_path, capsys):
    data = neurite_dataset(tmp_path / "n")

    assert run("--data", data, "--model", model, "--out", tmp_path / "out") == 1
    assert "both answers" in capsys.readouterr().err


def test_an_out_that_is_a_file_is_refused_in_words(beads, model, tmp_path, capsys):
    (tmp_path / "out").write_text("")

    assert run("--data", beads, "--model", model, "--out", tmp_path / "out") == 1
    assert "Name another with --out" in capsys.readouterr().err
