"""Candidates to views to model to calibrated suggestions, in order, with timing."""

from __future__ import annotations

import math
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Lock
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cb2_assist.candidates.along import Whole
from cb2_assist.candidates.finder import cutout_half_width_nm, find
from cb2_assist.core.errors import (
    AssistError,
    BackgroundError,
    OutOfBoundsError,
    SegmentNotFoundError,
)
from cb2_assist.core.geometry import BoxVx, PointNm
from cb2_assist.core.records import (
    BACKGROUND,
    BaseRate,
    Candidate,
    Kind,
    ModelOutput,
    Ood,
    SegmentId,
    Site,
    Suggestion,
    SuggestionList,
)
from cb2_assist.datasets.source import Cutout, GraphSource, Source
from cb2_assist.settings import (
    MAX_CANDIDATES,
    OOD_FLAG_PERCENTILE,
    RECENT_STACKS,
    SEARCH_RADIUS_NM,
    SNAP_NM,
)
from cb2_assist.suggestions.calibration import Calibrator
from cb2_assist.suggestions.facts import ModelFacts
from cb2_assist.suggestions.site_views import SiteViews
from cb2_assist.suggestions.whole import WholeObjects
from cb2_assist.views.features import FEATURE_NAMES, has_interface
from cb2_assist.views.site import SiteWindow
from cb2_assist.views.stack import ViewStack
from cb2_assist.views.surroundings import split_vector


class Predictor(Protocol):
    """Runs the network; `model.predictor.Predictor` or a stand-in of tests."""

    def predict(self, stacks: Sequence[ViewStack], kinds: Sequence[Kind]) -> list[ModelOutput]:
        """Answer one question per stack, in order."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One site of `score`: numbers, or why there are none."""

    site: Site
    suggestion: Suggestion | None
    error: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Signals:
    """What the queue's strategies may use of a site besides its numbers."""

    features: NDArray[np.float32]
    """As `views.features.FEATURE_NAMES` says, (F,)."""
    embedding: NDArray[np.float32] | None
    """`ModelOutput.embedding`."""


class Pipeline:
    """Answers about one dataset with one model. Methods may be called from several threads."""

    def __init__(
        self,
        source: Source,
        predictor: Predictor,
        facts: ModelFacts,
        calibrator: Calibrator,
        base_rates: Mapping[Kind, BaseRate],
        *,
        threads: int | None = None,
    ) -> None:
        self.source, self.facts = source, facts
        self.calibrator, self.base_rates = calibrator, dict(base_rates)
        self._predictor = predictor
        self._graph = source if isinstance(source, GraphSource) else None
        self._wholes = None if self._graph is None else WholeObjects(self._graph)
        self._views = SiteViews(source, facts)
        self._pool = ThreadPoolExecutor(threads or os.cpu_count() or 1, thread_name_prefix="views")
        self._recent: OrderedDict[str, tuple[ViewStack, Site, ModelOutput]] = OrderedDict()
        self._last: tuple[str, Cutout] | None = None
        self._lock = Lock()

    def warm_up_views(self) -> None:
        """Compile what rendering needs for this dataset and model."""
        self._views.warm_up()

    def close(self) -> None:
        """Stop the worker threads."""
        if self._wholes is not None:
            self._wholes.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def suggest(
        self,
        at: PointNm,
        segment: SegmentId | None,
        kind: Kind | None = None,
        limit: int = MAX_CANDIDATES,
        *,
        include: Candidate | None = None,
        known: Callable[[Mapping[str, str | None]], set[str]] | None = None,
    ) -> SuggestionList:
        """Ranked suggestions round a point.

        Args:
            at: The cursor.
            segment: The one to ask about; None takes the segment at the point.
            kind: Only this question; None for both.
            limit: Most candidates to judge.
            include: Judged in any case, beside what is found.
            known: Of the given suggestion ids, each with its joint set, those that need not be
                judged; they are left out.

        Raises:
            BackgroundError: No segment at the point.
            OutOfBoundsError: The point lies outside the volume.
            SegmentNotFoundError: ``segment`` does not occur near the point, or what ``include``
                asks about is not there (any more).
        """
        start = time.perf_counter()
        segment, instead = self._current(segment, at)
        asked = None
        if self._wholes is not None and segment is not None:
            asked = self._wholes.ask(segment, at)
        at, segment, cutout = self._look(at, segment)
        if self._wholes is not None and asked is None:
            asked = self._wholes.ask(segment, at)
        kinds = (kind,) if kind else tuple(Kind)
        search = BoxVx.around(at, cutout_half_width_nm(SEARCH_RADIUS_NM), cutout.resolution)
        candidates = find(
            cutout.crop(search),
            segment,
            at,
            radius_nm=SEARCH_RADIUS_NM,
            kinds=kinds,
            limit=limit,
            whole=lambda: Whole() if asked is None else asked.wait(),
        )
        wanted = None if include is None else self._key(include.site)
        if include is not None and wanted not in {self._key(c.site) for c in candidates}:
            self._views.window(include.site)
            candidates = [include, *candidates]
        if known is not None:
            left_out = known({self._key(c.site): c.joint for c in candidates})
            candidates = [c for c in candidates if self._key(c.site) not in left_out]
        found = time.perf_counter()
        rendered = self._pool.map(lambda c: self._views.within(cutout, c.site), candidates)
        pairs = [(c, s) for c, s in zip(candidates, rendered, strict=True) if s is not None]
        candidates, stacks = [c for c, _ in pairs], [s for _, s in pairs]
        if wanted is not None and wanted not in {self._key(c.site) for c in candidates}:
            raise SegmentNotFoundError(
                f"The site at {at.words} can no longer be judged: its segment is too thin there."
            )
        seen = time.perf_counter()
        outputs = self._predictor.predict(stacks, [c.site.kind for c in candidates])
        answered = time.perf_counter()
        suggestions = [
            self._suggestion(c, s, o) for c, s, o in zip(candidates, stacks, outputs, strict=True)
        ]
        # what the number cannot be trusted for does not go before what it can
        suggestions.sort(key=lambda s: (s.ood.flag, -s.confidence, s.id))
        notes = (
            instead,
            "" if suggestions else _why_empty(segment, kind),
            asked.note if asked else "",
        )
        return self._listed(
            segment,
            at,
            suggestions,
            self.base_rates,
            timing_ms={
                "candidates": 1e3 * (found - start),
                "views": 1e3 * (seen - found),
                "model": 1e3 * (answered - seen),
                "total": 1e3 * (time.perf_counter() - start),
            },
            note=" ".join(text for text in notes if text),
        )

    def score(
        self,
        sites: Iterable[Site],
        *,
        batch: int = 16,
        base_rates: Mapping[Kind, BaseRate] | None = None,
    ) -> Iterator[Answer]:
        """Judge given sites, in order; a site that cannot be judged gets an error, not a stop.

        Args:
            sites: The questions.
            batch: Sites in memory at once; the numbers do not depend on it.
            base_rates: Instead of the ones in force.
        """
        rows: list[Site] = []
        for site in sites:
            rows.append(site)
            if len(rows) == batch:
                yield from self._score_batch(rows, base_rates)
                rows = []
        if rows:
            yield from self._score_batch(rows, base_rates)

    def alone(
        self, suggestion: Suggestion, base_rates: Mapping[Kind, BaseRate] | None = None
    ) -> SuggestionList:
        """A list of one that `score` judged."""
        site, rates = suggestion.site, base_rates or self.base_rates
        return self._listed(site.segment, site.point, [suggestion], rates, timing_ms={})

    def _listed(
        self,
        segment: SegmentId,
        at: PointNm,
        suggestions: Sequence[Suggestion],
        base_rates: Mapping[Kind, BaseRate],
        *,
        timing_ms: dict[str, float],
        note: str = "",
    ) -> SuggestionList:
        return SuggestionList(
            dataset=self.source.info.name,
            version=self.source.info.version,
            segment=segment,
            at=at,
            suggestions=tuple(suggestions),
            model_name=self.facts.name,
            model_sha256=self.facts.sha256,
            calibrator=self.calibrator.id,
            base_rates=dict(base_rates),
            timing_ms=timing_ms,
            note=note,
            uncalibrated=self.facts.uncalibrated,
            timestamp=self._timestamp,
        )

    def outputs(self, sites: Sequence[Site]) -> list[ModelOutput]:
        """The network's raw answers, before calibration."""
        stacks = list(self._pool.map(self._views.alone, sites))
        return self._predictor.predict(stacks, [s.kind for s in sites])

    def render(self, site: Site) -> ViewStack:
        """What the model sees of one site: the same bytes as within a list of suggestions.

        Raises:
            AssistError: As for `score`.
        """
        return self._views.alone(site)

    def stack_of(self, suggestion_id: str) -> ViewStack | None:
        """What the model saw of a recent suggestion."""
        with self._lock:
            kept = self._recent.get(suggestion_id)
        return kept[0] if kept else None

    def window_of(self, suggestion_id: str) -> SiteWindow | None:
        """The site window of a recent suggestion, cut out again."""
        with self._lock:
            kept = self._recent.get(suggestion_id)
        return self._views.window(kept[1]) if kept else None

    def window_at(self, site: Site) -> SiteWindow:
        """The window of any site; where edits have replaced its segment, of what is there now.

        Raises:
            AssistError: The site is outside, or nothing of its segment is there.
        """
        try:
            return self._views.window(site)
        except SegmentNotFoundError:
            segment, _ = self._current(site.segment, site.point)
            if segment is None or segment == site.segment:
                raise
            return self._views.window(replace(site, segment=segment))

    def also_called(self, suggestion_id: str, name: str) -> None:
        """Give a recent suggestion a second id under which its views are found."""
        with self._lock:
            if suggestion_id in self._recent:
                self._recent[name] = self._recent[suggestion_id]

    def _current(self, segment: SegmentId | None, at: PointNm) -> tuple[SegmentId | None, str]:
        """The object that an id from outside means now, and words where it is another one."""
        if self._graph is None or segment is None or segment == BACKGROUND:
            return segment, ""
        return self._graph.current(segment, at)

    def signals_of(self, suggestion_id: str) -> Signals | None:
        """What was measured of a recent suggestion besides its score."""
        with self._lock:
            kept = self._recent.get(suggestion_id)
        if not kept:
            return None
        features = split_vector(kept[0].features)[0][: len(FEATURE_NAMES)]
        return Signals(features, kept[2].embedding)

    def _look(self, at: PointNm, segment: SegmentId | None) -> tuple[PointNm, SegmentId, Cutout]:
        bounds, res = self.source.bounds, self.source.resolution
        here = self.source.segment_at(at) if segment is None else segment
        if here == BACKGROUND:
            raise BackgroundError(
                f"There is no segment at {at.words}: this is background. Put the cursor on a "
                "segment and press p again."
            )
        if not bounds.contains(at.to_voxel(res)):
            raise OutOfBoundsError(
                f"The point {at.words} lies outside {self.source.info.name}. Move the cursor "
                "into the volume and press p again."
            )
        near = self.source.cutout(BoxVx.around(at, SNAP_NM, res).clip(bounds))
        at = self._snap(at, here, near)
        # one voxel more: a site's window is centred on its voxel, not on its point
        reach = SEARCH_RADIUS_NM + self._views.reach.views_nm + max(res)
        half = max(cutout_half_width_nm(SEARCH_RADIUS_NM), reach)
        return at, here, self._cutout(BoxVx.around(at, half, res).clip(bounds))

    def _cutout(self, box: BoxVx) -> Cutout:
        """Voxels of the box; the last cutout serves again while it covers what is asked for."""
        state = self._timestamp
        with self._lock:
            last = self._last
        if last is None or last[0] != state or not last[1].box.covers(box):
            last = state, self.source.cutout(box)
            with self._lock:
                self._last = last
        return last[1].crop(box)

    @property
    def _timestamp(self) -> str:
        """State of the graph that is read now; empty without a graph."""
        return "" if self._graph is None else self._graph.timestamp

    def _snap(self, at: PointNm, segment: SegmentId, near: Cutout) -> PointNm:
        """The point itself when it lies in the segment, else the segment's nearest voxel.

        Raises:
            SegmentNotFoundError: No voxel of the segment within `SNAP_NM`.
        """
        res = near.resolution
        v, lo = at.to_voxel(res), near.box.lo
        if near.seg[v.x - lo.x, v.y - lo.y, v.z - lo.z] == np.uint64(segment):
            return at
        voxels = np.argwhere(near.seg == np.uint64(segment))
        if not len(voxels):
            raise SegmentNotFoundError(
                f"Segment {segment} is not within {SNAP_NM:.0f} nm of {at.words}. Point at the "
                "segment itself and press p again."
            )
        centres = (voxels + np.array(tuple(lo)) + 0.5) * np.array(tuple(res))
        far = ((centres - np.array(tuple(at))) ** 2).sum(1)
        return PointNm.of(centres[int(far.argmin())])

    def _score_batch(
        self, sites: Sequence[Site], base_rates: Mapping[Kind, BaseRate] | None
    ) -> Iterator[Answer]:
        def attempt(site: Site) -> ViewStack | AssistError:
            try:
                return self._views.alone(site)
            except AssistError as e:
                return e

        seen = list(self._pool.map(attempt, sites))
        stacks = [s for s in seen if isinstance(s, ViewStack)]
        kinds = [k.kind for k, s in zip(sites, seen, strict=True) if isinstance(s, ViewStack)]
        outputs = iter(self._predictor.predict(stacks, kinds))
        for site, stack in zip(sites, seen, strict=True):
            if isinstance(stack, ViewStack):
                candidate = Candidate(site, "given", math.nan)
                yield Answer(
                    site, self._suggestion(candidate, stack, next(outputs), base_rates), None
                )
            else:
                yield Answer(site, None, str(stack))

    def _suggestion(
        self,
        candidate: Candidate,
        stack: ViewStack,
        output: ModelOutput,
        base_rates: Mapping[Kind, BaseRate] | None = None,
    ) -> Suggestion:
        site = candidate.site
        base = (base_rates or self.base_rates)[site.kind]
        percentile = self.facts.ood_percentile(site.kind, output.ood_distance)
        if site.kind is Kind.JOIN and not has_interface(stack.features):
            # nothing like it was ever trained on, whatever its embedding looks like
            percentile = 100.0
        unreliable = percentile > OOD_FLAG_PERCENTILE or not self.calibrator.is_calibrated
        ood = Ood(percentile, unreliable)
        key = self._key(site)
        with self._lock:
            self._recent[key] = (stack, site, output)
            self._recent.move_to_end(key)
            while len(self._recent) > RECENT_STACKS:
                self._recent.popitem(last=False)
        kind, logit, rests_on = site.kind, output.logit, tuple(v.name for v in output.views)
        return Suggestion(
            id=key,
            site=site,
            reason=candidate.reason,
            score=self.calibrator.score(kind, logit),
            confidence=self.calibrator.confidence(kind, logit, base, rests_on),
            interval=self.calibrator.interval(kind, logit, base, rests_on, reliable=not ood.flag),
            ood=ood,
            views=output.views,
            prior=None if math.isnan(candidate.prior) else candidate.prior,
            joint=candidate.joint,
            affinity=candidate.affinity,
            supervoxels=None if self._graph is None else self._graph.supervoxels(site),
        )

    def _key(self, site: Site) -> str:
        return site.key(self.source.info.name, self.source.info.version)


def _why_empty(segment: SegmentId, kind: Kind | None) -> str:
    what = {None: "contact or neck", Kind.JOIN: "contact", Kind.CUT: "neck or junction"}[kind]
    return (
        f"Segment {segment} has no {what} within {SEARCH_RADIUS_NM:.0f} nm of the cursor. "
        "Move along the segment, towards an end, and press p again."
    )
