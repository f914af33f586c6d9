"""The viewer is turned exactly as the model's cameras are."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cb2_assist.core.cameras import CAMERAS
from cb2_assist.core.channels import VIEW_NAMES

X, Y, Z = np.eye(3)
SCREEN = {
    # right, up, into the screen
    "front": (-Y, Z, X),
    "side": (X, Z, Y),
    "top": (X, Y, -Z),
    "em_xy": (X, -Y, Z),
    "em_xz": (X, -Z, -Y),
    "em_yz": (-Z, -Y, X),
}


def test_there_is_a_camera_for_each_view_in_order() -> None:
    assert tuple(c.name for c in CAMERAS) == VIEW_NAMES


@pytest.mark.parametrize("camera", CAMERAS, ids=lambda c: c.name)
def test_the_axes_of_the_screen_are_those_of_the_view(camera) -> None:
    right, up, into = SCREEN[camera.name]
    turn = Rotation.from_quat(camera.orientation)
    assert turn.apply(X) == pytest.approx(right, abs=1e-12)
    assert turn.apply(Y) == pytest.approx(-up, abs=1e-12), "y points down on screen"
    assert turn.apply(Z) == pytest.approx(into, abs=1e-12)
    assert camera.panel == ("section" if camera.name.startswith("em") else "3d")


def test_the_cameras_are_the_renderers_own() -> None:
    from cb2_assist.views.hitmap import CAMERAS as RENDERED

    for view, (depth, depth_sign, right, right_sign, up) in RENDERED.items():
        axes = SCREEN[VIEW_NAMES[view]]
        wanted = (right_sign * np.eye(3)[right], np.eye(3)[up], depth_sign * np.eye(3)[depth])
        assert np.array_equal(axes, wanted)
