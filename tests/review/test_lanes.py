from __future__ import annotations

import threading

import pytest

from cb2_assist.review.lanes import Lane


def test_calls_run_in_order_on_one_thread() -> None:
    lane, seen = Lane("test"), []
    futures = [lane.submit(lambda n=n: seen.append((n, threading.get_ident()))) for n in range(50)]
    futures[-1].result(10)
    assert [n for n, _ in seen] == list(range(50))
    assert len({thread for _, thread in seen}) == 1
    assert lane.close(10)


def test_an_exception_reaches_the_caller_and_the_lane_goes_on() -> None:
    lane = Lane("test")
    with pytest.raises(ZeroDivisionError):
        lane.submit(lambda: 1 / 0).result(10)
    assert lane.submit(lambda: 7).result(10) == 7
    assert lane.close(10)


def test_closing_finishes_what_is_queued_and_takes_no_more() -> None:
    lane = Lane("test")
    last = [lane.submit(lambda n=n: n) for n in range(20)][-1]
    assert lane.close(10)
    assert last.result(0) == 19
    assert lane.submit(lambda: 1).cancelled()


def test_a_hanging_call_does_not_hold_up_the_end() -> None:
    lane, released = Lane("test"), threading.Event()
    lane.submit(released.wait, 30)
    assert not lane.close(0.05)
    released.set()
