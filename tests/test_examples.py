"""The programs in examples/ run as their docstrings say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from beads import bead_dataset

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
    ways = [*BACKENDS, "torch, no empty geometry", "torch, nothing empty"]
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


@pytest.mark.parametrize("name", ["proofread_from_truth.py", "import_and_score.py"])
def test_without_a_folder_the_usage_is_said(tmp_path, name):
    done = run(name, home=tmp_path, code=1)
    assert done.stderr == f"usage: python examples/{name} OUT\n"


def test_fetching_says_what_it_would_do_without_a_folder(tmp_path):
    """The rest is in test_fetch_training_data.py."""
    done = run("fetch_training_data.py", home=tmp_path, code=2)
    assert done.stderr.startswith("usage: fetch_training_data.py")
    assert "DATA" in done.stderr


def test_every_example_is_tested_here():
    text = Path(__file__).read_text()
    names = [p.name for p in EXAMPLES.glob("*.py")]
    assert len(names) >= 3
    assert all(f'"{name}"' in text for name in names)
