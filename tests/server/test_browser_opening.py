"""The browser is brought to the page through a file that only its owner can read."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import webbrowser
from pathlib import Path

import pytest
from page_fakes import wait_until

from cb2_assist.server import browser
from cb2_assist.server.browser import BrowserOpening, write_redirect

ADDRESS = 'http://127.0.0.1:1/?token=secret&x="</script>'


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """URLs that the system's browser was asked for."""
    urls: list[str] = []
    monkeypatch.setenv("BROWSER", "anything")
    monkeypatch.setattr(webbrowser, "open", lambda url: urls.append(url) or True)
    return urls


def test_the_file_is_private_and_names_the_address_as_text(tmp_path) -> None:
    file = write_redirect(tmp_path / "data" / "open", ADDRESS)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    text = file.read_text()
    assert 'location.replace("http://127.0.0.1:1/?token=secret&x=\\"\\u003c/script>")' in text
    assert "token=secret&amp;x=&quot;&lt;/script&gt;" in text
    assert text.count("</script>") == 1


def test_what_a_killed_server_left_behind_is_removed(tmp_path) -> None:
    old, new = write_redirect(tmp_path, ADDRESS), write_redirect(tmp_path, ADDRESS)
    os.utime(old, (0, 0))
    other = tmp_path / "notes.html"
    other.touch()
    os.utime(other, (0, 0))
    last = write_redirect(tmp_path, ADDRESS)
    assert sorted(tmp_path.iterdir()) == sorted([new, other, last])


def test_the_file_goes_when_the_browser_has_come(tmp_path, opened) -> None:
    said: list[str] = []
    opening = BrowserOpening(tmp_path, said.append)
    opening.start(ADDRESS)
    wait_until(lambda: opened)
    (file,) = tmp_path.iterdir()
    assert opened == [file.as_uri()]
    opening.arrived()
    opening.arrived()
    assert list(tmp_path.iterdir()) == []
    assert said == []


def test_a_browser_that_does_not_come_is_told(tmp_path, opened, monkeypatch) -> None:
    monkeypatch.setattr(browser, "PATIENCE_S", 0.05)
    said: list[str] = []
    BrowserOpening(tmp_path, said.append).start(ADDRESS)
    wait_until(lambda: said)
    assert len(said) == 1
    assert said[0].startswith("no browser has come. One in a sandbox (snap, flatpak) may not read")
    assert f"below {tmp_path}; open the address above in it instead" in said[0]
    assert opened
    assert list(tmp_path.iterdir()) == []


def test_no_browser_and_no_display_are_told(tmp_path, opened, monkeypatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda _url: False)
    BrowserOpening(tmp_path, said.append).start(ADDRESS)
    wait_until(lambda: said)
    assert said.pop() == "no browser could be opened; open the address above"
    for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    BrowserOpening(tmp_path, said.append).start(ADDRESS)
    assert "ssh -L PORT" in said.pop()
    assert list(tmp_path.iterdir()) == []
    assert opened == []


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path, opened) -> None:
    (tmp_path / "file").touch()
    said: list[str] = []
    BrowserOpening(tmp_path / "file" / "open", said.append).start(ADDRESS)
    assert "open the address above" in said[0]
    assert opened == []


def test_a_browser_that_blocks_the_terminal_does_not_hold_the_server_up(
    tmp_path, opened, monkeypatch
) -> None:
    ended = threading.Event()
    monkeypatch.setattr(webbrowser, "open", lambda _url: ended.wait(30))
    opening = BrowserOpening(tmp_path, lambda _text: None)
    opening.start(ADDRESS)
    opening.close()
    ended.set()
    assert opened == []


def test_the_token_is_in_no_command_line(
    tmp_path, own_data_home: Path, neurites_file: Path, tiny_model_folder: Path
) -> None:
    """The whole command, with a program as browser that notes what it was given."""
    noted = tmp_path / "noted"
    program = tmp_path / "browser"
    program.write_text(f'#!/bin/sh\necho "$@" > {noted}.new && mv {noted}.new {noted}\n')
    program.chmod(0o700)
    words = [sys.executable, "-m", "cb2_assist", "--dataset-file", str(neurites_file)]
    words += ["--model", str(tiny_model_folder), "--labels", f"sqlite:///{tmp_path / 'l.sqlite'}"]
    process = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "BROWSER": str(program)},
    )
    try:
        assert process.stdout is not None
        token = process.stdout.readline().strip().partition("?token=")[2]
        assert len(token) == 40
        wait_until(noted.exists, 20)
        given = noted.read_text()
        file = Path(given.strip().removeprefix("file://"))
        assert file.parent == own_data_home / "cb2-assist" / "open"
        assert token not in given
        assert token in file.read_text()
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    assert process.returncode == 0
    assert not file.exists()
