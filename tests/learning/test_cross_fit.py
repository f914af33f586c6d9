"""Calibration from slabs that were judged by networks that had not seen them."""

import json

import numpy as np
import pytest
import torch
from beads import PLANE, TOP, bead_dataset, bead_volume
from fixtures_model import TINY_VIEWS
from places_left_out import unseen

from cb2_assist.cli import main
from cb2_assist.learning.cross_fit import GUARD_VX, Slab, slabs
from cb2_assist.learning.prepare import open_part
from cb2_assist.learning.run import _parts
from cb2_assist.learning.train import Examples
from cb2_assist.learning.training_plan import Plan
from cb2_assist.model.checkpoint import load_model


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    plan = Plan((), tmp_path_factory.mktemp("parts"), "t", PLANE, None, merges=4, views=TINY_VIEWS)
    _parts(plan, [bead_volume()], "train", (0, PLANE), PLANE, lambda _: None)
    return [open_part(p) for p in sorted((plan.out / "parts").iterdir())]


def test_every_decision_is_held_once_and_never_learnt_there(parts):
    found = slabs(parts, 3)

    for part in parts:
        held = np.stack([s.held(part) for s in found])
        assert (held.sum(0) == 1).all()
        for slab, mine in zip(found, held, strict=True):
            learnt = slab.learnt(part)
            assert not (learnt & mine).any()
            if mine.any() and learnt.any():
                apart = np.abs(part.z[learnt][:, None] - part.z[mine])
                assert apart.min() >= 1
    counts = [sum(int(s.held(p).sum()) for p in parts) for s in found]
    assert max(counts) < 2 * min(counts)


def test_nothing_near_the_slab_is_learnt():
    class Line:
        z = np.arange(100)

    slab = Slab(39.0, 59.0)
    held, learnt = slab.held(Line), slab.learnt(Line)

    assert held.nonzero()[0].tolist() == list(range(40, 60))
    assert Line.z[learnt & (Line.z < 50)].max() == 39 - GUARD_VX
    assert Line.z[learnt & (Line.z > 50)].min() == 59 + GUARD_VX + 1


def test_a_part_of_the_decisions_is_learnt_as_if_the_rest_were_not_there(parts):
    rows = [p.z <= np.median(p.z) for p in parts]
    some = Examples(parts, rows=rows)

    assert len(some) == sum(int(r.sum()) for r in rows)
    for k in (0, len(some) - 1):
        part, i = some.index[k]
        assert rows[part][i]
        assert (some.features[k] == parts[part].features[i]).all()
        assert (some.views(k)[1] == parts[part].em[i]).all()
    for task in np.unique(some.task):
        for answer in (False, True):
            m = (some.task == task) & (some.answer == answer)
            if m.any():
                share = some.weight[m].sum() / some.weight[some.task == task].sum()
                assert share == pytest.approx(0.5, abs=1e-4)


def test_from_the_command_line_to_a_calibrated_model_that_learnt_from_all(tmp_path, capsys):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    file, out = bead_dataset(tmp_path / "beads"), tmp_path / "run"
    words = ["train", "--dataset-file", file, "--out", out, "--below-z", TOP, "--cross-fit", 3]
    words += ["--epochs", 1, "--merges", 6, "--device", "cpu", "--encoder", "test_vit", "--px", 32]
    try:
        # stopped at once, and again: what is there is used
        with pytest.raises(SystemExit) as stopped:
            main([str(w) for w in (*words, "--minutes", 0)])
        assert stopped.value.code == 0
        assert "slab 1 of 3: time is up" in capsys.readouterr().err
        assert not (out / "model").exists()
        with pytest.raises(SystemExit) as stopped:
            main([str(w) for w in words])
    finally:
        torch.set_num_threads(before)
    assert stopped.value.code == 0
    printed = capsys.readouterr()
    assert printed.out.strip() == str(out / "model")

    card = json.loads((out / "model" / "card.json").read_text())
    assert card["split"]["cross_fit"] == {"slabs": 3, "guard_vx": GUARD_VX}
    assert card["split"]["validation_z_vx"] is None
    learnt = card["split"]["examples"]
    for task in ("join", "cut"):
        n = sum(e["n"] for name, e in learnt.items() if f"-{task}-" in name)
        assert card["calibration"][task]["n"] == n, "all were judged once"
        assert card["validation"][f"{task} all"]["n"] == n
        far = card["calibration"][task]["elsewhere"]
        assert (far["draws"], far["places"]) == ([], 0), "beads are too few for places"
        assert "it takes to tell how much places differ" in far["why"]
    assert "without its slab" in card["calibrated_on"]
    assert card["ood"]["default"] == max(card["ood"]["auroc"], key=card["ood"]["auroc"].get)
    model = load_model(out / "model")
    assert model.ood is not None
    assert model.ood.reads_appearance
    for task in model.ood.tasks.values():
        for method in model.ood.methods:
            assert (np.diff(task.percentiles[method]) >= 0).all()

    # what the program that leaves places out starts from
    held = unseen(out)
    for index, task in enumerate(("join", "cut")):
        assert (held.task == index).sum() == card["calibration"][task]["n"]
    mine = {str(row) for row in held.point_nm[held.task == 0].tolist()}
    with np.load(next(out.glob("parts/*-join-train")) / "rows.npz") as rows:
        assert mine == {str(row) for row in rows["point_nm"].tolist()}
