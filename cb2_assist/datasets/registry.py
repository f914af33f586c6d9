"""Which datasets can be opened by name, and the one door to open any of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cb2_assist.core.errors import UnknownDatasetError, UsageError
from cb2_assist.datasets.source import Source


@dataclass(frozen=True, slots=True)
class DatasetEntry:
    """One line of `cb2-assist datasets`.

    Attributes:
        needs_login: Whether a token is needed to read it.
        reachable: Whether it can be opened from here; None when that was not tried.
        how_to_open: What to type.
    """

    name: str
    title: str
    licence: str
    needs_login: bool
    reachable: bool | None
    how_to_open: str


class Registry:
    """Datasets by name, in the order in which they were added."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[DatasetEntry, Callable[[], Source]]] = {}

    def add(self, entry: DatasetEntry, opener: Callable[[], Source]) -> None:
        """Register a dataset.

        Raises:
            ValueError: The name is taken.
        """
        if entry.name in self._entries:
            raise ValueError(f"There is already a dataset {entry.name!r}.")
        self._entries[entry.name] = (entry, opener)

    def entries(self) -> list[DatasetEntry]:
        """All datasets."""
        return [entry for entry, _ in self._entries.values()]

    def open(self, name: str) -> Source:
        """Open a dataset by name.

        Raises:
            UnknownDatasetError: There is none.
            DatasetError: It cannot be opened.
        """
        if name not in self._entries:
            raise UnknownDatasetError(name, self._entries)
        return self._entries[name][1]()


def known_datasets() -> list[DatasetEntry]:
    """What can be opened with ``--dataset NAME``."""
    return _built_in().entries()


def open_dataset(name: str | None, dataset_file: Path | None) -> Source:
    """Open the dataset that ``--dataset`` or ``--dataset-file`` names.

    Raises:
        UsageError: Neither or both are given.
        UnknownDatasetError: No dataset goes by the name.
        DatasetError: It cannot be opened.
    """
    if dataset_file is not None and name is None:
        from cb2_assist.datasets.local import open_dataset_file

        return open_dataset_file(dataset_file)
    if name is not None and dataset_file is None:
        return _built_in().open(name)
    given = "both" if name is not None else "neither"
    known = ", ".join(e.name for e in known_datasets())
    raise UsageError(
        f"Give exactly one of --dataset NAME (known: {known}) and --dataset-file FILE.toml; "
        f"{given} were given."
    )


def _built_in() -> Registry:
    registry = Registry()
    registry.add(
        DatasetEntry(
            name="demo",
            title="Generated neuropil with an automatic segmentation and its truth",
            licence="CC0 1.0",
            needs_login=False,
            reachable=True,
            how_to_open="cb2-assist --dataset demo",
        ),
        _open_demo,
    )
    return registry


def _open_demo() -> Source:
    from cb2_assist.datasets.demo import open_demo

    return open_demo()
