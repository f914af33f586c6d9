"""The network's shapes, and that any subset of its tokens is an input."""

import numpy as np
import pytest
import torch
from fixtures_model import TINY_NETWORK, tiny_network

from cb2_assist.core.errors import ModelError
from cb2_assist.model.network import N_GEOMETRY, N_TOKENS, N_VIEWS, TASKS, MultiTaskViT, NetworkSpec


@pytest.fixture(scope="module")
def net():
    return tiny_network()


def images(n, channels):
    return torch.randn(n, channels, TINY_NETWORK.image_px, TINY_NETWORK.image_px)


def test_views_become_one_token_each(net):
    with torch.inference_mode():
        cls, patches = net.encode_views(
            images(4, 7), torch.tensor([0, 1, 2, 0]), images(3, 3), torch.tensor([3, 4, 5])
        )

    assert cls.shape == (7, 192)
    assert patches.shape == (4, 4, 192)


@pytest.mark.parametrize(("geometry", "em"), [(3, 0), (0, 3)])
def test_either_modality_alone_is_enough(net, geometry, em):
    with torch.inference_mode():
        cls, patches = net.encode_views(
            images(geometry, 7),
            torch.arange(geometry),
            images(em, 3),
            torch.arange(em) + N_GEOMETRY,
        )

    assert cls.shape == (3, 192)
    assert len(patches) == geometry


def test_any_subset_of_tokens_is_answered(net):
    subsets = torch.arange(1, 2**N_TOKENS)
    present = (subsets[:, None] >> torch.arange(N_TOKENS)) & 1
    tokens = torch.randn(1, N_TOKENS, 192).expand(len(subsets), -1, -1)
    with torch.inference_mode():
        logit, embedding = net.decide(
            tokens, present == 0, torch.zeros(len(subsets), dtype=torch.long)
        )

    assert torch.isfinite(logit).all()
    assert embedding.shape == (2**N_TOKENS - 1, 192)


def test_absent_tokens_do_not_matter(net):
    tokens = torch.randn(1, N_TOKENS, 192)
    other = tokens.clone()
    other[:, 2] = 9.0
    absent = torch.zeros(1, N_TOKENS, dtype=torch.bool)
    absent[:, 2] = True
    task = torch.tensor([1])
    with torch.inference_mode():
        assert net.decide(tokens, absent, task)[0] == net.decide(other, absent, task)[0]


def test_tasks_have_heads_of_their_own(net):
    tokens = torch.randn(1, N_TOKENS, 192).expand(len(TASKS), -1, -1)
    absent = torch.zeros(len(TASKS), N_TOKENS, dtype=torch.bool)
    with torch.inference_mode():
        logit, _ = net.decide(tokens, absent, torch.arange(len(TASKS)))

    assert len(set(logit.tolist())) == len(TASKS)


def test_masks_have_the_size_of_the_images(net):
    with torch.inference_mode():
        assert net.masks(torch.randn(2, 4, 192)).shape == (2, 2, 32, 32)


def test_wild_features_are_clamped(net):
    wild = torch.full((1, TINY_NETWORK.features), 1e9)
    with torch.inference_mode():
        assert torch.equal(net.feature_tokens(wild), net.feature_tokens(wild * 10))


def test_the_shipped_shape_fits_sixteen_megabytes():
    from cb2_assist.model.checkpoint import MAX_BYTES

    parameters = sum(p.numel() for p in MultiTaskViT(NetworkSpec()).state_dict().values())

    assert 2 * parameters < MAX_BYTES


@pytest.mark.parametrize("encoder", ["resnet18", "no_such_network"])
def test_an_unusable_encoder_is_told_in_words(encoder):
    with pytest.raises(ModelError, match="vision transformer"):
        MultiTaskViT(NetworkSpec(encoder=encoder))


def test_views_count_matches_the_channel_table(net):
    assert net.view_embedding.shape == (N_VIEWS, 192)
    assert np.isfinite(net.view_embedding.detach().numpy()).all()
