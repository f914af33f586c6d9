"""Where a segment is: by its mesh at once, else by a search that ends."""

from __future__ import annotations

import json

import numpy as np
import pytest
from dataset_makers import BIG
from neurites import DUMBBELL, LONE, PARTNER, neurite_dataset

from cb2_assist.core.geometry import PointNm
from cb2_assist.datasets import local
from cb2_assist.datasets.importer import grid_of
from cb2_assist.datasets.local import open_dataset_file
from cb2_assist.datasets.locate import mesh_places
from cb2_assist.datasets.writer import Description, Volume, write_dataset

THIN = BIG + 900


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return neurite_dataset(tmp_path_factory.mktemp("located") / "d").parent


@pytest.fixture
def source(folder):
    made = open_dataset_file(folder / "dataset.toml")
    yield made
    made.close()


@pytest.fixture
def without_meshes(tmp_path):
    """One large body, and a thread of single voxels that every coarser scale misses."""
    seg = np.zeros((150, 140, 130), np.uint64, order="F")
    seg[10:140, 10:60, 10:120] = BIG
    seg[77, 91, 15:118] = THIN
    em = np.full(seg.shape, 100, np.uint8, order="F")
    em[::2] = 120
    volume = Volume(grid_of((8.0, 8.0, 8.0), (80.0, 0.0, -40.0)), em, seg)
    path = write_dataset(tmp_path / "d", volume, Description("thin"), mesh_min_voxels=10**9)
    made = open_dataset_file(path)
    yield made
    made.close()


@pytest.mark.parametrize("segment", [DUMBBELL, PARTNER, LONE])
def test_a_mesh_leads_to_the_segment_without_a_search(source, segment, monkeypatch) -> None:
    monkeypatch.setattr(local, "SEARCH_S", 0.0)
    found = source.locate(segment)
    assert source.segment_at(found) == segment


def test_the_point_lies_inside_and_not_on_the_surface(source) -> None:
    """A proposal there finds the segment even when the person moves a little."""
    at = source.locate(LONE)
    for axis in range(3):
        for step in (-10, 10):
            beside = list(at)
            beside[axis] += step
            assert source.segment_at(PointNm.of(beside)) == LONE


@pytest.mark.parametrize("segment", [BIG, THIN])
def test_without_a_mesh_the_scales_are_searched(without_meshes, segment) -> None:
    assert without_meshes.segment_at(without_meshes.locate(segment)) == segment


def test_the_search_ends_in_time(without_meshes, monkeypatch) -> None:
    monkeypatch.setattr(local, "SEARCH_S", 0.0)
    assert without_meshes.locate(THIN) is None


@pytest.mark.parametrize("segment", [5, BIG + 77, 2**64 - 1])
def test_a_segment_that_is_not_there_is_not_found(source, without_meshes, segment) -> None:
    assert source.locate(segment) is None
    assert without_meshes.locate(segment) is None


@pytest.mark.parametrize(
    ("manifest", "mesh"),
    [
        ("nonsense", b""),
        ("[]", b""),
        ('{"fragments": 5}', b""),
        ('{"fragments": ["../../dataset.toml"]}', b""),
        ('{"fragments": ["none"]}', b""),
        ('{"fragments": ["piece"]}', b""),
        ('{"fragments": ["piece"]}', b"\xff\xff\xff\xff"),
        ('{"fragments": ["piece"]}', np.uint32(1).tobytes() + np.full(3, np.nan, "<f4").tobytes()),
        ('{"fragments": ["piece"]}', np.uint32(1).tobytes() + np.full(3, 1e30, "<f4").tobytes()),
    ],
)
def test_a_damaged_mesh_is_as_good_as_none(tmp_path, manifest, mesh) -> None:
    (tmp_path / "mesh").mkdir()
    (tmp_path / "mesh" / "7:0").write_text(manifest)
    (tmp_path / "mesh" / "piece").write_bytes(mesh)
    places = list(mesh_places(tmp_path, {"mesh": "mesh"}, 7))
    assert len(places) <= 1
    assert all(abs(v) < 1e31 for p in places for v in p)


def test_a_mesh_beyond_the_volume_leads_to_the_search(folder, source) -> None:
    info = json.loads((folder / "seg" / "info").read_text())
    assert info["mesh"] == "mesh"
    far = np.full(3, 1e30, "<f4").tobytes()
    (folder / "seg" / "mesh" / f"{LONE}:0").write_text('{"fragments": ["far"]}')
    (folder / "seg" / "mesh" / "far").write_bytes(np.uint32(1).tobytes() + far)
    assert source.segment_at(source.locate(LONE)) == LONE
