"""The ``cb2`` profile, statement by statement, against ConnectomeBench2's published encoding.

Each row of `STATEMENTS` is one statement about ConnectomeBench2's tensors (arXiv 2606.21116 and
github.com/timfarkas/ConnectomeBench2), numbered by the section of the project's description of
them, and one check. Geometry is computed a second time here, in plain numpy and in floating point:
triangle by triangle, with the statement's own formulas. Our depths are whole nm and our normals
127ths, so values may differ by that much and nothing more.

What cannot be checked without ConnectomeBench2's data or renderer, and what differs on purpose:

* 2.4, 3.5 that the published tensors are what the code's reading says (gamma, quarter pixel): no
  published row is at hand. The formulas are checked, not their truth.
* 3.2 the camera's distance of 2.3 half widths: an orthographic image does not depend on it.
* 3.3 half widths drawn at random per sample, and anchors jittered by 300 nm: the model card fixes
  the half width and the anchor is the site's point. ConnectomeBench2's own metadata do not hold
  the drawn values (3.3, 3.9).
* 3.4 whole-root meshes at the finest level of detail, caches, time limits and retries: a matter of
  the dataset (`tests/datasets/test_mesh_layer.py` has ours).
* 3.5 anti-aliasing, which blends the colours, hence the normals, of edge pixels with black: which
  pixels and how much depends on the graphics driver. Ours have the surface's own normal there.
* 3.5 normals that come with a mesh: precomputed meshes have none. From labels, normals are the
  gradient of the smoothed segment instead of a mesh's vertex normals.
* 3.4, 3.6 the crop at 1.2 half widths, from labels: a site window ends at 1.0 half widths.
* 3.7 A is the root with more level-2 chunks: ours is the site's segment, the partner is B.
* 4.2 the EM's field of view of 1.05 to 1.5 windows and its recentring between the two segments,
  both of which tell the answer (its centre is chosen from the masks): our EM planes go through the
  site's point and span the same half width as the geometry.
"""

import io
import zipfile
from dataclasses import dataclass, replace

import numpy as np
import pytest
import trimesh
from PIL import Image
from scenes import STATISTICS, random_blobs, window_of

from cb2_assist.core.channels import EmChannel, EmView
from cb2_assist.core.channels import GeometryChannel as Ch
from cb2_assist.core.records import Kind, Site
from cb2_assist.datasets.source import Mesh
from cb2_assist.views.encode import srgb_warp
from cb2_assist.views.hitmap import line_offsets
from cb2_assist.views.stack import ViewStack, render

E = 320.0
VIEWS = (  # 3.2: looks along, up; right = forward x up
    ((1, 0, 0), (0, 0, 1)),
    ((0, 1, 0), (0, 0, 1)),
    ((0, 0, -1), (0, 1, 0)),
)
NORMALS = slice(Ch.NORMAL_X, Ch.NORMAL_Z + 1)


def sub_pixels():
    """3.5: of 448 pixels across 2e, every second one from the second on is kept."""
    centres = (np.arange(448) + 0.5) / 448 * 2 * E - E
    return np.meshgrid(centres[1::2], centres[1::2])


def gamma(n):
    """3.5: 2 sRGB((n + 1) / 2) - 1."""
    linear = (np.asarray(n, float) + 1) / 2
    low, high = 12.92 * linear, 1.055 * np.maximum(linear, 1e-12) ** (1 / 2.4) - 0.055
    return 2 * np.where(linear <= 0.0031308, low, high) - 1


def cast(vertices, faces):
    """Depth and interpolated vertex normal of one mesh round the anchor, by plain geometry.

    3.4: vertices within 1.2 e on all axes, faces whose three vertices all survive.
    3.5: unweighted mean of unit face normals over the winding.
    """
    faces = faces[(np.abs(vertices) <= 1.2 * E).all(1)[faces].all(1)]
    corner = vertices[faces]
    n = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    n /= np.linalg.norm(n, axis=1, keepdims=True)
    at_vertex = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(at_vertex, faces[:, k], n)
    length = np.linalg.norm(at_vertex, axis=1, keepdims=True)
    at_vertex /= np.where(length > 0, length, 1)
    across, down = sub_pixels()
    depth = np.full((3, 224, 224), np.inf)
    normal = np.zeros((3, 3, 224, 224))
    for view, (forward, up) in enumerate(np.array(VIEWS, float)):
        right = np.cross(forward, up)
        for face, (a, b, c) in zip(faces, corner @ np.stack([right, -up, forward], 1), strict=True):
            area = (b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1])
            if abs(area) < 1e-9:
                continue
            wb = ((across - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (down - a[1])) / area
            wc = ((b[0] - a[0]) * (down - a[1]) - (across - a[0]) * (b[1] - a[1])) / area
            wa = 1 - wb - wc
            z = wa * a[2] + wb * b[2] + wc * c[2]
            hit = (np.minimum(np.minimum(wa, wb), wc) >= 0) & (z < depth[view])
            mixed = np.einsum("kyx,kn->nyx", np.stack([wa, wb, wc]), at_vertex[face])
            mixed /= np.linalg.norm(mixed, axis=0) + 1e-12
            depth[view] = np.where(hit, z, depth[view])
            normal[view] = np.where(hit, mixed, normal[view])
    return depth, normal


@dataclass
class Scene:
    """What we render, and the same computed here."""

    stack: ViewStack
    geometry: np.ndarray
    """Ours, as float32."""
    depth: np.ndarray
    """(segment, view, row, column), nm; infinity where there is nothing."""
    normal: np.ndarray
    """(segment, view, x/y/z, row, column), true."""

    @property
    def found(self):
        return np.isfinite(self.depth)

    @property
    def own(self):
        """3.6: (d - min) / (max - min + 1e-8), per view and mesh, infinity in the background."""
        d = np.where(self.found, self.depth, np.nan)
        low = np.nanmin(d, (2, 3), keepdims=True)
        high = np.nanmax(d, (2, 3), keepdims=True)
        return np.where(self.found, (d - low) / (high - low + 1e-8), np.inf)

    @property
    def a_in_front(self):
        """3.7: A where only A is, or where both are and A's depth is not greater."""
        return self.found[0] & (self.own[0] <= self.own[1])

    @property
    def clear(self):
        """Pixels where whole nm cannot turn round which of the two is in front."""
        with np.errstate(invalid="ignore"):
            return ~(self.found.all(0) & (np.abs(self.own[0] - self.own[1]) < 0.005))


def two_bodies():
    """Facetted, of different sizes, overlapping in every view; B reaches out of the crop."""
    a, b = (trimesh.creation.icosphere(1, radius=1.0) for _ in range(2))
    turn = trimesh.transformations.rotation_matrix(0.7, (1, 2, 3))[:3, :3]
    first = (a.vertices * (260, 90, 120)) @ turn.T + (-30, 20, 40)
    second = (b.vertices * (80, 180, 240)) @ turn + (110, -90, -60)
    return [(first, np.array(a.faces)), (second, np.array(b.faces))]


def em_window(kind=Kind.JOIN):
    rng = np.random.default_rng(3)
    shape = (65, 65, 65)
    em = rng.normal(110, 20, shape).clip(0, 255).astype(np.uint8)
    window = window_of(random_blobs(rng, shape), em=em)
    if kind is Kind.CUT:
        seg = np.where(window.label > 0, np.uint64(1), np.uint64(0))
        site = Site(Kind.CUT, window.site.segment, None, window.site.point)
        window = replace(window, site=site, seg=seg)
    return window


def drawn(window, meshes):
    return render(
        window,
        extent_nm=E,
        profile="cb2",
        statistics=STATISTICS,
        features=np.zeros(1, np.float32),
        meshes=meshes,
        em_oblique=True,
    )


def scene_of(bodies, kind=Kind.JOIN):
    window = em_window(kind)
    anchor = np.array(tuple(window.site.point))
    meshes = [Mesh(v + anchor, f) for v, f in bodies]
    stack = drawn(window, (*meshes, *[None] * (2 - len(meshes))))
    parts = [cast(*b) for b in bodies]
    if len(parts) == 1:
        parts.append((np.full((3, 224, 224), np.inf), np.zeros((3, 3, 224, 224))))
    depth, normal = (np.stack(p) for p in zip(*parts, strict=True))
    return Scene(stack, stack.geometry().astype(np.float32), depth, normal)


@pytest.fixture(scope="module")
def pair():
    return scene_of(two_bodies())


@pytest.fixture(scope="module")
def single():
    return scene_of(two_bodies()[:1], Kind.CUT)


# 2.4, the blob -------------------------------------------------------------------------------


def npz(pair):
    data = io.BytesIO()
    np.savez_compressed(data, pair.stack.geometry())
    with zipfile.ZipFile(data) as archive:
        (member,) = archive.infolist()
    assert (member.filename, member.compress_type) == ("arr_0.npy", zipfile.ZIP_DEFLATED)
    assert member.file_size == 0x202880 == 3 * 7 * 224 * 224 * 2 + 128
    data.seek(0)
    with np.load(data, allow_pickle=False) as stored:
        np.testing.assert_array_equal(stored["arr_0"], pair.stack.geometry())


def array(pair):
    geometry = pair.stack.geometry()
    assert geometry.dtype == np.float16
    assert geometry.shape == (3, 7, 224, 224)
    assert geometry.flags.c_contiguous


def silhouette(pair):
    np.testing.assert_array_equal(pair.geometry[:, Ch.SILHOUETTE], pair.found.any(0))


def masks(pair):
    np.testing.assert_array_equal(pair.geometry[:, Ch.MASK_A], pair.found[0])
    np.testing.assert_array_equal(pair.geometry[:, Ch.MASK_B], pair.found[1])
    both = (pair.geometry[:, Ch.MASK_A] == 1) & (pair.geometry[:, Ch.MASK_B] == 1)
    assert both.any((1, 2)).all()


def background(pair):
    assert not pair.geometry.transpose(1, 0, 2, 3)[:, ~pair.found.any(0)].any()


def value_range(pair):
    depth, normal = pair.geometry[:, Ch.DEPTH], pair.geometry[:, NORMALS]
    assert depth.min() == 0
    assert depth.max() == 1
    assert normal.min() >= -1
    assert normal.max() <= 1


def single_masks(single):
    assert single.geometry[:, Ch.SILHOUETTE].any((1, 2)).all()
    np.testing.assert_array_equal(single.geometry[:, Ch.MASK_A], single.geometry[:, Ch.SILHOUETTE])
    assert not single.geometry[:, Ch.MASK_B].any()
    np.testing.assert_array_equal(single.geometry[:, Ch.MASK_A], single.found[0])


# 3.2, cameras --------------------------------------------------------------------------------


def arms(_):
    """Thin arms of 250, 170 and 90 nm along +x, +y and +z, a stub of 30 nm the other way."""
    reach = (250, 170, 90)
    boxes = []
    for axis, length in enumerate(reach):
        size = np.full(3, 20.0)
        size[axis] = length + 30
        box = trimesh.creation.box(size)
        box.vertices[:, axis] += (length - 30) / 2
        boxes.append(box)
    body = trimesh.util.concatenate(boxes)
    seen = scene_of([(np.array(body.vertices), np.array(body.faces))], Kind.CUT)
    px = 2 * E / 224
    for view, (forward, up) in enumerate(np.array(VIEWS, int)):
        right = np.cross(forward, up)
        rows, columns = np.nonzero(seen.geometry[view, Ch.SILHOUETTE])
        # edges of the silhouette, nm from the middle, rightwards and upwards
        spans = {
            tuple(right): ((columns.min() - 112) * px, (columns.max() - 111) * px),
            tuple(up): ((111 - rows.max()) * px, (112 - rows.min()) * px),
        }
        for direction, (low, high) in spans.items():
            axis = int(np.flatnonzero(direction)[0])
            ends = sorted([direction[axis] * reach[axis], -direction[axis] * 30])
            np.testing.assert_allclose((low, high), ends, atol=1.5 * px)
        assert (np.array(VIEWS[view][0]) != 0).sum() == 1


def orthographic(_):
    """Moving a body along the line of sight changes its raw depth and nothing in the image."""
    vertices, faces = two_bodies()[0]
    here = scene_of([(vertices * 0.5, faces)], Kind.CUT)
    for view, (forward, _up) in enumerate(np.array(VIEWS, float)):
        there = scene_of([(vertices * 0.5 + 150 * forward, faces)], Kind.CUT)
        np.testing.assert_array_equal(
            here.geometry[view, Ch.SILHOUETTE], there.geometry[view, Ch.SILHOUETTE]
        )
        moved = there.stack.hits.depth_nm[view, 0].astype(int) - here.stack.hits.depth_nm[view, 0]
        inside = here.geometry[view, Ch.SILHOUETTE] == 1
        assert set(np.unique(moved[inside])) <= {149, 150, 151}


def nothing_is_clipped(_):
    """A wall between 1.0 and 1.2 half widths is seen, in front and behind."""
    for x in (-1.15 * E, 1.15 * E):
        corners = np.array([[x, -100, -100], [x, 100, -100], [x, 100, 100], [x, -100, 100]])
        seen = scene_of([(corners, np.array([[0, 2, 1], [0, 3, 2]]))], Kind.CUT)
        side_px = 200 / (2 * E / 224)
        assert seen.geometry[0, Ch.SILHOUETTE].sum() == pytest.approx(side_px**2, rel=0.03)


# 3.4, mesh -----------------------------------------------------------------------------------


def crop(_):
    vertices, faces = two_bodies()[1]
    vertices = vertices + np.array([0, 0, -250])
    kept = (np.abs(vertices) <= 1.2 * E).all(1)[faces].all(1)
    assert 0 < kept.sum() < len(faces)
    seen = scene_of([(vertices, faces)], Kind.CUT)
    np.testing.assert_array_equal(seen.geometry[:, Ch.SILHOUETTE], seen.found[0])


def empty(_):
    vertices, faces = two_bodies()[0]
    window = em_window()
    far = Mesh(vertices + np.array(tuple(window.site.point)) + 10 * E, faces)
    geometry = drawn(window, (far, far)).geometry()
    assert geometry.shape == (3, 7, 224, 224)
    assert not geometry.any()


# 3.5, normals --------------------------------------------------------------------------------


def warped(pair):
    expected = gamma(np.where(pair.a_in_front[:, None], pair.normal[0], pair.normal[1]))
    inside = (pair.found.any(0) & pair.clear)[:, None].repeat(3, 1)
    # the curve is steep near -1, so compare where a 127th is: undone
    ours = undo(pair.geometry[:, NORMALS])
    np.testing.assert_allclose(ours[inside], undo(expected)[inside], atol=0.006)


def undo(stored):
    encoded = (np.asarray(stored, float) + 1) / 2
    low, high = encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4
    return 2 * np.where(encoded <= 0.04045, low, high) - 1


def table(_):
    true = np.array([-1, -0.5, 0, 0.5, 1])
    stored = (-1.000, 0.074, 0.471, 0.762, 1.000)
    np.testing.assert_allclose(gamma(true), stored, atol=5e-4)
    np.testing.assert_allclose(srgb_warp(true.astype(np.float32)), stored, atol=5e-4)


def unit_length_once_undone(pair):
    inside = pair.found.any(0)
    raw = np.linalg.norm(pair.geometry[:, NORMALS], axis=1)[inside]
    true = np.linalg.norm(undo(pair.geometry[:, NORMALS]), axis=1)[inside]
    np.testing.assert_allclose(true, 1, atol=0.02)
    assert (np.abs(raw - 1) > 0.1).mean() > 0.5


def not_flipped(_):
    """An inward mesh stores normals that look away from every camera."""
    vertices, faces = two_bodies()[0]
    window = em_window(Kind.CUT)
    anchor = np.array(tuple(window.site.point))
    for winding, sign in ((faces, 1), (faces[:, ::-1], -1)):
        stack = drawn(window, (Mesh(vertices + anchor, winding), None))
        normal = undo(stack.geometry()[:, NORMALS])
        inside = stack.geometry()[:, Ch.SILHOUETTE] == 1
        for view, (forward, _up) in enumerate(VIEWS):
            towards = -sign * np.einsum("nyx,n->yx", normal[view], np.array(forward, float))
            assert np.median(towards[inside[view]]) > 0.3


def one_frame(_):
    """World axes: a body that two cameras see from the same side stores the same normals."""
    corners = np.array([[200, 0, 0], [0, 200, 0], [0, 0, 200.0]])
    towards = np.array([-1, -1, 1.0])  # a facet that all three cameras see from outside
    vertices = corners * towards
    faces = np.array([[0, 1, 2]])
    n = np.cross(vertices[1] - vertices[0], vertices[2] - vertices[0])
    if n @ towards < 0:
        faces = faces[:, ::-1]
    geometry = scene_of([(vertices, faces)], Kind.CUT).geometry
    expected = gamma(towards / np.sqrt(3))
    for view in range(3):
        inside = geometry[view, Ch.SILHOUETTE] == 1
        assert inside.any()
        got = geometry[view, NORMALS][:, inside]
        np.testing.assert_allclose(got, expected[:, None].repeat(inside.sum(), 1), atol=0.01)


# 3.6 and 3.7, depth and fusion -----------------------------------------------------------------


def depth_of_one(single):
    d = single.depth[0]
    for view in range(3):
        inside = np.isfinite(d[view])
        low, high = d[view][inside].min(), d[view][inside].max()
        expected = (d[view][inside] - low) / (high - low + 1e-8)
        got = single.geometry[view, Ch.DEPTH][inside]
        np.testing.assert_allclose(got, expected, atol=1.5 / (high - low) + 1e-3)
        assert got.min() == 0
        assert got.max() == 1


def flat_depth(_):
    """max = min: the 1e-8 makes all of it 0, and nothing a division by zero."""
    x = 40.0
    corners = np.array([[x, -100, -100], [x, 100, -100], [x, 100, 100], [x, -100, 100]])
    seen = scene_of([(corners, np.array([[0, 2, 1], [0, 3, 2]]))], Kind.CUT)
    assert (seen.geometry[0, Ch.SILHOUETTE] == 1).any()
    assert not seen.geometry[0, Ch.DEPTH].any()
    assert np.isfinite(seen.geometry).all()


def fused_depth(pair):
    expected = np.where(pair.a_in_front, pair.own[0], pair.own[1])
    inside = pair.found.any(0) & pair.clear
    np.testing.assert_allclose(pair.geometry[:, Ch.DEPTH][inside], expected[inside], atol=0.01)


def front_is_not_physical(pair):
    """Where the two rules differ, ours follows the normalised depths."""
    both = pair.found.all(0) & pair.clear
    physical = pair.depth[0] <= pair.depth[1]
    wrong = both & (physical != pair.a_in_front)
    assert wrong.sum() > 100
    expected = np.where(pair.a_in_front, pair.own[0], pair.own[1])
    np.testing.assert_allclose(pair.geometry[:, Ch.DEPTH][wrong], expected[wrong], atol=0.01)


def tie(_):
    """Two flat walls are 0 everywhere on their own scales: A is in front, though B is nearer."""

    def wall(x):
        return np.array([[x, -100, -100], [x, 100, -100], [x, 100, 100], [x, -100, 100.0]])

    faces = np.array([[0, 2, 1], [0, 3, 2]])
    seen = scene_of([(wall(50), faces), (wall(-50), faces[:, ::-1])])
    inside = seen.geometry[0, Ch.SILHOUETTE] == 1
    assert inside.any()
    assert seen.depth[1, 0][inside].max() < seen.depth[0, 0][inside].min()
    assert set(np.unique(seen.geometry[0, Ch.NORMAL_X][inside])) == {-1}  # B's is +1


# 2.5, EM -------------------------------------------------------------------------------------

# the axis that a plane stands on; of the other two the first runs down, the second right
ACROSS = {EmView.XY: 2, EmView.XZ: 1, EmView.YZ: 0}


def em_image(window, view):
    """2.5 and 4.2: slab of three voxels, mean and any, percentiles, RGB, Lanczos."""
    across = ACROSS[view]
    near = np.s_[31:34]
    slab = np.moveaxis(window.em, across, 2)[:, :, near].astype(float).mean(2)
    labels = np.moveaxis(window.label, across, 2)[:, :, near]
    low, high = np.percentile(slab, (1, 99))
    rgb = np.zeros((65, 65, 3), np.uint8)
    rgb[..., 0] = np.clip((slab - low) / (high - low), 0, 1) * 255
    rgb[..., 1], rgb[..., 2] = (255 * (labels == k).any(2) for k in (1, 2))
    return Image.fromarray(rgb).resize((224, 224), Image.Resampling.LANCZOS)


def em_planes(pair):
    window = em_window()
    for view in EmView:
        expected = np.asarray(em_image(window, view)).transpose(2, 0, 1)
        got = pair.stack.em[view]
        apart = np.abs(got[0].astype(int) - expected[0])
        # float32 against float64 before levels are cut off, then Lanczos
        assert apart.max() <= 2
        assert (apart > 0).mean() < 0.02
        np.testing.assert_array_equal(got[1:], expected[1:])


def masks_are_not_binary(pair):
    masks_of = pair.stack.em[:, EmChannel.MASK_A :]
    assert {0, 255} < set(np.unique(masks_of))


def oblique_masks_are_binary(pair):
    assert pair.stack.em_oblique.shape == (3, 224, 224)
    assert set(np.unique(pair.stack.em_oblique[1:])) == {0, 255}


def png(pair):
    for channels in (*pair.stack.em, pair.stack.em_oblique):
        data = io.BytesIO()
        Image.fromarray(channels.transpose(1, 2, 0)).save(data, "PNG")
        with Image.open(io.BytesIO(data.getvalue())) as image:
            assert (image.format, image.size, image.mode) == ("PNG", (224, 224), "RGB")
            np.testing.assert_array_equal(np.asarray(image).transpose(2, 0, 1), channels)


def one_root(single):
    assert single.stack.em[:, EmChannel.MASK_A].any((1, 2)).all()
    assert not single.stack.em[:, EmChannel.MASK_B].any()


STATEMENTS = {
    "2.4 one deflated member arr_0.npy of 2,107,520 bytes with a header of 128": npz,
    "2.4 float16 (3, 7, 224, 224) in C order": array,
    "2.4 channel 0 is the union of both silhouettes, 0 or 1": silhouette,
    "2.4 channels 5 and 6 are full silhouettes, not resolved by occlusion": masks,
    "2.4 every channel is 0 in the background": background,
    "2.4 depth lies in 0..1 and normals in -1..1": value_range,
    "2.4 a single render has mask A = silhouette and mask B = 0": single_masks,
    "2.5 an EM image is an 8-bit RGB PNG of 224 x 224": png,
    "2.5 R is stretched from the 1st to the 99th percentile, G is A, B is B, rows x columns y": (
        em_planes
    ),
    "2.5 masks of cardinal planes are resized by Lanczos and not binary at edges": (
        masks_are_not_binary
    ),
    "2.5 masks of the oblique plane are binary": oblique_masks_are_binary,
    "2.5 with one root blue is empty": one_root,
    "3.2 axes and signs of the three cameras; e is a half width": arms,
    "3.2 the cameras are orthographic": orthographic,
    "3.2 the camera clips nothing": nothing_is_clipped,
    "3.4 faces with all corners within 1.2 e on all axes": crop,
    "3.4 nothing left gives a tensor of zeros": empty,
    "3.5 unweighted vertex normals, interpolated, world axes, gamma-warped": warped,
    "3.5 the table of warped values": table,
    "3.5 lengths are 1 once sRGB is undone and visibly not 1 before": unit_length_once_undone,
    "3.5 normals follow the winding and are not flipped on back faces": not_flipped,
    "3.5 all views share one frame": one_frame,
    "3.6 (d - min) / (max - min + 1e-8) per view and mesh, near = 0": depth_of_one,
    "3.6 a flat segment has depth 0": flat_depth,
    "3.7 depth is A's where A's own normalised depth is not greater": fused_depth,
    "3.7 on a tie A is in front": tie,
    "3.7 who is in front is decided by normalised depths, not by space": front_is_not_physical,
}


@pytest.mark.parametrize("statement", STATEMENTS)
def test_our_output_has_what_the_description_states(statement, request):
    check = STATEMENTS[statement]
    argument = check.__code__.co_varnames[0]
    check(request.getfixturevalue(argument) if argument in ("pair", "single") else None)


def test_lines_of_sight_are_every_second_one_of_448_from_the_second_on():
    """3.5 once more, as numbers."""
    fine = (np.arange(448) + 0.5) * (2 * E / 448) - E
    np.testing.assert_allclose(line_offsets(E, 224, "cb2"), fine[1::2], atol=1e-9)
    np.testing.assert_allclose(line_offsets(E, 224, "clean"), (fine[::2] + fine[1::2]) / 2)


def test_from_labels_the_encoding_is_the_same_function_of_depth_and_normal():
    window = em_window()
    stack = drawn(window, None)
    hits = stack.hits
    across, down = sub_pixels()
    centre = np.array(tuple(window.site.point))
    depth = np.full((2, 3, 224, 224), np.inf)
    for view, (forward, up) in enumerate(np.array(VIEWS, float)):
        right = np.cross(forward, up)
        at = centre + across[..., None] * right - down[..., None] * up
        for step in range(-33, 34):  # voxels of 10 nm along the line of sight, near to far
            place = at + forward * 10 * step
            index = np.floor(place / 10).astype(int)
            inside = ((index >= 0) & (index < 65)).all(-1)
            x, y, z = np.where(inside[..., None], index, 0).transpose(2, 0, 1)
            value = np.where(inside, window.label[x, y, z], 0)
            for k in (0, 1):
                new = (value == k + 1) & np.isinf(depth[k, view])
                depth[k, view][new] = 10 * step - 5
    np.testing.assert_array_equal(hits.depth_nm.transpose(1, 0, 2, 3) != 32767, np.isfinite(depth))
    normal = hits.normal_i8.transpose(1, 0, 2, 3, 4) / 127
    scene = Scene(stack, stack.geometry().astype(np.float32), depth, normal)
    for check in (silhouette, masks, background, fused_depth, warped):
        check(scene)
