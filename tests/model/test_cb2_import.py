"""ConnectomeBench2 checkpoints: the same numbers as their network, or a refusal in words."""

import json
import pickle
import zipfile

import numpy as np
import pytest
import torch
import upstream_cb2
from neurites import DUMBBELL, PARTNER, neurites
from scenes_of_sites import stacks_of

from cb2_assist.core.errors import ModelError, UsageError
from cb2_assist.core.records import Kind
from cb2_assist.model import cb2_keys
from cb2_assist.model.card import CARD, WEIGHTS, check_card, sha256_of
from cb2_assist.model.cb2_import import EM_EXTENTS_NM, EXTENTS_NM, Provenance, import_checkpoint
from cb2_assist.model.checkpoint import load_model
from cb2_assist.model.network import TASKS

WIDTH = 192
FIRST = "backbone.encoder.layers.encoder_layer_0."


@pytest.fixture(autouse=True)
def small_encoder(monkeypatch):
    """Their smallest network has 88 million weights; one of 6 million goes the same way."""
    monkeypatch.setitem(cb2_keys.ENCODERS, WIDTH, "vit_tiny_patch16_224")


@pytest.fixture(scope="module")
def theirs():
    return upstream_cb2.upstream()


@pytest.fixture(scope="module")
def file(theirs, tmp_path_factory):
    return upstream_cb2.save(theirs, tmp_path_factory.mktemp("theirs") / "full_4sp_best.pt")


@pytest.fixture
def folder(file, tmp_path):
    import_checkpoint(file, tmp_path / "model", Provenance(species=("mouse", "fly")))
    return tmp_path / "model"


def images(channels, n=2, seed=1):
    return torch.randn(n, channels, 224, 224, generator=torch.Generator().manual_seed(seed))


def same_answers(theirs, ours):
    """Join, cut and synapse on geometry and EM, and the masks, to 1e-5."""
    geometry, em = images(7), images(3)
    with torch.inference_mode():
        cls, patches = ours.encode(geometry, em)
        both = [theirs.logits(x) for x in (geometry, em)]
        for task in TASKS:
            logits = torch.cat([x[task] for x in both])
            wanted, got = logits[:, 1] - logits[:, 0], ours.log_odds(cls, task)
            assert wanted.std() > 0.1
            torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)
        torch.testing.assert_close(ours.masks(patches), theirs.masks(geometry), atol=1e-5, rtol=0)


def test_the_imported_network_answers_as_theirs_does(theirs, folder):
    same_answers(theirs, load_model(folder).network)


def test_their_base_network_answers_alike_at_its_full_size(tmp_path):
    theirs = upstream_cb2.upstream(seed=3, width=768)
    file = upstream_cb2.save(theirs, tmp_path / "base.pt")
    card = import_checkpoint(file, tmp_path / "model", Provenance())

    assert card["network"]["encoder"] == "vit_base_patch16_224"
    assert sum(p.numel() for p in theirs.parameters()) == 88_134_728  # as their description counts
    same_answers(theirs, load_model(tmp_path / "model").network)
    for large in (file, tmp_path / "model" / WEIGHTS):
        large.unlink()  # 350 MB each, in a folder that is kept


def without_copies(state):
    return {k: v for k, v in state.items() if not k.startswith(("mask_head.b", "mask_head.v"))}


def wrapped(state):
    return {f"module.{k}": v for k, v in state.items()}


def old_names(state):
    return {
        k.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): v
        for k, v in state.items()
    }


def without_copies_in_double(state):
    kept = without_copies(state)
    return {k: v.double() if v.is_floating_point() else v for k, v in kept.items()}


FORMS = [without_copies, wrapped, old_names, without_copies_in_double]


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.__name__)
def test_other_forms_of_the_same_weights_give_the_same_file(theirs, file, tmp_path, form):
    other = upstream_cb2.save(theirs, tmp_path / "other.pt", model=form(theirs.state_dict()))
    for name, source in (("a", file), ("b", other)):
        import_checkpoint(source, tmp_path / name, Provenance())

    assert (tmp_path / "a" / WEIGHTS).read_bytes() == (tmp_path / "b" / WEIGHTS).read_bytes()


def test_a_state_dict_alone_is_taken_too(theirs, tmp_path):
    torch.save(theirs.state_dict(), tmp_path / "bare.pt")
    card = import_checkpoint(tmp_path / "bare.pt", tmp_path / "model", Provenance())

    assert "epoch" not in card["origin"]
    assert load_model(tmp_path / "model").name == "bare"


def test_the_card_says_where_it_came_from_and_claims_nothing(file, folder):
    card = json.loads((folder / CARD).read_text())

    assert card["name"] == "full_4sp_best"
    assert card["origin"]["file"] == "full_4sp_best.pt"
    assert card["origin"]["sha256"] == sha256_of(file)
    assert card["origin"]["epoch"] == 9
    assert card["origin"]["cfg"]["task_weights"] == [1.0, 1.0, 1.0, 0.25]
    assert card["origin"]["metrics"] == {"val/endpoint_bacc": 0.91, "val/mask_miou": "nan"}
    assert card["calibration"] == "uncalibrated"
    assert card["ood"] == "unknown"
    stated = card["data"][0]
    assert stated["species"] == ["mouse", "fly"]
    assert stated["licence"] == stated["citation"] == "not stated"


def test_who_may_read_the_card_may_read_the_weights(folder):
    assert (folder / WEIGHTS).stat().st_mode == (folder / CARD).stat().st_mode
    assert [p.name for p in sorted(folder.iterdir())] == [CARD, WEIGHTS]
    assert list(folder.parent.iterdir()) == [folder]


def test_what_its_owner_says_goes_on_the_card(file, tmp_path):
    given = Provenance("four", ("fly",), "CC BY-NC 4.0", "Farkas 2026")
    card = import_checkpoint(file, tmp_path / "m", given)

    assert card["name"] == "four"
    assert card["data"][0]["licence"] == "CC BY-NC 4.0"
    assert card["data"][0]["citation"] == "Farkas 2026"


@pytest.mark.parametrize("species", EXTENTS_NM)
def test_views_have_the_middle_of_their_extents_for_the_species(folder, species):
    views = check_card(folder).views_for(species)

    assert views.profile == "cb2"
    assert views.extent_nm == sum(EXTENTS_NM[species]) / 2
    assert views.em_extent_nm == EM_EXTENTS_NM[species]
    assert views.image_px == 224
    assert views.em_oblique


def test_another_species_gets_the_smallest_extents(folder):
    assert check_card(folder).views_for("other").extent_nm == 3000


def test_an_extent_that_is_given_counts_for_every_species(file, tmp_path):
    import_checkpoint(file, tmp_path / "m", Provenance(extent_nm=640.0))

    card = check_card(tmp_path / "m")
    assert {card.views_for(s).extent_nm for s in (*EXTENTS_NM, "other")} == {640.0}


# what is wrong with the weights, and what is said of it


def without(*names):
    return lambda state: {k: v for k, v in state.items() if k not in names}


def with_(**changes):
    return lambda state: state | {k.replace("__", "."): v for k, v in changes.items()}


def changed(name, change):
    return lambda state: state | {name: change(state[name].clone())}


def poisoned(value, number):
    value.view(-1)[0] = number
    return value


BAD_WEIGHTS = {
    "a head is missing": (without("cls_endpoint.1.weight"), r"lacks 1 .*cls_endpoint\.1\.weight"),
    "a block is missing": (
        lambda s: {k: v for k, v in s.items() if "encoder_layer_11." not in k},
        "lacks 12 .*and 9 more",
    ),
    "nothing of it": (lambda _: {"fc.weight": torch.zeros(2, 2)}, "no 'backbone.class_token'"),
    "an unknown tensor": (with_(head__weight=torch.zeros(1)), "unknown 1 .*head.weight"),
    "one block too many": (
        lambda s: s | {k.replace("_0.", "_12."): v for k, v in s.items() if FIRST in k},
        "unknown 24 of its",
    ),
    "another width": (
        changed("backbone.class_token", lambda _: torch.zeros(1, 1, 1280)),
        r"1280 wide\. Known: 768",
    ),
    "a class token of no width": (
        changed("backbone.class_token", lambda _: torch.tensor(0.0)),
        "0 wide",
    ),
    "EM with one channel": (
        changed("conv_proj_em.weight", lambda v: v[:, :1]),
        "conv_proj_em.weight is 192 x 1 x 16 x 16, not 192 x 3 x 16 x 16",
    ),
    "positions of another image": (
        changed("backbone.encoder.pos_embedding", lambda _: torch.zeros(1, 1370, WIDTH)),
        "1 x 1370 x 192, not 1 x 197 x 192",
    ),
    "a weight is NaN": (
        changed(f"{FIRST}mlp.0.weight", lambda v: poisoned(v, torch.nan)),
        "else than finite .*mlp.0.weight",
    ),
    "a weight is infinite": (
        changed("cls_junction.1.bias", lambda v: poisoned(v, torch.inf)),
        "else than finite .*cls_junction.1.bias",
    ),
    "whole numbers for weights": (changed("cls_synapse.1.bias", lambda v: v.int()), "else than"),
    "sparse": (changed("cls_endpoint.1.weight", lambda v: v.to_sparse()), "else than finite"),
    "on no device": (changed("cls_endpoint.1.bias", lambda v: v.to("meta")), "else than finite"),
    "copies that differ": (
        changed("mask_head.backbone.conv_proj.bias", lambda v: v + 1),
        "two versions that differ of 1 .*conv_proj.bias",
    ),
}


def refused(source, tmp_path, words, given=None):
    """In one line, and with nothing left behind."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises((ModelError, UsageError), match=words) as error:
        import_checkpoint(source, tmp_path / "new" / "model", given or Provenance())
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before
    return str(error.value)


@pytest.mark.parametrize("what", BAD_WEIGHTS)
def test_weights_that_do_not_fit_are_refused_in_words(theirs, tmp_path, what):
    change, words = BAD_WEIGHTS[what]
    state = change(dict(theirs.state_dict()))
    if what != "copies that differ":
        state = without_copies(state) | {
            k: v for k, v in state.items() if k not in theirs.state_dict()
        }
    file = upstream_cb2.save(theirs, tmp_path / "bad.pt", model=state)

    assert "Nothing was written" in refused(file, tmp_path, words)


class Hostile:
    """Makes a file beside itself when it is read by something that runs what it reads."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def hostile(path):
    torch.save({"model": {"a": Hostile(path.with_name("was-run"))}}, path)


def zipped(path):
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("notes.txt", "nothing")


def plain_pickle(path):
    path.write_bytes(pickle.dumps({"model": {"a": np.zeros(3)}}))


def cut(share):
    def make(path):
        upstream_cb2.save(upstream_cb2.upstream(depth=1), path)
        data = path.read_bytes()
        path.write_bytes(data[: int(share * len(data))])

    return make


NO_CHECKPOINTS = {
    "absent": (lambda _: None, "cannot be read: No such file"),
    "a folder": (lambda p: p.mkdir(), "cannot be read: Is a directory"),
    "empty": (lambda p: p.touch(), "cut off, damaged|damaged, or no file"),
    "text": (lambda p: p.write_text("weights\n" * 99), "damaged, or no file of torch.save"),
    "zeros": (lambda p: p.write_bytes(bytes(5000)), "damaged, or no file of torch.save"),
    "a zip of something": (zipped, "damaged, or no file of torch.save"),
    "half of one": (cut(0.5), "cut off, damaged"),
    "all but the end of one": (cut(0.999), "cut off, damaged"),
    "code": (hostile, r"a Python object, \S+, and reading that could run code"),
    "a pickle": (plain_pickle, "cannot be read as weights"),
    "a tensor": (lambda p: torch.save(torch.zeros(3), p), "holds no state dict: Tensor"),
    "a list": (lambda p: torch.save([1, 2], p), "holds no state dict: list"),
    "an empty dict": (lambda p: torch.save({}, p), "holds no state dict: a dict with nothing"),
    "a dict of numbers": (lambda p: torch.save({"model": {"a": 1}}, p), "a dict with 'model'"),
    "numbers for names": (lambda p: torch.save({1: torch.zeros(1)}, p), "a dict with 1"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", NO_CHECKPOINTS)
def test_what_is_no_checkpoint_is_refused_in_words(tmp_path, what):
    make, words = NO_CHECKPOINTS[what]
    make(tmp_path / "given.pt")

    refused(tmp_path / "given.pt", tmp_path, words)
    assert not (tmp_path / "was-run").exists()


@pytest.mark.parametrize("kind", ["folder", "empty folder", "file", "dangling link"])
def test_what_exists_is_not_touched(file, tmp_path, kind):
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("mine")
    elif kind == "dangling link":
        out.symlink_to(tmp_path / "nowhere")
    else:
        out.mkdir()
        if kind == "folder":
            (out / "mine").touch()
    before = sorted(tmp_path.rglob("*"))

    with pytest.raises(UsageError, match="exists already"):
        import_checkpoint(file, out, Provenance())
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_cannot_be_made_is_said(file, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="cannot be made"):
        import_checkpoint(file, tmp_path / "file" / "model", Provenance())


def test_a_full_disk_leaves_nothing(file, tmp_path, monkeypatch):
    def full(_tensors, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cb2_assist.model.cb2_import.save_file", full)
    with pytest.raises(ModelError, match=r"No space left.*Nothing was left"):
        import_checkpoint(file, tmp_path / "out", Provenance())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (Provenance(species=("ant",)), "no species 'ant'.*Known: mouse"),
        (Provenance(extent_nm=0.0), "positive number"),
        (Provenance(extent_nm=float("nan")), "positive number"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_read(tmp_path, given, words):
    refused(tmp_path / "absent.pt", tmp_path, words, given)


def test_stacks_are_read_as_their_loader_reads_them(theirs, folder):
    """One number per decision: the mean of what their network says of each view."""
    from cb2_assist.model.predictor import Predictor

    kinds = [Kind.JOIN, Kind.CUT, Kind.JOIN]
    stacks = stacks_of(neurites(), DUMBBELL, PARTNER, kinds, 320.0, profile="cb2", em_oblique=True)
    predictor = Predictor.open(folder, "cpu", threads=1)
    try:
        alone = predictor.predict(stacks, kinds)
        together = predictor.predict_batch(stacks, kinds)
    finally:
        predictor.close()
    for stack, kind, output, again in zip(stacks, kinds, alone, together, strict=True):
        geometry, em = loaded_by_them(stack, kind)
        with torch.inference_mode():
            p = torch.cat([theirs.probability(x, kind.value) for x in (geometry, em)])
        names = ["front", "side", "top", "em_xy", "em_xz", "em_yz", "em_oblique"]
        assert [v.name for v in output.views] == names[: len(p)]
        assert len(p) == (7 if kind is Kind.JOIN else 6)
        np.testing.assert_allclose([v.score for v in output.views], p, atol=1e-5, rtol=0)
        assert 1 / (1 + np.exp(-output.logit)) == pytest.approx(float(p.mean()), abs=1e-5)
        assert again.logit == pytest.approx(output.logit, abs=1e-5)


def loaded_by_them(stack, kind):
    """Their loader: a pair with both masks, a single with none and its one mask in green."""
    geometry = torch.from_numpy(stack.geometry().astype(np.float32))
    em = [*stack.em, stack.em_oblique] if kind is Kind.JOIN else [*stack.em]
    rgb = torch.stack([torch.from_numpy(x.astype(np.float32)) for x in em]) / 255
    if kind is Kind.CUT:
        geometry[:, 5:7] = 0
        rgb[:, 1] = torch.maximum(rgb[:, 1], rgb[:, 2])
        rgb[:, 2] = 0
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    return geometry, (rgb - mean) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
