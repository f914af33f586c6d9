"""From a name or a dataset file to an open graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cb2_assist.datasets.catalogue import PUBLIC, Graph, PublicDataset, built_in_hosts
from cb2_assist.datasets.cave.connection import Connection, Datastack
from cb2_assist.datasets.cave.source import CaveSource, open_cave
from cb2_assist.datasets.cave.states import state_of
from cb2_assist.datasets.cave.trust import Trust, approved_hosts
from cb2_assist.datasets.dataset_file import DatasetFile


def stack_of_entry(entry: PublicDataset) -> Datastack:
    """A dataset of the catalogue, which must be a graph."""
    assert isinstance(entry.where, Graph)
    return Datastack(
        name=entry.name,
        server=entry.where.server,
        datastack=entry.where.datastack,
        mip=entry.specimen.mip,
        pinned=entry.where.pinned,
        species=entry.specimen.species,
        licence=entry.specimen.licence,
        citation=entry.specimen.citation,
        mirror=next((e.name for e in PUBLIC if e.name == f"{entry.name}-static"), ""),
    )


def stack_of_file(dataset: DatasetFile, path: Path) -> Datastack:
    """A dataset file's graph, which it must have."""
    cave = dataset.cave
    assert cave is not None
    return Datastack(
        name=dataset.name,
        server=cave.server,
        datastack=cave.datastack,
        mip=dataset.mip,
        timestamp=cave.timestamp,
        pinned=cave.timestamp is not None,
        species=dataset.species,
        licence=dataset.licence,
        citation=dataset.citation,
        geometry=dataset.geometry,
        graph=cave.graph,
        em=dataset.em,
        named_by=f"The dataset file {path}",
    )


def connect(stack: Datastack, begin: Callable[[str], None] = lambda _step: None) -> Connection:
    """Open the connection; the token goes to known and approved hosts only.

    Raises:
        LoginError: The token is missing, invalid or not enough.
        DatasetError: A server is down, or there is no such dataset.
    """
    return Connection(stack, Trust(built_in_hosts(), approved_hosts()), begin=begin)


def open_graph(stack: Datastack) -> CaveSource:
    """Open a graph as a source.

    Raises:
        LoginError: The token is missing, invalid or not enough.
        DatasetError: A server is down, or there is no such dataset.
    """
    return open_cave(stack, connect, state_of)
