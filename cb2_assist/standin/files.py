"""What lies below ``/data/``: the image, the supervoxels, the fragments of meshes. Open to all."""

from __future__ import annotations

import re

from cb2_assist.datasets.serving import resolve
from cb2_assist.standin.deployment import Deployment
from cb2_assist.standin.meshes import DYNAMIC, FOLDER, mesh_info
from cb2_assist.standin.node_ids import LEVEL2
from cb2_assist.standin.web import JSON, Answer, Request, Route

SUPERVOXELS = "ws"
"""Folder of the supervoxels below ``/data/``."""
_BYTES = "application/octet-stream"
_INITIAL = re.compile(r"initial/2/([0-9]+)-0\.shard")
_EDITED = re.compile(rf"(?:{DYNAMIC}/)?([0-9]+):0(?::[0-9_-]+)?")


def _file(at: Deployment, request: Request) -> Answer:
    folder, path = request.match["folder"], request.match["path"]
    if folder == SUPERVOXELS and path.startswith(f"{FOLDER}/"):
        return _fragment(at, path.removeprefix(f"{FOLDER}/"), request)
    root = at.folders.get(folder)
    found = resolve(root, path) if root is not None else None
    if found is None:
        return _missing()
    headers = {"Content-Encoding": found.content_encoding} if found.content_encoding else {}
    return Answer(found.path.read_bytes(), content_type=found.content_type, headers=headers)


def _fragment(at: Deployment, name: str, request: Request) -> Answer:
    if at.meshes is None:
        return _missing()
    if name == "info":
        return Answer(mesh_info(at.graph.chunk_vx.tolist(), at.graph.ids.layers), content_type=JSON)
    found = _INITIAL.fullmatch(name) or _EDITED.fullmatch(name)
    if found is None:
        return _missing()
    node = int(found[1])
    with at.lock:
        known = at.graph.ids.layer(node) == LEVEL2 and at.graph.is_node(node)
        if known and "late_meshes" in request.faults:
            known = at.meshes.is_initial(node)
    content = at.meshes.fragment(node) if known else b""
    if not content:
        return _missing()
    return _part(content, request)


def _part(content: bytes, request: Request) -> Answer:
    """The content, or the range of it that was asked for."""
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.range or "")
    if asked is None:
        return Answer(content, content_type=_BYTES, headers={"Accept-Ranges": "bytes"})
    first, last = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
    if first > last:
        return Answer(b"", 416, _BYTES, {"Content-Range": f"bytes */{len(content)}"})
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Range": f"bytes {first}-{last}/{len(content)}",
    }
    return Answer(content[first : last + 1], 206, _BYTES, headers)


def _missing() -> Answer:
    return Answer(b"", 404, "text/plain")


ROUTES = (
    Route(
        "/data/(?P<folder>[a-z]+)/(?P<path>.+)", _file, ("GET", "HEAD"), permission=None, free=True
    ),
)
