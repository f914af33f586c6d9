"""Where the viewer draws large objects: round the place that is looked at, as much as is fast."""

from __future__ import annotations

import threading
from collections import OrderedDict

from cb2_assist.core.geometry import BoxVx, PointNm, PointVoxel
from cb2_assist.core.records import SegmentId
from cb2_assist.datasets.cave.graph import Graph
from cb2_assist.datasets.cave.places import Places
from cb2_assist.settings import MOST_DRAWN_PARTS

_DRAWN_KEPT = 64
"""Large objects of which it is remembered where they are drawn."""


class Drawn:
    """What is drawn of the objects of one graph. Methods may be called from any thread.

    Args:
        graph: Knows their parts.
        places: Knows where these are.
    """

    def __init__(self, graph: Graph, places: Places) -> None:
        self._graph, self._places = graph, places
        self._asked_at: PointNm | None = None
        self._drawn_in: OrderedDict[SegmentId, BoxVx] = OrderedDict()
        self._lock = threading.Lock()

    def ask_at(self, point: PointNm) -> None:
        """Remember a place that was asked about."""
        self._asked_at = point

    def look_at(self, point: PointNm) -> bool:
        """See `NearSource`: within the middle half of what is drawn nothing needs to change."""
        self._asked_at = point
        at = point.to_voxel(self._places.finest)
        with self._lock:
            drawn = self._drawn_in.items()
            outside = [s for s, box in drawn if not _middle_half(box).contains(at)]
            for segment in outside:  # what is still shown is asked for again
                del self._drawn_in[segment]
        return bool(outside)

    def box_of(self, segment: SegmentId) -> BoxVx | None:
        """Where the viewer draws the surface of a large object; None is everywhere.

        Around the place that was looked at or asked about last, as much as `MOST_DRAWN_PARTS`
        allow.
        """
        parts = self._graph.parts(segment)
        if len(parts) <= MOST_DRAWN_PARTS:
            return None
        at = self._asked_at or self._places.middle_of(int(parts[len(parts) // 2]))
        shape = self._graph.shape
        box = wider = self._places.nm_box(at, 1.0)
        while int(shape.touch(parts, wider).sum()) <= MOST_DRAWN_PARTS:
            box = wider
            sides = zip(wider.lo, wider.hi, shape.chunk, strict=True)
            lo, hi = zip(*((a - c, b + c) for a, b, c in sides), strict=True)
            wider = BoxVx(PointVoxel(*lo), PointVoxel(*hi))
        with self._lock:
            self._drawn_in[segment] = box
            self._drawn_in.move_to_end(segment)
            while len(self._drawn_in) > _DRAWN_KEPT:
                self._drawn_in.popitem(last=False)
        return box.clip(self._places.whole)


def _middle_half(box: BoxVx) -> BoxVx:
    """Half of a box along each axis, about its middle; at least one voxel."""
    sides = list(zip(box.lo, box.hi, strict=True))
    lo = PointVoxel(*(a + (b - a) // 4 for a, b in sides))
    hi = PointVoxel(*(max(b - (b - a) // 4, a + (b - a) // 4 + 1) for a, b in sides))
    return BoxVx(lo, hi)
