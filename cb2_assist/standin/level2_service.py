"""L2cache service."""

from __future__ import annotations

from typing import Any

from cb2_assist.standin.deployment import Deployment
from cb2_assist.standin.level2 import ATTRIBUTES, attributes
from cb2_assist.standin.node_ids import LEVEL2
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
    out: dict[str, dict[str, Any]] = {}
    for node in request.ids("l2_ids"):
        # the same nodes are missing on every call
        missing = fault is not None and node * 2654435761 % 1000 < fault.share * 1000
        row = {} if missing else _row(at, node)
        out[str(node)] = {name: row[name] for name in names if name in row}
    return Answer(out)


def _row(at: Deployment, node: int) -> dict[str, Any]:
    if at.graph.ids.layer(node) != LEVEL2 or not at.graph.is_node(node):
        return {}
    found = at.rows.get(node)
    if found is None:
        found = at.rows[node] = attributes(at.graph, at.volume, node)
    return found


ROUTES = (
    Route(f"{_API}/table_mapping", _mapping),
    Route(f"{_API}/attribute_metadata", _metadata),
    Route(f"{_API}/table/(?P<table>[^/]+)/attributes", _attributes, ("POST",)),
)
