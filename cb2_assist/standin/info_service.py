"""Info and auth services, and the graph's own description: what a client asks first."""

from __future__ import annotations

from typing import Any

from cb2_assist.standin.deployment import Account, Deployment
from cb2_assist.standin.meshes import DYNAMIC, FOLDER
from cb2_assist.standin.node_ids import LAYER_BITS
from cb2_assist.standin.web import Answer, Request, Route

_LOGIN = (
    b"<!doctype html><title>Stand-in login</title><p>This stand-in prints its token at start.\n"
)


def _version(_: Deployment, __: Request) -> Answer:
    return Answer("4.3.3")


def _datastacks(at: Deployment, _: Request) -> Answer:
    return Answer([at.names.datastack])


def _datastack(at: Deployment, request: Request) -> Answer:
    name = request.match["name"]
    if name != at.names.datastack:
        return _unknown(name, "datastack")
    viewer = at.viewer
    return Answer(
        {
            "aligned_volume": _image(at),
            "segmentation_source": f"graphene://{at.url}/segmentation/table/{at.names.table}",
            "local_server": at.url,
            "viewer_site": f"{at.url}/ng",
            "viewer_resolution_x": viewer.x,
            "viewer_resolution_y": viewer.y,
            "viewer_resolution_z": viewer.z,
            "description": "computed from a local volume",
            "synapse_table": None,
            "soma_table": None,
            "skeleton_source": None,
            "analysis_database": None,
            "cell_identification_table": None,
            "proofreading_status_table": None,
            "proofreading_review_table": None,
        }
    )


def _images(at: Deployment, _: Request) -> Answer:
    return Answer([at.names.aligned_volume])


def _image_by_name(at: Deployment, request: Request) -> Answer:
    name = request.match["name"]
    return Answer(_image(at)) if name == at.names.aligned_volume else _unknown(name, "volume")


def _image(at: Deployment) -> dict[str, Any]:
    return {
        "id": 1,
        "name": at.names.aligned_volume,
        "display_name": at.names.datastack,
        "description": "",
        "image_source": at.em,
    }


def _unknown(name: str, kind: str) -> Answer:
    error = {
        "error": "invalid_table_id",
        "message": "Invalid table_id for service",
        "data": {"table_id": name, "resource_namespace": kind},
    }
    return Answer(error, 400)


def _login_url(at: Deployment, _: Request) -> Answer:
    return Answer({"login_url": f"{at.url}/sticky_auth"})


def _login_page(_: Deployment, __: Request) -> Answer:
    return Answer(_LOGIN, content_type="text/html")


def _me(at: Deployment, request: Request) -> Answer:
    assert request.account is not None
    return Answer(_user(at, request.account))


def _users(at: Deployment, request: Request) -> Answer:
    wanted = set(request.query.get("id", "").split(","))
    return Answer([_user(at, a) for a in at.accounts if a.user_id in wanted])


def _user(at: Deployment, account: Account) -> dict[str, Any]:
    return {
        "id": int(account.user_id),
        "name": account.name,
        "email": f"user{account.user_id}@localhost",
        "pi": account.affiliation,
        "admin": False,
        "permissions_v2": {at.names.datastack: sorted(account.permissions)},
    }


def _graph_versions(_: Deployment, __: Request) -> Answer:
    return Answer([0, 1])


def _graph_version(_: Deployment, __: Request) -> Answer:
    return Answer("2.21.1")


def _graph_info(at: Deployment, request: Request) -> Answer:
    if request.match["table"] != at.names.table:
        return _unknown(request.match["table"], "pychunkedgraph")
    ids = at.graph.ids
    info: dict[str, Any] = {
        "type": "segmentation",
        "data_type": "uint64",
        "num_channels": 1,
        "scales": at.volume.scales(),
        "data_dir": at.data_dir,
        "chunks_start_at_voxel_offset": True,
        "graph": {
            "chunk_size": at.graph.chunk_vx.tolist(),
            "bounding_box": [2048, 2048, 512],  # the same in every real graph
            "n_bits_for_layer_id": LAYER_BITS,
            "cv_mip": 0,
            "n_layers": ids.layers,
            "spatial_bit_masks": {str(layer): bits for layer, bits in ids.bits.items()},
        },
        "app": {"supported_api_versions": [0, 1]},
        "sharded_mesh": True,
        "verify_mesh": False,
    }
    if at.meshes is not None:
        info["mesh"] = info["mesh_dir"] = FOLDER
        info["mesh_metadata"] = {
            "uniform_draco_grid_size": at.meshes.grid_nm,
            "unsharded_mesh_dir": DYNAMIC,
            "max_meshed_layer": 2,
        }
    return Answer(info)


ROUTES = (
    Route("/info/version", _version, permission=None),
    Route("/info/api/v2/datastacks", _datastacks),
    Route("/info/api/v2/datastack/full/(?P<name>[^/]+)", _datastack),
    Route("/info/api/v2/aligned_volume", _images),
    Route("/info/api/v2/aligned_volume/(?P<name>[^/]+)", _image_by_name),
    Route("(/[a-z]+)?/auth_info", _login_url, permission=None),
    Route("/sticky_auth/.*", _login_page, permission=None),
    Route("/auth/api/v1/user/me", _me),
    Route("/auth/api/v1/user", _users),
    Route("/segmentation/api/versions", _graph_versions),
    Route("/segmentation/api/version", _graph_version),
    Route("/segmentation/table/(?P<table>[^/]+)/info", _graph_info),
)
