"""EM planes: orientation, grey scale, field of view, edges."""

import numpy as np
import pytest
from PIL import Image
from scenes import ISO, STATISTICS, part_of, random_blobs, window_of

from cb2_assist.core.channels import EmChannel, EmView
from cb2_assist.core.errors import BadRequestError
from cb2_assist.core.geometry import BoxVx, PointVoxel, Resolution
from cb2_assist.datasets.source import EmStatistics
from cb2_assist.views.em import CLEAN_OUTSIDE, render_em

EXTENT = 320.0
AXES = {EmView.XY: (0, 1), EmView.XZ: (0, 2), EmView.YZ: (1, 2)}


def clean(window, extent=EXTENT, statistics=STATISTICS):
    return render_em(window, extent, "clean", statistics)


def noise_window(seed=0, shape=(65, 65, 65), **kwargs):
    rng = np.random.default_rng(seed)
    em = rng.integers(0, 256, shape).astype(np.uint8)
    return window_of(random_blobs(rng, shape), em=em, **kwargs)


@pytest.mark.parametrize("profile", ["clean", "cb2"])
def test_rows_are_the_first_axis_and_columns_the_second_both_upwards(profile):
    em = np.zeros((65, 65, 65), np.uint8)
    label = np.zeros_like(em)
    # from the centre: a long bright arm to +x, a middle one to +y, a short one to +z
    for volume, value in ((em, 200), (label, 1)):
        volume[32:60, 31:34, 31:34] = value
        volume[31:34, 32:50, 31:34] = value
        volume[31:34, 31:34, 32:41] = value
    out = render_em(window_of(label, em=em), EXTENT, profile, STATISTICS)
    reach = {0: 275, 1: 175, 2: 85}
    extent = EXTENT if profile == "clean" else EXTENT + 5  # cb2: 65 whole voxels
    px = 2 * extent / 224
    for view, axes in AXES.items():
        for channel in (EmChannel.EM, EmChannel.MASK_A):
            found = np.nonzero(out[view, channel] > 140)
            for index, axis in zip(found, axes, strict=True):
                assert abs((index.max() + 1) * px - extent - reach[axis]) <= 1.5 * px
                assert abs(index.min() * px - extent + 15) <= 1.5 * px
        assert not out[view, EmChannel.MASK_B].any()


def test_clean_grey_is_the_z_score_of_the_dataset():
    # 120 is the mean, 30 the standard deviation
    for value, expected in ((120, 128), (150, 170), (90, 85), (210, 255), (240, 255), (20, 0)):
        em = np.full((65, 65, 65), value, np.uint8)
        out = clean(window_of(np.zeros_like(em), em=em))
        assert set(np.unique(out[:, EmChannel.EM])) == {expected}


def test_clean_samples_voxels_linearly():
    em = np.zeros((65, 65, 65), np.uint8)
    em[:] = (np.arange(65) * 3 + 20)[:, None, None]
    out = clean(window_of(np.zeros_like(em), em=em), statistics=EmStatistics(120.0, 40.0))
    at_nm = (np.arange(224) + 0.5) * 640 / 224 - 320
    grey = 3 * (at_nm / 10 + 32) + 20
    expected = np.clip((grey - 120) / 40, -3, 3) * 42.5 + 127.5
    inner = np.abs(at_nm) < 315
    for view in (EmView.XY, EmView.XZ):
        got = out[view, EmChannel.EM][inner]
        np.testing.assert_allclose(got, expected[inner, None].repeat(224, 1), atol=0.51)


def test_a_plane_is_the_mean_of_three_slices_and_masks_are_their_union():
    em = np.full((33, 33, 33), 120, np.uint8)
    label = np.zeros_like(em)
    em[:, :, 15], em[:, :, 17], em[:, :, 14], em[:, :, 18] = 90, 180, 255, 255
    label[:, 4:8, 15] = 1
    label[:, 8:12, 17] = 2
    label[:, 20:24, 14] = label[:, 24:28, 18] = 1
    out = clean(window_of(label, em=em), 160.0)[EmView.XY]
    assert set(np.unique(out[EmChannel.EM])) == {142}  # mean 130 is a third of a deviation
    px = 330 / 320 * 224 / 33
    columns = np.nonzero(out[EmChannel.MASK_A].all(0))[0]
    assert abs(columns.min() - (4 - 0.5) * px) < px / 2
    assert abs(columns.max() + 1 - (8 - 0.5) * px) < px / 2
    assert set(np.unique(out[EmChannel.MASK_A])) == {0, 255}
    assert out[EmChannel.MASK_B].any()
    assert not (out[EmChannel.MASK_A] & out[EmChannel.MASK_B]).any()


@pytest.mark.parametrize("profile", ["clean", "cb2"])
@pytest.mark.parametrize("resolution", [ISO, Resolution(8, 8, 40)])
def test_a_crop_of_a_large_window_renders_like_the_window_alone(profile, resolution):
    lo = (1000, -20, 77)
    anchor = [(o + 32.7) * r for o, r in zip(lo, resolution, strict=True)]
    large = noise_window(lo=lo, resolution=resolution, anchor=anchor)
    box = BoxVx.around(large.site.point, 193.0, resolution)
    expected = render_em(large, 193.0, profile, STATISTICS)
    got = render_em(part_of(large, box), 193.0, profile, STATISTICS)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("order", ["C", "F", "sliced", "read-only"])
@pytest.mark.parametrize("profile", ["clean", "cb2"])
def test_memory_order_does_not_matter(order, profile):
    window = noise_window()
    expected = render_em(window, EXTENT, profile, STATISTICS)
    em = window.em
    if order in "CF":
        em = np.array(em, order=order)
    elif order == "sliced":
        em = np.zeros((140, 70, 70), np.uint8, order="F")[1:131:2, 1:66, 2:67]
        em[:] = window.em
    else:
        em = em.copy()
        em.flags.writeable = False
    got = render_em(window_of(window.label, em=em), EXTENT, profile, STATISTICS)
    np.testing.assert_array_equal(got, expected)


def test_clean_grey_does_not_depend_on_what_else_is_in_view():
    window = noise_window()
    bright = window.em.copy()
    bright[:20] = 255
    a, b = clean(window), clean(window_of(window.label, em=bright))
    np.testing.assert_array_equal(a[EmView.XY, :, 100:], b[EmView.XY, :, 100:])


@pytest.mark.parametrize(("profile", "outside"), [("clean", CLEAN_OUTSIDE), ("cb2", 0)])
def test_beyond_the_volume_is_flat(profile, outside):
    window = noise_window(seed=2)
    clipped = part_of(window, BoxVx(PointVoxel(22, 0, 0), PointVoxel(65, 65, 65)))
    out = render_em(clipped, EXTENT, profile, STATISTICS)
    for view in (EmView.XY, EmView.XZ):
        lost = out[view, :, :64]  # Lanczos rings a little past the edge
        assert set(np.unique(lost[EmChannel.EM])) == {outside}
        assert not lost[EmChannel.MASK_A :].any()
        assert np.ptp(out[view, EmChannel.EM, 80:]) > 100
    if profile == "clean":
        whole = clean(window)
        np.testing.assert_array_equal(out[EmView.YZ], whole[EmView.YZ])
        np.testing.assert_array_equal(out[EmView.XY, :, 80:], whole[EmView.XY, :, 80:])


@pytest.mark.parametrize(("profile", "outside"), [("clean", CLEAN_OUTSIDE), ("cb2", 0)])
def test_a_plane_beyond_the_volume_is_flat(profile, outside):
    window = window_of(np.ones((5, 5, 5)), anchor=(5000, 25, 25))
    out = render_em(window, 100.0, profile, STATISTICS)
    assert set(np.unique(out[:, EmChannel.EM])) == {outside}
    assert not out[:, EmChannel.MASK_A :].any()


def test_anisotropic_voxels_are_sampled_at_their_place_in_nm():
    resolution = Resolution(8, 8, 40)
    em = np.zeros((81, 81, 17), np.uint8)
    em[:] = 60 + 8 * np.arange(17)
    label = np.zeros_like(em)
    label[:, :, 10:12] = 2
    out = clean(window_of(label, em=em, resolution=resolution), EXTENT, EmStatistics(120.0, 40.0))
    at_nm = (np.arange(224) + 0.5) * 640 / 224 - 320
    expected = np.clip((60 + 8 * (at_nm / 40 + 8) - 120) / 40, -3, 3) * 42.5 + 127.5
    for view in (EmView.XZ, EmView.YZ):
        got = out[view, EmChannel.EM]
        np.testing.assert_allclose(got, expected[None].repeat(224, 0), atol=0.51)
        columns = np.nonzero(out[view, EmChannel.MASK_B].all(0))[0]
        np.testing.assert_array_equal(at_nm[columns] // 40.0001 * 40, at_nm[columns] // 40 * 40)
        assert at_nm[columns].min() == pytest.approx(60, abs=3)
        assert at_nm[columns].max() == pytest.approx(140, abs=3)


def test_fine_voxels_are_averaged_rather_than_skipped():
    # a checkerboard finer than the pixels turns grey; point sampling would show a pattern
    odd = np.arange(257, dtype=np.uint8) & 1
    board = 60 + 120 * (odd[:, None] ^ odd)
    em = np.repeat(board[..., None], 257, axis=2)
    window = window_of(np.zeros_like(em), em=em, resolution=Resolution(4, 4, 4))
    out = clean(window, 504.0)
    inner = out[EmView.XY, EmChannel.EM, 4:-4, 4:-4].astype(int)
    assert np.abs(inner - 128).max() < 40  # 85 without a filter


def test_cb2_stretches_each_image_from_its_1st_to_its_99th_percentile():
    rng = np.random.default_rng(4)
    shape = (65, 65, 65)
    em = rng.normal(100, 12, shape).clip(0, 255).astype(np.uint8)
    label = random_blobs(rng, shape)
    out = render_em(window_of(label, em=em), EXTENT, "cb2", STATISTICS)
    slab = em[:, :, 31:34].mean(2)
    low, high = np.percentile(slab, (1, 99))
    rgb = np.zeros((65, 65, 3), np.uint8)
    rgb[..., 0] = np.clip((slab - low) / (high - low), 0, 1) * 255
    for channel in (1, 2):
        rgb[..., channel] = 255 * (label[:, :, 31:34] == channel).any(2)
    expected = np.asarray(Image.fromarray(rgb).resize((224, 224), Image.Resampling.LANCZOS))
    difference = np.abs(out[EmView.XY].astype(int) - expected.transpose(2, 0, 1))
    assert difference.max() <= 1
    np.testing.assert_array_equal(out[EmView.XY, 1:], expected.transpose(2, 0, 1)[1:])


def test_cb2_of_a_flat_volume_is_finite():
    em = np.full((33, 33, 33), 77, np.uint8)
    out = render_em(window_of(np.zeros_like(em), em=em), 160.0, "cb2", STATISTICS)
    assert not out.any()


@pytest.mark.parametrize("statistics", [EmStatistics(1, 0), EmStatistics(float("nan"), 1)])
def test_statistics_without_spread_are_refused(statistics):
    with pytest.raises(BadRequestError, match="contrast"):
        clean(noise_window(), statistics=statistics)


def test_an_unknown_profile_is_refused():
    with pytest.raises(BadRequestError, match="'raw'"):
        render_em(noise_window(), EXTENT, "raw", STATISTICS)
