"""Every route of the port, Neuroglancer's included, refuses foreign requests."""

from __future__ import annotations

import contextlib
import socket

import pytest
from page_harness import start

from cb2_assist.server.guard import KEY_HEADER, Secrets

STATE = b'{"pg": "x", "g": "1", "s": {}, "c": "1"}'

# Each pattern of the running application, with requests of ours and the status that they get;
# {viewer} is the viewer's own token.
ROUTES: dict[str, list[tuple[str, str, bytes, int]]] = {
    "/": [("GET", "/", b"", 200)],
    "/static/(.*)": [
        ("GET", "/static/js/main.js", b"", 200),
        ("HEAD", "/static/js/main.js", b"", 200),
        ("GET", "/static/nothing.js", b"", 404),
    ],
    "/ws": [("GET", "/ws", b"", 101)],
    "/api/keys": [("GET", "/api/keys", b"", 200)],
    r"/views/([^/]+)/([^/]+)\.png": [
        ("GET", "/views/0123456789abcdef/front.png", b"", 200),
        ("GET", "/views/0123456789abcdef/back.png", b"", 404),
    ],
    "/data/([^/]+)/(.*)": [
        ("GET", "/data/toy/seg/info", b"", 200),
        ("GET", "/data/toy/../../etc/passwd", b"", 404),
    ],
    r"/report(\.json)?": [
        ("GET", "/report", b"", 404),
        ("GET", "/report.json", b"", 404),
    ],
    r"/(?:favicon\.ico|static|api/.*|graph(?:/.*)?|views(?:/.*)?|data(?:/.*)?)": [
        ("GET", "/favicon.ico", b"", 404),
        ("GET", "/graph/segmentation/table/t/info", b"", 404),
        ("GET", "/api/nothing", b"", 404),
        ("GET", "/views/nothing", b"", 404),
    ],
    "^/v/(?P<viewer_token>[^/]+)/(?P<path>(?:[@a-zA-Z0-9_\\-][@a-zA-Z0-9_\\-./]*)?)$": [
        ("GET", "/v/{viewer}/", b"", 200),
        ("GET", "/v/{viewer}/main.js", b"", 404),
    ],
    "^/neuroglancer/info/(?P<token>[^/]+)$": [
        ("GET", "/neuroglancer/info/{viewer}.1", b"", 404),
    ],
    "^/neuroglancer/skeletoninfo/(?P<token>[^/]+)$": [
        ("GET", "/neuroglancer/skeletoninfo/{viewer}.1", b"", 404),
    ],
    "^/neuroglancer/(?P<data_format>[^/]+)/(?P<token>[^/]+)/(?P<scale_key>[^/]+)/"
    "(?P<start>[0-9]+(?:,[0-9]+)*)/(?P<end>[0-9]+(?:,[0-9]+)*)$": [
        ("GET", "/neuroglancer/npz/{viewer}.1/1,1,1/0,0,0/1,1,1", b"", 404),
    ],
    "^/neuroglancer/skeleton/(?P<key>[^/]+)/(?P<object_id>[0-9]+)$": [
        ("GET", "/neuroglancer/skeleton/{viewer}.1/5", b"", 404),
    ],
    "^/neuroglancer/mesh/(?P<key>[^/]+)/(?P<object_id>[0-9]+)$": [
        ("GET", "/neuroglancer/mesh/{viewer}.1/5", b"", 404),
    ],
    "^/action/(?P<viewer_token>[^/]+)$": [
        ("POST", "/action/{viewer}", b'{"action": "none", "state": {}}', 200),
    ],
    "^/volume_response/(?P<viewer_token>[^/]+)/(?P<request_id>[^/]+)/info$": [
        ("POST", "/volume_response/{viewer}/1/info", b"{}", 200),
    ],
    "^/volume_response/(?P<viewer_token>[^/]+)/(?P<request_id>[^/]+)/chunk$": [
        ("POST", "/volume_response/{viewer}/1/chunk?p=%7B%7D", b"", 200),
    ],
    "^/events/(?P<viewer_token>[^/]+)$": [("GET", "/events/{viewer}?c=1&gc=&gs=", b"", 200)],
    "^/state/(?P<viewer_token>[^/]+)$": [("POST", "/state/{viewer}", STATE, 412)],
    # Neuroglancer's own refusal: our viewers hold no credentials
    "^/credentials/(?P<viewer_token>[^/]+)$": [("POST", "/credentials/{viewer}", b"{}", 403)],
    "no route": [("GET", "/nothing/here", b"", 404), ("POST", "/nothing/here", b"", 404)],
}

# what is wrong with a request that would be ours otherwise: headers to replace; None takes one away
FOREIGN: dict[str, dict[str, str | None]] = {
    "no cookie": {"Cookie": None},
    "wrong cookie": {"Cookie": "{cookie_name}=wrong"},
    "another server's cookie": {"Cookie": "cb2-assist-0123456789ab={cookie_value}"},
    "foreign Host": {"Host": "evil.example"},
    "Host that begins as ours": {"Host": "127.0.0.1.evil.example"},
    "Host that ends as ours": {"Host": "evil.localhost"},
    "all addresses as Host": {"Host": "0.0.0.0"},
    "foreign Origin": {"Origin": "http://evil.example"},
    "another port of this machine": {"Origin": "http://127.0.0.1:1", "Sec-Fetch-Site": "same-site"},
    "another name of this machine": {"Origin": "http://localhost:{port}"},
    "Origin null": {"Origin": "null"},
    "Origin of another scheme": {"Origin": "ftp://{host}"},
}
# browsers call every WebSocket cross-site or none, and always say its Origin
FOREIGN_NOT_SOCKETS: dict[str, dict[str, str | None]] = {
    "from another site": {"Sec-Fetch-Site": "cross-site"},
    "from another port, without Origin": {"Sec-Fetch-Site": "same-site", "Origin": None},
    "navigation from another port": {
        "Sec-Fetch-Site": "same-site",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "document",
        "Origin": None,
    },
}
FOREIGN_CHANGES: dict[str, dict[str, str | None]] = {
    "no Origin": {"Origin": None},
    "no key": {KEY_HEADER: None, "Sec-WebSocket-Protocol": None},
    "wrong key": {KEY_HEADER: "wrong", "Sec-WebSocket-Protocol": "cb2-assist-key.wrong"},
    "the cookie's value as key": {
        KEY_HEADER: "{cookie_value}",
        "Sec-WebSocket-Protocol": "cb2-assist, cb2-assist-key.{cookie_value}",
    },
}


def _viewer(served) -> str:
    """Open the page's socket once, so that the viewer of this origin exists."""
    status, _, _ = served.ask("GET", "/ws", served.upgrading)
    assert status == 101
    return Secrets(served.server.token).derived(f"viewer http://{served.host}")


def _ours(served, method: str, path: str) -> dict[str, str]:
    if path == "/ws":
        return served.upgrading
    return served.reading if method in {"GET", "HEAD"} else served.changing


def _requests(served):
    viewer = _viewer(served)
    for rows in ROUTES.values():
        for method, path, body, good in rows:
            yield method, path.format(viewer=viewer), body, good


def _bent(served, ours: dict[str, str], wrong: dict[str, str | None]) -> dict[str, str]:
    secrets = Secrets(served.server.token)
    words = {
        "host": served.host,
        "port": served.server.port,
        "cookie_name": secrets.cookie_name,
        "cookie_value": secrets.cookie_value,
    }
    made = {**ours, **{name: value and value.format(**words) for name, value in wrong.items()}}
    return {name: value for name, value in made.items() if value is not None}


def _assert_refused(served, why: str, method: str, path: str, headers, body: bytes = b"") -> None:
    status, answer, data = served.ask(method, path, headers, body)
    assert status == 403, f"{method} {path} with {why} gave {status}"
    assert "frame-ancestors 'self'" in answer["Content-Security-Policy"], "refused by the guard"
    if method != "HEAD":
        assert data.startswith(b"403: "), f"{method} {path} with {why}: {data[:200]!r}"
        assert data.count(b"\n") == 1, "one clear line"


def test_the_table_has_every_route(served) -> None:
    """Of the running application: a route that is added must get a row here."""
    app = served.server._mount._server.app
    found = {
        rule.matcher.regex.pattern.removesuffix("$")
        for outer in app.default_router.rules
        for rule in getattr(outer.target, "rules", ())
    }
    rows = {pattern.removesuffix("$") for pattern in ROUTES}
    assert found == rows - {"no route"}


def test_each_route_answers_us(served) -> None:
    for method, path, body, good in _requests(served):
        status, headers, data = served.ask(method, path, _ours(served, method, path), body)
        assert not data.startswith(b"403: "), f"{method} {path} refused by the guard: {data!r}"
        assert status == good, f"{method} {path} gave {status}, not {good}: {data[:200]!r}"
        if status != 101:
            assert "frame-ancestors 'self'" in headers["Content-Security-Policy"], path
            assert headers["X-Content-Type-Options"] == "nosniff", path
            assert headers["Referrer-Policy"] == "no-referrer", path
            assert "Server" not in headers, path
            assert "Access-Control-Allow-Origin" not in headers, path


def test_each_route_refuses_everybody_else(served) -> None:
    for method, path, body, _ in _requests(served):
        ours = _ours(served, method, path)
        cases = dict(FOREIGN)
        if path != "/ws":
            cases |= FOREIGN_NOT_SOCKETS
        if path == "/ws" or method == "POST":
            cases |= FOREIGN_CHANGES
        for why, wrong in cases.items():
            if path == "/" and why == "navigation from another port":
                continue  # a link of ours; see test_pages
            _assert_refused(served, why, method, path, _bent(served, ours, wrong), body)
        token = path + ("&" if "?" in path else "?") + "token=wrong"
        _assert_refused(served, "wrong token", method, token, {**ours, "Cookie": ""}, body)
        for why, twice in (
            ("two Hosts", [("Host", served.host), ("Host", "evil.example")]),
            ("two Hosts in one", [("Host", f"{served.host},evil.example")]),
            ("a user in the Host", [("Host", "127.0.0.1@evil.example")]),
            ("two Origins", [("Origin", f"http://{served.host}"), ("Origin", "http://evil")]),
        ):
            rest = [(n, v) for n, v in ours.items() if n != "Origin"]
            status, _, _ = served.ask(method, path, [*twice, *rest], body)
            assert status in {400, 403}, f"{method} {path} with {why} gave {status}"
        absolute = f"http://{served.host}{path}"
        _assert_refused(served, "the form for proxies", method, absolute, ours, body)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "X"])
def test_other_methods_need_the_key_and_then_do_nothing(served, method: str) -> None:
    known = {(m, p) for m, p, _, _ in _requests(served)}
    for _, path, _, _ in _requests(served):
        if (method, path) in known:
            continue
        for why, wrong in (FOREIGN | FOREIGN_NOT_SOCKETS | FOREIGN_CHANGES).items():
            _assert_refused(served, why, method, path, _bent(served, served.changing, wrong))
        status, _, _ = served.ask(method, path, served.changing)
        assert status in {404, 405}, f"{method} {path} gave {status}"


def test_heads_are_refused_like_what_they_are_of(served) -> None:
    for _, path, _, _ in _requests(served):
        for why, wrong in (FOREIGN | FOREIGN_NOT_SOCKETS).items():
            _assert_refused(served, why, "HEAD", path, _bent(served, served.reading, wrong))


def test_a_body_is_read_from_us_alone_and_only_so_much(served) -> None:
    """The answer comes before the body, so that nobody can fill the memory."""
    for headers, number in (({}, b"403"), (served.changing, b"400")):
        lines = "".join(f"{n}: {v}\r\n" for n, v in {"Host": served.host, **headers}.items())
        with socket.create_connection(("127.0.0.1", served.server.port), timeout=60) as plain:
            plain.sendall(
                f"POST /state/x HTTP/1.1\r\n{lines}Content-Length: {17 * 2**20}\r\n\r\n".encode()
            )
            assert plain.recv(100).startswith(b"HTTP/1.1 " + number), headers


def test_endless_headers_end_the_connection(served) -> None:
    with socket.create_connection(("127.0.0.1", served.server.port), timeout=60) as plain:
        plain.sendall(f"GET / HTTP/1.1\r\nHost: {served.host}\r\n".encode())
        answer = b""
        with contextlib.suppress(ConnectionError):  # reset or broken pipe, as the system likes
            for _ in range(10_000):
                plain.sendall(b"X-Filler: " + b"x" * 1000 + b"\r\n")
            answer = plain.recv(100)
        assert not answer.startswith(b"HTTP/1.1 2")
    assert served.ask("GET", "/", served.reading)[0] == 200


def test_an_allowed_name_is_answered_and_no_other(tmp_path) -> None:
    running = start(tmp_path, allow_hosts=("Lab.example.org", "::2"))
    try:
        for host in ("lab.example.org", "LAB.example.org:8443", "[::2]:1", "localhost"):
            for origin in (f"http://{host}", f"https://{host}"):
                ours = {**running.changing, "Host": host, "Origin": origin}
                assert running.ask("POST", "/nothing", ours)[0] == 404, origin
        for host in ("example.org", "x.lab.example.org", "lab.example.orgs", "[::3]", "*"):
            ours = {**running.changing, "Host": host, "Origin": f"http://{host}"}
            _assert_refused(running, host, "POST", "/nothing", ours)
    finally:
        running.server.stop()


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
    ("GET", "/views/0123456789abcdef/front.png?sha256=%ff", b""),
]


def test_malformed_requests_of_ours_leave_no_traceback(served, caplog) -> None:
    viewer = _viewer(served)
    for method, path, body in MALFORMED:
        path = path.format(viewer=viewer)
        status, _, data = served.ask(method, path, _ours(served, method, path), body)
        assert 400 <= status < 600 or path.startswith("/action"), f"{method} {path}: {status}"
        assert b"Traceback" not in data
        assert not data.startswith(b"403: "), "refused by the guard"
        assert [r.getMessage() for r in caplog.records if r.exc_info] == [], f"{method} {path}"
    assert served.ask("GET", "/", served.reading)[0] == 200


def test_an_odd_tab_name_and_an_odd_origin_leave_no_traceback(served, caplog) -> None:
    assert served.ask("GET", "/ws?tab=%ff&load=%ff&waits=%ff", served.upgrading)[0] == 101
    for origin in ("http://[::1", "http://[x]", f"http://{served.host}/x"):
        assert served.ask("GET", "/", {"Origin": origin})[0] == 403, "without a secret"
        assert served.ask("GET", "/ws", {**served.upgrading, "Origin": origin})[0] == 403
    assert [r.getMessage() for r in caplog.records if r.exc_info] == []
