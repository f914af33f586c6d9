"""L2cache service."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cb2_assist.standin.deployment import Deployment
from cb2_assist.standin.level2 import ATTRIBUTES, rows_of_chunk
from cb2_assist.standin.node_ids import LEVEL2, Chunk
from cb2_assist.standin.web import Answer, Request, Route

_API = "/l2cache/api/v1"


def _mapping(at: Deployment, _: Request) -> Answer:
    return Answer({at.names.table: {"l2cache_id": at.names.table, "cv_path": at.data_dir}})


def _metadata(_: Deployment, __: Request) -> Answer:
    return Answer({name: {"dtype": dtype} for name, dtype in ATTRIBUTES.items()})


def _attributes(at: Deployment, request: Request) -> Answer:
    wanted = request.query.get("attribute_names", "")
    names = wanted.split(",") if wanted else list(ATTRIBUTES)
    fault = request.faults.get("missing_rows")
    asked = request.ids("l2_ids")
    rows = _rows(at, asked)
    out: dict[str, dict[str, Any]] = {}
    for node in asked:
        # the same nodes are missing on every call
        missing = fault is not None and node * 2654435761 % 1000 < fault.share * 1000
        row = {} if missing else rows.get(node, {})
        out[str(node)] = {name: row[name] for name in names if name in row}
    return Answer(out)


def _rows(at: Deployment, nodes: Iterable[int]) -> dict[int, dict[str, Any]]:
    """What is known of nodes; worked out when it is asked for first, chunk by chunk."""
    new: dict[Chunk, list[int]] = {}
    with at.lock:
        known = {node: at.rows[node] for node in nodes if node in at.rows}
        for node in nodes:
            if node in known or at.graph.ids.layer(node) != LEVEL2 or not at.graph.is_node(node):
                continue
            new.setdefault(at.graph.ids.chunk(node), []).append(node)
    for together in new.values():
        # others are answered in between
        with at.lock:
            made = rows_of_chunk(at.graph, at.volume, together)
            at.rows.update(made)
        known.update(made)
    return known


ROUTES = (
    Route(f"{_API}/table_mapping", _mapping),
    Route(f"{_API}/attribute_metadata", _metadata),
    Route(f"{_API}/table/(?P<table>[^/]+)/attributes", _attributes, ("POST",), free=True),
)
