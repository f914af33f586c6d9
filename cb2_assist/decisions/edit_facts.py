"""What follows from one edit as it is stored, and how it is told."""

from __future__ import annotations

from collections.abc import Iterable

from cb2_assist.core.edits import Anchors, EditKind, EditRecord
from cb2_assist.core.records import SegmentId


def words_of(record: EditRecord) -> str:
    """An edit in a few words."""
    edit = record.edit
    a = f"…{str(edit.segment)[-6:]}"
    if edit.kind in (EditKind.UNDO, EditKind.REDO):
        number = "" if edit.operation is None else f" of operation {edit.operation}"
        return f"{edit.kind.value}{number}"
    if edit.partner is None or edit.kind is EditKind.CUT:
        return f"cut of {a}"
    return f"join of {a} with …{str(edit.partner)[-6:]}"


def held(record: EditRecord) -> Anchors:
    """Where an edit takes hold; empty before that was found out."""
    return record.anchors or ((), ())


def nodes(anchors: Anchors) -> tuple[SegmentId, ...]:
    """The supervoxels of both sides, in order."""
    return tuple(a.supervoxel for side in anchors for a in side)


def is_so(record: EditRecord, roots: tuple[SegmentId, ...]) -> bool:
    """Whether the graph is as a join, cut or redone join would make it."""
    n = len(held(record)[0])
    left, right = set(roots[:n]), set(roots[n:])
    if record.edit.kind in (EditKind.JOIN, EditKind.REDO):
        return len(left | right) == 1
    return record.edit.kind is EditKind.CUT and not left & right


def names(roots: Iterable[SegmentId]) -> str:
    """Objects by the ends of their ids."""
    return " and ".join(f"…{str(r)[-6:]}" for r in dict.fromkeys(roots))
