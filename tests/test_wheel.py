"""What `pip install` brings works alone, in another folder, without the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import HTTPCookieProcessor, build_opener

import pytest

REPO = Path(__file__).resolve().parent.parent
SHIPPED = {"cb2_assist": "cb2_assist", "static": "cb2_assist/static", "models": "cb2_assist/models"}
MOST_BYTES = 60 * 2**20


def _build(kind: str, out: Path) -> Path:
    # without a network and without a second environment: hatchling is in this one
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(out)]
    done = subprocess.run(
        command, cwd=REPO, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    (made,) = out.iterdir()
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`cb2-assist` of a new environment that has the wheel, and our dependencies from this one."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, with_pip=False)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / Path(sys.executable).name
    install = ["--python", str(python), "install", "-q", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True, timeout=120)
    found = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
        capture_output=True,
        text=True,
        check=True,
    )
    # a line of a .pth file adds a folder, but not what the .pth files in that one add: the
    # checkout that is installed editable there stays out
    theirs = dict.fromkeys(sysconfig.get_paths()[p] for p in ("purelib", "platlib"))
    Path(found.stdout.strip(), "dependencies.pth").write_text("\n".join(theirs) + "\n")
    return scripts / "cb2-assist"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of a person with an empty home."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "CB2_"))}
    for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        kept[name] = str(tmp_path / name.lower())
    return kept


@pytest.fixture
def ask(program: Path, tmp_path: Path, environment: dict[str, str]):
    """Run the program far from the checkout."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(program), *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )

    return run


def _in_checkout() -> set[str]:
    """Names in the wheel of every file that is in the repository, or will be."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *SHIPPED],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0:
        paths = [Path(p) for p in listed.stdout.split("\0") if p and (REPO / p).is_file()]
    else:
        paths = [
            p.relative_to(REPO)
            for top in SHIPPED
            for p in (REPO / top).rglob("*")
            if p.is_file() and "__pycache__" not in p.parts
        ]
    return {str(Path(SHIPPED[p.parts[0]], *p.parts[1:])) for p in paths}


def test_the_wheel_holds_the_package_page_models_and_demo_and_nothing_else(
    wheel: Path, capsys
) -> None:
    with zipfile.ZipFile(wheel) as archive:
        files = {n for n in archive.namelist() if ".dist-info/" not in n}
    assert files == _in_checkout()
    assert {
        "cb2_assist/static/index.html",
        "cb2_assist/models/cb2-vit-tiny/weights.safetensors",
        "cb2_assist/models/cb2-vit-tiny-sections/weights.safetensors",
        "cb2_assist/datasets/demo_data/demo.zip",
    } <= files
    with capsys.disabled():
        print(f"\n{wheel.name}: {wheel.stat().st_size / 2**20:.1f} MiB, {len(files)} files")
    assert wheel.stat().st_size < MOST_BYTES


def test_it_runs_from_the_wheel_alone(ask, program: Path) -> None:
    done = ask("--version")
    assert (done.returncode, done.stdout[:20]) == (0, "cb2-assist, version "), done.stderr
    names = [
        d["name"] for d in json.loads(ask("datasets", "--offline", "--json").stdout)["datasets"]
    ]
    assert "demo" in names
    health = ask("doctor", "--json")
    checks = {c["name"]: c for c in json.loads(health.stdout)["checks"]}
    assert health.returncode == 0, health.stderr
    for name in ("page", "model"):
        assert str(program.parent.parent) in checks[name]["text"], "not from the checkout"


def test_it_suggests_on_the_demo_from_the_wheel_alone(ask) -> None:
    # joins alone: every kernel is compiled anew here, and cuts have as many again
    where = ["--at", "2600,2900,1500", "--kind", "join", "--limit", "3"]
    done = ask("suggest", "--dataset", "demo", *where, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["dataset"] == "demo"
    assert document["suggestions"]
    assert all(0 <= s["confidence"] <= 1 for s in document["suggestions"])


def test_it_serves_the_page_from_the_wheel_alone(
    program: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    words = ["serve", "--dataset", "demo", "--no-browser", "--port", "0"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [str(program), *words],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert " at http://" in line, (tmp_path / "log").read_text()
        url = urlsplit(line.split(" at ", 1)[1].strip())
        browser = build_opener(HTTPCookieProcessor())
        for path, wanted in (
            (f"/?{url.query}", b"static/js/forward.js"),
            ("/", b"static/js/main.js"),
            ("/static/js/main.js", b"new Page("),
        ):
            with browser.open(f"http://{url.netloc}{path}", timeout=30) as answer:
                assert wanted in answer.read(), path
    finally:
        process.terminate()
        assert process.wait(20) == 0
        process.stdout.close()


def test_the_source_archive_holds_what_the_readmes_commands_need(tmp_path: Path) -> None:
    with tarfile.open(_build("sdist", tmp_path / "sdist")) as archive:
        files = {n.partition("/")[2] for n in archive.getnames()}
    needed = {".ci/constraints.txt", ".ci/run", "README.md", "LICENSE", "pyproject.toml"}
    needed |= {"tests/test_wheel.py", "static/index.html", "models/README.md"}
    assert needed <= files
    assert {str(p) for p in map(Path, files) if "__pycache__" in p.parts} == set()
