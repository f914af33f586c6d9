"""One check in front of every route of the port, the viewer's included.

A web page anywhere can send requests to a server on this machine, and a name that resolves to
127.0.0.1 makes such a page same-origin (DNS rebinding). So each request must come under a loopback
name, from our own origin, and with the secret that was printed at start.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from tornado import httputil
from tornado.routing import Router

_HOST = re.compile(r"(?P<name>localhost|127\.0\.0\.1|\[::1\])(?::\d{1,5})?", re.IGNORECASE)


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


class Guard:
    """Says why a request is refused."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets

    def refusal(self, request: httputil.HTTPServerRequest) -> str | None:
        """One line for the person who asks, or None when the request may pass."""
        hosts = request.headers.get_list("Host")
        if len(hosts) != 1 or _HOST.fullmatch(hosts[0]) is None:
            return (
                f"This server answers to localhost and 127.0.0.1 only, not to {hosts!r}. "
                "Use the address that cb2-assist printed."
            )
        for origin in request.headers.get_list("Origin"):
            parts = urlsplit(origin)
            if parts.scheme not in {"http", "https"} or parts.netloc != hosts[0]:
                return f"A page from {origin!r} may not use this server."
        if self._has_token(request.query) or self._has_cookie(request.headers.get_list("Cookie")):
            return None
        return (
            "The token is missing or wrong. Open the address that cb2-assist printed when it "
            "started; it ends in ?token=…"
        )

    def _has_token(self, query: str) -> bool:
        given = parse_qs(query).get("token", [])
        return len(given) == 1 and _same(given[0], self._secrets.token)

    def _has_cookie(self, headers: list[str]) -> bool:
        for header in headers:
            try:
                morsel = SimpleCookie(header).get(self._secrets.cookie_name)
            except CookieError:
                continue
            if morsel is not None and _same(morsel.value, self._secrets.cookie_value):
                return True
        return False


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
        return _Refusal(request.connection, reason)


class _Refusal(httputil.HTTPMessageDelegate):
    def __init__(self, connection: httputil.HTTPConnection, reason: str) -> None:
        self._connection = connection
        self._body = f"403: {reason}\n".encode()

    def headers_received(
        self,
        start_line: httputil.RequestStartLine | httputil.ResponseStartLine,  # noqa: ARG002
        headers: httputil.HTTPHeaders,  # noqa: ARG002
    ) -> None:
        self._connection.write_headers(
            httputil.ResponseStartLine("HTTP/1.1", 403, "Forbidden"),
            httputil.HTTPHeaders(
                {
                    "Content-Type": "text/plain; charset=utf-8",
                    "Content-Length": str(len(self._body)),
                    "Cache-Control": "no-store",
                    "X-Content-Type-Options": "nosniff",
                }
            ),
            self._body,
        )
        self._connection.finish()


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), wanted.encode())
