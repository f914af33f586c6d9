"""Merges and cuts: what they turn, what they refuse and in which words, and the log of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cb2_assist.standin.edits import Editor, Placed
from cb2_assist.standin.errors import ApiError
from cb2_assist.standin.graph import ChunkedGraph
from cb2_assist.standin.mincut import cut_between
from cb2_assist.standin.node_ids import NodeIds
from cb2_assist.standin.served import Served

LEFT, RIGHT = (98, 70, 30), (102, 70, 30)


@pytest.fixture
def editor(served: Served) -> Editor:
    ids = NodeIds.for_chunks(served.volume.chunk_counts)
    graph = ChunkedGraph(ids, served.watershed, served.volume.chunk_vx.tolist())
    ticks = iter(range(1_700_000_000, 1_800_000_000))
    return Editor(graph, clock=lambda: float(next(ticks)))


@pytest.fixture
def ends(editor: Editor) -> tuple[Placed, Placed]:
    """Either side of the break in the first neurite."""
    base = editor.graph.ids.base(1, (1, 1, 1))
    return Placed(base | 1, LEFT), Placed(base | 2, RIGHT)


def _names(editor: Editor, *placed: Placed) -> list[int]:
    return [editor.graph.ancestor(p.supervoxel) for p in placed]


def test_a_merge_closes_every_contact_near_it(editor: Editor, ends: tuple[Placed, Placed]) -> None:
    done = editor.merge(*ends, user="7")
    assert len(done.switches) == 4
    assert done.pairs == ((ends[0].supervoxel, ends[1].supervoxel),)
    assert _names(editor, *ends) == [done.after[0]] * 2


def test_undo_and_redo_are_undone_and_redone_in_turn(
    editor: Editor, ends: tuple[Placed, Placed]
) -> None:
    merge = editor.merge(*ends, user="7")
    undo = editor.undo(merge.number, "7")
    assert undo is not None
    assert not undo.is_merge
    assert len(set(_names(editor, *ends))) == 2
    assert editor.undo(merge.number, "7") is None
    redo = editor.undo(undo.number, "7")  # to undo an undo is to redo
    assert redo is not None
    assert redo.redoes == merge.number
    assert len(set(_names(editor, *ends))) == 1
    assert editor.redo(merge.number, "7") is None
    again = editor.undo(redo.number, "7")
    assert again is not None
    assert again.undoes == merge.number
    assert [o.number for o in editor.operations.values()] == [1, 2, 3, 4]


def test_a_refused_edit_uses_up_its_number(editor: Editor, ends: tuple[Placed, Placed]) -> None:
    with pytest.raises(ApiError, match="same object"):
        editor.split([ends[0]], [ends[1]], "7")
    assert editor.merge(*ends, user="7").number == 2
    with pytest.raises(ApiError, match="different objects"):
        editor.merge(*ends, user="7")
    with pytest.raises(ApiError, match="operation type"):
        editor.undo(99, "7")
    cut = editor.split([ends[0]], [ends[1]], "7")
    assert cut.number == 4
    assert cut.at > editor.operations[2].at


def test_points_far_apart_are_not_merged(editor: Editor, ends: tuple[Placed, Placed]) -> None:
    graph = editor.graph
    ids = NodeIds.for_chunks((8, 1, 1))
    far = Placed(ids.base(1, (5, 1, 1)) | 1, RIGHT)
    with pytest.raises(ApiError, match="Chebyshev"):
        editor.merge(ends[0], far, "7")
    assert graph.ancestor(ends[0].supervoxel)
    assert not editor.operations


def test_things_without_a_contact_are_held_by_a_proofreaders_edge(
    editor: Editor, ends: tuple[Placed, Placed]
) -> None:
    other = Placed(editor.graph.ids.base(1, (1, 2, 1)) | 1, (70, 180, 30))
    done = editor.merge(ends[0], other, "7")
    edge = np.array([s.edge for s in done.switches])
    assert np.isinf(editor.graph.affinity(edge)).all()
    assert editor.graph.area(edge).tolist() == [0]
    with pytest.raises(ApiError, match="Failed to find a cut"):
        editor.split([ends[0]], [other], "7")


def test_edits_of_one_millisecond_keep_their_order(
    editor: Editor, ends: tuple[Placed, Placed]
) -> None:
    editor.clock = lambda: 1_700_000_000.0
    merge = editor.merge(*ends, user="7")
    cut = editor.split([ends[0]], [ends[1]], "7")
    assert cut.at > merge.at
    assert editor.graph.ancestor(ends[0].supervoxel, at=merge.at) == merge.after[0]


@pytest.mark.parametrize(("affinity", "removed"), [([0.9, 0.1, 0.9], [1]), ([0.2, 0.5, 0.9], [0])])
def test_the_weakest_place_is_cut(affinity: list[float], removed: list[int]) -> None:
    ends = np.array([[0, 1], [1, 2], [2, 3]])
    cut = cut_between(4, ends, np.array(affinity, np.float32), np.array([0]), np.array([3]))
    assert np.flatnonzero(cut.removed).tolist() == removed
    assert cut.clean


def test_points_of_one_side_stay_together() -> None:
    # a ring: without the way between them the sources would be torn apart
    ends = np.array([[0, 1], [1, 2], [2, 3], [3, 4], [4, 5], [5, 0]])
    weak = np.array([0.1, 0.1, 0.9, 0.9, 0.9, 0.9], np.float32)
    cut = cut_between(6, ends, weak, np.array([0, 2]), np.array([4]))
    assert cut.part[0] == cut.part[2] != cut.part[4]


def test_sides_that_cannot_be_told_apart_are_refused() -> None:
    ends = np.array([[0, 1], [1, 2]])
    sure = np.array([np.inf, np.inf], np.float32)
    with pytest.raises(ApiError, match="Failed to find a cut"):
        cut_between(3, ends, sure, np.array([0]), np.array([2]))
    with pytest.raises(ApiError, match="not connected"):
        cut_between(4, ends, sure, np.array([0]), np.array([3]))
    with pytest.raises(ApiError, match="both sink and source"):
        cut_between(3, ends, sure, np.array([0, 1]), np.array([1]))


@pytest.mark.shared
def test_a_real_split_problem_is_solved(shared_data: Path) -> None:
    with np.load(shared_data / "proofreading_edits" / "pcg_real_split_case.npz") as case:
        known = {k: case[k] for k in case.files}
    edges, affinity = known["edges"], known["affinity"].astype(np.float32)
    names, flat = np.unique(edges, return_inverse=True)
    ends = flat.reshape(-1, 2)
    sources, sinks = (np.searchsorted(names, known[k].ravel()) for k in ("sources", "sinks"))
    cut = cut_between(len(names), ends, affinity, sources, sinks)
    assert cut.clean
    assert len(set(cut.part[sources]) & set(cut.part[sinks])) == 0
    assert not np.isinf(affinity[cut.removed]).any()
    # no single edge less will do
    total = float(affinity[cut.removed].sum())
    assert 0 < total < float(affinity[np.isfinite(affinity)].sum()) / 10
