"""Real suggestions of a small dataset, answered as a session answers them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from cb2_assist.assistant import Assistant
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import Decision, Kind, LabelEvent, Suggestion, SuggestionList, Verdict
from cb2_assist.decisions.log import DecisionLog, alternative
from cb2_assist.labels.store import LabelStore
from cb2_assist.labels.views_store import ViewsStore

AT = PointNm(485, 365, 625)
"""On the upper ball of `neurites`: the bridge below it is to cut, the tube above to join."""

_keys = (f"proofread-{n}" for n in count())


class Proofreader:
    """One person at one dataset."""

    def __init__(self, assistant: Assistant, store: LabelStore, user: str = "ada") -> None:
        info = assistant.info
        self.assistant, self.user = assistant, user
        self.found: SuggestionList = assistant.suggest(AT)
        self.log = DecisionLog(store, user=user, dataset=info.name, version=info.version)
        self.views = ViewsStore(store.views_folder)

    def first(self, kind: Kind) -> Suggestion:
        return next(s for s in self.found.suggestions if s.site.kind is kind)

    def decide(
        self, suggestion: Suggestion, verdict: Verdict, *, keep_views: bool = True, **changes
    ) -> LabelEvent:
        sha256, data = self.assistant.views_of(suggestion.id)
        if keep_views:
            self.views.put(data, sha256)
        return self.log.decide(
            self.decision(suggestion, verdict, sha256 if keep_views else None, **changes)
        )

    def none_of(self, suggestions: Sequence[Suggestion]) -> LabelEvent:
        shown = tuple(alternative(s) for s in suggestions)
        return self.log.decide(
            self.decision(suggestions[0], Verdict.NONE, None, alternatives=shown, joint=True)
        )

    def decision(
        self, suggestion: Suggestion, verdict: Verdict, sha256: str | None, **changes
    ) -> Decision:
        info, site = self.assistant.info, suggestion.site
        given = {
            "suggestion": suggestion,
            "verdict": verdict,
            "dataset": info.name,
            "version": info.version,
            "model_name": self.found.model_name,
            "model_sha256": self.found.model_sha256,
            "calibrator": self.found.calibrator,
            "base_rate": self.found.base_rates[site.kind],
            "rank": self.found.suggestions.index(suggestion),
            "alternatives": (),
            "user": self.user,
            "key": "f",
            "idempotency_key": next(_keys),
            "shown_at": "2026-01-02T03:04:05.000Z",
            "decided_at": "2026-01-02T03:04:06.000Z",
            "idle_ms": 0,
            "licence": info.licence,
            "species": info.species,
            "supervoxels": (site.segment, site.partner),
            "views_sha256": sha256,
        }
        return Decision(**(given | changes))
