"""How the viewer must be turned to look at a site as a view of the model does.

An orientation is a unit quaternion x, y, z, w as Neuroglancer has it: it takes the axes of the
screen (right, down, into the screen) to axes of the volume. The three cameras are those of
`channels.GeometryView`, exact in all three axes; the sections lie as Neuroglancer's own panels of
these names do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

_H = math.sqrt(0.5)


@dataclass(frozen=True, slots=True)
class Camera:
    """One view.

    Attributes:
        name: As in `channels.VIEW_NAMES`.
        words: For people, beside its picture.
        panel: The viewer's panel that is turned: ``3d`` or ``section``.
        orientation: Quaternion.
    """

    name: str
    words: str
    panel: str
    orientation: tuple[float, float, float, float]

    def to_json(self) -> dict[str, Any]:
        """As the page reads it."""
        return {
            "name": self.name,
            "words": self.words,
            "panel": self.panel,
            "orientation": list(self.orientation),
        }


CAMERAS: tuple[Camera, ...] = (
    Camera("front", "from −x", "3d", (0.5, -0.5, 0.5, -0.5)),
    Camera("side", "from −y", "3d", (_H, 0.0, 0.0, -_H)),
    Camera("top", "from +z", "3d", (1.0, 0.0, 0.0, 0.0)),
    Camera("em_xy", "EM xy", "section", (0.0, 0.0, 0.0, 1.0)),
    Camera("em_xz", "EM xz", "section", (_H, 0.0, 0.0, _H)),
    Camera("em_yz", "EM yz", "section", (0.0, _H, 0.0, _H)),
)
"""In the order of `channels.VIEW_NAMES`."""
