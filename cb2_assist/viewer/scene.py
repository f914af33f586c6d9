"""The viewer's state at its first frame: layers, layout, camera.

It is set once, before a browser attaches. Afterwards the page changes the scene in the client
(`static/js/viewer.js`): a transaction from Python would rebuild every layer and drop what the page
has drawn and where the person has moved.
"""

from __future__ import annotations

from dataclasses import dataclass

import neuroglancer
from neuroglancer import viewer_base

from cb2_assist.core.geometry import PointNm, Resolution
from cb2_assist.datasets.serving import source_url
from cb2_assist.datasets.source import ViewerLayers

EM_LAYER = "em"
SEGMENT_LAYER = "segments"
MARKER_LAYER = "suggestions"
SIDES_LAYER = "cut sides"
"""Names that the page looks layers up by."""

# Confidence runs from violet over rose to yellow, lighter as it grows, so that it reads without
# colour as well; grey stands for "not reliable here".
MARKER_SHADER = """
vec3 ramp(float c) {
  vec3 low = vec3(0.45, 0.36, 0.80), middle = vec3(0.90, 0.38, 0.55), high = vec3(1.0, 0.93, 0.35);
  return c < 0.5 ? mix(low, middle, c * 2.0) : mix(middle, high, c * 2.0 - 1.0);
}
void main() {
  float conf = clamp(prop_conf(), 0.0, 1.0);
  bool current = prop_current() == 1u;
  // the tissue under the current marker is what the verdict is about, so it shines through
  float alpha = current ? 0.35 : prop_decided() == 1u ? 0.3 : 1.0;
  vec3 colour = prop_unreliable() == 1u ? vec3(0.65) : ramp(conf);
  setColor(vec4(colour, alpha));
  setPointMarkerSize(7.0 + 10.0 * conf + (current ? 5.0 : 0.0));
  setPointMarkerBorderWidth(current ? 2.5 : 1.0);
  setPointMarkerBorderColor(current ? vec4(1.0, 1.0, 1.0, 1.0) : vec4(0.0, 0.0, 0.0, alpha));
}
"""

SIDES_SHADER = """
void main() {
  setColor(vec4(prop_side() == 1u ? vec3(0.118, 0.565, 1.0) : vec3(1.0, 0.549, 0.0), 1.0));
  setPointMarkerSize(5.0);
  setPointMarkerBorderWidth(0.0);
}
"""


@dataclass(frozen=True, slots=True)
class Scene:
    """What to show.

    Attributes:
        at: Where the camera starts.
        extent_nm: What the 3-D panel shows across at first.
    """

    layers: ViewerLayers
    at: PointNm
    extent_nm: float = 3000.0


def fill(viewer: viewer_base.ViewerBase, scene: Scene, origin: str) -> None:
    """Put the scene into a viewer that no browser has seen yet."""
    with viewer.txn() as state:
        _describe(state, scene, origin)
    with viewer.config_state.txn() as config:
        config.show_layer_panel = False
        config.show_help_button = False
        config.show_settings_button = False
        config.show_screenshot_button = False
        config.show_tool_palette_button = False
        config.show_layer_list_panel_button = False
        config.show_layer_side_panel_button = False
        config.show_selection_panel_button = False


def _describe(state: neuroglancer.ViewerState, scene: Scene, origin: str) -> None:
    layers, dimensions = scene.layers, _dimensions(scene.layers.resolution)
    finest = scene.layers.resolution.finest
    state.dimensions = dimensions
    state.position = [v / r for v, r in zip(scene.at, layers.resolution, strict=True)]
    state.cross_section_scale = scene.extent_nm / finest / 700  # fits a panel of about 700 px
    state.projection_scale = scene.extent_nm / finest
    state.projection_orientation = [0.25, 0.35, 0.05, 0.9]
    state.show_slices = False
    state.show_axis_lines = False
    state.show_default_annotations = False
    state.layers[EM_LAYER] = neuroglancer.ImageLayer(source=source_url(layers.em, origin))
    state.layers[SEGMENT_LAYER] = neuroglancer.SegmentationLayer(
        source=source_url(layers.seg, origin),
        selected_alpha=0.35,
        not_selected_alpha=0.0,
        hover_highlight=False,  # it washes the two colours out under the cursor
        object_alpha=0.6,  # markers inside a mesh must shine through
    )
    state.layers[SIDES_LAYER] = _points(dimensions, SIDES_SHADER, {"side": "uint8"})
    state.layers[MARKER_LAYER] = _points(
        dimensions,
        MARKER_SHADER,
        {"conf": "float32", "current": "uint8", "decided": "uint8", "unreliable": "uint8"},
    )
    overlay = [SEGMENT_LAYER, SIDES_LAYER, MARKER_LAYER]
    state.layout = neuroglancer.row_layout(
        [
            neuroglancer.LayerGroupViewer(layers=[EM_LAYER, *overlay], layout="xy"),
            neuroglancer.LayerGroupViewer(layers=overlay, layout="3d"),
        ]
    )


def _dimensions(resolution: Resolution) -> neuroglancer.CoordinateSpace:
    return neuroglancer.CoordinateSpace(
        names=["x", "y", "z"], units="nm", scales=[float(v) for v in resolution]
    )


def _points(
    dimensions: neuroglancer.CoordinateSpace, shader: str, properties: dict[str, str]
) -> neuroglancer.LocalAnnotationLayer:
    return neuroglancer.LocalAnnotationLayer(
        dimensions,
        shader=shader,
        annotation_properties=[
            neuroglancer.AnnotationPropertySpec(id=name, type=kind, default=0)
            for name, kind in properties.items()
        ],
    )
