"""What a decision looks like, in numbers that a network has no part in."""

import numpy as np
import pytest

from cb2_assist.core.channels import EmChannel, GeometryChannel
from cb2_assist.model.ood.appearance import (
    EM_NAMES,
    GEOMETRY_NAMES,
    PICTURE_WIDTH,
    appearance,
)

N, F, PX = 2, 4, 28


def views(seed=0):
    rng = np.random.default_rng(seed)
    em = np.zeros((N, 3, 3, PX, PX), np.uint8)
    em[:, :, EmChannel.EM] = rng.integers(40, 216, (N, 3, PX, PX))
    em[:, :, EmChannel.MASK_A, :, :7] = 255
    geometry = np.zeros((N, 3, 7, PX, PX), np.float16)
    geometry[:, :, GeometryChannel.SILHOUETTE, :14] = 1
    geometry[:, :, GeometryChannel.MASK_A, :7] = 1
    return geometry, em


def named(geometry, em):
    found = appearance(np.zeros((N, F), np.float32), geometry, em)
    assert found.shape == (N, F + PICTURE_WIDTH)
    assert np.isfinite(found).all()
    em_at, geometry_at = found[0, F : F + len(EM_NAMES)], found[0, F + len(EM_NAMES) :]
    return dict(zip(EM_NAMES, em_at, strict=True)), dict(
        zip(GEOMETRY_NAMES, geometry_at, strict=True)
    )


def test_shares_are_those_of_the_views():
    em, geometry = named(*views())

    assert em["side_a"] == pytest.approx(0.25)
    assert em["side_b"] == em["clipped"] == 0
    assert geometry["silhouette"] == geometry["least"] == pytest.approx(0.5)
    assert geometry["side_a"] == pytest.approx(0.25)
    assert geometry["depth_deviation"] == 0


def test_blur_noise_contrast_and_black_each_move_a_number():
    from scipy.ndimage import gaussian_filter

    geometry, em = views()
    usual, _ = named(geometry, em)

    def changed(grey):
        other = em.copy()
        other[:, :, EmChannel.EM] = np.clip(grey, 0, 255).astype(np.uint8)
        return named(geometry, other)[0]

    grey = em[:, :, EmChannel.EM].astype(np.float32)
    blurred = changed(gaussian_filter(grey, (0, 0, 2, 2)))
    assert blurred["fine_step"] < usual["fine_step"] - 1
    assert blurred["fine_step"] < blurred["coarse_step"] - 0.5
    assert changed(128 + 6 * (grey - 128))["clipped"] > usual["clipped"] + 0.3
    assert changed(grey + 60)["mean"] > usual["mean"] + 1
    assert changed(grey * 0)["deviation"] == 0
    one_plane = grey.copy()
    one_plane[:, 1:] = gaussian_filter(one_plane[:, 1:], (0, 0, 2, 0))
    assert changed(one_plane)["step_between_planes"] > usual["step_between_planes"] + 0.1


def test_long_tails_of_features_are_compressed_and_keep_their_sign():
    features = np.array([[0.0, 1.0, 1000.0, -1000.0]] * N, np.float32)
    found = appearance(features, *views())[0, :F]

    assert found == pytest.approx([0, np.arcsinh(1), np.arcsinh(1000), -np.arcsinh(1000)])


def test_absent_views_are_finite_and_no_decision_is_no_row():
    geometry, em = views()
    named(geometry * 0, em * 0)
    none = appearance(np.zeros((0, F), np.float32), geometry[:0], em[:0])
    assert none.shape == (0, F + PICTURE_WIDTH)
