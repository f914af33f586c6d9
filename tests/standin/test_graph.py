"""The graph's own promises, after random edits: parts are connected, the past never changes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from cb2_assist.standin.graph import FIRST_TIME, ChunkedGraph, Switch, Watershed, components
from cb2_assist.standin.node_ids import LEVEL2, SUPERVOXEL, NodeIds

CHUNKS = (4, 3, 2)
PER_CHUNK = 3


def _grid(seed: int) -> tuple[ChunkedGraph, Watershed]:
    """Three supervoxels in each chunk, at random in touch with others there and next door."""
    rng = np.random.default_rng(seed)
    ids = NodeIds.for_chunks(CHUNKS)
    names, chunk_of = [], []
    for chunk in np.ndindex(*CHUNKS):
        for k in range(1, PER_CHUNK + 1):
            names.append(ids.base(SUPERVOXEL, chunk) | k)
            chunk_of.append(chunk)
    order = np.argsort(names)
    supervoxels = np.array(names, np.uint64)[order]
    place = np.array(chunk_of)[order]
    pairs = [
        (a, b)
        for a, b in itertools.combinations(range(len(names)), 2)
        if np.abs(place[a] - place[b]).sum() <= 1 and rng.random() < 0.5
    ]
    n = len(pairs)
    watershed = Watershed(
        supervoxels,
        np.array(pairs, np.int64),
        rng.random(n).astype(np.float32),
        rng.integers(1, 100, n),
        rng.random(n) < 0.4,
    )
    return ChunkedGraph(ids, watershed, (64, 64, 16)), watershed


def _partition(graph: ChunkedGraph, at: float | None = None) -> list[int]:
    return [graph.ancestor(int(v), at=at) for v in graph.supervoxels]


def _same_partition(one: list[int], other: list[int]) -> bool:
    pairs = set(zip(one, other, strict=True))
    return len(pairs) == len(set(one)) == len(set(other))


@pytest.mark.parametrize("seed", [0, 1])
def test_objects_are_the_connected_parts_at_every_time(seed: int) -> None:
    graph, watershed = _grid(seed)
    rng = np.random.default_rng(seed + 100)
    on = watershed.on.copy()
    expected = {FIRST_TIME: components(len(graph.supervoxels), watershed.pairs[on]).tolist()}
    for step in range(1, 25):
        edge = int(rng.integers(len(on)))
        on[edge] = not on[edge]
        at = FIRST_TIME + step
        graph.apply([Switch(edge, bool(on[edge]))], step, at)
        expected[at] = components(len(graph.supervoxels), watershed.pairs[on]).tolist()
    for at, parts in expected.items():
        assert _same_partition(_partition(graph, at), parts), at
        assert _same_partition(_partition(graph, at + 0.5), parts), at
    for root in set(_partition(graph)):
        assert {graph.ancestor(v) for v in graph.below(root)} == {root}


def test_an_id_names_the_same_supervoxels_for_ever_and_is_never_used_again() -> None:
    graph, watershed = _grid(3)
    rng = np.random.default_rng(7)
    on = watershed.on.copy()
    known: dict[int, frozenset[int]] = {}
    retired: set[int] = set()
    for step in range(1, 30):
        now = {n for v in graph.supervoxels.tolist() for n in (graph.parent(v), graph.ancestor(v))}
        assert not now & retired
        for node in now:
            assert node is not None
            below = frozenset(graph.below(node))
            assert known.setdefault(node, below) == below
        retired |= known.keys() - now
        edge = int(rng.integers(len(on)))
        on[edge] = not on[edge]
        graph.apply([Switch(edge, bool(on[edge]))], step, FIRST_TIME + step)
    for node, below in known.items():
        assert frozenset(graph.below(node)) == below


def test_a_level_2_node_is_connected_within_its_chunk() -> None:
    graph, watershed = _grid(5)
    ends = watershed.pairs[watershed.on]
    place = graph.ids.chunks(graph.supervoxels)
    near = (place[ends[:, 0]] == place[ends[:, 1]]).all(axis=1)
    expected = components(len(graph.supervoxels), ends[near]).tolist()
    parts = [graph.ancestor(int(v), LEVEL2) for v in graph.supervoxels]
    assert _same_partition(parts, expected)
    for chunk in np.ndindex(*CHUNKS):
        assert all(graph.ids.chunk(n) == chunk for n in graph.nodes_in_chunk(chunk))


def test_a_box_limits_what_lies_below() -> None:
    graph, _ = _grid(0)
    root = max(set(_partition(graph)), key=lambda r: len(graph.below(r)))
    box = graph.corner(graph.below(root, LEVEL2)[0])
    inside = graph.below(root, 1, box)
    chunks = {graph.ids.chunk(v) for v in inside}
    assert len(chunks) == 1
    assert set(inside) == {v for v in graph.below(root) if graph.ids.chunk(v) in chunks}


def test_before_the_graph_was_made_nothing_has_a_parent() -> None:
    graph, _ = _grid(0)
    supervoxel = int(graph.supervoxels[0])
    assert graph.ancestor(supervoxel, at=FIRST_TIME - 1) == supervoxel
    assert graph.ancestor(0) == 0


@pytest.mark.parametrize("counts", [(1, 1, 1), (4, 4, 4), (12, 12, 7), (1024, 3, 9)])
def test_ids_are_unpacked_as_they_were_packed(counts: tuple[int, int, int]) -> None:
    ids = NodeIds.for_chunks(counts)
    for layer in range(1, ids.layers + 1):
        up = max(0, layer - 2)
        chunk = tuple((n - 1) >> up for n in counts)
        node = ids.base(layer, (chunk[0], chunk[1], chunk[2])) | 5
        assert (ids.layer(node), ids.chunk(node), node < 2**64) == (layer, chunk, True)
    assert ids.chunk(ids.base(ids.layers, (0, 0, 0))) == chunk == (0, 0, 0)
