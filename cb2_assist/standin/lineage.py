"""What became of an object and what it came from: pure reading of the graph and the edit log."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cb2_assist.standin.edits import Editor, Operation
from cb2_assist.standin.graph import ChunkedGraph


@dataclass(frozen=True, slots=True)
class Row:
    """One edit in the history of an object.

    Attributes:
        index: Place among all edits of the object's past.
        before: Roots of the past that it retired.
        after: Roots of the past, or the object itself, that it made.
        in_neuron: Whether any of its supervoxels is in the object.
        is_relevant: Whether it still shows: both sides of a merge or one of a split are in it.
    """

    index: int
    operation: Operation
    before: tuple[int, ...]
    after: tuple[int, ...]
    in_neuron: bool
    is_relevant: bool


def past(graph: ChunkedGraph, roots: Iterable[int], since: float = -math.inf) -> set[int]:
    """Roots and everything they came from by edits after a time, themselves included."""
    found: set[int] = set()
    waiting = [r for r in roots if graph.is_root(r)]
    while waiting:
        root = waiting.pop()
        if root in found:
            continue
        found.add(root)
        if graph.created(root) > since:
            waiting += graph.history(root).former
    return found


def future(graph: ChunkedGraph, roots: Iterable[int], until: float = math.inf) -> set[int]:
    """Roots and everything that came from them by edits up to a time, themselves included."""
    found: set[int] = set()
    waiting = [r for r in roots if graph.is_root(r)]
    while waiting:
        root = waiting.pop()
        if root in found:
            continue
        found.add(root)
        ended = graph.history(root).ended
        if ended is not None and ended <= until:
            waiting += graph.history(root).next
    return found


def node_link(
    graph: ChunkedGraph, roots: Iterable[int], since: float = -math.inf, until: float = math.inf
) -> dict[str, Any]:
    """The graph of former and later roots, as networkx writes it."""
    asked = list(roots)
    before, after = past(graph, asked, since), future(graph, asked, until)
    # from a node of the past only upwards and from one of the future only downwards: siblings that
    # went another way are not part of it
    links = {(f, r) for r in before for f in graph.history(r).former if f in before}
    links |= {(r, n) for r in after for n in graph.history(r).next if n in after}
    nodes = []
    for root in sorted(before | after):
        node: dict[str, Any] = {"id": root, "timestamp": graph.created(root)}
        retired_by = graph.history(root).retired_by
        if retired_by is not None:
            node["operation_id"] = retired_by
        nodes.append(node)
    return {
        "directed": True,
        "multigraph": False,
        "graph": {},
        "nodes": nodes,
        "links": [{"source": a, "target": b} for a, b in sorted(links)],
    }


def rows(graph: ChunkedGraph, editor: Editor, root: int) -> list[Row]:
    """Every edit in the past of an object, oldest first."""
    family = past(graph, [root])
    numbers = sorted({graph.history(r).operation for r in family} - {0})
    at = graph.created(root)
    out = []
    for index, number in enumerate(numbers):
        operation = editor.operations[number]
        inside = [graph.ancestor(v, at=at) == root for v in operation.ends]
        out.append(
            Row(
                index=index,
                operation=operation,
                before=tuple(r for r in operation.before if r in family),
                after=tuple(r for r in operation.after if r in family),
                in_neuron=any(inside),
                is_relevant=all(inside) if operation.is_merge else any(inside),
            )
        )
    return out


def id_maps(
    graph: ChunkedGraph, roots: Iterable[int], since: float, until: float
) -> tuple[dict[int, list[int]], dict[int, int]]:
    """Roots of an earlier time for each given one, and what each of those is at a later time.

    Past roots that became several by then are left out of the second.
    """
    backward: dict[int, list[int]] = {}
    forward: dict[int, int] = {}
    for root in roots:
        if not graph.is_root(root):
            continue
        family = past(graph, [root], since)
        ends = [r for r in family if graph.created(r) <= since or not graph.history(r).former]
        backward[root] = sorted(ends)
        for end in ends:
            later = future(graph, [end], until)
            last = [r for r in later if not set(graph.history(r).next) & later]
            if len(last) == 1:
                forward[end] = last[0]
    return backward, forward
