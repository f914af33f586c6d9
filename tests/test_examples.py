"""The programs in examples/ run as their docstrings say."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from beads import bead_dataset

from cb2_assist.learning.strategies.registry import STRATEGIES
from cb2_assist.settings import BACKENDS

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def run(name: str, *words: object, home: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, words)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "XDG_DATA_HOME": str(home)},
    )
    assert done.returncode == code, done.stderr
    return done


def test_suggestions_at_a_point_of_the_demo_are_printed(tmp_path):
    lines = run("suggest_at_a_point.py", home=tmp_path).stdout.splitlines()
    assert "suggestions in" in lines[-1]
    assert all("%" in line for line in lines[:-1])
    assert len(lines) > 1


def test_the_share_of_true_joins_among_the_candidates_is_printed(tmp_path: Path) -> None:
    dataset = bead_dataset(tmp_path / "beads")
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "candidate_recall.py"), str(dataset), "--limit", "5"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("beads: true joins: ")
    assert "touching: n = 20 at cursors, " in done.stdout
    shares = [line.split() for line in done.stdout.splitlines() if line.startswith("  ")]
    assert [s[0] for s in shares[:3]] == ["candidates", "largest", "nearest"]
    assert all("%" in line for line in done.stdout.splitlines() if line.startswith("  "))


def test_a_scripted_proofreader_answers_from_the_truth_and_exports(tmp_path):
    out = tmp_path / "out"
    lines = run("proofread_from_truth.py", out, home=tmp_path).stdout.splitlines()
    answers = [line.split()[2] for line in lines[:-2]]
    assert set(answers) >= {"accept", "reject"}
    assert lines[-2].startswith("took back decision ")
    rows = [json.loads(x) for x in (out / "labels.jsonl").read_text().splitlines()]
    # unsure is no label, and the last answer was taken back
    assert len(rows) == sum(a != "unsure" for a in answers[:-1]) > 5
    assert lines[-1] == f"{len(rows)} labels in {out / 'labels.jsonl'}"
    assert [r["verdict"] for r in rows] == [a for a in answers[:-1] if a != "unsure"]
    assert all(r["views_sha256"] and r["dataset"] == "demo" for r in rows)
    assert len(list((out / "labels.sqlite.views").rglob("*.cb2v"))) == len(answers)


def test_files_of_ones_own_are_imported_and_their_contacts_scored(tmp_path):
    done = run("import_and_score.py", tmp_path / "out", home=tmp_path)
    lines = done.stdout.splitlines()
    assert "writing segmentation" in done.stderr
    assert " 5 + 10" in lines[0]
    scores = [float(line.split()[1]) for line in lines[:-1]]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.5
    n = len(scores)
    assert lines[-1] == f"{n} of {n} contacts scored"
    assert n > 10


def test_each_way_of_running_the_network_is_measured(tmp_path, tiny_model_folder):
    dataset = bead_dataset(tmp_path / "beads")
    words = (dataset, tmp_path / "views", "--model", tiny_model_folder, "--most", 8, "--to-z", 40)
    lines = run("encoder_speed.py", *words, home=tmp_path).stdout.splitlines()
    plain = [name for name in BACKENDS if name != "torch-compiled"]
    ways = [*plain, "torch, no empty geometry", "torch, nothing empty"]
    for kind in ("join", "cut"):
        (start,) = (n for n, line in enumerate(lines) if line.startswith(f"{kind}: n 8, "))
        rows = [line[:26].strip() for line in lines[start + 2 : start + 2 + len(ways)]]
        assert rows == ways


def test_what_an_export_of_many_labels_takes_is_printed(tmp_path: Path) -> None:
    lines = run("export_many.py", tmp_path / "out", 30, 2, home=tmp_path).stdout.splitlines()
    assert [line.partition(" labels in ")[0] for line in lines] == [
        "jsonl: 30",
        "csv: 30",
        "cb2-v1: 2",
        "cb2-v2: 2",
    ]
    assert all(line.endswith(" MB") for line in lines)
    assert len((tmp_path / "out" / "jsonl" / "labels.jsonl").read_text().splitlines()) == 30


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda p: p.stem)
def test_help_is_said_and_nothing_is_begun(tmp_path, monkeypatch, capsys, path):
    monkeypatch.chdir(tmp_path)
    program = importlib.import_module(path.stem)
    monkeypatch.setattr(sys, "argv", [path.name, "--help"])
    takes_words = bool(inspect.signature(program.main).parameters)
    with pytest.raises(SystemExit) as ended:
        program.main(*[["--help"]] * takes_words)
    assert ended.value.code == 0
    assert f"usage: {path.name}" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("proofread_from_truth.py", "OUT"),
        ("import_and_score.py", "OUT"),
        ("export_many.py", "OUT"),
        ("fetch_training_data.py", "DATA"),
        ("team_leases.py", "URL"),
    ],
)
def test_what_a_program_needs_is_said(tmp_path, monkeypatch, capsys, name, needs):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(name.removesuffix(".py")).main([])
    assert ended.value.code == 2
    assert f"required: {needs}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_edits_under_faults_are_held_against_the_servers_log(tmp_path):
    """More of them are made in standin/test_faulted_edits.py."""
    lines = run("faulted_edits.py", 3, home=tmp_path).stdout.splitlines()
    assert [line.strip()[:15] for line in lines[:-1]] == ["1  made, answer"] * 3
    assert lines[-1].startswith("3 edits (")
    assert lines[-1].endswith("3 under a fault: lost 0, repeated 0")


def test_sections_are_made_thick_and_stay_a_dataset_with_truth(tmp_path):
    dataset = bead_dataset(tmp_path / "beads")
    words = (dataset, tmp_path / "thick", "--voxel-nm", "20,20,40")
    before, after = run("thick_sections.py", *words, home=tmp_path).stdout.splitlines()

    assert before == "(60, 40, 120) voxels of (10.0, 10.0, 10.0) nm"
    assert after.startswith("(30, 20, 30) voxels of (20.0, 20.0, 40.0) nm in ")
    text = (tmp_path / "thick" / "dataset.toml").read_text()
    assert 'name = "beads-20x20x40nm"' in text
    assert "truth = " in text
    assert "CC0 1.0" in text
    done = run("thick_sections.py", dataset, tmp_path, "--voxel-nm", "8,8", home=tmp_path, code=2)
    assert "three sizes" in done.stderr


def test_the_table_of_cuts_has_every_part_that_is_there(tmp_path):
    """`cuts_measured.py` as a whole takes a quarter of an hour and the real volumes."""
    kept = {"neck": {"n": 50, "mean": 0.9}, "cpu_minutes": 0.3}
    (tmp_path / "mask.json").write_text(json.dumps(kept))
    done = run("cuts_measured.py", tmp_path, tmp_path, "--part", home=tmp_path)

    assert "## mask (0.3 minutes of one core)" in done.stdout
    assert '- neck: {"n": 50, "mean": 0.9}' in done.stdout
    assert (tmp_path / "table.md").read_text().strip() == done.stdout.strip()


def test_every_example_is_tested():
    tests = Path(__file__).parent
    text = "".join(p.read_text() for p in tests.rglob("test_*.py"))
    names = [p.name for p in EXAMPLES.glob("*.py")]
    assert len(names) >= 3
    for name in names:
        here = f'"{name}"' in text or f"import {name.removesuffix('.py')}" in text
        assert here or f"from {name.removesuffix('.py')} import" in text, name


def test_the_confidence_is_held_against_the_truth(tmp_path, tiny_model_folder):
    dataset = bead_dataset(tmp_path / "beads")
    words = (dataset, "--model", tiny_model_folder, "--labels", 40)
    lines = run("confidence_on_truth.py", *words, home=tmp_path).stdout.splitlines()

    assert lines[0].startswith("bead")
    assert "no label from it" in lines[0]
    first = [line.split()[0] for line in lines[1:] if line.split()[0] != "said"]
    assert first == ["ECE-15", "95th", "observed", "inside", "after"]
    assert 0 <= float(lines[1].split(",")[0].split()[-1]) <= 0.5


def test_the_table_of_the_ablation_names_runs_seeds_and_intervals(tmp_path):
    """`accuracy_ablation.py` as a whole takes hours; its cheapest runs are made on toy volumes."""
    for name in ("fib25-ws", "fib25-ffn", "tiny_fib", "gala_train"):
        bead_dataset(tmp_path / "data" / name)
    words = (tmp_path / "data", tmp_path / "out", "--only", "no such run")
    run("accuracy_ablation.py", *words, home=tmp_path)
    f = {"n": 9, "ap": 0.5, "balanced_accuracy": [0.9, 0.8, 1.0], "auroc": [0.9, 0.8, 1.0]}
    f |= {"ece15": [0.1, 0.0, 0.2], "p": []}
    for seed, value in enumerate((0.5, 0.7)):
        one = {"run": "trees", "seconds": 1, "cpu_seconds": 60, "a set": f}
        one["a set"] = {**f, "balanced_accuracy": [value, 0.4, 0.8]}
        path = tmp_path / "out" / "runs" / f"trees-seed{seed}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(one))
    run("accuracy_ablation.py", *words, home=tmp_path)
    table = (tmp_path / "out" / "table.md").read_text()

    assert "## a set" in table
    assert "| trees | 2 | 9 | 0.600 (0.500-0.700) [0.400, 0.800] |" in table


def test_the_cost_of_every_strategy_is_measured(tmp_path):
    lines = run("strategy_times.py", 300, 20, 5, home=tmp_path).stdout.splitlines()

    assert lines[0].startswith("5 of 300 sites")
    assert [line.split()[0] for line in lines[1:]] == list(STRATEGIES)
    assert all(line.endswith("MiB") for line in lines[1:])


def test_what_is_left_is_held_against_the_truth(tmp_path):
    lines = run("what_was_missed.py", 3, home=tmp_path).stdout.splitlines()

    assert [int(line.split()[0]) for line in lines[1:]] == [100, 200, 400, 800]
    assert all("interval held in" in line for line in lines[1:])
