from __future__ import annotations

import json

import pytest

from cb2_assist.core.keys import DEFAULT_KEYS
from cb2_assist.server.guard import Secrets


def test_the_token_becomes_a_cookie_and_leaves_the_address(served) -> None:
    status, headers, body = served.ask("GET", f"/?token={served.server.token}")
    assert status == 200
    assert f'data-key="{Secrets(served.server.token).page_key}"'.encode() in body
    assert served.server.token.encode() not in body
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    cookie = headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert served.server.token not in cookie
    status, headers, body = served.ask("GET", "/", {"Cookie": cookie.split(";")[0]})
    assert status == 200
    assert b"cb2-suggestions" in body
    assert "frame-ancestors 'self'" in headers["Content-Security-Policy"]


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_link_from_elsewhere_is_forwarded_by_our_own_document(served, site: str) -> None:
    """A strict cookie is not sent on a navigation or a redirect that another site began."""
    link = {
        "Sec-Fetch-Site": site,
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "document",
    }
    status, headers, body = served.ask("GET", f"/?token={served.server.token}", link)
    assert status == 200
    assert f'data-key="{Secrets(served.server.token).page_key}"'.encode() in body
    assert served.server.token.encode() not in body
    assert headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" in headers


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("cookie", [True, False])
def test_a_link_of_ours_on_another_page_is_sent_on_without_anything_secret(
    served, site: str, cookie: bool
) -> None:
    link = {
        **(served.reading if cookie else {}),
        "Sec-Fetch-Site": site,
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "document",
    }
    status, headers, body = served.ask("GET", "/", link)
    assert status == 200
    assert b'data-key=""' in body
    secrets = Secrets(served.server.token)
    for secret in (secrets.token, secrets.page_key, secrets.cookie_value, secrets.server_id):
        assert secret not in f"{headers}{body!r}"
    assert "Set-Cookie" not in headers
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    for path, more in (
        ("/?", {}), ("/?token=x", {}), ("/api/keys", {}), ("/static/js/forward.js", {}),
        ("/", {"Sec-Fetch-Dest": "iframe"}), ("/", {"Sec-Fetch-Mode": "no-cors"}),
        ("/", {"Origin": "null"}), ("/", {"Host": "evil.example"}),
    ):  # fmt: skip
        assert served.ask("GET", path, {**link, **more})[0] == 403, (path, more)
    assert served.ask("POST", "/", link)[0] == 403


@pytest.mark.parametrize("query", ["", "?token=x", "?token=", "?token", "?token={0}&token={0}"])
def test_the_cookie_alone_gets_no_key_and_no_cookie(served, query: str) -> None:
    """Another program on this machine has it: the browser sends it to every port."""
    secrets = Secrets(served.server.token)
    path = f"/{query.format(secrets.token)}"
    status, headers, body = served.ask("GET", path, served.reading)
    assert status in {200, 303}
    assert headers.get("Location", "./") == "./"
    assert "Set-Cookie" not in headers
    assert secrets.page_key.encode() not in body


def test_the_printed_address_opens_a_second_browser_too(served) -> None:
    first = served.ask("GET", f"/?token={served.server.token}")
    assert served.ask("GET", f"/?token={served.server.token}")[:2] == first[:2]


def test_modules_are_asked_for_anew_and_not_sent_twice(served) -> None:
    status, headers, body = served.ask("GET", "/static/js/api.js", served.reading)
    assert (status, headers["Cache-Control"]) == (200, "no-cache")
    assert body
    again = {**served.reading, "If-None-Match": headers["Etag"]}
    assert served.ask("GET", "/static/js/api.js", again)[0] == 304


def test_the_key_table_is_served(served) -> None:
    status, _, body = served.ask("GET", "/api/keys", served.reading)
    assert status == 200
    actions = [row["action"] for row in json.loads(body)["bindings"]]
    assert actions == [k.action for k in DEFAULT_KEYS]


def test_dataset_files_come_with_their_encoding(served, tmp_path) -> None:
    import gzip

    (tmp_path / "seg" / "0-1_0-1_0-1.gz").write_bytes(gzip.compress(b"chunk"))
    status, headers, body = served.ask("GET", "/data/toy/seg/0-1_0-1_0-1", served.reading)
    assert (status, headers["Content-Encoding"], gzip.decompress(body)) == (200, "gzip", b"chunk")
    again = {**served.reading, "If-None-Match": headers["Etag"]}
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
        status, _, body = served.ask("GET", path, served.reading)
        assert status in {403, 404}, path
        assert b"secret" not in body
        assert b"Traceback" not in body


def test_links_that_lead_out_of_the_dataset_are_not_followed(served, tmp_path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (tmp_path / "seg" / "file").symlink_to(outside / "secret")
    (tmp_path / "folder").symlink_to(outside)
    (tmp_path / "inside").symlink_to(tmp_path / "seg" / "info")
    for path in ("/data/toy/seg/file", "/data/toy/folder/secret"):
        assert served.ask("GET", path, served.reading)[0] == 404, path
    assert served.ask("GET", "/data/toy/inside", served.reading)[0] == 200


def test_an_unexpected_method_is_one_line(served) -> None:
    status, _, body = served.ask("POST", "/", served.changing, b"x")
    assert (status, body) == (405, b"405: Method Not Allowed\n")
