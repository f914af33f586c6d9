"""Filling the queue from a small volume with a tiny network."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from neurites import DUMBBELL, PARTNER

from cb2_assist.app import DatasetChoice, build_assistant
from cb2_assist.core.errors import DatasetError
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import Kind, SegmentId
from cb2_assist.labels.queue_store import Scope
from cb2_assist.labels.sqlite import SqliteLabelStore
from cb2_assist.learning.cover import Stop, stops_in_box, stops_on_segments
from cb2_assist.learning.fill import fill


@pytest.fixture(scope="module")
def assistant(neurites_file, tiny_model_folder, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data-home")))
        made = build_assistant(
            DatasetChoice(file=neurites_file), model=tiny_model_folder, device="cpu"
        )
    yield made
    made.close()


@pytest.fixture
def queue(tmp_path: Path):
    with SqliteLabelStore(tmp_path / "labels.sqlite") as store:
        yield store.queue


@pytest.fixture
def scope(assistant) -> Scope:
    return Scope(assistant.info.name, assistant.info.version, (SegmentId(DUMBBELL),))


@pytest.fixture(scope="module")
def stops(assistant) -> list[Stop]:
    return stops_on_segments(assistant.source, [(SegmentId(DUMBBELL), None)])


def sites(queue, scope):
    return {w.site: w.score for w in queue.waiting(scope, now=0.0)}


def test_what_a_person_would_find_along_the_segment_is_queued(
    assistant, queue, scope, stops
) -> None:
    done = fill(assistant, queue, scope, stops)
    assert (done.done, done.total, done.updated, done.missed) == (len(stops), len(stops), 0, 0)
    found = {
        s.id: s for stop in stops for s in assistant.suggest(stop.at, stop.segment).suggestions
    }
    assert done.new == len(found)
    assert sites(queue, scope) == {i: s.score for i, s in found.items()}
    for i, s in found.items():
        item = queue.item(scope.dataset, scope.version, i)
        assert (item.site, item.suggestion.confidence) == (s.site, s.confidence)
        assert item.base_rate == assistant.base_rates[s.site.kind].value
    kinds = {queue.item(scope.dataset, scope.version, i).site.kind for i in found}
    assert kinds == {Kind.JOIN, Kind.CUT}


def test_filling_again_changes_nothing(assistant, queue, scope, stops) -> None:
    first = fill(assistant, queue, scope, stops)
    before = sites(queue, scope)
    again = fill(assistant, queue, scope, stops)
    assert first.new > 0
    assert (again.new, again.updated, again.done) == (0, 0, len(stops))
    assert sites(queue, scope) == before


def test_a_join_is_one_site_from_both_sides(assistant, queue) -> None:
    scope = Scope(assistant.info.name, assistant.info.version)
    fill(assistant, queue, scope, stops_in_box(assistant.source, assistant.source.bounds))
    items = [queue.item(scope.dataset, scope.version, i) for i in sites(queue, scope)]
    joins = [i.site for i in items if i.site.kind is Kind.JOIN]
    assert [{j.segment, j.partner} for j in joins] == [{DUMBBELL, PARTNER}]


def test_one_kind_and_a_limit_are_heeded(assistant, queue, scope, stops) -> None:
    cuts = fill(assistant, queue, scope, stops, kind=Kind.CUT)
    assert cuts.new == len(sites(queue, scope)) > 0
    assert {w.kind for w in queue.waiting(scope, now=0.0)} == {Kind.CUT}


def test_a_fill_with_a_limit_goes_on_where_it_stopped(assistant, queue, scope, stops) -> None:
    whole = len(
        {s.id for stop in stops for s in assistant.suggest(stop.at, stop.segment).suggestions}
    )
    assert whole > 1
    first = fill(assistant, queue, scope, stops, limit=1)
    assert (first.new, len(sites(queue, scope))) == (1, 1)
    fill(assistant, queue, scope, stops)
    assert len(sites(queue, scope)) == whole


def test_only_what_lies_in_the_box_is_kept(assistant, queue) -> None:
    info = assistant.info
    box = (PointNm(0, 0, 600), PointNm(960, 720, 1120))
    scope = Scope(info.name, info.version, (), box)
    fill(assistant, queue, scope, stops_in_box(assistant.source, assistant.source.bounds))
    assert sites(queue, Scope(info.name, info.version)) == sites(queue, scope)
    for i in sites(queue, scope):
        assert 600 <= queue.item(info.name, info.version, i).site.point.z < 1120


class Faulty:
    """An assistant that remembers what it was asked, and stops answering."""

    def __init__(self, assistant, after: int) -> None:
        self.assistant, self.judge, self.left = assistant, assistant.judge, after
        self.asked: list[PointNm] = []
        self.judged: list[str] = []

    def suggest(self, at, segment, kind=None, limit=16, *, known=None):
        self.asked.append(at)
        if self.left == 0:
            raise DatasetError("The disk is away.")
        self.left -= 1
        found = self.assistant.suggest(at, segment, kind, limit, known=known)
        self.judged += [s.id for s in found.suggestions]
        return found

    def signals_of(self, suggestion_id):
        return self.assistant.signals_of(suggestion_id)


def test_a_fill_that_broke_off_goes_on_where_it_stopped(assistant, queue) -> None:
    info, source = assistant.info, assistant.source
    scope = Scope(info.name, info.version)
    stops = stops_in_box(source, source.bounds)
    assert len(stops) >= 3
    faulty = Faulty(assistant, 1)
    with pytest.raises(DatasetError, match="away"):
        fill(faulty, queue, scope, stops)
    assert queue.fills(info.name, info.version)[0].done == 1
    rest = Faulty(assistant, 100)
    done = fill(rest, queue, scope, stops)
    assert rest.asked == [s.at for s in stops[1:]]
    assert done.done == len(stops)


def test_a_place_without_the_segment_is_counted_and_passed_over(assistant, queue, scope) -> None:
    lost = Stop(SegmentId(DUMBBELL), PointNm(45, 45, 1105))
    done = fill(assistant, queue, scope, [lost])
    assert (done.missed, done.new, done.done) == (1, 0, 1)


def test_a_fill_can_be_stopped_between_places(assistant, queue, scope, stops) -> None:
    stop = threading.Event()
    stop.set()
    assert fill(assistant, queue, scope, stops, stop=stop).done == 0
    assert sites(queue, scope) == {}


def test_nothing_is_judged_twice_by_one_model(assistant, queue) -> None:
    info, source = assistant.info, assistant.source
    scope, stops = Scope(info.name, info.version), stops_in_box(source, source.bounds)
    first = Faulty(assistant, 100)
    fill(first, queue, scope, stops)
    assert sorted(first.judged) == sorted(sites(queue, scope))
    second = Faulty(assistant, 100)
    fill(second, queue, scope, stops)
    assert len(second.asked) == len(stops)
    assert second.judged == []
    queue.mark_stale(info.name, info.version, first.judged[0], "test", user="x", now=0.0)
    third = Faulty(assistant, 100)
    fill(third, queue, scope, stops)
    assert third.judged == [first.judged[0]], "what was lost is looked at again"
    second.judge = "another model"
    fill(second, queue, scope, stops)
    assert set(second.judged) == set(first.judged)
