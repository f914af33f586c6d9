"""Stand-in CAVE servers for tests, in a home of their own: no secret of the user is touched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from cb2_assist.datasets.local import LocalSource, open_dataset_file
from cb2_assist.standin.deployment import Account
from cb2_assist.standin.server import StandIn

EDITOR = Account("c1" * 16, user_id="7", name="Ada", affiliation="Lab A")
STRANGER = Account("c2" * 16, user_id="8", permissions=frozenset())
NEWCOMER = Account("c3" * 16, user_id="9", accepted_terms=False)


@dataclass(frozen=True)
class CaveWorld:
    """A stand-in that runs, the dataset it was made of, and a dataset file that opens it."""

    cave: StandIn
    local: LocalSource
    file: Path


@contextmanager
def own_home(folder: Path) -> Iterator[pytest.MonkeyPatch]:
    """An empty home with a token in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        patch.setenv("XDG_DATA_HOME", str(folder / "data"))
        patch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
        patch.setenv("CAVE_TOKEN", EDITOR.token)
        yield patch


@contextmanager
def cave_world(folder: Path, local_file: Path, about: str = "") -> Iterator[CaveWorld]:
    """A stand-in of a local dataset.

    Args:
        folder: For its files.
        local_file: dataset.toml of what it serves.
        about: More lines of the dataset file, before ``[cave]``.
    """
    local = open_dataset_file(local_file)
    try:
        with StandIn.of(local, accounts=[EDITOR, STRANGER, NEWCOMER]) as cave:
            file = folder / "cave.toml"
            file.write_text(f"{about}\n{cave.dataset_file()}")
            yield CaveWorld(cave, local, file)
    finally:
        local.close()
