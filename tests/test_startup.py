"""The command line answers at once and loads nothing heavy for it."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "timm", "numba", "scipy", "skimage", "cloudvolume", "neuroglancer", "tornado")


def run(*words):
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def loaded():
    code = "import sys, cb2_assist.cli; print(*sorted(m for m in sys.modules if '.' not in m))"
    return set(run("-c", code).stdout.split())


@pytest.mark.parametrize("module", HEAVY)
def test_importing_the_command_line_leaves_out(loaded, module):
    assert "click" in loaded
    assert module not in loaded


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["suggest", "--help"]])
def test_help_and_version_load_nothing_heavy(words):
    code = (
        "import sys; from cb2_assist.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as e: code = e.code\n"
        f"print(code, [m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = run("-c", code, *words)

    assert done.stdout.splitlines()[-1] == "0 []", done.stderr


def test_python_m_is_the_same_command():
    done = run("-m", "cb2_assist", "--version")

    assert done.returncode == 0
    assert done.stdout.startswith("cb2-assist, version ")
