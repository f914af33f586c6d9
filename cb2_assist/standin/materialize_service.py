"""Materialize service: one version with one table, a point in each of the largest objects."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

from cb2_assist.standin.deployment import Deployment
from cb2_assist.standin.errors import ApiError, bad_request
from cb2_assist.standin.graph import FIRST_TIME, Box
from cb2_assist.standin.level2 import attributes
from cb2_assist.standin.node_ids import LEVEL2
from cb2_assist.standin.web import Answer, Request, Route

TABLE = "largest_objects"
_MOST_ROWS = 100
_VERSION = 1
_FROZEN = FIRST_TIME + 0.5
_API = "/materialize/api/v[23]/datastack/(?P<stack>[^/]+)"
_AT = rf"{_API}/version/(?P<version>\d+)"
_TYPE = "data.arrow"

Row = dict[str, Any]
_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "filter_equal_dict": operator.eq,
    "filter_greater_dict": operator.gt,
    "filter_greater_equal_dict": operator.ge,
    "filter_less_dict": operator.lt,
    "filter_less_equal_dict": operator.le,
    "filter_in_dict": lambda value, wanted: value in wanted,
    "filter_notin_dict": lambda value, refused: value not in refused,
}


def _frozen_text() -> str:
    # clients demand a fraction of a second
    return f"{datetime.fromtimestamp(_FROZEN, UTC):%Y-%m-%dT%H:%M:%S.%f}"


def _version_document(at: Deployment) -> dict[str, Any]:
    return {
        "id": 1,
        "version": _VERSION,
        "datastack": at.names.datastack,
        "time_stamp": _frozen_text(),
        "expires_on": "2121-01-01T00:00:00.000001",
        "valid": True,
        "status": "AVAILABLE",
        "is_merged": True,
    }


def _check(at: Deployment, request: Request) -> None:
    stack, version = request.match["stack"], request.match.get("version", str(_VERSION))
    if stack != at.names.datastack or version != str(_VERSION):
        raise ApiError(404, f"no version {version} of {stack}; there is version {_VERSION}")
    if request.match.get("name", TABLE) != TABLE:
        raise ApiError(404, f"no table {request.match['name']}; there is {TABLE}")


def _api_versions(_: Deployment, __: Request) -> Answer:
    return Answer([2, 3])


def _server_version(_: Deployment, __: Request) -> Answer:
    return Answer("5.13.2")


def _versions(at: Deployment, request: Request) -> Answer:
    _check(at, request)
    return Answer([_VERSION])


def _version(at: Deployment, request: Request) -> Answer:
    _check(at, request)
    return Answer(_version_document(at))


def _metadata(at: Deployment, request: Request) -> Answer:
    _check(at, request)
    return Answer([_version_document(at)])


def _tables(at: Deployment, request: Request) -> Answer:
    _check(at, request)
    return Answer([TABLE])


def _count(at: Deployment, request: Request) -> Answer:
    _check(at, request)
    return Answer(len(_rows(at)))


def _table(at: Deployment, request: Request) -> Answer:
    _check(at, request)
    return Answer(_table_document(at))


def _all_tables(at: Deployment, request: Request) -> Answer:
    _check(at, request)
    return Answer([_table_document(at)])


def _table_document(at: Deployment) -> dict[str, Any]:
    voxel = dict(zip("xyz", at.viewer, strict=True))
    return {
        "table_name": TABLE,
        "annotation_table": TABLE,
        "schema": "bound_tag",
        "schema_type": "bound_tag",
        "valid": True,
        "created": _frozen_text(),
        "aligned_volume": at.names.aligned_volume,
        "description": f"The {_MOST_ROWS} objects of most supervoxels, a point in each",
        "reference_table": None,
        "flat_segmentation_source": None,
        "notice_text": None,
        **{f"voxel_resolution_{axis}": size for axis, size in voxel.items()},
        "voxel_resolution": list(at.viewer),
    }


def _query(at: Deployment, request: Request) -> Answer:
    _check(at, request)
    asked = request.json()
    if not isinstance(asked, dict):
        raise bad_request("a query is an object")
    found = [row for row in _rows(at) if _passes(row, asked)]
    first = int(asked.get("offset") or 0)
    last = first + int(asked["limit"]) if asked.get("limit") else None
    columns = asked.get("select_columns") or list(_COLUMNS)
    return Answer(_arrow(found[first:last], columns), content_type=_TYPE)


def _passes(row: Row, asked: Mapping[str, Any]) -> bool:
    for key, compare in _COMPARE.items():
        for name, value in (asked.get(key) or {}).get(TABLE, {}).items():
            if name not in row:
                raise bad_request(f"{TABLE} has no column {name}")
            if not compare(row[name], value):
                return False
    return True


_COLUMNS = (
    "id",
    "valid",
    "tag",
    "pt_supervoxel_id",
    "pt_root_id",
    "pt_position_x",
    "pt_position_y",
    "pt_position_z",
)


def _arrow(rows: list[Row], columns: list[str]) -> bytes:
    import pyarrow as pa

    wanted = [c for c in _COLUMNS if c in columns or c.rpartition("_")[0] in columns]
    table = pa.table({c: [row[c] for row in rows] for c in wanted})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def _rows(at: Deployment) -> list[Row]:
    if at.table_rows is None:
        graph = at.graph
        roots, counts = np.unique(
            [graph.ancestor(int(v), at=_FROZEN) for v in graph.supervoxels], return_counts=True
        )
        order = np.argsort(-counts, kind="stable")[:_MOST_ROWS]
        at.table_rows = [
            _row(at, number, int(roots[k]), int(counts[k])) for number, k in enumerate(order, 1)
        ]
    return at.table_rows


def _row(at: Deployment, number: int, root: int, supervoxels: int) -> Row:
    part = at.graph.below(root, LEVEL2)[0]
    point = np.array(attributes(at.graph, at.volume, part)["rep_coord_nm"], np.float64)
    voxel = at.volume.voxel_of(point)
    x, y, z = (point / np.array(list(at.viewer))).astype(int).tolist()
    return {
        "id": number,
        "valid": True,
        "tag": f"{supervoxels} supervoxels",
        "pt_supervoxel_id": int(at.volume.read(Box(voxel, voxel + 1))[0, 0, 0]),
        "pt_root_id": root,
        "pt_position_x": x,
        "pt_position_y": y,
        "pt_position_z": z,
    }


ROUTES = (
    Route("/materialize/api/versions", _api_versions),
    Route("/materialize/version", _server_version),
    Route(f"{_API}/versions", _versions),
    Route(f"{_API}/metadata", _metadata),
    Route(_AT, _version),
    Route(f"{_AT}/tables", _tables),
    Route(f"{_AT}/tables/metadata", _all_tables),
    Route(f"{_AT}/table/(?P<name>[^/]+)/metadata", _table),
    Route(f"{_AT}/table/(?P<name>[^/]+)/count", _count),
    Route(f"{_AT}/table/(?P<name>[^/]+)/query", _query, ("POST",)),
)
