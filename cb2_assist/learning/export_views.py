"""Where an export gets the views of a label: kept beside the labels, or rendered again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from cb2_assist.core.errors import AssistError, LabelError
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import Kind, Site, segment_id
from cb2_assist.datasets.source import DatasetInfo
from cb2_assist.labels.views_store import ViewsStore
from cb2_assist.views.stack import ViewStack, content_sha256, from_bytes

Row = dict[str, Any]


class NoViewsError(Exception):
    """A label cannot be exported with views. Counted under its text; never reaches a person."""


class SiteViews(Protocol):
    """An open dataset with a model's way of looking at it."""

    @property
    def info(self) -> DatasetInfo:
        """Name and version."""

    def render(self, site: Site) -> ViewStack:
        """What the model sees of a site.

        Raises:
            AssistError: The site is not there or cannot be read.
        """

    def close(self) -> None:
        """Let go of it."""


class SiteRenderer:
    """Renders labels' views again from the dataset version that they were made on.

    The dataset is opened when the first label needs it.
    """

    def __init__(self, open_views: Callable[[], SiteViews], model_sha256: str) -> None:
        """Nothing is opened yet.

        Args:
            open_views: Opens the dataset with that model.
            model_sha256: Of the model whose card says how views are made.
        """
        self._open, self._model_sha256 = open_views, model_sha256
        self._views: SiteViews | None = None
        self.failure: AssistError | None = None
        """Why the dataset could not be opened."""

    def stack(self, row: Row) -> ViewStack:
        """Views of a label's site, byte for byte as they would have been kept.

        Raises:
            NoViewsError: Another model, dataset or version, or the site cannot be rendered.
        """
        if row["model"]["sha256"] != self._model_sha256:
            raise NoViewsError("no views kept, and made with another model than --model")
        views = self._opened()
        if views.info.name != row["dataset"]:
            raise NoViewsError("no views kept, and of another dataset")
        if views.info.version != row["version"]:
            raise NoViewsError("no views kept, and of another version of the dataset")
        try:
            stack = views.render(site_of(row))
        except AssistError as e:
            raise NoViewsError("no views kept, and the site cannot be rendered") from e
        if row["views_sha256"] not in (None, content_sha256(stack)):
            raise NoViewsError("views lost, and rendered ones differ from what was seen")
        return stack

    def close(self) -> None:
        """Let go of the dataset."""
        if self._views is not None:
            self._views.close()

    def _opened(self) -> SiteViews:
        if self._views is None and self.failure is None:
            try:
                self._views = self._open()
            except AssistError as e:
                self.failure = e
        if self._views is None:
            raise NoViewsError("no views kept, and the dataset cannot be opened")
        return self._views


class ExportViews:
    """The views of labels: kept ones first."""

    def __init__(self, kept: ViewsStore, renderer: SiteRenderer | None = None) -> None:
        self._kept, self._renderer = kept, renderer

    def stack(self, row: Row) -> ViewStack:
        """What the model saw of a label's site.

        Raises:
            NoViewsError: It was not kept and cannot be rendered again.
        """
        address = row["views_sha256"]
        if address is not None and self._kept.has(address):
            try:
                stack = from_bytes(self._kept.get(address))
            except LabelError as e:
                if self._renderer is None:
                    raise NoViewsError("kept views are damaged") from e
            else:
                if content_sha256(stack) == address:
                    return stack
                if self._renderer is None:
                    raise NoViewsError("kept views are not the ones that the label names")
        if self._renderer is None:
            raise NoViewsError("no views kept" if address is None else "kept views are gone")
        return self._renderer.stack(row)


def site_of(row: Row) -> Site:
    """The question that a label answers.

    Raises:
        BadIdError: An id is damaged.
    """
    partner = row["partner"]
    return Site(
        Kind(row["kind"]),
        segment_id(row["segment"]),
        None if partner is None else segment_id(partner),
        PointNm.of(row["point_nm"]),
    )
