from __future__ import annotations

import json

from neuroglancer import viewer_base

from cb2_assist.core.geometry import PointNm, Resolution
from cb2_assist.datasets.source import ViewerLayers
from cb2_assist.viewer.scene import Scene, fill

LAYERS = ViewerLayers("fib/em", "fib/seg", Resolution(8.0, 8.0, 40.0))


def _state(origin: str = "http://127.0.0.1:8000") -> dict:
    viewer = viewer_base.UnsynchronizedViewerBase(token="t")
    fill(viewer, Scene(LAYERS, PointNm(80, 160, 400)), origin)
    return json.loads(json.dumps(viewer.state.to_json()))


def test_the_camera_starts_at_the_point_in_voxels() -> None:
    assert _state()["position"] == [10, 20, 10]


def test_both_panels_show_segments_and_markers() -> None:
    state = _state()
    panels = state["layout"]["children"]
    assert [p["layout"] for p in panels] == ["xy", "3d"]
    assert all({"segments", "suggestions", "cut sides"} <= set(p["layers"]) for p in panels)
    names = {layer["name"]: layer for layer in state["layers"]}
    assert names["segments"]["source"] == [
        {"url": "precomputed://http://127.0.0.1:8000/data/fib/seg"}
    ]


def test_markers_carry_what_the_shader_reads() -> None:
    layers = {layer["name"]: layer for layer in _state()["layers"]}
    for name in ("suggestions", "cut sides"):
        layer = layers[name]
        for prop in layer["annotationProperties"]:
            assert f"prop_{prop['id']}()" in layer["shader"]
