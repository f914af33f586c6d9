"""Stand-ins that the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from crossing import crossing
from people import EDITOR, NEWCOMER, READER, SECOND

from cb2_assist.standin.served import Served
from cb2_assist.standin.server import StandIn


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """Volume and supervoxels of `crossing`; a stand-in makes its own graph of them."""
    return crossing(tmp_path_factory.mktemp("crossing"))


@pytest.fixture
def cave(served: Served) -> Iterator[StandIn]:
    """A new stand-in with four accounts."""
    with StandIn(served, accounts=[EDITOR, SECOND, READER, NEWCOMER]) as running:
        yield running


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, so that no secret of the user is read or written."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path
