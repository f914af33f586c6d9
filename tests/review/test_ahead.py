"""Answers that are made ahead: once each, again after a failure, and only so many are held."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from page_fakes import wait_until

from cb2_assist.review.ahead import Ahead


@pytest.fixture
def ahead() -> Iterator[Ahead[int]]:
    made: Ahead[int] = Ahead("test-ahead", 2)
    yield made
    assert made.close(60)


def test_an_answer_is_made_once_and_told(ahead) -> None:
    told: list[str] = []
    ahead.on_ready = told.append
    assert ahead.ready("a") is None
    assert ahead.of("a", lambda: 1).result(60) == 1
    assert ahead.of("a", lambda: 2).result(60) == 1
    wait_until(lambda: told == ["a"], 60)
    assert ahead.ready("a") == 1


def test_one_that_failed_is_no_answer_and_is_made_again(ahead, caplog) -> None:
    told: list[str] = []
    ahead.on_ready = told.append

    def fail() -> int:
        raise ValueError("cannot be read")

    assert isinstance(ahead.of("a", fail).exception(60), ValueError)
    assert ahead.ready("a") is None
    assert ahead.of("a", lambda: 2).result(60) == 2
    wait_until(lambda: told == ["a"], 60)
    assert "nothing for suggestion a: cannot be read" in caplog.text


def test_whoever_asks_while_it_is_made_waits_for_the_same_one(ahead) -> None:
    begin = threading.Event()
    first = ahead.of("a", lambda: int(begin.wait(60)))
    assert ahead.of("a", lambda: 2) is first
    begin.set()
    assert first.result(60) == 1


def test_the_oldest_is_let_go(ahead) -> None:
    for n, name in enumerate("abac"):
        ahead.of(name, lambda n=n: n).result(60)
    assert [ahead.ready(name) for name in "abc"] == [0, None, 3]


def test_an_end_waits_for_nothing_that_is_not_begun() -> None:
    made: Ahead[int] = Ahead("test-ahead", 2)
    told: list[str] = []
    made.on_ready = told.append
    begun, let_go = threading.Event(), threading.Event()

    def hold() -> int:
        begun.set()
        return int(let_go.wait(60))

    made.of("a", hold)
    waiting = made.of("b", lambda: 2)
    assert begun.wait(60)
    assert not made.close(0.0)
    assert waiting.cancelled()
    let_go.set()
    assert made.close(60)
    assert told == ["a"]
