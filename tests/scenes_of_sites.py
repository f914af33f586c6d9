"""View stacks of sites in a small volume."""

from __future__ import annotations

from cb2_assist.core.geometry import BoxVx, PointNm, PointVoxel
from cb2_assist.core.records import Kind, SegmentId, Site
from cb2_assist.datasets.source import Cutout, EmStatistics
from cb2_assist.views.site import build_window
from cb2_assist.views.stack import ViewStack, render
from cb2_assist.views.surroundings import site_vector

STATISTICS = EmStatistics(120.0, 40.0)


def stacks_of(
    volume, segment, partner, kinds, extent_nm, profile="clean", **how
) -> list[ViewStack]:
    """One site a kind, along the axis x = 48, y = 36, z from 60 on."""
    box = BoxVx(PointVoxel(0, 0, 0), PointVoxel(*volume.em.shape))
    res = volume.grid.resolution
    cutout = Cutout(box, res, volume.em, volume.seg)
    out = []
    for i, kind in enumerate(kinds):
        other = SegmentId(partner) if kind is Kind.JOIN else None
        site = Site(kind, SegmentId(segment), other, PointNm(485, 365, 605 + 10 * i))
        window = build_window(cutout, site, extent_nm, box)
        out.append(
            render(
                window,
                extent_nm=extent_nm,
                profile=profile,
                statistics=STATISTICS,
                features=site_vector(window, STATISTICS, neighbours=True),
                **how,
            )
        )
    return out
