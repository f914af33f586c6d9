from __future__ import annotations

import json

from cb2_assist.core.keys import DEFAULT_KEYS
from cb2_assist.server.guard import Secrets


def _cookie(served) -> dict[str, str]:
    secrets = Secrets(served.server.token)
    return {"Cookie": f"{secrets.cookie_name}={secrets.cookie_value}"}


def test_the_token_becomes_a_cookie_and_leaves_the_address(served) -> None:
    status, headers, _ = served.ask("GET", f"/?token={served.server.token}")
    assert (status, headers["Location"]) == (303, "./")
    cookie = headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert served.server.token not in cookie
    status, headers, body = served.ask("GET", "/", {"Cookie": cookie.split(";")[0]})
    assert status == 200
    assert b"cb2-suggestions" in body
    assert "frame-ancestors 'self'" in headers["Content-Security-Policy"]


def test_a_link_from_another_site_is_forwarded_by_our_own_document(served) -> None:
    """A strict cookie is not sent on a redirect that another site began."""
    status, headers, body = served.ask(
        "GET", f"/?token={served.server.token}", {"Sec-Fetch-Site": "cross-site"}
    )
    assert status == 200
    assert b'content="0;url=./"' in body
    assert "Set-Cookie" in headers


def test_modules_are_asked_for_anew_and_not_sent_twice(served) -> None:
    status, headers, body = served.ask("GET", "/static/js/api.js", _cookie(served))
    assert (status, headers["Cache-Control"]) == (200, "no-cache")
    assert body
    again = {**_cookie(served), "If-None-Match": headers["Etag"]}
    assert served.ask("GET", "/static/js/api.js", again)[0] == 304


def test_the_key_table_is_served(served) -> None:
    status, _, body = served.ask("GET", "/api/keys", _cookie(served))
    assert status == 200
    actions = [row["action"] for row in json.loads(body)["bindings"]]
    assert actions == [k.action for k in DEFAULT_KEYS]


def test_dataset_files_come_with_their_encoding(served, tmp_path) -> None:
    import gzip

    (tmp_path / "seg" / "0-1_0-1_0-1.gz").write_bytes(gzip.compress(b"chunk"))
    status, headers, body = served.ask("GET", "/data/toy/seg/0-1_0-1_0-1", _cookie(served))
    assert (status, headers["Content-Encoding"], gzip.decompress(body)) == (200, "gzip", b"chunk")
    again = {**_cookie(served), "If-None-Match": headers["Etag"]}
    assert served.ask("GET", "/data/toy/seg/0-1_0-1_0-1", again)[0] == 304


def test_nothing_outside_the_dataset_is_served(served, tmp_path) -> None:
    (tmp_path.parent / "secret").write_text("secret")
    for path in (
        "/data/toy/../secret",
        "/data/toy/..%2fsecret",
        "/data/toy/%2e%2e/secret",
        "/data/other/seg/info",
        "/data/toy/seg",
        "/data/toy/",
        "/static/../pyproject.toml",
        "/static/%2e%2e/pyproject.toml",
    ):
        status, _, body = served.ask("GET", path, _cookie(served))
        assert status in {403, 404}, path
        assert b"secret" not in body
        assert b"Traceback" not in body


def test_an_unexpected_method_is_one_line(served) -> None:
    status, _, body = served.ask("POST", "/", _cookie(served), b"x")
    assert (status, body) == (405, b"405: Method Not Allowed\n")
