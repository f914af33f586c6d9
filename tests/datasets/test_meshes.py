"""Meshes: closed, facing outwards, at the right place in nm, nothing thin lost."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
import trimesh
from dataset_makers import BIG
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from cb2_assist.datasets.importer import grid_of
from cb2_assist.datasets.meshes import write_meshes


def load(folder, segment: int) -> trimesh.Trimesh:
    """The mesh as Neuroglancer reads it: manifest, then fragment."""
    (mesh,) = fragments(folder, segment)
    return mesh


def fragments(folder, segment: int) -> list[trimesh.Trimesh]:
    names = json.loads((folder / f"{segment}:0").read_text())["fragments"]
    return [_fragment(folder, name) for name in names]


def _fragment(folder, name: str) -> trimesh.Trimesh:
    body = gzip.decompress((folder / f"{name}.gz").read_bytes())
    n = int(np.frombuffer(body, "<u4", 1)[0])
    vertices = np.frombuffer(body, "<f4", 3 * n, 4).reshape(-1, 3)
    faces = np.frombuffer(body, "<u4", offset=4 + 12 * n).reshape(-1, 3)
    assert len(body) == 4 + 12 * n + 12 * len(faces)
    return trimesh.Trimesh(vertices, faces, process=False)


def ball(shape, centre, radius) -> np.ndarray:
    index = np.moveaxis(np.indices(shape), 0, -1)
    inside = ((index - centre) ** 2).sum(-1) < radius**2
    return np.asfortranarray(np.where(inside, np.uint64(BIG + 1), np.uint64(0)))


@pytest.mark.parametrize(
    ("radius", "voxel_nm", "offset_nm"),
    [
        (6, (10, 10, 10), (0, 0, 0)),
        (16, (10, 10, 10), (-200, 30, 1000)),
        (15, (4, 4, 40), (400, 0, -80)),
    ],
)
def test_ball_is_closed_smooth_and_in_place(tmp_path, radius, voxel_nm, offset_nm):
    seg = ball((41, 42, 43), (20, 21, 20), radius)
    write_meshes(tmp_path / "mesh", seg, grid_of(voxel_nm, offset_nm), 100)
    mesh = load(tmp_path / "mesh", BIG + 1)
    assert mesh.is_watertight
    voxels = np.count_nonzero(seg) * np.prod(voxel_nm)
    assert 0.9 * voxels < mesh.volume < 1.25 * voxels  # positive: faces look outwards
    centre = (np.array([20.5, 21.5, 20.5]) * voxel_nm) + offset_nm
    np.testing.assert_allclose(mesh.bounds.mean(axis=0), centre, atol=max(voxel_nm) * 0.6)
    half = (mesh.bounds[1] - mesh.bounds[0]) / 2
    np.testing.assert_allclose(half, radius * np.array(voxel_nm), atol=max(voxel_nm) * 1.1)


def test_segment_that_fills_the_volume_is_closed_at_its_edges(tmp_path):
    seg = np.full((25, 26, 27), BIG + 1, np.uint64, order="F")
    write_meshes(tmp_path / "mesh", seg, grid_of((10, 10, 10)), 100)
    mesh = load(tmp_path / "mesh", BIG + 1)
    assert mesh.is_watertight
    np.testing.assert_allclose(mesh.bounds, [[0, 0, 0], [250, 260, 270]], atol=15)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("voxel_nm", [(10, 10, 10), (4, 4, 40)])
def test_thread_of_one_voxel_stays_connected(tmp_path, axis, voxel_nm):
    seg = np.zeros((24, 24, 24), np.uint64, order="F")
    # two blobs with a thread between, along each axis and at an odd place
    seg[tuple(slice(0, 8) if a == axis else slice(0, 24) for a in range(3))] = BIG + 1
    seg[tuple(slice(16, 24) if a == axis else slice(0, 24) for a in range(3))] = BIG + 1
    seg[tuple(slice(0, 24) if a == axis else 11 for a in range(3))] = BIG + 1
    assert np.count_nonzero(seg) > 8000
    write_meshes(tmp_path / "mesh", seg, grid_of(voxel_nm), 100)
    assert load(tmp_path / "mesh", BIG + 1).body_count == 1


def test_small_segments_have_an_empty_manifest_and_background_none(tmp_path):
    seg = np.zeros((20, 20, 20), np.uint64, order="F")
    seg[2:12, 2:12, 2:12] = BIG + 1
    seg[15:17, 15, 15] = BIG + 2
    assert write_meshes(tmp_path / "mesh", seg, grid_of((10, 10, 10)), 1000) == 1
    assert json.loads((tmp_path / "mesh" / "info").read_text()) == {
        "@type": "neuroglancer_legacy_mesh"
    }
    assert json.loads((tmp_path / "mesh" / f"{BIG + 2}:0").read_text()) == {"fragments": []}
    assert not (tmp_path / "mesh" / "0:0").exists()
    assert load(tmp_path / "mesh", BIG + 1).is_watertight


def test_single_voxel_can_be_meshed(tmp_path):
    seg = np.zeros((5, 5, 5), np.uint64, order="F")
    seg[0, 4, 2] = BIG + 1
    write_meshes(tmp_path / "mesh", seg, grid_of((10, 10, 10)), 0)
    mesh = load(tmp_path / "mesh", BIG + 1)
    assert mesh.is_watertight
    np.testing.assert_allclose(mesh.bounds.mean(axis=0), [5, 45, 25], atol=1e-3)


@pytest.mark.parametrize(
    ("radius", "voxel_nm"), [(55, (10, 10, 10)), (55, (4, 4, 40)), (12, (10, 10, 10))]
)
def test_fragments_of_a_ball_across_boxes_close_to_the_surface_of_the_whole(
    tmp_path, radius, voxel_nm
):
    # the corner of eight boxes lies inside; the small ball is meshed voxel by voxel
    seg = ball((150, 140, 130), (65.3, 63.2, 64.7), radius)
    grid = grid_of(voxel_nm, (-400, 80, 800))
    write_meshes(tmp_path / "one", seg, grid, 100)
    write_meshes(tmp_path / "many", seg, grid, 100, most_vx=2 * 64**3)
    whole = load(tmp_path / "one", BIG + 1)
    parts = fragments(tmp_path / "many", BIG + 1)
    assert len(parts) == 8
    assert sum(len(p.faces) for p in parts) == len(whole.faces)
    seam = 0.002 * min(voxel_nm)  # nm; no eye and no renderer sees it
    together = trimesh.util.concatenate(parts)
    far, _ = cKDTree(whole.vertices).query(together.vertices)
    assert far.max() < seam
    assert welded(together, seam).is_watertight
    assert not parts[0].is_watertight


def test_fragments_of_a_rough_surface_leave_no_gap(tmp_path):
    rng = np.random.default_rng(3)
    field = gaussian_filter(rng.normal(size=(100, 100, 100)), 3)
    seg = np.asfortranarray(np.where(field > 0, np.uint64(BIG + 1), np.uint64(BIG + 2)))
    grid = grid_of((8, 8, 8))
    write_meshes(tmp_path / "one", seg, grid, 100)
    write_meshes(tmp_path / "many", seg, grid, 100, most_vx=2 * 64**3)
    for segment in (BIG + 1, BIG + 2):
        whole, parts = load(tmp_path / "one", segment), fragments(tmp_path / "many", segment)
        assert len(parts) == 8
        together = trimesh.util.concatenate(parts)
        assert len(together.faces) == len(whole.faces)
        far, _ = cKDTree(whole.vertices).query(together.vertices)
        assert far.max() < 0.01 * 8


def welded(mesh: trimesh.Trimesh, within: float) -> trimesh.Trimesh:
    """The mesh with vertices that lie together made one."""
    first = np.arange(len(mesh.vertices))
    for a, b in sorted(cKDTree(mesh.vertices).query_pairs(within)):
        first[b] = min(first[b], first[a])
    return trimesh.Trimesh(mesh.vertices, first[mesh.faces], process=False)
