"""The sides' contacts with third segments: what they measure, and what they must not depend on."""

import numpy as np
import pytest
from scenes import STATISTICS

from cb2_assist.core.geometry import BoxVx, PointNm, PointVoxel, Resolution
from cb2_assist.core.records import Kind, SegmentId, Site
from cb2_assist.datasets.source import Cutout
from cb2_assist.views.features import FEATURE_NAMES, site_features
from cb2_assist.views.site import build_window
from cb2_assist.views.surroundings import (
    CONTACT_NAMES,
    NEIGHBOURS,
    SHAPE,
    site_vector,
    split_vector,
    surroundings,
)

A, B, C, D = (2**60 + k for k in range(1, 5))
INDEX = {n: i for i, n in enumerate(CONTACT_NAMES)}


def tower(*, size=40, resolution=(10, 10, 10), membrane=True):
    """A below, B above; C beside both, D beside A alone; a membrane between A and C."""
    seg = np.zeros((size, size, size), np.uint64, order="F")
    third, middle = size // 3, size // 2
    seg[third : 2 * third, :, :middle] = A
    seg[third : 2 * third, :, middle:] = B
    seg[2 * third :] = C
    seg[:third, :, :middle] = D
    em = np.random.default_rng(1).normal(150, 4, seg.shape)
    if membrane:
        em[2 * third - 1 : 2 * third + 1, :, :middle] = 60
    em = np.asfortranarray(em.clip(0, 255).astype(np.uint8))
    box = BoxVx(PointVoxel(0, 0, 0), PointVoxel(*seg.shape))
    return Cutout(box, Resolution(*resolution), em, seg)


def join(cutout, a=A, b=B):
    at = PointVoxel(*(n // 2 for n in cutout.em.shape)).to_nm(cutout.resolution)
    return Site(Kind.JOIN, SegmentId(a), SegmentId(b), at)


def measured(cutout, site=None, half=150.0, bounds=None):
    window = build_window(cutout, site or join(cutout), half, bounds or cutout.box)
    return surroundings(window, STATISTICS)


def of(rows, ids, third, side):
    return dict(zip(CONTACT_NAMES, rows[list(ids).index(third), side].tolist(), strict=True))


def faces(seg, a, b):
    """Faces between two segments, axis by axis."""
    total = 0
    for axis in range(3):
        p, q = np.moveaxis(seg, axis, 0)[:-1], np.moveaxis(seg, axis, 0)[1:]
        total += int((((p == a) & (q == b)) | ((p == b) & (q == a))).sum())
    return total


def test_every_touching_segment_has_a_row_and_the_rest_is_zero():
    rows, ids = measured(tower())

    assert rows.shape == SHAPE
    assert set(ids.tolist()) == {C, D}
    assert np.isfinite(rows).all()
    there = rows[..., 0]
    assert there[list(ids).index(C)].tolist() == [1, 1]
    assert there[list(ids).index(D)].tolist() == [1, 0]
    assert not rows[2:].any()
    assert not rows[list(ids).index(D), 1].any()


def test_the_area_is_that_of_the_faces_within_reach():
    cutout = tower(size=24)
    rows, ids = measured(cutout, half=200.0)
    near = cutout.seg

    for third, side, own in ((C, 0, A), (C, 1, B), (D, 0, A)):
        area = np.expm1(of(rows, ids, third, side)["log_area"])
        assert area == pytest.approx(100 * faces(near, own, third), rel=1e-4)


def test_a_membrane_shows_where_it_is_and_only_there():
    rows, ids = measured(tower())
    parted, open_ = of(rows, ids, C, 0), of(rows, ids, C, 1)

    assert parted["sheet_p50"] > 5 * abs(open_["sheet_p50"])
    assert parted["em_mean"] < open_["em_mean"] - 1
    assert parted["rise"] > open_["rise"] + 1
    assert parted["contrast"] < -1


def test_changing_the_sides_changes_the_columns_and_nothing_else():
    cutout = tower()
    rows, ids = measured(cutout, join(cutout, A, B))
    other, same = measured(cutout, join(cutout, B, A))

    assert ids.tolist() == same.tolist()
    np.testing.assert_array_equal(rows, other[:, ::-1])


def test_same_bits_from_every_cutout_that_covers_the_window():
    cutout = tower(size=60)
    site = join(cutout)
    whole, ids = measured(cutout, site)
    part = cutout.crop(BoxVx(PointVoxel(10, 11, 9), PointVoxel(52, 50, 51)))
    again, same = measured(part, site, bounds=cutout.box)

    np.testing.assert_array_equal(whole, again)
    np.testing.assert_array_equal(ids, same)


def test_ids_do_not_matter_but_to_break_ties():
    cutout = tower()
    rows, _ = measured(cutout)
    other = cutout.seg.copy(order="F")
    for k, s in enumerate((A, B, C, D)):
        other[cutout.seg == s] = 77 + k
    again, ids = measured(
        Cutout(cutout.box, cutout.resolution, cutout.em, other), join(cutout, 77, 78)
    )

    assert set(ids.tolist()) == {79, 80}
    np.testing.assert_array_equal(rows, again)


def test_thick_sections_keep_their_units():
    fine, f_ids = measured(tower(size=48), half=200.0)
    thick = tower(size=48)
    thick = Cutout(
        BoxVx(PointVoxel(0, 0, 0), PointVoxel(48, 48, 12)),
        Resolution(10, 10, 40),
        np.asfortranarray(thick.em[:, :, ::4]),
        np.asfortranarray(thick.seg[:, :, ::4]),
    )
    coarse, c_ids = measured(thick, half=200.0)

    for third, side in ((C, 0), (D, 0)):
        a, b = of(fine, f_ids, third, side), of(coarse, c_ids, third, side)
        assert b["log_area"] == pytest.approx(a["log_area"], abs=0.3)
        assert b["em_mean"] == pytest.approx(a["em_mean"], abs=0.5)
        assert b["sheet_p50"] == pytest.approx(a["sheet_p50"], rel=0.35, abs=0.05)


def test_a_pair_without_neighbours_has_no_rows():
    cutout = tower()
    seg = np.where((cutout.seg == A) | (cutout.seg == B), cutout.seg, 0)
    alone = Cutout(cutout.box, cutout.resolution, cutout.em, np.asfortranarray(seg))
    rows, ids = measured(alone)

    assert not rows.any()
    assert not len(ids)


def test_more_neighbours_than_fit_keep_the_largest():
    cutout = tower(size=64)
    seg = cutout.seg.copy(order="F")
    third = 64 // 3
    many = 2**61 + np.arange(64 // 4, dtype=np.uint64)
    for k, s in enumerate(many):
        seg[2 * third :, 4 * k : 4 * k + 4, :] = s
    rows, ids = measured(Cutout(cutout.box, cutout.resolution, cutout.em, seg), half=320.0)
    total = np.expm1(rows[..., INDEX["log_area"]]).sum(1)

    assert len(ids) == NEIGHBOURS
    assert (np.diff(total) <= 1e-3 * total[0]).all()


def test_a_vector_comes_apart_as_it_was_put_together():
    cutout = tower()
    window = build_window(cutout, join(cutout), 150.0, cutout.box)
    features = site_features(window, STATISTICS)
    both, alone = (site_vector(window, STATISTICS, neighbours=n) for n in (True, False))

    np.testing.assert_array_equal(split_vector(both)[0], features)
    np.testing.assert_array_equal(split_vector(both)[1], measured(cutout)[0])
    np.testing.assert_array_equal(alone, features)
    assert split_vector(alone)[1] is None
    assert len(both) == len(FEATURE_NAMES) + np.prod(SHAPE)


def test_a_cut_has_surroundings_too():
    cutout = tower(membrane=False)
    seg = np.where(cutout.seg == B, A, cutout.seg)
    at = PointNm(200, 200, 200)
    window = build_window(
        Cutout(cutout.box, cutout.resolution, cutout.em, np.asfortranarray(seg)),
        Site(Kind.CUT, SegmentId(A), None, at),
        150.0,
        cutout.box,
    )
    rows, ids = surroundings(window, STATISTICS)

    assert set(ids.tolist()) == {C, D}
    assert rows[list(ids).index(C), :, 0].any()
