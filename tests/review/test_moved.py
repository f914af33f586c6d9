"""Sites of the queue whose objects edits have replaced: looked up again, recorded, asked anew."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from page_fakes import BASE, INFO, ToySource, centre_of, segment_of, suggestion, toy_list
from test_walk import BOX, PLACE, World

from cb2_assist.core.records import Kind, SegmentId
from cb2_assist.datasets.source import GraphSource
from cb2_assist.labels.queue_store import QueueItem
from cb2_assist.review.moved import MovedError, check_moved

A, B, NEW = BASE + 13, BASE + 14, BASE + 900
PART_A, PART_B = 7_000_001, 7_000_002


class EditedSource(ToySource):
    """Objects that edits have replaced, by their own id or a part of theirs."""

    timestamp = "2026-01-01T00:00:00Z"
    route = None

    def __init__(self, layers) -> None:
        super().__init__(layers)
        self.replaced: dict[int, int] = {}

    def refresh(self) -> None: ...

    def current(self, segment, point):  # noqa: ARG002
        root = {PART_A: A, PART_B: B}.get(segment, segment)
        return SegmentId(self.replaced.get(root, root)), ""

    def supervoxels(self, site):
        return site.segment, site.partner

    def latest(self, segment):
        return self.current(segment, None)

    def arbour(self, segment): ...

    def extent_vx(self, segment): ...

    def neighbours(self, segment, point, reach_nm): ...


def item(kind: Kind = Kind.JOIN, *, with_parts: bool = True) -> QueueItem:
    made = suggestion(kind, A, B if kind is Kind.JOIN else None, centre_of(A), 0.5)
    parts = (SegmentId(PART_A), SegmentId(PART_B) if kind is Kind.JOIN else None)
    if with_parts:
        made = replace(made, supervoxels=parts)
    return QueueItem(INFO.name, INFO.version, replace(made, views=()), 0.3, "0" * 64, "toy")


@pytest.fixture
def world(tmp_path: Path):
    made = World(tmp_path)
    made.assistant.source = EditedSource(made.assistant.source.layers)
    plain = made.assistant.suggest

    def suggest(at, segment, kind=None, limit=16, *, include=None, known=None):
        """Objects that edits made are no blocks of the toy volume."""
        if segment is None or BASE <= segment < BASE + 27:
            return plain(at, segment, kind, limit, include=include, known=known)
        found = toy_list(segment_of(at), at)
        site = include.site
        mine = suggestion(site.kind, site.segment, site.partner, site.point, 0.55)
        return replace(found, segment=segment, suggestions=(mine, *found.suggestions))

    made.assistant.suggest = suggest
    yield made
    made.stop()
    made.store.close()


def trail(world: World) -> list[tuple[str, str, str]]:
    with closing(sqlite3.connect(world.folder / "labels.sqlite")) as conn:
        return conn.execute(
            "SELECT i.site, t.what, t.detail FROM queue_trail t JOIN queue_items i ON i.id = t.item"
            " WHERE t.what = 'stale' ORDER BY t.id"
        ).fetchall()


def put(world: World, *items: QueueItem) -> None:
    fill = world.store.queue.begin_fill(BOX, None, "judge", 1, now=world.now)
    world.store.queue.put(fill.id, items, done=1, now=world.now)


def test_nothing_is_stale_where_segments_never_change() -> None:
    check_moved(item(), ToySource(None))
    assert not isinstance(ToySource(None), GraphSource)
    assert isinstance(EditedSource(None), GraphSource)


def test_a_site_is_looked_up_by_its_parts() -> None:
    source = EditedSource(None)
    check_moved(item(), source)
    source.replaced[A] = NEW
    with pytest.raises(MovedError, match=f"{A} . {B} is {NEW} . {B} now") as moved:
        check_moved(item(), source)
    assert (moved.value.site.segment, moved.value.site.partner) == (NEW, B)
    with pytest.raises(MovedError) as moved:
        check_moved(item(Kind.CUT), source)
    assert (moved.value.site.segment, moved.value.site.partner) == (NEW, None)
    source.replaced[B] = NEW
    with pytest.raises(MovedError, match="both") as moved:
        check_moved(item(), source)
    assert moved.value.site is None
    check_moved(item(with_parts=False), source)


def test_q_asks_a_replaced_site_as_what_it_is_now(world: World) -> None:
    put(world, item())
    world.assistant.source.replaced[A] = NEW
    text = world.q()
    (moved,) = [s for s in world.session.screen.suggestions if s.site.segment == NEW]
    assert world.site == moved.id == moved.site.key(*PLACE)
    assert text.startswith("From the queue: join of")
    assert world.states() == {"leased": 1, "stale": 1}
    assert trail(world) == [(item().suggestion.id, "stale", f"{A} + {B} is {NEW} + {B} now")]
    world.restart()
    assert world.site == moved.id
    world.decide(site=moved.id)
    assert world.states() == {"decided": 1, "stale": 1}


def test_a_join_that_edits_have_made_is_closed(world: World) -> None:
    put(world, item())
    world.assistant.source.replaced |= {A: NEW, B: NEW}
    world.p()
    world.fill()
    for _ in range(3):
        world.q()
    assert world.site != item().suggestion.id
    assert ("stale", "both sides are one segment now") in [t[1:] for t in trail(world)]
    assert world.states()["implied"] >= 1
