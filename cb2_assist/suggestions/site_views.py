"""From a site to what the model sees of it."""

from __future__ import annotations

from cb2_assist.core.errors import OutOfBoundsError, SegmentNotFoundError
from cb2_assist.core.records import Site
from cb2_assist.datasets.source import Cutout, Mesh, MeshSource, Source
from cb2_assist.suggestions.facts import ModelFacts
from cb2_assist.suggestions.reach import Reach
from cb2_assist.views.mesh_hits import mesh_reach_nm
from cb2_assist.views.site import SiteWindow, build_window, whole_window, window_box
from cb2_assist.views.stack import ViewStack, render, takes_meshes, warm_up
from cb2_assist.views.surroundings import site_vector


class SiteViews:
    """Renders sites of one dataset for one model. Methods may be called from several threads."""

    def __init__(self, source: Source, facts: ModelFacts) -> None:
        """Nothing is read yet.

        Raises:
            ModelError: Views of this model would fill the memory.
        """
        self._source, self._facts = source, facts
        self._mesh_source: MeshSource | None = None
        if isinstance(source, MeshSource) and source.geometry == "meshes":
            self._mesh_source = source
        self.reach = Reach.of(
            facts.extent_nm if facts.site_nm is None else facts.site_nm,
            facts.extent_nm,
            facts.extent_nm if facts.em_extent_nm is None else facts.em_extent_nm,
            from_meshes=self._mesh_source is not None,
        )
        self.reach.check(source, facts.name)

    def warm_up(self) -> None:
        """Compile what rendering needs for this dataset and model."""
        warm_up(meshes=self._mesh_source is not None, em_oblique=self._facts.em_oblique)

    def within(self, cutout: Cutout, site: Site) -> ViewStack | None:
        """Views of a candidate; None where the segment is too thin at the site to be judged."""
        try:
            window = build_window(cutout, site, self.reach.site_nm, self._source.bounds)
        except SegmentNotFoundError:
            return None
        return self._render(cutout, window)

    def alone(self, site: Site) -> ViewStack:
        """Views of a site for which nothing has been read yet.

        Raises:
            AssistError: As for `window`.
        """
        cutout = self._round(site, self.reach.views_nm)
        return self._render(
            cutout, build_window(cutout, site, self.reach.site_nm, self._source.bounds)
        )

    def window(self, site: Site) -> SiteWindow:
        """What the question about a site is about.

        Raises:
            AssistError: The site is outside, or its segments are not there.
        """
        cutout = self._round(site, self.reach.site_nm)
        return build_window(cutout, site, self.reach.site_nm, self._source.bounds)

    def _round(self, site: Site, half_width_nm: float) -> Cutout:
        bounds, res = self._source.bounds, self._source.resolution
        box = window_box(site.point, half_width_nm, res, bounds)
        if not bounds.contains(site.point.to_voxel(res)):
            raise OutOfBoundsError(
                f"The point {site.point.words} lies outside {self._source.info.name}."
            )
        return self._source.cutout(box)

    def _render(self, cutout: Cutout, window: SiteWindow) -> ViewStack:
        """Views of a site; `window` is what the question is about, the views may reach further."""
        statistics, seen = self._source.em_statistics, window
        if self.reach.is_wider:
            seen = whole_window(cutout, window.site, self.reach.views_nm, self._source.bounds)
        return render(
            seen,
            extent_nm=self._facts.extent_nm,
            profile=self._facts.profile,
            statistics=statistics,
            features=site_vector(
                window,
                statistics,
                neighbours=self._facts.reads_neighbours,
                way_between=self._facts.reads_passage,
            ),
            meshes=self._meshes(window.site),
            em_oblique=self._facts.em_oblique,
            em_extent_nm=self._facts.em_extent_nm,
        )

    def _meshes(self, site: Site) -> tuple[Mesh | None, Mesh | None] | None:
        """Surfaces to make a site's geometry from; None where it is to be made from labels.

        That is where the dataset does not ask for meshes, where a mesh cannot show the question,
        and where a segment has no mesh: two kinds of geometry are never mixed in one view.
        """
        source, profile = self._mesh_source, self._facts.profile
        if source is None or not takes_meshes(site.kind, profile):
            return None
        reach_nm = mesh_reach_nm(self._facts.extent_nm, profile)
        a = source.mesh(site.segment, site.point, reach_nm)
        if a is None or site.partner is None:
            return None if a is None else (a, None)
        b = source.mesh(site.partner, site.point, reach_nm)
        return None if b is None else (a, b)
