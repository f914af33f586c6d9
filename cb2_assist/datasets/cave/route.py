"""The graph for the viewer, through our own port: the token is added here and never leaves Python.

Neuroglancer could log in by itself, but then every page that is let in could read the token, and it
opens a window for it. What it asks goes to one graph of one server, and only what reads: edits are
refused, whatever tool of the viewer asks for them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from cb2_assist.core.errors import AssistError
from cb2_assist.core.geometry import BoxVx
from cb2_assist.core.records import SegmentId
from cb2_assist.datasets.cave.connection import Connection, bounds_text

_READING_POSTS = (
    "is_latest_roots",
    "leaves_many",
    "roots",
    "root_timestamps",
    "graph/find_path",
    "graph/split_preview",
)
_MOST_BODY = 1 << 22


@dataclass(frozen=True, slots=True)
class RouteAnswer:
    """What the viewer gets."""

    status: int
    content_type: str
    body: bytes


class GraphRoute:
    """Answers the viewer's questions about one graph. Blocks; safe to use from several threads.

    Args:
        connection: An open one.
        pinned: The state that is kept, or None for the present one.
        drawn: Where the surface of an object is drawn, in voxels of the finest scale; None is
            everywhere.
    """

    PREFIX = "graph"
    """First part of the path on our port."""

    def __init__(
        self,
        connection: Connection,
        pinned: datetime | None,
        drawn: Callable[[SegmentId], BoxVx | None] = lambda _segment: None,
    ) -> None:
        self._connection, self._pinned, self._drawn = connection, pinned, drawn
        table = re.escape(connection.table)
        self._info = re.compile(rf"segmentation/table/{table}/info")
        self._graph = re.compile(rf"segmentation/api/v1/table/{table}/([\w./-]+)")
        self._mesh = re.compile(rf"meshing/api/v1/table/{table}/manifest/(\d{{1,20}}):\d+")

    def answer(
        self, method: str, path: str, query: Mapping[str, str], body: bytes = b""
    ) -> RouteAnswer:
        """Ask the server.

        Args:
            method: GET or POST.
            path: Behind the prefix, percent-decoded.
            query: What stands behind ``?``.
            body: Of a POST.
        """
        why = self._refusal(method, path, body)
        if why:
            return _told(403, why)
        asked = dict(query)
        if self._pinned is not None and path.endswith("/root"):
            asked.setdefault("timestamp", str(self._pinned.timestamp()))
        try:
            if (mesh := self._mesh.fullmatch(path)) and "bounds" not in asked:
                # a neuron has more fragments than a page can hold
                box = self._drawn(SegmentId(int(mesh[1])))
                if box is not None:
                    asked["bounds"] = bounds_text(box)
            got = self._connection.session.request(
                method, f"{self._connection.local}/{path}", params=asked, data=body or None
            )
        except AssistError as e:
            return _told(e.http_status, str(e))
        kind = got.headers.get("Content-Type", "application/octet-stream")
        return RouteAnswer(got.status_code, kind, got.content)

    def _refusal(self, method: str, path: str, body: bytes) -> str:
        if ".." in path or len(body) > _MOST_BODY:
            return "This address is none of the graph's."
        if method == "GET" and (self._info.fullmatch(path) or self._mesh.fullmatch(path)):
            return ""
        part = self._graph.fullmatch(path)
        if part is None:
            return "This address is none of the graph's."
        if method == "GET" or (method == "POST" and part[1] in _READING_POSTS):
            return ""
        return (
            "cb2-assist sends no edits from the viewer's own tools. Decide with f and d; your "
            "answers are kept as labels."
        )


def _told(status: int, message: str) -> RouteAnswer:
    return RouteAnswer(status, "application/json", json.dumps({"message": message}).encode())
