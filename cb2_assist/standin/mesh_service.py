"""Meshing service: which fragments make up an object."""

from __future__ import annotations

from cb2_assist.standin.deployment import Deployment
from cb2_assist.standin.node_ids import LEVEL2
from cb2_assist.standin.web import Answer, Request, Route

_TABLE = "/meshing/api/v1/table/(?P<table>[^/]+)"


def _manifest(at: Deployment, request: Request) -> Answer:
    node, box = request.integer("node"), request.box()
    meshes = at.meshes
    if meshes is None:
        return Answer({"fragments": [], "seg_ids": []})
    with at.lock:
        parts = at.graph.below(node, LEVEL2, box)
    fragments, owners = [], []
    for part in parts:
        if "late_meshes" in request.faults and not meshes.is_initial(part):
            continue
        size = len(meshes.fragment(part))
        if size == 0:
            continue
        initial = meshes.is_initial(part)
        name = f"~2/{meshes.shard(part)}:0:{size}" if initial else meshes.name(part)
        fragments.append(f"~{part}:{name}" if request.is_set("prepend_seg_ids") else name)
        owners.append(part)
    if request.is_set("return_seg_ids"):
        return Answer({"fragments": fragments, "seg_ids": owners})
    return Answer({"fragments": fragments})


def _remesh(_: Deployment, __: Request) -> Answer:
    # fragments are made when they are asked for
    return Answer(b"", 202)


ROUTES = (
    Route(f"{_TABLE}/manifest/(?P<node>[0-9]+):0", _manifest, free=True),
    Route(f"{_TABLE}/remeshing", _remesh, ("POST",), "edit"),
)
