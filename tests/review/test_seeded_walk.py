"""Known wrong suggestions on the way through the queue: shown like others, and no labels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from label_makers import decision
from page_fakes import INFO
from test_walk import BOX, PLACE, World

from cb2_assist.core.records import Verdict
from cb2_assist.labels.store import NewEvent
from cb2_assist.learning.export_rows import label_rows
from cb2_assist.learning.report import report
from cb2_assist.learning.seeded import Seeds
from cb2_assist.review.walk import QueueWalk


class SeededWorld(World):
    """Every draw has a known wrong one before it, while there are any."""

    share = 1.0

    def open(self) -> None:
        super().open()
        self.walk.close(10)
        self.walk = QueueWalk(
            self.session,
            self.assistant,
            self.log,
            self.store.queue,
            user=self.user,
            seeds=Seeds(self.store, self.share, self.user, *PLACE),
            clock=lambda: self.now,
        )

    def settle(self) -> None:
        """Wait for what goes on in the background."""
        self.walk._lane.submit(lambda: None).result(10)

    @property
    def drawn(self):
        return self.session.screen.list.drawn


@pytest.fixture
def world(tmp_path: Path):
    made = SeededWorld(tmp_path)
    made.fill()
    # two others have rejected one of the sites
    found = made.store.queue.waiting(BOX, now=made.now)
    made.rejected = next(w.site for w in found if 0.5 < w.score < 0.7)
    item = made.store.queue.item(*PLACE, made.rejected)
    for user in ("bob", "eve"):
        made.store.append(NewEvent.of(_answer(item, user)))
    made.restart()
    made.settle()
    yield made
    made.stop()
    made.store.close()


def _answer(item, user: str):
    return decision(
        verdict=Verdict.REJECT,
        suggestion=item.suggestion,
        user=user,
        key=f"{user}-1",
        dataset=INFO.name,
        version=INFO.version,
    )


def test_one_is_shown_before_the_draw_and_looks_like_any_other(world: SeededWorld) -> None:
    states = world.states()
    text = world.q()
    assert text.startswith("From the queue: ")
    assert world.drawn.seeded["site"] == world.rejected
    assert world.site == world.session.screen.selected != world.rejected
    document = json.dumps(world.session.snapshot())
    assert "seeded" not in document
    assert world.rejected not in document
    assert world.assistant.names == {world.site: world.rejected}
    assert world.mark["open"] == states["open"] - 1, "as if it had been taken from them"
    assert world.states() == states


def test_its_answer_is_recorded_and_is_nothing_else(world: SeededWorld) -> None:
    states = world.states()
    world.q()
    shown = world.site
    world.decide(Verdict.ACCEPT, shown)
    d = world.last_decision()
    assert d.suggestion.id == shown
    assert d.suggestion.score > 0.5
    assert d.seeded == {
        "suggestion": shown,
        "site": world.rejected,
        "known_from": "people",
        "score": d.seeded["score"],
    }
    assert d.propensity["how"] == "seeded"
    assert world.states() == states
    assert [r["suggestion_id"] for r in label_rows(world.store)] == [world.rejected] * 2
    (mine,) = report(world.store, dataset=INFO.name, only="tester")["people"]
    assert (mine["seeded"]["n"], mine["seeded"]["missed"]) == (1, 1)
    world.settle()
    world.q()
    assert world.drawn.seeded is None, "each is shown once"
    assert world.drawn.id > 0
    assert world.store.verify() == []


def test_a_restart_leads_to_the_same_one_and_a_skip_past_it(world: SeededWorld) -> None:
    world.q()
    shown = world.site
    world.restart()
    assert world.site == shown
    assert world.drawn.seeded["site"] == world.rejected
    world.q()
    assert world.last_decision().verdict is Verdict.SKIP
    assert world.last_decision().seeded is not None
    assert world.drawn.seeded is None
    world.settle()


def test_others_on_its_list_are_labels_as_ever(world: SeededWorld) -> None:
    world.q()
    other = next(s.id for s in world.session.screen.suggestions if s.id != world.site)
    world.decide(Verdict.REJECT, other)
    assert world.last_decision().seeded is None
    assert other in [r["suggestion_id"] for r in label_rows(world.store)]


def test_one_that_is_gone_gives_way_to_the_draw(world: SeededWorld) -> None:
    world.assistant.gone = {world.rejected}
    world.walk._ahead.clear()
    world.q()
    assert world.drawn.seeded is None
    assert world.states().get("stale", 0) == 0


def test_nothing_is_seeded_without_a_share(world: SeededWorld) -> None:
    world.share = 0.0
    world.restart()
    for _ in range(4):
        world.q()
        assert world.drawn.seeded is None


def test_an_accept_closes_nothing_in_the_queue(world: SeededWorld) -> None:
    waiting = {w.site for w in world.store.queue.waiting(BOX, now=world.now)}
    world.q()
    world.decide(Verdict.ACCEPT, world.site)
    assert {w.site for w in world.store.queue.waiting(BOX, now=world.now)} == waiting
