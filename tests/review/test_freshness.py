"""What a verdict is about, asked again just before it is recorded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from threading import Event

import pytest
from label_makers import BIG, suggestion

from cb2_assist.core.errors import NoAnswerError
from cb2_assist.core.records import Kind, SegmentId
from cb2_assist.review import freshness
from cb2_assist.review.freshness import Freshness

A, B = SegmentId(BIG), SegmentId(BIG + 1)
PARTS = (SegmentId(11), SegmentId(12))


class Graph:
    """Says what parts belong to; or fails, or waits."""

    def __init__(self) -> None:
        self.now: tuple[SegmentId, ...] = (A, B)
        self.fails: Exception | None = None
        self.gate: Event | None = None
        self.asked = 0

    def roots(self, supervoxels):
        self.asked += 1
        if self.gate is not None:
            self.gate.wait(30)
        if self.fails is not None:
            raise self.fails
        return self.now[: len(supervoxels)]


@pytest.fixture
def graph() -> Graph:
    return Graph()


@pytest.fixture
def fresh(graph) -> Iterator[Freshness]:
    made = Freshness(graph, clock=lambda: graph.asked * 0.0)
    yield made
    if graph.gate is not None:
        graph.gate.set()
    assert made.close(30)


JOIN = replace(suggestion(), supervoxels=PARTS)
CUT = replace(suggestion(kind=Kind.CUT), supervoxels=(PARTS[0], None))


def test_what_is_as_shown_needs_no_words(fresh):
    assert fresh.check(JOIN) == (None, "")
    assert fresh.check(CUT) == (None, "")


def test_what_has_changed_is_named(fresh, graph):
    graph.now = (SegmentId(77), B)
    assert fresh.check(JOIN)[0] == (77, B)
    assert "changed it since it was shown" in fresh.check(JOIN)[1]
    assert fresh.check(CUT)[0] == (77,)


def test_what_somebody_has_joined_is_said_to_be_one(fresh, graph):
    graph.now = (A, A)
    now, words = fresh.check(JOIN)
    assert now == (A, A)
    assert "joined the two" in words


def test_without_parts_nobody_is_asked(fresh, graph):
    assert fresh.check(suggestion()) == (None, "")
    assert graph.asked == 0


def test_a_server_that_fails_is_left_alone_for_a_while(fresh, graph):
    graph.fails = NoAnswerError("down")
    assert fresh.check(JOIN) == (None, "")
    assert fresh.check(JOIN) == (None, "")
    assert graph.asked == 1


def test_a_verdict_does_not_wait_for_a_server_that_hangs(fresh, graph, monkeypatch):
    monkeypatch.setattr(freshness, "_WAIT_S", 0.01)
    graph.gate = Event()
    assert fresh.check(JOIN) == (None, "")
