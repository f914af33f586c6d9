"""What goes to a CAVE server and what a failure means, below caveclient."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from caveclient.auth import AuthClient
from file_server import running

from cb2_assist.core.errors import (
    AssistError,
    DatasetError,
    LoginError,
    NoAnswerError,
    SegmentNotFoundError,
    UntrustedHostError,
    UsageError,
)
from cb2_assist.datasets.cave import wire
from cb2_assist.datasets.cave.login import Token, find_token
from cb2_assist.datasets.cave.trust import Trust, host_name, host_of
from cb2_assist.datasets.cave.wire import Account, is_edit, session

SECRET = "ab" * 16


class Answering(BaseHTTPRequestHandler):
    """Answers from a list, the last one for ever."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        server.asked.append((self.command, self.path, dict(self.headers)))
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, headers, body = server.answers[0]
        if len(server.answers) > 1:
            server.answers.pop(0)
        self.send_response(status)
        length = headers.pop("Content-Length", len(body)) if headers else len(body)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        # said, or the next request may be sent into a connection that is about to close
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch) -> Iterator[ThreadingHTTPServer]:
    monkeypatch.setattr(wire.time, "sleep", lambda _s: None)
    made = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    made.asked, made.answers = [], [(200, {}, b"{}")]
    made.url = f"http://127.0.0.1:{made.server_port}"
    with running(made):
        yield made


@pytest.fixture
def ask(server):
    trust = Trust(["known.example"], [])
    made = session(Account("mini", server.url, Token(SECRET, "CAVE_TOKEN"), trust))
    yield lambda path="/x", method="GET": made.request(method, f"{server.url}{path}")
    made.close()


def refusal(**document) -> bytes:
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (401, refusal(error="invalid_token", message="x"), LoginError, "does not accept"),
        (403, refusal(error="missing_tos", data={}), LoginError, "terms of service"),
        (403, refusal(error="missing_permission", data={}), LoginError, "may not view"),
        (302, b"", LoginError, "does not know the token"),
        (400, refusal(error="invalid_table_id", data={"table_id": "t"}), DatasetError, "no dat"),
        (400, refusal(message="[400]: no"), DatasetError, r"status 400: \[400\]: no"),
        (404, b"<html>", DatasetError, "Check server and datastack"),
        (429, b"", NoAnswerError, "too many requests"),
        (500, refusal(message="Cannot find root id 7"), SegmentNotFoundError, "no object"),
        (500, b"not json", NoAnswerError, "status 500"),
        (503, b"", NoAnswerError, "status 503"),
    ],
)
def test_every_refusal_says_what_it_means(server, ask, status, body, kind, words):
    server.answers = [(status, {"Location": "http://elsewhere.example/"}, body)]
    with pytest.raises(kind, match=words) as refused:
        ask()
    assert SECRET not in str(refused.value)
    assert len({path for _, path, _ in server.asked}) == 1, "no redirect is followed"


def test_a_refusal_cannot_smuggle_control_characters_or_pages(server, ask):
    evil = {"error": "missing_tos", "data": {"tos_form_url": "javascript:alert(1)\x1b[31m"}}
    server.answers = [(403, {}, json.dumps(evil).encode())]
    with pytest.raises(LoginError) as refused:
        ask()
    assert "javascript" not in str(refused.value)
    assert "\x1b" not in str(refused.value)


def test_reads_are_repeated_and_edits_never(server, ask):
    server.answers = [(503, {}, b""), (502, {}, b""), (200, {}, b'{"a": 1}')]
    assert ask().json() == {"a": 1}
    assert len(server.asked) == 3
    server.asked.clear()
    server.answers = [(504, {}, b""), (200, {}, b"{}")]
    with pytest.raises(NoAnswerError, match="504"):
        ask("/segmentation/api/v1/table/t/merge?priority=False", "POST")
    assert len(server.asked) == 1


@pytest.mark.parametrize("name", ["merge", "split", "undo", "redo"])
def test_what_changes_the_graph_is_known(name):
    assert is_edit(f"https://h/segmentation/api/v1/table/t/{name}?x=1", "POST")
    assert not is_edit(f"https://h/segmentation/api/v1/table/{name}/roots_binary", "POST")
    assert not is_edit("https://h/segmentation/api/v1/table/t/graph/split_preview", "POST")


def test_a_body_that_breaks_off_is_asked_for_again(server, ask):
    server.answers = [(200, {"Content-Length": 100}, b'{"a"'), (200, {}, b'{"a": 2}')]
    assert ask().json() == {"a": 2}


class Hanging(BaseHTTPRequestHandler):
    """Keeps the connection, takes the next request on it, and hangs up without a word."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append((self.command, self.path, id(self)))
        if sum(who == id(self) for _, _, who in self.server.asked) > self.server.good_for:
            self.close_connection = True
            return
        self.send_response(self.server.status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def do_POST(self):
        self.do_GET()

    def log_message(self, *_):
        pass


class TestConnectionsThatTheServerCloses:
    @pytest.fixture
    def server(self, monkeypatch) -> Iterator[ThreadingHTTPServer]:
        self.pauses = []
        monkeypatch.setattr(wire.time, "sleep", self.pauses.append)
        made = ThreadingHTTPServer(("127.0.0.1", 0), Hanging)
        made.asked, made.good_for, made.status = [], 1, 200
        made.daemon_threads = True
        made.url = f"http://127.0.0.1:{made.server_port}"
        with running(made):
            yield made

    def test_what_only_reads_is_sent_again_at_once_on_another(self, server, ask):
        ask("/first")
        assert ask("/second", "POST").json() == {}
        # the second request met the closed connection, and the same came again on a new one
        assert [path for _, path, _ in server.asked] == ["/first", "/second", "/second"]
        assert server.asked[0][2] == server.asked[1][2] != server.asked[2][2]
        assert self.pauses == []

    def test_it_costs_none_of_the_tries(self, server, ask):
        ask("/first")
        server.status = 503
        with pytest.raises(NoAnswerError, match="503"):
            ask("/second")
        answers = [path for _, path, who in server.asked[2:] if path == "/second"]
        assert len(answers) >= wire._TRIES
        assert len(self.pauses) == wire._TRIES - 1

    def test_an_edit_is_not_sent_again(self, server, ask):
        ask("/first")
        with pytest.raises(NoAnswerError, match="broke off"):
            ask("/segmentation/api/v1/table/t/merge", "POST")
        assert [path for _, path, _ in server.asked][1:] == ["/segmentation/api/v1/table/t/merge"]

    def test_a_server_that_always_hangs_up_is_said(self, server, ask):
        server.good_for = 0
        with pytest.raises(NoAnswerError, match="broke off"):
            ask()
        assert len(server.asked) == 2 * wire._TRIES


def test_a_server_that_is_down_is_said(server, ask):
    server.shutdown()
    server.server_close()
    with pytest.raises(NoAnswerError, match="refuses connections"):
        ask()


def test_nothing_is_sent_to_a_host_that_may_not_have_the_token():
    trust = Trust(["known.example"], [])
    account = Account("mini", "https://known.example", Token(SECRET, "x"), trust)
    made = session(account)
    with pytest.raises(UntrustedHostError, match=r"--trust other\.example"):
        made.get("https://other.example/info")
    with pytest.raises(DatasetError, match="encrypted"):
        made.get("http://known.example/info")
    made.close()


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://known.example/a", True),
        ("https://KNOWN.example./a", True),
        ("graphene://middleauth+https://known.example/segmentation/table/t", True),
        ("http://known.example", False),
        ("https://known.example.evil.example", False),
        ("https://evil.example/known.example", False),
        ("https://known.example@evil.example/", False),
        ("http://127.0.0.1:99", True),
        ("http://localhost:99", True),
        ("http://[::1]:99", True),
        ("http://127.0.0.1.evil.example", False),
        ("ftp://127.0.0.1", False),
        ("https://mine.example", True),
    ],
)
def test_a_token_goes_to_known_hosts_encrypted(url, allowed):
    assert Trust(["known.example"], ["mine.example"]).allows(url) is allowed


@pytest.mark.parametrize("bad", ["", "https://h", "h:80", "h/p", "a b", "-h", "h" * 300, "ä.b"])
def test_a_host_to_approve_is_one_name(bad):
    with pytest.raises(UsageError, match="one host name"):
        host_name(bad)


def test_an_address_without_a_host_is_refused():
    with pytest.raises(DatasetError, match="not an address"):
        host_of("https://")


@pytest.mark.parametrize("bad", ["short", "x" * 600, "with space in it", "new\nline-in-a-token"])
def test_what_cannot_be_a_token_is_not_sent_and_not_shown(monkeypatch, bad):
    monkeypatch.setenv("CAVE_TOKEN", bad)
    with pytest.raises(LoginError) as refused:
        find_token("https://known.example")
    assert bad not in str(refused.value)


def test_a_token_is_not_shown():
    assert SECRET not in f"{Token(SECRET, 'CAVE_TOKEN')!r} {Token(SECRET, 'CAVE_TOKEN')}"


def test_a_damaged_token_file_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("CAVE_TOKEN", raising=False)
    folder = tmp_path / ".cloudvolume" / "secrets"
    folder.mkdir(parents=True)
    assert find_token("https://known.example") is None
    (folder / "cave-secret.json").write_text(json.dumps({"token": SECRET}))
    assert find_token("https://known.example").value == SECRET
    assert AuthClient(server_address="https://known.example").token == SECRET
    (folder / "cave-secret.json").write_text("{")
    with pytest.raises(LoginError, match="cannot be read"):
        find_token("https://known.example")


def test_errors_of_ours_are_errors_of_datasets():
    assert issubclass(LoginError, DatasetError)
    assert issubclass(NoAnswerError, AssistError)
