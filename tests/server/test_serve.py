from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from page_fakes import BASE, MemoryLog, ToyAssistant, wait_until
from page_harness import Page, start

from cb2_assist.core.errors import PortBusyError, ServerError, UsageError
from cb2_assist.core.geometry import PointNm
from cb2_assist.review.state import Cursor
from cb2_assist.server.serve import Options, RunningServer, serve, start_position
from cb2_assist.viewer.mount import ViewerMount
from cb2_assist.viewer.scene import Scene

TOY_SERVER = Path(__file__).resolve().parents[1] / "browser" / "toy_server.py"


def _scene(assistant: ToyAssistant) -> partial:
    return partial(ViewerMount, Scene(assistant.source.layers, PointNm(480, 480, 480)))


def test_a_busy_port_is_said_with_advice(tmp_path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortBusyError, match=f"Port {port} .*--port"):
            start(tmp_path, port=port)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "lab-pc", ""])
def test_a_host_that_others_could_reach_is_refused(tmp_path, host: str) -> None:
    with pytest.raises(ServerError, match=r"this machine only.* ssh -L .* --expose"):
        start(tmp_path, host=host)


def test_all_addresses_need_a_name_to_be_reached_by(tmp_path) -> None:
    with pytest.raises(UsageError, match="--allow-host NAME"):
        start(tmp_path, host="0.0.0.0", expose=True)


def test_asked_for_twice_it_listens_where_others_reach_it(tmp_path) -> None:
    served = start(tmp_path, host="0.0.0.0", expose=True, allow_hosts=("lab-pc",))
    try:
        assert served.server.url.startswith("http://127.0.0.1:")
        for host, wanted in (("lab-pc:80", 200), ("127.0.0.1", 200), ("192.168.1.5", 403)):
            assert served.ask("GET", "/", {**served.reading, "Host": host})[0] == wanted, host
    finally:
        served.server.stop()


def test_a_wrong_name_to_be_allowed_is_refused_before_anything_listens(tmp_path) -> None:
    with pytest.raises(UsageError, match="--allow-host takes one host name"):
        start(tmp_path, allow_hosts=("http://lab-pc/",))


def test_a_browser_that_brings_the_token_is_told_of_and_no_other(tmp_path, loop) -> None:
    came = []
    served = start(tmp_path, on_arrival=lambda: came.append(1))
    try:
        Page(served, loop).close()  # as a tab that attaches itself again
        assert served.ask("GET", "/", served.reading)[0] == 200
        assert came == []
        assert served.ask("GET", f"/?token={served.server.token}")[0] == 200
        assert came == [1]
    finally:
        served.server.stop()


def test_an_unknown_key_preset_is_refused(tmp_path) -> None:
    with pytest.raises(UsageError, match="Known: default"):
        start(tmp_path, keys="emacs")


def test_a_restart_keeps_address_and_list(tmp_path, loop) -> None:
    state = tmp_path / "state.json"
    first = start(tmp_path, port=None, state_path=state)
    page = Page(first, loop)
    page.ask("propose", at_nm=[480, 480, 480], segment=str(BASE + 13))
    shown = page.snapshot["list"]
    page.close()
    first.server.stop()
    assert state.stat().st_mode & 0o777 == 0o600
    second = start(tmp_path, port=None, state_path=state)
    try:
        assert second.server.url == first.server.url
        page = Page(second, loop)
        if page.snapshot["list"] is None:
            page.until("snapshot", lambda m: m["snapshot"]["list"] is not None)
        assert page.snapshot["list"] == shown
        page.close()
    finally:
        second.server.stop()


def test_the_last_port_gives_way_when_it_is_taken(tmp_path) -> None:
    state = tmp_path / "state.json"
    first = start(tmp_path, port=None, state_path=state)
    second = start(tmp_path, port=None, state_path=state)
    assert second.server.port != first.server.port
    first.server.stop()
    second.server.stop()


def test_a_port_that_stood_in_for_the_last_one_is_said_and_forgotten(tmp_path, caplog) -> None:
    """Forwarded ports and bookmarks lead to the last one, which may be free again."""
    state = tmp_path / "state.json"
    first = start(tmp_path, port=None, state_path=state)
    usual = first.server.port
    instead = start(tmp_path, port=None, state_path=state)
    (told,) = [r for r in caplog.records if r.levelname == "WARNING"]
    assert f"Port {usual}, used last time" in told.getMessage()
    assert str(instead.server.port) in told.getMessage()
    instead.server.stop()
    first.server.stop()
    again = start(tmp_path, port=None, state_path=state)
    again.server.stop()
    assert again.server.url == first.server.url


def test_each_label_file_has_its_own_port_and_token(tmp_path, loop) -> None:
    states = [tmp_path / "a.session.json", tmp_path / "b.session.json"]
    first = [start(tmp_path, port=None, state_path=state) for state in states]
    urls = [served.server.url for served in first]
    assert len({url.partition("?")[0] for url in urls}) == 2
    assert len({served.server.token for served in first}) == 2
    for served in first:
        served.server.stop()
    for state, url in zip(reversed(states), reversed(urls), strict=True):
        again = start(tmp_path, port=None, state_path=state)
        assert again.server.url == url
        Page(again, loop).close()
        again.server.stop()


def test_a_given_port_is_remembered_too(tmp_path) -> None:
    state = tmp_path / "state.json"
    start(tmp_path, port=None, state_path=state).server.stop()
    chosen = start(tmp_path, port=0, state_path=state)
    chosen.server.stop()
    again = start(tmp_path, port=None, state_path=state)
    again.server.stop()
    assert again.server.url == chosen.server.url


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o606])
def test_a_token_that_others_could_read_is_replaced(tmp_path, mode: int) -> None:
    folder = tmp_path / "loose"
    folder.mkdir(mode=0o777)
    state = folder / "state.json"
    first = start(tmp_path, port=None, state_path=state)
    first.server.stop()
    state.chmod(mode)
    start_position(state, None, PointNm(0, 0, 0))  # `serve` reads the file twice
    second = start(tmp_path, port=None, state_path=state)
    second.server.stop()
    assert second.server.token != first.server.token
    assert second.server.port == first.server.port
    assert state.stat().st_mode & 0o777 == 0o600
    third = start(tmp_path, port=None, state_path=state)
    third.server.stop()
    assert third.server.token == second.server.token
    assert [p.name for p in folder.iterdir()] == ["state.json"], "nothing half written is left"


@pytest.mark.parametrize("text", ["", "nonsense", "[]", '{"port": "x"}', '{"at_nm": [1]}'])
def test_a_damaged_state_file_is_an_empty_one(tmp_path, text) -> None:
    state = tmp_path / "state.json"
    state.write_text(text)
    served = start(tmp_path, port=None, state_path=state)
    assert served.server.session.screen.list is None
    served.server.stop()


def test_a_given_segment_is_looked_at_from_the_start(tmp_path) -> None:
    assistant = ToyAssistant(tmp_path)
    server = RunningServer(
        assistant,
        MemoryLog(),
        None,
        _scene(assistant),
        options=Options(port=0),
        start_at=Cursor(PointNm(480, 480, 480), BASE + 13),
    )
    wait_until(lambda: server.session.screen.list)
    server.stop()


def test_serve_ends_when_told(tmp_path) -> None:
    assistant, stop, urls = ToyAssistant(tmp_path), threading.Event(), []

    def ready(url: str) -> None:
        urls.append(url)
        stop.set()

    serve(
        assistant, MemoryLog(), None, _scene(assistant),
        on_ready=ready, stop=stop, options=Options(port=0),
    )  # fmt: skip
    assert urls[0].startswith("http://127.0.0.1:")
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", int(urls[0].split(":")[2].split("/")[0])), 5)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_stop_it_cleanly_within_five_seconds(tmp_path, number) -> None:
    process = subprocess.Popen(
        [sys.executable, str(TOY_SERVER), str(tmp_path), str(tmp_path / "labels.sqlite")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("cb2-assist: serving toy at http://127.0.0.1:"), line
    started = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert time.monotonic() - started < 5
    assert errors == ""


def test_a_request_that_hangs_does_not_hold_up_the_end(tmp_path, caplog) -> None:
    served = start(tmp_path)
    hangs = threading.Event()
    loop = served.server._mount.loop
    loop.call_soon_threadsafe(hangs.wait)
    begun = time.monotonic()
    served.server.stop()
    took = time.monotonic() - begun
    hangs.set()
    wait_until(loop.is_closed)
    assert took < 5
    assert "A request is still being answered" in caplog.text
