"""Numbers that stay hidden until the answer."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest
from page_fakes import BASE, MemoryLog, MemoryViews, ToyAssistant, toy_list

from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import Verdict
from cb2_assist.review.answers import Answer
from cb2_assist.review.blind import Blind, without_numbers
from cb2_assist.review.session import ReviewSession
from cb2_assist.review.state import Cursor, StateFile

AT = PointNm(480, 480, 480)
CENTRE = BASE + 13
NUMBERS = ("score", "confidence", "interval")


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def open_session(tmp_path, log):
    opened = []

    def make(share: float = 1.0) -> ReviewSession:
        session = ReviewSession(
            ToyAssistant(),
            log,
            MemoryViews(),
            user="tester",
            state=StateFile(tmp_path / "state.json"),
            blind_share=share,
        )
        opened.append(session)
        cursor = Cursor(AT, CENTRE)
        session.proposals.propose(session.proposals.begin(cursor), cursor)
        return session

    yield make
    for session in opened:
        session.close(5)


def decide(session: ReviewSession, suggestion: str, verdict: Verdict = Verdict.ACCEPT, **more):
    given = {"idempotency_key": f"{suggestion}-{verdict}-{session.screen.revision}", "key": "f"}
    times = {"shown_ms": 2000.0, "age_ms": 0.0, "idle_ms": 0.0}
    session.decide(
        Answer(**{"suggestion_id": suggestion, "verdict": verdict, **given, **times}, **more)
    )


def shown(session: ReviewSession) -> dict[str, bool]:
    """Whether the page has a suggestion's numbers."""
    listed = session.snapshot()["list"]["suggestions"]
    for s in listed:
        assert len({s[name] is None for name in NUMBERS}) == 1
    return {s["id"]: s["score"] is not None for s in listed}


def test_the_page_gets_no_number_before_the_answer_and_all_after_it(open_session, log) -> None:
    session = open_session()
    first, *others = (s.id for s in session.screen.suggestions)
    assert set(shown(session).values()) == {False}
    document = session.snapshot()["list"]
    assert document["none_of_these"] is None
    assert all(one["none_of_these"] is None for one in document["joint_sets"])
    text = json.dumps(document["suggestions"])
    for s in session.screen.suggestions:
        for number in (s.score, s.confidence, *(v.score for v in s.views)):
            assert str(number) not in text.replace(json.dumps(s.to_json()["point_nm"]), "")
    decide(session, first)
    seen = shown(session)
    assert seen[first]
    assert not any(seen[i] for i in others)
    assert log.events[-1].decision.score_hidden
    assert log.events[-1].decision.suggestion.score is not None, "the label has it all the same"


def test_numbers_that_were_seen_once_are_not_hidden_again(open_session, log) -> None:
    session = open_session()
    first = session.screen.suggestions[0].id
    decide(session, first)
    log.undo(idempotency_key="u")
    again = open_session()
    assert shown(again)[first]
    decide(again, first, Verdict.REJECT)
    assert not log.events[-1].decision.score_hidden


def test_a_skip_reveals_nothing(open_session) -> None:
    session = open_session()
    first = session.screen.suggestions[0].id
    decide(session, first, Verdict.SKIP)
    assert not shown(session)[first]


def test_without_a_share_nothing_is_hidden(open_session, log) -> None:
    session = open_session(0.0)
    assert session.snapshot()["list"] == toy_list(CENTRE, AT).to_json()
    decide(session, session.screen.suggestions[0].id)
    assert not log.events[-1].decision.score_hidden


def test_what_was_answered_before_is_hidden_no_more() -> None:
    found = toy_list(CENTRE, AT)
    blind = Blind(1.0, "tester", {found.suggestions[0].id}.__contains__)
    assert blind.hidden(found) == {s.id for s in found.suggestions[1:]}
    assert blind.hidden(None) == frozenset()


def test_the_share_is_met_by_chance_alike_for_each_restart_and_apart_for_each_person() -> None:
    plain = toy_list(CENTRE, AT)
    many = replace(
        plain,
        suggestions=tuple(
            replace(plain.suggestions[0], id=f"{n:016x}", joint=None) for n in range(2000)
        ),
    )
    never = lambda _: False  # noqa: E731
    ada = Blind(0.25, "ada", never).hidden(many)
    assert Blind(0.25, "ada", never).hidden(many) == ada
    assert 430 < len(ada) < 570
    both = ada & Blind(0.25, "bob", never).hidden(many)
    assert 80 < len(both) < 175, "a sixteenth, as chance has it"


def test_joins_at_one_end_are_hidden_together() -> None:
    plain = toy_list(CENTRE, AT)
    ends = [f"7@{n},0,0" for n in range(300)]
    many = replace(
        plain,
        suggestions=tuple(
            replace(plain.suggestions[0], id=f"{n}-{k}", joint=end)
            for n, end in enumerate(ends)
            for k in range(3)
        ),
    )
    hidden = Blind(0.5, "ada", lambda _: False).hidden(many)
    counts = Counter(i.partition("-")[0] for i in hidden)
    assert set(counts.values()) == {3}
    assert 110 < len(counts) < 190


def test_what_is_not_hidden_stays_as_it_is() -> None:
    document = toy_list(CENTRE, AT).to_json()
    assert without_numbers(document, frozenset()) is document
    first = document["suggestions"][0]["id"]
    bare = without_numbers(document, frozenset([first]))
    assert bare["suggestions"][1:] == document["suggestions"][1:]
    assert bare["suggestions"][0]["score_hidden"]
    assert bare["suggestions"][0]["point_nm"] == document["suggestions"][0]["point_nm"]
