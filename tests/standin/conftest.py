"""Stand-ins that the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from crossing import crossing

from cb2_assist.standin.deployment import Account
from cb2_assist.standin.served import Served
from cb2_assist.standin.server import StandIn

EDITOR = Account("a1" * 16, user_id="7", name="Ada", affiliation="Lab A")
SECOND = Account("a2" * 16, user_id="8", name="Ben", affiliation="Lab B")
READER = Account("a3" * 16, user_id="9", permissions=frozenset({"view"}))
NEWCOMER = Account("a4" * 16, user_id="10", accepted_terms=False)


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
