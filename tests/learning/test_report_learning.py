"""The parts of a report about what was learnt: known wrong ones, curve, what is left, flags."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from label_makers import DATASET, USER, VERSION, decision, queue_item, seeded_decision, suggestion
from test_report import drawn, one

from cb2_assist.core.records import Verdict
from cb2_assist.labels.queue_store import NewDraw, Scope
from cb2_assist.labels.store import NewEvent, open_store
from cb2_assist.learning.learning_curve import Judged, learning_curve
from cb2_assist.learning.report import report
from cb2_assist.learning.report_text import markdown, methods, pictures
from cb2_assist.server.report_page import page

YES, NO = Verdict.ACCEPT, Verdict.REJECT
ALL = Scope(DATASET, VERSION)


@pytest.fixture
def store(tmp_path: Path):
    with open_store(f"sqlite:///{tmp_path}/labels.sqlite") as opened:
        yield opened


class TestKnownWrong:
    @pytest.fixture
    def two(self, store):
        for n in range(8):
            store.append(NewEvent.of(seeded_decision(n, NO if n else YES)))
        store.append(NewEvent.of(seeded_decision(9, Verdict.UNSURE)))
        store.append(NewEvent.of(seeded_decision(10, Verdict.SKIP)))
        for n in range(4):
            store.append(NewEvent.of(seeded_decision(n, YES, user="bob")))
        return store

    def test_a_person_is_told_their_own_rate_and_nobody_else_s(self, two) -> None:
        document = report(two, only=USER)
        (mine,) = document["people"]
        own = mine["seeded"]
        assert (own["n"], own["caught"], own["unsure"]) == (8, 7, 1)
        assert mine["seeded"]["ci95"] == pytest.approx([0.529, 0.978], abs=1e-3)
        assert document["seeded"] == {"n": 13, "all": None}
        assert document["label_counts"]["n"] == 0
        text = markdown(document)
        assert "| ada | 8 | 7 | 1 | 1 | 0.875 (0.529 to 0.978) |" in text
        assert "bob" not in text
        assert "0.583" not in text + methods(document), "the rate of all tells that of the other"
        assert "0.875 (0.529 to 0.978)" in page(document)

    def test_the_owner_is_told_everybody_s(self, two) -> None:
        document = report(two, with_names=True)
        found = {p["person"]: p["seeded"]["rate"] for p in document["people"]}
        assert found == {USER: 0.875, "bob": 0.0}
        assert document["seeded"]["all"]["rate"] == pytest.approx(7 / 12)
        two.append(one(1))
        text = methods(report(two))
        assert "answered 13 times and left out of the labels" in text
        assert "a share of 0.583 (0.320 to 0.807) of them was rejected" in text


class TestCurve:
    def test_it_is_told_by_model_against_the_number_of_labels(self) -> None:
        old, new = ("m", "a" * 64), ("m", "b" * 64)
        labels = [Judged(old, n % 2 == 0, n % 10 == 0, "t") for n in range(60)]
        labels += [Judged(new, True, True, "t") for _ in range(25)]
        labels += [Judged(old, None, False, "t")]
        first, second = learning_curve(labels)["models"]
        assert (first["sha256"], first["n"], first["agreement"]["value"]) == ("a" * 64, 61, 0.5)
        assert (first["random"]["n"], first["random"]["value"]) == (6, 1.0)
        assert [p["labels"] for p in first["points"]] == [20, 41, 86]
        assert sum(p["n"] for p in first["points"]) == 61
        assert [p["labels"] for p in second["points"]] == [85]
        low, high = second["agreement"]["ci95"]
        assert 0.85 < low < high == 1.0

    def test_it_is_drawn_and_named_in_the_methods(self, store) -> None:
        store.append_all([drawn(n, n % 4 != 0, 0.9) for n in range(60)])
        newer = {"model_sha256": "cd" * 32, "model_name": "newer"}
        store.append_all(
            [one(n, suggestion=replace(suggestion(n), score=0.9), **newer) for n in range(100, 125)]
        )
        document = report(store)
        ET.fromstring(pictures(document)["learning-curve"])
        assert "![Learning curve: answers as the model]" in markdown(document)
        text = methods(document)
        assert "The learning curve of cb2a-tiny (abababab) rests on 60 labels" in text
        assert "on the 60 sites drawn at random with 0.750" in text
        assert "The learning curve of newer (cdcdcdcd) rests on 25 labels" in text


class TestLeft:
    @pytest.fixture
    def queued(self, store, monkeypatch):
        """60 sites of which every fifth is true; all but 10 drawn at random and answered."""
        fill = store.queue.begin_fill(ALL, None, "judge", 1, now=0.0)
        store.queue.put(fill.id, [queue_item(n) for n in range(60)], done=1, now=0.0)
        monkeypatch.setattr("cb2_assist.labels.event_tables.datetime", Clock())
        for n in range(50):
            new = NewDraw(ALL, USER, n, n, "random", 0.1, 60 - n, 0, False, 1 / (60 - n), item(n))
            assert store.queue.take(new, now=Clock.seconds + 0.5) is not None
            store.append(NewEvent.of(decision(n, YES if n % 5 == 0 else NO)))
        return store

    def test_the_estimate_has_its_interval_its_rule_and_its_history(self, queued) -> None:
        document = report(queued)
        (part,) = document["remaining"]["parts"]
        assert set(part["kinds"]) == {"join"}, "there are no cuts in the queue"
        found = part["kinds"]["join"]
        assert (found["found"], found["random_answers"], found["of_them_true"]) == (10, 50, 10)
        low, high = found["interval"]
        assert low <= found["value"] <= high <= 10
        history = found["history"]
        assert [h["random_answers"] for h in history] == [5 * k for k in range(1, 11)]
        assert [h["found"] for h in history] == list(range(1, 11))
        text = markdown(document)
        assert found["stop"]["text"] in text
        assert "![True joins in this dataset](left-0-join.svg)" in text
        ET.fromstring(pictures(document)["left-0-join"])
        said = methods(document)
        assert "estimated by inverse probabilities from 50 sites drawn at random" in said
        assert "the rule was to stop once at least 95% were found" in said
        json.dumps(document, allow_nan=False)

    def test_nothing_queued_is_said(self, store) -> None:
        store.append(one(1))
        assert "Nothing was queued" in markdown(report(store))


class Clock:
    """A second passes with each event."""

    seconds = 0

    def now(self, zone):
        Clock.seconds += 1
        return datetime.fromtimestamp(Clock.seconds, zone)


def item(n: int) -> str:
    return suggestion(n).id


def test_flags_are_listed_with_their_notes(store) -> None:
    store.append(NewEvent.of(decision(1, Verdict.FLAG, note="soma <b>?")))
    store.append(NewEvent.of(decision(2, Verdict.FLAG, note="done")))
    store.append(NewEvent.of(decision(2)))
    document = report(store, only=USER)
    assert [(f["note"], f["answered"], f["person"]) for f in document["flags"]] == [
        ("soma <b>?", False, USER),
        ("done", True, USER),
    ]
    assert "soma &lt;b&gt;?" in page(document)
    assert document["times"]["n"] == 1, "a flag is no decision"
