"""When a word is said about the pace, and when not."""

from __future__ import annotations

import random

from cb2_assist.core.records import Verdict
from cb2_assist.review.pace import HASTY, LONG_RUN, PAUSE, Pace

YES, NO = Verdict.ACCEPT, Verdict.REJECT


def words(pace: Pace, *verdicts: Verdict, ms: float = 4000.0) -> list[str]:
    return [said for v in verdicts if (said := pace.note(v, ms))]


def test_answers_faster_than_anybody_reads_bring_a_word_once() -> None:
    pace = Pace()
    said = words(pace, *[YES, NO] * 10, ms=400.0)
    assert said == ["6 of your last 6 answers came within 1 s: is there time to look?"]
    assert words(pace, *[YES, NO] * ((PAUSE - 20 + HASTY) // 2), ms=400.0) == [], "not again soon"
    assert len(words(pace, *[YES, NO] * 20, ms=400.0)) == 1


def test_a_fast_answer_now_and_then_brings_none() -> None:
    pace = Pace()
    for n in range(200):
        assert pace.note(YES if n % 2 else NO, 400.0 if n % 2 else 3000.0) == ""


def test_a_long_run_brings_a_word_where_the_other_answer_was_common() -> None:
    pace = Pace()
    words(pace, *[YES, NO] * 20)
    said = words(pace, *[NO, *[YES] * LONG_RUN])
    assert said == [
        "20 accepts in a row, more than your earlier answers would make likely: still looking at "
        "each?"
    ]


def test_who_rejects_nearly_all_is_left_in_peace() -> None:
    pace = Pace()
    rng = random.Random(1)
    answers = [YES if rng.random() < 0.04 else NO for _ in range(600)]
    assert words(pace, *answers) == []


def test_chance_alone_is_hardly_ever_taken_for_a_run() -> None:
    rng = random.Random(2)
    said = 0
    for _ in range(60):
        said += len(words(Pace(), *[rng.choice([YES, NO]) for _ in range(200)]))
    assert said <= 1


def test_skips_and_flags_are_no_answers_and_none_is_a_reject() -> None:
    pace = Pace()
    for _ in range(50):
        assert pace.note(Verdict.SKIP, 100.0) == pace.note(Verdict.FLAG, 100.0) == ""
    words(pace, *[YES, NO] * 20)
    assert words(pace, YES, *[Verdict.NONE, NO] * (LONG_RUN // 2)) != []
