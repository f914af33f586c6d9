"""Of cuts, how open the way between the two sides is."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cb2_assist.core.geometry import BoxVx, PointNm, PointVoxel, Resolution
from cb2_assist.core.records import Kind, SegmentId, Site
from cb2_assist.datasets.source import Cutout, EmStatistics
from cb2_assist.views.passage import PASSAGE_NAMES, passage
from cb2_assist.views.site import SiteWindow, build_window
from cb2_assist.views.surroundings import MEASURED_NAMES, resized, site_vector, split_vector

STATISTICS = EmStatistics(150.0, 30.0)
LENGTH_NM, HALF_NM = 900.0, 150.0
VOXELS = ((10.0, 10.0, 10.0), (8.0, 8.0, 40.0))


def tube(
    voxel_nm: tuple[float, float, float],
    membrane_nm: float | None,
    *,
    hole: bool = False,
    neck: bool = True,
    kind: Kind = Kind.CUT,
) -> SiteWindow:
    """A tube along x with a neck in the middle and, where asked for, a dark sheet across it."""
    res = Resolution(*voxel_nm)
    shape = tuple(
        int(n / r) for n, r in zip((LENGTH_NM, 4 * HALF_NM, 4 * HALF_NM), res, strict=True)
    )
    x, y, z = ((i + 0.5) * r for i, r in zip(np.indices(shape, sparse=True), res, strict=True))
    from_axis = np.hypot(y - 2 * HALF_NM, z - 2 * HALF_NM)
    radius = np.where(abs(x - LENGTH_NM / 2) < 60, 0.6, 1.0) * HALF_NM if neck else HALF_NM
    inside = from_axis < radius
    seg = np.where(inside, np.uint64(7), np.uint64(0)).astype(np.uint64, order="F")
    em = np.full(shape, 150.0)
    if membrane_nm is not None:
        dark = (abs(x - membrane_nm) < 12) & inside
        if hole:
            dark = dark & (from_axis > 50)
        em = np.where(dark, 60.0, em)
    em_u8 = np.asfortranarray(em.astype(np.uint8))
    box = BoxVx(PointVoxel(0, 0, 0), PointVoxel(*shape))
    at = PointNm(LENGTH_NM / 2 - 60, 2 * HALF_NM, 2 * HALF_NM)
    if kind is Kind.JOIN:
        seg[shape[0] // 2 :][seg[shape[0] // 2 :] == 7] = 8
        site = Site(kind, SegmentId(7), SegmentId(8), at)
    else:
        site = Site(kind, SegmentId(7), None, at)
    return build_window(Cutout(box, res, em_u8, seg), site, 640.0, box)


def measured(window: SiteWindow) -> dict[str, float]:
    values: NDArray[np.float32] = passage(window, STATISTICS)
    return dict(zip(PASSAGE_NAMES, values.tolist(), strict=True))


@pytest.mark.parametrize("voxel_nm", VOXELS)
def test_a_membrane_across_the_neck_closes_the_way(voxel_nm: tuple[float, float, float]) -> None:
    at_the_neck = LENGTH_NM / 2 - 60
    closed, is_open = measured(tube(voxel_nm, at_the_neck)), measured(tube(voxel_nm, None))
    for name in ("passage_sheet15", "passage_sheet20", "passage_dark", "seam_sheet_mean"):
        assert closed[name] > is_open[name] + 0.1, name


def test_a_membrane_beside_the_neck_closes_the_way_as_well() -> None:
    """The neck's plane may be anywhere along the thin part; the membrane is found all the same."""
    one = measured(tube(VOXELS[0], LENGTH_NM / 2 + 20))
    other = measured(tube(VOXELS[0], LENGTH_NM / 2 - 60))
    assert one["passage_sheet20"] == pytest.approx(other["passage_sheet20"], rel=0.25)
    assert abs(one["seam_away"] - other["seam_away"]) > 40


def test_a_hole_in_the_membrane_opens_the_way() -> None:
    at = LENGTH_NM / 2 + 100
    whole, holed = measured(tube(VOXELS[0], at)), measured(tube(VOXELS[0], at, hole=True))
    assert holed["passage_sheet20"] < 0.6 * whole["passage_sheet20"]


def test_where_the_floods_meet_is_darker_than_the_rest_when_there_is_a_membrane() -> None:
    assert measured(tube(VOXELS[0], LENGTH_NM / 2 + 20))["seam_grey"] < -0.5
    assert measured(tube(VOXELS[0], None))["seam_grey"] == pytest.approx(0, abs=1e-5)


def test_a_join_has_no_way_to_measure() -> None:
    assert not passage(tube(VOXELS[0], None, kind=Kind.JOIN), STATISTICS).any()


def test_grey_levels_are_taken_against_the_dataset() -> None:
    """Half of the contrast in a dataset of half the contrast is the same membrane."""
    window = tube(VOXELS[0], LENGTH_NM / 2 - 60)
    faint = np.asfortranarray((window.em.astype(np.int64) // 2).astype(np.uint8))
    other = SiteWindow(
        window.site,
        window.resolution,
        window.box,
        window.half_width_nm,
        faint,
        window.seg,
        window.label,
    )
    np.testing.assert_allclose(
        passage(other, EmStatistics(75.0, 15.0)), passage(window, STATISTICS), atol=0.01
    )


def test_the_way_stands_between_features_and_surroundings() -> None:
    window = tube(VOXELS[0], LENGTH_NM / 2 - 60)
    whole = site_vector(window, STATISTICS, neighbours=True, way_between=True)
    features, around = split_vector(whole)
    assert features.shape == (len(MEASURED_NAMES),)
    assert around is not None
    np.testing.assert_array_equal(features[-len(PASSAGE_NAMES) :], passage(window, STATISTICS))
    older, same = split_vector(site_vector(window, STATISTICS, neighbours=True))
    np.testing.assert_array_equal(features[: len(older)], older)
    np.testing.assert_array_equal(around, same)


def test_features_of_an_earlier_version_are_filled_up_with_nothing() -> None:
    few = np.arange(1, 4, dtype=np.float32)
    assert resized(few, 5).tolist() == [1, 2, 3, 0, 0]
    assert resized(few[None], 2).tolist() == [[1, 2]]
