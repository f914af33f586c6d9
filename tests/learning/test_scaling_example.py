"""The example that measures images against training-set size, with and without pretraining."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import scaling
import torch
from fixtures_training import STEADY_NETWORK, toy_joins
from scaling import PRETRAINED, RANDOM, TREES, Run

from cb2_assist.learning.train import Examples
from cb2_assist.model.masked import MaskedSpec, MaskedViews
from cb2_assist.model.start import read_start, save_start
from cb2_assist.views.surroundings import MEASURED_NAMES

N = 120


@pytest.fixture(scope="module")
def part():
    """Joins at every depth, four of a body; measures tell the answer."""
    rng, answer = np.random.default_rng(2), np.arange(N) % 2 == 0
    features = rng.normal(0, 1, (N, len(MEASURED_NAMES))).astype(np.float32)
    features += np.where(answer, 2, -2)[:, None].astype(np.float32)
    return toy_joins(
        features,
        rng.random((N, 3, 7, 32, 32)).astype(np.float16),
        rng.integers(0, 256, (N, 3, 3, 32, 32)).astype(np.uint8),
        np.arange(N) * 2,
    )


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(scaling, "NetworkSpec", lambda: STEADY_NETWORK)
    monkeypatch.setattr(scaling, "DRAWS", 40)
    monkeypatch.setattr(scaling, "BATCH", 8)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    torch.manual_seed(9)
    net = MaskedViews(MaskedSpec("test_vit", 32, decoder_width=32, decoder_blocks=1))
    card = {"network": {"encoder": "test_vit", "image_px": 32}, "data": []}
    save_start(folder, net, card)
    return read_start(folder)


def test_it_learns_below_one_plane_and_judges_in_one_slab(part):
    small, great = (scaling.learnt_rows(part, n, 1) for n in (10, 30))
    assert (small.sum(), great.sum()) == (10, 30)
    assert not (small & ~great).any()
    assert part.z[great].max() < 120
    assert (small != scaling.learnt_rows(part, 10, 2)).any()
    held = part.z[scaling.held_rows(part)]
    assert held.min() >= 140
    assert held.max() < 165


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", ["geometry", "em", "both"])
def test_a_network_sees_the_images_of_its_kind_only(part, kind):
    rng = np.random.default_rng(4)
    strange = {
        "geometry": {"em": rng.integers(0, 256, part.em.shape).astype(np.uint8)},
        "em": {"geometry": rng.random(part.geometry.shape).astype(np.float16)},
        "both": {"features": rng.normal(0, 9, part.features.shape).astype(np.float32)},
    }[kind]
    run, rows = Run(16, kind, RANDOM, 0), scaling.learnt_rows(part, 16, 0)
    held, found = scaling.held_rows(part), []
    for p in (part, replace(part, **strange)):
        net = scaling.learn(Examples([p], rows=[rows]), run, 2, None)
        found.append(scaling.judge(net, p, held, kind))
    assert found[0].shape == held.shape
    np.testing.assert_array_equal(*found)


@pytest.mark.usefixtures("small")
def test_a_pretrained_start_changes_the_answers_and_is_named(part, start):
    held = scaling.held_rows(part)
    one = scaling.one_run(part, Run(16, "both", RANDOM, 0), held, 1, None)
    other = scaling.one_run(part, Run(16, "both", PRETRAINED, 0), held, 1, start)
    assert one["encoder_sha256"] == ""
    assert other["encoder_sha256"] == start.sha256
    assert one["p"] != other["p"]


def test_what_pretraining_changes_has_an_interval(part):
    held = scaling.held_rows(part)
    answer, body = part.answer[held], part.group[held]
    rng = np.random.default_rng(0)

    def run(start, seed, p):
        how = {"size": 16, "kind": "em", "start": start, "seed": seed, "steps": 3}
        return how | {"cpu_seconds": 2.0, "p": p.tolist()}

    runs = [run(RANDOM, s, rng.random(len(held))) for s in range(2)]
    runs += [run(PRETRAINED, s, np.where(answer, 0.9, 0.1)) for s in range(3)]
    found = scaling.summary(runs, answer, body)

    by_start = {p["start"]: p for p in found["points"]}
    assert by_start[PRETRAINED]["balanced_accuracy"] == {
        "value": 1.0, "ci95": [1.0, 1.0], "by_seed": [1.0] * 3
    }  # fmt: skip
    (change,) = found["pretraining"]
    assert change["seeds"] == 2
    low, high = change["auroc"]["ci95"]
    assert 0 < low <= change["auroc"]["value"] <= high
    assert change["auroc"]["value"] == pytest.approx(
        1 - by_start[RANDOM]["auroc"]["value"], abs=2e-4
    )
    text = scaling.table(found)
    assert f"Held out: {len(held)} joins of {found['n_bodies']} bodies" in text
    assert "| 16 | em | 2 | +" in text


@pytest.mark.usefixtures("small")
def test_runs_that_are_there_are_not_made_again(part, start, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scaling, "load", lambda *_args: part)
    monkeypatch.setattr(scaling, "SIZES", (12, 4000))
    monkeypatch.setattr(scaling, "SEEDS", (0,))
    words = ["scaling.py", "DATA", str(tmp_path), "--steps", "1"]
    monkeypatch.setattr(sys, "argv", [*words, "--budget-minutes", "0"])
    scaling.main()
    assert "no run is there yet" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", words)
    scaling.main()
    first = {p.name for p in (tmp_path / "runs").iterdir()}
    monkeypatch.setattr(sys, "argv", [*words, "--pretrained", str(start.folder)])
    done = []
    real = scaling.one_run
    monkeypatch.setattr(scaling, "one_run", lambda *a: done.append(a[1]) or real(*a))
    scaling.main()

    assert len(first) == 2 * 4
    path, run = tmp_path / "runs", Run(12, "em", PRETRAINED, 0)
    path /= f"{run.slug}.json"
    assert scaling.is_there(path, run, 1, start)
    assert not scaling.is_there(path, run, 2, start)
    assert not scaling.is_there(path, run, 1, replace(start, sha256="another"))
    assert [(r.size, r.kind) for r in done] == [
        (size, kind) for size in (12, 60) for kind in ("geometry", "em", "both")
    ]
    assert {r.start for r in done} == {PRETRAINED}
    whole = json.loads((tmp_path / "scaling.json").read_text())
    assert {p["start"] for p in whole["points"]} == {RANDOM, PRETRAINED, TREES}
    assert len(whole["pretraining"]) == 6
    for name in ("balanced-accuracy.svg", "auroc.svg"):
        assert ">em, pretr.<" in (tmp_path / name).read_text()
    assert "trees, 10 features" in (tmp_path / "table.md").read_text()
