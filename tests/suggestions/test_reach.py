"""How much is read round a site."""

from types import SimpleNamespace

import pytest

from cb2_assist.core.errors import ModelError
from cb2_assist.core.geometry import BoxVx, PointVoxel, Resolution
from cb2_assist.suggestions.reach import Reach


def dataset(n, finest=8.0):
    return SimpleNamespace(
        resolution=Resolution(finest, finest, finest),
        bounds=BoxVx(PointVoxel(0, 0, 0), PointVoxel(n, n, n)),
        info=SimpleNamespace(name="big"),
    )


def test_views_as_wide_as_the_site_need_no_window_of_their_own():
    reach = Reach.of(640.0, 640.0, 640.0, from_meshes=False)

    assert (reach.site_nm, reach.views_nm, reach.is_wider) == (640.0, 640.0, False)


def test_geometry_from_meshes_needs_no_voxels():
    assert Reach.of(640.0, 7500.0, 1625.0, from_meshes=False).views_nm == 7500.0
    assert Reach.of(640.0, 7500.0, 1625.0, from_meshes=True).views_nm == 1625.0
    assert Reach.of(640.0, 7500.0, 320.0, from_meshes=True).views_nm == 640.0


def test_what_fills_the_memory_is_refused_with_what_to_do():
    with pytest.raises(ModelError, match=r"reach 3000 nm.*422 million.*big.*meshes.*--extent-nm"):
        Reach(640.0, 3000.0).check(dataset(5000), "imported")


@pytest.mark.parametrize(("views_nm", "n"), [(975.0, 5000), (3000.0, 500)])
def test_what_the_volume_does_not_have_is_not_counted(views_nm, n):
    Reach(640.0, views_nm).check(dataset(n), "imported")
