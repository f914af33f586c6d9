"""Chunkedgraph service: lineage, change logs, details of edits."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

from cb2_assist.standin.deployment import Deployment
from cb2_assist.standin.edits import REACH_VX, Operation
from cb2_assist.standin.errors import ApiError
from cb2_assist.standin.lineage import Row, id_maps, node_link, rows
from cb2_assist.standin.lookups import TABLE, utc_text
from cb2_assist.standin.web import BINARY, Answer, Request, Route

_ROOT = f"{TABLE}/root/(?P<root>[0-9]+)"
_BEFORE_FIRST_S = 0.5
"""The oldest time that the real server gives lies this far before the first edit."""


def _window(request: Request) -> tuple[float, float]:
    since, until = request.seconds("timestamp_past"), request.seconds("timestamp_future")
    return (-math.inf if since is None else since, math.inf if until is None else until)


def _lineage(at: Deployment, request: Request) -> Answer:
    return Answer(node_link(at.graph, request.ids("root_ids"), *_window(request)))


def _past_ids(at: Deployment, request: Request) -> Answer:
    backward, forward = id_maps(at.graph, request.ids("root_ids"), *_window(request))
    return Answer(
        {
            "past_id_map": {str(k): v for k, v in backward.items()},
            "future_id_map": {str(k): v for k, v in forward.items()},
        }
    )


def _delta_roots(at: Deployment, request: Request) -> Answer:
    since, until = _window(request)
    edits = [o for o in at.editor.operations.values() if since < o.at <= until]
    old = {r for o in edits for r in o.before}
    new = {r for o in edits for r in o.after}
    # what came and went within the window is neither
    return Answer({"old_roots": sorted(old - new), "new_roots": sorted(new - old)})


def _rows(at: Deployment, root: int, *, filtered: bool) -> list[Row]:
    if not at.graph.is_root(root):
        raise ApiError(400, f"[400]: {root} is not a root ID")
    return [r for r in rows(at.graph, at.editor, root) if r.is_relevant or not filtered]


def _table(at: Deployment, request: Request, root: int) -> dict[str, Any]:
    """A change log as pandas writes a frame."""
    filtered = request.is_set("filtered", default=True)
    found = _rows(at, root, filtered=filtered)

    def column(value: Callable[[Row], Any]) -> dict[str, Any]:
        return {str(r.index): value(r) for r in found}

    out = {
        "operation_id": column(lambda r: r.operation.number),
        "timestamp": column(lambda r: round(r.operation.at * 1000)),
        "user_id": column(lambda r: r.operation.user),
        "before_root_ids": column(lambda r: list(r.before)),
        "after_root_ids": column(lambda r: list(r.after)),
        "is_merge": column(lambda r: r.operation.is_merge),
    }
    if not filtered:
        out["in_neuron"] = column(lambda r: r.in_neuron)
        out["is_relevant"] = column(lambda r: r.is_relevant)
    if found:  # the real server adds the names to what there is
        out["user_name"] = column(lambda r: at.name_of(r.operation.user)[0])
        out["user_affiliation"] = column(lambda r: at.name_of(r.operation.user)[1])
    return out


def _tables(at: Deployment, request: Request) -> Answer:
    roots = request.ids("root_ids")
    return Answer({str(root): json.dumps(_table(at, request, root)) for root in roots})


def _one_table(at: Deployment, request: Request) -> Answer:
    table = _table(at, request, request.integer("root"))
    return Answer(json.dumps(table).encode(), content_type=BINARY)


def _change_log(at: Deployment, request: Request) -> Answer:
    filtered = request.is_set("filtered", default=True)
    found = _rows(at, request.integer("root"), filtered=filtered)
    users: dict[str, dict[str, int]] = {}
    for row in found:
        counts = users.setdefault(row.operation.user, {"n_mergers": 0, "n_splits": 0})
        counts["n_mergers" if row.operation.is_merge else "n_splits"] += 1
    merges = sum(r.operation.is_merge for r in found)
    return Answer(
        {
            "n_mergers": merges,
            "n_splits": len(found) - merges,
            "operations_ids": [r.operation.number for r in found],
            "past_ids": [b for r in found for b in r.before],
            "user_info": users,
        }
    )


def _merge_log(at: Deployment, request: Request) -> Answer:
    merges = [
        r.operation
        for r in _rows(at, request.integer("root"), filtered=True)
        if r.operation.is_merge and r.operation.undoes is None
    ]
    return Answer(
        {
            "merge_edges": [[list(p) for p in o.pairs] for o in merges],
            "merge_edge_coords": [[_voxels(o.sources), _voxels(o.sinks)] for o in merges],
        }
    )


def _last_edit(at: Deployment, request: Request) -> Answer:
    del at, request
    # broken in the real server
    raise ApiError(500, "'float' object has no attribute 'isoformat'")


def _details(at: Deployment, request: Request) -> Answer:
    try:
        numbers = [int(n) for n in json.loads(request.query.get("operation_ids", "[]"))]
    except (TypeError, ValueError) as e:
        raise ApiError(500, str(e)) from e
    known = at.editor.operations
    return Answer({str(n): _detail(known[n]) for n in numbers if n in known})


def _detail(o: Operation) -> dict[str, Any]:
    when = utc_text(o.at)
    out: dict[str, Any] = {
        "operation_exception": "",
        "operation_status": 0,
        "operation_ts": when,
        "timestamp": when,
        "user": o.user,
        "roots": list(o.after),
        "added_edges" if o.is_merge else "removed_edges": [list(p) for p in o.pairs],
    }
    if o.undoes is not None:
        return {**out, "undo_operation_id": o.undoes}
    if o.redoes is not None:
        return {**out, "redo_operation_id": o.redoes}
    out["source_coords"], out["sink_coords"] = _voxels(o.sources), _voxels(o.sinks)
    if not o.is_merge:
        out["source_ids"] = [p.supervoxel for p in o.sources]
        out["sink_ids"] = [p.supervoxel for p in o.sinks]
        out["bb_offset"] = list(REACH_VX)
    return out


def _voxels(points: Sequence[Any]) -> list[list[int]]:
    return [list(p.voxel) for p in points]


def _user_operations(at: Deployment, request: Request) -> Answer:
    times = []
    for name in ("start_time", "end_time"):
        value = request.seconds(name)
        if value is None:
            raise ApiError(400, f"[400]: Timestamp parameter {name} is not a valid unix timestamp")
        times.append(value)
    user = request.query.get("user_id", request.user)
    undone = {o.undoes for o in at.editor.operations.values()} - {None}
    found = [
        o for o in at.editor.operations.values() if o.user == user and times[0] <= o.at <= times[1]
    ]
    if not request.is_set("include_undo", default=True):
        found = [o for o in found if o.undoes is None and o.number not in undone]
    return Answer(
        {
            "operation_id": [o.number for o in found],
            "timestamp": [round(o.at * 1000) for o in found],
            "user_id": [o.user for o in found],
        }
    )


def _oldest(at: Deployment, _: Request) -> Answer:
    if not at.editor.operations:
        # so the real server answers before the first edit
        raise ApiError(500, "'NoneType' object has no attribute 'isoformat'")
    first = min(o.at for o in at.editor.operations.values())
    return Answer({"iso": utc_text(first - _BEFORE_FIRST_S)})


ROUTES = (
    Route(f"{TABLE}/lineage_graph_multiple", _lineage, ("POST",)),
    Route(f"{TABLE}/past_id_mapping", _past_ids, ("GET", "POST")),
    Route(f"{TABLE}/delta_roots", _delta_roots),
    Route(f"{TABLE}/tabular_change_log_many", _tables, ("GET", "POST")),
    Route(f"{_ROOT}/tabular_change_log", _one_table),
    Route(f"{_ROOT}/change_log", _change_log),
    Route(f"{_ROOT}/merge_log", _merge_log),
    Route(f"{_ROOT}/last_edit", _last_edit),
    Route(f"{TABLE}/operation_details", _details),
    Route(f"{TABLE}/user_operations", _user_operations),
    Route(f"{TABLE}/oldest_timestamp", _oldest),
)
