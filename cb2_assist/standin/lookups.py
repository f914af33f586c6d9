"""Chunkedgraph service: reading the graph at any time."""

from __future__ import annotations

import time
from collections import deque
from datetime import UTC, datetime

import numpy as np

from cb2_assist.standin.deployment import Deployment
from cb2_assist.standin.errors import ApiError, bad_request
from cb2_assist.standin.graph import Indices
from cb2_assist.standin.node_ids import LEVEL2
from cb2_assist.standin.web import Answer, Request, Route, packed, whole_id

TABLE = "/segmentation/api/v1/table/(?P<table>[^/]+)"
_NODE = f"{TABLE}/node/(?P<node>[0-9]+)"


def utc_text(at: float) -> str:
    """A time as the real server prints it, whole milliseconds."""
    return str(datetime.fromtimestamp(round(at * 1e6) // 1000 / 1000, UTC))


def _root(at: Deployment, request: Request) -> Answer:
    node, layer, when = request.integer("node"), request.layer(), request.seconds("timestamp")
    stop = layer or at.graph.ids.layers
    found = at.graph.ancestor(node, layer, when)
    if at.graph.ids.layer(found) < stop:
        now = when if when is not None else time.time()
        raise ApiError(500, f"Cannot find root id {node}, {stop}, {utc_text(now)}")
    return Answer({"root_id": found})


def _roots(at: Deployment, request: Request) -> Answer:
    return Answer({"root_ids": _ancestors(at, request, request.ids("node_ids"))})


def _roots_binary(at: Deployment, request: Request) -> Answer:
    asked = np.frombuffer(request.body, "<u8").tolist()
    return packed(_ancestors(at, request, asked))


def _ancestors(at: Deployment, request: Request, nodes: list[int]) -> list[int]:
    layer, when = request.layer(), request.seconds("timestamp")
    return [at.graph.ancestor(node, layer, when) for node in nodes]


def _leaves(at: Deployment, request: Request) -> Answer:
    found = at.graph.below(request.integer("node"), request.layer() or 1, request.box())
    return Answer({"leaf_ids": found})


def _leaves_many(at: Deployment, request: Request) -> Answer:
    layer, box = request.layer() or 1, request.box()
    return Answer({str(n): at.graph.below(n, layer, box) for n in request.ids("node_ids")})


def _children(at: Deployment, request: Request) -> Answer:
    return Answer({"children_ids": list(at.graph.children(request.integer("node")))})


def _level2_graph(at: Deployment, request: Request) -> Answer:
    node, box = request.integer("node"), request.box()
    when = at.graph.created(node) if at.graph.children(node) else None
    members = at.graph.members(node, box)
    edges = at.graph.edges_within(members, when)
    # the parts as they were when the node was new: it never changes
    of = {int(m): at.graph.ancestor(int(at.graph.supervoxels[m]), LEVEL2, when) for m in members}
    pairs = [(of[a], of[b]) for a, b in at.graph.pairs(edges).tolist()]
    links = sorted({(min(p), max(p)) for p in pairs if p[0] != p[1]})
    return Answer(
        {"edge_graph": [list(p) for p in links]},
        headers={"Used-Bounds": str(box is not None)},
    )


def _subgraph(at: Deployment, request: Request) -> Answer:
    members = at.graph.members(request.integer("node"), request.box())
    inner = at.graph.edges_within(members, only_on=False)
    pairs = at.graph.pairs(inner)
    edges = np.concatenate([inner, inner])
    ends = np.concatenate([pairs, pairs[:, ::-1]])
    if not request.is_set("only_internal_edges", default=True):
        outer = at.graph.edges_out_of(members)
        edges = np.concatenate([edges, outer])
        ends = np.concatenate([ends, _own_first(at.graph.pairs(outer), members)])
    return Answer(
        {
            "nodes": at.graph.supervoxels[ends].tolist(),
            "affinities": at.graph.affinity(edges).tolist(),
            "areas": at.graph.area(edges).tolist(),
        }
    )


def _own_first(pairs: Indices, members: Indices) -> Indices:
    own = np.isin(pairs[:, 0], members)
    return np.where(own[:, None], pairs, pairs[:, ::-1])


def _is_latest(at: Deployment, request: Request) -> Answer:
    when = request.seconds("timestamp")
    return Answer({"is_latest": [_latest(at, n, when) for n in request.ids("node_ids")]})


def _latest(at: Deployment, node: int, when: float | None) -> bool:
    if not at.graph.is_root(node):
        return False
    ended = at.graph.history(node).ended
    if when is None:
        return ended is None
    return at.graph.created(node) <= when and (ended is None or ended > when)


def _valid_nodes(at: Deployment, request: Request) -> Answer:
    first, last = request.seconds("start_timestamp"), request.seconds("end_timestamp")
    out = []
    for node in request.ids("node_ids"):
        if not at.graph.is_root(node):
            continue
        made, ended = at.graph.created(node), at.graph.history(node).ended
        early = first is not None and ended is not None and ended < first
        if not early and (last is None or made <= last):
            out.append(node)
    return Answer({"valid_roots": out})


def _root_timestamps(at: Deployment, request: Request) -> Answer:
    latest, when = request.is_set("latest"), request.seconds("timestamp")
    now = when if when is not None else time.time()
    out = []
    for node in request.ids("node_ids"):
        # ids that are no roots are left out, which shifts the rest: so does the real server
        if not at.graph.is_root(node):
            continue
        ended = at.graph.history(node).ended
        still = ended is None or ended > now
        out.append((now if still else ended) if latest else at.graph.created(node))
    return Answer({"timestamp": out})


def _chunk_parts(at: Deployment, request: Request) -> Answer:
    node = request.integer("node")
    parts = at.graph.nodes_in_chunk(at.graph.ids.chunk(node))
    if request.is_set("as_array"):
        return packed(
            v for part in parts for child in at.graph.children(part) for v in (part, child)
        )
    return Answer({str(part): list(at.graph.children(part)) for part in parts})


def _covering_nodes(at: Deployment, request: Request) -> Answer:
    graph = at.graph
    level: set[int] = set(request.ids("node_ids"))
    done: list[int] = []
    for layer in range(LEVEL2, graph.ids.layers):
        here = {n for n in level if graph.ids.layer(n) <= layer}
        above = {p for n in here if (p := graph.parent(n)) is not None}
        whole = {p for p in above if set(graph.children(p)) <= level}
        covered = {c for p in whole for c in graph.children(p)}
        done += sorted(here - covered)
        level = (level - here) | whole
    if not done:
        # as observed where the nodes make up a whole object
        raise ApiError(500, "need at least one array to concatenate")
    return packed(done)


def _find_path(at: Deployment, request: Request) -> Answer:
    graph = at.graph
    ends = [at.volume.supervoxel_near(graph, whole_id(row[0]), row[1:4]) for row in request.json()]
    members = graph.members(graph.ancestor(ends[0]))
    of = {int(m): graph.ancestor(int(graph.supervoxels[m]), LEVEL2) for m in members}
    beside: dict[int, set[int]] = {part: set() for part in of.values()}
    for a, b in graph.pairs(graph.edges_within(members)).tolist():
        beside[of[a]].add(of[b])
        beside[of[b]].add(of[a])
    path = _shortest_path(beside, *(graph.ancestor(v, LEVEL2) for v in ends))
    edge_nm = np.array(list(at.volume.resolution))
    boxes = [graph.corner(n) for n in path]
    return Answer(
        {
            "centroids_list": [((b.lo + b.hi) / 2 * edge_nm).tolist() for b in boxes],
            "failed_l2_ids": [],
            "l2_path": path,
        }
    )


def _shortest_path(beside: dict[int, set[int]], start: int, end: int) -> list[int]:
    """A way of fewest steps, breadth first.

    Raises:
        ApiError: There is none.
    """
    before = {start: start}
    waiting = deque([start])
    while waiting and end not in before:
        here = waiting.popleft()
        for there in sorted(beside[here] - before.keys()):
            before[there] = here
            waiting.append(there)
    if end not in before:
        raise bad_request("The points are not of one object.")
    path = [end]
    while path[-1] != start:
        path.append(before[path[-1]])
    return path[::-1]


def _contact_sites(_: Deployment, __: Request) -> Answer:
    # broken in the real server
    raise ApiError(
        500,
        "ChunkedGraph.get_subgraph_edges() got an unexpected keyword argument 'connected_edges'",
    )


def _roots_from_coordinates(_: Deployment, __: Request) -> Answer:
    # broken in the real server
    raise ApiError(
        500,
        "module 'pychunkedgraph.app.segmentation.common' has no attribute "
        "'handle_roots_from_coord'",
    )


ROUTES = (
    Route(f"{_NODE}/root", _root),
    Route(f"{TABLE}/roots", _roots, ("POST",)),
    Route(f"{TABLE}/roots_binary", _roots_binary, ("POST",)),
    Route(f"{_NODE}/leaves", _leaves),
    Route(f"{TABLE}/(node/)?leaves_many", _leaves_many, ("POST",)),
    Route(f"{_NODE}/children", _children),
    Route(f"{_NODE}/lvl2_graph", _level2_graph),
    Route(f"{_NODE}/subgraph", _subgraph),
    Route(f"{_NODE}/contact_sites", _contact_sites),
    Route(f"{TABLE}/roots_from_coords", _roots_from_coordinates, ("POST",)),
    Route(f"{TABLE}/is_latest_roots", _is_latest, ("POST",)),
    Route(f"{TABLE}/valid_nodes", _valid_nodes, ("GET", "POST")),
    Route(f"{TABLE}/root_timestamps", _root_timestamps, ("POST",)),
    Route(f"{TABLE}/l2_chunk_children(_binary)?/(?P<node>[0-9]+)", _chunk_parts),
    Route(f"{TABLE}/minimal_covering_nodes", _covering_nodes, ("POST",)),
    Route(f"{TABLE}/graph/find_path", _find_path, ("POST",)),
)
