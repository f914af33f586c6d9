"""The command line answers at once and loads nothing heavy for it."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator

import click
import pytest

from cb2_assist.cli.main import cli

HEAVY = (
    "caveclient", "cloudvolume", "dask", "h5py", "neuroglancer", "numba", "pandas", "pyarrow",
    "scipy", "skimage", "sklearn", "sqlite3", "tifffile", "timm", "torch", "tornado", "trimesh",
    "zarr",
)  # fmt: skip


def _commands(group: click.Group, *before: str) -> Iterator[tuple[str, ...]]:
    for name, command in sorted(group.commands.items()):
        yield (*before, name)
        if isinstance(command, click.Group):
            yield from _commands(command, *before, name)


# of the running program: a command that is added is tested without a word here
COMMANDS = [(), *_commands(cli)]
names = " ".join


def run(*words):
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def loaded():
    """By command, the heavy modules that are there after its --help; one process for all."""
    code = (
        "import json, sys\n"
        "from cb2_assist.cli import main\n"
        "out, seen = sys.stdout, {}\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    sys.stdout = sys.stderr\n"
        "    try: main([*words, '--help'])\n"
        "    except SystemExit as e: code = e.code\n"
        f"    there = [m for m in {HEAVY!r} if m in sys.modules]\n"
        "    seen[' '.join(words)] = [code, there]\n"
        "json.dump(seen, out)\n"
    )
    done = run("-c", code, json.dumps(COMMANDS))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("words", COMMANDS, ids=names)
def test_the_help_of_each_command_loads_nothing_heavy(loaded, words):
    assert loaded[names(words)] == [0, []]


def test_the_table_has_the_commands():
    assert {("serve",), ("suggest",), ("export",), ("doctor",)} <= set(COMMANDS)


def test_a_wrong_option_loads_nothing_heavy_either():
    code = (
        "import sys; from cb2_assist.cli import main\n"
        "try: main(['serve', '--no-such-option'])\n"
        "except SystemExit as e: code = e.code\n"
        f"print(code, [m for m in {HEAVY!r} if m in sys.modules])"
    )
    assert run("-c", code).stdout.splitlines()[-1] == "2 []"


def test_python_m_is_the_same_command():
    done = run("-m", "cb2_assist", "--version")

    assert done.returncode == 0
    assert done.stdout.startswith("cb2-assist, version ")


@pytest.mark.benchmark
def test_how_long_each_command_takes_to_say_its_help(capsys):
    """In units of importing what every command line needs, measured beside it."""

    def seconds(*words: str, times: int = 2) -> float:
        took = []
        for _ in range(times):
            begun = time.perf_counter()
            assert run(*words).returncode == 0, words
            took.append(time.perf_counter() - begun)
        return min(took)

    bare = seconds("-c", "import click", times=5)
    ratios = {
        words: seconds("-m", "cb2_assist", *words, "--help", times=3) / bare for words in COMMANDS
    }
    for words, ratio in ratios.items():
        # something else may have had the machine for a moment; what is heavy stays heavy
        for _ in range(5):
            if ratio < 8:
                break
            again = seconds("-m", "cb2_assist", *words, "--help") / seconds("-c", "import click")
            ratio = ratios[words] = min(ratio, again)
    with capsys.disabled():
        print(f"\npython -c 'import click': {bare * 1000:.0f} ms; best of 3 each:")
        for words, ratio in ratios.items():
            print(f"  cb2-assist {names((*words, '--help'))}: {ratio:.1f} times")
    assert max(ratios.values()) < 8, "something heavy is loaded for a few lines of help"
