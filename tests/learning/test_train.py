"""Training: resumable bit for bit, and from the command line to a model that answers."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from beads import PLANE, TOP, bead_dataset, bead_volume
from fixtures_model import TINY_NETWORK, TINY_VIEWS
from safetensors.torch import load_file

from cb2_assist.app import DatasetChoice, build_assistant
from cb2_assist.cli import main
from cb2_assist.core.errors import DatasetError, ModelError
from cb2_assist.core.geometry import PointNm
from cb2_assist.learning import run as runs
from cb2_assist.learning.prepare import open_part
from cb2_assist.learning.run import Plan, _parts
from cb2_assist.learning.train import Examples, Recipe, Trainer, mask_loss

RECIPE = Recipe(epochs=2, batch=32)
CPU = torch.device("cpu")


def quiet(_text):
    pass


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    # small steps on few cores: threads wait for each other longer than they work
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    plan = Plan((), tmp_path_factory.mktemp("parts"), "t", PLANE, None, merges=4, views=TINY_VIEWS)
    return Examples(_parts(plan, [bead_volume()], "train", (0, PLANE), PLANE, quiet))


def trainer(folder, data, recipe=RECIPE, network=TINY_NETWORK):
    folder.mkdir(exist_ok=True)
    made = Trainer(folder, network, recipe, CPU, quiet)
    if not made.resume():
        made.fit_scale(data)
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
    whole = trainer(tmp_path / "whole", data)
    assert whole.run(data, minutes=10, on_epoch=lambda _: None)
    assert whole.step >= 4

    for steps in (1, 2):
        broken = trainer(tmp_path / "broken", data)
        die_after(steps, broken, monkeypatch)
        with pytest.raises(Killed):
            # a checkpoint after every step but the one that dies
            broken.run(data, minutes=10, on_epoch=lambda _: None, checkpoint_s=0)
    resumed = trainer(tmp_path / "broken", data)
    assert resumed.step == 3
    assert resumed.run(data, minutes=10, on_epoch=lambda _: None)

    files = [tmp_path / name / "checkpoint.safetensors" for name in ("whole", "broken")]
    one, other = (load_file(f) for f in files)
    assert one.keys() == other.keys()
    assert [k for k in one if not torch.equal(one[k], other[k])] == []


def test_steps_after_the_last_checkpoint_are_done_again(data, tmp_path, monkeypatch):
    broken = trainer(tmp_path / "run", data)
    die_after(1, broken, monkeypatch)
    with pytest.raises(Killed):
        broken.run(data, minutes=10, on_epoch=lambda _: None)

    assert trainer(tmp_path / "run", data).step == 0


def test_time_up_stops_and_says_so(data, tmp_path):
    stopped = trainer(tmp_path / "run", data)

    assert not stopped.run(data, minutes=0, on_epoch=lambda _: None)
    assert trainer(tmp_path / "run", data).step == 1


def test_another_network_in_the_folder_is_refused_in_words(data, tmp_path):
    trainer(tmp_path / "run", data).save()
    with pytest.raises(ModelError, match=r"another network.*another --out"):
        trainer(tmp_path / "run", data, network=dataclasses.replace(TINY_NETWORK, dropout=0.2))


def test_going_on_with_another_recipe_is_said(data, tmp_path):
    trainer(tmp_path / "run", data).save()
    said = []
    again = Trainer(tmp_path / "run", TINY_NETWORK, Recipe(epochs=9), CPU, said.append)

    assert again.resume()
    assert "another recipe" in said[0]


def test_training_moves_the_answers_the_right_way(data, tmp_path):
    recipe = dataclasses.replace(RECIPE, epochs=4)
    learner = trainer(tmp_path / "run", data, recipe)
    before = answers_apart(learner, data)
    assert learner.run(data, minutes=10, on_epoch=lambda _: None)

    assert answers_apart(learner, data) > before + 0.1


def answers_apart(learner, data):
    logits, _ = runs.part_logits(learner.net.eval(), data.parts[0], modes=("features",))
    answer = data.parts[0].answer
    return logits["features"][answer].mean() - logits["features"][~answer].mean()


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

    assert train(*words) == 0
    folder = capsys.readouterr().out.strip()
    card = json.loads((out / "model" / "card.json").read_text())
    assert folder == str(out / "model")
    assert card["name"] == "bead-model"
    assert card["data"][0]["licence"] == "CC0 1.0"
    assert card["seed"] == 0
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
        ([], 2, "needs a calibration"),
        (["--val-z", "50:40"], 2, "LO:HI with LO < HI"),
        (["--val-z", "abc"], 2, "LO:HI"),
        (["--val-z", "30:90"], 2, "do not overlap"),
        (["--val-z", "60:120", "--calibration-from", "m"], 2, "not both"),
        (["--val-z", "60:120"], 1, "nowhere.toml"),
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
