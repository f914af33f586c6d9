"""Pictures of the views: the viewer's colours, true occlusion, the viewer's way round."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from scenes import STATISTICS, voxel_centres, window_of

from cb2_assist.core.cameras import CAMERAS
from cb2_assist.core.channels import VIEW_NAMES, VIEW_SIZE_PX, EmView, GeometryView
from cb2_assist.core.colours import PARTNER_COLOUR, SEGMENT_COLOUR
from cb2_assist.views.pictures import em_picture, geometry_picture, picture_png
from cb2_assist.views.stack import render

SHAPE = (65, 65, 65)
MIDDLE = VIEW_SIZE_PX // 2
ORANGE, BLUE = (
    np.array([int(c[i : i + 2], 16) for i in (1, 3, 5)], float)
    for c in (SEGMENT_COLOUR, PARTNER_COLOUR)
)


def stack_of(label, em=None):
    window = window_of(label, em=em)
    return render(
        window, extent_nm=320.0, profile="clean", statistics=STATISTICS,
        features=np.zeros(4, np.float32),
    )  # fmt: skip


@pytest.fixture(scope="module")
def corner():
    """A is a ball in the middle, B a ball in the corner of large x, y, z."""
    x, y, z = voxel_centres(SHAPE)
    label = np.zeros(SHAPE, np.uint8)
    label[x**2 + y**2 + z**2 < 90**2] = 1
    label[(x - 200) ** 2 + (y - 150) ** 2 + (z - 220) ** 2 < 60**2] = 2
    em = np.full(SHAPE, 120, np.uint8)
    return stack_of(label, em)


def is_like(pixel, colour) -> bool:
    """Whether a pixel has the hue of a colour, however it is lit."""
    pixel = pixel.astype(float)
    return bool(np.dot(pixel, colour) / (np.linalg.norm(pixel) * np.linalg.norm(colour)) > 0.99)


def middle_of(picture, colour) -> np.ndarray:
    """Mean row and column of the pixels of a colour, from the middle of the picture, in nm."""
    lit = picture.astype(float)
    cosine = lit @ colour / (np.linalg.norm(lit, axis=-1) * np.linalg.norm(colour) + 1e-9)
    where = np.argwhere((cosine > 0.99) & (lit.max(-1) > 60))
    assert len(where) > 50
    return (where.mean(0) - (VIEW_SIZE_PX - 1) / 2) * 640 / VIEW_SIZE_PX


@pytest.mark.parametrize("view", GeometryView)
def test_geometry_shows_both_segments_in_the_viewers_colours(corner, view) -> None:
    picture = geometry_picture(corner, view)
    assert picture.shape == (VIEW_SIZE_PX, VIEW_SIZE_PX, 3)
    assert is_like(picture[MIDDLE, MIDDLE], ORANGE)
    assert picture[0, 0].max() < 40, "the ground is dark"
    assert picture[MIDDLE, MIDDLE].max() > 120, "what faces the camera is bright"


B_AT = np.array([200.0, 150.0, 220.0])


@pytest.mark.parametrize("camera", CAMERAS, ids=lambda c: c.name)
def test_each_picture_lies_as_the_viewer_does_when_it_is_turned_there(corner, camera) -> None:
    """B's place in the picture is where the viewer's quaternion puts it on screen."""
    from scipy.spatial.transform import Rotation

    right, down, into = Rotation.from_quat(camera.orientation).as_matrix().T
    number = VIEW_NAMES.index(camera.name)
    if camera.panel == "3d":
        picture = geometry_picture(corner, GeometryView(number))
        wanted = [B_AT @ down, B_AT @ right]
        assert middle_of(picture, BLUE) == pytest.approx(wanted, abs=8)
        return
    # a section goes through the middle, so B must be brought into it
    shift = np.round((B_AT @ into) * into / 10).astype(int)
    x, y, z = voxel_centres(SHAPE)
    label = np.zeros(SHAPE, np.uint8)
    at = B_AT - shift * 10
    label[(x - at[0]) ** 2 + (y - at[1]) ** 2 + (z - at[2]) ** 2 < 60**2] = 2
    picture = em_picture(stack_of(label), EmView(number - 3)).astype(float)
    blueness = picture[..., 2] - picture[..., 0]
    where = np.argwhere(blueness > 20).mean(0)
    got = (where - (VIEW_SIZE_PX - 1) / 2) * 640 / VIEW_SIZE_PX
    assert got == pytest.approx([at @ down, at @ right], abs=8)


def test_the_nearer_segment_hides_the_farther() -> None:
    x, y, z = voxel_centres(SHAPE)
    label = np.zeros(SHAPE, np.uint8)
    label[(abs(y) < 100) & (abs(z) < 100) & (abs(x - 100) < 20)] = 1
    label[(abs(y) < 50) & (abs(z) < 50) & (abs(x + 100) < 20)] = 2
    front = geometry_picture(stack_of(label), GeometryView.FRONT)
    assert is_like(front[MIDDLE, MIDDLE], BLUE), "B is nearer to a camera at −x"
    assert is_like(front[MIDDLE, MIDDLE + 28], ORANGE)
    assert front[MIDDLE, MIDDLE].max() > front[MIDDLE, MIDDLE + 28].max(), "depth darkens"


def test_em_is_grey_outside_the_segments_and_tinted_in_them(corner) -> None:
    picture = em_picture(corner, EmView.XY).astype(int)
    outside, inside = picture[5, 5], picture[MIDDLE, MIDDLE]
    assert outside.max() - outside.min() == 0
    assert inside[0] > inside[1] > inside[2], "orange"


@pytest.mark.parametrize("name", VIEW_NAMES)
def test_a_picture_is_a_small_png_and_always_the_same(corner, name) -> None:
    data = picture_png(corner, name)
    assert data == picture_png(corner, name)
    image = Image.open(io.BytesIO(data))
    assert (image.format, image.mode, image.size) == ("PNG", "RGB", (VIEW_SIZE_PX, VIEW_SIZE_PX))
    assert len(data) < 150_000


def test_an_empty_site_is_ground_and_grey() -> None:
    stack = stack_of(np.zeros(SHAPE, np.uint8))
    for view in GeometryView:
        assert geometry_picture(stack, view).max() < 40
    for view in EmView:
        assert np.ptp(em_picture(stack, view), axis=-1).max() == 0


def test_there_is_no_other_view(corner) -> None:
    with pytest.raises(KeyError):
        picture_png(corner, "back")
