"""The two encodings over one hit map."""

import numpy as np
import pytest
from scenes import random_blobs, window_of

from cb2_assist.core.channels import GeometryChannel as Ch
from cb2_assist.core.channels import GeometryView
from cb2_assist.core.errors import BadRequestError
from cb2_assist.views.encode import (
    CLEAN_FARTHEST,
    ENCODINGS,
    downsample_em,
    downsample_geometry,
    encode,
    encode_cb2,
    encode_clean,
    srgb_warp,
)
from cb2_assist.views.hitmap import EMPTY, NORMAL_SCALE, HitMap, render_hits

EXTENT = 160.0


def two_plates():
    """A: short plate at x = -100 nm. B: at x = -50 nm behind it, and far away above it."""
    label = np.zeros((33, 33, 33), np.uint8)
    label[6:8, 10:23, 4:20] = 1
    label[11:13, 10:23, 10:24] = 2
    label[29:31, 10:23, 24:30] = 2
    return render_hits(window_of(label), EXTENT)


def random_hits(seed=0):
    rng = np.random.default_rng(seed)
    return render_hits(window_of(random_blobs(rng, (33, 33, 33))), EXTENT)


def front(geometry, channel):
    return geometry[GeometryView.FRONT, channel].astype(np.float32)


def test_masks_are_full_silhouettes_and_the_silhouette_is_their_union():
    hits = two_plates()
    for profile in ENCODINGS:
        geometry = encode(profile, hits, EXTENT)
        assert geometry.shape == (3, 7, 224, 224)
        assert geometry.dtype == np.float16
        a, b = (hits.depth_nm[:, k] != EMPTY for k in (0, 1))
        assert (a & b).any()
        np.testing.assert_array_equal(geometry[:, Ch.MASK_A], a)
        np.testing.assert_array_equal(geometry[:, Ch.MASK_B], b)
        np.testing.assert_array_equal(geometry[:, Ch.SILHOUETTE], a | b)


def test_background_is_zero_in_every_channel():
    for seed in range(3):
        hits = random_hits(seed)
        background = (hits.depth_nm == EMPTY).all(1)
        assert background.any()
        for profile in ENCODINGS:
            geometry = encode(profile, hits, EXTENT)
            assert not geometry.transpose(1, 0, 2, 3)[:, background].any()


def test_clean_depth_is_one_metric_scale_for_both_segments():
    depth = front(encode_clean(two_plates(), EXTENT), Ch.DEPTH)
    # faces at x = -105, -55 and 125 nm of a box from -160 to 160
    expected = [0, *(1 - 0.9 * (d + EXTENT) / (2 * EXTENT) for d in (125, -55, -105))]
    np.testing.assert_allclose(np.unique(depth), expected, atol=1e-3)


def test_clean_depth_of_the_farthest_hit_differs_from_background():
    hits = HitMap(np.full((3, 2, 8, 8), EMPTY, np.int16), np.zeros((3, 2, 3, 8, 8), np.int8))
    hits.depth_nm[:, 0, :4] = 160
    hits.depth_nm[:, 0, 0] = -160
    hits.depth_nm[:, 0, 1] = 169  # the anchor need not lie on a voxel's centre
    depth = front(encode_clean(hits, EXTENT), Ch.DEPTH)
    np.testing.assert_allclose(depth[0], 1)
    np.testing.assert_allclose(depth[1:4], CLEAN_FARTHEST, atol=1e-4)
    assert not depth[4:].any()


def test_clean_shows_the_nearer_segment_and_cb2_the_one_nearer_on_its_own_scale():
    hits = two_plates()
    both = (hits.depth_nm[0] != EMPTY).all(0)
    clean, cb2 = encode_clean(hits, EXTENT), encode_cb2(hits)
    a_depth = 1 - 0.9 * (EXTENT - 105) / (2 * EXTENT)
    np.testing.assert_allclose(front(clean, Ch.DEPTH)[both], a_depth, atol=1e-3)
    # per segment: A is flat, so 0 everywhere; B's near plate is 0 and its far one 1
    depth = front(cb2, Ch.DEPTH)
    b_only = (hits.depth_nm[0, 0] == EMPTY) & (hits.depth_nm[0, 1] != EMPTY)
    assert set(np.unique(depth[both])) == {0.0}
    assert set(np.unique(depth[b_only])) == {0.0, 1.0}


def test_cb2_occlusion_compares_depths_that_were_normalised_apart():
    # metrically B is in front everywhere; on its own scale A's first pixel is the nearer one
    hits = HitMap(np.full((3, 2, 2, 2), EMPTY, np.int16), np.zeros((3, 2, 3, 2, 2), np.int8))
    hits.depth_nm[:, 0] = [[100, 200], [300, EMPTY]]
    hits.depth_nm[:, 1] = [[50, -50], [EMPTY, EMPTY]]
    hits.normal_i8[:, 0, 0] = 127
    hits.normal_i8[:, 1, 1] = 127
    cb2, clean = encode_cb2(hits, normal_gamma=False), encode_clean(hits, 400.0)
    np.testing.assert_array_equal(front(cb2, Ch.DEPTH), [[0, 0], [1, 0]])
    np.testing.assert_array_equal(front(cb2, Ch.NORMAL_X), [[1, 0], [1, 0]])
    np.testing.assert_array_equal(front(clean, Ch.NORMAL_X), [[0, 0], [1, 0]])
    np.testing.assert_array_equal(front(clean, Ch.NORMAL_Y), [[1, 1], [0, 0]])


def test_encodings_equal_their_definition_in_plain_numpy():
    for seed in range(3):
        hits = random_hits(seed)
        mask = hits.depth_nm != EMPTY
        depth = np.where(mask, hits.depth_nm, np.nan).astype(np.float32)
        low = np.nanmin(depth, (2, 3), keepdims=True)
        high = np.nanmax(depth, (2, 3), keepdims=True)
        own = (depth - low) / (high - low + np.float32(1e-8))
        metric = 1 - 0.9 * np.clip((depth + EXTENT) / (2 * EXTENT), 0, 1)
        for got, order, value in (
            (encode_cb2(hits, normal_gamma=False), own, own),
            (encode_clean(hits, EXTENT), depth, metric),
        ):
            far = np.where(mask, order, np.inf)
            a_front = (far[:, 0] <= far[:, 1])[:, None]
            fused = np.where(a_front[:, 0], value[:, 0], value[:, 1])
            fused = np.where(mask.any(1), fused, 0)
            np.testing.assert_allclose(got[:, Ch.DEPTH], fused, atol=1e-3)
            normal = np.where(a_front, hits.normal_i8[:, 0], hits.normal_i8[:, 1]) / NORMAL_SCALE
            np.testing.assert_allclose(got[:, Ch.NORMAL_X : Ch.NORMAL_Z + 1], normal, atol=5e-4)


def test_normals_are_unit_vectors_in_clean():
    geometry = encode_clean(random_hits(), EXTENT).astype(np.float32)
    length = np.linalg.norm(geometry[:, Ch.NORMAL_X : Ch.NORMAL_Z + 1], axis=1)
    np.testing.assert_allclose(length[geometry[:, Ch.SILHOUETTE] == 1], 1, atol=0.01)


def test_srgb_warp_has_the_values_of_the_published_tensors():
    true = np.array([-1, -0.5, 0, 0.5, 1], np.float32)
    np.testing.assert_allclose(srgb_warp(true), [-1, 0.074, 0.471, 0.762, 1], atol=5e-4)


def test_cb2_normals_are_warped_inside_and_zero_outside():
    hits = two_plates()
    warped, plain = encode_cb2(hits), encode_cb2(hits, normal_gamma=False)
    inside = plain[:, Ch.SILHOUETTE] == 1
    for channel in (Ch.NORMAL_X, Ch.NORMAL_Y, Ch.NORMAL_Z):
        expected = srgb_warp(plain[:, channel].astype(np.float32))
        np.testing.assert_allclose(warped[:, channel][inside], expected[inside], atol=2e-3)
        assert not warped[:, channel][~inside].any()


def test_nothing_to_see_encodes_to_zeros():
    empty = HitMap(np.full((3, 2, 8, 8), EMPTY, np.int16), np.zeros((3, 2, 3, 8, 8), np.int8))
    for profile in ENCODINGS:
        assert not encode(profile, empty, EXTENT).any()


def test_one_empty_segment_does_not_disturb_the_other():
    label = np.zeros((33, 33, 33), np.uint8)
    label[10:20, 10:20, 10:20] = 2
    hits = render_hits(window_of(label), EXTENT)
    for profile in ENCODINGS:
        geometry = encode(profile, hits, EXTENT)
        assert not geometry[:, Ch.MASK_A].any()
        assert np.isfinite(geometry).all()
        np.testing.assert_array_equal(geometry[:, Ch.SILHOUETTE], geometry[:, Ch.MASK_B])


def test_an_unknown_profile_is_refused_with_the_known_ones():
    with pytest.raises(BadRequestError, match=r"'raw'.*cb2, clean"):
        encode("raw", random_hits(), EXTENT)


def test_reduced_geometry_is_a_subset_of_the_lines_of_sight():
    geometry = encode_clean(random_hits(), EXTENT)
    small = downsample_geometry(geometry)
    assert small.shape == (3, 7, 112, 112)
    np.testing.assert_array_equal(small[..., 5, 9], geometry[..., 10, 18])


def test_clean_may_leave_out_lines_of_sight_before_encoding():
    hits = random_hits()
    fewer = HitMap(hits.depth_nm[..., ::2, ::2], hits.normal_i8[..., ::2, ::2])
    expected = downsample_geometry(encode_clean(hits, EXTENT))
    np.testing.assert_array_equal(encode_clean(fewer, EXTENT), expected)


def test_reduced_em_is_the_mean_of_each_block():
    em = np.random.default_rng(0).integers(0, 256, (3, 3, 224, 224)).astype(np.uint8)
    small = downsample_em(em)
    expected = em.reshape(3, 3, 112, 2, 112, 2).mean((3, 5))
    np.testing.assert_array_equal(small, np.floor(expected + 0.5))
    assert small.dtype == np.uint8


@pytest.mark.parametrize("factor", [0, 3, -2])
def test_a_factor_that_does_not_divide_the_size_is_refused(factor):
    with pytest.raises(BadRequestError, match="factor"):
        downsample_em(np.zeros((3, 3, 224, 224), np.uint8), factor)
    with pytest.raises(BadRequestError, match="factor"):
        downsample_geometry(np.zeros((3, 7, 224, 224), np.float16), factor)
