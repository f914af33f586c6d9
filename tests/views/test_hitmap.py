"""First hits against analytic shapes, a slow reference and the camera table."""

import numpy as np
import pytest
from scenes import ISO, part_of, random_blobs, voxel_centres, window_of

from cb2_assist.core.channels import VIEW_SIZE_PX, GeometryView
from cb2_assist.core.errors import BadRequestError
from cb2_assist.core.geometry import BoxVx, PointVoxel, Resolution
from cb2_assist.views.hitmap import EMPTY, NORMAL_SCALE, render_hits

A, B = 0, 1
# depth axis and sign, right axis and sign, up axis and sign, as in the table of core/channels.py
CAMERAS = {
    GeometryView.FRONT: ((0, 1), (1, -1), (2, 1)),
    GeometryView.SIDE: ((1, 1), (0, 1), (2, 1)),
    GeometryView.TOP: ((2, -1), (0, 1), (1, 1)),
}


def reference_hits(window, extent_nm, size_px):
    """One pixel at a time, straight from the definition; also the voxel that was hit."""
    res, anchor = tuple(window.resolution), tuple(window.site.point)
    lo, shape = tuple(window.box.lo), window.label.shape
    reach = [int(np.ceil(extent_nm / r)) for r in res]
    centre = tuple(window.site.point.to_voxel(window.resolution))
    depth = np.full((3, 2, size_px, size_px), EMPTY, np.int16)
    hit_voxel = {}
    for view, ((da, ds), (ra, rs), (ua, us)) in CAMERAS.items():
        for row, column in np.ndindex(size_px, size_px):
            at = [0, 0, 0]
            px = 2 * extent_nm / size_px
            right = anchor[ra] + rs * ((column + 0.5) * px - extent_nm)
            up = anchor[ua] - us * ((row + 0.5) * px - extent_nm)
            at[ra] = int(np.floor(right / res[ra]))
            at[ua] = int(np.floor(up / res[ua]))
            steps = range(centre[da] - reach[da], centre[da] + reach[da] + 1)
            for segment in (A, B):
                for step in steps if ds > 0 else reversed(steps):
                    at[da] = step
                    index = tuple(a - o for a, o in zip(at, lo, strict=True))
                    if any(i < 0 or i >= n for i, n in zip(index, shape, strict=True)):
                        continue
                    if window.label[index] == segment + 1:
                        face = (step + (ds < 0)) * res[da]
                        depth[view, segment, row, column] = round(ds * (face - anchor[da]))
                        hit_voxel[view, segment, row, column] = index
                        break
    return depth, hit_voxel


def visible(window, extent_nm):
    """The window cropped to what its views may show."""
    return part_of(window, BoxVx.around(window.site.point, extent_nm, window.resolution))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("resolution", [ISO, Resolution(8, 8, 40), Resolution(9.3, 11.7, 6.1)])
def test_hits_equal_a_ray_by_ray_reference(seed, resolution):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(9, 24, 3))
    lo = tuple(int(v) for v in rng.integers(-40, 4000, 3))
    anchor = [
        (o + rng.uniform(0.3, 0.7) * n) * r for o, n, r in zip(lo, shape, resolution, strict=True)
    ]
    window = window_of(random_blobs(rng, shape), resolution=resolution, lo=lo, anchor=anchor)
    extent = 71.0 + 10 * seed
    got = render_hits(window, extent, 26)
    expected, hit_voxel = reference_hits(window, extent, 26)
    assert (expected != EMPTY).any()
    np.testing.assert_array_equal(got.depth_nm, expected)
    where = np.argwhere((got.normal_i8 != 0).any(2))
    assert {tuple(w) for w in where} == {(int(v), *rest) for v, *rest in hit_voxel}


def test_normals_equal_the_gradient_of_the_binomially_smoothed_segment():
    rng = np.random.default_rng(7)
    resolution = Resolution(8, 8, 12)
    window = window_of(random_blobs(rng, (21, 21, 21)), resolution=resolution)
    hits = render_hits(window, 80.0, 26)
    _, hit_voxel = reference_hits(window, 80.0, 26)
    part = visible(window, 80.0)
    shift = [a - b for a, b in zip(part.box.lo, window.box.lo, strict=True)]
    taps = np.array([1, 4, 6, 4, 1])
    weight = np.einsum("i,j,k->ijk", taps, taps, taps)
    offset = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3, indexing="ij"))
    for (view, segment, row, column), index in hit_voxel.items():
        mask = np.pad(part.label == segment + 1, 2)
        x, y, z = (i - s for i, s in zip(index, shift, strict=True))
        near = mask[x : x + 5, y : y + 5, z : z + 5]
        gradient = -(offset * weight * near).sum((1, 2, 3)) / tuple(resolution)
        got = hits.normal_i8[view, segment, :, row, column]
        if gradient.any():
            expected = NORMAL_SCALE * gradient / np.linalg.norm(gradient)
            np.testing.assert_allclose(got, expected, atol=0.51)


@pytest.mark.parametrize("radius_nm", [150, 400])
def test_a_sphere_has_its_depth_and_normals(radius_nm):
    x, y, z = voxel_centres((129, 129, 129))
    window = window_of(np.sqrt(x**2 + y**2 + z**2) <= radius_nm)
    hits = render_hits(window, 640.0)
    offset = (np.arange(VIEW_SIZE_PX) + 0.5) * 1280 / VIEW_SIZE_PX - 640
    right, up = np.meshgrid(offset, -offset)
    inner = np.hypot(right, up) < 0.9 * radius_nm
    away = np.hypot(right, up) > radius_nm + 10
    depth = -np.sqrt(np.maximum(radius_nm**2 - right**2 - up**2, 0))
    for view, ((da, ds), (ra, rs), (ua, us)) in CAMERAS.items():
        got = hits.depth_nm[view, A]
        assert (got[away] == EMPTY).all()
        error = got[inner] - depth[inner]
        assert np.abs(error).max() < 25  # the slope at 0.9 r is 2: two voxels and a half
        assert abs(np.median(error)) < 5  # half a voxel: no offset
        normal = np.zeros((3, *got.shape))
        normal[da], normal[ra], normal[ua] = ds * depth, rs * right, us * up
        cosine = (normal * hits.normal_i8[view, A]).sum(0)[inner] / radius_nm / NORMAL_SCALE
        angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        assert np.median(angle) < 5
        assert np.percentile(angle, 95) < 13
    assert (hits.depth_nm[:, B] == EMPTY).all()
    assert not hits.normal_i8[:, B].any()


def test_a_box_has_flat_faces_at_their_metric_depth():
    label = np.zeros((65, 65, 65), np.uint8)
    label[22:43, 12:53, 27:38] = 2  # faces at -105..105, -205..205, -55..55 nm
    hits = render_hits(window_of(label), 320.0)
    for view, face, half_right, half_up in (
        (GeometryView.FRONT, -105, 205, 55),
        (GeometryView.SIDE, -205, 105, 55),
        (GeometryView.TOP, -55, 105, 205),
    ):
        depth = hits.depth_nm[view, B]
        rows, columns = np.nonzero(depth != EMPTY)
        assert set(depth[rows, columns]) == {face}
        px = 640 / VIEW_SIZE_PX
        width, height = columns.max() - columns.min() + 1, rows.max() - rows.min() + 1
        assert abs(width * px - 2 * half_right) <= px
        assert abs(height * px - 2 * half_up) <= px
        (axis, sign), _, _ = CAMERAS[view]
        middle = hits.normal_i8[view, B, :, VIEW_SIZE_PX // 2, VIEW_SIZE_PX // 2]
        expected = np.zeros(3)
        expected[axis] = -sign * NORMAL_SCALE
        np.testing.assert_array_equal(middle, expected)


def test_each_camera_is_oriented_as_the_channel_table_says():
    # three arms of different lengths leave the anchor along +x, +y and +z
    label = np.zeros((65, 65, 65), np.uint8)
    label[32:62, 31:34, 31:34] = 1
    label[31:34, 32:52, 31:34] = 1
    label[31:34, 31:34, 32:44] = 1
    hits = render_hits(window_of(label), 320.0)
    reach = {0: 295, 1: 195, 2: 115}  # nm from the anchor to the end of the arm
    px = 640 / VIEW_SIZE_PX
    for view, (_, (ra, rs), (ua, us)) in CAMERAS.items():
        rows, columns = np.nonzero(hits.depth_nm[view, A] != EMPTY)
        right = (columns.max() + 1) * px - 320, 320 - columns.min() * px
        up = 320 - rows.min() * px, (rows.max() + 1) * px - 320
        towards, against = right if rs > 0 else right[::-1]
        assert abs(towards - reach[ra]) <= px
        assert abs(against - 15) <= px
        towards, against = up if us > 0 else up[::-1]
        assert abs(towards - reach[ua]) <= px
        assert abs(against - 15) <= px


def test_cameras_see_their_own_near_side():
    label = np.zeros((33, 33, 33), np.uint8)
    label[4:8, 4:8, 25:29] = 1  # low x, low y, high z: nearest to each of the cameras
    label[24:28, 24:28, 5:9] = 2
    hits = render_hits(window_of(label), 160.0)
    for view in GeometryView:
        near, far = hits.depth_nm[view, A], hits.depth_nm[view, B]
        assert near[near != EMPTY].max() < 0 < far[far != EMPTY].min()


@pytest.mark.parametrize("order", ["C", "F", "sliced", "reversed", "read-only"])
def test_memory_order_does_not_matter(order):
    rng = np.random.default_rng(3)
    window = window_of(random_blobs(rng, (33, 29, 31)))
    expected = render_hits(window, 140.0)
    label = window.label
    if order in "CF":
        label = np.array(label, order=order)
    elif order == "sliced":
        label = np.zeros((70, 60, 65), np.uint8, order="F")[1:67:2, 1:30, 1:32]
        label[:] = window.label
    elif order == "reversed":
        label = np.array(label[::-1, ::-1, ::-1])[::-1, ::-1, ::-1]
    else:
        label = label.copy()
        label.flags.writeable = False
    got = render_hits(window_of(label), 140.0)
    np.testing.assert_array_equal(got.depth_nm, expected.depth_nm)
    np.testing.assert_array_equal(got.normal_i8, expected.normal_i8)


@pytest.mark.parametrize("anchor_shift", [0.0, 4.9, -4.9, 3.3])
def test_a_crop_of_a_large_window_renders_like_the_window_alone(anchor_shift):
    rng = np.random.default_rng(11)
    lo = (100, -7, 3000)
    anchor = [(o + 30.5) * 10 + anchor_shift for o in lo]
    large = window_of(random_blobs(rng, (61, 61, 61)), lo=lo, anchor=anchor)
    expected = render_hits(large, 155.0)
    got = render_hits(visible(large, 155.0), 155.0)
    np.testing.assert_array_equal(got.depth_nm, expected.depth_nm)
    np.testing.assert_array_equal(got.normal_i8, expected.normal_i8)


def test_beyond_the_edge_of_the_dataset_is_empty():
    rng = np.random.default_rng(5)
    label = random_blobs(rng, (41, 41, 41))
    label[:, :, 30:] = 0
    label[:9] = 0
    whole = window_of(label)
    clipped = part_of(whole, BoxVx(PointVoxel(9, 0, 0), PointVoxel(41, 41, 30)))
    expected, got = render_hits(whole, 200.0), render_hits(clipped, 200.0)
    np.testing.assert_array_equal(got.depth_nm, expected.depth_nm)
    np.testing.assert_array_equal(got.normal_i8, expected.normal_i8)


def test_a_window_away_from_its_view_shows_nothing():
    window = window_of(np.ones((5, 5, 5)), anchor=(5000, 5000, 5000))
    hits = render_hits(window, 100.0)
    assert (hits.depth_nm == EMPTY).all()
    assert not hits.normal_i8.any()


def test_tilted_planes_keep_their_normals_in_anisotropic_voxels():
    resolution = Resolution(8, 8, 40)
    shape = (129, 129, 27)
    x, y, z = voxel_centres(shape, resolution)
    for normal in ((0.0, -0.6, 0.8), (-0.5, -0.5, np.sqrt(0.5)), (-0.8, 0.0, 0.6)):
        label = normal[0] * x + normal[1] * y + normal[2] * z <= 0
        hits = render_hits(window_of(label, resolution=resolution), 500.0)
        for view in GeometryView:
            (axis, sign), _, _ = CAMERAS[view]
            if sign * normal[axis] > -0.3:
                continue
            middle = np.s_[view, A, :, 80:144, 80:144]
            got = hits.normal_i8[middle].reshape(3, -1).astype(float)
            got /= np.linalg.norm(got, axis=0)
            angle = np.degrees(np.arccos(np.clip(np.array(normal) @ got, -1, 1)))
            assert np.median(angle) < 14, (normal, view)
            mean = got.mean(1) / np.linalg.norm(got.mean(1))
            assert np.degrees(np.arccos(np.array(normal) @ mean)) < 8, (normal, view)


def test_a_sheet_one_voxel_thin_faces_the_camera():
    label = np.zeros((33, 33, 33), np.uint8)
    label[16] = 1
    hits = render_hits(window_of(label), 100.0)
    np.testing.assert_array_equal(hits.normal_i8[GeometryView.FRONT, A, :, 112, 112], [-127, 0, 0])


@pytest.mark.parametrize("extent", [0, -1, 31_991, float("nan"), float("inf")])
def test_an_impossible_extent_is_refused(extent):
    with pytest.raises(BadRequestError, match="half width"):
        render_hits(window_of(np.ones((3, 3, 3))), extent)
