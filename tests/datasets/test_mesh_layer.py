"""Reading meshes: the formats of precomputed, bounds on size, and what is damaged."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import DracoPy
import numpy as np
import pytest
import trimesh
from cloudvolume.datasource.precomputed.mesh.multilod import (
    MultiLevelPrecomputedMeshManifest,
    to_stored_model_space,
)
from dataset_makers import BIG, make_dataset, make_volume
from neurites import DUMBBELL, LONE, neurite_dataset

from cb2_assist.core.errors import DatasetError
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import SegmentId
from cb2_assist.datasets.dataset_file import read_dataset_file
from cb2_assist.datasets.layer import Layer
from cb2_assist.datasets.local import open_dataset_file
from cb2_assist.datasets.mesh_layer import MeshLayer, outwards
from cb2_assist.datasets.source import MeshSource

HERE = PointNm(485, 365, 220)
SEGMENT = SegmentId(BIG + 1)


def volume_of(mesh):
    a, b, c = (mesh.vertices[mesh.faces[:, k]].astype(float) for k in range(3))
    return float(np.einsum("ij,ij->", np.cross(a, b), c)) / 6


@pytest.fixture
def folder(tmp_path):
    """The mesh folder of a small dataset whose own meshes were taken away."""
    make_dataset(tmp_path / "d", make_volume((24, 24, 24)))
    mesh = tmp_path / "d" / "seg" / "mesh"
    for path in mesh.iterdir():
        path.unlink()
    return mesh


def layer_of(folder, **limits):
    volume = f"precomputed://file://{folder.parent}"
    return MeshLayer(Layer("segmentation", volume, complete=True), **limits)


def put_legacy(folder, parts, info=None):
    """Fragments by name as (vertices, faces); the segment's manifest lists them all."""
    (folder / "info").write_text(json.dumps({"@type": "neuroglancer_legacy_mesh", **(info or {})}))
    (folder / f"{SEGMENT}:0").write_text(json.dumps({"fragments": list(parts)}))
    for name, (vertices, faces) in parts.items():
        head = np.uint32(len(vertices)).tobytes()
        body = np.asarray(vertices, "<f4").tobytes() + np.asarray(faces, "<u4").tobytes()
        (folder / name).write_bytes(head + body)


def test_a_source_with_meshes_gives_them_as_import_wrote_them(neurites_file):
    source = open_dataset_file(neurites_file)
    assert isinstance(source, MeshSource)
    assert source.geometry == "labels"
    mesh = source.mesh(SegmentId(LONE), HERE, 100.0)
    # a cube of 4..24 voxels of 10 nm
    np.testing.assert_allclose(mesh.vertices.min(0), 40, atol=10)
    np.testing.assert_allclose(mesh.vertices.max(0), 240, atol=10)
    assert volume_of(mesh) == pytest.approx(200**3, rel=0.15)
    assert source.mesh(SegmentId(12345), HERE, 100.0) is None
    assert mesh is source.mesh(SegmentId(LONE), HERE, 100.0)  # kept
    source.close()
    with pytest.raises(DatasetError, match="closed"):
        source.mesh(SegmentId(LONE), HERE, 100.0)


def test_several_threads_may_ask(neurites_file):
    source = open_dataset_file(neurites_file)
    start = threading.Barrier(4)

    def ask(segment):
        start.wait()
        return source.mesh(SegmentId(segment), HERE, 100.0)

    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(ask, (DUMBBELL, LONE, DUMBBELL, LONE)))
    assert got[0] is got[2]
    assert got[1] is got[3]


def test_fragments_are_one_mesh_with_one_vertex_where_they_meet(folder):
    ball = trimesh.creation.icosphere(2, radius=50.0)
    middle = ball.triangles_center[:, 2] > 0
    parts = {}
    for name, chosen in (("up", middle), ("down", ~middle)):
        half = ball.submesh([np.flatnonzero(chosen)], append=True)
        parts[f"{SEGMENT}:0:{name}"] = (half.vertices, half.faces)
    put_legacy(folder, parts)
    mesh = layer_of(folder).near(SEGMENT, HERE, 100.0)
    assert len(mesh.vertices) == len(ball.vertices)
    assert len(mesh.faces) == len(ball.faces)
    assert trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).is_watertight


def test_the_transform_of_the_mesh_folder_is_applied_and_a_mirror_keeps_faces_outwards(folder):
    box = trimesh.creation.box((2.0, 4.0, 6.0))
    transform = [-10, 0, 0, 100, 0, 10, 0, 200, 0, 0, 10, 300]
    put_legacy(folder, {"a": (box.vertices, box.faces)}, {"transform": transform})
    mesh = layer_of(folder).near(SEGMENT, HERE, 100.0)
    np.testing.assert_allclose(mesh.vertices.min(0), [90, 180, 270])
    np.testing.assert_allclose(mesh.vertices.max(0), [110, 220, 330])
    assert volume_of(mesh) == pytest.approx(20 * 40 * 60)


def test_an_inside_out_mesh_is_turned_over():
    ball = trimesh.creation.icosphere(2, radius=50.0)
    for faces in (ball.faces, ball.faces[:, ::-1]):
        assert volume_of(outwards(ball.vertices + 1e5, faces)) > 0


def test_a_mesh_that_is_too_large_is_left_out_or_read_near_the_point(folder):
    box = trimesh.creation.box((20.0, 20.0, 20.0))
    # fragments of a large segment, named by the voxels (10 nm) that they cover
    cells = [(x, x + 16) for x in range(0, 1600, 16)]
    parts = {
        f"{SEGMENT}:0:{lo}-{hi}_0-16_0-16": (
            box.vertices + np.array([10 * lo + 80, 80, 80]),
            box.faces,
        )
        for lo, hi in cells
    }
    put_legacy(folder, parts, {"mip": 0})
    stored = sum((folder / n).stat().st_size for n in parts)
    whole = layer_of(folder).near(SEGMENT, PointNm(4000, 80, 80), 200.0)
    assert len(whole.faces) == 100 * len(box.faces)
    limited, tight = (layer_of(folder, max_stored_bytes=n) for n in (stored // 10, 100))
    near = limited.near(SEGMENT, PointNm(4000, 80, 80), 200.0)
    x = near.vertices[:, 0]
    assert 3600 < x.min() < 3800
    assert 4200 < x.max() < 4400
    assert tight.near(SEGMENT, PointNm(4000, 80, 80), 200.0) is None
    assert limited.near(SEGMENT, PointNm(4000, 9e4, 80), 200.0) is None
    put_legacy(folder, {"all": (box.vertices, box.faces)})
    assert layer_of(folder, max_stored_bytes=100).near(SEGMENT, HERE, 200.0) is None


def test_kept_meshes_are_bounded(folder):
    box = trimesh.creation.box((20.0, 20.0, 20.0))
    put_legacy(folder, {"a": (box.vertices, box.faces)})
    (folder / f"{SEGMENT + 1}:0").write_text(json.dumps({"fragments": ["a"]}))
    layer = layer_of(folder, cache_bytes=1)
    first = layer.near(SEGMENT, HERE, 10.0)
    assert layer.near(SEGMENT, HERE, 10.0) is first
    layer.near(SegmentId(SEGMENT + 1), HERE, 10.0)
    assert layer.near(SEGMENT, HERE, 10.0) is not first


def put_multi_resolution(folder, lods):
    """One fragment per level of detail, each (vertices, faces) in nm inside 0..200 nm."""
    (folder / "info").write_text(
        json.dumps(
            {
                "@type": "neuroglancer_multilod_draco",
                "vertex_quantization_bits": 16,
                "transform": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0],
                "lod_scale_multiplier": 1.0,
            }
        )
    )
    manifest = MultiLevelPrecomputedMeshManifest(
        segment_id=SEGMENT,
        chunk_shape=np.array([256, 256, 256], np.float32),
        grid_origin=np.zeros(3, np.float32),
        num_lods=len(lods),
        lod_scales=np.ones(len(lods), np.float32),
        vertex_offsets=np.zeros((len(lods), 3), np.float32),
        num_fragments_per_lod=np.ones(len(lods), np.uint32),
        fragment_positions=[np.zeros((1, 3), np.uint32)] * len(lods),
        fragment_offsets=[],
    )
    blobs = []
    for lod, (vertices, faces) in enumerate(lods):
        stored = to_stored_model_space(np.asarray(vertices, np.float32), manifest, lod, 16, frag=0)
        blobs.append(DracoPy.encode(stored.astype(np.int32), np.asarray(faces, np.uint32)))
    manifest.fragment_offsets = [np.array([len(b)], np.uint32) for b in blobs]
    (folder / f"{SEGMENT}.index").write_bytes(manifest.to_binary())
    (folder / str(SEGMENT)).write_bytes(b"".join(blobs))
    return [len(b) for b in blobs]


def test_a_multi_resolution_mesh_is_read_at_its_finest_affordable_level(folder):
    fine, coarse = (trimesh.creation.icosphere(n, radius=60.0) for n in (4, 1))
    sizes = put_multi_resolution(
        folder, [(fine.vertices + 100, fine.faces), (coarse.vertices + 100, coarse.faces)]
    )
    assert sizes[0] > 2 * sizes[1]
    mesh = layer_of(folder).near(SEGMENT, HERE, 100.0)
    assert len(mesh.faces) == len(fine.faces)
    np.testing.assert_allclose(mesh.vertices.min(0), 40, atol=0.5)
    assert volume_of(mesh) > 0
    limited = layer_of(folder, max_stored_bytes=sizes[1]).near(SEGMENT, HERE, 100.0)
    assert len(limited.faces) == len(coarse.faces)
    assert layer_of(folder, max_stored_bytes=10).near(SEGMENT, HERE, 100.0) is None
    assert layer_of(folder).near(SegmentId(SEGMENT + 7), HERE, 100.0) is None


@pytest.mark.parametrize("damage", ["missing fragment", "cut off", "bad manifest", "no number"])
def test_a_damaged_mesh_says_so(folder, damage):
    box = trimesh.creation.box((20.0, 20.0, 20.0))
    vertices = box.vertices.copy()
    if damage == "no number":
        vertices[3, 1] = np.nan
    put_legacy(folder, {"a": (vertices, box.faces), "b": (box.vertices, box.faces)})
    if damage == "missing fragment":
        (folder / "b").unlink()
    elif damage == "cut off":
        (folder / "b").write_bytes((folder / "b").read_bytes()[:40])
    elif damage == "bad manifest":
        (folder / f"{SEGMENT}:0").write_text("[1]")
    with pytest.raises(DatasetError, match="again"):
        layer_of(folder).near(SEGMENT, HERE, 100.0)


def forget_meshes(info):
    kept = json.loads(info.read_text())
    del kept["mesh"]
    info.write_text(json.dumps(kept))


def test_a_dataset_that_asks_for_meshes_it_does_not_have_is_refused(tmp_path):
    path = neurite_dataset(tmp_path / "n")
    info = tmp_path / "n" / "seg" / "info"
    path.write_text(path.read_text() + 'geometry = "meshes"\n')
    assert read_dataset_file(path).geometry == "meshes"
    assert open_dataset_file(path).geometry == "meshes"
    info.write_text(
        json.dumps({k: v for k, v in json.loads(info.read_text()).items() if k != "mesh"})
    )
    with pytest.raises(DatasetError, match=r'asks for views from meshes.*geometry = "labels"'):
        open_dataset_file(path)


def test_a_dataset_without_meshes_has_none(tmp_path):
    path = neurite_dataset(tmp_path / "n")
    info = tmp_path / "n" / "seg" / "info"
    info.write_text(
        json.dumps({k: v for k, v in json.loads(info.read_text()).items() if k != "mesh"})
    )
    assert open_dataset_file(path).mesh(SegmentId(DUMBBELL), HERE, 100.0) is None
