"""Contact features: what they measure, and what they must not depend on."""

import numpy as np
import pytest
from scenes import STATISTICS

from cb2_assist.core.geometry import BoxVx, PointNm, PointVoxel, Resolution
from cb2_assist.core.records import Kind, SegmentId, Site
from cb2_assist.datasets.source import Cutout
from cb2_assist.views import measures
from cb2_assist.views.features import FEATURE_NAMES, site_features
from cb2_assist.views.site import build_window

A, B, C = 2**60 + 1, 2**60 + 2, 2**60 + 3
INDEX = {n: i for i, n in enumerate(FEATURE_NAMES)}
N_INTERFACE = INDEX["elongated"] + 1


def two_blocks(*, gap=0, membrane=False, size=60, resolution=(10, 10, 10), noise=6):
    """A below x = middle, B above, C at the rim; `gap` voxels of background between A and B."""
    seg = np.full((size, size, size), C, np.uint64, order="F")
    middle, rim = size // 2, size // 6
    inner = slice(rim, size - rim)
    seg[inner, inner, inner] = A
    seg[middle : size - rim, inner, inner] = B
    seg[middle - gap // 2 : middle + gap - gap // 2, inner, inner] = 0 if gap else B
    if not gap:
        seg[middle, inner, inner] = B
    em = np.random.default_rng(1).normal(150, noise, seg.shape)
    if membrane:
        em[middle - 2 : middle + 2] = 50
    box = BoxVx(PointVoxel(0, 0, 0), PointVoxel(*seg.shape))
    em = np.asfortranarray(em.clip(0, 255).astype(np.uint8))
    return Cutout(box, Resolution(*resolution), em, seg)


def middle_of(cutout):
    return PointVoxel(*(n // 2 for n in cutout.em.shape)).to_nm(cutout.resolution)


def features(cutout, half=200.0, site=None, bounds=None):
    site = site or Site(Kind.JOIN, SegmentId(A), SegmentId(B), middle_of(cutout))
    return site_features(build_window(cutout, site, half, bounds or cutout.box), STATISTICS)


def value(row, name):
    return float(row[INDEX[name]])


def test_every_name_has_one_finite_number():
    row = features(two_blocks())

    assert row.shape == (len(FEATURE_NAMES),)
    assert row.dtype == np.float32
    assert np.isfinite(row).all()
    assert len(set(FEATURE_NAMES)) == len(FEATURE_NAMES)


def test_same_bits_from_every_cutout_that_covers_the_window():
    cutout = two_blocks()
    part = cutout.crop(BoxVx(PointVoxel(5, 3, 7), PointVoxel(58, 57, 55)))
    alone = Cutout(part.box, part.resolution, np.asfortranarray(part.em), part.seg.copy("F"))
    site = Site(Kind.JOIN, SegmentId(A), SegmentId(B), middle_of(cutout))

    rows = [features(c, site=site, bounds=cutout.box) for c in (cutout, part, alone)]

    assert rows[0].tobytes() == rows[1].tobytes() == rows[2].tobytes()


def test_joins_are_symmetric_in_their_segments():
    cutout = two_blocks(membrane=True)
    cutout.seg[40:50, 10:20, 10:20] = C  # B is smaller
    there = Site(Kind.JOIN, SegmentId(A), SegmentId(B), middle_of(cutout))
    back = Site(Kind.JOIN, SegmentId(B), SegmentId(A), middle_of(cutout))

    np.testing.assert_allclose(
        features(cutout, site=there), features(cutout, site=back), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("name", ["sheet_mean", "sheet_p50", "plate_p50", "rise20"])
def test_a_dark_membrane_raises_sheetness(name):
    without, beside = features(two_blocks()), features(two_blocks(membrane=True))

    assert abs(value(beside, name)) > abs(value(without, name)) + 0.2


@pytest.mark.parametrize("name", ["em_mean", "em_p50", "g10_mean", "membrane_contrast"])
def test_a_dark_membrane_lowers_grey_at_the_interface(name):
    without, beside = features(two_blocks()), features(two_blocks(membrane=True))

    assert value(beside, name) < value(without, name) - 1.0


def test_contacts_across_unlabelled_voxels_are_found():
    touching, apart = features(two_blocks()), features(two_blocks(gap=4))

    assert value(touching, "direct") == 1.0
    assert value(touching, "gap_nm") == 0.0
    assert value(apart, "direct") == 0.0
    assert value(apart, "gap_nm") == pytest.approx(40.0)
    assert value(apart, "log_area") > 10


def test_no_contact_through_a_third_segment():
    cutout = two_blocks(gap=4)
    cutout.seg[cutout.seg == 0] = C

    assert not features(cutout)[:N_INTERFACE].any()


def test_without_an_interface_the_interface_part_is_zero_and_all_is_finite():
    row = features(two_blocks(gap=14))

    assert not row[:N_INTERFACE].any()
    assert np.isfinite(row).all()
    assert value(row, "log_small") > 0


def test_area_and_volume_are_in_nm_at_any_voxel_size():
    cutout = two_blocks(size=36, resolution=(8, 8, 16))
    row = features(cutout, half=300.0)
    inner = 36 - 2 * (36 // 6)

    assert np.expm1(value(row, "log_area")) == pytest.approx((inner * 8) * (inner * 16), rel=1e-5)
    assert np.expm1(value(row, "log_big")) == pytest.approx((inner**3 / 2) * 8 * 8 * 16, rel=1e-5)


def test_stretching_voxels_stretches_extents():
    flat = features(two_blocks(size=36, resolution=(10, 10, 10)), half=400.0)
    tall = features(two_blocks(size=36, resolution=(10, 10, 20)), half=400.0)

    assert value(tall, "spread3") == pytest.approx(2 * value(flat, "spread3"), rel=0.05)


def test_a_window_clipped_at_the_edge_still_has_numbers():
    cutout = two_blocks()
    corner = cutout.crop(BoxVx(PointVoxel(22, 10, 10), PointVoxel(40, 40, 40)))
    site = Site(Kind.JOIN, SegmentId(A), SegmentId(B), PointNm(305, 105, 105))

    row = features(corner, site=site, bounds=corner.box)

    assert np.isfinite(row).all()
    assert value(row, "log_area") > 0


def test_thickness_is_the_distance_to_the_nearest_border():
    border = np.zeros((9, 9, 9), bool)
    border[1, 2, 3] = border[8, 8, 0] = True
    res = np.array([4.0, 4.0, 30.0])
    got = measures.distances(border, res, np.array([0, 0, 0]), np.array([9, 9, 9]))

    index = np.indices(border.shape).reshape(3, -1).T
    to = np.argwhere(border)
    want = np.sqrt((((index[:, None] - to) * res) ** 2).sum(2)).min(1).reshape(border.shape)
    np.testing.assert_allclose(got, want, rtol=1e-12)


def test_blur_near_equals_the_blur_of_the_whole():
    from scipy import ndimage

    rng = np.random.default_rng(3)
    v = rng.normal(size=(20, 17, 23)).astype(np.float32)
    at = rng.integers(0, [20, 17, 23], (5, 3)).astype(np.int32)
    near = measures.ranges_near(v.shape, at, at, measures.SAMPLE_REACH)
    w = np.array([0.2, 0.5, 0.3], np.float32)
    got = measures.blur_near(v, w, w, w, near)

    want = v
    for axis in range(3):
        want = ndimage.correlate1d(want, w, axis, mode="nearest")
    for x, y, z in at:
        s = tuple(slice(max(0, k - 2), k + 3) for k in (x, y, z))
        np.testing.assert_allclose(got[s], want[s], atol=1e-6)


def test_neighbours_and_surfaces_are_counted_once():
    label = np.zeros((6, 6, 6), np.uint8, order="F")
    seg = np.zeros((6, 6, 6), np.uint64, order="F")
    label[1:3, 1:3, 1:3], seg[1:3, 1:3, 1:3] = 1, A
    label[3:5, 1:3, 1:3], seg[3:5, 1:3, 1:3] = 2, B
    seg[1:3, 3, 1:3] = C
    em = np.full((6, 6, 6), 7, np.uint8, order="F")

    sums, surface, faces, count = measures.survey(label.T, seg.T, em.T)

    assert sums[:, 0].tolist() == [8, 8]
    assert sums[:, 10].tolist() == [56, 56]
    assert surface.tolist() == [[8, 8, 8], [8, 8, 8]]
    assert count.tolist() == [1, 0]
    assert faces[0].sum(0).tolist() == [0, 4, 0]
