"""q over the WebSocket: in the order of the keys, once each, with the effect before the answer."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from page_fakes import BASE, INFO
from page_harness import Page, Served, start
from tornado.ioloop import IOLoop

from cb2_assist.core.geometry import PointNm
from cb2_assist.labels.queue_store import Scope
from cb2_assist.labels.sqlite import SqliteLabelStore
from cb2_assist.labels.store import LabelStore
from cb2_assist.learning.cover import stops_in_box
from cb2_assist.learning.fill import fill

AT = [480.0, 480.0, 480.0]
CENTRE = BASE + 13
BOX = Scope(INFO.name, INFO.version, (), (PointNm(0, 0, 0), PointNm(960, 960, 960)))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LabelStore]:
    with SqliteLabelStore(tmp_path / "labels.sqlite") as made:
        yield made


@pytest.fixture
def served(tmp_path: Path, store: LabelStore) -> Iterator[Served]:
    (tmp_path / "seg").mkdir()
    running = start(tmp_path, store)
    stops = stops_in_box(running.assistant.source, running.assistant.source.bounds)
    fill(running.assistant, store.queue, BOX, stops)
    yield running
    running.server.stop()


@pytest.fixture
def page(served: Served, loop: IOLoop) -> Iterator[Page]:
    made = Page(served, loop)
    yield made
    made.close()


@pytest.fixture
def loop() -> Iterator[IOLoop]:
    made = IOLoop(make_current=False)
    yield made
    made.close()


def q_fields(page: Page, **changes) -> dict:
    queue = page.snapshot["queue"]
    fields = {
        "suggestion": queue and queue["site"],
        "key": "q",
        "idempotency_key": os.urandom(8).hex(),
        "shown_ms": 900,
        "age_ms": 1,
        "idle_ms": 0,
    }
    return {**fields, **changes}


def press_q(page: Page, **changes) -> dict:
    return page.ask("queue", **q_fields(page, **changes))


def test_q_paints_the_site_before_it_answers(page) -> None:
    assert page.snapshot["queue"] is None
    page.seen.clear()
    ack = press_q(page)
    assert ack["ok"], ack
    assert ack["text"].startswith("From the queue")
    queue = page.snapshot["queue"]
    assert page.snapshot["selected"] == queue["site"]
    assert queue["explore"] in (True, False)
    assert queue["open"] > 20
    kinds = [m["type"] for m in page.seen]
    painted = next(
        i
        for i, m in enumerate(page.seen)
        if m["type"] == "snapshot" and m["snapshot"]["selected"] == queue["site"]
    )
    assert painted < kinds.index("ack")


def test_a_verdict_and_q_in_one_go_keep_their_order(page, store) -> None:
    """The second key is pressed before the first is answered: no skip of what was accepted."""
    press_q(page)
    chosen = page.snapshot["selected"]
    leave = q_fields(page)
    page.write(
        json.dumps(
            {
                "type": "decide",
                "id": "f",
                "suggestion": chosen,
                "verdict": "accept",
                "key": "f",
                "idempotency_key": "k1",
                "shown_ms": 1,
                "age_ms": 1,
                "idle_ms": 1,
            }
        )
    )
    page.write(json.dumps({"type": "queue", "id": "q", **leave}))
    assert page.until("ack", lambda ack: ack["id"] == "q")["ok"]
    assert [e.decision.verdict.value for e in store.events()] == ["accept"]
    assert page.snapshot["selected"] != chosen


def test_a_q_that_is_sent_again_moves_on_once(page, store) -> None:
    press_q(page)
    fields = q_fields(page)
    assert page.ask("queue", **fields)["ok"]
    second = page.snapshot["queue"]["site"]
    assert page.ask("queue", **fields)["ok"]
    assert page.snapshot["queue"]["site"] == second
    assert [e.decision.verdict.value for e in store.events()] == ["skip"]


def test_the_next_page_sees_the_queue_too(page, served, loop) -> None:
    press_q(page)
    other = Page(served, loop)
    assert other.snapshot["queue"] == page.snapshot["queue"]
    other.close()


def test_p_ends_the_mark_of_the_queue(page) -> None:
    press_q(page)
    page.ask("propose", at_nm=AT, segment=str(CENTRE))
    assert page.snapshot["queue"]["site"] is None


@pytest.mark.parametrize(
    "changes",
    [
        {"suggestion": 17},
        {"suggestion": "../x"},
        {"suggestion": "abc", "key": 7},
        {"suggestion": "abc", "shown_ms": -1},
        {"suggestion": "abc", "idempotency_key": ""},
    ],
)
def test_a_malformed_q_gets_words(page, store, changes) -> None:
    ack = press_q(page, **changes)
    assert not ack["ok"]
    assert "must be" in ack["error"]
    assert list(store.events()) == []


def test_a_server_without_a_queue_says_so(tmp_path: Path, loop) -> None:
    running = start(tmp_path)
    page = Page(running, loop)
    ack = press_q(page)
    assert ack["error"] == "This server has no queue."
    assert page.ask("propose", at_nm=AT, segment=str(CENTRE))["ok"]
    page.close()
    running.server.stop()


def test_an_empty_queue_is_said_and_the_list_stays(tmp_path: Path, loop) -> None:
    with SqliteLabelStore(tmp_path / "empty.sqlite") as store:
        running = start(tmp_path, store)
        page = Page(running, loop)
        ack = press_q(page)
        assert "Nothing is queued yet" in ack["error"]
        assert page.snapshot["busy_with"] is None
        assert page.snapshot["status"]["level"] == "warn"
        page.close()
        running.server.stop()
