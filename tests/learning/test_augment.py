"""What a decision looks like in a step: other each time, and never telling the answer."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import ndimage

from cb2_assist.core.channels import EmChannel, EmView, GeometryChannel, GeometryView
from cb2_assist.core.geometry import BoxVx, PointNm, PointVoxel, Resolution
from cb2_assist.core.records import Kind, SegmentId, Site
from cb2_assist.learning.augment import (
    Draw,
    EmDraw,
    Move,
    draw,
    em_image,
    geometry_image,
    hide_sides,
    move_geometry,
)
from cb2_assist.learning.recipe import Recipe
from cb2_assist.learning.train import step_draws
from cb2_assist.views.encode import encode
from cb2_assist.views.hitmap import CAMERAS, render_hits
from cb2_assist.views.site import SiteWindow

N = 31
STAY = Move(False, False, False)
A, B = GeometryChannel.MASK_A, GeometryChannel.MASK_B


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    """Two ragged bodies, unlike themselves under any symmetry: labels 1 and 2."""
    rng = np.random.default_rng(4)
    noise = ndimage.gaussian_filter(rng.normal(size=(N, N, N)), 3)
    which = ndimage.gaussian_filter(rng.normal(size=(N, N, N)), 4)
    return np.asfortranarray(np.where(noise > 0, np.where(which > 0, 1, 2), 0).astype(np.uint8))


def seen(label: np.ndarray) -> np.ndarray:
    """Geometry of a scene, looked at from all three sides, float32."""
    label = np.asfortranarray(label)
    middle = (N / 2) * 10.0
    site = Site(Kind.JOIN, SegmentId(1), SegmentId(2), PointNm(middle, middle, middle))
    box = BoxVx(PointVoxel(0, 0, 0), PointVoxel(N, N, N))
    em = np.zeros(label.shape, np.uint8, order="F")
    window = SiteWindow(
        site, Resolution(10, 10, 10), box, middle, em, label.astype(np.uint64), label
    )
    # few enough lines that none of them grazes the border between two voxels
    hits = render_hits(window, 150.0, size_px=64)
    return encode("clean", hits, 150.0).astype(np.float32)


def moved_scene(label: np.ndarray, view: GeometryView, move: Move) -> np.ndarray:
    """The scene that a camera must look at to see the moved image."""
    camera = CAMERAS[view]
    if move.transpose:
        # in the image (right, up) becomes (-up, -right)
        label = label.swapaxes(camera.right_axis, camera.up_axis)
        if camera.right_sign > 0:
            label = np.flip(label, (camera.right_axis, camera.up_axis))
    if move.mirror_columns:
        label = np.flip(label, camera.right_axis)
    if move.mirror_rows:
        label = np.flip(label, camera.up_axis)
    return label


@pytest.mark.parametrize("view", list(GeometryView))
@pytest.mark.parametrize("flags", list(product((False, True), repeat=3)))
def test_a_moved_image_is_the_image_of_the_moved_scene(
    scene: np.ndarray, view: GeometryView, flags: tuple[bool, bool, bool]
) -> None:
    move = Move(*flags)
    image = move_geometry(seen(scene)[view], view, move)
    expected = seen(moved_scene(scene, view, move))[view]

    # normals are sums over voxels in another order, kept in steps of 1/127
    assert image[GeometryChannel.SILHOUETTE].mean() > 0.3
    np.testing.assert_allclose(image, expected, atol=0.017)


@pytest.mark.parametrize("view", list(GeometryView))
def test_normals_left_in_place_would_be_seen(scene: np.ndarray, view: GeometryView) -> None:
    """The tolerance above is far below what a forgotten component would change."""
    move = Move(False, True, False)
    expected = seen(moved_scene(scene, view, move))[view]
    forgotten = seen(scene)[view][:, :, ::-1]

    assert np.abs(forgotten - expected).max() > 0.5


def test_the_same_decision_looks_other_in_every_step() -> None:
    recipe = Recipe(drop_images=0.0)
    looks = [step_draws(3, step, recipe)[1] for step in range(40)]

    assert len({repr(x) for x in looks}) == 40
    assert {g.view for x in looks for g in x.geometry} == set(GeometryView)
    assert {e.view for x in looks for e in x.em} == set(EmView)
    assert len({g.move for x in looks for g in x.geometry}) == 8


def test_seed_step_and_place_alone_decide_how_a_decision_looks() -> None:
    recipe = Recipe()

    assert step_draws(8, 5, recipe) == step_draws(8, 5, recipe)
    assert step_draws(8, 5, recipe)[:3] == step_draws(3, 5, recipe)
    assert step_draws(8, 5, recipe) != step_draws(8, 5, Recipe(seed=1))


def test_which_side_is_called_a_is_tossed_for_all_images_of_a_decision() -> None:
    recipe = Recipe(drop_images=0.0, hide_partner=0.0, views_per_decision=6)
    swaps = [d.swap for d in step_draws(400, 0, recipe)]
    assert 160 < sum(swaps) < 240

    geometry = np.zeros((3, 7, 4, 4), np.float16)
    geometry[:, A], geometry[:, B, 0] = 1, 1
    em = np.zeros((3, 3, 4, 4), np.float32)
    em[:, EmChannel.MASK_A], em[:, EmChannel.MASK_B, 0] = 1, 1
    for how in step_draws(20, 1, recipe):
        sizes = [
            (image[A].sum(), image[B].sum())
            for image in (geometry_image(geometry, g, how.swap) for g in how.geometry)
        ]
        sizes += [
            (image[EmChannel.MASK_A].sum(), image[EmChannel.MASK_B].sum())
            for image in (em_image(em, e, how.swap) for e in how.em)
        ]
        assert sizes == [(4, 16) if how.swap else (16, 4)] * 6


def test_grey_values_do_not_depend_on_the_segments() -> None:
    rng = np.random.default_rng(0)
    em = rng.normal(size=(3, 3, 8, 8)).astype(np.float32)
    other = em.copy()
    other[:, EmChannel.MASK_A :] = rng.random((3, 2, 8, 8))
    how = next(d for d in step_draws(9, 0, Recipe()) if d.em).em[0]

    for swap in (False, True):
        images = [em_image(e, how, swap)[EmChannel.EM] for e in (em, other)]
        assert (images[0] == images[1]).all()


def test_a_hidden_partner_leaves_one_segment_and_the_first_image_as_it_was() -> None:
    image = np.zeros((7, 2, 2), np.float32)
    image[A, 0], image[B, 1] = 1, 1
    hidden = hide_sides(image)

    assert hidden[A].all()
    assert not hidden[B].any()
    assert image[B, 1].all()


def test_thick_sections_are_only_turned_in_their_own_plane() -> None:
    draws = step_draws(200, 0, Recipe(drop_images=0.0, turns="sections"))
    turned: set[str] = {
        x.view.name for d in draws for x in (*d.geometry, *d.em) if x.move.transpose
    }
    assert turned == {"TOP", "XY"}
    never = step_draws(50, 0, Recipe(drop_images=0.0, turns="none"))
    assert not any(x.move.transpose for d in never for x in (*d.geometry, *d.em))


def test_a_share_of_decisions_shows_no_image() -> None:
    draws = step_draws(1000, 0, Recipe(drop_images=0.3))
    without = [d for d in draws if d == Draw(False, (), ())]

    assert 250 < len(without) < 350
    assert all(d.geometry and d.em for d in draws if d not in without)


def test_em_is_moved_as_the_image_that_it_is() -> None:
    em = np.zeros((3, 3, 3, 3), np.float32)
    em[EmView.XZ, EmChannel.MASK_A, 0, 2] = 1

    def at(move: Move) -> tuple[int, ...]:
        image = em_image(em, EmDraw(EmView.XZ, move, 1.0, 0.0, 0.0, 0), swap=False)
        return tuple(int(v[0]) for v in np.nonzero(image[EmChannel.MASK_A]))

    assert at(STAY) == (0, 2)
    assert at(Move(True, False, False)) == (2, 0)
    assert at(Move(False, True, False)) == (0, 0)
    assert at(Move(False, False, True)) == (2, 2)


def test_a_generator_in_the_same_state_draws_the_same() -> None:
    recipe = Recipe(drop_images=0.0)
    one, other = (draw(recipe, np.random.default_rng(7)) for _ in range(2))
    assert one == other
