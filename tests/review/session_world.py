"""A session on fakes."""

from __future__ import annotations

from page_fakes import (
    BASE,
    MemoryLog,
    MemoryViews,
    ToyAssistant,
)

from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import Verdict
from cb2_assist.review.answers import Answer
from cb2_assist.review.session import ReviewSession
from cb2_assist.review.state import Cursor, StateFile

AT = PointNm(480, 480, 480)
CENTRE = BASE + 13


class World:
    """A session on fakes."""

    def __init__(self, tmp_path, *, keep_views: bool = True) -> None:
        self.assistant, self.log, self.views = ToyAssistant(), MemoryLog(), MemoryViews()
        self.path = tmp_path / "state.json"
        self.keep_views = keep_views
        self.keys = 0
        self.session = self.open()

    def open(self) -> ReviewSession:
        views = self.views if self.keep_views else None
        return ReviewSession(
            self.assistant, self.log, views, user="tester", state=StateFile(self.path)
        )

    def propose(self, segment: int = CENTRE) -> str | None:
        cursor = Cursor(AT, segment)
        return self.session.proposals.propose(self.session.proposals.begin(cursor), cursor)

    def decide(self, suggestion_id: str, verdict: Verdict = Verdict.ACCEPT, **fields) -> str:
        self.keys += 1
        given = {
            "suggestion_id": suggestion_id,
            "verdict": verdict,
            "idempotency_key": f"key-{self.keys}",
            "key": "f",
            "shown_ms": 2000.0,
            "age_ms": 0.0,
            "idle_ms": 500.0,
        }
        return self.session.decide(Answer(**{**given, **fields}))

    @property
    def ids(self) -> list[str]:
        return [s.id for s in self.session.screen.suggestions]
