"""`import-checkpoint`, and what the other commands make of its model."""

import json

import pytest
import upstream_cb2
from neurites import DUMBBELL, PARTNER, neurite_dataset

from cb2_assist.app import DatasetChoice, build_assistant, open_dataset
from cb2_assist.cli import main
from cb2_assist.core.errors import ModelError
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import Kind, SegmentId, Site
from cb2_assist.learning.examples import touching_pairs
from cb2_assist.learning.judge_volume import VolumeJudge
from cb2_assist.learning.prepare import load_volume
from cb2_assist.model import cb2_keys
from cb2_assist.model.predictor import Predictor
from cb2_assist.suggestions import reach
from cb2_assist.suggestions.calibration import calibrator_from_card
from cb2_assist.views.stack import from_bytes

pytestmark = pytest.mark.usefixtures("own_data_home")
AT = "485,365,625"


@pytest.fixture(scope="module", autouse=True)
def small_encoder():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cb2_keys.ENCODERS, 192, "vit_tiny_patch16_224")
        yield


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return upstream_cb2.save(upstream_cb2.upstream(), tmp_path_factory.mktemp("cb2") / "best.pt")


@pytest.fixture(scope="module")
def model(file, tmp_path_factory):
    out = tmp_path_factory.mktemp("imported") / "model"
    with pytest.raises(SystemExit) as stopped:
        main(["import-checkpoint", str(file), "--out", str(out), "--species", "mouse"])
    assert stopped.value.code == 0
    return out


@pytest.fixture
def where(neurites_file, model):
    return ["--dataset-file", neurites_file, "--model", model, "--device", "cpu"]


@pytest.fixture
def document(call, where):
    code, out, err = call("suggest", *where, "--at", AT, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def test_the_folder_is_printed_and_what_is_not_known_is_said(call, file, tmp_path):
    code, out, err = call("import-checkpoint", file, "--out", tmp_path / "m")

    assert (code, out) == (0, f"{tmp_path / 'm'}\n")
    assert "best, vit_tiny_patch16_224, " in err
    assert "not calibrated; licence: not stated" in err


def test_suggest_marks_every_number_of_an_imported_model(document):
    suggestions = document["suggestions"]

    assert document["calibrator"] == "uncalibrated"
    assert document["model"]["uncalibrated"] == (
        "best is not calibrated: no confidence of it can be relied on. It was trained on mouse; "
        "this dataset is fly."
    )
    assert document["base_rate"]["value"] == 0.5
    assert {s["kind"] for s in suggestions} == {"join", "cut"}
    for s in suggestions:
        assert s["ood"] == {"percentile": 100.0, "flag": True}
        assert s["interval"] == [0.0, 1.0]
        assert s["confidence"] == s["score"]


def test_score_is_the_mean_of_the_views_that_stand_beside_it(document):
    for s in document["suggestions"]:
        own = [v["score"] for v in s["evidence"]["views"]]
        assert len(own) == (7 if s["kind"] == "join" else 6)
        assert s["score"] == pytest.approx(sum(own) / len(own), abs=1e-6)
    assert len({s["score"] for s in document["suggestions"]}) > 1


def test_suggest_in_words_says_it_too(call, where):
    code, out, _ = call("suggest", *where, "--at", AT, "--kind", "join")

    assert code == 0
    assert f"join {DUMBBELL} + {PARTNER}" in out
    assert "not reliable here" in out
    assert "%" not in out
    assert out.splitlines()[-1].startswith("best is not calibrated")


def test_score_gives_the_numbers_of_suggest_and_says_it_on_stderr(call, where, document, tmp_path):
    sites = tmp_path / "sites.jsonl"
    asked = ("id", "kind", "segment", "partner", "point_nm")
    rows = [{k: s[k] for k in asked} for s in document["suggestions"]]
    sites.write_text("".join(json.dumps(r) + "\n" for r in rows))
    code, out, err = call("score", *where, "--sites", sites, "--out", "-")

    assert code == 0
    assert err.startswith("cb2-assist: best is not calibrated")
    got = [json.loads(line) for line in out.splitlines()]
    assert [r["score"] for r in got] == [s["score"] for s in document["suggestions"]]
    assert all(r["ood"]["flag"] for r in got)


@pytest.mark.parametrize("geometry", ["labels", "meshes"])
def test_views_have_the_widths_that_the_network_was_trained_on(tmp_path, model, geometry):
    path = neurite_dataset(tmp_path / "n")
    path.write_text(path.read_text() + f'geometry = "{geometry}"\n')
    with build_assistant(DatasetChoice(file=path), model=model, device="cpu") as assistant:
        found = assistant.suggest(PointNm(485, 365, 625)).suggestions
        stacks = [from_bytes(assistant.views_of(s.id)[1]) for s in found]
        sides = [assistant.sides_of(s.id) for s in found if s.site.partner is None]

    assert {s.profile for s in stacks} == {"cb2"}
    assert {(s.extent_nm, s.em_extent_nm) for s in stacks} == {(3000.0, 975.0)}
    assert {s.geometry_from for s in stacks} == {geometry}
    assert all(len(a) and len(b) for a, b in sides)


def test_a_dataset_too_fine_for_such_views_is_refused_before_anything_is_read(
    neurites_file, model, monkeypatch
):
    monkeypatch.setattr(reach, "MAX_WINDOW_VX", 700_000)
    with pytest.raises(ModelError, match=r"reach 3000 nm.*1 million voxels.*meshes.*--extent-nm"):
        build_assistant(DatasetChoice(file=neurites_file), model=model, device="cpu")


def test_evaluate_gives_a_join_the_number_that_the_page_gives_it(neurites_file, model):
    predictor = Predictor.open(model, "cpu", threads=1)
    source = open_dataset(neurites_file)
    volume = load_volume(source)
    source.close()
    pairs = touching_pairs(volume)
    calibrator = calibrator_from_card(predictor.model.card)
    judged, _ = VolumeJudge(volume, "fly", predictor, calibrator, print).joins(pairs)
    predictor.close()
    a, b = SegmentId(int(pairs.a[0])), SegmentId(int(pairs.b[0]))
    site = Site(Kind.JOIN, a, b, PointNm.of(pairs.point_nm[0]))
    with build_assistant(DatasetChoice(file=neurites_file), model=model, device="cpu") as assistant:
        (answer,) = assistant.score([site])

    assert len(pairs) == len(judged.score) == 1
    assert judged.score[0] == pytest.approx(answer.suggestion.score, abs=1e-6)


def test_cuts_of_such_wide_views_are_not_measured_on_synthetic_merges(
    call, neurites_file, model, tmp_path
):
    words = ("evaluate", "--data", neurites_file, "--model", model, "--out", tmp_path / "e")
    code, _, err = call(*words, "--merges", 5)

    assert code == 1
    assert "views reach 3000 nm" in err
    assert "Leave out --merges" in err


def test_train_takes_no_calibration_from_what_has_none(call, neurites_file, model, tmp_path):
    words = ("train", "--dataset-file", neurites_file, "--below-z", 50, "--out", tmp_path / "t")
    code, _, err = call(*words, "--calibration-from", model)

    assert code == 2
    assert "best is not calibrated" in err
    assert not (tmp_path / "t").exists()


def test_out_that_exists_is_wrong_usage(call, file, model):
    code, out, err = call("import-checkpoint", file, "--out", model)

    assert (code, out) == (2, "")
    assert err.startswith("cb2-assist: ")
    assert "exists already. Give --out" in err


def test_what_is_no_checkpoint_fails_in_one_line(call, tmp_path):
    (tmp_path / "a.pt").write_text("weights")
    code, out, err = call("import-checkpoint", tmp_path / "a.pt", "--out", tmp_path / "m")

    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert "no file of torch.save" in err
    assert not (tmp_path / "m").exists()
