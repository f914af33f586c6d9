"""Site windows: what they hold, and that only the dataset clips them."""

import numpy as np
import pytest
from neurites import DUMBBELL, LONE, PARTNER, neurites

from cb2_assist.core.errors import SegmentNotFoundError
from cb2_assist.core.geometry import BoxVx, PointNm, PointVoxel, Resolution
from cb2_assist.core.records import Kind, SegmentId, Site
from cb2_assist.datasets.source import Cutout
from cb2_assist.views.site import build_window, whole_window, window_box

RES = Resolution(10, 10, 10)
JOIN = Site(Kind.JOIN, SegmentId(DUMBBELL), SegmentId(PARTNER), PointNm(485, 365, 780))
CUT = Site(Kind.CUT, SegmentId(DUMBBELL), None, PointNm(485, 365, 425))


@pytest.fixture(scope="module")
def whole():
    volume = neurites()
    box = BoxVx(PointVoxel(0, 0, 0), PointVoxel(*volume.em.shape))
    return Cutout(box, RES, volume.em, volume.seg)


def test_window_is_centred_on_the_voxel_of_the_point(whole):
    window = build_window(whole, JOIN, 200.0, whole.box)

    assert window.em.shape == window.label.shape == (41, 41, 41)
    assert window.point_vx == (20.5, 20.5, 20.0)


def test_join_labels_are_the_two_segments_in_order(whole):
    window = build_window(whole, JOIN, 200.0, whole.box)

    assert np.array_equal(window.label == 1, window.seg == DUMBBELL)
    assert np.array_equal(window.label == 2, window.seg == PARTNER)


def test_cut_labels_split_the_segment_at_the_neck(whole):
    window = build_window(whole, CUT, 320.0, whole.box)

    assert np.array_equal(window.label > 0, window.seg == DUMBBELL)
    z = [np.argwhere(window.label == side)[:, 2].mean() for side in (1, 2)]
    assert abs(z[0] - z[1]) > 30, "the two balls are on different sides"


def test_only_the_dataset_clips_a_window(whole):
    near_edge = Site(Kind.JOIN, JOIN.segment, JOIN.partner, PointNm(485, 365, 1000))
    window = build_window(whole, near_edge, 320.0, whole.box)

    assert window.box.hi.z == whole.box.hi.z
    assert window.box == window_box(near_edge.point, 320.0, RES, whole.box)


def test_window_is_the_same_from_any_cutout_that_covers_it(whole):
    tight = whole.crop(window_box(CUT.point, 320.0, RES, whole.box))
    alone = Cutout(tight.box, RES, np.asfortranarray(tight.em), np.asfortranarray(tight.seg))

    wide, narrow = (build_window(c, CUT, 320.0, whole.box) for c in (whole, alone))

    assert np.array_equal(wide.label, narrow.label)
    assert np.array_equal(wide.em, narrow.em)


def test_absent_partner_is_told_in_words(whole):
    with pytest.raises(SegmentNotFoundError, match=f"{LONE}.*propose again"):
        build_window(
            whole, Site(Kind.JOIN, JOIN.segment, SegmentId(LONE), JOIN.point), 200.0, whole.box
        )


def test_cut_of_an_absent_segment_is_told_in_words(whole):
    with pytest.raises(SegmentNotFoundError, match="not within 200 nm"):
        build_window(whole, Site(Kind.CUT, SegmentId(LONE), None, CUT.point), 200.0, whole.box)


def test_a_cutout_that_does_not_cover_the_window_is_a_bug(whole):
    small = whole.crop(BoxVx(PointVoxel(40, 30, 70), PointVoxel(60, 40, 90)))
    with pytest.raises(ValueError, match="does not cover"):
        build_window(small, JOIN, 200.0, whole.box)


def test_a_window_for_views_shows_a_cut_as_one_segment(whole):
    window = whole_window(whole, CUT, 320.0, whole.box)

    assert np.array_equal(window.label == 1, window.seg == DUMBBELL)
    assert window.label.max() == 1
    assert window.box == build_window(whole, CUT, 320.0, whole.box).box


def test_a_window_for_views_shows_a_join_as_any_window_does(whole):
    window = whole_window(whole, JOIN, 200.0, whole.box)

    assert np.array_equal(window.label, build_window(whole, JOIN, 200.0, whole.box).label)


def test_a_window_for_views_needs_a_cutout_that_covers_it(whole):
    part = whole.crop(window_box(CUT.point, 200.0, RES, whole.box))
    with pytest.raises(ValueError, match="does not cover"):
        whole_window(part, CUT, 320.0, whole.box)
