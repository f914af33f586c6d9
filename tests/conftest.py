"""Fixtures that several test folders share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres_server import Cluster, binaries
from xdist.scheduler import LoadScopeScheduling

REPO = Path(__file__).resolve().parent.parent

if "PYTEST_XDIST_WORKER" in os.environ:
    # two processes share the cores: a second thread in each would only wait for its turn
    os.environ.setdefault("OMP_NUM_THREADS", "1")


class ByFile(LoadScopeScheduling):
    """A file's tests stay in one process; so do those with a browser, of times, with PostgreSQL."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        is_alone = file.startswith("tests/browser/") or file.endswith(("_speed.py", "_startup.py"))
        if is_alone:
            return "browsers and times"
        # one server of labels for all of them
        return "postgres" if "postgres" in file else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByFile:
    """Which process runs which test."""
    return ByFile(config, log)


def shared_folder() -> Path:
    """Where the shared data lies: CB2_SHARED, else `shared` beside the checkout."""
    return Path(os.environ.get("CB2_SHARED") or REPO.parent / "shared")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out tests that need absent data, and say so; CB2_REQUIRE_SHARED=1 forbids that."""
    if (shared_folder() / "data").is_dir():
        return
    wanted = [i for i in items if i.get_closest_marker("shared")]
    if not wanted:
        return
    if os.environ.get("CB2_REQUIRE_SHARED") == "1":
        raise pytest.UsageError(
            f"CB2_REQUIRE_SHARED=1, but {shared_folder()} has no folder data; "
            f"{len(wanted)} tests need it."
        )
    mark = pytest.mark.skip(reason=f"no shared data at {shared_folder()} (set CB2_SHARED)")
    for item in wanted:
        item.add_marker(mark)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the shared real volumes; use together with `@pytest.mark.shared`."""
    return shared_folder() / "data"


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real model folder with a small random network; never written to."""
    from fixtures_model import tiny_model

    return tiny_model(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(scope="session")
def neurites_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """dataset.toml of a small volume with one thing to join and one to cut; never written to."""
    from neurites import neurite_dataset

    return neurite_dataset(tmp_path_factory.mktemp("neurites"))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A PostgreSQL server; tests that need it are left out where there is none."""
    programs = binaries()
    if programs is None:
        what = "no PostgreSQL server here (Debian: apt install postgresql)"
        if os.environ.get("CB2_REQUIRE_SHARED") == "1":
            pytest.fail(f"CB2_REQUIRE_SHARED=1, but {what}")
        pytest.skip(what)
    cluster = Cluster(programs)
    try:
        yield cluster
    finally:
        cluster.remove()


@pytest.fixture
def own_data_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's data folder, empty and apart from the real one."""
    home = tmp_path / "data-home"
    monkeypatch.setenv("XDG_DATA_HOME", str(home))
    return home


@pytest.fixture(scope="module")
def one_thread():
    """For tests of training: in small steps threads wait for each other longer than they work."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
