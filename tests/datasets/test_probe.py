"""Which servers can be reached, asked of servers on this machine."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from file_server import running

from cb2_assist.datasets import probe as module
from cb2_assist.datasets.catalogue import PUBLIC
from cb2_assist.datasets.probe import probe, servers_of


class Refusing(BaseHTTPRequestHandler):
    """Lets nobody in, and keeps what came."""

    def do_HEAD(self):
        self.server.asked.append(dict(self.headers))
        self.send_response(403)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch) -> Iterator[ThreadingHTTPServer]:
    monkeypatch.setenv("NO_PROXY", "*")
    made = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    made.asked = []
    with running(made):
        yield made


@pytest.fixture
def silent(monkeypatch) -> Iterator[str]:
    """Takes connections and says nothing."""
    monkeypatch.setattr(module, "ANSWER_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield address(listening)
        for thread in threading.enumerate():
            if thread.name == "probe":
                thread.join()


def address(listening: socket.socket) -> str:
    return f"http://127.0.0.1:{listening.getsockname()[1]}"


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return address(listening)


def test_a_server_that_answers_anything_is_there_and_gets_no_secret(server, monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    url = f"http://127.0.0.1:{server.server_port}"
    assert probe([url, url]) == {url: ""}
    assert len(server.asked) == 1, "one request for each server"
    assert "Authorization" not in server.asked[0]


def test_what_does_not_answer_is_told_apart(server, silent):
    up, down = f"http://127.0.0.1:{server.server_port}", closed_port()
    found = probe([up, down, silent])
    assert found == {up: "", down: "refuses connections", silent: "no answer in time"}


def test_a_question_that_never_ends_does_not_hold_the_others_up(monkeypatch):
    ended = threading.Event()

    def ask(url: str) -> str:
        if url == "http://for.ever":
            ended.wait(60)
        return ""

    monkeypatch.setattr(module, "_why_not", ask)
    found = probe(["http://at.once", "http://for.ever"], deadline_s=0.3)
    ended.set()
    assert found == {"http://at.once": "", "http://for.ever": "no answer in time"}


@pytest.mark.parametrize("entry", PUBLIC, ids=lambda e: e.name)
def test_every_dataset_names_servers_that_can_be_asked(entry):
    servers = servers_of(entry)
    assert servers
    for server in servers:
        parts = urlsplit(server)
        assert (parts.scheme, parts.path) == ("https", "")
        assert "." in parts.netloc
