"""The demo can be made again: a part of the shipped one, and a small one as a whole."""

import hashlib

import numpy as np
from scipy import ndimage

from cb2_assist.datasets.demo_bodies import connected_bodies
from cb2_assist.datasets.demo_grain import add_noise
from cb2_assist.datasets.demo_make import SHIPPED
from cb2_assist.datasets.demo_micrograph import expose
from cb2_assist.datasets.demo_render import render_section
from cb2_assist.datasets.demo_segment import segment
from cb2_assist.datasets.demo_tissue import SPINE

SMALL_SHA256 = {
    "levels": "dd158edfb424192f802989efc226c6d849a9b7f8accc6d90ef579bf4a1066b0a",
    "truth": "c02ac2060971c5ff3a7b24e4d16fee2079bc8aefcf33bccc23766e8c7dd8ea7f",
    "seg": "838f408099df87614a5c15f0e5a72e8f33ffc3ba421e2f8c468caf4257a0be36",
}
"""Of the bytes of a whole small demo; they change only when the demo is made anew on purpose."""


def test_a_small_demo_is_made_again_bit_for_bit(small_demo):
    got = {
        name: hashlib.sha256(np.ascontiguousarray(getattr(small_demo, name)).tobytes()).hexdigest()
        for name in SMALL_SHA256
    }

    assert got == SMALL_SHA256


def test_a_part_of_the_shipped_demo_is_made_again_bit_for_bit(
    shipped_demo, shipped_levels, shipped_tissue
):
    scene, sections = shipped_tissue
    index, x, y = 47, 320, 192
    labels, grey = render_section(scene, index, (x, x + 128), (y, y + 128))

    levels = expose(grey, index, (x + 1, y + 1), sections, scene.table)

    np.testing.assert_array_equal(levels, shipped_levels(index)[y + 1 : y + 127, x + 1 : x + 127])
    bodies = shipped_demo.truth()[index, y : y + 128, x : x + 128]
    assert partition_agrees(labels, bodies) > 0.995


def test_vesicles_synapses_and_spines_lie_in_the_shipped_volume(shipped_tissue):
    scene, _ = shipped_tissue

    def inside(centres):
        return int(np.all((centres >= 0) & (centres < np.array(SHIPPED.size_nm)), axis=1).sum())

    assert inside(scene.synapses[:, :3]) >= 100
    assert inside(scene.vesicles[:, :3]) >= 10_000
    spines = scene.capsules[scene.capsules[:, 9] == SPINE]
    assert inside(spines[:, :3]) >= 500


def test_glia_are_thin_sheets_between_the_neurites(shipped_tissue):
    scene, _ = shipped_tissue
    glia = render_section(scene, 47, (0, 256), (0, 256))[0] == 0

    assert 0.02 < glia.mean() < 0.2
    half_thickness_nm = 8 * ndimage.distance_transform_edt(glia)
    assert np.percentile(half_thickness_nm[glia], 95) < 100
    pieces, _ = ndimage.label(glia)
    # one sheet reaches over more than a micrometre
    widest = max(max(s.stop - s.start for s in part) for part in ndimage.find_objects(pieces))
    assert widest * 8 > 1000


def partition_agrees(labels, bodies):
    """Part of the voxels whose body is the main one of their label (crumbs were given away)."""
    agree = 0
    for label in np.unique(labels):
        # one neurite may be several bodies in the volume, so count each body's main label instead
        here = bodies[labels == label]
        for body in np.unique(here):
            inside = labels[bodies == body]
            agree += int((here == body).sum()) * (np.bincount(inside).argmax() == label)
    return agree / labels.size


def test_every_body_of_a_demo_is_connected(small_demo):
    again = connected_bodies(small_demo.truth)

    assert again.max() == small_demo.truth.max()


def test_every_segment_is_connected(small_demo):
    # crumbs of a segment would be joined to others and change their number
    again = connected_bodies(small_demo.seg)

    assert again.max() == small_demo.seg.max()


def test_crumbs_join_the_neighbour_they_touch_most():
    labels = np.full((8, 8, 16), 1, np.int32)
    labels[:, :, 8:] = 2
    labels[3:5, 3:5, 6:8] = 3

    got = connected_bodies(labels)

    assert got.max() == 2
    assert got[3, 3, 7] == got[0, 0, 0]


def test_parts_of_a_label_that_do_not_touch_are_two_bodies():
    labels = np.full((10, 10, 30), 1, np.int32)
    labels[:, :, 10:20] = 2

    got = connected_bodies(labels)

    assert got.max() == 3
    assert got[0, 0, 0] != got[0, 0, 29]


def test_noise_leaves_a_missing_section_black():
    assert not add_noise(np.zeros((32, 40), np.uint8), 3, 7).any()


def test_noise_differs_between_sections_but_not_between_calls():
    flat = np.full((64, 64), 25, np.uint8)

    first, again, other = (add_noise(flat, k, 7) for k in (3, 3, 4))

    np.testing.assert_array_equal(first, again)
    assert np.mean(first == other) < 0.2
    assert abs(first.mean() - 150) < 4
    assert 6 < first.std() < 14


def test_a_missing_section_repeats_the_segments_before_it():
    em = add_noise(np.full((64, 64), 28, np.uint8), 0, 1)[None].repeat(5, axis=0)
    em[:, :, 31:34] = 40
    em[2] = 0

    seg = segment(em)

    np.testing.assert_array_equal(seg[2], seg[1])
    assert seg[0, 32, 8] == seg[4, 32, 8] != seg[4, 32, 56]
