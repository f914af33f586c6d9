"""Views of one site alone, straight from a dataset.

A site gives the same bytes here as inside a list of suggestions: its window is a pure function of
dataset, site and half width (see `views.site`).
"""

from __future__ import annotations

from cb2_assist.core.errors import OutOfBoundsError
from cb2_assist.core.records import Site
from cb2_assist.datasets.source import EmStatistics, Source
from cb2_assist.views.features import site_features
from cb2_assist.views.site import SiteWindow, build_window, window_box
from cb2_assist.views.stack import ViewStack, render


def lone_window(source: Source, site: Site, extent_nm: float) -> SiteWindow:
    """Cut one site's window out of a dataset.

    Args:
        source: Where the site is.
        site: The question.
        extent_nm: Half width of the window.

    Raises:
        OutOfBoundsError: The site's point lies outside the volume.
        SegmentNotFoundError: Its segments are not there, or too small to be judged.
        DatasetError: The data cannot be read.
    """
    bounds, res = source.bounds, source.resolution
    if not bounds.contains(site.point.to_voxel(res)):
        x, y, z = site.point
        raise OutOfBoundsError(
            f"The point ({x:.0f}, {y:.0f}, {z:.0f}) nm lies outside {source.info.name}."
        )
    box = window_box(site.point, extent_nm, res, bounds)
    return build_window(source.cutout(box), site, extent_nm, bounds)


def render_with_features(
    window: SiteWindow, *, extent_nm: float, profile: str, statistics: EmStatistics
) -> ViewStack:
    """All that a model may see of a window: views and contact features.

    Raises:
        BadRequestError: See `views.stack.render`.
    """
    return render(
        window,
        extent_nm=extent_nm,
        profile=profile,
        statistics=statistics,
        features=site_features(window, statistics),
    )
