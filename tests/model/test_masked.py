"""Masked modelling: what is hidden stays hidden, and what is to be said of it."""

from __future__ import annotations

import pytest
import torch

from cb2_assist.core.channels import EmChannel, GeometryChannel
from cb2_assist.core.errors import ModelError
from cb2_assist.model.masked import (
    MaskedSpec,
    MaskedViews,
    Shown,
    channel_losses,
    hidden_part,
    shown_means,
    targets,
)
from cb2_assist.model.network import MultiTaskViT, NetworkSpec

PX, PATCH = 64, 16
SPEC = MaskedSpec(encoder="test_vit", image_px=PX, decoder_width=32, decoder_blocks=1)
GEOMETRY_VIEW, EM_VIEW = torch.tensor([0, 2]), torch.tensor([3, 4])


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return MaskedViews(SPEC).eval()


@pytest.fixture(scope="module")
def shown():
    torch.manual_seed(1)
    orders = [torch.rand(2, 16).argsort(1) for _ in range(2)]
    return Shown(orders[0][:, :4], orders[0][:, 4:], orders[1][:, :4], orders[1][:, 4:])


def images():
    torch.manual_seed(2)
    geometry, em = torch.rand(2, 7, PX, PX), torch.randn(2, 3, PX, PX)
    geometry[:, GeometryChannel.SILHOUETTE] = geometry[:, GeometryChannel.SILHOUETTE].round()
    return geometry, em


def painted(image, patches, value):
    """Every pixel of some patches of each image set to a value."""
    out = image.clone()
    for k, of in enumerate(patches.tolist()):
        for p in of:
            rows, columns = (slice(PATCH * n, PATCH * (n + 1)) for n in divmod(p, PX // PATCH))
            out[k, :, rows, columns] = value
    return out


def test_hidden_patches_never_reach_the_encoder(net, shown):
    geometry, em = images()
    other = (
        painted(geometry, shown.geometry_hidden, 5.0),
        painted(em, shown.em_hidden, -5.0),
    )
    with torch.inference_mode():
        before = net.encode(geometry, GEOMETRY_VIEW, em, EM_VIEW, shown)
        hidden = net.encode(other[0], GEOMETRY_VIEW, other[1], EM_VIEW, shown)
        seen = net.encode(
            painted(geometry, shown.geometry[:, :1], 5.0), GEOMETRY_VIEW, em, EM_VIEW, shown
        )
        said, again = (
            net(*x) for x in (
                (geometry, GEOMETRY_VIEW, em, EM_VIEW, shown),
                (other[0], GEOMETRY_VIEW, other[1], EM_VIEW, shown),
            )
        )  # fmt: skip

    assert before.shape == (2, 2 + 2 * 4, net.view_embedding.shape[1])
    assert torch.equal(before, hidden)
    assert torch.equal(said[0], again[0])
    assert torch.equal(said[1], again[1])
    assert not torch.equal(before, seen)


def test_each_kind_of_image_helps_with_the_other(net, shown):
    geometry, em = images()
    with torch.inference_mode():
        said = net(geometry, GEOMETRY_VIEW, em, EM_VIEW, shown)
        changed = painted(em, shown.em, 3.0)
        other = net(geometry, GEOMETRY_VIEW, changed, EM_VIEW, shown)
    assert said[0].shape == (2, 12, 7, PATCH**2)
    assert said[1].shape == (2, 12, 3, PATCH**2)
    assert not torch.allclose(said[0], other[0])


def test_targets_are_those_of_the_patches_that_the_encoder_does_not_read(shown):
    geometry, em = images()
    value = targets(geometry, em, PATCH)[2]
    mask = 2 * em[:, EmChannel.MASK_A] - 1
    p = int(shown.em_hidden[1, 3])
    rows, columns = (slice(PATCH * n, PATCH * (n + 1)) for n in divmod(p, PX // PATCH))
    found = hidden_part(value, shown.em_hidden)[1, 3, EmChannel.MASK_A]
    assert torch.equal(found, mask[1, rows, columns].reshape(-1))


def test_depth_and_normals_count_where_there_is_a_surface_only(shown):
    geometry, em = images()
    value, weight, em_value, em_weight = targets(geometry, em, PATCH)
    surface = value[:, :, GeometryChannel.SILHOUETTE] > 0
    for channel in GeometryChannel:
        on_surface = channel in (
            GeometryChannel.DEPTH,
            GeometryChannel.NORMAL_X,
            GeometryChannel.NORMAL_Y,
            GeometryChannel.NORMAL_Z,
        )
        wanted = surface.float() if on_surface else torch.ones_like(weight[:, :, channel])
        assert torch.equal(weight[:, :, channel], wanted)
    assert bool((em_weight == 1).all())
    grey = em_value[:, :, EmChannel.EM]
    assert grey.mean(2).abs().max() < 1e-5
    assert grey.var(2).sub(1).abs().max() < 0.05
    depth = value[:, :, GeometryChannel.DEPTH]
    mean = (depth * surface).sum(2) / surface.sum(2)
    assert mean.abs().max() < 1e-4

    # no error of depth off the surface counts
    said = value + 7.0 * (1 - weight)
    error, n = channel_losses(
        hidden_part(said, shown.geometry_hidden),
        hidden_part(value, shown.geometry_hidden),
        hidden_part(weight, shown.geometry_hidden),
    )
    assert bool((error == 0).all())
    assert bool((n > 0).all())


def test_the_cheap_guess_is_the_mean_of_what_is_shown():
    value = torch.arange(4.0)[None, :, None, None].expand(1, 4, 2, 3)
    weight = torch.ones_like(value).clone()
    weight[:, :, 1] = 0
    guess = shown_means(value, weight, torch.tensor([[1, 3]]))
    assert guess[0, 0, :, 0].tolist() == [2.0, 0.0]


def test_the_encoder_s_weights_are_the_network_s_by_name_and_shape(net):
    full = MultiTaskViT(NetworkSpec(encoder="test_vit", image_px=PX)).state_dict()
    mine = net.state_dict()
    shared = {k for k in mine if k.startswith(("encoder.", "em_patches.", "view_embedding"))}
    assert len(shared) > 20
    assert all(full[k].shape == mine[k].shape for k in shared)
    assert {k for k in full if k.startswith(("encoder.", "em_patches.", "view_emb"))} == shared


@pytest.mark.parametrize(
    ("encoder", "px", "says"),
    [
        ("test_vit", 56, "do not fill"),
        ("resnet18", 64, "timm vision transformer"),
        ("test_vit2", 64, "plain vision transformer"),
    ],
)
def test_encoders_that_cannot_be_used_are_refused_in_words(encoder, px, says):
    with pytest.raises(ModelError, match=says):
        MaskedViews(MaskedSpec(encoder=encoder, image_px=px))
