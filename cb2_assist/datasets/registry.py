"""Which datasets can be opened by name, and the one door to open any of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from cb2_assist.core.errors import UnknownDatasetError, UsageError
from cb2_assist.datasets.catalogue import PUBLIC, Graph, PublicDataset, flat_file
from cb2_assist.datasets.demo_format import VOXEL
from cb2_assist.datasets.source import Source


@dataclass(frozen=True, slots=True)
class DatasetEntry:
    """One line of `cb2-assist datasets`.

    Attributes:
        needs_login: Whether a token is needed to read it.
        reachable: Whether its servers answer; None when that was not tried.
        how_to_open: What to type.
        voxel_nm: Of the segmentation that is read; None where that is not known before opening.
        note: What a person should know: where the facts are from, what nobody has verified.
        unreachable_because: Which of its servers does not answer, and why; empty otherwise.
    """

    name: str
    title: str
    licence: str
    needs_login: bool
    reachable: bool | None
    how_to_open: str
    voxel_nm: tuple[float, float, float] | None = None
    note: str = ""
    unreachable_because: str = ""


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


def known_voxel_nm(dataset: str) -> tuple[float, float, float] | None:
    """Edges of the voxels of a known dataset, without opening it; None where nobody knows."""
    return next((e.voxel_nm for e in known_datasets() if e.name == dataset), None)


def known_datasets(*, probing: bool = False) -> list[DatasetEntry]:
    """What can be opened with ``--dataset NAME``.

    Args:
        probing: Whether to find out if their servers answer, which takes up to five seconds.
    """
    entries = _built_in().entries()
    if not probing:
        return entries
    from cb2_assist.datasets.probe import probe_all

    why = probe_all()
    return [
        replace(e, reachable=not why[e.name], unreachable_because=why[e.name])
        if e.name in why
        else e
        for e in entries
    ]


def open_dataset(name: str | None, dataset_file: Path | None) -> Source:
    """Open the dataset that ``--dataset`` or ``--dataset-file`` names.

    Raises:
        UsageError: Neither or both are given.
        UnknownDatasetError: No dataset goes by the name.
        DatasetError: It cannot be opened.
    """
    if dataset_file is not None and name is None:
        return _open_file(dataset_file)
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
            voxel_nm=VOXEL,
        ),
        _open_demo,
    )
    for entry in PUBLIC:
        registry.add(_line_of(entry), partial(_open_public, entry))
    return registry


def _line_of(entry: PublicDataset) -> DatasetEntry:
    finest, f = entry.specimen.voxel_nm, 2**entry.specimen.mip
    return DatasetEntry(
        name=entry.name,
        title=entry.title,
        licence=entry.specimen.licence,
        needs_login=entry.needs_login,
        reachable=None,
        how_to_open=f"cb2-assist --dataset {entry.name}",
        # scales of these volumes halve x and y first, until voxels are nearly cubes
        voxel_nm=None if finest is None else (finest[0] * f, finest[1] * f, finest[2]),
        note=f"facts: {entry.specimen.facts}; not verified: {entry.unverified}",
    )


def _open_public(entry: PublicDataset) -> Source:
    if isinstance(entry.where, Graph):
        from cb2_assist.datasets.cave.opening import open_graph, stack_of_entry

        return open_graph(stack_of_entry(entry))
    from cb2_assist.datasets.local import LocalSource

    return LocalSource(flat_file(entry))


def _open_file(path: Path) -> Source:
    from cb2_assist.datasets.dataset_file import read_dataset_file

    dataset = read_dataset_file(path)
    if dataset.cave is not None:
        from cb2_assist.datasets.cave.opening import open_graph, stack_of_file

        return open_graph(stack_of_file(dataset, path))
    from cb2_assist.datasets.local import LocalSource

    return LocalSource(dataset)


def _open_demo() -> Source:
    from cb2_assist.datasets.demo import open_demo

    return open_demo()
