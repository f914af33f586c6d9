"""Model folders: what comes back, and what every mismatch says."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from fixtures_model import BASE_RATES, TINY_NETWORK, TINY_VIEWS, tiny_model, tiny_network
from safetensors.torch import load_file, save_file

from cb2_assist.core.errors import ModelError
from cb2_assist.core.records import Kind
from cb2_assist.model import checkpoint
from cb2_assist.model.card import CARD, WEIGHTS, ViewSpec, check_card, read_card, sha256_of
from cb2_assist.model.checkpoint import load_model, save_model
from cb2_assist.views.features import FEATURE_NAMES
from cb2_assist.views.surroundings import MEASURED_NAMES


@pytest.fixture
def folder(tiny_model_folder, tmp_path):
    return shutil.copytree(tiny_model_folder, tmp_path / "model")


def change_card(folder, **changes):
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps(card | changes))


def change_weights(folder, change):
    """Rewrite the weights and put their new checksum on the card."""
    tensors = change(load_file(folder / WEIGHTS))
    save_file(tensors, folder / WEIGHTS)
    change_card(folder, weights={"sha256": sha256_of(folder / WEIGHTS)})


def test_weights_come_back_to_half_precision(folder):
    model = load_model(folder)

    for name, value in tiny_network().state_dict().items():
        got = model.network.state_dict()[name]
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, value, atol=2e-4, rtol=1e-3, msg=name)
    assert model.name == "tiny"
    assert model.card["base_rates"] == BASE_RATES
    assert model.views == TINY_VIEWS
    assert not model.network.training


def test_saving_what_was_loaded_gives_the_same_bytes(folder, tmp_path):
    model = load_model(folder)
    save_model(tmp_path / "again", model.network, model.views, model.ood, {"name": "tiny"})

    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()


def test_only_a_model_that_reads_the_way_between_the_sides_has_it_measured(folder, tmp_path):
    older = replace(TINY_NETWORK, features=len(FEATURE_NAMES))
    old = tiny_model(tmp_path / "old", spec=older)

    assert read_card(old)["features"] == list(FEATURE_NAMES)
    assert not check_card(old).reads_passage
    assert load_model(old).network.feature_mean.shape == (len(FEATURE_NAMES),)
    assert read_card(folder)["features"] == list(MEASURED_NAMES)
    assert check_card(folder).reads_passage


def test_weights_are_small_enough_to_ship(folder):
    assert (folder / WEIGHTS).stat().st_size <= checkpoint.MAX_BYTES == 16_000_000


def swapped(folder):
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (folder / WEIGHTS).write_bytes(data)


def truncated(folder):
    data = (folder / WEIGHTS).read_bytes()[:-500]
    (folder / WEIGHTS).write_bytes(data)
    change_card(folder, weights={"sha256": sha256_of(folder / WEIGHTS)})


def without_a_tensor(tensors):
    return {k: v for k, v in tensors.items() if k != "network.heads.join.weight"}


def with_another_shape(tensors):
    return tensors | {"network.task_query": torch.zeros(9, 9)}


def without_distances(tensors):
    return {k: v for k, v in tensors.items() if k != "ood.join.whiten"}


def with_odd_distances(tensors):
    return tensors | {"ood.cut.whiten": torch.zeros(3, 4)}


def with_distances_of_another_width(tensors):
    narrow = {k: v for k, v in tensors.items() if not k.startswith("ood.")}
    for task in ("join", "cut"):
        narrow[f"ood.{task}.means"] = torch.zeros(1, 5)
        narrow[f"ood.{task}.whiten"] = torch.eye(5)
        narrow[f"ood.{task}.percentiles.mahalanobis"] = torch.arange(101.0)
    return narrow


def as_format_1(folder):
    """What versions before this one wrote: one Gaussian for both questions."""

    def change(tensors):
        old = {k: v for k, v in tensors.items() if not k.startswith("ood.")}
        width = tensors["ood.join.whiten"].shape[0]
        old["ood.mean"] = torch.ones(width)
        old["ood.whiten"] = torch.eye(width) / 2
        old["ood.percentiles"] = torch.linspace(0, 10, 101)
        return old

    change_weights(folder, change)
    card = json.loads((folder / CARD).read_text())
    del card["ood"]
    (folder / CARD).write_text(json.dumps(card | {"format": 1}))


DAMAGE = {
    "weights swapped": (swapped, "not the ones of the card.*copy both"),
    "weights truncated": (truncated, "not a safetensors file.*Copy the weights again"),
    "weights absent": (lambda f: (f / WEIGHTS).unlink(), "no weights.safetensors.*Copy"),
    "card absent": (lambda f: (f / CARD).unlink(), "no model at.*--model"),
    "card not JSON": (lambda f: (f / CARD).write_text("{"), "not JSON.*Restore"),
    "card a list": (lambda f: (f / CARD).write_text("[]"), "format 'list'"),
    "card of another format": (lambda f: change_card(f, format=99), "format 99.*Update"),
    "other features": (lambda f: change_card(f, features=["area"]), "wants 1 features"),
    "views with a wrong word": (lambda f: change_card(f, views={"zoom": 2}), "misnames.*Restore"),
    "unknown profile": (lambda f: change_card(f, views={"profile": "raw"}), "lacks or misnames"),
    "views of no size": (lambda f: change_card(f, views={"image_px": 100}), "cannot be made"),
    "views of zero pixels": (lambda f: change_card(f, views={"image_px": 0}), "lacks or misnames"),
    "features left out": (lambda f: change_card(f, features=[]), "wants 0 features"),
    "EM planes of no width": (
        lambda f: change_card(f, views={"em_extent_nm": 0}),
        "cannot be made",
    ),
    "views of a species that cannot be made": (
        lambda f: change_card(f, views_by_species={"fly": {"extent_nm": -1}}),
        "cannot be made",
    ),
    "views of no species": (lambda f: change_card(f, views_by_species=[1]), "lacks or misnames"),
    "an imported network's card": (
        lambda f: change_card(f, network={"architecture": "connectomebench2"}, features=[]),
        "do not fit the network",
    ),
    "an encoder that is no transformer": (
        lambda f: change_card(
            f, network={"architecture": "connectomebench2", "encoder": "resnet18"}, features=[]
        ),
        "do not fit the network",
    ),
    "no network": (lambda f: change_card(f, network=None), "lacks or misnames"),
    "network of negative width": (
        lambda f: change_card(f, network={"image_px": 32, "feature_hidden": -1}),
        "do not fit the network",
    ),
    "another network": (lambda f: change_card(f, network={"image_px": 64}), "do not fit"),
    "tensor absent": (lambda f: change_weights(f, without_a_tensor), "do not fit the network"),
    "tensor of another shape": (lambda f: change_weights(f, with_another_shape), "do not fit"),
    "no distances": (lambda f: change_weights(f, without_distances), "do not fit"),
    "odd distances": (lambda f: change_weights(f, with_odd_distances), "do not fit the card"),
    "distances of another width": (
        lambda f: change_weights(f, with_distances_of_another_width),
        "192 numbers.*Train again",
    ),
    "no default distance": (lambda f: change_card(f, ood={}), "do not fit the card.*default"),
    "an unknown distance": (lambda f: change_card(f, ood={"default": "odd"}), "distance 'odd'"),
    "a card of format 1 with weights of format 2": (
        lambda f: change_card(f, format=1),
        "do not fit the card",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_model_that_does_not_fit_is_refused_in_words(folder, what):
    damage, words = DAMAGE[what]
    damage(folder)

    with pytest.raises(ModelError, match=words) as refused:
        load_model(folder)
    assert "Traceback" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_card_is_read_without_weights(folder):
    (folder / WEIGHTS).unlink()

    assert read_card(folder)["name"] == "tiny"


def test_without_a_reference_every_site_is_as_far_as_can_be(folder):
    change_weights(folder, lambda t: {k: v for k, v in t.items() if not k.startswith("ood.")})
    change_card(folder, ood="unknown")

    assert load_model(folder).ood is None
    assert check_card(folder).percentile(Kind.JOIN, 0.0) == 100.0


def test_clean_views_never_reach_beyond_their_site():
    for em_extent_nm in (None, 100.0, 900.0):
        views = ViewSpec(extent_nm=640.0, em_extent_nm=em_extent_nm)
        assert views.site_nm == views.reach_nm == max(640.0, views.em_nm)
    wide = ViewSpec(profile="cb2", extent_nm=3000.0, em_extent_nm=975.0)
    assert (wide.site_nm, wide.reach_nm) == (640.0, 3000.0)


def test_distances_and_percentiles(folder):
    ood = load_model(folder).ood
    rows = np.zeros((2, tiny_network().task_query.shape[1]), np.float32)
    rows[:, 0] = 3.0

    assert ood.distance(rows, [Kind.JOIN, Kind.CUT]) == pytest.approx([3.0, 3.0])
    assert check_card(folder).percentile(Kind.JOIN, 10.0) == pytest.approx(50.0)
    assert check_card(folder).percentile(Kind.CUT, 10.0) == pytest.approx(25.0)
    assert ood.percentile(Kind.JOIN, 1e9) == 100.0


def test_a_model_of_format_1_keeps_its_one_gaussian_for_both_questions(folder):
    as_format_1(folder)
    ood = load_model(folder).ood
    rows = np.ones((2, tiny_network().task_query.shape[1]), np.float32)
    rows[:, 0] = 7.0

    assert ood.methods == ("mahalanobis",)
    assert ood.distance(rows, [Kind.JOIN, Kind.CUT]) == pytest.approx([3.0, 3.0])
    for kind in Kind:
        assert check_card(folder).percentile(kind, 3.0) == pytest.approx(30.0)


def test_a_model_of_format_1_is_written_again_in_the_format_of_today(folder, tmp_path):
    as_format_1(folder)
    old = load_model(folder)
    save_model(tmp_path / "again", old.network, old.views, old.ood, {"name": "tiny"})
    new = load_model(tmp_path / "again")
    row = np.full((1, tiny_network().task_query.shape[1]), 2.0, np.float32)

    assert new.card["ood"] == {"default": "mahalanobis"}
    assert new.ood.distance(row, [Kind.CUT]) == old.ood.distance(row, [Kind.CUT])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(folder, value):
    def spoil(tensors):
        tensors["network.heads.join.weight"][0, 3] = value
        return tensors

    change_weights(folder, spoil)
    with pytest.raises(ModelError, match=r"NaN or infinity \(network\.heads\.join\.weight\)"):
        load_model(folder)


def test_who_may_read_the_card_may_read_the_weights(tmp_path):
    folder = tiny_model(tmp_path / "m")
    modes = {p.name: p.stat().st_mode for p in folder.iterdir()}

    assert modes["weights.safetensors"] == modes["card.json"]
