"""`calibrate`: what it prints, what it keeps, and that all commands then use it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from calibration_makers import drawn_decisions, scored_sites
from test_suggest_and_score import AT, one_line, refused

from cb2_assist.app import saved_state_file
from cb2_assist.labels.store import NewEvent, open_store
from cb2_assist.model.card import check_card
from cb2_assist.model.network import TOKEN_NAMES
from cb2_assist.suggestions.calibration import calibrator_from_card
from cb2_assist.suggestions.recalibration import Recalibration, logit, sigmoid

pytestmark = pytest.mark.usefixtures("own_data_home")


@pytest.fixture
def labels(tmp_path, tiny_model_folder):
    """A label file in which joins are accepted less often than the tiny model says."""
    card = check_card(tiny_model_folder)
    z = scored_sites(150, 3)
    yes = np.random.default_rng(4).random(150) < sigmoid(0.4 * z - 0.2)
    made = drawn_decisions(
        z,
        yes,
        views=TOKEN_NAMES,
        dataset="neurites",
        model_sha256=card.sha256,
        calibrator=calibrator_from_card(card.card).id,
    )
    url = f"sqlite:///{tmp_path / 'labels.sqlite'}"
    with open_store(url) as store:
        store.append_all([NewEvent.of(d) for d in made])
    return url


@pytest.fixture
def empty(tmp_path):
    url = f"sqlite:///{tmp_path / 'empty.sqlite'}"
    open_store(url).close()
    return url


@pytest.fixture
def where(neurites_file, tiny_model_folder):
    return ["--dataset-file", neurites_file, "--model", tiny_model_folder]


@pytest.fixture
def calibrated(call, where, labels):
    code, out, err = call("calibrate", *where, "--labels", labels, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def joins(document):
    return {s["id"]: s for s in document["suggestions"] if s["kind"] == "join"}


def suggested(call, where):
    _, out, _ = call("suggest", *where, "--device", "cpu", "--at", AT, "--json")
    return json.loads(out)


def test_suggest_score_and_reset_follow_the_saved_state(call, where, labels, tmp_path):
    before = suggested(call, where)
    code, out, _ = call("calibrate", *where, "--labels", labels, "--json")
    document = json.loads(out)
    after, again = suggested(call, where), suggested(call, where)

    assert code == 0
    assert document["written"] is True
    assert document["calibrator"] == {"before": before["calibrator"], "after": after["calibrator"]}
    assert after["calibrator"].startswith(before["calibrator"] + "+")
    assert after["base_rate"]["source"] == "labels"
    assert after["base_rate"]["n"] == 150
    assert after["base_rate"]["by_kind"]["cut"]["source"] == "default"
    assert joins(again) == joins(after)
    saved = json.loads(saved_state_file("neurites").read_text())
    m = Recalibration.from_json(saved["maps"]["join"][0])
    for key, s in joins(after).items():
        assert s["score"] == joins(before)[key]["score"]
        z = float(logit(np.array(s["score"])))
        assert s["confidence"] == pytest.approx(float(m.probability(z)), abs=1e-9)
        assert s["confidence"] != joins(before)[key]["confidence"]
        assert s["interval"][0] < s["confidence"] < s["interval"][1]

    sites, answers = tmp_path / "sites.jsonl", tmp_path / "answers.jsonl"
    sites.write_text("".join(json.dumps(s) + "\n" for s in after["suggestions"]))
    call("score", *where, "--device", "cpu", "--sites", sites, "--out", answers)
    rows = [json.loads(line) for line in answers.read_text().splitlines()]
    assert [r["confidence"] for r in rows] == [s["confidence"] for s in after["suggestions"]]

    assert call("calibrate", *where[:2], "--reset")[0] == 0
    assert joins(suggested(call, where)) == joins(before)


def test_the_document_has_the_evidence(calibrated, labels):
    join = calibrated["kinds"]["join"]

    assert calibrated["labels"] == labels
    assert calibrated["version"] == 1
    assert (join["n"], join["n_random"]) == (150, 150)
    assert join["n_effective"] == pytest.approx(150, rel=0.01)
    assert {"ece15", "ece15_debiased", "ece15_if_perfect_q95", "log_loss", "reliability"} <= set(
        join["maps"][0]["after"]
    )
    assert [t["precision"] for t in join["precision"]["dial"]] == [0.8, 0.9, 0.95, 0.98]
    assert {t["score"] for t in join["precision"]["dial"]} == {"not enough evidence yet"}
    saved = json.loads(saved_state_file("neurites").read_text())
    assert saved["evidence"]["kinds"] == calibrated["kinds"]


def test_the_lines_say_what_changed(call, where, labels):
    code, out, _ = call("calibrate", *where, "--labels", labels)

    assert code == 0
    assert "base rate 30.0% -> " in out
    assert "labels (150)" in out
    assert "saved as version 1" in out
    assert "precision 95%: not enough evidence yet" in out


def test_a_dry_run_changes_nothing(call, where, labels):
    code, out, _ = call("calibrate", *where, "--labels", labels, "--dry-run", "--json")

    assert code == 0
    assert json.loads(out)["written"] is False
    assert not saved_state_file("neurites").exists()


def test_without_evidence_it_says_so_and_keeps_the_numbers(call, where, empty):
    code, out, err = call("calibrate", *where, "--labels", empty)

    assert code == 1
    assert "nothing changes" in out
    assert "Not enough evidence yet" in err
    assert "Press q" in err
    assert err.count("\n") == 1
    assert not saved_state_file("neurites").exists()


def test_a_missing_label_file_is_named(call, where, tmp_path):
    url = f"sqlite:///{tmp_path / 'none.sqlite'}"
    one_line(call("calibrate", *where, "--labels", url), 1, "none.sqlite")


def test_a_damaged_state_is_named_and_can_be_reset(call, where, labels):
    path = saved_state_file("neurites")
    path.parent.mkdir(parents=True)
    path.write_text("{")

    one_line(call("calibrate", *where, "--labels", labels), 1, str(path), "Delete the file")
    assert call("calibrate", *where[:2], "--reset")[0] == 0
    code, out, _ = call("calibrate", *where[:2], "--reset", "--json")
    assert (code, json.loads(out)) == (0, {"dataset": "neurites", "reset": False})


@pytest.mark.parametrize("words", [[], ["--dataset", "demo", "--reset", "--dry-run"]])
def test_wrong_usage(call, words):
    refused(call("calibrate", *words), 2)
