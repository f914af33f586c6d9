"""Every route of the port, Neuroglancer's included, refuses foreign requests."""

from __future__ import annotations

import pytest
from tornado import httputil

from cb2_assist.server.guard import Guard, Secrets

UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}

# method, path, body, status of the good case; {viewer} is the viewer's own token
ROUTES = [
    ("GET", "/", b"", 200),
    ("GET", "/static/js/main.js", b"", 200),
    ("GET", "/static/nothing.js", b"", 404),
    ("GET", "/ws", b"", 101),
    ("GET", "/api/keys", b"", 200),
    ("GET", "/views/0123456789abcdef/front.png", b"", 200),
    ("GET", "/views/0123456789abcdef/back.png", b"", 404),
    ("GET", "/views/nothing", b"", 404),
    ("GET", "/data/toy/seg/info", b"", 200),
    ("GET", "/data/toy/../../etc/passwd", b"", 404),
    ("GET", "/favicon.ico", b"", 404),
    ("GET", "/nothing/here", b"", 404),
    ("GET", "/v/{viewer}/", b"", 200),
    ("GET", "/v/{viewer}/main.js", b"", 404),
    ("GET", "/events/{viewer}?c=1&gc=&gs=", b"", 200),
    ("POST", "/state/{viewer}", b'{"pg": "x", "g": "1", "s": {}, "c": "1"}', 412),
    ("POST", "/action/{viewer}", b'{"action": "none", "state": {}}', 200),
    ("POST", "/credentials/{viewer}", b'{"key": "x"}', 403),
    ("POST", "/volume_response/{viewer}/1/info", b"{}", 200),
    ("POST", "/volume_response/{viewer}/1/chunk?p=%7B%7D", b"", 200),
    ("GET", "/neuroglancer/info/{viewer}.1", b"", 404),
    ("GET", "/neuroglancer/skeletoninfo/{viewer}.1", b"", 404),
    ("GET", "/neuroglancer/npz/{viewer}.1/1,1,1/0,0,0/1,1,1", b"", 404),
    ("GET", "/neuroglancer/mesh/{viewer}.1/5", b"", 404),
    ("GET", "/neuroglancer/skeleton/{viewer}.1/5", b"", 404),
]

FOREIGN = {
    "no token": lambda host: {"Host": host},
    "wrong cookie": lambda host: {"Host": host, "Cookie": "{name}=wrong"},
    "foreign Host": lambda _host: {"Host": "evil.example", "Cookie": "{cookie}"},
    "foreign Host that begins as ours": lambda _host: {
        "Host": "127.0.0.1.evil.example",
        "Cookie": "{cookie}",
    },
    "foreign Origin": lambda host: {
        "Host": host,
        "Cookie": "{cookie}",
        "Origin": "http://evil.example",
    },
    "our name, another port": lambda host: {
        "Host": host,
        "Cookie": "{cookie}",
        "Origin": "http://127.0.0.1:1",
    },
    "Origin null": lambda host: {"Host": host, "Cookie": "{cookie}", "Origin": "null"},
}


@pytest.fixture
def secrets(served):
    return Secrets(served.server.token)


def _request(path: str, headers: httputil.HTTPHeaders) -> httputil.HTTPServerRequest:
    line = httputil.RequestStartLine("GET", path, "HTTP/1.0")
    return httputil.HTTPServerRequest(start_line=line, headers=headers)


def _viewer(served, secrets) -> str:
    """Open the page's socket once, so that the viewer of this Host exists."""
    cookie = f"{secrets.cookie_name}={secrets.cookie_value}"
    status, _, _ = served.ask("GET", "/ws", {**UPGRADE, "Cookie": cookie})
    assert status == 101
    return secrets.derived(f"viewer {served.host}")


def test_each_route_answers_us_and_nobody_else(served, secrets) -> None:
    viewer = _viewer(served, secrets)
    cookie = f"{secrets.cookie_name}={secrets.cookie_value}"
    for method, path, body, good in ROUTES:
        path = path.format(viewer=viewer)
        extra = UPGRADE if path == "/ws" else {}
        for name, headers in FOREIGN.items():
            given = {
                key: value.format(cookie=cookie, name=secrets.cookie_name)
                for key, value in headers(served.host).items()
            }
            status, _, data = served.ask(method, path, {**extra, **given}, body)
            assert status == 403, f"{method} {path} with {name} gave {status}"
            assert data.startswith(b"403: "), f"{method} {path} with {name}: {data[:200]!r}"
            assert data.count(b"\n") == 1, "one clear line"
        status, _, data = served.ask(
            method, path + ("&" if "?" in path else "?") + "token=wrong", extra, body
        )
        assert status == 403, f"{method} {path} with a wrong token gave {status}"
        ours = {**extra, "Cookie": cookie, "Origin": f"http://{served.host}"}
        status, _, data = served.ask(method, path, ours, body)
        if path.startswith("/credentials"):
            assert not data.startswith(b"403: "), "refused by the viewer, not by the guard"
        assert status == good, f"{method} {path} gave {status}, not {good}: {data[:200]!r}"


def test_a_refused_body_is_not_read(served) -> None:
    """The answer comes before the body, so that nobody can fill the memory."""
    import socket

    with socket.create_connection(("127.0.0.1", served.server.port), timeout=10) as plain:
        plain.sendall(
            f"POST /state/x HTTP/1.1\r\nHost: {served.host}\r\n".encode()
            + b"Content-Length: 1000000000\r\n\r\n"
        )
        assert plain.recv(100).startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:80", "LOCALHOST:9", "[::1]:8080"])
def test_loopback_names_pass_with_any_port(host: str) -> None:
    request = _request("/?token=secret", httputil.HTTPHeaders({"Host": host}))
    assert Guard(Secrets("secret")).refusal(request) is None


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Host", "127.0.0.1:99999999")],
        [("Host", "127.0.0.1"), ("Origin", "http://127.0.0.1"), ("Origin", "http://evil.example")],
        [("Host", "127.0.0.1"), ("Origin", "ftp://127.0.0.1")],
    ],
)
def test_odd_headers_are_refused(headers) -> None:
    made = httputil.HTTPHeaders()
    for name, value in headers:
        made.add(name, value)
    request = _request("/?token=secret", made)
    assert Guard(Secrets("secret")).refusal(request) is not None


@pytest.mark.parametrize("query", ["", "token=", "token=Secret", "token=secret&token=secret"])
def test_only_one_right_token_counts(query: str) -> None:
    request = _request(f"/?{query}", httputil.HTTPHeaders({"Host": "localhost"}))
    assert Guard(Secrets("secret")).refusal(request) is not None


def test_the_cookie_tells_neither_the_token_nor_another_secret() -> None:
    secrets = Secrets("secret")
    made = {secrets.server_id, secrets.cookie_value, secrets.derived("viewer localhost:1")}
    assert len(made) == 3
    assert not any("secret" in value for value in made)


MALFORMED = [
    ("POST", "/state/{viewer}", b"nonsense"),
    ("POST", "/state/{viewer}", b"[]"),
    ("POST", "/state/{viewer}", b'{"pg": "x"}'),
    ("POST", "/action/{viewer}", b"\xff\xfe"),
    ("POST", "/action/{viewer}", b'{"action": "screenshot", "state": 5}'),
    ("POST", "/volume_response/{viewer}/1/info", b"nonsense"),
    ("POST", "/volume_response/{viewer}/1/chunk?p=nonsense", b""),
    ("GET", "/events/{viewer}", b""),
    ("GET", "/neuroglancer/npz/x/1/99999999999999999999999/0", b""),
    ("GET", "/neuroglancer/mesh/x/99999999999999999999999", b""),
    ("GET", "/v/{viewer}/%00", b""),
    ("GET", "/views/%00/front.png", b""),
    ("GET", "/views/" + "x" * 5000 + "/nothing.png", b""),
    ("GET", "/data/toy/%00", b""),
    ("GET", "/data/toy/" + "x" * 5000, b""),
    ("GET", "/static/" + "x" * 5000, b""),
    ("GET", "/static/%00", b""),
    ("GET", "/data/%ff/%ff", b""),
]


def test_malformed_requests_of_ours_leave_no_traceback(served, secrets, caplog) -> None:
    viewer = _viewer(served, secrets)
    cookie = f"{secrets.cookie_name}={secrets.cookie_value}"
    for method, path, body in MALFORMED:
        status, _, data = served.ask(method, path.format(viewer=viewer), {"Cookie": cookie}, body)
        assert 400 <= status < 600 or path.startswith("/action"), f"{method} {path}: {status}"
        assert b"Traceback" not in data
        assert [r.getMessage() for r in caplog.records if r.exc_info] == [], f"{method} {path}"
    assert served.ask("GET", "/", {"Cookie": cookie})[0] == 200
