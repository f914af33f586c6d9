"""A dataset.toml as a source: the contract on several kinds of volumes, and what goes wrong."""

from __future__ import annotations

import gzip
import json
import re
import threading
import time
from dataclasses import replace

import file_server
import numpy as np
import pytest
from contracts.source import SourceContract
from dataset_makers import BIG, blocks, grey, make_dataset, make_volume

from cb2_assist.core.errors import BadVolumeError, DatasetError, OutOfBoundsError
from cb2_assist.core.geometry import BoxVx, PointNm, PointVoxel
from cb2_assist.datasets.dataset_file import DatasetFile, read_dataset_file, write_dataset_file
from cb2_assist.datasets.importer import grid_of
from cb2_assist.datasets.layer import Layer
from cb2_assist.datasets.local import open_dataset_file
from cb2_assist.datasets.precomputed import block_mean, write_em, write_segmentation


def box(lo, hi) -> BoxVx:
    return BoxVx(PointVoxel(*lo), PointVoxel(*hi))


def write_pair(folder, em, em_nm, seg, seg_nm, em_offset=(0, 0, 0), seg_offset=(0, 0, 0)):
    """A dataset whose EM and segmentation have their own grids."""
    write_em(folder / "em", em, grid_of(em_nm, em_offset))
    write_segmentation(folder / "seg", seg, grid_of(seg_nm, seg_offset), mesh=False)
    path = folder / "dataset.toml"
    write_dataset_file(
        path, DatasetFile("pair", "precomputed://file://em", "precomputed://file://seg")
    )
    return path


class TestIsotropic(SourceContract):
    @pytest.fixture(scope="class")
    @classmethod
    def source(cls, tmp_path_factory):
        tmp_path = tmp_path_factory.mktemp("source")
        return open_dataset_file(make_dataset(tmp_path / "d", make_volume(truth=True)))


class TestAnisotropicWithOffset(SourceContract):
    @pytest.fixture(scope="class")
    @classmethod
    def source(cls, tmp_path_factory):
        tmp_path = tmp_path_factory.mktemp("source")
        volume = make_volume((90, 70, 40), (4, 4, 40), (-40, 400, 120), truth=True)
        return open_dataset_file(make_dataset(tmp_path / "d", volume))


class TestFractionalVoxels(SourceContract):
    @pytest.fixture(scope="class")
    @classmethod
    def source(cls, tmp_path_factory):
        tmp_path = tmp_path_factory.mktemp("source")
        volume = make_volume((50, 40, 30), (7.5, 7.5, 33.3), (75, 0, -33.3))
        return open_dataset_file(make_dataset(tmp_path / "d", volume))


class TestFinerEm(SourceContract):
    @pytest.fixture(scope="class")
    @classmethod
    def source(cls, tmp_path_factory):
        tmp_path = tmp_path_factory.mktemp("source")
        em, seg = grey((200, 160, 40)), blocks((90, 90, 40))
        return open_dataset_file(write_pair(tmp_path, em, (4, 4, 40), seg, (8, 8, 40)))


class TestCoarserEm(SourceContract):
    @pytest.fixture(scope="class")
    @classmethod
    def source(cls, tmp_path_factory):
        tmp_path = tmp_path_factory.mktemp("source")
        em, seg = grey((30, 30, 40)), blocks((70, 50, 36))
        return open_dataset_file(write_pair(tmp_path, em, (16, 16, 20), seg, (8, 8, 20)))


class TestSmallCache(SourceContract):
    @pytest.fixture(scope="class")
    @classmethod
    def source(cls, tmp_path_factory):
        tmp_path = tmp_path_factory.mktemp("source")
        path = make_dataset(tmp_path / "d", make_volume((130, 70, 70)))
        return open_dataset_file(path, cache_bytes=1)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A dataset file whose volumes are read over HTTP from this machine; its folder has `d`."""
    tmp_path = tmp_path_factory.mktemp("web")
    local = make_dataset(tmp_path / "d", make_volume())
    with file_server.served(local.parent) as server:
        at = f"precomputed://{server.url}"
        path = tmp_path / "remote.toml"
        path.write_text(f'[dataset]\nname = "web"\nem = "{at}/em"\nsegmentation = "{at}/seg"\n')
        yield path


class TestOverHttp(SourceContract):
    @pytest.fixture(scope="class")
    @classmethod
    def source(cls, served):
        source = open_dataset_file(served)
        yield source
        source.close()

    def test_layers_pass_the_address_through(self, source):
        assert source.layers.em.startswith("precomputed://http://127.0.0.1:")
        assert source.layers.roots == {}


def test_voxels_are_exactly_those_that_were_written(tmp_path):
    volume = make_volume((90, 70, 40), (4, 4, 40), (-40, 400, 120), truth=True)
    source = open_dataset_file(make_dataset(tmp_path / "d", volume))
    cut = source.cutout(source.bounds)
    assert source.bounds == box((-10, 100, 3), (80, 170, 43))
    np.testing.assert_array_equal(cut.em, volume.em)
    np.testing.assert_array_equal(cut.seg, volume.seg)
    np.testing.assert_array_equal(source.truth_cutout(source.bounds), volume.truth)


def test_finer_em_is_averaged_and_bounds_are_what_both_cover(tmp_path):
    em, seg = grey((200, 160, 40)), blocks((90, 90, 40))
    source = open_dataset_file(write_pair(tmp_path, em, (4, 4, 40), seg, (8, 8, 40)))
    assert source.bounds == box((0, 0, 0), (90, 80, 40))
    mean = np.rint(block_mean(em, (2, 2, 1)))[:90, :80]
    # the coarser scale of the file holds the same means
    np.testing.assert_array_equal(source.cutout(source.bounds).em, mean)
    assert tuple(source.layers.resolution) == (4, 4, 40)


def test_em_three_times_finer_is_averaged_from_the_finest_scale(tmp_path):
    em, seg = grey((90, 60, 30)), blocks((30, 20, 30))
    source = open_dataset_file(write_pair(tmp_path, em, (4, 4, 40), seg, (12, 12, 40)))
    mean = np.rint(block_mean(em, (3, 3, 1)))
    np.testing.assert_array_equal(source.cutout(source.bounds).em, mean)


def test_coarser_em_is_repeated_from_odd_voxels_on(tmp_path):
    em, seg = grey((30, 30, 40)), blocks((51, 40, 36))
    path = write_pair(tmp_path, em, (16, 16, 20), seg, (8, 8, 20), (16, 0, 0), (24, 0, 40))
    source = open_dataset_file(path)
    assert source.bounds == box((3, 0, 2), (54, 40, 38))
    whole = em.repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(source.cutout(source.bounds).em, whole[1:52, :40, 2:38])


def test_remote_and_local_reading_agree(served):
    web = open_dataset_file(served)
    local = open_dataset_file(served.parent / "d" / "dataset.toml")
    part = box((5, 7, 9), (69, 49, 80))
    np.testing.assert_array_equal(web.cutout(part).seg, local.cutout(part).seg)
    np.testing.assert_array_equal(web.cutout(part).em, local.cutout(part).em)
    web.close()


def test_unreachable_address_is_an_error_that_names_it(tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise ConnectionError("connection refused\nmore lines")

    monkeypatch.setattr("cloudvolume.CloudVolume", refuse)
    path = tmp_path / "d.toml"
    at = "precomputed://https://example.invalid"
    path.write_text(f'[dataset]\nname = "web"\nem = "{at}/em"\nsegmentation = "{at}/seg"\n')
    with pytest.raises(DatasetError, match=r"example\.invalid/seg: connection refused\. Check"):
        open_dataset_file(path)


@pytest.mark.parametrize("folder", ["with space", "ümläut", "per%20cent", "a#b", "q?x=1", "at@2"])
def test_any_folder_name_works(tmp_path, folder):
    volume = make_volume((30, 30, 30))
    source = open_dataset_file(make_dataset(tmp_path / folder / "d", volume))
    np.testing.assert_array_equal(source.cutout(source.bounds).seg, volume.seg)


def test_dataset_can_be_moved(tmp_path):
    volume = make_volume((30, 30, 30))
    first = make_dataset(tmp_path / "a", volume)
    version = open_dataset_file(first).info.version
    (tmp_path / "a").rename(tmp_path / "b")
    moved = open_dataset_file(tmp_path / "b" / "dataset.toml")
    assert moved.info.version == version
    np.testing.assert_array_equal(moved.cutout(moved.bounds).em, volume.em)


def test_segment_at_a_voxel_boundary_follows_the_half_open_rule(tmp_path):
    source = open_dataset_file(make_dataset(tmp_path / "d", make_volume()))
    cut = source.cutout(source.bounds)
    assert source.segment_at(PointNm(200.0, 10.0, 10.0)) == int(cut.seg[20, 1, 1])
    assert source.segment_at(PointNm(199.999, 10.0, 10.0)) == int(cut.seg[19, 1, 1])
    with pytest.raises(OutOfBoundsError, match=r"reaches from \(0\.0, 0\.0, 0\.0\) to \(700\.0"):
        source.segment_at(PointNm(700.0, 10.0, 10.0))


def test_version_changes_with_ids_and_place_but_not_with_em(tmp_path):
    volume = make_volume((30, 30, 30))
    other_ids = volume.seg.copy()
    other_ids[5, 5, 5] = BIG + 99
    volumes = {
        "same": replace(volume, em=grey((30, 30, 30), 1)),
        "ids": replace(volume, seg=other_ids),
        "place": replace(volume, grid=grid_of((10, 10, 10), (10, 0, 0))),
        "size": replace(volume, grid=grid_of((10, 10, 20))),
    }
    base = open_dataset_file(make_dataset(tmp_path / "base", volume)).info.version
    versions = {
        k: open_dataset_file(make_dataset(tmp_path / k, v)).info.version for k, v in volumes.items()
    }
    assert re.fullmatch(r"[0-9a-f]{12}", base)
    assert versions.pop("same") == base
    assert len({base, *versions.values()}) == 4


def test_without_stored_version_the_info_file_names_it(tmp_path):
    seg = blocks((30, 30, 30))
    a = open_dataset_file(write_pair(tmp_path / "a", grey(seg.shape), (8, 8, 8), seg, (8, 8, 8)))
    b = open_dataset_file(write_pair(tmp_path / "b", grey(seg.shape), (8, 8, 8), seg, (8, 8, 8)))
    c = open_dataset_file(write_pair(tmp_path / "c", grey(seg.shape), (9, 9, 9), seg, (9, 9, 9)))
    assert a.info.version == b.info.version != c.info.version
    assert a.em_statistics == b.em_statistics


def test_em_statistics_of_a_large_volume_are_sampled_the_same_each_time(tmp_path, monkeypatch):
    path = write_pair(tmp_path, grey((200, 150, 70)), (8, 8, 8), blocks((200, 150, 70)), (8, 8, 8))
    monkeypatch.setattr("cb2_assist.datasets.local._SAMPLE_CHUNKS", 3)
    first, second = (open_dataset_file(path).em_statistics for _ in range(2))
    assert first == second
    assert first.mean == pytest.approx(120, abs=2)


def test_opening_reads_no_voxels(tmp_path, monkeypatch):
    path = make_dataset(tmp_path / "d", make_volume((30, 30, 30)))
    monkeypatch.setattr(Layer, "read", lambda *_: pytest.fail("a chunk was read"))
    source = open_dataset_file(path)
    assert source.em_statistics.std > 0
    assert source.info.name == "made"


def test_each_chunk_is_read_once_for_many_threads(tmp_path, monkeypatch):
    source = open_dataset_file(make_dataset(tmp_path / "d", make_volume((130, 70, 70))))
    read = Layer.read
    seen = []

    def slow(self, scale, part):
        seen.append((id(self), part))
        time.sleep(0.005)  # wide enough for the other threads to ask for the same chunk
        return read(self, scale, part)

    monkeypatch.setattr(Layer, "read", slow)
    threads = [threading.Thread(target=source.cutout, args=(source.bounds,)) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(seen) == len(set(seen)) == 2 * 12


def test_truth_is_refused_with_advice_when_there_is_none(tmp_path):
    source = open_dataset_file(make_dataset(tmp_path / "d", make_volume((30, 30, 30))))
    assert not source.has_truth
    with pytest.raises(DatasetError, match=r"has no truth\. Import it with --truth"):
        source.truth_cutout(source.bounds)


def test_truth_on_another_grid_is_refused(tmp_path):
    path = make_dataset(tmp_path / "d", make_volume((30, 30, 30), truth=True))
    write_segmentation(
        tmp_path / "d" / "t2", blocks((30, 30, 20)), grid_of((10, 10, 10)), mesh=False
    )
    path.write_text(path.read_text().replace("file://truth", "file://t2"))
    source = open_dataset_file(path)
    with pytest.raises(BadVolumeError, match="must cover the segmentation"):
        source.truth_cutout(source.bounds)


def test_closed_source_says_so(tmp_path):
    source = open_dataset_file(make_dataset(tmp_path / "d", make_volume((30, 30, 30))))
    source.close()
    with pytest.raises(DatasetError, match="was closed"):
        source.cutout(source.bounds)


def test_box_that_cannot_fit_in_memory_is_refused(tmp_path):
    path = make_dataset(tmp_path / "d", make_volume((30, 30, 30)))
    for name in ("em", "seg"):
        info = path.parent / name / "info"
        document = json.loads(info.read_text())
        document["scales"][0]["size"] = [100_000] * 3
        info.write_text(json.dumps(document))
    source = open_dataset_file(path)
    with pytest.raises(DatasetError, match="too large"):
        source.cutout(source.bounds)


def first_chunk(folder):
    scale = json.loads((folder / "info").read_text())["scales"][0]["key"]
    return min((folder / scale).iterdir())


DAMAGE = {
    "missing": lambda p: p.unlink(),
    "empty": lambda p: p.write_bytes(b""),
    "cut": lambda p: p.write_bytes(p.read_bytes()[:40]),
    "not gzip": lambda p: p.write_bytes(b"hello world"),
    "short": lambda p: p.write_bytes(gzip.compress(gzip.decompress(p.read_bytes())[:100])),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_chunk_is_an_error_that_names_volume_and_place(tmp_path, damage):
    path = make_dataset(tmp_path / "d", make_volume((30, 30, 30)))
    DAMAGE[damage](first_chunk(tmp_path / "d" / "em"))
    source = open_dataset_file(path)
    with pytest.raises(DatasetError, match=r"Cannot read the em volume .* at voxels \(0, 0, 0\)"):
        source.cutout(source.bounds)


def test_restored_chunk_is_read_without_opening_again(tmp_path):
    path = make_dataset(tmp_path / "d", make_volume((30, 30, 30)))
    chunk = first_chunk(tmp_path / "d" / "seg")
    kept = chunk.read_bytes()
    chunk.unlink()
    source = open_dataset_file(path)
    with pytest.raises(DatasetError, match="is missing"):
        source.segment_at(PointNm(55, 55, 55))
    chunk.write_bytes(kept)
    assert source.segment_at(PointNm(55, 55, 55)) > BIG


def test_missing_chunk_of_a_foreign_volume_is_background(tmp_path):
    path = write_pair(tmp_path, grey((30, 30, 30)), (8, 8, 8), blocks((30, 30, 30)), (8, 8, 8))
    first_chunk(tmp_path / "seg").unlink()
    assert not read_dataset_file(path).complete
    source = open_dataset_file(path)
    assert not source.cutout(source.bounds).seg.any()


def edit(change):
    def apply(folder):
        info = folder / "seg" / "info"
        document = json.loads(info.read_text())
        change(document)
        info.write_text(json.dumps(document))

    return apply


BAD_INFO = {
    "no info file": (lambda d: (d / "seg" / "info").unlink(), "no info file"),
    "not JSON": (lambda d: (d / "seg" / "info").write_text("{"), "not valid JSON"),
    "not text": (lambda d: (d / "seg" / "info").write_bytes(b"\xff\xfe\x00"), "not valid JSON"),
    "a list": (lambda d: (d / "seg" / "info").write_text("[]"), "not a JSON object"),
    "empty": (lambda d: (d / "seg" / "info").write_text("{}"), "is of type None"),
    "swapped": (edit(lambda i: i.update(type="image")), "swapped"),
    "floats": (edit(lambda i: i.update(data_type="float32")), "one channel of uint8 or"),
    "channels": (edit(lambda i: i.update(num_channels=3)), "3 channels"),
    "no scales": (edit(lambda i: i.update(scales=[])), "no scales"),
    "scales of text": (edit(lambda i: i.update(scales="abc")), "damaged info file"),
    "no size": (edit(lambda i: i["scales"][0].pop("size")), "damaged info file"),
    "negative size": (edit(lambda i: i["scales"][0].update(size=[-1, 2, 3])), "damaged info"),
    "no resolution": (edit(lambda i: i["scales"][0].update(resolution=[0, 1, 1])), "damaged info"),
    "two numbers": (edit(lambda i: i["scales"][0].update(resolution=[1, 1])), "damaged info"),
    "odd ratio": (edit(lambda i: i["scales"][0].update(resolution=[7, 10, 10])), "whole numbers"),
    "far away": (edit(lambda i: i["scales"][0].update(voxel_offset=[999, 0, 0])), "do not overlap"),
}


@pytest.mark.parametrize("case", BAD_INFO)
def test_bad_info_file_is_explained_on_opening(tmp_path, case):
    path = make_dataset(tmp_path / "d", make_volume((30, 30, 30)))
    spoil, message = BAD_INFO[case]
    spoil(tmp_path / "d")
    with pytest.raises(DatasetError, match=message):
        open_dataset_file(path)
