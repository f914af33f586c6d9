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
    code, out, _ = call("datasets", "--offline", "--json")

    assert code == 0
    rows = {r["name"]: r for r in json.loads(out)["datasets"]}
    assert rows["demo"]["needs_login"] is False
    assert "demo" in call("datasets", "--offline")[1]


def test_datasets_says_which_servers_answer(call, monkeypatch):
    def why_not(server):
        return "refuses connections" if "daf-apis" in server else ""

    monkeypatch.setattr("cb2_assist.datasets.probe._why_not", why_not)
    code, out, _ = call("datasets", "--json")
    rows = {row["name"]: row for row in json.loads(out)["datasets"]}
    assert code == 0
    assert rows["demo"]["reachable"] is True
    assert rows["hemibrain"]["reachable"] is True
    assert rows["hemibrain"]["unreachable_because"] is None
    assert rows["minnie65"]["reachable"] is False
    assert rows["minnie65"]["unreachable_because"] == "global.daf-apis.com: refuses connections"
    assert "not reachable (global.daf-apis.com: refuses" in call("datasets")[1]
    _, out, _ = call("datasets", "--offline", "--json")
    assert {row["reachable"] for row in json.loads(out)["datasets"]} == {True, None}


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
