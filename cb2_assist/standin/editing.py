"""Chunkedgraph service: merge, split, preview, undo, redo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cb2_assist.standin.deployment import Deployment
from cb2_assist.standin.edits import Operation, Placed
from cb2_assist.standin.errors import bad_request
from cb2_assist.standin.lookups import TABLE
from cb2_assist.standin.web import Answer, Request, Route, whole_id


def _merge(at: Deployment, request: Request) -> Answer:
    points = _placed(at, request.json())
    if len(points) != 2:
        raise bad_request(f"a merge has two points, got {len(points)}")
    return _done(at.editor.merge(points[0], points[1], request.user))


def _split(at: Deployment, request: Request) -> Answer:
    sources, sinks = _sides(at, request)
    return _done(at.editor.split(sources, sinks, request.user))


def _preview(at: Deployment, request: Request) -> Answer:
    found = at.editor.preview(*_sides(at, request))
    return Answer(
        {
            "supervoxel_connected_components": [list(part) for part in found.parts],
            "illegal_split": found.illegal,
        }
    )


def _undo(at: Deployment, request: Request) -> Answer:
    return _done(at.editor.undo(_number(request), request.user))


def _redo(at: Deployment, request: Request) -> Answer:
    return _done(at.editor.redo(_number(request), request.user))


def _number(request: Request) -> int:
    body = request.json()
    if not isinstance(body, dict) or "operation_id" not in body:
        raise bad_request("the body lacks operation_id")
    return whole_id(body["operation_id"])


def _done(operation: Operation | None) -> Answer:
    if operation is None:
        return Answer({"operation_id": None, "new_root_ids": []})
    return Answer({"operation_id": operation.number, "new_root_ids": list(operation.after)})


def _sides(at: Deployment, request: Request) -> tuple[list[Placed], list[Placed]]:
    body = request.json()
    if not isinstance(body, dict) or not body.get("sources") or not body.get("sinks"):
        raise bad_request("the body lacks sources or sinks")
    return _placed(at, body["sources"]), _placed(at, body["sinks"])


def _placed(at: Deployment, rows: Sequence[Any]) -> list[Placed]:
    """Rows of a node and a point in nm, each brought to the supervoxel that it means.

    Raises:
        ApiError: A row is none, or has no supervoxel near its point.
    """
    out = []
    for row in rows:
        try:
            node, point = whole_id(row[0]), [float(v) for v in (row[1], row[2], row[3])]
        except (TypeError, ValueError, LookupError):
            raise bad_request(f"{row!r} is not a node with a point in nm") from None
        supervoxel = at.volume.supervoxel_near(at.graph, node, point)
        x, y, z = at.volume.voxel_of(np.array(point)).tolist()
        out.append(Placed(supervoxel, (x, y, z)))
    return out


ROUTES = (
    Route(f"{TABLE}/merge", _merge, ("POST",), "edit"),
    Route(f"{TABLE}/split", _split, ("POST",), "edit"),
    Route(f"{TABLE}/graph/split_preview", _preview, ("POST",)),
    Route(f"{TABLE}/undo", _undo, ("POST",), "edit"),
    Route(f"{TABLE}/redo", _redo, ("POST",), "edit"),
)
