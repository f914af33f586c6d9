"""Where the parts of a graph are: its chunks, in nm and in voxels of either scale."""

from __future__ import annotations

import numpy as np

from cb2_assist.core.geometry import BoxVx, PointNm, PointVoxel, Resolution
from cb2_assist.datasets.cave.connection import GraphShape, chunk_voxels


class Places:
    """Places in one dataset.

    Args:
        shape: Of the graph's chunks.
        finest: Voxel size in which the graph counts.
        resolution: Of cutouts.
        bounds: Of cutouts, in their voxels.
    """

    def __init__(
        self, shape: GraphShape, finest: Resolution, resolution: Resolution, bounds: BoxVx
    ) -> None:
        self._shape, self.finest = shape, finest
        self._resolution, self._bounds = resolution, bounds

    @property
    def whole(self) -> BoxVx:
        """The bounds in voxels of the finest scale."""
        return scaled(self._bounds, self._resolution, self.finest)

    def box_of(self, part: int) -> BoxVx:
        """The chunk of a part, in voxels of cutouts."""
        lo, hi = chunk_voxels(self._shape, part)
        return scaled(BoxVx(PointVoxel(*lo), PointVoxel(*hi)), self.finest, self._resolution)

    def middle_of(self, part: int) -> PointNm:
        """The middle of its chunk."""
        lo, hi = chunk_voxels(self._shape, part)
        return PointNm.of((a + b) / 2 * v for a, b, v in zip(lo, hi, self.finest, strict=True))

    def nm_box(self, point: PointNm, reach_nm: float) -> BoxVx:
        """In voxels of the finest scale, as the graph counts."""
        return BoxVx.around(point, reach_nm, self.finest).clip(self.whole)


def scaled(box: BoxVx, have: Resolution, want: Resolution) -> BoxVx:
    """The voxels of another scale that a box touches."""
    lo = [int(np.floor(a * h / w + 1e-6)) for a, h, w in zip(box.lo, have, want, strict=True)]
    hi = [int(np.ceil(b * h / w - 1e-6)) for b, h, w in zip(box.hi, have, want, strict=True)]
    return BoxVx(PointVoxel(*lo), PointVoxel(*hi))
