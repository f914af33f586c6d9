"""What is known to be wrong, when it is shown, and how it looks then."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from label_makers import DATASET, USER, VERSION, decision, queue_item, seeded_decision, suggestion

from cb2_assist.core.geometry import BoxVx, PointNm, PointVoxel, Resolution
from cb2_assist.core.records import BaseRate, Kind, Site, SuggestionList, Verdict, segment_id
from cb2_assist.datasets.source import Cutout
from cb2_assist.labels.queue_store import Scope
from cb2_assist.labels.store import NewEvent, open_store
from cb2_assist.learning.calibration_labels import calibration_labels
from cb2_assist.learning.export_rows import label_rows
from cb2_assist.learning.ratings import read_ratings
from cb2_assist.learning.seeded import (
    PEOPLE,
    TRUTH,
    KnownWrong,
    Seeds,
    catches,
    disguised,
    is_wrong,
)

ALL = Scope(DATASET, VERSION)
NO = Verdict.REJECT
RES = Resolution(10.0, 10.0, 10.0)


class Bodies:
    """Two segments of 40 voxels side by side in x; `truth` says what they are."""

    resolution = RES
    bounds = BoxVx(PointVoxel(0, 0, 0), PointVoxel(80, 40, 40))

    def __init__(self, left: int, right: int) -> None:
        self.seg = np.ones((80, 40, 40), np.uint64)
        self.seg[40:] = 2
        self.truth = np.where(self.seg == 1, left, right).astype(np.uint64)

    def cutout(self, box: BoxVx) -> Cutout:
        whole = Cutout(self.bounds, RES, np.zeros(self.seg.shape, np.uint8), self.seg)
        return whole.crop(box)

    def truth_cutout(self, box: BoxVx) -> np.ndarray:
        return self.truth[tuple(slice(a, b) for a, b in zip(box.lo, box.hi, strict=True))]


@pytest.fixture
def store(tmp_path: Path):
    with open_store(f"sqlite:///{tmp_path}/labels.sqlite") as opened:
        yield opened


def say(store, n: int, verdict: Verdict = NO, user: str = "bob", score: float = 0.5) -> None:
    asked = replace(suggestion(n), score=score)
    key = f"{user}-{n}-{verdict.value}"
    store.append(NewEvent.of(decision(n, verdict, user=user, key=key, suggestion=asked)))


def seeds(store, share: float = 1.0, user: str = USER, truth=None) -> Seeds:
    made = Seeds(store, share, user, DATASET, VERSION, truth)
    made.refresh(now=0.0)
    return made


def shown_first(made: Seeds, n: int = 20) -> list[str]:
    out = []
    for number in range(n):
        if (known := made.pick(number)) is None:
            break
        out.append(known.site)
        made.drop(known.site)
    return out


class TestKnownWrong:
    def test_what_two_people_rejected_or_one_and_the_model(self, store) -> None:
        say(store, 1)
        say(store, 1, user="eve")
        say(store, 2, score=0.05)
        say(store, 3, score=0.5)
        assert set(shown_first(seeds(store))) == {suggestion(1).id, suggestion(2).id}
        assert seeds(store).pick(0).known_from == PEOPLE

    def test_not_what_anybody_accepted_was_unsure_of_or_took_back(self, store) -> None:
        for n, other in ((1, Verdict.ACCEPT), (2, Verdict.UNSURE)):
            say(store, n, score=0.05)
            say(store, n, other, user="eve")
        assert seeds(store).pick(0) is None

    def test_one_s_own_come_last_and_each_once(self, store) -> None:
        say(store, 1, user=USER, score=0.05)
        say(store, 2, score=0.05)
        assert shown_first(seeds(store)) == [suggestion(2).id, suggestion(1).id]
        store.append(NewEvent.of(seeded_decision(2, NO)))
        assert shown_first(seeds(store)) == [suggestion(1).id]
        assert suggestion(2).id in shown_first(seeds(store, user="eve"))

    def test_what_was_said_of_one_makes_none(self, store) -> None:
        store.append(NewEvent.of(seeded_decision(1, NO)))
        store.append(NewEvent.of(seeded_decision(1, NO, user="bob")))
        assert seeds(store).pick(0) is None

    def test_the_truth_says_which_joins_and_cuts_are_wrong(self) -> None:
        at = PointNm(400, 200, 200)
        join = Site(Kind.JOIN, segment_id(1), segment_id(2), at)
        cut = Site(Kind.CUT, segment_id(1), None, at)
        assert is_wrong(join, Bodies(5, 6))
        assert not is_wrong(join, Bodies(5, 5))
        assert not is_wrong(join, Bodies(5, 0)), "nothing is known of the right side"
        assert is_wrong(cut, Bodies(5, 6))
        two = Bodies(5, 6)
        two.truth[:, :10] = 9
        assert not is_wrong(cut, two)
        assert not is_wrong(join, two), "neither side is one body"

    def test_sites_of_the_queue_are_held_against_the_truth(self, store) -> None:
        at = PointNm(400, 200, 200)
        made = [
            replace(suggestion(n), site=Site(Kind.JOIN, segment_id(1), segment_id(2 + n), at))
            for n in range(2)
        ]
        fill = store.queue.begin_fill(ALL, None, "judge", 1, now=0.0)
        items = [
            replace(queue_item(n), suggestion=replace(s, views=())) for n, s in enumerate(made)
        ]
        store.queue.put(fill.id, items, done=1, now=0.0)
        known = seeds(store, truth=Bodies(5, 6)).pick(0)
        assert (known.site, known.known_from) == (suggestion(0).id, TRUTH)


class TestWhen:
    def test_the_share_is_met_alike_after_a_restart_and_apart_for_each_person(self, store) -> None:
        def of(user: str) -> list[bool]:
            made = Seeds(store, 0.1, user, DATASET, VERSION)
            return [made.is_next(n) for n in range(3000)]

        assert 230 < sum(of(USER)) < 370
        assert of(USER) == of(USER) != of("bob")

    def test_the_name_is_one_that_a_site_could_have(self, store) -> None:
        names = {Seeds(store, 1, USER, DATASET, VERSION).name(n) for n in range(50)}
        assert len(names) == 50
        assert all(len(n) == 16 and int(n, 16) >= 0 for n in names)


class TestLook:
    def listed(self, *changed) -> SuggestionList:
        rate = BaseRate(0.2, "default", 0)
        return SuggestionList(
            DATASET,
            VERSION,
            suggestion().site.segment,
            suggestion().site.point,
            tuple(changed),
            "m",
            "ab" * 32,
            "cal-1",
            dict.fromkeys(Kind, rate),
            {},
        )

    def test_it_has_the_numbers_of_another_and_its_place_among_the_rest(self) -> None:
        own = replace(suggestion(1), score=0.02, confidence=0.01, interval=(0.0, 0.03))
        other = queue_item(5, score=0.9, confidence=0.7, interval=(0.6, 0.8))
        known = KnownWrong(queue_item(1), PEOPLE)
        found = disguised(self.listed(suggestion(2), own), known, "0" * 16, ALL, other)
        first = found.suggestions[0]
        assert (first.id, first.score, first.confidence) == ("0" * 16, 0.9, 0.7)
        assert first.site == own.site
        assert [v.name for v in first.views] == ["front", "em_xy"]
        assert all(v.score > 0.95 for v in first.views), "moved along with the score"
        assert found.drawn.seeded == {"site": own.id, "known_from": PEOPLE, "score": 0.02}
        assert found.propensity_of("0" * 16) == {"how": "seeded", "scope": "{}"}
        text = str(found.to_json())
        assert "seeded" not in text
        assert own.id not in text

    def test_what_the_model_takes_for_right_keeps_its_numbers(self) -> None:
        known, other = KnownWrong(queue_item(1), TRUTH), queue_item(5, score=0.99)
        found = disguised(self.listed(suggestion(1)), known, "0" * 16, ALL, other)
        assert found.suggestions[0].score == suggestion(1).score

    def test_one_that_is_gone_or_marked_unreliable_is_not_shown(self) -> None:
        known = KnownWrong(queue_item(1), PEOPLE)
        assert disguised(self.listed(suggestion(2)), known, "0" * 16, ALL, None) is None
        marked = replace(suggestion(1), ood=replace(suggestion(1).ood, flag=True))
        assert disguised(self.listed(marked), known, "0" * 16, ALL, None) is None

    def test_numbers_come_from_a_site_that_the_model_takes_for_right(self, store) -> None:
        fill = store.queue.begin_fill(ALL, None, "judge", 1, now=0.0)
        items = [queue_item(n, score=s) for n, s in enumerate((0.2, 0.8, 0.4))]
        store.queue.put(fill.id, [*items, queue_item(7, Kind.CUT)], done=1, now=0.0)
        made = seeds(store)
        assert made.numbers_of(Kind.JOIN, ALL, 0, now=0.0) == items[1]
        assert made.numbers_of(Kind.CUT, ALL, 0, now=0.0).suggestion.score == 0.8
        store.append(NewEvent.of(decision(1)))
        assert made.numbers_of(Kind.JOIN, ALL, 0, now=0.0) is None


def test_it_never_leaves_calibrates_or_counts_as_agreement(store) -> None:
    how = {"how": "seeded", "scope": "{}"}
    store.append(NewEvent.of(seeded_decision(1, propensity=how)))
    store.append(NewEvent.of(seeded_decision(1, NO, user="bob", propensity=how)))
    skipped: Counter[str] = Counter()
    assert list(label_rows(store, skipped=skipped)) == []
    assert skipped == {"seeded": 2}
    found = calibration_labels(
        store.labels(dataset=DATASET), model_sha256="ab" * 32, calibrator="cal-1"
    )
    assert found.drawn == ()
    assert read_ratings([store]).everything == {}


def test_the_rate_has_an_interval_and_unsure_is_apart() -> None:
    found = catches({"reject": 9, "accept": 1, "unsure": 2, "skip": 4})
    assert (found["n"], found["caught"], found["missed"], found["unsure"]) == (10, 9, 1, 2)
    assert found["ci95"] == pytest.approx([0.596, 0.982], abs=1e-3)
    assert catches({})["rate"] is None
