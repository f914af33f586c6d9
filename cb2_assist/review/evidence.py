"""Fetches what belongs to a suggestion ahead of the verdict, so that a verdict does not wait."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future

from cb2_assist.core.records import Kind, Site, Suggestion
from cb2_assist.review.ahead import Ahead
from cb2_assist.review.ports import Assistant

_KEPT = 32
"""Suggestions whose evidence is held; one is about 0.25 MB."""

SidesNm = list[list[list[float]]]
"""Points in nm on the two sides of a cut."""
ViewsData = tuple[str, bytes]
"""SHA-256 and bytes of what the model saw."""


class CutSides:
    """The two sides of cuts: for the page, which shows them, and for edits, which wait for them.

    Making them reads voxels, which may take as long as a server likes.
    """

    def __init__(self, make: Callable[[Site], SidesNm]) -> None:
        """None is made yet.

        Args:
            make: Makes those of one cut; blocks.
        """
        self._make = make
        self._ahead: Ahead[SidesNm] = Ahead("cb2-sides", _KEPT)

    def listen(self, on_ready: Callable[[str], object]) -> None:
        """Have an id told when its sides are there."""
        self._ahead.on_ready = on_ready

    def of(self, suggestion_id: str, site: Site) -> Future[SidesNm]:
        """The sides of a cut, begun now if need be; after a failure they are made again."""
        return self._ahead.of(suggestion_id, lambda: self._make(site))

    def ready(self, suggestion_id: str) -> SidesNm | None:
        """They, if they are there already."""
        return self._ahead.ready(suggestion_id)

    def close(self, timeout_s: float) -> bool:
        """End the thread; returns whether it ended in time."""
        return self._ahead.close(timeout_s)


class EvidenceCache:
    """Evidence of the suggestions that may be decided next, made in the background.

    What the model saw is in memory and does not wait for the sides of cuts.
    """

    def __init__(
        self, assistant: Assistant, sides: CutSides, on_ready: Callable[[str], object]
    ) -> None:
        """Start with none.

        Args:
            assistant: Where evidence comes from.
            sides: Makes those of cuts; closed with this.
            on_ready: Called with a suggestion's id when there is something to show of it.
        """
        self._assistant, self._sides = assistant, sides
        self._views: Ahead[ViewsData | None] = Ahead("cb2-evidence", _KEPT)
        self._views.on_ready = on_ready
        sides.listen(on_ready)

    def want(self, suggestions: Iterable[Suggestion]) -> None:
        """Start fetching what is not there yet, in this order."""
        for suggestion in suggestions:
            self._views_of(suggestion.id)
            if suggestion.site.kind is Kind.CUT:
                self._sides.of(suggestion.id, suggestion.site)

    def views(self, suggestion: Suggestion, timeout_s: float) -> ViewsData | None:
        """What the model saw of a suggestion, waiting for it if need be; None: not known any more.

        Raises:
            TimeoutError: It did not arrive in time.
        """
        return self._views_of(suggestion.id).result(timeout_s)

    def sides(self, suggestion_id: str) -> SidesNm | None:
        """The sides of a cut, if they are there already."""
        return self._sides.ready(suggestion_id)

    def views_sha256(self, suggestion_id: str) -> str | None:
        """Content address of the views, if they are there already."""
        ready = self._views.ready(suggestion_id)
        return ready[0] if ready else None

    def close(self, timeout_s: float) -> bool:
        """End the threads; returns whether they ended in time."""
        done = self._sides.close(timeout_s)
        return self._views.close(timeout_s) and done

    def _views_of(self, suggestion_id: str) -> Future[ViewsData | None]:
        return self._views.of(suggestion_id, lambda: self._assistant.views_of(suggestion_id))
