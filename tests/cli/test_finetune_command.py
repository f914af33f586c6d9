"""`finetune`: what it prints, and one line for what cannot be."""

from __future__ import annotations

import json

from labels_with_views import write_labels


def test_a_model_is_made_and_its_report_printed(call, tiny_model_folder, tmp_path):
    url = write_labels(tmp_path / "labels.sqlite", 20)
    words = ["--labels", url, "--init", tiny_model_folder, "--out", tmp_path / "out"]
    code, out, err = call("finetune", *words, "--name", "mine")
    lines = out.splitlines()
    assert code == 0, err
    assert lines[0].startswith("15 labels of demo learnt from, 5 held out by segments")
    assert lines[1].startswith("joins, held out, n 5: balanced_accuracy ")
    code, again, _ = call("finetune", *words, "--name", "mine", "--json")
    report = json.loads(again)
    assert (code, report["model"]["name"]) == (0, "mine")
    assert lines[2] == f"{report['verdict']['is']}: {report['verdict']['why']}"
    assert str(tmp_path / "out" / "model") in lines[3]
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report


def test_what_cannot_be_learnt_from_is_one_line_and_no_model(call, tiny_model_folder, tmp_path):
    url = write_labels(tmp_path / "labels.sqlite", 2)
    out = tmp_path / "out"
    code, _, err = call("finetune", "--labels", url, "--init", tiny_model_folder, "--out", out)
    (line,) = err.splitlines()
    assert code == 1
    assert "too little to learn from: 2 joins, 2 of them accepted" in line
    assert not (out / "model").exists()
    code, _, err = call("finetune", "--data", tmp_path / "nowhere", "--out", out)
    assert (code, len(err.splitlines())) == (1, 1)
    assert "There is no" in err
    code, _, err = call("finetune", "--out", out)
    assert code == 2
    assert "--labels URL" in err
