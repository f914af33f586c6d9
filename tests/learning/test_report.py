"""What a report says of a label file."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from label_makers import DATASET, USER, decision, suggestion

from cb2_assist.core.records import Kind, Verdict
from cb2_assist.decisions.log import alternative
from cb2_assist.labels.store import EventKind, NewEvent, open_store
from cb2_assist.learning.export_rows import pseudonym
from cb2_assist.learning.report import LEAST_EFFECTIVE, report
from cb2_assist.learning.report_text import charts, markdown, methods, pictures
from cb2_assist.learning.report_times import Timed, habits, times

YES, NO = Verdict.ACCEPT, Verdict.REJECT
START = datetime(2026, 3, 1, 9, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path):
    with open_store(f"sqlite:///{tmp_path}/labels.sqlite") as opened:
        yield opened


def one(n: int, verdict: Verdict = YES, *, at_s: float = 0.0, took_s: float = 4.0, **changes):
    decided = START + timedelta(seconds=at_s)
    shown = decided - timedelta(seconds=took_s)
    changes.setdefault("idle_ms", 0)
    changes.setdefault("key", f"{n}-{verdict}-{changes.get('user', USER)}")
    made = decision(
        n, verdict, shown_at=shown.isoformat(), decided_at=decided.isoformat(), **changes
    )
    return NewEvent.of(replace(made, key="f"))


def drawn(n: int, accepted: bool, confidence: float, n_open: int = 1000):
    how = {
        "how": "queue",
        "explore": True,
        "scope": "{}",
        "draw": n + 1,
        "probability": 1 / n_open,
        "n_open": n_open,
    }
    asked = replace(suggestion(n), confidence=confidence, score=confidence)
    return one(n, YES if accepted else NO, at_s=10 * n, suggestion=asked, propensity=how)


class TestTimes:
    def test_idle_time_is_taken_off(self, store) -> None:
        for n, (took, idle) in enumerate([(4, 0), (8, 5000), (5, 0), (60, 54000), (7, 0)]):
            store.append(one(n, took_s=took, at_s=200 * n, idle_ms=idle))
        found = report(store)["times"]
        assert found["seconds"] == {"n": 5, "q25": 4.0, "median": 5.0, "q75": 6.0}
        assert found["per_hour"]["deciding"] == pytest.approx(3600 * 5 / 25)
        assert found["per_hour"]["in_sessions"] is None, "each was a session of its own"

    def test_a_session_is_from_one_decision_to_the_next(self, store) -> None:
        for n, at in enumerate([0, 10, 30, 60, 5000, 5010]):
            store.append(one(n, at_s=at, took_s=3))
        # 10 + 20 + 30 + 10 s for the four that followed another
        found = report(store)["times"]["per_hour"]
        assert found["in_sessions"] == pytest.approx(3600 * 4 / 70)
        assert found["deciding"] == pytest.approx(1200)

    def test_kinds_are_told_apart_and_few_have_no_figures(self, store) -> None:
        for n in range(6):
            store.append(one(n, took_s=2, at_s=9 * n))
        store.append(one(9, NO, took_s=30, kind=Kind.CUT))
        found = report(store)["times"]
        assert found["by_kind"]["join"]["median"] == 2.0
        assert found["by_kind"]["cut"] is None

    def test_a_clock_that_runs_backwards_is_told_and_gives_no_time(self, store) -> None:
        for n in range(5):
            store.append(one(n, at_s=10 * n))
        store.append(one(5, took_s=-3600))
        document = report(store)
        assert (document["times"]["n"], document["times"]["n_timed"]) == (6, 5)
        assert document["times"]["n_clock_backwards"] == 1
        assert document["times"]["seconds"]["q75"] == 4.0
        assert "In 1 decisions the clock ran backwards" in markdown(document)

    def test_scripts_have_no_time_and_skips_are_no_decisions(self, store) -> None:
        store.append(NewEvent.of(replace(decision(1), key="")))
        store.append(one(2, Verdict.SKIP))
        found = report(store)["times"]
        assert (found["n"], found["n_timed"], found["seconds"]) == (1, 0, None)

    def test_none_of_these_is_one_decision_with_several_labels(self, store) -> None:
        shown = (alternative(suggestion(0)), alternative(suggestion(1)))
        store.append(one(0, Verdict.NONE, joint=True, alternatives=shown))
        document = report(store)
        assert document["times"]["n"] == 1
        assert document["label_counts"]["by_kind"]["join"] == {"n": 2, "accept": 0, "reject": 2}


class TestHabits:
    def run(self, *verdicts: Verdict, seconds: float = 3.0):
        return habits([Timed(USER, Kind.JOIN, v, seconds, 0.0, 0.0, False) for v in verdicts])

    def test_a_long_run_is_odd_where_the_other_answer_is_common(self) -> None:
        mixed = [YES, NO] * 40
        assert self.run(*mixed, *[YES] * 20)["longest_run"] == {
            "verdict": "accept",
            "n": 20,
            "is_odd": True,
        }
        assert not self.run(*mixed, *[YES] * 5)["longest_run"]["is_odd"]

    def test_a_long_run_of_what_is_nearly_always_right_is_not_odd(self) -> None:
        rare = ([NO] * 30 + [YES]) * 5
        found = self.run(*rare)["longest_run"]
        assert (found["verdict"], found["n"], found["is_odd"]) == ("reject", 30, False)

    def test_chance_alone_is_odd_once_in_a_hundred(self) -> None:
        rng = np.random.default_rng(0)
        odd = sum(
            self.run(*(YES if x else NO for x in rng.random(200) < 0.5))["longest_run"]["is_odd"]
            for _ in range(300)
        )
        assert odd <= 9

    def test_answers_within_a_second_are_counted(self) -> None:
        assert self.run(YES, NO, seconds=0.4)["under_1_s"] == 1.0
        assert self.run()["under_1_s"] is None
        assert self.run()["longest_run"] == {"verdict": None, "n": 0, "is_odd": False}


class TestWhoSeesWhat:
    @pytest.fixture
    def two(self, store):
        for n in range(6):
            store.append(one(n, took_s=2, at_s=9 * n))
            store.append(one(n, took_s=40, at_s=9 * n, user="bob"))
        return store

    def test_a_person_is_told_their_own_speed_and_nobody_else_s(self, two) -> None:
        document = report(two, only="bob")
        (own,) = document["people"]
        assert (own["person"], own["seconds"]["median"]) == ("bob", 40.0)
        assert document["n_people"] == 2
        text = json.dumps(document) + markdown(document)
        assert USER not in text.replace("labels", "")
        assert pseudonym(USER, two.salt) not in text

    def test_the_owner_is_told_everybody_s_under_pseudonyms(self, two) -> None:
        found = {p["person"]: p["seconds"]["median"] for p in report(two)["people"]}
        assert found == {pseudonym(USER, two.salt): 2.0, pseudonym("bob", two.salt): 40.0}
        assert {p["person"] for p in report(two, with_names=True)["people"]} == {USER, "bob"}

    def test_somebody_without_decisions_is_told_of_none(self, two) -> None:
        assert report(two, only="cy")["people"] == []


class TestReliability:
    def test_it_needs_enough_drawn_labels(self, store) -> None:
        for n in range(50):
            store.append(one(n, YES if n % 2 else NO))
        document = report(store)
        entry = document["reliability"]["by_kind"]["join"]
        assert (entry["n"], entry["bins"]) == (0, None)
        assert entry["reason"].startswith("not enough evidence yet")
        assert entry["left_out"] == {"asked at the cursor": 50}
        assert "reliability-join" not in charts(document)

    def test_what_was_shown_is_held_against_what_was_answered(self, store) -> None:
        rng = np.random.default_rng(1)
        store.append_all(
            [
                drawn(n, bool(rng.random() < confidence), confidence)
                for n, confidence in enumerate(rng.choice([0.15, 0.85], 300).tolist())
            ]
        )
        document = report(store)
        entry = document["reliability"]["by_kind"]["join"]
        assert entry["n"] == entry["n_random"] == 300
        assert entry["n_effective"] > LEAST_EFFECTIVE
        for b, said in zip(entry["bins"], (0.15, 0.85), strict=True):
            assert b["said"] == pytest.approx(said)
            assert b["ci95"][0] < said < b["ci95"][1]
        ET.fromstring(pictures(document)["reliability-join"])
        assert "reliability-join.svg" in markdown(document)

    def test_one_answer_alone_says_nothing(self, store) -> None:
        store.append_all([drawn(n, True, 0.9) for n in range(100)])
        reason = report(store)["reliability"]["by_kind"]["join"]["reason"]
        assert "0 of the rarer answer" in reason

    def test_only_the_last_decision_s_model_is_judged(self, store) -> None:
        store.append_all([drawn(n, bool(n % 2), 0.5) for n in range(100)])
        store.append(one(500, model_sha256="cd" * 32, model_name="newer"))
        found = report(store)["reliability"]
        assert found["model"]["name"] == "newer"
        assert found["by_kind"]["join"]["left_out"]["another model's score"] == 100


def test_labels_in_force_count_once_each(store) -> None:
    store.append(one(1))
    store.append(one(1, NO))
    undone = store.append(one(2))
    undo = NewEvent(EventKind.UNDO, USER, DATASET, "v1", "u", target=undone.id)
    store.append(undo)
    found = report(store)["label_counts"]
    assert found["by_kind"]["join"] == {"n": 1, "accept": 0, "reject": 1}
    assert found["other_answers"] == {"superseded": 1, "undone": 1}


def test_over_time_parts_are_in_order_and_cover_every_label(store) -> None:
    store.append_all(
        [
            one(
                n,
                YES if n < 60 else NO,
                at_s=60 * n,
                suggestion=replace(suggestion(n), score=0.9 if n < 30 or n >= 90 else 0.2),
            )
            for n in range(120)
        ]
    )
    document = report(store)
    parts = document["over_time"]
    assert sum(p["n"] for p in parts) == 120
    assert [p["n"] for p in parts] == [20] * 6
    assert [p["accepted"]["value"] for p in parts] == [1, 1, 1, 0, 0, 0]
    assert parts[0]["with_model"]["value"] == 1
    assert parts[-1]["with_model"]["value"] == 0
    assert parts[-1]["upto"] == 1
    ET.fromstring(pictures(document)["over-time"])


def test_agreement_with_and_without_the_score_is_told_apart(store) -> None:
    for n in range(10):
        store.append(one(n, YES, suggestion=replace(suggestion(n), score=0.9)))
        hidden = replace(suggestion(20 + n), score=0.9)
        store.append(one(20 + n, YES if n < 5 else NO, suggestion=hidden, score_hidden=True))
    document = report(store)
    found = document["score_hidden"]
    assert found["shown"]["with_model"]["value"] == 1.0
    assert found["hidden"]["with_model"]["value"] == 0.5
    assert "| score hidden | 10 | 0.500 (0.237 to 0.763) |" in markdown(document)


def test_the_methods_paragraph_names_everything_a_reader_needs(store) -> None:
    for n in range(6):
        store.append(one(n, YES if n else NO, at_s=86400 * n))
    store.append(one(9, version="v2", licence="CC-BY-NC-4.0", score_hidden=True, user="bob"))
    text = methods(report(store))
    for part in (
        f"{DATASET} (segmentation version v1, CC-BY-4.0; 6 labels)",
        f"{DATASET} (segmentation version v2, CC-BY-NC-4.0; 1 labels)",
        f"cb2a-tiny (weights SHA-256 {'ab' * 32}, calibrator cal-1; 7 labels)",
        "Between 2026-03-01 and 2026-03-06 2 people gave 7 labels",
        "7 joins (6 accepted), 0 cuts (0 accepted)",
        "7 were asked where a person pointed",
        "hidden until the answer in 1 of them",
        "median of 4.0 s",
    ):
        assert part in text, part


def test_an_empty_file_has_a_report(store) -> None:
    document = report(store)
    text = markdown(document)
    assert "There is no accept or reject in force yet." in text
    assert "Not enough evidence yet: nothing has been decided." in text
    assert pictures(document) == {}
    json.dumps(document, allow_nan=False)


def test_names_of_datasets_are_no_markup(store) -> None:
    store.append(one(1, dataset="<b>|x"))
    assert "<b>|x" not in markdown(report(store)).replace("\\<b>\\|x", "")
    assert times([])["seconds"] is None
