"""What the model saw, as pictures for people.

The colours are the viewer's: the first segment, or side of a cut, is orange and the other blue.
Geometry is lit from the camera and darker with depth. EM lies as Neuroglancer's panels of the same
name do, so a picture and the panel that shows its place agree.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cb2_assist.core.channels import VIEW_NAMES, EmChannel, EmView, GeometryView
from cb2_assist.core.colours import PARTNER_COLOUR, SEGMENT_COLOUR
from cb2_assist.views.hitmap import EMPTY, NORMAL_SCALE
from cb2_assist.views.stack import ViewStack

_GROUND = 22
_LEAST_LIGHT = 0.35
_DEEP_LIGHT = 0.55
"""Of what lies at the far face of the view box."""
_TINT = 0.38

Picture = NDArray[np.uint8]
"""uint8, (row, column, red/green/blue)."""

# world axis that points towards the camera, and its sign
_TOWARDS: dict[GeometryView, tuple[int, int]] = {
    GeometryView.FRONT: (0, -1),
    GeometryView.SIDE: (1, -1),
    GeometryView.TOP: (2, 1),
}

# from (row, column) of a stack to those of the viewer's panel
_TURNED: dict[EmView, Callable[[Picture], Picture]] = {
    EmView.XY: lambda p: p.transpose(1, 0, 2),
    EmView.XZ: lambda p: p.transpose(1, 0, 2),
    EmView.YZ: lambda p: p[:, ::-1],
}


def picture_png(stack: ViewStack, name: str) -> bytes:
    """One view as a PNG file.

    Args:
        stack: What the model saw.
        name: One of `channels.VIEW_NAMES`.

    Raises:
        KeyError: There is no such view.
    """
    try:
        number = VIEW_NAMES.index(name)
    except ValueError:
        raise KeyError(name) from None
    if number < len(GeometryView):
        picture = geometry_picture(stack, GeometryView(number))
    else:
        picture = em_picture(stack, EmView(number - len(GeometryView)))
    out = io.BytesIO()
    # little effort: the file goes to a browser on the same machine
    Image.fromarray(np.ascontiguousarray(picture)).save(out, "PNG", compress_level=1)
    return out.getvalue()


def geometry_picture(stack: ViewStack, view: GeometryView) -> Picture:
    """Both segments from one camera, the nearer one in front."""
    depth = stack.hits.depth_nm[view].astype(np.int32)
    in_front = depth.argmin(0)
    near = depth.min(0)
    axis, sign = _TOWARDS[view]
    normal = np.take_along_axis(stack.hits.normal_i8[view, :, axis], in_front[None], 0)[0]
    facing = np.clip(sign * normal.astype(np.float32) / NORMAL_SCALE, 0, 1)
    light = _LEAST_LIGHT + (1 - _LEAST_LIGHT) * facing
    share = np.clip((near + stack.extent_nm) / (2 * stack.extent_nm), 0, 1)
    light *= 1 - (1 - _DEEP_LIGHT) * share
    colour = _rgb()[in_front] * light[..., None]
    colour[near == EMPTY] = _GROUND
    return _bytes(colour)


def em_picture(stack: ViewStack, view: EmView) -> Picture:
    """One section, both segments tinted."""
    channels = stack.em[view].astype(np.float32)
    picture = np.repeat(channels[EmChannel.EM, ..., None], 3, -1)
    for mask, colour in zip((EmChannel.MASK_A, EmChannel.MASK_B), _rgb(), strict=True):
        share = _TINT * channels[mask, ..., None] / 255
        picture += share * (colour - picture)
    return _TURNED[view](_bytes(picture))


def _bytes(colour: NDArray[np.float32]) -> Picture:
    return np.clip(np.rint(colour), 0, 255).astype(np.uint8)


def _rgb() -> NDArray[np.float32]:
    """Of the first and the second segment, (2, 3), 0..255."""
    return np.array(
        [[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in (SEGMENT_COLOUR, PARTNER_COLOUR)],
        np.float32,
    )
