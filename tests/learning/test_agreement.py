"""People against people and against the model, over label files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from label_makers import DATASET, USER, VERSION, decision, suggestion
from sklearn.metrics import cohen_kappa_score

from cb2_assist.core.records import Kind, Verdict
from cb2_assist.decisions.log import alternative
from cb2_assist.labels.queue_store import Scope
from cb2_assist.labels.store import EventKind, NewEvent, open_store
from cb2_assist.learning.agreement import agreement
from cb2_assist.learning.agreement_report import agreement_report
from cb2_assist.learning.asks import (
    DISAGREEMENTS,
    OVERLAP,
    ask_disagreements,
    ask_overlap,
    source_of,
)
from cb2_assist.learning.calibration_labels import calibration_labels
from cb2_assist.learning.queue import draw
from cb2_assist.learning.ratings import about, consensus_of, disagreements, read_ratings

YES, NO = Verdict.ACCEPT, Verdict.REJECT
NOW = 1000.0


@pytest.fixture
def store(tmp_path: Path):
    with open_store(f"sqlite:///{tmp_path}/labels.sqlite") as opened:
        yield opened


@pytest.fixture
def other(tmp_path: Path):
    with open_store(f"sqlite:///{tmp_path}/other.sqlite") as opened:
        yield opened


def say(store, n: int, verdict: Verdict, user: str = USER, **changes):
    key = changes.pop("key", f"{user}-{n}-{verdict}-{len(list(store.events()))}")
    return store.append(NewEvent.of(decision(n, verdict, user=user, key=key, **changes)))


def scored(n: int, score: float):
    return replace(suggestion(n), score=score)


def document(*stores, **options):
    return agreement(read_ratings(stores, **options), name=str, draws=200)


def test_people_are_compared_on_the_sites_that_both_answered(store, other) -> None:
    first = [YES, YES, NO, NO, YES, NO, YES, NO, NO, NO]
    second = [YES, NO, NO, NO, YES, NO, YES, YES, NO, NO]
    for n, (a, b) in enumerate(zip(first, second, strict=True)):
        say(store, n, a)
        say(other, n, b, "bob")
    say(store, 20, YES)
    found = document(store, other)["all"]
    assert (found["n_items"], found["n_overlapping"], found["n_disagree"]) == (11, 10, 2)
    (pair,) = found["pairs"]
    assert (pair["first"], pair["second"], pair["n"]) == (USER, "bob", 10)
    assert pair["agreement"]["value"] == pytest.approx(0.8)
    assert pair["cohen_kappa"]["value"] == pytest.approx(
        cohen_kappa_score([v is YES for v in first], [v is YES for v in second])
    )
    low, high = pair["cohen_kappa"]["ci95"]
    assert low < pair["cohen_kappa"]["value"] < high
    assert (pair["mcnemar"]["only_first_accepts"], pair["mcnemar"]["p"]) == (1, 1.0)
    assert found["fleiss_kappa"]["n"] == found["krippendorff_alpha"]["n"] == 10


def test_the_model_accepts_above_one_half_and_hidden_scores_are_told_apart(store) -> None:
    for n, (verdict, score, hidden) in enumerate(
        [(YES, 0.9, False), (NO, 0.2, False), (YES, 0.5, True), (NO, 0.6, True), (NO, 0.1, True)]
    ):
        say(store, n, verdict, suggestion=scored(n, score), score_hidden=hidden)
    (found,) = document(store)["all"]["with_model"]
    assert {
        part: (found[part]["n"], found[part]["agreement"]["value"])
        for part in found
        if part != "person"
    } == {
        "all": (5, pytest.approx(0.6)),
        "score_shown": (2, 1.0),
        "score_hidden": (3, pytest.approx(1 / 3)),
    }
    assert found["score_hidden"]["mcnemar"]["only_second_accepts"] == 1


class TestWhatCounts:
    def test_of_one_person_s_answers_the_last_one_in_force(self, store) -> None:
        say(store, 1, YES)
        say(store, 1, NO)
        say(store, 2, YES)
        undone = say(store, 2, NO)
        store.append(NewEvent(EventKind.UNDO, USER, DATASET, VERSION, "u", target=undone.id))
        say(store, 3, YES)
        say(store, 3, Verdict.UNSURE)
        say(store, 4, YES)
        say(store, 4, Verdict.SKIP)
        ratings = read_ratings([store])
        said = {i.site: r[USER].accepts for i, r in ratings.everything.items()}
        assert said == {suggestion(1).id: False, suggestion(2).id: True, suggestion(4).id: True}
        assert ratings.left_out == {
            "answered again later by the same person": 2,
            "undone": 1,
            "unsure": 1,
        }

    def test_a_copy_of_a_file_counts_nothing_twice(self, store, other) -> None:
        for opened in (store, other):
            say(opened, 1, YES, key="same")
            say(opened, 2, YES, key="later undone")
        gone = other.find("later undone").id
        other.append(NewEvent(EventKind.UNDO, USER, DATASET, VERSION, "u", target=gone))
        found = document(store, other)
        assert (found["n_items"], found["all"]["n_ratings"]) == (1, 1)
        assert found["left_out"] == {"the same event in another file": 2, "undone": 1}

    def test_one_person_in_two_files_answers_a_site_once(self, store, other) -> None:
        say(store, 1, YES)
        say(other, 1, NO, key="elsewhere")
        ratings = read_ratings([other, store])
        (of_item,) = ratings.everything.values()
        assert {user: r.accepts for user, r in of_item.items()} == {USER: False}
        assert ratings.left_out == {"answered again later by the same person": 1}

    def test_within_a_file_events_count_in_their_order_whatever_the_clock_said(
        self, store, monkeypatch
    ) -> None:
        say(store, 1, YES)
        late, early = list(store.labels()), []
        say(store, 1, NO)
        early = list(store.labels())[1:]
        back = replace(early[0], event=replace(early[0].event, recorded_at="2001-01-01T00:00:00Z"))
        monkeypatch.setattr(store, "labels", lambda **_: iter([*late, back]))
        (of_item,) = read_ratings([store]).everything.values()
        assert not of_item[USER].accepts

    def test_other_versions_are_other_questions_and_that_is_said(self, store) -> None:
        say(store, 1, YES)
        say(store, 1, NO, "bob", version="v2")
        found = document(store)
        assert found["all"]["n_overlapping"] == 0
        assert found["versions"] == {DATASET: ["v1", "v2"]}
        assert "within its own version only" in found["notes"][0]
        assert "No site was answered by two people (2 answered any)" in found["notes"][1]

    def test_none_of_these_rejects_for_that_person_too(self, store) -> None:
        shown = (alternative(suggestion(0)), alternative(suggestion(1)))
        say(store, 0, Verdict.NONE, joint=True, alternatives=shown)
        say(store, 1, YES, "bob")
        assert document(store)["all"]["n_disagree"] == 1

    def test_kind_and_dataset_can_be_chosen(self, store) -> None:
        say(store, 1, YES)
        say(store, 2, NO, kind=Kind.CUT)
        say(store, 3, NO, dataset="other")
        assert document(store, kind=Kind.CUT)["n_items"] == 1
        assert document(store, dataset=DATASET)["n_items"] == 2
        assert set(document(store)["by_kind"]) == {"join", "cut"}

    def test_nothing_at_all_is_a_document_too(self, store) -> None:
        found = document(store)
        assert found["n_items"] == 0
        assert "No site was answered by two people (0 answered any)" in agreement_report(found)


class TestDesk:
    @pytest.fixture
    def split(self, store):
        """Two people, who differ on site 1 and not on site 2; only site 1 gets to the desk."""
        for user, verdict in ((USER, YES), ("bob", NO)):
            say(store, 1, verdict, user)
            say(store, 2, YES, user)
        return store

    def queue(self, store) -> int:
        ratings = read_ratings([store])
        found = [
            (store.get(next(iter(a.values())).event).decision, item.site, sorted(a))
            for item, a in disagreements(ratings)
        ]
        return ask_disagreements(store.queue, found, after_event=ratings.newest[0], now=NOW)

    def test_a_disagreement_is_drawn_for_a_third_person_only(self, split) -> None:
        assert (self.queue(split), self.queue(split)) == (1, 0)
        scope = split.queue.fills(DATASET, VERSION)[0].scope
        assert scope == Scope(DATASET, VERSION, source=DISAGREEMENTS)
        for user in (USER, "bob"):
            assert draw(split.queue, scope, user, now=NOW) is None
        drawn = draw(split.queue, scope, "cy", now=NOW)
        assert drawn.site == suggestion(1).id
        assert source_of(drawn.propensity()) == DISAGREEMENTS

    def test_the_third_answer_stands_beside_the_others_and_decides(self, split) -> None:
        self.queue(split)
        before = document(split)
        scope = Scope(DATASET, VERSION, source=DISAGREEMENTS)
        drawn = draw(split.queue, scope, "cy", now=NOW)
        say(split, 1, NO, "cy", propensity=drawn.propensity())
        after = document(split)
        assert before["all"] == after["all"], "it was not independent"
        assert (before["disagreements"], after["disagreements"]) == (1, 0)
        assert before["consensus"]["tie"] == after["consensus"]["reject"] == 1
        states = {(x.site, x.event.user): x.state.value for x in split.labels()}
        assert set(states.values()) == {"in force"}
        assert len(states) == 5
        assert self.queue(split) == 0

    def test_a_member_of_none_gets_to_the_desk_with_its_own_numbers(self, store) -> None:
        shown = (alternative(suggestion(0)), alternative(scored(1, 0.3)))
        say(store, 0, Verdict.NONE, joint=True, alternatives=shown)
        say(store, 1, YES, "bob")
        assert self.queue(store) == 1
        item = store.queue.item(DATASET, VERSION, suggestion(1).id)
        assert item.suggestion.score == 0.3
        assert item.site == suggestion(1).site

    def test_calibration_takes_no_answer_from_the_desk_and_none_twice(self, store) -> None:
        drawn = {
            "how": "queue",
            "explore": True,
            "scope": "{}",
            "draw": 1,
            "probability": 0.5,
            "n_open": 2,
        }
        say(store, 1, YES, propensity=drawn)
        say(store, 1, NO, "bob", propensity={**drawn, "draw": 2})
        say(store, 2, NO, "cy", propensity={**drawn, "scope": '{"source":"disagreements"}'})
        found = calibration_labels(store.labels(), model_sha256="ab" * 32, calibrator="cal-1")
        assert [d.accepted for d in found.drawn] == [True]
        assert set(found.left_out[Kind.JOIN]) == {
            "of a second person on the same site",
            "asked again because people disagree, or to compare them",
        }


def test_a_share_of_the_queue_is_asked_of_two_people_and_grows_with_it(store) -> None:
    from contracts.queue_store import put

    put(store, *range(60))
    scope = Scope(DATASET, VERSION)
    first = ask_overlap(store.queue, scope, share=0.3, people=2, now=NOW)
    assert 8 <= first <= 30
    assert ask_overlap(store.queue, scope, share=0.3, people=2, now=NOW) == 0
    more = ask_overlap(store.queue, scope, share=0.6, people=2, now=NOW)
    assert more > 0
    both = Scope(DATASET, VERSION, source=OVERLAP)
    assert len(store.queue.waiting(both, now=NOW)) == first + more


def test_consensus_keeps_a_tie_and_names_nobody(store) -> None:
    say(store, 1, YES)
    say(store, 1, NO, "bob")
    ratings = read_ratings([store])
    ((item, of_item),) = ratings.everything.items()
    assert consensus_of(of_item) == "tie"
    line = about(item, of_item)
    assert (line["n_accept"], line["n_reject"], line["licence"]) == (1, 1, "CC-BY-4.0")
    assert "bob" not in str(line)
    say(store, 1, NO, "cy")
    (of_item,) = read_ratings([store]).everything.values()
    assert consensus_of(of_item) == "reject"


def test_the_report_says_who_and_how_far(store) -> None:
    for n in range(6):
        say(store, n, YES)
        say(store, n, YES if n % 3 else NO, "bob|x")
    text = agreement_report(document(store))
    assert "12 answers of 2 people on 6 sites" in text
    assert r"| ada / bob\|x | 6 | 0.667 [" in text
    assert "| ada / model, score on screen | 6 | 1.000" in text
    assert "6 sites: 4 accept, 0 reject, 2 tie (majority" in text
