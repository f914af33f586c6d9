"""Supervoxels and contacts made from a dataset's segments."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from dataset_makers import make_dataset
from numpy.typing import NDArray

from cb2_assist.core.geometry import BoxVx, PointVoxel, Resolution
from cb2_assist.datasets.importer import grid_of
from cb2_assist.datasets.local import open_dataset_file
from cb2_assist.datasets.source import Source
from cb2_assist.datasets.writer import Volume
from cb2_assist.standin.edits import Editor, Placed
from cb2_assist.standin.graph import Box, ChunkedGraph, Watershed
from cb2_assist.standin.node_ids import NodeIds
from cb2_assist.standin.pieces import pieces
from cb2_assist.standin.served import Served, kept_served

SHAPE = (100, 70, 40)
OFFSET_NM = (80.0, 160.0, 800.0)


def _segments() -> NDArray[np.uint64]:
    """Two slabs that touch, a ball in two parts under one id, background."""
    seg = np.zeros(SHAPE, np.uint64)
    seg[:, :20] = 2**60 + 7
    seg[:, 20:45] = 2**60 + 8
    x, y, z = np.indices(SHAPE)
    for at in (30, 70):
        seg[((x - at) ** 2 + (y - 58) ** 2 + (2 * (z - 20)) ** 2) < 100] = 2**60 + 9
    return seg


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Source]:
    seg = _segments()
    em = np.full(SHAPE, 180, np.uint8)
    em[:, 19:21] = 40  # a membrane between the slabs
    volume = Volume(grid_of((8.0, 8.0, 40.0), OFFSET_NM), em, seg)
    opened = open_dataset_file(make_dataset(tmp_path_factory.mktemp("made") / "d", volume))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def made(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Served:
    return kept_served(source, tmp_path_factory.mktemp("cache"))


def _graph(made: Served) -> ChunkedGraph:
    volume = made.volume
    ids = NodeIds.for_chunks(volume.chunk_counts)
    return ChunkedGraph(ids, made.watershed, volume.chunk_vx.tolist(), volume.box.lo.tolist())


def test_each_supervoxel_is_part_of_one_segment_and_one_chunk(made: Served) -> None:
    volume, seg = made.volume, _segments()
    voxels = volume.read(volume.box)
    assert volume.box.lo.tolist() == [10, 20, 20]
    assert np.array_equal(voxels > 0, seg > 0)
    ids = NodeIds.for_chunks(volume.chunk_counts)
    for name in made.watershed.supervoxels.tolist():
        own = voxels == name
        assert len(np.unique(seg[own])) == 1
        chunks = np.unique(np.argwhere(own) // volume.chunk_vx, axis=0)
        assert chunks.tolist() == [list(ids.chunk(name))]
    assert set(np.unique(voxels).tolist()) - {0} == set(made.watershed.supervoxels.tolist())


def test_contacts_have_the_area_in_which_they_touch(made: Served) -> None:
    voxels = made.volume.read(made.volume.box)
    counted: dict[tuple[int, int], int] = {}
    for axis in range(3):
        a = voxels.take(range(SHAPE[axis] - 1), axis)
        b = voxels.take(range(1, SHAPE[axis]), axis)
        touch = (a != b) & (a > 0) & (b > 0)
        for pair in zip(a[touch].tolist(), b[touch].tolist(), strict=True):
            key = (min(pair), max(pair))
            counted[key] = counted.get(key, 0) + 1
    w = made.watershed
    named = [(min(p), max(p)) for p in w.supervoxels[w.pairs].tolist()]
    assert dict(zip(named, w.area.tolist(), strict=True)) == counted


def test_contacts_across_a_membrane_are_weak_and_off(made: Served) -> None:
    w, graph = made.watershed, _graph(made)
    assert w.on.any()
    assert not w.on.all()
    per_face = w.affinity / w.area
    assert per_face[~w.on].max() < per_face[w.on].min()
    parts = {graph.ancestor(int(v)) for v in w.supervoxels}
    # two slabs, and each half of the segment that is in two
    assert len(parts) == 4


def test_a_neck_ends_a_supervoxel() -> None:
    x, y, z = np.indices((60, 30, 30))
    seg = np.zeros((60, 30, 30), np.uint64)
    for at in (15, 45):
        seg[(x - at) ** 2 + (y - 15) ** 2 + (z - 15) ** 2 < 144] = 5
    seg[15:45, 13:17, 13:17] = 5
    found = pieces(seg, Resolution(10, 10, 10))
    assert found[15, 15, 15] != found[45, 15, 15]
    assert np.array_equal(found > 0, seg > 0)
    tube = np.zeros((60, 30, 30), np.uint64)
    tube[:, 10:20, 10:20] = 5
    assert pieces(tube, Resolution(10, 10, 10)).max() == 1


def test_a_second_start_takes_what_the_first_made(source: Source, tmp_path: Path) -> None:
    first = kept_served(source, tmp_path)
    (folder,) = tmp_path.iterdir()
    before = (folder / "watershed.npz").stat().st_mtime_ns
    second = kept_served(source, tmp_path)
    assert (folder / "watershed.npz").stat().st_mtime_ns == before
    assert _equal(first.watershed, second.watershed)
    box = Box(first.volume.box.lo, first.volume.box.lo + 10)
    assert np.array_equal(first.volume.read(box), second.volume.read(box))
    lo = PointVoxel(10, 20, 20)
    cut = source.cutout(BoxVx(lo, PointVoxel(20, 30, 30)))
    assert np.array_equal(cut.seg > 0, first.volume.read(box) > 0)


def _equal(a: Watershed, b: Watershed) -> bool:
    names = ("supervoxels", "pairs", "affinity", "area", "on")
    return all(np.array_equal(getattr(a, n), getattr(b, n)) for n in names)


def test_a_false_merge_is_cut_at_its_neck_and_joined_on(
    neurites_file: Path, tmp_path: Path
) -> None:
    opened = open_dataset_file(neurites_file)
    try:
        made = kept_served(opened, tmp_path)
    finally:
        opened.close()
    graph, volume = _graph(made), made.volume
    editor = Editor(graph)
    lower, upper, beyond = (
        Placed(int(volume.read(Box(at, at + 1))[0, 0, 0]), (48, 36, int(at[2])))
        for at in (np.array([48, 36, z]) for z in (22, 62, 90))
    )
    root = graph.ancestor(lower.supervoxel)
    assert root == graph.ancestor(upper.supervoxel) != graph.ancestor(beyond.supervoxel)
    cut = editor.split([lower], [upper], "1")
    assert set(cut.after) == {graph.ancestor(p.supervoxel) for p in (lower, upper)}
    voxels = volume.read(volume.box)
    below = np.isin(voxels, np.array(graph.below(graph.ancestor(lower.supervoxel)), np.uint64))
    z = np.nonzero(below)[2]
    # the balls end at z = 37 and begin at 47, the bridge is between them
    assert 37 <= z.max() <= 47
    joined = editor.merge(upper, beyond, "1")
    assert graph.ancestor(beyond.supervoxel) == graph.ancestor(upper.supervoxel)
    assert joined.after[0] != graph.ancestor(lower.supervoxel)
