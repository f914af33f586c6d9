"""Public volumes at an address: scales, whole stored blocks, sharded meshes, bad addresses."""

from __future__ import annotations

import json

import DracoPy
import numpy as np
import pytest
import trimesh
from cloudvolume.datasource.precomputed.mesh.multilod import (
    MultiLevelPrecomputedMeshManifest,
    to_stored_model_space,
)
from cloudvolume.datasource.precomputed.sharding import ShardingSpecification
from dataset_makers import BIG, blocks, grey, make_dataset, make_volume
from file_server import FileServer, served

from cb2_assist.core.errors import DatasetError
from cb2_assist.core.geometry import BoxVx, PointNm, PointVoxel, Resolution
from cb2_assist.core.records import SegmentId
from cb2_assist.datasets import layer
from cb2_assist.datasets.importer import grid_of
from cb2_assist.datasets.precomputed import write_em, write_segmentation
from cb2_assist.datasets.registry import open_dataset

SEGMENT = SegmentId(BIG + 1)
OTHER = SegmentId(BIG + 7)


@pytest.fixture
def web(tmp_path):
    with served(tmp_path) as server:
        yield server


def address_file(tmp_path, web: FileServer, more: str = ""):
    path = tmp_path / "web.toml"
    at = f"precomputed://{web.url}/d"
    path.write_text(f'[dataset]\nname = "w"\nem = "{at}/em"\nsegmentation = "{at}/seg"\n{more}')
    return path


def test_a_coarser_scale_of_the_segmentation_is_read_when_asked(tmp_path, web):
    make_dataset(tmp_path / "d", make_volume((140, 140, 40), (4, 4, 40)))
    fine = open_dataset(None, address_file(tmp_path, web))
    coarse = open_dataset(None, address_file(tmp_path, web, "mip = 1\n"))
    assert tuple(fine.resolution) == (4, 4, 40)
    assert coarse.resolution == Resolution(8, 8, 40)
    assert coarse.bounds.shape == (70, 70, 40)
    # coarser segments are every second voxel, and EM comes at the same size
    whole = fine.cutout(fine.bounds).seg
    np.testing.assert_array_equal(coarse.cutout(coarse.bounds).seg, whole[::2, ::2])
    fine.close()
    coarse.close()
    with pytest.raises(DatasetError, match=r"mip = 9, but .* scales 0 to"):
        open_dataset(None, address_file(tmp_path, web, "mip = 9\n"))


def test_each_stored_block_is_fetched_once(tmp_path, web):
    em, seg = grey((256, 128, 64)), blocks((128, 64, 64))
    (tmp_path / "d").mkdir()
    write_em(tmp_path / "d" / "em", em, grid_of((4, 4, 8), (0, 0, 0)))
    write_segmentation(tmp_path / "d" / "seg", seg, grid_of((8, 8, 8), (0, 0, 0)), mesh=False)
    source = open_dataset(None, address_file(tmp_path, web))
    for lo in (3, 30, 60, 90):
        source.cutout(BoxVx(PointVoxel(lo, 1, 1), PointVoxel(lo + 30, 60, 60)))
    source.close()
    chunks = [p for p in web.asked if p.count("_") > 2]
    assert len(chunks) == len(set(chunks)) >= 4


def put_sharded(folder, meshes) -> None:
    """Segments' meshes of one level of detail, in one multi-resolution sharded file."""
    spec = ShardingSpecification(
        "neuroglancer_uint64_sharded_v1", 0, "identity", 1, 1, "gzip", "raw"
    )
    folder.mkdir()
    info = {
        "@type": "neuroglancer_multilod_draco",
        "vertex_quantization_bits": 16,
        "transform": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0],
        "lod_scale_multiplier": 1.0,
        "sharding": spec.to_dict(),
    }
    (folder / "info").write_text(json.dumps(info, default=int))
    data, offsets = {}, {}
    for segment, (vertices, faces) in meshes.items():
        manifest = MultiLevelPrecomputedMeshManifest(
            segment_id=segment,
            chunk_shape=np.array([256, 256, 256], np.float32),
            grid_origin=np.zeros(3, np.float32),
            num_lods=1,
            lod_scales=np.ones(1, np.float32),
            vertex_offsets=np.zeros((1, 3), np.float32),
            num_fragments_per_lod=np.ones(1, np.uint32),
            fragment_positions=[np.zeros((1, 3), np.uint32)],
            fragment_offsets=[],
        )
        stored = to_stored_model_space(np.asarray(vertices, np.float32), manifest, 0, 16, frag=0)
        blob = DracoPy.encode(stored.astype(np.int32), np.asarray(faces, np.uint32))
        manifest.fragment_offsets = [np.array([len(blob)], np.uint32)]
        # fragments lie right before their manifest, which alone is indexed
        data[int(segment)] = blob + manifest.to_binary()
        offsets[int(segment)] = len(manifest.to_binary())
    for name, content in spec.synthesize_shards(data, data_offset=offsets).items():
        (folder / name).write_bytes(content)


def test_multi_resolution_sharded_meshes_are_read(tmp_path, web):
    make_dataset(tmp_path / "d", make_volume((30, 30, 30)))
    seg = tmp_path / "d" / "seg"
    ball, box = trimesh.creation.icosphere(3, radius=60.0), trimesh.creation.box((50, 50, 50))
    put_sharded(
        seg / "shards",
        {SEGMENT: (ball.vertices + 100, ball.faces), OTHER: (box.vertices + 100, box.faces)},
    )
    info = json.loads((seg / "info").read_bytes())
    (seg / "info").write_text(json.dumps({**info, "mesh": "shards"}))
    source = open_dataset(None, address_file(tmp_path, web, 'geometry = "meshes"\n'))
    middle = PointNm(100, 100, 100)
    mesh = source.mesh(SEGMENT, middle, 200.0)
    assert len(mesh.faces) == len(ball.faces)
    np.testing.assert_allclose(mesh.vertices.min(0), 40, atol=0.5)
    assert len(source.mesh(OTHER, middle, 200.0).faces) == len(box.faces)
    assert source.mesh(SegmentId(BIG + 12345), middle, 200.0) is None
    source.close()


def test_public_buckets_are_read_without_an_account(monkeypatch, tmp_path):
    monkeypatch.setattr("cloudfiles.secrets.CLOUD_VOLUME_SECRETS_DIR", str(tmp_path))
    monkeypatch.setattr("cloudfiles.secrets.CLOUD_FILES_SECRETS_DIR", str(tmp_path))
    open_path = layer._anonymous
    assert open_path("precomputed://gs://b/seg") == (
        "precomputed://https://storage.googleapis.com/b/seg"
    )
    assert open_path("precomputed://s3://b/seg") == "precomputed://https://s3.amazonaws.com/b/seg"
    for same in ("precomputed://file:///a/seg", "precomputed://https://h/gs://seg"):
        assert open_path(same) == same
    # who has keys means buckets of their own
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "google-secret.json").write_text("{}")
    assert open_path("precomputed://gs://b/seg") == "precomputed://gs://b/seg"


@pytest.mark.parametrize("scheme", ["dvid://h/x", "brainmaps://a:b:c", "nosuch://h/x"])
def test_an_unknown_kind_of_address_is_said(tmp_path, scheme):
    path = tmp_path / "d.toml"
    path.write_text(
        f'[dataset]\nname = "w"\nem = "precomputed://{scheme}"\nsegmentation = "precomputed://{scheme}"\n'
    )
    with pytest.raises(DatasetError, match="address") as refused:
        open_dataset(None, path)
    assert scheme in str(refused.value)
    assert "\n" not in str(refused.value)
