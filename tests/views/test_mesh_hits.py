"""First hits on meshes: exact shapes, Embree on the same lines of sight, and odd meshes."""

import numpy as np
import pytest
import trimesh
from surfaces import ANCHOR, CAMERAS, at_anchor, blob, embree

from cb2_assist.core.channels import GeometryView
from cb2_assist.core.errors import BadRequestError, BadVolumeError
from cb2_assist.datasets.source import Mesh
from cb2_assist.views.hitmap import EMPTY, MAX_DEPTH_NM, NORMAL_SCALE, SAMPLE_SHIFT_PX
from cb2_assist.views.mesh_hits import CB2_REACH, mesh_hits

EXTENT = 450.0
PROFILES = ("clean", "cb2")
A, B = 0, 1


def lines_nm(extent, profile, size=224):
    """Distance of each column (or row) from the middle, rightwards (downwards)."""
    at = (np.arange(size) + 0.5 + SAMPLE_SHIFT_PX[profile]) * (2 * extent / size) - extent
    return np.meshgrid(at, at)


def unit(normal_i8):
    """Normals as vectors of length 1, x, y, z last."""
    n = np.moveaxis(normal_i8.astype(float), -3, -1)
    return n / np.maximum(np.linalg.norm(n, axis=-1, keepdims=True), 1)


def degrees(a, b):
    return np.degrees(np.arccos(np.clip((a * b).sum(-1), -1, 1)))


@pytest.mark.parametrize("profile", PROFILES)
def test_a_box_has_its_faces_at_their_exact_depth_and_edges_at_the_exact_pixel(profile):
    half = np.array([106.0, 206.0, 57.0])  # no edge lies on a line of sight
    box = trimesh.creation.box(2 * half)
    hits = mesh_hits((None, at_anchor(box.vertices, box.faces)), ANCHOR, 320.0, profile)
    across, down = lines_nm(320.0, profile)
    for view, (forward, right, up) in enumerate(CAMERAS):
        reach = [half[np.flatnonzero(a)[0]] for a in (forward, right, up)]
        inside = (np.abs(across) <= reach[1]) & (np.abs(down) <= reach[2])
        depth = hits.depth_nm[view, B]
        np.testing.assert_array_equal(depth != EMPTY, inside)
        assert set(np.unique(depth[inside])) == {-reach[0]}
    assert (hits.depth_nm[:, A] == EMPTY).all()
    assert not hits.normal_i8[:, A].any()


@pytest.mark.parametrize("profile", PROFILES)
def test_a_sphere_has_the_depth_and_the_normal_of_a_sphere(profile):
    radius = 300.0
    ball = trimesh.creation.icosphere(6, radius=radius)
    hits = mesh_hits((at_anchor(ball.vertices, ball.faces), None), ANCHOR, EXTENT, profile)
    across, down = lines_nm(EXTENT, profile)
    from_axis = np.hypot(across, down)
    clear = np.abs(from_axis - radius) > 1  # the polyhedron is up to 0.05 nm inside the sphere
    for view, camera in enumerate(CAMERAS):
        forward, right, up = (np.array(a) for a in camera)
        depth = hits.depth_nm[view, A]
        np.testing.assert_array_equal((depth != EMPTY)[clear], (from_axis < radius)[clear])
        inside = from_axis < 0.9 * radius
        along = -np.sqrt(radius**2 - from_axis[inside] ** 2)
        np.testing.assert_allclose(depth[inside], along, atol=0.7)  # half a nm is rounding
        outward = (
            across[inside, None] * right - down[inside, None] * up + along[:, None] * forward
        ) / radius
        assert degrees(unit(hits.normal_i8[view, A])[inside], outward).max() < 0.6


@pytest.mark.parametrize("profile", PROFILES)
def test_a_slanted_plane_has_its_exact_depth_and_one_normal(profile):
    # x = 100 + 0.5 y - 0.25 z, looking at -x: a rectangle of two triangles
    y, z = np.array([-300, 300, 300, -300.0]), np.array([-200, -200, 200, 200.0])
    corners = np.stack([100 + 0.5 * y - 0.25 * z, y, z], 1)
    plane = at_anchor(corners, [[0, 2, 1], [0, 3, 2]])
    hits = mesh_hits((plane, None), ANCHOR, EXTENT, profile)
    across, down = lines_nm(EXTENT, profile)
    depth = hits.depth_nm[GeometryView.FRONT, A]
    # the front camera's right is -y, its up is z
    inside = (np.abs(across) < 300) & (np.abs(down) < 200)
    np.testing.assert_array_equal(depth != EMPTY, inside)
    expected = 100 + 0.5 * -across - 0.25 * -down
    np.testing.assert_allclose(depth[inside], expected[inside], atol=0.51)
    normal = np.array([-1, 0.5, -0.25]) / np.linalg.norm([1, 0.5, 0.25])
    got = hits.normal_i8[GeometryView.FRONT, A][:, inside].T
    np.testing.assert_array_equal(got, np.rint(normal * NORMAL_SCALE)[None].repeat(len(got), 0))


def cap(seen, vertices, faces, extent):
    """What `clean` makes of lines that begin inside: Embree met a back face first."""
    corner = np.asarray(vertices, float)[faces]
    outward = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    depth, normal = seen.depth.copy(), seen.normal.copy()
    for view, (forward, _, _) in enumerate(CAMERAS):
        inside = (seen.face[view] >= 0) & (outward[seen.face[view]] @ forward > 0)
        depth[view][inside] = -extent
        normal[view][inside] = -np.array(forward)
    return depth, normal


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("profile", PROFILES)
def test_hits_agree_with_embree_on_the_same_lines_of_sight(profile, seed):
    mesh = blob(seed)
    vertices = mesh.vertices - np.array(tuple(ANCHOR))
    hits = mesh_hits((mesh, None), ANCHOR, EXTENT, profile)
    clean = profile == "clean"
    seen = embree(
        vertices,
        mesh.faces,
        EXTENT,
        SAMPLE_SHIFT_PX[profile],
        by_area=clean,
        start=-EXTENT if clean else None,
    )
    depth, normal = cap(seen, vertices, mesh.faces, EXTENT) if clean else seen[::2]
    found, expected = hits.depth_nm[:, A] != EMPTY, depth <= EXTENT if clean else depth < np.inf
    assert 0.3 < expected.mean() < 0.8
    assert (found == expected).mean() >= 0.9999
    both = found & expected
    apart = np.abs(hits.depth_nm[:, A][both] - depth[both])
    assert (apart <= 1.5).mean() >= 0.9999  # 1 nm, and half for rounding to whole nm
    assert np.percentile(apart, 99) <= 0.51
    angle = degrees(unit(hits.normal_i8[:, A])[both], normal[both])
    assert np.percentile(angle, 99.9) < 0.5  # int8 components: 0.39 degrees at most
    assert (angle < 3).mean() >= 0.9999


@pytest.mark.parametrize("profile", PROFILES)
def test_the_order_of_triangles_and_of_their_corners_does_not_matter(profile):
    mesh = blob(1)
    rng = np.random.default_rng(0)
    expected = mesh_hits((mesh, None), ANCHOR, EXTENT, profile)
    faces = rng.permutation(mesh.faces)
    by = (np.arange(3) + rng.integers(3, size=(len(faces), 1))) % 3
    rolled = np.take_along_axis(faces, by, 1)
    got = mesh_hits((Mesh(mesh.vertices, rolled), None), ANCHOR, EXTENT, profile)
    differs = got.depth_nm != expected.depth_nm
    assert differs.mean() < 1e-4  # a depth of n + 0.5 nm rounds either way
    assert np.abs(got.depth_nm.astype(int) - expected.depth_nm).max() <= 1
    near = got.normal_i8.astype(int) - expected.normal_i8
    assert np.abs(near).max() <= 1


def test_clean_shows_a_segment_that_leaves_the_box_as_solid_and_cb2_looks_into_it():
    tube = trimesh.creation.cylinder(100.0, 4000.0, sections=256)  # along z, beyond both ends
    mesh = at_anchor(tube.vertices, tube.faces)
    across, down = lines_nm(EXTENT, "clean")
    inside = np.hypot(across, down) < 98
    top = mesh_hits((mesh, None), ANCHOR, EXTENT, "clean").depth_nm[GeometryView.TOP, A]
    assert set(np.unique(top[inside])) == {-EXTENT}
    fine = trimesh.creation.cylinder(100.0, 1000.0, sections=256)
    for _ in range(2):
        fine = fine.subdivide_to_size(60.0)
    seen = mesh_hits((at_anchor(fine.vertices, fine.faces), None), ANCHOR, EXTENT / 2, "cb2")
    assert (seen.depth_nm[GeometryView.TOP, A][96:128, 96:128] == EMPTY).all()  # open ends


def test_clean_shows_a_segment_that_fills_the_whole_view_as_solid():
    ball = trimesh.creation.icosphere(4, radius=3000.0)
    mesh = at_anchor(ball.vertices, ball.faces)
    hits = mesh_hits((mesh, None), ANCHOR, EXTENT, "clean")
    assert (hits.depth_nm[:, A] == -EXTENT).all()
    for view, (forward, _, _) in enumerate(CAMERAS):
        normals = np.unique(hits.normal_i8[view, A].reshape(3, -1), axis=1)
        np.testing.assert_array_equal(normals.T, [[-NORMAL_SCALE * a for a in forward]])


def test_cb2_leaves_out_triangles_with_a_corner_beyond_1_2_half_widths():
    def square(x, half):
        return [[x, -half, -half], [x, half, -half], [x, half, half], [x, -half, half]]

    faces = [[0, 2, 1], [0, 3, 2]]
    reach = CB2_REACH * EXTENT
    for x, half, seen in ((reach - 1, 400, True), (reach + 1, 400, False), (0, reach + 1, False)):
        hits = mesh_hits((at_anchor(square(x, half), faces), None), ANCHOR, EXTENT, "cb2")
        assert (hits.depth_nm[GeometryView.FRONT, A] != EMPTY).any() == seen
    # inside the crop but beyond the view box: cb2 shows it, clean does not
    beyond = at_anchor(square(EXTENT + 40, 200), faces)
    shown = {p: mesh_hits((beyond, None), ANCHOR, EXTENT, p) for p in PROFILES}
    assert (shown["cb2"].depth_nm[GeometryView.FRONT, A] == EXTENT + 40).any()
    assert (shown["clean"].depth_nm[GeometryView.FRONT, A] == EMPTY).all()


def test_cb2_normals_are_unweighted_means_over_the_winding_and_are_not_flipped():
    # a large and a small face share an edge; seen from both sides
    vertices = np.array([[60, 20, -300], [0, 0, 300], [300, 300, 0], [50, -30, 0.0]])
    faces = np.array([[0, 1, 2], [1, 0, 3]])
    for winding in (faces, faces[:, ::-1]):
        hits = mesh_hits((at_anchor(vertices, winding), None), ANCHOR, EXTENT, "cb2")
        seen = embree(vertices, winding, EXTENT, SAMPLE_SHIFT_PX["cb2"], by_area=False)
        for view in range(3):
            found = (hits.depth_nm[view, A] != EMPTY) & (seen.face[view] >= 0)
            assert found.any()
            got = unit(hits.normal_i8[view, A])[found]
            assert degrees(got, seen.normal[view][found]).max() < 0.6


@pytest.mark.parametrize("profile", PROFILES)
def test_degenerate_triangles_change_nothing(profile):
    mesh = blob(2)
    rng = np.random.default_rng(0)
    some = mesh.faces[rng.integers(len(mesh.faces), size=300)].copy()
    some[:100, 1] = some[:100, 0]  # two corners in one
    some[100:200] = some[100:200, :1]  # a point
    middle = mesh.vertices[some[200:, :2]].mean(1)  # three corners on a line
    vertices = np.concatenate([mesh.vertices, middle])
    some[200:, 2] = len(mesh.vertices) + np.arange(100)
    expected = mesh_hits((mesh, None), ANCHOR, EXTENT, profile)
    got = mesh_hits(
        (Mesh(vertices, np.concatenate([some, mesh.faces])), None), ANCHOR, EXTENT, profile
    )
    np.testing.assert_array_equal(got.depth_nm != EMPTY, expected.depth_nm != EMPTY)
    assert (got.depth_nm != expected.depth_nm).mean() < 1e-4
    assert np.isfinite(unit(got.normal_i8)).all()


@pytest.mark.parametrize("profile", PROFILES)
def test_nothing_to_see_is_empty(profile):
    nothing = Mesh(np.zeros((0, 3)), np.zeros((0, 3), int))
    far = at_anchor(np.eye(3) * 100 + 1e6, [[0, 1, 2]])
    for meshes in ((None, None), (nothing, None), (far, nothing)):
        hits = mesh_hits(meshes, ANCHOR, EXTENT, profile)
        assert (hits.depth_nm == EMPTY).all()
        assert not hits.normal_i8.any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_a_mesh_with_a_vertex_that_is_no_number_is_refused(bad):
    vertices = np.zeros((4, 3))
    vertices[2, 1] = bad
    with pytest.raises(BadVolumeError, match="not finite"):
        Mesh(vertices, np.array([[0, 1, 2]]))


def test_a_mesh_with_a_face_that_names_no_vertex_is_refused():
    for faces in ([[0, 1, 3]], [[0, 1, -1]]):
        with pytest.raises(BadVolumeError, match="damaged"):
            Mesh(np.zeros((3, 3)), np.array(faces))
    with pytest.raises(BadVolumeError, match=r"\(3, 3\) and \(1, 4\)"):
        Mesh(np.zeros((3, 3)), np.array([[0, 1, 2, 0]]))


@pytest.mark.parametrize("extent", [0, -1, float("nan"), float("inf"), MAX_DEPTH_NM + 1])
@pytest.mark.parametrize("profile", PROFILES)
def test_an_impossible_extent_is_refused(profile, extent):
    with pytest.raises(BadRequestError, match="half width"):
        mesh_hits((blob(), None), ANCHOR, extent, profile)


def test_an_unknown_profile_is_refused():
    with pytest.raises(BadRequestError, match="'raw'"):
        mesh_hits((None, None), ANCHOR, EXTENT, "raw")
