"""The demo as it is shipped and as it is opened."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from cb2_assist.core.errors import DatasetError
from cb2_assist.core.geometry import BoxVx, PointNm, PointVoxel
from cb2_assist.datasets import demo
from cb2_assist.datasets.demo import PACK, open_demo, unpacked_demo
from cb2_assist.datasets.demo_bodies import connected_bodies
from cb2_assist.datasets.demo_format import TRUTH_BASE, TRUTH_STEP
from cb2_assist.datasets.errors_count import count_errors
from cb2_assist.datasets.local import open_dataset_file

MB = 10**6


def test_the_shipped_file_has_at_most_25_mb():
    shipped = sum(f.stat().st_size for f in PACK.parent.iterdir())

    assert shipped <= 25 * MB


def test_it_opens_from_a_cold_start_in_seconds(tmp_path):
    started = time.monotonic()
    code = (
        "from cb2_assist.datasets.demo import open_demo;"
        "from cb2_assist.core.geometry import PointNm;"
        "print(open_demo().segment_at(PointNm(3000.0, 3000.0, 2000.0)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "CB2_ASSIST_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )

    assert int(done.stdout) > 2**53
    # 10 s is the aim on an idle machine; other work must not fail this test
    assert time.monotonic() - started < 60


def test_a_later_start_unpacks_nothing(demo_cache):
    file = unpacked_demo(demo_cache)
    before = {p: p.stat().st_mtime_ns for p in demo_cache.rglob("*")}

    assert unpacked_demo(demo_cache) == file

    assert {p: p.stat().st_mtime_ns for p in demo_cache.rglob("*")} == before


def test_it_is_large_and_says_what_it_is(shipped_demo):
    source = shipped_demo.source

    assert tuple(source.resolution) == (8, 8, 40)
    size_um = [n * r / 1000 for n, r in zip(source.bounds.shape, source.resolution, strict=True)]
    assert size_um[0] >= 6
    assert size_um[1] >= 6
    assert size_um[2] >= 4
    assert source.info.name == "demo"
    assert source.info.licence == "CC0-1.0"
    assert source.em_statistics.std > 10


def test_ids_need_64_bits(shipped_demo):
    for ids in (shipped_demo.seg(), shipped_demo.truth()):
        assert ids.min() > 2**53
        values = np.unique(ids[::20])
        # as doubles, as a careless page would hold them, some would be taken for each other
        assert len(np.unique(values.astype(np.float64))) < len(values)


def test_the_segmentation_errs_often_enough_to_be_worth_proofreading(shipped_demo):
    got = count_errors(shipped_demo.seg(), shipped_demo.truth())

    assert got.false_splits >= 40
    assert got.false_merges >= 10
    assert got.voi_merge < 1.0
    assert got.voi_split < 2.5


def test_membranes_are_dark(shipped_demo):
    truth, em = shipped_demo.truth()[10:30], shipped_demo.em()[10:30]
    border = np.zeros(truth.shape, bool)
    border[:, :, 1:] |= truth[:, :, 1:] != truth[:, :, :-1]
    border[:, 1:, :] |= truth[:, 1:, :] != truth[:, :-1, :]

    assert em[border].mean() < em[~border].mean() - 40


def test_every_true_body_is_connected(shipped_demo):
    numbers = ((shipped_demo.truth() - np.uint64(TRUTH_BASE)) // np.uint64(TRUTH_STEP)).astype("i4")

    # crumbs would change their number too
    assert connected_bodies(numbers).max() == numbers.max()


def test_one_section_is_missing_and_one_is_folded(shipped_demo):
    em = shipped_demo.em()
    mean = em.reshape(len(em), -1).mean(axis=1)
    tiles = em.reshape(len(em), 96, 8, 96, 8).mean(axis=(2, 4))
    dark = (tiles < 75).reshape(len(em), -1).mean(axis=1)[mean > 0]

    assert (mean == 0).sum() == 1
    # the fold is a band across a whole section, darker than anything in the others
    assert np.sort(dark)[-1] > 2 * np.sort(dark)[-2]


def test_contrast_steps_from_one_batch_of_sections_to_the_next(shipped_demo):
    em = shipped_demo.em()
    spread = em.reshape(len(em), -1).std(axis=1)
    spread = spread[spread > 0]
    before = np.array([np.median(spread[k - 4 : k]) for k in range(4, len(spread) - 4)])
    after = np.array([np.median(spread[k : k + 4]) for k in range(4, len(spread) - 4)])

    # grey levels; within a batch it wanders by about one
    assert (np.abs(after - before) > 2).any()


def test_a_segment_has_a_mesh_where_its_voxels_are(shipped_demo, demo_cache):
    from cloudvolume import CloudVolume

    source = shipped_demo.source
    segment = source.segment_at(PointNm(3000.0, 3000.0, 2000.0))
    folder = unpacked_demo(demo_cache).parent / "seg"
    volume = CloudVolume(f"precomputed://file://{folder}", progress=False)
    mesh = volume.mesh.get(int(segment))
    mesh = mesh[int(segment)] if isinstance(mesh, dict) else mesh
    z, y, x = np.nonzero(shipped_demo.seg() == np.uint64(segment))

    low = np.array([x.min() * 8, y.min() * 8, z.min() * 40])
    high = np.array([x.max() * 8 + 8, y.max() * 8 + 8, z.max() * 40 + 40])
    assert np.abs(mesh.vertices.min(axis=0) - low).max() <= 100
    assert np.abs(mesh.vertices.max(axis=0) - high).max() <= 100


def test_coarser_scales_show_the_same_place(shipped_demo, demo_cache):
    from cloudvolume import CloudVolume

    folder = unpacked_demo(demo_cache).parent
    seg = CloudVolume(f"precomputed://file://{folder / 'seg'}", mip=2, progress=False)
    em = CloudVolume(f"precomputed://file://{folder / 'em'}", mip=2, progress=False)
    fine_seg, fine_em = shipped_demo.seg(), shipped_demo.em()

    assert tuple(seg.resolution) == tuple(em.resolution) == (32, 32, 40)
    assert int(seg[10, 20, 30][0, 0, 0, 0]) == int(fine_seg[30, 80, 40])
    mean = fine_em[30, 80:84, 40:44].mean()
    assert abs(int(em[10, 20, 30][0, 0, 0, 0]) - mean) <= 2


def test_a_damaged_copy_is_made_again(tmp_path, small_pack):
    toml = unpacked_demo(tmp_path, small_pack)
    chunk = next((toml.parent / "em" / "8_8_40").iterdir())
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:100])

    assert unpacked_demo(tmp_path, small_pack) == toml
    assert chunk.read_bytes() == whole
    assert [p.name for p in tmp_path.iterdir()] == [toml.parent.name]


def test_a_copy_without_its_dataset_file_is_made_again(tmp_path, small_pack):
    toml = unpacked_demo(tmp_path, small_pack)
    toml.unlink()

    assert open_dataset_file(unpacked_demo(tmp_path, small_pack)).info.name == "demo"


def test_processes_that_start_at_once_all_get_a_whole_copy(tmp_path, small_pack):
    code = (
        "import sys; from pathlib import Path;"
        "from cb2_assist.datasets.demo import unpacked_demo;"
        "print(unpacked_demo(Path(sys.argv[1]), Path(sys.argv[2])))"
    )
    all_of_them = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "cache"), str(small_pack)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    said = {p.communicate(timeout=120)[0].strip() for p in all_of_them}

    assert [p.returncode for p in all_of_them] == [0, 0, 0]
    (folder,) = (tmp_path / "cache").iterdir()
    assert said == {str(folder / "dataset.toml")}
    assert demo._is_whole(folder)


def test_a_cache_that_cannot_be_written_says_what_to_do(tmp_path, small_pack):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")

    with pytest.raises(DatasetError, match="CB2_ASSIST_CACHE"):
        unpacked_demo(blocked / "cache", small_pack)


def test_a_missing_or_damaged_pack_says_what_to_do(tmp_path, small_pack):
    torn = tmp_path / "torn.zip"
    torn.write_bytes(small_pack.read_bytes()[:5000])
    for pack in (tmp_path / "absent.zip", torn):
        with pytest.raises(DatasetError, match="Install cb2-assist again"):
            unpacked_demo(tmp_path / "cache", pack)


def test_a_flipped_bit_in_the_pack_is_found(tmp_path, small_pack):
    body = bytearray(small_pack.read_bytes())
    body[len(body) // 2] ^= 1
    bad = tmp_path / "bad.zip"
    bad.write_bytes(body)

    with pytest.raises(DatasetError, match="Install cb2-assist again"):
        unpacked_demo(tmp_path / "cache", bad)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_new_pack_is_taken_up_beside_the_old_copy(tmp_path, small_pack, monkeypatch):
    old = unpacked_demo(tmp_path, small_pack)
    monkeypatch.setattr(demo, "LAYOUT", demo.LAYOUT + 1)

    new = unpacked_demo(tmp_path, small_pack)

    assert new != old
    assert old.exists()


def test_the_name_demo_opens_it(demo_cache, monkeypatch):
    from cb2_assist.datasets.registry import open_dataset

    monkeypatch.setenv("CB2_ASSIST_CACHE", str(demo_cache))
    box = BoxVx(PointVoxel(0, 0, 0), PointVoxel(8, 8, 4))

    assert open_dataset("demo", None).cutout(box).seg.shape == (8, 8, 4)
    assert open_demo().info.name == "demo"


def test_the_listing_names_every_file(demo_cache):
    folder = unpacked_demo(demo_cache).parent

    assert (
        len(json.loads((folder / "files.json").read_text()))
        == sum(len(names) for _, _, names in os.walk(folder)) - 1
    )
