"""Pretraining without truth: resumable bit for bit, and a start for training."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from beads import PLANE, TOP, bead_dataset
from fixtures_model import TINY_VIEWS
from fixtures_training import STEADY_NETWORK
from safetensors.torch import load_file

from cb2_assist.cli import main
from cb2_assist.core.channels import EmView, GeometryView
from cb2_assist.core.errors import DatasetError, ModelError, UsageError
from cb2_assist.datasets.local import LocalSource, open_dataset_file
from cb2_assist.learning import pretrain_sites, run
from cb2_assist.learning.distributed import Team
from cb2_assist.learning.examples import touching_pairs
from cb2_assist.learning.pretrain import PretrainPlan, run_pretraining
from cb2_assist.learning.pretrain_sites import (
    GUARD_NM,
    drawn,
    places_of,
    render_sites,
    unlabelled_volume,
)
from cb2_assist.learning.pretrain_step import Sums, draw_site
from cb2_assist.learning.pretrain_trainer import Pretrainer, PretrainRecipe, judgement
from cb2_assist.learning.recipe import Recipe
from cb2_assist.learning.run import run_training
from cb2_assist.learning.trainer import Trainer
from cb2_assist.learning.training_plan import Plan
from cb2_assist.model.checkpoint import load_model
from cb2_assist.model.masked import MaskedSpec
from cb2_assist.model.start import ENCODER, read_start, save_start
from cb2_assist.views.hitmap import CAMERAS

RECIPE = PretrainRecipe(epochs=2, batch=16, lr=3e-3)
NETWORK = MaskedSpec(encoder="test_vit", image_px=32, decoder_width=32, decoder_blocks=1)
CPU = torch.device("cpu")

pytestmark = pytest.mark.usefixtures("one_thread")


def quiet(_text):
    pass


@pytest.fixture(scope="module")
def beads_file(tmp_path_factory):
    """Without truth."""
    file = bead_dataset(tmp_path_factory.mktemp("beads"))
    lines = file.read_text().splitlines()
    file.write_text("\n".join(x for x in lines if not x.startswith("truth")) + "\n")
    return file


@pytest.fixture(scope="module")
def places(beads_file):
    source = open_dataset_file(beads_file)
    try:
        assert not source.has_truth
        return places_of(unlabelled_volume(source, None))
    finally:
        source.close()


@pytest.fixture(scope="module")
def sites(places, tmp_path_factory):
    return render_sites(places, tmp_path_factory.mktemp("sites"), TINY_VIEWS, {}, quiet)


def pretrainer(folder, sites, recipe=RECIPE, network=NETWORK):
    folder.mkdir(exist_ok=True)
    made = Pretrainer(folder, network, recipe, [sites], CPU, quiet)
    made.resume()
    return made


class Killed(BaseException):
    """Stands for a signal: no handler of ours may swallow it."""


def dying(real, after):
    left = iter(range(after))

    def call(*args, **kwargs):
        if next(left, None) is None:
            raise Killed
        return real(*args, **kwargs)

    return call


def test_killed_and_resumed_gives_the_same_bits(sites, tmp_path, monkeypatch):
    whole = pretrainer(tmp_path / "whole", sites)
    assert whole.run(minutes=10)
    assert whole.step >= 4
    for steps in (1, 2):
        broken = pretrainer(tmp_path / "broken", sites)
        monkeypatch.setattr(broken, "_one", dying(broken._one, steps))
        with pytest.raises(Killed):
            broken.run(minutes=10, checkpoint_s=0)
    resumed = pretrainer(tmp_path / "broken", sites)
    assert resumed.step == 3
    assert resumed.run(minutes=10)

    one, other = (load_file(tmp_path / n / "checkpoint.safetensors") for n in ("whole", "broken"))
    assert one.keys() == other.keys()
    assert [k for k in one if not torch.equal(one[k], other[k])] == []
    ends = [json.loads((tmp_path / n / "history.json").read_text()) for n in ("whole", "broken")]
    assert ends[0]["held_out"] == ends[1]["held_out"]


def test_the_loss_on_held_out_sites_falls(sites, tmp_path):
    learner = pretrainer(tmp_path / "run", sites, replace(RECIPE, epochs=12))
    before = learner.judged()
    assert before["n"] == sites.held_out.sum()
    assert learner.run(minutes=10)

    after = learner.judged()
    assert after["network"]["loss"] < 0.8 * before["network"]["loss"]
    left, (low, high) = after["share_left"]["value"], after["share_left"]["ci95"]
    assert left == pytest.approx(
        after["network"]["loss"] / after["mean_of_shown"]["loss"], rel=1e-3
    )
    assert low <= left <= high
    assert after["cubes"] <= after["n"]
    assert after["mean_of_shown"] == before["mean_of_shown"]
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert history["held_out"][-1]["network"] == after["network"]
    assert history["steps"][-1]["loss"] < history["steps"][0]["loss"]
    assert "mean guess" in (tmp_path / "run" / "loss.svg").read_text()


def test_intervals_of_the_loss_resample_cubes_not_sites():
    error = torch.arange(20.0)[:, None].expand(20, 10)
    network, cheap = Sums(error, torch.ones(20, 10)), Sums(2 * error, torch.ones(20, 10))
    sums = {"network": network, "mean_of_shown": cheap}
    found = {n: judgement(sums, np.arange(20) // (20 // n)) for n in (1, 4, 20)}

    assert {n: f["cubes"] for n, f in found.items()} == {1: 1, 4: 4, 20: 20}
    width = {n: np.ptp(f["network"]["ci95"]) for n, f in found.items()}
    assert width[1] == 0 < width[20] < width[4]
    for f in found.values():
        assert f["network"]["loss"] == pytest.approx(9.5)
        assert f["share_left"] == {"value": 0.5, "ci95": [0.5, 0.5]}
        assert f["network"]["by_channel"]["em_grey"] == pytest.approx(9.5)


def test_bfloat16_learns_too(sites, tmp_path):
    learner = pretrainer(tmp_path / "run", sites, replace(RECIPE, epochs=1, amp="bf16"))
    assert learner.run(minutes=10)
    assert all(v.isfinite().all() for v in learner.net.state_dict().values())
    assert learner.net.view_embedding.dtype == torch.float32


def test_time_up_stops_and_goes_on(sites, tmp_path):
    assert not pretrainer(tmp_path / "run", sites).run(minutes=0)
    assert pretrainer(tmp_path / "run", sites).step == 1


def test_another_run_in_the_folder_is_refused_in_words(sites, tmp_path):
    pretrainer(tmp_path / "run", sites).save()
    with pytest.raises(ModelError, match=r"another run.*another --out"):
        pretrainer(tmp_path / "run", sites, replace(RECIPE, lr=1e-4))
    path = tmp_path / "run" / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"cannot be read.*Delete it"):
        pretrainer(tmp_path / "run", sites)


def test_a_share_that_hides_nothing_or_all_is_refused(sites, tmp_path):
    for mask in (0.01, 0.99):
        with pytest.raises(UsageError, match="one must be seen and one hidden"):
            pretrainer(tmp_path / "run", sites, replace(RECIPE, mask=mask))


def test_the_truth_is_not_read(places, tmp_path, monkeypatch):
    def never(*_args):
        raise AssertionError("the truth was read")

    monkeypatch.setattr(LocalSource, "truth_cutout", never)
    source = open_dataset_file(bead_dataset(tmp_path / "with-truth"))
    try:
        assert source.has_truth
        found = places_of(unlabelled_volume(source, None))
    finally:
        source.close()
    np.testing.assert_array_equal(found.pairs.a, places.pairs.a)
    assert not found.volume.truth.any()


def test_nothing_beyond_the_plane_is_read(beads_file):
    source = open_dataset_file(beads_file)
    try:
        volume = unlabelled_volume(source, PLANE)
        with pytest.raises(DatasetError, match="nothing lies below z 0"):
            unlabelled_volume(source, 0)
    finally:
        source.close()
    assert volume.box.hi.z == volume.seg.shape[2] == PLANE


def test_the_held_out_part_is_a_place_with_a_gap_before_it(places):
    z = places.pairs.point_nm[:, 2]
    plane = 0.9 * TOP * 10
    assert 0 < places.held_out.sum() < len(z)
    assert z[places.held_out].min() >= plane
    assert z[~places.held_out].max() < plane - GUARD_NM
    assert len(z) < len(touching_pairs(places.volume))


def test_sites_are_drawn_once_each_from_all_volumes_together(places):
    found = drawn([places, places], 40, 0)
    assert sum(len(p.pairs) for p in found) == 40
    assert all(len(p.pairs) > 10 for p in found)
    names = list(zip(found[0].pairs.a.tolist(), found[0].pairs.b.tolist(), strict=True))
    assert len(set(names)) == len(names)
    again, other = drawn([places, places], 40, 0), drawn([places, places], 40, 1)
    np.testing.assert_array_equal(again[0].pairs.a, found[0].pairs.a)
    assert again[0].pairs.a.tolist() != other[0].pairs.a.tolist()
    assert sum(len(p.pairs) for p in drawn([places], 10**6, 0)) == len(places.pairs)


def test_a_rendering_that_was_killed_goes_on(places, sites, tmp_path, monkeypatch):
    few = places.take(np.arange(6))
    whole = render_sites(few, tmp_path / "whole", TINY_VIEWS, {"n": 6}, quiet)
    real = pretrain_sites.render
    monkeypatch.setattr(pretrain_sites, "render", dying(real, 3))
    with pytest.raises(Killed):
        render_sites(few, tmp_path / "broken", TINY_VIEWS, {"n": 6}, quiet)
    with (tmp_path / "broken" / "geometry.raw").open("ab") as f:
        f.write(b"half a row")
    calls = []
    monkeypatch.setattr(pretrain_sites, "render", lambda *a, **k: calls.append(1) or real(*a, **k))
    again = render_sites(few, tmp_path / "broken", TINY_VIEWS, {"n": 6}, quiet)

    assert 0 < len(calls) <= 6
    np.testing.assert_array_equal(again.geometry, whole.geometry)
    np.testing.assert_array_equal(again.em, whole.em)
    np.testing.assert_array_equal(whole.em, sites.em[:6])
    with pytest.raises(DatasetError, match="another --out"):
        render_sites(few, tmp_path / "broken", TINY_VIEWS, {"n": 7}, quiet)


def test_both_images_of_a_site_show_one_mirrored_scene():
    axes = {EmView.XY: (0, 1), EmView.XZ: (0, 2), EmView.YZ: (1, 2)}
    mirrored = 0
    for k in range(200):
        how = draw_site(16, np.random.default_rng(k))
        camera, (rows, columns) = CAMERAS[GeometryView(how.geometry.view)], axes[how.em.view]
        move = how.geometry.move
        flags = {camera.right_axis: move.mirror_columns, camera.up_axis: move.mirror_rows}
        em = {rows: how.em.move.mirror_rows, columns: how.em.move.mirror_columns}
        for axis, flag in em.items():
            assert flag == flags.get(axis, False)
        assert (move.transpose, how.em.move.transpose) == (False, False)
        assert sorted(how.em_order) == sorted(how.geometry_order) == list(range(16))
        mirrored += any(flags.values())
    assert 100 < mirrored < 190
    plain = draw_site(16, np.random.default_rng(0), moved=False)
    assert not plain.swap
    assert plain.em.gain == 1


def test_training_starts_from_the_encoder_and_resuming_keeps_it(sites, tmp_path):
    learner = pretrainer(tmp_path / "pre", sites)
    plan = {"network": {"encoder": "test_vit", "image_px": 32}, "data": []}
    save_start(tmp_path / "pre", learner.net, plan)
    start = read_start(tmp_path / "pre")

    def trainer(init_from):
        recipe = Recipe(init_from=init_from)
        (tmp_path / "run").mkdir(exist_ok=True)
        return Trainer(tmp_path / "run", STEADY_NETWORK, recipe, Team(0, 1, CPU), quiet)

    plain, made = trainer(""), trainer(start.sha256)
    made.start_from(start)
    for k, v in start.weights.items():
        assert torch.equal(made.net.state_dict()[k], v)
        assert torch.equal(made.average.weights[k], v)
    for k, v in made.net.state_dict().items():
        assert k in start.weights or torch.equal(v, plain.net.state_dict()[k])
    made.save()
    resumed = trainer(start.sha256)
    assert resumed.resume()
    assert torch.equal(resumed.net.view_embedding, start.weights["view_embedding"])
    with pytest.raises(ModelError, match=r"started from a pretrained.*the same --init-from"):
        trainer("").resume()


def command(*words):
    with pytest.raises(SystemExit) as stopped:
        main([*map(str, words)])
    return stopped.value.code


@pytest.mark.usefixtures("own_data_home")
def test_from_the_command_line_to_a_trained_model_with_every_licence(tmp_path, capsys, monkeypatch):
    file = bead_dataset(tmp_path / "beads")
    bare = tmp_path / "beads" / "bare.toml"
    text = file.read_text().replace('name = "beads"', 'name = "bare"')
    kept = [x for x in text.splitlines() if not x.startswith(("truth", "licence"))]
    bare.write_text("\n".join(kept) + "\n")
    out, network = tmp_path / "pre", ["--encoder", "test_vit", "--px", 32]
    words = ["pretrain", "--dataset-file", bare, "--out", out, "--below-z", PLANE]
    words += ["--sites", 24, "--epochs", 1, "--batch", 8, "--device", "cpu", *network]

    assert command(*words) == 0
    printed = capsys.readouterr()
    assert printed.out.strip() == str(out)
    assert "the licence of bare is not stated" in printed.err
    assert "left" in printed.err
    assert {"pretrain.json", ENCODER, "history.json", "loss.svg"} <= {p.name for p in out.iterdir()}
    assert {v.dtype for v in load_file(out / ENCODER).values()} == {torch.float16}

    train = ["train", "--dataset-file", file, "--out", tmp_path / "run", "--below-z", PLANE]
    train += ["--val-z", f"{PLANE}:{TOP}"]
    assert command(*train, "--init-from", out, "--encoder", "test_vit", "--px", 56) == 1
    assert "pretrained as test_vit at 32 px" in capsys.readouterr().err
    assert command(*train, "--init-from", tmp_path / "nowhere", *network) == 1
    assert "no pretrained encoder" in capsys.readouterr().err

    # those take longer than all the rest, and pretraining does not touch them
    monkeypatch.setattr(run, "proposed_rates", lambda *_: ({"join": 0.3, "cut": 0.1}, {}))
    said = []
    plan = Plan(
        (file,), tmp_path / "run", "t", PLANE, (PLANE, TOP), merges=6, init_from=out,
        device="cpu", recipe=Recipe(epochs=1), views=TINY_VIEWS, network=STEADY_NETWORK,
    )  # fmt: skip
    run_training(plan, said.append)
    assert any("the licence of bare is not stated" in text for text in said)

    card = load_model(tmp_path / "run" / "model").card
    assert card["recipe"]["init_from"] == read_start(out).sha256
    (source,) = card["pretraining"]["data"]
    assert source["name"] == "bare"
    assert source["licence"] == "unknown"
    assert source["sites"] > 0
    assert card["data"][0]["licence"] == "CC0 1.0"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--mask", "1"], 2, "between 0 and 1"),
        (["--px", "100"], 2, "must divide 224"),
        (["--lr", "0"], 2, "above 0"),
        ([], 1, "nowhere.toml"),
    ],
)
def test_plans_that_cannot_be_are_refused_in_one_line(words, code, says, tmp_path, capsys):
    file = tmp_path / "nowhere.toml"
    assert command("pretrain", "--dataset-file", file, "--out", tmp_path / "run", *words) == code
    printed = capsys.readouterr()
    assert says in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""


def test_one_dataset_given_twice_is_refused(beads_file, tmp_path):
    with pytest.raises(UsageError, match="Give each --dataset-file once"):
        run_pretraining(PretrainPlan((beads_file, beads_file), tmp_path / "run"), quiet)
