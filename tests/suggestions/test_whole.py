"""What a graph says of whole objects: asked once, waited for within limits, said in words."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from cb2_assist.candidates.arbour import Why
from cb2_assist.core.errors import NoAnswerError
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import SegmentId
from cb2_assist.datasets.source import Arbour
from cb2_assist.settings import MOST_DRAWN_PARTS
from cb2_assist.suggestions import whole
from cb2_assist.suggestions.whole import WholeObjects

ID = SegmentId(7)
STEP = 500.0


@dataclass(frozen=True)
class Edge:
    segment: SegmentId
    affinity: float


class Graph:
    """One straight object of so many parts."""

    def __init__(self, parts: int = 61) -> None:
        self.parts, self.asked = parts, 0
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.errors: list[Exception] = []

    def arbour(self, _segment: SegmentId) -> Arbour:
        self.asked += 1
        assert self.may_answer.wait(60)
        if self.errors:
            raise self.errors.pop()
        points = np.zeros((self.parts, 3))
        points[:, 0] = STEP * np.arange(self.parts)
        edges = np.stack([np.arange(self.parts - 1), np.arange(1, self.parts)], axis=1)
        return Arbour(points, np.full(self.parts, 100.0), edges, (STEP, STEP, STEP))

    def neighbours(self, _segment: SegmentId, _point: PointNm, _reach: float) -> list[Edge]:
        return [Edge(SegmentId(1), 0.9), Edge(SegmentId(2), 0.4), Edge(SegmentId(1), 0.2)]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine that runs the tests may be busy."""
    monkeypatch.setattr(whole, "PLACES_S", 60.0)
    monkeypatch.setattr(whole, "EDGES_S", 60.0)


@pytest.fixture
def graph() -> Graph:
    return Graph()


@pytest.fixture
def objects(graph: Graph) -> Iterator[WholeObjects]:
    made = WholeObjects(graph)
    yield made
    graph.may_answer.set()
    made.close()


MIDDLE = PointNm(10_000, 0, 0)


def test_places_and_the_strongest_edge_to_each_neighbour_are_told(objects: WholeObjects) -> None:
    asked = objects.ask(ID, MIDDLE)
    known = asked.wait()
    assert known.affinity == {1: 0.9, 2: 0.4}
    assert {tuple(p.at) for p in known.places if p.why is Why.END} == {(0, 0, 0), (30_000, 0, 0)}


def test_far_from_an_end_the_next_one_is_named(objects: WholeObjects) -> None:
    asked = objects.ask(ID, MIDDLE)
    asked.wait()
    assert "next end of this object is 10.0 µm away, at 0, 0, 0 nm" in asked.note
    at_end = objects.ask(ID, PointNm(29_500, 0, 0))
    at_end.wait()
    assert at_end.note == ""


def test_an_object_is_read_once(graph: Graph, objects: WholeObjects) -> None:
    for _ in range(3):
        assert objects.ask(ID, MIDDLE).wait().places
    assert graph.asked == 1


def test_one_that_takes_too_long_is_said_and_serves_the_next_list(
    graph: Graph, objects: WholeObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph.may_answer.clear()
    monkeypatch.setattr(whole, "PLACES_S", 0.05)
    asked = objects.ask(ID, MIDDLE)
    known = asked.wait()
    assert (list(known.places), known.affinity) == ([], {1: 0.9, 2: 0.4})
    assert "Press p again" in asked.note
    monkeypatch.setattr(whole, "PLACES_S", 60.0)
    again = objects.ask(ID, MIDDLE)
    graph.may_answer.set()
    assert again.wait().places
    assert "Press p again" not in again.note
    assert graph.asked == 1


def test_one_that_failed_is_asked_for_again(graph: Graph, objects: WholeObjects) -> None:
    graph.errors.append(NoAnswerError("down"))
    asked = objects.ask(ID, MIDDLE)
    assert not asked.wait().places
    assert "cannot be" in asked.note
    assert objects.ask(ID, MIDDLE).wait().places


def test_a_surface_that_is_drawn_in_part_is_said(graph: Graph, objects: WholeObjects) -> None:
    graph.parts = MOST_DRAWN_PARTS + 1
    asked = objects.ask(ID, PointNm(0, 0, 0))
    asked.wait()
    assert "2,000 of 2,001 parts are drawn" in asked.note
