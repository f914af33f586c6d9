"""A pretrained encoder's folder: read whole, or refused in words."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from fixtures_training import STEADY_NETWORK
from safetensors.torch import load_file, save_file

from cb2_assist.core.errors import ModelError
from cb2_assist.model.card import sha256_of
from cb2_assist.model.masked import SHARED, MaskedSpec, MaskedViews
from cb2_assist.model.network import MultiTaskViT
from cb2_assist.model.start import ENCODER, PRETRAIN, read_start, save_start

CARD = {"network": {"encoder": "test_vit", "image_px": 32}, "data": [{"name": "d", "licence": "x"}]}


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(5)
    net = MaskedViews(MaskedSpec("test_vit", 32, decoder_width=32, decoder_blocks=1))
    save_start(tmp_path, net, CARD)
    return tmp_path


def test_it_replaces_the_encoder_and_nothing_else(folder):
    torch.manual_seed(0)
    net = MultiTaskViT(STEADY_NETWORK)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    start = read_start(folder)
    start.apply(net)

    after = net.state_dict()
    assert {k for k in after if k.startswith(SHARED)} == set(start.weights)
    for k, v in after.items():
        assert torch.equal(v, start.weights.get(k, before[k])), k
    changed = [k for k in start.weights if not torch.equal(after[k], before[k])]
    assert {"view_embedding", "em_patches.weight", "encoder.patch_embed.proj.weight"} <= {*changed}


@pytest.mark.parametrize("other", [{"encoder": "test_vit3"}, {"image_px": 64}])
def test_another_encoder_or_size_is_refused_with_what_to_do(folder, other):
    net = MultiTaskViT(replace(STEADY_NETWORK, image_px=64))
    with pytest.raises(ModelError, match="--encoder test_vit --px 32"):
        read_start(folder).check(replace(STEADY_NETWORK, **other))
    with pytest.raises(ModelError, match="--px 32"):
        read_start(folder).apply(net)


@pytest.mark.parametrize("how", ["missing", "unknown", "shape"])
def test_weights_of_other_names_or_shapes_are_refused(folder, how):
    weights = load_file(folder / ENCODER)
    if how == "missing":
        del weights["view_embedding"]
    elif how == "unknown":
        weights["encoder.more"] = torch.zeros(1)
    else:
        weights["em_patches.weight"] = torch.zeros(1, 2)
    save_file(weights, folder / ENCODER)
    card = json.loads((folder / PRETRAIN).read_text())
    card["weights"]["sha256"] = sha256_of(folder / ENCODER)
    (folder / PRETRAIN).write_text(json.dumps(card))

    with pytest.raises(ModelError, match=r"do not fit the network: 1 of \d+.*pretrain again"):
        read_start(folder).apply(MultiTaskViT(STEADY_NETWORK))


def test_folders_that_are_none_are_refused_in_words(folder, tmp_path):
    with pytest.raises(ModelError, match="--out of a finished cb2-assist pretrain"):
        read_start(tmp_path / "nowhere")

    encoder, card = (folder / ENCODER).read_bytes(), (folder / PRETRAIN).read_text()
    broken = {
        "cannot be read": (encoder[:100], card),
        "not the one of the card": (encoder, card.replace('"sha256": "', '"sha256": "00')),
        "not JSON": (encoder, card[:50]),
        "format 9": (encoder, card.replace('"format": 1', '"format": 9')),
        "lacks or misnames": (encoder, card.replace('"image_px"', '"image"')),
    }
    for says, (weights, text) in broken.items():
        (folder / ENCODER).write_bytes(weights)
        (folder / PRETRAIN).write_text(text)
        with pytest.raises(ModelError, match=says):
            read_start(folder)


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    net = MaskedViews(MaskedSpec("test_vit", 32, decoder_width=32, decoder_blocks=1))
    with torch.no_grad():
        net.view_embedding[0, 0] = torch.nan
    save_start(tmp_path, net, CARD)
    with pytest.raises(ModelError, match="NaN or infinity"):
        read_start(tmp_path)
