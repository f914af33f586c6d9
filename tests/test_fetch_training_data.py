"""examples/fetch_training_data.py against a server on this machine that stands for the hosts."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import os
import signal
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
import pytest
from PIL import Image

from cb2_assist.datasets.local import open_dataset_file
from cb2_assist.model.shipped import shipped_models

REPO = Path(__file__).resolve().parents[1]

PROGRAM = REPO / "examples" / "fetch_training_data.py"
SHAPE_ZYX = (12, 20, 16)


@pytest.fixture(scope="module")
def fetcher() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fetch_training_data", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class Host:
    """A web server whose answers can be spoilt, one request after the other."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.spoilt: dict[str, list[str]] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.half_sent = threading.Event()
        self.go_on = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *_words: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        name = request.path.lstrip("/")
        wanted = request.headers.get("Range")
        self.asked.append((name, wanted))
        how = self.spoilt[name].pop(0) if self.spoilt.get(name) else "whole"
        if name not in self.files or how in ("404", "503"):
            request.send_error(int(how) if how.isdigit() else 404)
            return
        body, start = self.files[name], 0
        if wanted and how != "no range":
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                request.send_error(416)
                return
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            request.send_response(200)
        rest = body[start:]
        request.send_header("Content-Length", str(len(rest)))
        request.end_headers()
        if how == "truncated":
            request.wfile.write(rest[: len(rest) // 2])
            request.close_connection = True
        elif how == "stalled":
            request.wfile.write(rest[: len(rest) // 2])
            request.wfile.flush()
            self.half_sent.set()
            self.go_on.wait(60)
        else:
            request.wfile.write(rest)


@pytest.fixture
def host() -> Iterator[Host]:
    made = Host()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.go_on.set()
    made.server.shutdown()
    thread.join()
    made.server.server_close()


def arrays() -> dict[str, np.ndarray]:
    z, y, x = np.indices(SHAPE_ZYX)
    rng = np.random.default_rng(0)
    seg = (1 + (x >= 8) + 2 * (y >= 10)).astype(np.int32)
    return {"em": rng.integers(1, 255, SHAPE_ZYX).astype(np.uint8), "seg": seg, "z": z}


def packed_h5(**content: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, array in content.items():
            file[name] = array
    return gzip.compress(buffer.getvalue(), mtime=0)


def png(page: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(page).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def recipe(host: Host, tmp_path: Path) -> Path:
    """A recipe with every kind of source, on this machine."""
    made = arrays()
    bodies = np.array([[1, 7], [2, 7], [3, 9], [4, 9]], np.int64)
    host.files["seg.h5.gz"] = packed_h5(stack=made["seg"], transforms=bodies)
    buffer = io.BytesIO()
    np.savez(buffer, segmentation=made["seg"].astype(np.uint8))
    host.files["seg.npz"] = buffer.getvalue()
    # ids that count anew in each section, and what stands for them
    host.files["sections.txt"] = "\n".join(
        f"{z} {k} {k + 10 * (k > 2)}" for z in range(SHAPE_ZYX[0]) for k in range(1, 5)
    ).encode()
    host.files["bodies.txt"] = b"1 5\n2 5\n13 6\n14 6\n"
    pages = [png(page) for page in made["em"]]
    for k, page in enumerate(pages):
        host.files[f"iso.{100 + k}.png"] = page
        host.files[f"sp.{k:03d}.png"] = png(made["seg"][k].astype(np.uint16))

    def sha(name: str) -> str:
        return hashlib.sha256(host.files[name]).hexdigest()

    def file(name: str) -> str:
        length = len(host.files[name])
        return (
            f'[[source.file]]\nurl = "{host.url}/{name}"\nto = "{name}"\nbytes = {length}\n'
            f'sha256 = "{sha(name)}"\n'
        )

    def stack(pattern: str, first: int) -> str:
        hashes = [sha(pattern.format(number=first + k)) for k in range(SHAPE_ZYX[0])]
        return (
            f'[[source.stack]]\nurl = "{host.url}/{pattern}"\nto = "em/{pattern}"\n'
            f"first = {first}\nsha256 = {hashes}\n"
        )

    def dataset(name: str, use: str, rest: str) -> str:
        return (
            f'[[dataset]]\nname = "{name}"\nuse = "{use}"\nsources = ["a"]\nspecies = "fly"\n'
            'voxel_nm = [10.0, 10.0, 10.0]\nlicence = "CC BY 4.0"\ncitation = "nobody"\n'
            f'id_offset = 1000\nem = {{ stack = "a/em/iso.{{number}}.png" }}\n{rest}\n'
        )

    text = "\n".join(
        [
            'format = 1\n[[source]]\nid = "a"\n',
            *(file(n) for n in ("seg.h5.gz", "seg.npz", "sections.txt", "bodies.txt")),
            stack("iso.{number}.png", 100),
            stack("sp.{number:03d}.png", 0),
            dataset(
                "one",
                "training",
                'segmentation = { file = "a/seg.npz", array = "segmentation" }\n'
                'truth = { file = "a/seg.h5.gz", array = "stack", map = "transforms" }',
            ),
            dataset(
                "two",
                "evaluation",
                'segmentation = { stack = "a/em/sp.{number:03d}.png", maps = ["a/sections.txt"] }\n'
                'truth = { stack = "a/em/sp.{number:03d}.png", maps = ["a/sections.txt", '
                '"a/bodies.txt"] }',
            ),
            '[[command]]\nwhat = "train"\nrun = "cb2-assist train DATA/one/dataset.toml"\n',
        ]
    )
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return path


def fault(fetcher: ModuleType, *words: object) -> str:
    with pytest.raises(SystemExit) as stopped:
        fetcher.main([str(w) for w in words])
    return str(stopped.value.code)


def test_published_files_become_datasets_that_open(
    fetcher: ModuleType, host: Host, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data = tmp_path / "data"
    fetcher.main([str(data), "--recipe", str(recipe), "--all"])

    made = arrays()
    for name, seg, truth in (
        ("one", made["seg"] + 1000, np.where(made["seg"] <= 2, 7, 9)),
        ("two", np.where(made["seg"] > 2, made["seg"] + 10, made["seg"]) + 1000,
         np.where(made["seg"] <= 2, 5, 6)),
    ):  # fmt: skip
        source = open_dataset_file(data / name / "dataset.toml")
        cutout = source.cutout(source.bounds)
        assert (source.info.licence, source.info.citation) == ("CC BY 4.0", "nobody")
        assert (made["em"] == cutout.em.T).all()
        assert (seg == cutout.seg.T).all()
        assert (truth == source.truth_cutout(source.bounds).T).all()
        source.close()
    assert f"cb2-assist train {data}/one/dataset.toml" in capsys.readouterr().out
    assert not (data / "arrays" / "one").exists()

    before = len(host.asked)
    fetcher.main([str(data), "--recipe", str(recipe), "--all"])
    assert len(host.asked) == before, "what is there and right is not fetched again"


def some_files(fetcher: ModuleType, host: Host, recipe: Path, folder: Path) -> dict[str, object]:
    """The recipe's files by name, to fetch one by one."""
    every = fetcher.wanted_files(fetcher.read_recipe(recipe), folder)
    return {w.url.removeprefix(host.url + "/"): w for _, w in every}


def test_a_body_cut_off_is_completed_from_where_it_broke(
    fetcher: ModuleType, host: Host, recipe: Path, tmp_path: Path
) -> None:
    wanted = some_files(fetcher, host, recipe, tmp_path)["seg.h5.gz"]
    half = len(host.files["seg.h5.gz"]) // 2
    host.spoilt["seg.h5.gz"] = ["truncated", "503"]

    assert fetcher.fetch(wanted) == ""
    assert wanted.path.read_bytes() == host.files["seg.h5.gz"]
    assert [r for _, r in host.asked] == [None, f"bytes={half}-", f"bytes={half}-"]


def test_a_server_that_knows_no_ranges_sends_it_all_again(
    fetcher: ModuleType, host: Host, recipe: Path, tmp_path: Path
) -> None:
    wanted = some_files(fetcher, host, recipe, tmp_path)["seg.npz"]
    host.spoilt["seg.npz"] = ["truncated", "no range"]

    assert fetcher.fetch(wanted) == ""
    assert wanted.path.read_bytes() == host.files["seg.npz"]


def test_what_always_breaks_off_is_told_with_its_length(
    fetcher: ModuleType, host: Host, recipe: Path, tmp_path: Path
) -> None:
    wanted = some_files(fetcher, host, recipe, tmp_path)["seg.npz"]
    host.spoilt["seg.npz"] = ["truncated"] * fetcher.TRIES

    told = fetcher.fetch(wanted)
    assert f"of {len(host.files['seg.npz'])} bytes arrived" in told
    assert not wanted.path.exists()


def test_another_content_is_thrown_away_and_both_hashes_are_said(
    fetcher: ModuleType, host: Host, recipe: Path, tmp_path: Path
) -> None:
    right = host.files["seg.npz"]
    host.files["seg.npz"] = bytes([right[0] ^ 1]) + right[1:]
    said = fault(fetcher, tmp_path / "data", "--recipe", recipe)

    assert "1 of 28 files" in said
    assert hashlib.sha256(host.files["seg.npz"]).hexdigest() in said
    assert hashlib.sha256(right).hexdigest() in said
    assert not list((tmp_path / "data").rglob("seg.npz*"))
    assert not (tmp_path / "data" / "one").exists()

    host.files["seg.npz"] = right
    fetcher.main([str(tmp_path / "data"), "--recipe", str(recipe)])
    assert (tmp_path / "data" / "one" / "dataset.toml").is_file()


def test_a_file_on_disk_that_was_changed_is_fetched_again(
    fetcher: ModuleType, host: Host, recipe: Path, tmp_path: Path
) -> None:
    wanted = some_files(fetcher, host, recipe, tmp_path)["bodies.txt"]
    wanted.path.parent.mkdir(parents=True)
    wanted.path.write_bytes(b"1 5\n")

    assert fetcher.fetch(wanted) == ""
    assert wanted.path.read_bytes() == host.files["bodies.txt"]


def test_a_longer_body_than_the_recipe_says_is_not_taken(
    fetcher: ModuleType, host: Host, recipe: Path, tmp_path: Path
) -> None:
    wanted = some_files(fetcher, host, recipe, tmp_path)["bodies.txt"]
    length = len(host.files["bodies.txt"])
    host.files["bodies.txt"] *= 2

    assert f"more than {length} bytes" in fetcher.fetch(wanted)


def test_a_missing_file_is_asked_for_once(
    fetcher: ModuleType, host: Host, recipe: Path, tmp_path: Path
) -> None:
    wanted = some_files(fetcher, host, recipe, tmp_path)["bodies.txt"]
    del host.files["bodies.txt"]

    assert "404" in fetcher.fetch(wanted)
    assert len(host.asked) == 1


def test_without_a_hash_the_content_is_taken_and_named_as_not_checked(
    fetcher: ModuleType, host: Host, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    known = hashlib.sha256(host.files["bodies.txt"]).hexdigest()
    recipe.write_text(recipe.read_text().replace(known, ""))
    wanted = some_files(fetcher, host, recipe, tmp_path)["bodies.txt"]

    assert fetcher.fetch(wanted) == ""
    said = capsys.readouterr().out
    assert known in said
    assert "NOT CHECKED" in said


def test_other_voxels_than_the_recipe_names_are_refused(
    fetcher: ModuleType, recipe: Path, tmp_path: Path
) -> None:
    text = recipe.read_text().replace("id_offset = 1000", 'id_offset = 1000\nversion = "0123"')
    recipe.write_text(text)
    said = fault(fetcher, tmp_path / "data", "--recipe", recipe)

    assert "recipe's is 0123" in said
    assert "Delete the folder" in said


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", "a/../../b", ""])
def test_no_file_leads_out_of_the_folder(fetcher: ModuleType, tmp_path: Path, name: str) -> None:
    with pytest.raises(fetcher.FetchError, match="leads out"):
        fetcher.inside(tmp_path, name)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[", "no recipe"),
        ("format = 2", "format 1"),
        ('format = 1\n[[dataset]]\nname = "d"', "no use"),
        (
            'format = 1\n[[dataset]]\nname = "d"\nuse = "training"\nsources = ["x"]\n'
            'licence = "l"\ncitation = "c"\nem = {file = "e"}\nsegmentation = {file = "s"}',
            "no source",
        ),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_in_words(
    fetcher: ModuleType, tmp_path: Path, text: str, says: str
) -> None:
    (tmp_path / "r.toml").write_text(text)
    assert says in fault(fetcher, tmp_path / "data", "--recipe", tmp_path / "r.toml")


def test_killed_while_a_file_arrives_it_goes_on_with_the_rest_of_it(
    fetcher: ModuleType, host: Host, recipe: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    buffer = io.BytesIO()
    # several reads long, so that half of it is on disk when the program dies
    np.savez(buffer, segmentation=arrays()["seg"].astype(np.uint8), more=rng.bytes(1 << 20))
    old, new = host.files["seg.npz"], buffer.getvalue()
    host.files["seg.npz"] = new
    text = recipe.read_text().replace(f"bytes = {len(old)}", f"bytes = {len(new)}")
    sha = [hashlib.sha256(b).hexdigest() for b in (old, new)]
    recipe.write_text(text.replace(*sha))
    host.spoilt["seg.npz"] = ["stalled"]
    data = tmp_path / "data"
    child = subprocess.Popen(
        [sys.executable, str(PROGRAM), str(data), "--recipe", str(recipe)],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(REPO)},
    )
    try:
        assert host.half_sent.wait(120)
        part = data / "sources" / "a" / "seg.npz.part"
        while not (part.is_file() and part.stat().st_size > 0):
            assert child.poll() is None
            host.go_on.wait(0.02)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    host.go_on.set()
    there = part.stat().st_size

    fetcher.main([str(data), "--recipe", str(recipe)])
    assert ("seg.npz", f"bytes={there}-") in host.asked
    assert (data / "sources" / "a" / "seg.npz").read_bytes() == new
    assert (data / "one" / "dataset.toml").is_file()


@pytest.mark.parametrize("folder", shipped_models(), ids=lambda f: f.name)
def test_every_shipped_model_has_a_recipe_of_public_files_with_their_hashes(
    fetcher: ModuleType, folder: Path
) -> None:
    recipe = fetcher.read_recipe(folder / "recipe.toml")
    assert recipe["model"] == folder.name
    files = [w for _, w in fetcher.wanted_files(recipe, Path("sources"))]

    assert len(files) == 358
    assert len({w.path for w in files}) == len(files)
    for w in files:
        commit = next(s["commit"] for s in recipe["source"] if s["commit"] in w.url)
        assert w.url.startswith("https://raw.githubusercontent.com/")
        assert len(commit) == 40
        assert len(bytes.fromhex(w.sha256)) == 32
    assert all(s["licence"] and s["citation"] and s["repository"] for s in recipe["source"])
    assert any(f"--name {folder.name}" in c["run"] for c in recipe["command"])


@pytest.mark.shared
def test_the_shipped_recipe_makes_the_datasets_that_the_card_names(
    fetcher: ModuleType, shared_data: Path
) -> None:
    """The versions in the recipe are those of the shared copies of the same volumes."""
    from fixtures_fib25 import ID_OFFSET, fib25_arrays

    from cb2_assist.datasets.importer import check_ids, grid_of, shift_ids
    from cb2_assist.datasets.writer import content_version

    recipe = tomllib.loads(fetcher.RECIPE.read_text())
    for dataset in recipe["dataset"]:
        if dataset["use"] == "training":
            which = dataset["name"].removeprefix("fib25-")
            seg = check_ids(which, fib25_arrays(shared_data, which)["seg"].T)
            grid = grid_of(tuple(dataset["voxel_nm"]), (0.0, 0.0, 0.0))
            assert dataset["id_offset"] == ID_OFFSET
            assert content_version(shift_ids(seg, ID_OFFSET), grid) == dataset["version"]
