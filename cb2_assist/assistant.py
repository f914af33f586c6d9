"""The assistant: suggests, scores, decides and undoes on one dataset with one model.

What the page, the commands and scripts share. `app.build_assistant` makes one.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cb2_assist.core.closing import Closing
from cb2_assist.core.errors import (
    AssistError,
    UsageError,
)
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import (
    BaseRate,
    Candidate,
    Kind,
    LabelEvent,
    SegmentId,
    Site,
    Suggestion,
    SuggestionList,
    Verdict,
)
from cb2_assist.datasets.source import DatasetInfo, Source
from cb2_assist.settings import MAX_CANDIDATES, login_name
from cb2_assist.suggestions.recent import RecentLists

if TYPE_CHECKING:
    from cb2_assist.decisions.labels import Labels
    from cb2_assist.suggestions.in_use import ModelsInUse
    from cb2_assist.suggestions.pipeline import Answer, Signals
    from cb2_assist.views.site import SiteWindow
    from cb2_assist.views.stack import ViewStack

log = logging.getLogger(__name__)

_SIDE_POINTS = 150
"""Points drawn on each side of a cut."""


class Assistant(Closing):
    """A dataset and a model, ready to answer. Methods may be called from several threads."""

    def __init__(self, source: Source, models: ModelsInUse) -> None:
        """Answer about a dataset; closing this closes both."""
        self.source = source
        self.preparing = False
        """Whether `warm_up` is under way: answers made meanwhile take longer."""
        self._models = models
        self._shown = RecentLists()

    @property
    def info(self) -> DatasetInfo:
        """Name, version and licence of the dataset."""
        return self.source.info

    @property
    def base_rates(self) -> dict[Kind, BaseRate]:
        """The rates in force."""
        return dict(self._models.pipeline.base_rates)

    @property
    def uncalibrated(self) -> str:
        """Why no confidence of the model can be relied on; empty for a calibrated one."""
        return self._models.pipeline.facts.uncalibrated

    @property
    def judge(self) -> str:
        """Names model and calibrator: the same text, the same numbers."""
        pipeline = self._models.pipeline
        return f"{pipeline.facts.sha256} {pipeline.calibrator.id}"

    def known_models(self) -> list[dict[str, Any]]:
        """Every model that has answered here; see `suggestions.in_use.ModelsInUse.known`."""
        return self._models.known()

    def use_model(self, folder: Path | str | None = None) -> dict[str, Any]:
        """Let another model answer from now on; lists that were made keep the names of theirs.

        Args:
            folder: Of the model; None takes up what `calibrate` has saved since, with this model.

        Returns:
            Its entry of `known_models`.

        Raises:
            ModelError: It cannot be used; the one before goes on answering.
            AssistError: The saved calibration is damaged, likewise.
        """
        if folder is None:
            folder = next(m["folder"] for m in self._models.known() if m["in_use"])
        return self._models.use(Path(folder))

    def suggest(
        self,
        at: PointNm,
        segment: SegmentId | None = None,
        kind: Kind | None = None,
        limit: int = MAX_CANDIDATES,
        *,
        include: Candidate | None = None,
        known: Callable[[Mapping[str, str | None]], set[str]] | None = None,
    ) -> SuggestionList:
        """Ranked suggestions at a point; see `suggestions.pipeline.Pipeline.suggest`."""
        with self._models.asking() as pipeline:
            found = pipeline.suggest(at, segment, kind, limit, include=include, known=known)
        self._shown.put(found, {"how": "script"})
        return found

    def score(
        self,
        sites: Iterable[Site],
        *,
        batch: int = 16,
        base_rates: Mapping[Kind, BaseRate] | None = None,
    ) -> Iterator[Answer]:
        """Judge given sites, in order; see `suggestions.pipeline.Pipeline.score`."""
        with self._models.asking() as pipeline:
            for answer in pipeline.score(sites, batch=batch, base_rates=base_rates):
                if answer.suggestion is not None:
                    alone = pipeline.alone(answer.suggestion, base_rates)
                    self._shown.put(alone, {"how": "given"})
                yield answer

    def decide(
        self,
        suggestion: Suggestion,
        verdict: Verdict | str,
        *,
        labels: Labels,
        user: str | None = None,
        idempotency_key: str | None = None,
        note: str = "",
    ) -> LabelEvent:
        """Record an answer as the page does: durable on return, with what the model saw.

        Args:
            suggestion: From a recent `suggest` or `score` of this assistant; the others of its
                list are recorded as alternatives.
            verdict: ``accept``, ``reject``, ``unsure``, ``skip``, ``flag`` (with a note), or
                ``none``: none of the open joins of the list at the same end (see
                `core.records.JointSet`).
            labels: Where to; see `decisions.labels.open_labels`.
            user: Whose answer it is; None is the login name.
            idempotency_key: Names this answer. The same name again returns the first event, so
                that a script may be run again; None makes a new one.
            note: Of a flag, one line.

        Raises:
            UsageError: There is no such verdict.
            DecisionError: The suggestion is not a recent one, the key means something else,
                *none* is given on a cut, or a flag has no note.
            LabelError: The label file cannot be written; nothing was recorded.
        """
        from cb2_assist.decisions.making import Given, decision_on

        try:
            answer = Verdict(verdict)
        except ValueError:
            known = ", ".join(v.value for v in Verdict)
            raise UsageError(f"There is no verdict {verdict!r}. Known: {known}.") from None
        shown, made_at, propensity = self._shown.get(suggestion)
        user = user or login_name()
        decisions = labels.log(self.info, user)
        on_list = {s.id: decisions.verdict(s.id) for s in shown.suggestions}
        decision = decision_on(
            suggestion.id,
            shown,
            Given(
                answer,
                user,
                idempotency_key or f"script-{uuid.uuid4()}",
                shown_at=made_at,
                decided_at=datetime.now(UTC),
                propensity=propensity,
                note=note,
            ),
            self.info,
            verdicts={i: v for i, v in on_list.items() if v is not None},
            keep=lambda s: self._keep_views(s, labels),
        )
        return decisions.decide(decision)

    def undo(
        self, *, labels: Labels, user: str | None = None, idempotency_key: str | None = None
    ) -> LabelEvent:
        """Take back the person's latest decision on this dataset; its id is the ``target``.

        Raises:
            DecisionError: There is none.
            LabelError: The label file cannot be written; nothing was recorded.
        """
        decisions = labels.log(self.info, user or login_name())
        return decisions.undo(idempotency_key=idempotency_key or f"script-{uuid.uuid4()}")

    def redo(
        self, *, labels: Labels, user: str | None = None, idempotency_key: str | None = None
    ) -> LabelEvent:
        """Put back what was undone last, unless something was decided since.

        Raises:
            DecisionError: There is nothing.
            LabelError: The label file cannot be written; nothing was recorded.
        """
        decisions = labels.log(self.info, user or login_name())
        return decisions.redo(idempotency_key=idempotency_key or f"script-{uuid.uuid4()}")

    def render(self, site: Site) -> ViewStack:
        """What the model sees of a site; see `suggestions.pipeline.Pipeline.render`."""
        with self._models.asking() as pipeline:
            return pipeline.render(site)

    def views_of(self, suggestion_id: str) -> tuple[str, bytes] | None:
        """SHA-256 and bytes of what the model saw; None when no longer in memory."""
        from cb2_assist.views.stack import content_sha256, to_bytes

        stack = self._stack_of(suggestion_id)
        return None if stack is None else (content_sha256(stack), to_bytes(stack))

    def signals_of(self, suggestion_id: str) -> Signals | None:
        """Features and embedding of a suggestion; None when no longer in memory."""
        found = (p.signals_of(suggestion_id) for p in self._models.pipelines)
        return next((s for s in found if s is not None), None)

    def also_called(self, suggestion_id: str, name: str) -> None:
        """Give a recent suggestion a second id under which its views are found."""
        for pipeline in self._models.pipelines:
            pipeline.also_called(suggestion_id, name)

    def picture_of(self, suggestion_id: str, view: str) -> tuple[str, bytes] | None:
        """SHA-256 of what the model saw, and one view of it as PNG; None when not in memory."""
        from cb2_assist.views.pictures import picture_png
        from cb2_assist.views.stack import content_sha256

        stack = self._stack_of(suggestion_id)
        return None if stack is None else (content_sha256(stack), picture_png(stack, view))

    def _stack_of(self, suggestion_id: str) -> ViewStack | None:
        found = (p.stack_of(suggestion_id) for p in self._models.pipelines)
        return next((s for s in found if s is not None), None)

    def sides_of(self, suggestion_id: str) -> list[list[list[float]]] | None:
        """Points in nm on the surface of the two sides of a cut; None for a join or unknown."""
        found = (p.window_of(suggestion_id) for p in self._models.pipelines)
        window = next((w for w in found if w is not None), None)
        if window is None or window.site.kind is not Kind.CUT:
            return None
        return _points_of(window)

    def sides_at(self, site: Site) -> list[list[list[float]]]:
        """The same of the cut at any site.

        Raises:
            AssistError: The site is outside, nothing of its segment is there, or the data cannot
                be read.
        """
        return _points_of(self._models.pipeline.window_at(site))

    def warm_up_views(self) -> None:
        """Compile what rendering needs for this dataset and model."""
        self._models.pipeline.warm_up_views()

    def close(self) -> None:
        """Let go of threads and files."""
        self._models.close()
        self.source.close()

    def _keep_views(self, suggestion: Suggestion, labels: Labels) -> str | None:
        if labels.views is None:
            return None
        from cb2_assist.views.stack import content_sha256, to_bytes

        seen = self.views_of(suggestion.id)
        if seen is None:
            # no longer in memory: the same bytes again
            try:
                stack = self.render(suggestion.site)
            except AssistError as e:
                log.warning("The views of suggestion %s are not kept: %s", suggestion.id, e)
                return None
            seen = content_sha256(stack), to_bytes(stack)
        sha256, data = seen
        labels.views.put(data, sha256)
        return sha256


def _points_of(window: SiteWindow) -> list[list[list[float]]]:
    """Points in nm on the surface of a window's two sides."""
    import numpy as np

    res, lo = np.array(tuple(window.resolution)), np.array(tuple(window.box.lo))
    out = []
    for side in (1, 2):
        mask = window.label == side
        inner = mask.copy()
        inner[1:-1, 1:-1, 1:-1] &= (
            mask[:-2, 1:-1, 1:-1]
            & mask[2:, 1:-1, 1:-1]
            & mask[1:-1, :-2, 1:-1]
            & mask[1:-1, 2:, 1:-1]
            & mask[1:-1, 1:-1, :-2]
            & mask[1:-1, 1:-1, 2:]
        )
        voxels = np.argwhere(mask & ~inner)
        # evenly spaced in a fixed order: the same points each time
        step = max(1, len(voxels) // _SIDE_POINTS)
        points = (voxels[::step][:_SIDE_POINTS] + lo + 0.5) * res
        out.append([[float(v) for v in p] for p in points])
    return out
