"""What is broken is found and told one by one, and hides nothing else."""

from __future__ import annotations

import json
import shutil
import socket
import sqlite3
import sys
import webbrowser
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from file_server import served

from cb2_assist.cli.main import cli
from cb2_assist.core.errors import AssistError
from cb2_assist.doctor import machine, run
from cb2_assist.doctor.installation import TorchCheck, check_numba, check_packages, check_python
from cb2_assist.doctor.machine import check_browser, check_folder
from cb2_assist.doctor.report import Check, State, examine
from cb2_assist.doctor.run import Patient, diagnose
from cb2_assist.labels.lock import acquire_server_lock
from cb2_assist.labels.store import labels_url, open_store
from cb2_assist.resources import resource_dir
from cb2_assist.settings import DEFAULT_MODEL

TORCH = """print('{"version": "2.0", "threads": 2, "cuda": []}')"""


@pytest.fixture(autouse=True)
def own_homes(tmp_path: Path, own_data_home: Path, monkeypatch) -> None:  # noqa: ARG001
    """No folder of the person who runs the tests; torch is asked by one test only."""
    monkeypatch.setenv("CB2_ASSIST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(run, "TorchCheck", lambda: TorchCheck(("-c", TORCH)))


@pytest.fixture
def dataset_file(neurites_file: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return shutil.copytree(neurites_file.parent, tmp_path / "volume") / neurites_file.name


def found(**patient) -> dict[str, Check]:
    checks = list(diagnose(Patient(**patient)))
    assert len({c.name for c in checks}) == len(checks)
    return {c.name: c for c in checks}


def failed(checks: dict[str, Check]) -> set[str]:
    return {name for name, c in checks.items() if c.state is State.FAIL}


def test_a_sound_installation_is_told_part_by_part(dataset_file, tmp_path) -> None:
    checks = found(dataset_file=dataset_file)
    assert failed(checks) == set()
    assert set(checks) == {
        "python", "packages", "page", "model", "numba cache", "data folder", "cache folder",
        "browser", "labels", "port", "demo", "dataset", "em", "segmentation", "meshes", "truth",
        "torch",
    }  # fmt: skip
    assert checks["packages"].details["neuroglancer"] == "2.41.2"
    card = json.loads((resource_dir("models") / DEFAULT_MODEL / "card.json").read_text())
    assert checks["model"].details["sha256"] == card["weights"]["sha256"]
    assert "96 x 72 x 112 voxels of 10, 10, 10 nm" in checks["segmentation"].text
    assert list(tmp_path.glob("data-home/*")) == [], "nothing was made"


def test_json_is_one_document_and_the_status_says_the_rest(dataset_file) -> None:
    words = ["doctor", "--dataset-file", str(dataset_file), "--json"]
    good = CliRunner().invoke(cli, words)
    document = json.loads(good.stdout)
    assert (good.exit_code, document["ok"]) == (0, True)
    assert all(set(c) == {"name", "state", "text", "advice", "details"} for c in document["checks"])
    shutil.rmtree(dataset_file.parent / "em")
    bad = CliRunner().invoke(cli, words)
    assert json.loads(bad.stdout)["ok"] is False
    assert isinstance(bad.exception, AssistError)
    assert str(bad.exception) == "1 of 17 checks failed: em."
    assert bad.exception.exit_code == 1
    text = CliRunner().invoke(cli, words[:-1]).stdout
    assert "FAIL  em: There is no em volume in" in text
    assert "ok    segmentation:" in text


def test_two_datasets_are_wrong_usage(dataset_file) -> None:
    words = ["doctor", "--dataset", "demo", "--dataset-file", str(dataset_file)]
    assert "not both" in str(CliRunner().invoke(cli, words).exception)


@pytest.mark.parametrize("part", ["em", "segmentation", "truth"])
def test_a_missing_volume_is_named_and_the_others_are_read(dataset_file, part: str) -> None:
    folder = {"segmentation": "seg"}.get(part, part)
    (dataset_file.parent / folder / "info").unlink()
    expected = {part, "meshes"} if part == "segmentation" else {part}
    checks = found(dataset_file=dataset_file)
    assert failed(checks) == expected
    assert "info file" in checks[part].text


def test_missing_chunks_are_found(dataset_file) -> None:
    for scale in (p for p in (dataset_file.parent / "em").iterdir() if p.is_dir()):
        shutil.rmtree(scale)
    assert failed(found(dataset_file=dataset_file)) == {"em"}


@pytest.mark.parametrize("how", ["gone", "empty", "not named"])
def test_missing_meshes_are_found(dataset_file, how: str) -> None:
    seg = dataset_file.parent / "seg"
    info = json.loads((seg / "info").read_text())
    mesh = seg / info["mesh"]
    if how == "not named":
        del info["mesh"]
        (seg / "info").write_text(json.dumps(info))
    else:
        shutil.rmtree(mesh)
        if how == "empty":
            mesh.mkdir()
    checks = found(dataset_file=dataset_file)
    assert failed(checks) == {"meshes"}
    assert "Import the volume again" in checks["meshes"].text


@pytest.mark.parametrize("text", ["", "nonsense", "[dataset]\nname = 'x'\n"])
def test_a_damaged_dataset_file_is_told_once(dataset_file, text: str) -> None:
    dataset_file.write_text(text)
    assert failed(found(dataset_file=dataset_file)) == {"dataset"}


@pytest.mark.parametrize("name", ["x" * 300, "~nosuchuser/x", "x" * 245])
def test_a_path_that_cannot_be_looked_at_hides_nothing(name: str) -> None:
    words = ["--labels", f"sqlite:///{name}", "--dataset-file", name, "--json"]
    done = CliRunner().invoke(cli, ["doctor", *words])
    checks = {c["name"]: c for c in json.loads(done.stdout)["checks"]}
    assert {"labels", "dataset", "port", "demo", "torch"} <= set(checks)
    assert checks["dataset"]["state"] == "fail"
    assert checks["labels"]["state"] == ("ok" if name == "x" * 245 else "fail")
    assert isinstance(done.exception, AssistError)


def test_a_cache_folder_without_a_home_is_told_and_hides_nothing(monkeypatch) -> None:
    monkeypatch.setenv("CB2_ASSIST_CACHE", "~nosuchuser/cache")
    assert {"python", "places", "torch"} <= set(found())


class TestAGraphThatCannotBeOpened:
    """What an account may lack is in test_cave_commands.py."""

    @pytest.fixture
    def refused(self, tmp_path, monkeypatch) -> Callable[[str], dict[str, Check]]:
        def of(server: str) -> dict[str, Check]:
            file = tmp_path / "cave.toml"
            file.write_text(f'[cave]\ndatastack = "mini"\nserver = "{server}"\n')
            return {n: c for n, c in found(dataset_file=file).items() if c.state is State.FAIL}

        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("CAVE_TOKEN", "e1" * 16)
        return of

    def test_without_a_token_the_page_to_get_one_is_named(self, refused, tmp_path, monkeypatch):
        monkeypatch.delenv("CAVE_TOKEN")
        with served(tmp_path) as server:
            told = refused(server.url)
        assert set(told) == {"login", "info"}
        assert f"{server.url}/sticky_auth/settings/tokens" in told["login"].text

    def test_a_server_that_is_no_cave_server_is_said_to_be_none(self, refused, tmp_path):
        with served(tmp_path) as server:
            told = refused(server.url)
        assert set(told) == {"info"}
        assert "this is no CAVE server" in told["info"].text

    def test_a_server_that_is_down_is_said_to_be(self, refused):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            told = refused(f"http://127.0.0.1:{taken.getsockname()[1]}")
        assert set(told) == {"info"}
        assert "refuses connections" in told["info"].text

    def test_a_server_that_nobody_approved_gets_no_token(self, refused):
        told = refused("https://cave.example")
        assert "doctor --trust cave.example" in "".join(c.text for c in told.values())


def test_an_unknown_dataset_is_told() -> None:
    checks = found(dataset="moon")
    assert failed(checks) == {"dataset"}
    assert "demo" in checks["dataset"].text


def test_damaged_weights_are_found(tmp_path) -> None:
    model = shutil.copytree(resource_dir("models") / DEFAULT_MODEL, tmp_path / "model")
    weights = model / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    checks = found(model=model)
    assert failed(checks) == {"model"}
    assert "SHA-256" in checks["model"].text
    weights.unlink()
    assert failed(found(model=model)) == {"model"}
    assert failed(found(model=tmp_path / "nowhere")) == {"model"}


def test_folders_that_cannot_be_written_or_are_full_are_told(tmp_path, monkeypatch) -> None:
    # a file in the way stops everybody, root too
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    monkeypatch.setenv("CB2_ASSIST_CACHE", str(tmp_path / "file" / "cache"))
    checks = found()
    assert failed(checks) == {"data folder", "cache folder"}
    assert "--labels" in checks["data folder"].advice
    assert "CB2_ASSIST_CACHE" in checks["cache folder"].advice
    usage = type("Usage", (), {"free": 5 * 2**20})
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _path: usage)
    assert check_folder("x", tmp_path / "new" / "deep", "").state is State.WARN
    assert not (tmp_path / "new").exists()


def test_a_label_file_is_described(tmp_path) -> None:
    path = tmp_path / "labels.sqlite"
    url = labels_url(path)
    assert "made at the first start" in found(labels=url)["labels"].text
    open_store(url).close()
    check = found(labels=url)["labels"]
    assert (check.state, check.details["events"], check.details["holder"]) == (State.OK, 0, None)
    path.chmod(0o644)
    assert f"chmod 600 {path}" in found(labels=url)["labels"].advice
    path.chmod(0o600)
    with acquire_server_lock(path, {"url": "http://127.0.0.1:4321/"}):
        check = found(labels=url)["labels"]
        assert check.state is State.OK
        assert "http://127.0.0.1:4321/" in check.text
    assert found(labels=url)["labels"].details["holder"] is None


def test_a_label_file_that_is_none_is_told(tmp_path) -> None:
    path = tmp_path / "labels.sqlite"
    path.write_bytes(b"nonsense" * 100)
    assert failed(found(labels=labels_url(path))) == {"labels"}
    path.unlink()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE x (y)")
    other.close()
    assert "another program" in found(labels=labels_url(path))["labels"].text
    assert failed(found(labels="postgresql://u:secret@x/y")) == {"labels"}


def test_labels_on_a_network_folder_are_told(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("cb2_assist.labels.inspect.file_system_of", lambda _path: "nfs4")
    check = found(labels=labels_url(tmp_path / "labels.sqlite"))["labels"]
    assert check.state is State.WARN
    assert "rollback journal" in check.text


def test_a_busy_port_is_told(tmp_path) -> None:
    labels = tmp_path / "labels.sqlite"
    state = tmp_path / "labels.sqlite.session.json"
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        saved = {"at_nm": None, "segment": None, "version": "", "port": port, "token": "a"}
        state.write_text(json.dumps(saved))
        state.chmod(0o644)
        check = found(labels=labels_url(labels))["port"]
        assert check.state is State.WARN
        assert str(port) in check.text
        with acquire_server_lock(labels, {"url": f"http://127.0.0.1:{port}/"}):
            assert "cb2-assist server" in found(labels=labels_url(labels))["port"].text
    assert found(labels=labels_url(labels))["port"].text == f"{port}, as last time, is free"
    assert state.stat().st_mode & 0o777 == 0o644, "looking changes nothing"


def test_no_browser_is_told(monkeypatch) -> None:
    monkeypatch.setenv("BROWSER", "anything")
    monkeypatch.setattr(webbrowser, "get", lambda: (_ for _ in ()).throw(webbrowser.Error("none")))
    assert check_browser().state is State.WARN
    for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert "ssh -L" in check_browser().advice


def test_wrong_packages_and_pythons_are_told(monkeypatch) -> None:
    assert check_python((3, 10)).state is State.FAIL
    assert check_packages("no-such-distribution").state is State.WARN
    wanted = ["numpy>=999", "no-such-package", "click", "mypy; extra == 'test'"]
    monkeypatch.setattr("importlib.metadata.requires", lambda _name: wanted)
    check = check_packages()
    assert check.state is State.FAIL
    assert "no-such-package is missing" in check.text
    assert "numpy is " in check.text
    assert "mypy" not in check.text


def test_a_numba_that_can_keep_nothing_is_told(monkeypatch) -> None:
    monkeypatch.setattr("cb2_assist.views.jit.cache_folder", lambda: None)
    assert "NUMBA_CACHE_DIR" in check_numba().advice


def test_a_broken_torch_is_told_and_hides_nothing(monkeypatch) -> None:
    monkeypatch.setattr(run, "TorchCheck", lambda: TorchCheck(("-c", "import no_such_torch")))
    checks = found()
    assert failed(checks) == {"torch"}
    assert "No module named 'no_such_torch'" in checks["torch"].text
    monkeypatch.setattr(run, "TorchCheck", lambda: TorchCheck(("-c", "import os; os.abort()")))
    assert failed(found()) == {"torch"}


def test_a_python_that_cannot_be_started_is_told(monkeypatch) -> None:
    monkeypatch.setattr(run, "TorchCheck", lambda: TorchCheck(python="/nowhere/python"))
    checks = found()
    assert "no process can be started" in checks["torch"].text
    assert "demo" in checks


def test_the_real_torch_says_its_threads() -> None:
    check = examine("torch", TorchCheck())
    assert check.state is State.OK
    assert check.details["threads"] >= 1


def test_a_bug_in_one_check_is_one_failed_check() -> None:
    def look() -> Check:
        raise ZeroDivisionError("by zero\nand more")

    check = examine("x", look)
    assert (check.state, check.text) == (State.FAIL, "ZeroDivisionError: by zero")


def test_the_demo_is_looked_at_only_once_it_is_unpacked(tmp_path) -> None:
    checks = found(dataset="demo")
    assert "when it is opened for the first time" in checks["demo"].text
    assert "em" not in checks
    assert not (tmp_path / "cache").exists()
