"""How far a model looks round a site of a dataset, and whether memory holds that."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cb2_assist.core.errors import ModelError
from cb2_assist.datasets.source import Source
from cb2_assist.settings import MAX_WINDOW_VX


@dataclass(frozen=True, slots=True)
class Reach:
    """Half widths, in nm, of the voxels that are read round a site.

    ConnectomeBench2's views reach micrometres, and what a question is about lies within less.
    """

    site_nm: float
    """Of the window in which sides are told apart and features are measured."""
    views_nm: float
    """Of what the views show of voxels; at least `site_nm`."""

    @classmethod
    def of(cls, site_nm: float, geometry_nm: float, em_nm: float, *, from_meshes: bool) -> Reach:
        """Geometry from meshes needs no voxels."""
        return cls(site_nm, max(site_nm, em_nm, 0.0 if from_meshes else geometry_nm))

    @property
    def is_wider(self) -> bool:
        """Whether views need a window of their own."""
        return self.views_nm > self.site_nm

    def check(self, source: Source, model: str) -> None:
        """Refuse a model whose windows of a dataset would fill the memory.

        Raises:
            ModelError: A window has more than `MAX_WINDOW_VX` voxels.
        """
        res = source.resolution
        shape = [
            min(2 * self.views_nm / r, n) for r, n in zip(res, source.bounds.shape, strict=True)
        ]
        if math.prod(shape) > MAX_WINDOW_VX:
            raise ModelError(
                f"The model {model} wants views that reach {self.views_nm:g} nm, and at "
                f"{res.x:g} x {res.y:g} x {res.z:g} nm a site would be "
                f"{math.prod(shape) / 1e6:.0f} million voxels of {source.info.name}; at most "
                f'{MAX_WINDOW_VX / 1e6:.0f} million are read. With geometry = "meshes" in '
                "dataset.toml only EM is read as voxels; or give import-checkpoint a smaller "
                "--extent-nm."
            )
