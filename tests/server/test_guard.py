"""What the check in front of every route lets pass."""

from __future__ import annotations

import pytest
from tornado import httputil

from cb2_assist.core.errors import UsageError
from cb2_assist.server.guard import Guard, Secrets, host_name

NAVIGATION = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


def _refusal(path: str, *headers: tuple[str, str], method: str = "GET") -> str | None:
    made = httputil.HTTPHeaders()
    for name, value in headers:
        made.add(name, value)
    line = httputil.RequestStartLine(method, path, "HTTP/1.0")
    request = httputil.HTTPServerRequest(start_line=line, headers=made)
    return Guard(Secrets("secret")).refusal(request)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:80", "LOCALHOST:9", "[::1]:8080"])
def test_loopback_names_pass_with_any_port(host: str) -> None:
    assert _refusal("/?token=secret", ("Host", host)) is None


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Host", "")],
        [("Host", "127.0.0.1:99999999")],
        [("Host", "127.0.0.1:65536")],
        [("Host", "127.0.0.1"), ("Origin", "http://127.0.0.1"), ("Origin", "http://evil.example")],
        *(
            [("Host", "127.0.0.1"), ("Origin", origin)]
            for origin in (
                "ftp://127.0.0.1",
                "http://[::1",
                "http://[x]",
                "http://127.0.0.1/x",
                "http://127.0.0.1/",
                "http://u@127.0.0.1",
                "//127.0.0.1",
                "",
            )
        ),
    ],
)
def test_odd_headers_are_refused(headers) -> None:
    assert _refusal("/?token=secret", *headers) is not None


@pytest.mark.parametrize("query", ["", "token=", "token=Secret", "token=secret&token=secret"])
def test_only_one_right_token_counts(query: str) -> None:
    assert _refusal(f"/?{query}", ("Host", "localhost")) is not None


@pytest.mark.parametrize(
    "odd",
    ['theme={"mode":"dark"}', "foo[1]=x", "a@b=1", "user=Jane Doe", "k=\u00e9", 'x="un', "=", ";;"],
)
def test_another_programs_cookie_does_not_hide_ours(odd: str) -> None:
    secrets = Secrets("secret")
    ours, host = f"{secrets.cookie_name}={secrets.cookie_value}", ("Host", "localhost")
    stale = f"{secrets.cookie_name}=of-another-path"
    for cookies in (f"{odd}; {ours}", f"{ours}; {odd}", f"{stale}; {ours}", f"{ours};{stale}"):
        assert _refusal("/", host, ("Cookie", cookies)) is None, cookies
    assert _refusal("/", host, ("Cookie", odd)) is not None
    assert _refusal("/", host, ("Cookie", f"x{ours}; {ours}x")) is not None


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_link_may_open_the_page_with_the_token_and_do_nothing_else(site: str) -> None:
    host, foreign = ("Host", "localhost"), ("Sec-Fetch-Site", site)
    link = [host, foreign, *NAVIGATION.items()]
    assert _refusal("/?token=secret", *link) is None
    for path in ("/", "/?token=wrong", "/api/keys?token=secret", "/ws?token=secret"):
        assert _refusal(path, *link) is not None, path
    assert _refusal("/?token=secret", *link, method="POST") is not None
    frame = [host, foreign, ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "iframe")]
    assert _refusal("/?token=secret", *frame) is not None
    image = [host, foreign, ("Sec-Fetch-Mode", "no-cors"), ("Sec-Fetch-Dest", "image")]
    assert _refusal("/?token=secret", *image) is not None


def test_a_script_with_the_token_may_open_the_socket_if_it_says_its_origin() -> None:
    upgrade = [("Host", "localhost:1"), ("Upgrade", "WebSocket")]
    assert _refusal("/ws?token=secret", *upgrade, ("Origin", "http://localhost:1")) is None
    assert "Origin is missing" in str(_refusal("/ws?token=secret", *upgrade))


def test_no_secret_tells_the_token_or_another_secret() -> None:
    secrets = Secrets("secret")
    made = {
        secrets.server_id,
        secrets.cookie_value,
        secrets.page_key,
        secrets.derived("viewer localhost:1"),
    }
    assert len(made) == 4
    assert not any("secret" in value for value in made)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("lab.example.org", "lab.example.org"),
        ("Lab_PC.", "lab_pc"),
        ("192.168.1.5", "192.168.1.5"),
        ("::1", "[::1]"),
        ("[2001:DB8::0:1]", "[2001:db8::1]"),
    ],
)
def test_names_to_be_allowed_are_taken_as_a_browser_sends_them(text: str, wanted: str) -> None:
    assert host_name(text) == wanted


@pytest.mark.parametrize(
    "text",
    ["", "*", "*.example.org", "http://lab", "lab:80", "lab/x", "a b", "a,b", "-lab", "x" * 300],
)
def test_what_is_no_name_is_refused_with_advice(text: str) -> None:
    with pytest.raises(UsageError, match="without http://, port and path"):
        host_name(text)
