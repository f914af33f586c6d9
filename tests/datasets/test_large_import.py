"""Volumes larger than the memory allowed, imports that are killed, two imports at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
from dataset_makers import blocks, grey

from cb2_assist.core.errors import DatasetError
from cb2_assist.datasets.importer import import_volume
from cb2_assist.datasets.local import open_dataset_file
from cb2_assist.datasets.partial_folder import appearing

CHILD = Path(__file__).parent / "importing_child.py"
MB = 10**6


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """What the child printed: its last line, its progress; and the folder."""
    folder = tmp_path_factory.mktemp("large")
    done = subprocess.run(
        [sys.executable, str(CHILD), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr.splitlines(), folder


def test_a_volume_needs_a_quarter_of_its_size_in_memory_at_most(large):
    used, _, _ = large
    print(used)
    assert used["volume"] > 250 * MB
    assert used["after"] - used["before"] < used["volume"] / 4


def test_what_was_imported_in_parts_is_whole(large):
    _, _, folder = large
    source = open_dataset_file(folder / "large" / "dataset.toml")
    with h5py.File(folder / "em.h5") as em, h5py.File(folder / "seg.h5") as seg:
        assert source.bounds.shape == em["v"].shape[::-1]
        cut = source.cutout(source.bounds)
        for z in range(0, 192, 7):
            np.testing.assert_array_equal(cut.em[:, :, z].T, em["v"][z])
            np.testing.assert_array_equal(cut.seg[:, :, z].T, seg["v"][z])
        ids = np.unique(seg["v"][::40])
    mean = source.em_statistics.mean
    assert mean == pytest.approx(float(cut.em.mean()), abs=1e-6)
    manifests = [folder / "large" / "seg" / "mesh" / f"{i}:0" for i in ids]
    assert all(json.loads(m.read_text())["fragments"] for m in manifests)


def test_progress_tells_percent_speed_and_time_left(large):
    _, lines, _ = large
    told = [line for line in lines if "%" in line]
    assert len(told) > 5
    percents = [int(line.split(": ")[1].split("%")[0]) for line in told]
    assert percents == sorted(percents)
    assert percents[-1] <= 100
    assert all(" MB/s, about " in line and line.endswith(" left") for line in told)
    stages = [line for line in lines if line.startswith(("writing", "making")) and ":" not in line]
    assert stages == ["writing EM", "writing segmentation", "making meshes"]


def command(folder, out):
    files = {"--em": folder / "em.npy", "--segmentation": folder / "seg.npy"}
    words = [str(w) for pair in files.items() for w in pair]
    words += ["--voxel-nm", "10,10,10", "--out", str(out)]
    return [sys.executable, "-m", "cb2_assist", "import-volume", *words]


def test_a_killed_import_leaves_no_dataset_and_the_next_one_takes_its_place(tmp_path):
    shape = (120, 120, 120)
    np.save(tmp_path / "em.npy", grey(shape).T)
    np.save(tmp_path / "seg.npy", blocks(shape).T)
    out = tmp_path / "mine"
    process = subprocess.Popen(
        command(tmp_path, out), stderr=subprocess.PIPE, text=True, env={**os.environ}
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "writing segmentation" in line:
            process.send_signal(signal.SIGKILL)
            break
    process.wait(30)
    process.stderr.close()
    assert process.returncode == -signal.SIGKILL
    assert not out.exists()
    partial = tmp_path / "mine.partial"
    assert (partial / "em").is_dir()
    with pytest.raises(DatasetError):
        open_dataset_file(partial / "dataset.toml")

    np.save(tmp_path / "em.npy", grey((20, 20, 20)))
    np.save(tmp_path / "seg.npy", blocks((20, 20, 20), 10))
    subprocess.run(command(tmp_path, out), check=True, capture_output=True, timeout=120)
    assert open_dataset_file(out / "dataset.toml").bounds.shape == (20, 20, 20)
    assert not partial.exists()
    assert not (out / ".importing").exists()


def test_two_imports_to_one_folder_do_not_disturb_each_other(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((9, 9, 9), np.uint8))
    name, out = str(tmp_path / "a.npy"), tmp_path / "out"
    inside, go_on = threading.Event(), threading.Event()

    def wait(line):
        if line == "making meshes":
            inside.set()
            go_on.wait(60)

    options = {"em": name, "segmentation": name, "voxel_nm": (9, 9, 9), "out": out}
    first = threading.Thread(target=lambda: import_volume(**options, progress=wait))
    first.start()
    assert inside.wait(60)
    try:
        with pytest.raises(DatasetError, match="Another import is writing"):
            import_volume(**options)
    finally:
        go_on.set()
        first.join(60)
    assert open_dataset_file(out / "dataset.toml").info.name == "out"


def test_a_folder_of_someone_elses_is_never_removed(tmp_path):
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "thesis.txt").write_text("mine")
    with (
        pytest.raises(DatasetError, match="in the way and was not made by an import"),
        appearing(tmp_path / "out"),
    ):
        pass
    assert (tmp_path / "out.partial" / "thesis.txt").read_text() == "mine"


def test_an_empty_leftover_is_taken_over(tmp_path):
    (tmp_path / "out.partial").mkdir()
    with appearing(tmp_path / "out") as folder:
        (folder / "file").write_text("done")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["file"]
    assert not (tmp_path / "out.partial").exists()
