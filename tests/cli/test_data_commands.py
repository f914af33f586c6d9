"""`datasets`, `import-volume` and `export` on the command line."""

import json

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("own_data_home")


@pytest.fixture
def volumes(tmp_path):
    seg = np.zeros((24, 20, 16), np.uint32)
    seg[2:12], seg[12:22] = 1, 2
    np.save(tmp_path / "em.npy", np.full(seg.shape, 120, np.uint8))
    np.save(tmp_path / "seg.npy", seg)
    return tmp_path


def words_for(folder, **changes):
    given = {
        "--em": folder / "em.npy",
        "--segmentation": folder / "seg.npy",
        "--voxel-nm": "10,10,10",
        "--out": folder / "out",
    } | {f"--{k}": v for k, v in changes.items()}
    return [w for pair in given.items() for w in pair]


def test_imported_volume_opens_with_the_printed_file(call, volumes):
    code, out, err = call("import-volume", *words_for(volumes))

    assert code == 0
    assert out.strip() == str(volumes / "out" / "dataset.toml")
    assert "--dataset-file" in err
    assert (volumes / "out" / "dataset.toml").is_file()


@pytest.mark.parametrize(
    ("changes", "code", "says"),
    [
        ({"em": "nowhere.npy"}, 1, "nowhere.npy"),
        ({"voxel-nm": "0,10,10"}, 2, "voxel"),
        ({"voxel-nm": "10"}, 2, "not three numbers"),
        ({"axes": "yxz"}, 2, "yxz"),
    ],
)
def test_bad_volumes_are_refused_without_a_traceback(call, volumes, changes, code, says):
    got, out, err = call("import-volume", *words_for(volumes, **changes))

    assert got == code
    assert out == ""
    assert says in err
    assert "Traceback" not in err


def test_shapes_that_do_not_fit_are_told(call, volumes):
    np.save(volumes / "em.npy", np.zeros((5, 5, 5), np.uint8))
    code, _, err = call("import-volume", *words_for(volumes))

    assert code == 1
    assert err.strip().splitlines()[-1].startswith("cb2-assist: ")


def test_datasets_lists_the_demo(call):
    code, out, _ = call("datasets", "--json")

    assert code == 0
    rows = {r["name"]: r for r in json.loads(out)["datasets"]}
    assert rows["demo"]["needs_login"] is False
    assert "demo" in call("datasets")[1]


def test_export_wants_to_know_which_labels(call, tmp_path):
    code, out, err = call("export", "--out", tmp_path / "x")

    assert (code, out) == (2, "")
    assert "--labels URL" in err


def test_export_of_absent_labels_is_one_line(call, tmp_path):
    url = f"sqlite:///{tmp_path / 'none.sqlite'}"
    code, _, err = call("export", "--labels", url, "--out", tmp_path / "x")

    assert code == 1
    assert err.startswith("cb2-assist: ")
    assert err.count("\n") == 1
