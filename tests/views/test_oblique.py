"""The best tilted plane of a join, and that a cut never has one."""

from dataclasses import replace

import numpy as np
import pytest
from scenes import ISO, STATISTICS, part_of, random_blobs, voxel_centres, window_of

from cb2_assist.core.channels import EmChannel
from cb2_assist.core.errors import BadRequestError
from cb2_assist.core.geometry import BoxVx, PointVoxel, Resolution
from cb2_assist.core.records import Kind, Site
from cb2_assist.datasets.source import EmStatistics
from cb2_assist.views.em import CLEAN_OUTSIDE
from cb2_assist.views.oblique import best_plane, candidate_normals, plane_frame, render_oblique
from cb2_assist.views.stack import render

EXTENT = 320.0
PROFILES = ("clean", "cb2")
SHAPE = (65, 65, 65)
CUBE = (np.full(3, 10.0), np.full(3, 325.0), 325.0)
"""Voxel, centre and half width of a window of that shape, nm."""


def noise_window(seed=0, **kwargs):
    rng = np.random.default_rng(seed)
    em = rng.integers(0, 256, SHAPE).astype(np.uint8)
    return window_of(random_blobs(rng, SHAPE), em=em, **kwargs)


def two_rods(normal, u, radius=35):
    """Two parallel rods in one plane through the anchor: only that plane cuts both lengthwise."""
    at = np.stack(voxel_centres(SHAPE), -1).astype(float)
    v = np.cross(normal, u)
    label = np.zeros(SHAPE, np.uint8)
    for value, side in ((1, -110), (2, 110)):
        away = at - side * v
        along = away @ u
        far = np.linalg.norm(away - along[..., None] * u, axis=-1)
        label[(far < radius) & (np.abs(along) < 260)] = value
    return label


def as_cut(window):
    """The same views asked about as a cut."""
    site = Site(Kind.CUT, window.site.segment, None, window.site.point)
    return replace(window, site=site)


def test_there_are_51_planes_and_no_two_are_alike():
    normals = candidate_normals()
    assert normals.shape == (51, 3)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1)
    cosine = np.abs(normals @ normals.T) - np.eye(51)
    assert cosine.max() < 0.99  # nor is one another's mirror image
    for axis in np.eye(3):
        assert (normals == axis).all(1).any()
    assert (normals == 0).any(1).all()  # each lies in a plane of two axes
    first = np.array([n[np.flatnonzero(n)[0]] for n in normals])
    assert (first > 0).all()


def test_a_plane_has_its_columns_and_rows_in_it_at_right_angles():
    for normal in candidate_normals():
        row, column, n = plane_frame(normal)
        np.testing.assert_allclose(np.stack([row, column, n]) @ np.stack([row, column, n]).T,
                                   np.eye(3), atol=1e-12)  # fmt: skip
        axis = np.eye(3)[np.argmin(np.abs(normal))]
        np.testing.assert_allclose(column, np.cross(normal, axis) / np.linalg.norm(
            np.cross(normal, axis)))  # fmt: skip
        np.testing.assert_allclose(row, np.cross(normal, column))


@pytest.mark.parametrize("index", range(0, 51, 7))
def test_the_plane_that_holds_both_segments_is_found(index):
    normal = candidate_normals()[index]
    window = window_of(two_rods(normal, plane_frame(normal).column))
    np.testing.assert_allclose(best_plane(window.label, *CUBE).normal, normal, atol=1e-12)
    out = render_oblique(window, EXTENT, "clean", STATISTICS)
    # both rods lie along the columns' direction, one above and one below the middle row
    a, b = (np.nonzero(out[c]) for c in (EmChannel.MASK_A, EmChannel.MASK_B))
    assert np.ptp(a[1]) > 150
    assert np.ptp(b[1]) > 150
    assert a[0].max() < 112 < b[0].min()


def test_the_best_plane_has_the_greatest_geometric_mean_of_areas_in_plain_numpy():
    for seed in range(3):
        window = noise_window(seed)
        at = np.linspace(-325, 325, 64)
        at = at[np.abs(at) <= 0.75 * 325]
        scores = []
        for normal in candidate_normals():
            row, column, _ = plane_frame(normal)
            place = 325 + at[:, None, None] * row + at[None, :, None] * column
            x, y, z = np.floor(place / 10).astype(int).transpose(2, 0, 1)
            seen = window.label[x, y, z]
            scores.append(np.sqrt(max((seen == 1).sum(), 1) * max((seen == 2).sum(), 1)))
        expected = candidate_normals()[int(np.argmax(scores))]
        np.testing.assert_allclose(best_plane(window.label, *CUBE).normal, expected)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("with_meshes", [False, True])
def test_a_cut_never_has_it_whatever_is_asked(profile, with_meshes):
    window = as_cut(noise_window())
    assert render_oblique(window, EXTENT, profile, STATISTICS) is None
    stack = render(
        window,
        extent_nm=EXTENT,
        profile=profile,
        statistics=STATISTICS,
        features=np.zeros(3, np.float32),
        meshes=(None, None) if with_meshes else None,
        em_oblique=True,
    )
    assert stack.em_oblique is None


@pytest.mark.parametrize("profile", PROFILES)
def test_a_join_has_it_only_when_asked(profile):
    asked, not_asked = (
        render(
            noise_window(),
            extent_nm=EXTENT,
            profile=profile,
            statistics=STATISTICS,
            features=np.zeros(3, np.float32),
            **wanted,
        )
        for wanted in ({"em_oblique": True}, {})
    )
    assert not_asked.em_oblique is None
    assert asked.em_oblique.shape == (3, 224, 224)
    assert asked.em_oblique.dtype == np.uint8
    assert set(np.unique(asked.em_oblique[1:])) == {0, 255}
    np.testing.assert_array_equal(asked.em, not_asked.em)


def test_clean_grey_is_linear_in_space_and_scaled_by_the_dataset():
    at = np.stack(voxel_centres(SHAPE), -1)
    em = (120 + at @ np.array([0.1, -0.08, 0.06])).astype(np.float32)
    label = two_rods(*(plane_frame(candidate_normals()[5])[i] for i in (2, 1)))
    window = window_of(label, em=np.rint(em).astype(np.uint8))
    frame = plane_frame(candidate_normals()[5])
    out = render_oblique(window, EXTENT, "clean", EmStatistics(120.0, 40.0))
    place = (np.arange(224) + 0.5) * 640 / 224 - 320
    grey = 120 + (place[:, None, None] * frame.row + place[None, :, None] * frame.column) @ (
        np.array([0.1, -0.08, 0.06])
    )
    expected = np.clip((grey - 120) / 40, -3, 3) * 42.5 + 127.5
    inner = np.s_[40:-40, 40:-40]
    np.testing.assert_allclose(out[EmChannel.EM][inner], expected[inner], atol=1.2)


@pytest.mark.parametrize(("profile", "outside"), [("clean", CLEAN_OUTSIDE), ("cb2", 0)])
def test_beyond_the_volume_is_flat(profile, outside):
    whole = noise_window(seed=1)
    # a rod along y on either side, so that the best plane is x, y
    label = two_rods(np.array([0.0, 0, 1]), np.array([0.0, 1, 0]))
    whole = replace(whole, label=label)
    clipped = part_of(whole, BoxVx(PointVoxel(20, 0, 0), PointVoxel(65, 65, 65)))
    out = render_oblique(clipped, EXTENT, profile, STATISTICS)
    row, column, _ = plane_frame(np.array([0.0, 0, 1]))
    at = np.linspace(-320, 320, 224)
    x = at[:, None] * row[0] + at[None, :] * column[0]
    lost = x < -130
    assert set(np.unique(out[EmChannel.EM][lost])) == {outside}
    assert not out[1:, lost].any()
    assert np.ptp(out[EmChannel.EM][~lost]) > 100


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("resolution", [ISO, Resolution(8, 8, 40)])
def test_a_crop_of_a_large_window_renders_like_the_window_alone(profile, resolution):
    lo = (1000, -20, 77)
    anchor = [(o + 32.7) * r for o, r in zip(lo, resolution, strict=True)]
    large = noise_window(lo=lo, resolution=resolution, anchor=anchor)
    box = BoxVx.around(large.site.point, 193.0, resolution)
    expected = render_oblique(large, 193.0, profile, STATISTICS)
    got = render_oblique(part_of(large, box), 193.0, profile, STATISTICS)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("profile", PROFILES)
def test_memory_order_does_not_matter(profile):
    window = noise_window()
    expected = render_oblique(window, EXTENT, profile, STATISTICS)
    em, label = np.asfortranarray(window.em), np.asfortranarray(window.label)
    em.flags.writeable = False
    got = render_oblique(window_of(label, em=em), EXTENT, profile, STATISTICS)
    np.testing.assert_array_equal(got, expected)


def test_a_window_away_from_its_view_shows_nothing():
    window = window_of(np.ones((5, 5, 5)), anchor=(5000, 5000, 5000))
    out = render_oblique(window, 100.0, "clean", STATISTICS)
    assert set(np.unique(out[EmChannel.EM])) == {CLEAN_OUTSIDE}
    assert not out[1:].any()


def test_what_cannot_be_rendered_is_refused():
    with pytest.raises(BadRequestError, match="'raw'"):
        render_oblique(noise_window(), EXTENT, "raw", STATISTICS)
    with pytest.raises(BadRequestError, match="contrast"):
        render_oblique(noise_window(), EXTENT, "clean", EmStatistics(1, 0))
