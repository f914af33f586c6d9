from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from cb2_assist.core.ending import set_by_signals

_TOLD_ON_ANOTHER_THREAD = """
import signal, sys, threading
from cb2_assist.core.ending import set_by_signals, wait_for

WAITS = threading.Condition.wait.__code__
ended, waits = threading.Event(), threading.Event()

def asleep_in_the_wait():
    # the call that blocks is no Python, so that its caller is the innermost frame
    return sys._current_frames()[threading.main_thread().ident].f_code is WAITS

def take():
    waits.wait()
    while not asleep_in_the_wait():
        pass
    signal.pthread_kill(threading.get_ident(), int(sys.argv[1]))

threading.Thread(target=take, daemon=True).start()
with set_by_signals(ended):
    waits.set()
    wait_for(ended)
print("ended")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_another_thread_took_ends_the_wait(number: signal.Signals) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _TOLD_ON_ANOTHER_THREAD, str(int(number))],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")


def test_the_handlers_of_before_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

    def fail() -> None:
        with set_by_signals(threading.Event()):
            assert signal.getsignal(signal.SIGTERM) is not before[0]
            raise ValueError("on the way")

    with pytest.raises(ValueError, match="on the way"):
        fail()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_beside_the_main_thread_no_signal_is_touched() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def look() -> None:
        with set_by_signals(threading.Event()):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [before]
