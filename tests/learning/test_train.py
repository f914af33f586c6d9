"""Training: resumable bit for bit, and from the command line to a model that answers."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from beads import PLANE, TOP, bead_dataset, bead_volume
from fixtures_model import TINY_NETWORK, TINY_VIEWS
from fixtures_training import STEADY_NETWORK
from safetensors.torch import load_file

from cb2_assist.app import DatasetChoice, build_assistant
from cb2_assist.cli import main
from cb2_assist.core.errors import DatasetError, ModelError
from cb2_assist.core.geometry import PointNm
from cb2_assist.learning.distributed import Team
from cb2_assist.learning.optimise import make_optimizer, rate_at
from cb2_assist.learning.pair_types import PAIR_TYPES
from cb2_assist.learning.prepare import open_part
from cb2_assist.learning.recipe import Recipe, recipe_json, steps_of
from cb2_assist.learning.run import _parts
from cb2_assist.learning.score_parts import part_logits
from cb2_assist.learning.train import (
    Examples,
    mask_loss,
    per_of,
    step_draws,
    step_loss,
    step_rows,
)
from cb2_assist.learning.trainer import Trainer
from cb2_assist.learning.training_plan import Plan
from cb2_assist.model.network import MultiTaskViT
from cb2_assist.views.features import FEATURE_NAMES

REPO = Path(__file__).resolve().parents[2]

RECIPE = Recipe(epochs=2, batch=32)
ALONE = Team(0, 1, torch.device("cpu"))

pytestmark = pytest.mark.usefixtures("one_thread")


def quiet(_text):
    pass


@pytest.fixture(scope="module")
def parts_folder(tmp_path_factory):
    plan = Plan((), tmp_path_factory.mktemp("parts"), "t", PLANE, None, merges=4, views=TINY_VIEWS)
    _parts(plan, [bead_volume()], "train", (0, PLANE), PLANE, quiet)
    return plan.out / "parts"


@pytest.fixture(scope="module")
def data(parts_folder):
    return Examples([open_part(p) for p in sorted(parts_folder.iterdir())])


def trainer(folder, data, recipe=RECIPE, network=STEADY_NETWORK):
    folder.mkdir(exist_ok=True)
    made = Trainer(folder, network, recipe, ALONE, quiet)
    if not made.resume():
        made.fit_scale(data)
    made.fit_graph(data)
    made.fit_teacher(data)
    return made


class Killed(BaseException):
    """Stands for a signal: no handler of ours may swallow it."""


def die_after(steps, of, monkeypatch):
    real = of._one
    left = iter(range(steps))

    def one(*args):
        if next(left, None) is None:
            raise Killed
        return real(*args)

    monkeypatch.setattr(of, "_one", one)


def test_killed_twice_and_resumed_gives_the_same_bits(data, tmp_path, monkeypatch):
    # the network with everything random: dropout, stochastic depth, patches left out
    whole = trainer(tmp_path / "whole", data, network=TINY_NETWORK)
    assert whole.run(data, minutes=10)
    assert whole.step >= 4

    for steps in (1, 2):
        broken = trainer(tmp_path / "broken", data, network=TINY_NETWORK)
        die_after(steps, broken, monkeypatch)
        with pytest.raises(Killed):
            # a checkpoint after every step but the one that dies
            broken.run(data, minutes=10, checkpoint_s=0)
    resumed = trainer(tmp_path / "broken", data, network=TINY_NETWORK)
    assert resumed.step == 3
    assert resumed.run(data, minutes=10)

    assert differing(tmp_path / "whole", tmp_path / "broken") == []


def checkpoint(folder):
    return load_file(folder / "checkpoint.safetensors")


def differing(folder, other_folder):
    one, other = checkpoint(folder), checkpoint(other_folder)
    assert one.keys() == other.keys()
    return [k for k in one if not torch.equal(one[k], other[k])]


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(data, tmp_path):
    short = dataclasses.replace(RECIPE, epochs=1)
    for name, recipe in (
        ("a", short),
        ("b", short),
        ("c", dataclasses.replace(short, seed=1)),
    ):
        assert trainer(tmp_path / name, data, recipe).run(data, minutes=10)

    assert differing(tmp_path / "a", tmp_path / "b") == []
    assert len(differing(tmp_path / "a", tmp_path / "c")) > 50


CHILD = Path(__file__).with_name("training_child.py")
STEADY = {"epochs": 1, "batch": 16, "feature_noise": 0.0, "keep_patches": 1.0, "drop_features": 0.0}
"""Nothing is drawn inside a forward pass, so that processes can be compared."""


def child(*words, launcher=()):
    return subprocess.Popen(
        [sys.executable, *map(str, (*launcher, CHILD, *words))],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{REPO}:{REPO / 'tests'}", "OMP_NUM_THREADS": "1"},
    )


def test_killed_by_the_system_in_the_middle_it_ends_with_the_same_bits(
    data, parts_folder, tmp_path
):
    recipe = Recipe(**STEADY | {"epochs": 2, "keep_patches": 0.5})
    assert trainer(tmp_path / "whole", data, recipe).run(data, minutes=10)
    (tmp_path / "killed").mkdir()
    words = (parts_folder, tmp_path / "killed", json.dumps(recipe_json(recipe)), "--each-step")
    with child(*words) as process:
        for text in process.stdout:
            if text == "saved 2\n":
                process.kill()  # SIGKILL

    half = trainer(tmp_path / "killed", data, recipe)
    assert 2 <= half.step < -(-len(data) // recipe.batch) * 2
    assert half.run(data, minutes=10)
    assert differing(tmp_path / "whole", tmp_path / "killed") == []
    steps = [[e["step"] for e in history(tmp_path / n)["steps"]] for n in ("whole", "killed")]
    assert steps[0] == steps[1]


def history(folder):
    return json.loads((folder / "history.json").read_text())


def test_two_processes_learn_what_one_learns_from_the_joint_batch(data, parts_folder, tmp_path):
    recipe = Recipe(**STEADY)
    assert trainer(tmp_path / "one", data, recipe).run(data, minutes=10)
    (tmp_path / "two").mkdir()
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    with child(
        parts_folder, tmp_path / "two", json.dumps(recipe_json(recipe)), launcher=launcher
    ) as run:
        told = run.stdout.read()
    assert run.returncode == 0

    # sums in another order, through Adam: differences of rounding grow a little
    one, two = checkpoint(tmp_path / "one"), checkpoint(tmp_path / "two")
    assert one.keys() == two.keys()
    for k in one:
        torch.testing.assert_close(two[k], one[k], atol=2e-4, rtol=2e-3, msg=k)
    losses = [history(tmp_path / name)["steps"][-1] for name in ("one", "two")]
    for term in ("joint", "images", "features", "mask"):
        assert losses[1][term] == pytest.approx(losses[0][term], rel=1e-3)
    # only the first process talks
    assert told.count(f"step {losses[0]['step']}/") == 1


def test_small_passes_add_up_to_the_whole_batch(data, tmp_path):
    whole = Recipe(**STEADY)
    small = dataclasses.replace(whole, micro_batch=5)
    for name, recipe in (("whole", whole), ("small", small)):
        assert trainer(tmp_path / name, data, recipe).run(data, minutes=10)

    one, other = checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "small")
    for k in one:
        torch.testing.assert_close(other[k], one[k], atol=2e-4, rtol=2e-3, msg=k)


def test_every_decision_is_seen_once_an_epoch_in_another_order(data, tmp_path):
    learner = trainer(tmp_path / "run", data)
    per_epoch, total = steps_of(len(data), RECIPE)
    seen = []
    for rows in learner._batches(data, per_epoch, total):
        seen.append(rows)
        learner.step += 1
    epochs = [np.concatenate(seen[:per_epoch]), np.concatenate(seen[per_epoch:])]

    assert all(sorted(e.tolist()) == list(range(len(data))) for e in epochs)
    assert (epochs[0] != epochs[1]).any()


def test_the_processes_share_each_batch_without_overlap(data, tmp_path):
    learner = trainer(tmp_path / "run", data, dataclasses.replace(RECIPE, micro_batch=4))
    for n in (1, 2, 7, 32):
        shares = []
        for rank in range(3):
            learner.team = dataclasses.replace(ALONE, rank=rank, size=3)
            shares.append(learner._passes(n))
        # each gives its gradients as often as the others
        assert len({len(s) for s in shares}) == 1
        assert max(len(part) for s in shares for part in s) <= 4
        assert sorted(int(p) for s in shares for part in s for p in part) == list(range(n))


def test_bfloat16_learns_too(data, tmp_path):
    recipe = Recipe(**STEADY | {"amp": "bf16"})
    learner = trainer(tmp_path / "run", data, recipe)
    assert learner.run(data, minutes=10)

    assert all(v.isfinite().all() for v in checkpoint(tmp_path / "run").values())
    assert learner.net.task_query.dtype == torch.float32


def test_steps_after_the_last_checkpoint_are_done_again(data, tmp_path, monkeypatch):
    broken = trainer(tmp_path / "run", data)
    die_after(1, broken, monkeypatch)
    with pytest.raises(Killed):
        broken.run(data, minutes=10)

    assert trainer(tmp_path / "run", data).step == 0


def test_time_up_stops_and_says_so(data, tmp_path):
    stopped = trainer(tmp_path / "run", data)

    assert not stopped.run(data, minutes=0)
    assert trainer(tmp_path / "run", data).step == 1


def test_another_network_in_the_folder_is_refused_in_words(data, tmp_path):
    trainer(tmp_path / "run", data).save()
    with pytest.raises(ModelError, match=r"another network.*another --out"):
        trainer(tmp_path / "run", data, network=dataclasses.replace(STEADY_NETWORK, dropout=0.2))


def test_going_on_with_another_recipe_is_said(data, tmp_path):
    trainer(tmp_path / "run", data).save()
    said = []
    again = Trainer(tmp_path / "run", STEADY_NETWORK, Recipe(epochs=9), ALONE, said.append)

    assert again.resume()
    assert "another recipe" in said[0]


def test_training_moves_the_answers_the_right_way(data, tmp_path):
    recipe = dataclasses.replace(RECIPE, epochs=4)
    learner = trainer(tmp_path / "run", data, recipe)
    before = answers_apart(learner, data)
    assert learner.run(data, minutes=10)

    assert answers_apart(learner, data) > before + 0.1


def answers_apart(learner, data):
    logits, _ = part_logits(learner.net.eval(), data.parts[0], modes=("features",))
    answer = data.parts[0].answer
    return logits["features"][answer].mean() - logits["features"][~answer].mean()


def test_encoders_that_the_network_would_misread_are_refused_in_words(data, tmp_path):
    for encoder in ("test_vit2", "resnet18"):
        network = dataclasses.replace(STEADY_NETWORK, encoder=encoder)
        with pytest.raises(ModelError, match=r"plain vision transformer|timm vision transformer"):
            trainer(tmp_path / encoder, data, network=network)


def test_other_patch_sizes_train_the_mask_head_too(data, tmp_path):
    network = dataclasses.replace(STEADY_NETWORK, encoder="vit_small_patch32_224")
    recipe = Recipe(**STEADY | {"hide_partner": 1.0, "drop_images": 0.0})
    learner = trainer(tmp_path / "run", data, recipe, network)
    rows = np.arange(2)
    draws = step_draws(2, 0, recipe)
    loss, terms = step_loss(
        learner.net, step_rows(data, rows, draws, per_of(draws, 1)), recipe, ALONE.device
    )
    loss.backward()

    assert float(terms["mask"]) > 0
    assert learner.net.mask[0].weight.grad.abs().max() > 0


def test_blocks_nearer_the_images_learn_more_slowly():
    net = MultiTaskViT(STEADY_NETWORK)
    depth = len(net.encoder.blocks)
    recipe = Recipe(lr=1.0, lr_heads=3.0, layer_decay=0.5)
    peak = {id(p): g["peak"] for g in make_optimizer(net, recipe).param_groups for p in g["params"]}

    assert len(peak) == len(list(net.parameters()))
    assert peak[id(net.encoder.blocks[depth - 1].norm1.weight)] == 1.0
    assert peak[id(net.encoder.blocks[0].norm1.weight)] == 0.5 ** (depth - 1)
    assert peak[id(net.em_patches.weight)] == peak[id(net.encoder.pos_embed)] == 0.5**depth
    assert peak[id(net.encoder.norm.weight)] == 1.0
    assert peak[id(net.heads["join"].weight)] == 3.0
    plain = make_optimizer(net, Recipe())
    assert [g["peak"] for g in plain.param_groups] == [Recipe().lr, Recipe().lr_heads]


def test_the_rate_rises_and_falls_to_nothing():
    rates = [rate_at(k, 100, 0.1) for k in range(100)]

    assert rates[0] == pytest.approx(0.1, abs=1e-3)
    assert np.argmax(rates) == 9
    assert rates[-1] < 1e-3


def test_killed_between_checkpoint_and_validation_the_figures_are_made_up_for(data, tmp_path):
    short = dataclasses.replace(RECIPE, epochs=1)

    def dies(_net, _epoch):
        raise Killed

    with pytest.raises(Killed):
        trainer(tmp_path / "run", data, short).run(data, minutes=10, validate=dies)
    assert history(tmp_path / "run")["validation"] == []

    again = trainer(tmp_path / "run", data, short)
    assert again.run(data, minutes=10, validate=lambda _net, epoch: {"join": {"auroc": epoch}})
    assert history(tmp_path / "run")["validation"] == [
        {"step": again.step, "epoch": 1, "sets": {"join": {"auroc": 1}}}
    ]


def test_a_damaged_checkpoint_is_refused_in_words(data, tmp_path):
    trainer(tmp_path / "run", data).save()
    path = tmp_path / "run" / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"cannot be read.*Delete it"):
        trainer(tmp_path / "run", data)


def test_a_quota_moves_weight_between_negatives_only(data):
    part = data.parts[int(np.argmax([(p.task == 0).all() for p in data.parts]))]
    negatives = np.flatnonzero(~part.answer)
    types = part.sample_type.copy()
    types[negatives[:2]] = "parallel"
    part = dataclasses.replace(part, sample_type=types)
    plain, lifted = Examples([part]), Examples([part], {"parallel": 0.3})

    no, hard = ~plain.answer, ~plain.answer & (plain.sample_type == "parallel")
    assert lifted.weight[hard].sum() / lifted.weight[no].sum() == pytest.approx(0.3, rel=1e-4)
    assert lifted.weight[no].sum() == pytest.approx(plain.weight[no].sum(), rel=1e-4)
    assert (lifted.weight[plain.answer] == plain.weight[plain.answer]).all()


def test_the_target_is_part_answer_part_second_opinion_and_kept(data, tmp_path, monkeypatch):
    asked = []

    def opinions(measured, answer, *_args, **_kwargs):
        asked.append(measured.shape)
        return np.full(len(answer), 0.8, np.float32)

    monkeypatch.setattr("cb2_assist.learning.trainer.opinions", opinions)
    answer = data.answer.astype(float)
    for recipe, wanted in (
        (dataclasses.replace(RECIPE, teacher=0.0), answer),
        (RECIPE, 0.5 * answer + 0.4),
        (dataclasses.replace(RECIPE, teacher=0.25), 0.75 * answer + 0.2),
    ):
        data.target = data.answer.astype(np.float32)
        trainer(tmp_path / "run", data, recipe)
        assert data.target == pytest.approx(wanted)
    assert asked == [(len(data), data.features.shape[1] + data.graph.shape[1])]

    short = Examples(data.parts, rows=[np.arange(len(p)) > 0 for p in data.parts])
    short.graph = data.graph[: len(short)]
    with pytest.raises(ModelError, match="another --out"):
        trainer(tmp_path / "run", short, RECIPE)


def test_each_answer_weighs_half_of_its_task(data):
    for task in (0, 1):
        of = data.task == task
        sums = [data.weight[of & (data.answer == a)].sum() for a in (True, False)]
        assert sums == pytest.approx([of.sum() / 2] * 2, rel=1e-5)


def test_which_side_is_called_a_does_not_change_the_mask_loss():
    torch.manual_seed(0)
    logits = torch.randn(2, 2, 8, 8)
    sides = torch.zeros(2, 2, 8, 8)
    sides[:, 0, :, :4] = 1
    sides[:, 1, :, 4:] = 1

    assert mask_loss(logits, sides) == pytest.approx(float(mask_loss(logits, sides.flip(1))))
    assert mask_loss(20 * (sides - 0.5), sides) < 0.01


def test_parts_without_sample_types_are_refused_in_words(parts_folder, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(next(parts_folder.iterdir()), old)
    with np.load(old / "rows.npz") as rows:
        kept = {k: rows[k] for k in rows.files if k != "sample_type"}
    np.savez(old / "rows.npz", **kept)
    with pytest.raises(DatasetError, match=r"earlier version.*Delete it"):
        open_part(old)


@pytest.mark.parametrize(("kind", "is_read"), [("join", True), ("cut", False)])
def test_of_an_earlier_version_s_parts_only_joins_are_read(parts_folder, tmp_path, kind, is_read):
    """It did not measure the way between the sides of a cut; joins have none."""
    (found,) = (p for p in parts_folder.iterdir() if p.name.endswith(f"-{kind}-train"))
    old = tmp_path / "old"
    shutil.copytree(found, old)
    meta = json.loads((old / "part.json").read_text())
    (old / "part.json").write_text(json.dumps(meta | {"features": list(FEATURE_NAMES)}))
    with np.load(old / "rows.npz") as rows:
        kept = {k: rows[k] for k in rows.files}
    few = kept["features"][:, : len(FEATURE_NAMES)]
    np.savez(old / "rows.npz", **kept | {"features": few})
    if is_read:
        np.testing.assert_array_equal(open_part(old).features, open_part(found).features)
    else:
        with pytest.raises(DatasetError, match=r"other features.*Delete it"):
            open_part(old)


def test_parts_of_other_features_are_refused_in_words(tmp_path):
    (tmp_path / "part.json").write_text(json.dumps({"features": ["area"]}))
    with pytest.raises(DatasetError, match=r"other features.*Delete it"):
        open_part(tmp_path)
    with pytest.raises(DatasetError, match="no prepared examples"):
        open_part(tmp_path / "nowhere")


def train(*words):
    with pytest.raises(SystemExit) as stopped:
        main(["train", *map(str, words)])
    return stopped.value.code


@pytest.mark.usefixtures("own_data_home")
def test_from_the_command_line_to_a_model_that_suggests(tmp_path, capsys):
    file, out = bead_dataset(tmp_path / "beads"), tmp_path / "run"
    words = ["--dataset-file", file, "--out", out, "--name", "bead-model", "--below-z", PLANE]
    words += ["--val-z", f"{PLANE}:{TOP}", "--epochs", 1, "--merges", 6, "--device", "cpu"]
    words += ["--encoder", "test_vit", "--px", 32, "--lr", 1e-3, "--batch", 24, "--micro-batch", 16]
    words += ["--amp", "bf16", "--layer-decay", 0.8, "--quota", "whole_segment=0.6"]

    assert train(*words) == 0
    printed = capsys.readouterr()
    folder = printed.out.strip()
    assert "at 50:50 and" in printed.err
    assert "left" in printed.err
    card = json.loads((out / "model" / "card.json").read_text())
    assert folder == str(out / "model")
    assert card["name"] == "bead-model"
    assert card["data"][0]["licence"] == "CC0 1.0"
    assert card["seed"] == 0
    assert card["network"]["encoder"] == "test_vit"
    assert card["network"]["image_px"] == card["views"]["image_px"] == 32
    recipe = {k: card["recipe"][k] for k in ("lr", "batch", "micro_batch", "amp", "quotas")}
    assert recipe == {
        "lr": 1e-3, "batch": 24, "micro_batch": 16, "amp": "bf16", "quotas": {"whole_segment": 0.6}
    }  # fmt: skip
    assert set(card["validation"]["join all"]["by_type"]) <= set(PAIR_TYPES)
    assert card["validation"]["cut all"]["natural_prior"]["ece15"] is not None
    assert {"loss.svg", "validation-join-all.svg"} <= {p.name for p in out.iterdir()}
    (epoch,) = history(out)["validation"]
    assert epoch["sets"]["join-all"]["n"] == card["calibration"]["join"]["n"]
    assert set(card["calibration"]) == set(card["base_rates"]) == {"join", "cut"}
    assert card["weights"]["bytes"] <= 16_000_000
    found = card["ood"]["auroc"]
    assert found[card["ood"]["default"]] == max(found.values())

    assistant = build_assistant(DatasetChoice(file=file), model=out / "model", device="cpu")
    try:
        found = assistant.suggest(PointNm(305, 105, 505))
    finally:
        assistant.close()
    assert found.model_name == "bead-model"
    assert found.suggestions
    assert all(np.isfinite([s.score, s.confidence]).all() for s in found.suggestions)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ([], 2, "needs one calibration"),
        (["--val-z", "50:40"], 2, "LO:HI with LO < HI"),
        (["--val-z", "abc"], 2, "LO:HI"),
        (["--val-z", "30:90"], 2, "do not overlap"),
        (["--val-z", "60:120", "--calibration-from", "m"], 2, "2 of them are given"),
        (["--val-z", "60:120", "--cross-fit", "3"], 2, "2 of them are given"),
        (["--cross-fit", "1"], 2, "3<=x<=20"),
        (["--val-z", "60:120"], 1, "nowhere.toml"),
        (["--val-z", "60:120", "--px", "100"], 2, "must divide 224"),
        (["--val-z", "60:120", "--lr", "0"], 2, "above 0"),
        (["--val-z", "60:120", "--quota", "parallel"], 2, "TYPE=SHARE"),
        (["--val-z", "60:120", "--quota", "broad=1.5"], 2, "less than 1"),
        (["--val-z", "60:120", "--synapses", "a.csv", "--synapses", "b.csv"], 2, "one for each"),
    ],
)
def test_plans_that_cannot_be_are_refused_in_one_line(words, code, says, tmp_path, capsys):
    file = tmp_path / "nowhere.toml"
    got = train("--dataset-file", file, "--out", tmp_path / "run", "--below-z", 60, *words)

    printed = capsys.readouterr()
    assert got == code
    assert says in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""


def test_a_dataset_without_truth_is_refused_in_words(neurites_file, tmp_path, capsys):
    text = neurites_file.read_text()
    folder = neurites_file.parent
    bare = folder / "bare.toml"
    bare.write_text("\n".join(x for x in text.splitlines() if not x.startswith("truth")))

    got = train("--dataset-file", bare, "--out", tmp_path, "--below-z", 60, "--val-z", "60:100")

    assert got == 1
    assert "truth" in capsys.readouterr().err
