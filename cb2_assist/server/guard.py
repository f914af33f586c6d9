"""One check in front of every route of the port, the viewer's included.

Who is kept out:

- **A page on the web.** It can send requests to this machine, and with a name that resolves to
  127.0.0.1 its requests even count as same-origin (DNS rebinding). So the Host must be a loopback
  name or one that was allowed, an Origin must be ours, and the browser must not call the request
  foreign (Sec-Fetch-Site), except a plain navigation that brings the token. A plain navigation to
  the bare address gets a document without anything secret, which sends the browser on from our
  own origin; so a link of ours opens wherever it is written down.
- **Another program's page on this machine**, say a notebook of somebody else at another port. It is
  same-site with us, and the browser sends it our cookie, since cookies do not keep to a port. So
  the cookie alone only reads. What changes anything (every method but GET and HEAD, and the page's
  WebSocket) needs an Origin equal to the Host *and* a key that the page keeps in its origin's own
  storage and sends in a header. A form can send no header, and no other port ever gets the key.
- **Another user of this machine.** The token is in no process list: it reaches the browser through
  a file of mode 0600, and is kept in one.

Who is not: a program that runs as the same user, and one that takes our port while we are stopped
and an open tab looks for us.

The token in the printed address stays valid for as long as the label file's memory of it. A person
opens that address again, in a second browser or through a forwarded port, and a token that died at
its first use would lock them out. It is good for one exchange a browser: the cookie and the key
take over, and the address bar, the Referer and caches never keep it.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import parse_qs

from tornado import httputil
from tornado.routing import Router

from cb2_assist.core.errors import UsageError
from cb2_assist.server.forward import FORWARD_POLICY, forwarding_page

LOOPBACK = ("127.0.0.1", "localhost", "::1")
KEY_HEADER = "X-CB2-Assist-Key"
"""Carries the page's key on requests that change something; `static/js/viewer_key.js` sets it."""
SUBPROTOCOL = "cb2-assist"
KEY_PROTOCOL = "cb2-assist-key."
"""A browser lets a page set no header of a WebSocket but its protocols: the key is one of them."""

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+)(?::(?P<port>\d{1,5}))?")
_NAME = re.compile(r"(?=.{1,253}$)[0-9a-z_]([0-9a-z_-]{0,61}[0-9a-z_])?(\.[0-9a-z_-]{1,63})*")
_READING = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Secrets:
    """Everything secret about a server follows from its token.

    A restart with the same token therefore takes open tabs back.
    """

    token: str

    def derived(self, purpose: str) -> str:
        """40 hex digits for one purpose; the token cannot be got back from them."""
        return hmac.new(self.token.encode(), purpose.encode(), hashlib.sha256).hexdigest()[:40]

    @property
    def server_id(self) -> str:
        """Tells servers on one machine apart: cookies do not keep to a port."""
        return self.derived("id")[:12]

    @property
    def cookie_name(self) -> str:
        """Name of the session cookie."""
        return f"cb2-assist-{self.server_id}"

    @property
    def cookie_value(self) -> str:
        """Value of the session cookie."""
        return self.derived("cookie")

    @property
    def page_key(self) -> str:
        """What the page must show besides the cookie to change anything."""
        return self.derived("page")

    def are_known_to(self, query: str) -> bool:
        """Whether a request's query brings the token: once, and the right one."""
        given = parse_qs(query).get("token", [])
        return len(given) == 1 and _same(given[0], self.token)


def host_name(text: str) -> str:
    """A name for `--allow-host` as it stands in a Host header.

    Raises:
        UsageError: Not one whole name or address without scheme, port and path.
    """
    name = text.strip().lower().rstrip(".")
    try:
        address = ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        if _NAME.fullmatch(name):
            return name
    else:
        return f"[{address}]" if address.version == 6 else str(address)
    raise UsageError(
        f"--allow-host takes one host name or address as it stands in the browser's address bar, "
        f"without http://, port and path, got {text!r}. Give the option again for another name."
    )


class Guard:
    """Says why a request is refused.

    Args:
        secrets: What a request must know.
        allowed: Host names besides the loopback ones, as `host_name` returns them.
    """

    def __init__(self, secrets: Secrets, allowed: Iterable[str] = ()) -> None:
        self._secrets = secrets
        self._names = frozenset(map(host_name, LOOPBACK)) | frozenset(allowed)

    def refusal(self, request: httputil.HTTPServerRequest) -> str | None:
        """One line for the person who asks, or None when the request may pass."""
        return (
            self._wrong_target(request)
            or self._wrong_origin(request)
            or self._wrong_secret(request)
            or self._wrong_change(request)
        )

    def _wrong_target(self, request: httputil.HTTPServerRequest) -> str | None:
        hosts = request.headers.get_list("Host")
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return (
                f"This server answers to {', '.join(sorted(self._names))} only, not to "
                f"{', '.join(hosts)[:200]!r}. Use the address that cb2-assist printed, or start it "
                "with --allow-host NAME."
            )
        if not (request.uri or "").startswith("/"):  # the form that is meant for proxies
            return f"This server is no proxy: it does not fetch {(request.uri or '')[:200]!r}."
        return None

    def _is_ours(self, host: str) -> bool:
        parts = _HOST.fullmatch(host)
        if parts is None or int(parts["port"] or 0) > 65535:
            return False
        return parts["name"].lower() in self._names

    def _wrong_origin(self, request: httputil.HTTPServerRequest) -> str | None:
        headers = request.headers
        ours = {f"{scheme}://{headers['Host']}" for scheme in ("http", "https")}
        for origin in headers.get_list("Origin"):
            if origin not in ours:  # as text: a malformed one must not reach a parser
                return f"A page from {origin[:200]!r} may not use this server."
        # for a WebSocket some browsers say cross-site always; there an Origin is asked for instead
        site = headers.get("Sec-Fetch-Site", "none")
        if _is_upgrade(request) or site in {"none", "same-origin"} or self._is_arrival(request):
            return None
        return f"A page from elsewhere ({site[:40]!r}) may not use this server."

    def _is_arrival(self, request: httputil.HTTPServerRequest) -> bool:
        """A link in a terminal or a note, or our own redirect file, that opens the page."""
        return (
            request.method == "GET"
            and request.path == "/"
            and _is_navigation(request)
            and self._secrets.are_known_to(request.query)
        )

    def is_link(self, request: httputil.HTTPServerRequest) -> bool:
        """Whether a refused request is that of a link of ours, clicked on another site's page.

        Its cookie did not come along; see `server.forward`.
        """
        return (
            self._wrong_target(request) is None
            and (request.method, request.uri) == ("GET", "/")
            and "Origin" not in request.headers
            and request.headers.get("Sec-Fetch-Site") in {"cross-site", "same-site"}
            and _is_navigation(request)
        )

    def _wrong_secret(self, request: httputil.HTTPServerRequest) -> str | None:
        has_cookie = self._has_cookie(request.headers.get_list("Cookie"))
        if has_cookie or self._secrets.are_known_to(request.query):
            return None
        return (
            "The token is missing or wrong. Open the address that cb2-assist printed when it "
            "started; it ends in ?token=…"
        )

    def _wrong_change(self, request: httputil.HTTPServerRequest) -> str | None:
        if request.method in _READING and not _is_upgrade(request):
            return None
        if not request.headers.get_list("Origin"):
            return "What changes something must say where it comes from: the Origin is missing."
        if _is_upgrade(request):
            offered = map(str.strip, request.headers.get("Sec-WebSocket-Protocol", "").split(","))
            keys = [p.removeprefix(KEY_PROTOCOL) for p in offered if p.startswith(KEY_PROTOCOL)]
            known = self._secrets.are_known_to(request.query) or any(map(self._is_key, keys))
        else:
            known = any(map(self._is_key, request.headers.get_list(KEY_HEADER)))
        if known:
            return None
        return (
            "What changes something needs the key that the page got with its cookie. Open the "
            "address that cb2-assist printed when it started; it ends in ?token=…"
        )

    def _is_key(self, given: str) -> bool:
        # scripts know the token and nothing else
        return _same(given, self._secrets.page_key) or _same(given, self._secrets.token)

    def _has_cookie(self, headers: list[str]) -> bool:
        # by hand: a parser may stop at another program's odd cookie, and ours often come behind it
        ours = f"{self._secrets.cookie_name}={self._secrets.cookie_value}"
        return any(_same(pair.strip(), ours) for header in headers for pair in header.split(";"))


class GuardedRouter(Router):
    """Passes a request on to the routes, or answers 403 before any of its body is read."""

    def __init__(self, guard: Guard, routes: Router) -> None:
        self._guard = guard
        self._routes = routes

    def find_handler(
        self, request: httputil.HTTPServerRequest, **kwargs: object
    ) -> httputil.HTTPMessageDelegate | None:
        """The route's handler, or one that refuses."""
        reason = self._guard.refusal(request)
        if reason is None:
            return self._routes.find_handler(request, **kwargs)
        assert request.connection is not None
        if self._guard.is_link(request):
            return _Forwarding(request.connection, forwarding_page())
        body = f"403: {reason}\n".encode()
        return _Refusal(request.connection, body, is_head=request.method == "HEAD")


class _Refusal(httputil.HTTPMessageDelegate):
    """Answers without reading a body."""

    _START = httputil.ResponseStartLine("HTTP/1.1", 403, "Forbidden")
    _TYPE = "text/plain; charset=utf-8"
    _POLICY = "default-src 'none'; frame-ancestors 'self'"

    def __init__(
        self, connection: httputil.HTTPConnection, body: bytes, *, is_head: bool = False
    ) -> None:
        self._connection = connection
        self._body = body
        self._is_head = is_head

    def headers_received(
        self,
        start_line: httputil.RequestStartLine | httputil.ResponseStartLine,  # noqa: ARG002
        headers: httputil.HTTPHeaders,  # noqa: ARG002
    ) -> None:
        self._connection.write_headers(
            self._START,
            httputil.HTTPHeaders(
                {
                    "Content-Type": self._TYPE,
                    "Content-Length": str(len(self._body)),
                    "Content-Security-Policy": self._POLICY,
                    "Cross-Origin-Opener-Policy": "same-origin",
                    "Cache-Control": "no-store",
                    "Referrer-Policy": "no-referrer",
                    "X-Content-Type-Options": "nosniff",
                }
            ),
            b"" if self._is_head else self._body,
        )
        self._connection.finish()


class _Forwarding(_Refusal):
    """Sends a tab on to the page, from our own origin."""

    _START = httputil.ResponseStartLine("HTTP/1.1", 200, "OK")
    _TYPE = "text/html; charset=utf-8"
    _POLICY = FORWARD_POLICY


def _is_navigation(request: httputil.HTTPServerRequest) -> bool:
    """Whether it fills a tab, and no frame."""
    headers = request.headers
    return (headers.get("Sec-Fetch-Mode"), headers.get("Sec-Fetch-Dest")) == (
        "navigate",
        "document",
    )


def _is_upgrade(request: httputil.HTTPServerRequest) -> bool:
    return "websocket" in request.headers.get("Upgrade", "").lower()


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), wanted.encode())
