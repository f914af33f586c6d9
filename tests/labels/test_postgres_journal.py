"""A connection that is lost: verdicts are kept here, count at once, and are delivered once."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from contracts.label_store import LabelStoreContract
from contracts.reopening import reopening
from label_makers import DATASET, USER, VERSION, decision, suggestion
from nursery import Nursery
from page_fakes import wait_until

from cb2_assist.core.errors import DecisionError, LabelsUnreachableError
from cb2_assist.core.records import Verdict
from cb2_assist.decisions.log import DecisionLog, Seen
from cb2_assist.labels.journal import Journal
from cb2_assist.labels.journaled import FIRST_OWN_ID, JournaledStore
from cb2_assist.labels.postgres import PostgresLabelStore
from cb2_assist.labels.store import NewEvent, open_store

KILLS = int(os.environ.get("CB2_JOURNAL_KILLS", "3"))
NEVER_S = 3600.0


@pytest.fixture
def schema(postgres) -> str:
    return postgres.new_schema()


@pytest.fixture
def url(postgres, schema: str) -> str:
    return postgres.url(schema)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "made for it" / "journal.sqlite")


@pytest.fixture
def store(url: str, journal: Journal):
    """It tries to deliver when a test says so."""
    with JournaledStore(PostgresLabelStore(url), journal, retry_s=NEVER_S) as opened:
        yield opened


@pytest.fixture
def log(store) -> DecisionLog:
    return DecisionLog(store, user=USER, dataset=DATASET, version=VERSION)


class TestConnected(LabelStoreContract):
    @pytest.fixture
    def reopen(self, store, url: str, journal: Journal):
        with reopening(lambda: JournaledStore(PostgresLabelStore(url), journal), store) as again:
            yield again


def recorded(url: str) -> list[tuple]:
    with PostgresLabelStore(url, read_only=True) as there:
        assert there.verify() == []
        return [(e.id, e.event, e.target, e.idempotency_key, e.reason) for e in there.events()]


def test_work_goes_on_without_the_server_and_is_delivered_in_order(
    postgres, store, log, url, journal
) -> None:
    news = []
    log.listen(lambda text, good: news.append((text, good)))
    first = log.decide(decision(1, key="before"))
    with postgres.cut_off():
        kept = log.decide(decision(2, Verdict.REJECT, key="away"))
        assert kept.id > FIRST_OWN_ID
        assert log.verdict(suggestion(2).id) is Verdict.REJECT
        assert log.verdict(suggestion(1).id) is Verdict.ACCEPT
        log.give_reason(suggestion(2).id, "artefact", idempotency_key="why")
        assert log.undo(idempotency_key="undo").target == kept.id
        assert log.verdict(suggestion(2).id) is None
        assert log.redo(idempotency_key="redo").target == kept.id
        log.decide(decision(1, Verdict.REJECT, key="changed my mind"))
        assert log.undo(idempotency_key="undo 2").target > FIRST_OWN_ID
        assert log.undo(idempotency_key="undo 3").target == kept.id
        assert log.undo(idempotency_key="undo 4").target == first.id, "one of before"
        assert log.event(first.id) == first
        assert log.undelivered == len(journal.waiting()) == 8
        wait_until(lambda: news, 200)
        assert not store.deliver()
        with pytest.raises(LabelsUnreachableError):
            store.queue.fills(DATASET, VERSION)
    assert store.deliver()
    assert (log.undelivered, journal.waiting(), journal.refused()) == (0, [], [])
    assert recorded(url) == [
        (1, "decision", None, "before", None),
        (2, "decision", None, "away", None),
        (3, "reason", 2, "why", "artefact"),
        (4, "undo", 2, "undo", None),
        (5, "redo", 2, "redo", None),
        (6, "decision", None, "changed my mind", None),
        (7, "undo", 6, "undo 2", None),
        (8, "undo", 2, "undo 3", None),
        (9, "undo", 1, "undo 4", None),
    ]
    log.refresh()
    assert log.newest_event == 9
    assert log.redo(idempotency_key="redo 2").target == 1
    assert log.event(kept.id).id == 2, "an id of before is still understood"
    assert [good for _, good in news] == [False, True]
    assert "kept on this computer" in news[0][0]
    assert "8 events" in news[1][0]


def test_what_is_sent_again_counts_once(postgres, store, log, url) -> None:
    log.decide(decision(1, key="a"))
    with postgres.cut_off():
        kept = log.decide(decision(2, key="b"))
        assert log.decide(decision(2, key="b")) == kept
        assert log.decide(decision(1, key="a")).id == 1
        with pytest.raises(DecisionError, match="already used"):
            log.decide(decision(3, key="b"))
    assert store.deliver()
    assert store.deliver()
    assert log.decide(decision(2, key="b")).id == 2
    assert [row[3] for row in recorded(url)] == ["a", "b"]


def test_an_answer_that_was_lost_after_the_commit_is_not_recorded_twice(
    postgres, store, log, url, monkeypatch
) -> None:
    log.decide(decision(1, key="a"))
    really = PostgresLabelStore.append_all

    def loses_the_answer(self, events):
        really(self, events)
        postgres.hang_up()
        raise LabelsUnreachableError("the connection broke at the very end")

    monkeypatch.setattr(PostgresLabelStore, "append_all", loses_the_answer)
    assert log.decide(decision(2, key="b")).id > FIRST_OWN_ID
    monkeypatch.undo()
    assert store.deliver()
    assert [row[3] for row in recorded(url)] == ["a", "b"]


def test_a_broken_connection_is_made_again_without_the_journal(
    postgres, store, log, journal
) -> None:
    log.decide(decision(1, key="a"))
    assert list(store.events())
    postgres.hang_up()
    assert log.decide(decision(2, key="b")).id == 2
    assert not journal.path.exists()


def test_it_is_delivered_by_itself_when_the_server_is_back(postgres, url, journal) -> None:
    back = threading.Event()
    with JournaledStore(PostgresLabelStore(url), journal, retry_s=0.05) as store:
        log = DecisionLog(store, user=USER, dataset=DATASET, version=VERSION)
        log.listen(lambda _text, good: good and back.set())
        with postgres.cut_off():
            log.decide(decision(1, key="a"))
        assert back.wait(200)
        log.refresh()
        assert log.newest_event == 1
    assert [row[3] for row in recorded(url)] == ["a"]


def test_an_undo_whose_decision_somebody_undid_meanwhile_is_kept_and_told(
    postgres, store, log, url, journal
) -> None:
    event = log.decide(decision(1, key="a"))
    news = []
    log.listen(lambda text, _good: news.append(text))
    with postgres.cut_off():
        log.undo(idempotency_key="mine")
    with PostgresLabelStore(url) as elsewhere:
        other = DecisionLog(elsewhere, user=USER, dataset=DATASET, version=VERSION)
        assert other.undo(idempotency_key="theirs").target == event.id
    assert store.deliver()
    ((key, why),) = journal.refused()
    assert key == "mine"
    assert "undone" in why
    assert "NOT recorded: 1 event" in news[-1]
    assert [row[3] for row in recorded(url)] == ["a", "theirs"]


def test_a_key_pressed_before_the_delivery_does_not_hit_another_decision(
    postgres, store, log
) -> None:
    log.decide(decision(1, key="a"))
    with postgres.cut_off():
        log.decide(decision(2, key="b"))
        seen = Seen(log.newest_event)
    assert store.deliver()
    with pytest.raises(DecisionError, match="press the key again"):
        log.undo(idempotency_key="u", seen=seen)
    assert log.undo(idempotency_key="u", seen=Seen(log.newest_event)).target == 2


def test_a_server_that_is_away_at_the_start_says_what_waits(postgres, url, own_data_home) -> None:
    with open_store(url) as store, postgres.cut_off():
        store.append(NewEvent.of(decision(1, key="a")))
        with pytest.raises(LabelsUnreachableError, match=r"1 verdicts .* wait in"):
            open_store(url)
        store.close()
    with open_store(url) as store:
        assert any("1 event from meanwhile" in text for text in store.notices)
        assert [e.idempotency_key for e in store.events()] == ["a"]
    assert list(own_data_home.rglob("journal.sqlite"))


def test_kills_lose_nothing_that_was_acknowledged_without_the_server(
    postgres, url, journal, tmp_path
) -> None:
    acknowledged: list[str] = []
    PostgresLabelStore(url).close()
    with Nursery("journal_child", tmp_path) as nursery:
        for life in range(KILLS):
            child = nursery.start(url, journal.path, f"life-{life}")
            assert child.prints(within_s=200), "the child did nothing"
            with postgres.cut_off():
                threading.Event().wait(0.05 * life)
                text = child.kill()
            acknowledged += [line for line in text.splitlines(keepends=True) if line[-1] == "\n"]
    with JournaledStore(PostgresLabelStore(url), journal):
        there = [row[3] for row in recorded(url)]
    assert journal.waiting() == []
    assert len(there) == len(set(there))
    assert {line.strip() for line in acknowledged} <= set(there)
