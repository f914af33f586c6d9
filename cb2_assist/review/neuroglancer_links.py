"""Reads and writes links of an ordinary Neuroglancer: ``https://HOST/#!{state}``.

A link that we write names the suggestion in a layer of its own, as two point annotations: one
called ``asked``, where suggestions were asked for, and one called after the suggestion, at its
site. Read back, it leads to the same list and the same row.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from cb2_assist.core.errors import AssistError, BadRequestError
from cb2_assist.core.geometry import PointNm, Resolution
from cb2_assist.core.records import BACKGROUND, SegmentId, segment_id

PUBLIC_VIEWER = "https://neuroglancer-demo.appspot.com/"
"""Where links open; any other Neuroglancer takes what stands behind ``#!`` as well."""

SITE_LAYER = "cb2-assist"
ASKED = "asked"

_MOST_SEGMENTS = 100_000
_PREFIXES = {"p": 1e-12, "n": 1e-9, "u": 1e-6, "µ": 1e-6, "μ": 1e-6, "m": 1e-3, "": 1.0}
# An open string reaches to the end, and nothing is tried twice: the time stays linear in any text.
_STRING = re.compile(r"""(['"])(?:(?!\1)[^\\]|\\.)*+(\1|\\?\Z)""", re.DOTALL)


@dataclass(frozen=True, slots=True)
class LinkedPlace:
    """What a viewer's state says about where it looks.

    Attributes:
        at: Its position, or for a link of ours where suggestions were asked for.
        segments: Selected and visible ones.
        site: The suggestion that a link of ours is about.
        words: What it was taken as.
    """

    at: PointNm | None
    segments: tuple[SegmentId, ...]
    site: str | None
    words: str


@dataclass(frozen=True, slots=True)
class Shown:
    """What a link that we write shows.

    Attributes:
        em: Neuroglancer source of the EM.
        seg: Neuroglancer source of the segmentation.
        voxel: Voxel size that positions count in.
        at: The middle of the view.
        colours: Selected segments and their colours, the one asked about first.
        asked: Where suggestions were asked for, or None.
        site: Id and description of the suggestion at ``at``, or None.
        extent_nm: What the view shows across.
    """

    em: str
    seg: str
    voxel: Resolution
    at: PointNm
    colours: dict[SegmentId, str]
    asked: PointNm | None = None
    site: tuple[str, str] | None = None
    extent_nm: float = 3000.0


def write_link(shown: Shown, viewer: str = PUBLIC_VIEWER) -> str:
    """The link's text."""
    text = json.dumps(write_state(shown), separators=(",", ":"))
    return f"{viewer}#!{quote(text, safe='~@$&()*!+=:;,.?/')}"


def write_state(shown: Shown) -> dict[str, Any]:
    """A viewer state as Neuroglancer reads it; ids as text."""
    dimensions = {n: [v / 1e9, "m"] for n, v in zip("xyz", shown.voxel, strict=True)}
    annotations = []
    if shown.asked is not None:
        annotations.append(_annotation(ASKED, shown.asked, shown.voxel, "asked for here"))
    if shown.site is not None:
        annotations.append(_annotation(shown.site[0], shown.at, shown.voxel, shown.site[1]))
    finest = shown.voxel.finest
    return {
        "dimensions": dimensions,
        "position": _voxels(shown.at, shown.voxel),
        "crossSectionScale": shown.extent_nm / finest / 700,
        "projectionScale": shown.extent_nm / finest,
        "layers": [
            {"type": "image", "source": shown.em, "name": "em"},
            {
                "type": "segmentation",
                "source": shown.seg,
                "segments": [str(s) for s in shown.colours],
                "segmentColors": {str(s): c for s, c in shown.colours.items()},
                "name": "segments",
            },
            {
                "type": "annotation",
                "source": {
                    "url": "local://annotations",
                    "transform": {"outputDimensions": dimensions},
                },
                "annotations": annotations,
                "name": SITE_LAYER,
            },
        ],
        "selectedLayer": {"layer": "segments"},
        "showSlices": False,
        "layout": "xy-3d",
    }


def read_link(text: str, voxel: Resolution) -> LinkedPlace | None:
    """What a Neuroglancer link says; None when the text is none.

    Args:
        text: The whole link, or the part from ``#!`` on.
        voxel: Voxel size to count in where the link gives none.

    Raises:
        BadRequestError: Its state lies on a server, is damaged, or says no place.
    """
    _, mark, fragment = text.partition("#!")
    remote = re.search(r"[?&]json_url=([^&#\s]+)", text)
    if not mark and remote is None:
        return None
    inner = _unquoted(fragment).strip()
    if not inner.startswith("{"):
        where = inner or unquote(remote[1] if remote else "")
        raise BadRequestError(
            f"That link keeps its state on a server ({where[:80]}), which cb2-assist does not ask. "
            "Open it in Neuroglancer and copy the position, or the link with {…} that it shows "
            "after any move."
        )
    return _place(_state(inner), voxel)


def read_state(text: str, voxel: Resolution) -> LinkedPlace | None:
    """The same for a state without its link, as Neuroglancer's {} button shows it.

    Raises:
        BadRequestError: It says no place.
    """
    if not (text.startswith("{") and re.search(r"[\"'](layers|position|navigation)[\"']", text)):
        return None
    return _place(_state(text), voxel)


# -- writing


def _annotation(name: str, at: PointNm, voxel: Resolution, words: str) -> dict[str, Any]:
    return {"type": "point", "id": name, "point": _voxels(at, voxel), "description": words}


def _voxels(at: PointNm, voxel: Resolution) -> list[float]:
    return [v / r for v, r in zip(at, voxel, strict=True)]


# -- reading


def _unquoted(fragment: str) -> str:
    # a chat program may have encoded the link once more
    once = unquote(fragment)
    return unquote(once) if once.startswith("%7B") else once


def _state(text: str) -> dict[str, Any]:
    for candidate in (text, _plain_json(text)):
        try:
            got = json.loads(candidate, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            continue
        if isinstance(got, dict):
            return got
    raise BadRequestError(
        "The state in that Neuroglancer link is damaged, perhaps cut off. Copy the whole link."
    )


def _plain_json(text: str) -> str:
    """JSON from the form of old links, with single quotes and with _ for a comma.

    Empty when a string in it has no end.
    """
    out, position = [], 0
    for match in _STRING.finditer(text):
        out.append(re.sub("[&_]", ",", text[position : match.start()]))
        literal = match.group()
        if match[2] != match[1]:
            return ""
        if literal.startswith("'"):
            inner = literal[1:-1].replace("\\'", "'")
            literal = '"' + re.sub(r'(?<!\\)"', r"\"", inner) + '"'
        out.append(literal)
        position = match.end()
    out.append(re.sub("[&_]", ",", text[position:]))
    return "".join(out)


def _place(state: dict[str, Any], voxel: Resolution) -> LinkedPlace:
    try:
        at, counted = _position(state, voxel)
        asked, site = _our_site(state, voxel)
        segments = tuple(_segments(state))
    except (
        AssistError,
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
    ) as error:
        raise BadRequestError(
            f"The state in that Neuroglancer link has another form than known ({error}). Paste the "
            "position alone: x, y, z."
        ) from None
    if site is not None:
        segments = segments[:1]
    if at is None and len(segments) != 1:
        raise BadRequestError(
            "That Neuroglancer link gives no position (x, y and z) and not exactly one segment. "
            "Move the view there once and copy the link again."
        )
    return LinkedPlace(asked or at, segments, site, f"a Neuroglancer link{counted}")


def _position(state: dict[str, Any], voxel: Resolution) -> tuple[PointNm | None, str]:
    position, dimensions = state.get("position"), state.get("dimensions")
    if position is None:
        return _old_position(state)
    if not isinstance(dimensions, dict):
        if len(position) != 3:
            raise ValueError(f"a position of {len(position)} numbers without dimensions")
        at = PointNm.of(float(v) * r for v, r in zip(position, voxel, strict=True))
        return at, ", its position in voxels of this viewer"
    sizes = _sizes_nm(dimensions)
    # dimensions of one layer alone, such as channels, are no part of the position
    names = [n for n in dimensions if not n.endswith(("'", "^"))]
    at_nm = {n: float(v) * sizes[n] for n, v in zip(names, position, strict=True) if n in sizes}
    if not {"x", "y", "z"} <= at_nm.keys():
        return None, ""
    return PointNm(at_nm["x"], at_nm["y"], at_nm["z"]), ""


def _sizes_nm(dimensions: dict[str, Any]) -> dict[str, float]:
    sizes: dict[str, float] = {}
    for name in ("x", "y", "z"):
        if name in dimensions:
            scale, unit = dimensions[name][:2]
            if not unit.endswith("m"):
                raise ValueError(f"{name} in {unit!r}")
            sizes[name] = float(scale) * _PREFIXES[unit[:-1]] * 1e9
            if not (math.isfinite(sizes[name]) and sizes[name] > 0):
                raise ValueError(f"{name} of size {scale}")
    return sizes


def _old_position(state: dict[str, Any]) -> tuple[PointNm | None, str]:
    """Links from before 2019 carry nanometres per voxel with the position."""
    pose = ((state.get("navigation") or {}).get("pose") or {}).get("position") or {}
    size, voxels = pose.get("voxelSize"), pose.get("voxelCoordinates")
    if size is None or voxels is None:
        return None, ""
    return PointNm.of(float(v) * float(s) for v, s in zip(voxels, size, strict=True)), ""


def _layers(state: dict[str, Any]) -> list[dict[str, Any]]:
    layers = state.get("layers") or []
    if isinstance(layers, dict):
        layers = [{"name": name, **layer} for name, layer in layers.items()]
    return [layer for layer in layers if isinstance(layer, dict)]


def _segments(state: dict[str, Any]) -> Iterator[SegmentId]:
    """Visible segments of the layer that was worked on, else of the first that shows some."""
    chosen = (state.get("selectedLayer") or {}).get("layer")
    layers = [
        layer
        for layer in _layers(state)
        if str(layer.get("type", "")).startswith("segmentation")
        and layer.get("visible", True)
        and not layer.get("archived", False)
        and _visible(layer.get("segments"))
    ]
    layers.sort(key=lambda layer: layer.get("name") != chosen)
    if layers:
        for text in _visible(layers[0]["segments"])[:_MOST_SEGMENTS]:
            found = segment_id(text)
            if found != BACKGROUND:
                yield found


def _visible(segments: Sequence[object] | None) -> list[object]:
    """Without those that are listed but hidden, which begin with an exclamation mark."""
    return [s for s in segments or () if not str(s).startswith("!")]


def _our_site(state: dict[str, Any], voxel: Resolution) -> tuple[PointNm | None, str | None]:
    asked, site = None, None
    for layer in _layers(state):
        if layer.get("name") != SITE_LAYER:
            continue
        sizes = state.get("dimensions")
        scale = (
            _sizes_nm(sizes) if isinstance(sizes, dict) else dict(zip("xyz", voxel, strict=True))
        )
        for annotation in layer.get("annotations") or ():
            name = str(annotation.get("id"))
            if name == ASKED:
                x, y, z = annotation["point"]
                asked = PointNm(x * scale["x"], y * scale["y"], z * scale["z"])
            elif re.fullmatch(r"[0-9a-f]{16}", name):
                site = name
    return asked, site


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")
