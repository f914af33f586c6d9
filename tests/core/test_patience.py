"""Waiting with a deadline, a way to give up, and a word now and then."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from cb2_assist.core import patience as module
from cb2_assist.core.errors import NoAnswerError, SupersededError
from cb2_assist.core.patience import patience, wait_for


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as made:
        yield made


def test_results_come_in_order(pool):
    futures = [pool.submit(pow, n, 2) for n in range(5)]
    assert wait_for(futures, "squares", 5) == [0, 1, 4, 9, 16]
    assert wait_for([], "nothing", 5) == []


def test_the_first_failure_is_raised_and_the_rest_left():
    failed, waiting = Future(), Future()
    failed.set_exception(ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        wait_for([waiting, failed], "two", 5)
    assert waiting.cancelled()


def test_a_deadline_ends_the_wait():
    waiting = Future()
    with pytest.raises(NoAnswerError, match="No answer within 0 s: 3 blocks"):
        wait_for([waiting], "3 blocks", 0.05)
    assert waiting.cancelled()


def test_something_newer_ends_the_wait():
    waiting, over = Future(), threading.Event()
    over.set()
    with patience(is_over=over.is_set), pytest.raises(SupersededError, match="newer"):
        wait_for([waiting], "it", 60)
    assert waiting.cancelled()


def test_who_waits_is_told_what_for(monkeypatch):
    monkeypatch.setattr(module, "TELL_AFTER_S", 0.0)
    waiting, said = Future(), []

    def say(text):
        said.append(text)
        waiting.set_result(7)

    with patience(say=say):
        assert wait_for([waiting], "36 blocks of em", 60) == [7]
    assert said == ["Waiting for 36 blocks of em: 0 s."]
