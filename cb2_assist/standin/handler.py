"""The one tornado handler: finds the route, checks the token, runs the answer on a thread."""

from __future__ import annotations

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import tornado.web

from cb2_assist.standin import access
from cb2_assist.standin.deployment import Deployment
from cb2_assist.standin.errors import ApiError
from cb2_assist.standin.web import (
    Answer,
    Request,
    Route,
    error_answer,
    read_body,
    read_query,
)

_METHODS = ("GET", "HEAD", "POST", "OPTIONS")


class ServiceHandler(tornado.web.RequestHandler):
    """Answers every path."""

    SUPPORTED_METHODS = _METHODS

    def initialize(
        self, at: Deployment, routes: tuple[Route, ...], pool: ThreadPoolExecutor
    ) -> None:
        """What the application hands to each handler."""
        self._at, self._routes, self._pool = at, routes, pool

    def set_default_headers(self) -> None:
        """Pages from anywhere may read the answers; the real services allow it too."""
        self.set_header("Access-Control-Allow-Origin", "*")
        self.set_header("Access-Control-Expose-Headers", "WWW-Authenticate, Used-Bounds")

    async def get(self) -> None:
        """Answer."""
        await self._serve()

    async def head(self) -> None:
        """Answer without a body."""
        await self._serve()

    async def post(self) -> None:
        """Answer."""
        await self._serve()

    def options(self) -> None:
        """Let a page's browser send tokens and ranges."""
        self.set_header("Access-Control-Allow-Methods", ", ".join(_METHODS))
        self.set_header(
            "Access-Control-Allow-Headers", "Authorization, Content-Type, Range, X-Requested-With"
        )
        self.set_status(200)

    async def _serve(self) -> None:
        headers = self.request.headers
        found = self._route()
        if isinstance(found, Answer):
            self._send(found)
            return
        route, match = found
        account = None
        if route.permission is not None:
            checked = access.check(
                self._at,
                route.permission,
                headers.get("Authorization"),
                from_script="X-Requested-With" in headers or "Origin" in headers,
                address=self.request.full_url(),
            )
            if isinstance(checked, Answer):
                self._send(checked)
                return
            account = checked
        query = read_query(self.request.query)
        try:
            request = Request(
                method=str(self.request.method),
                path=self.request.path,
                match={k: v for k, v in match.items() if v is not None},
                query=query,
                body=read_body(self.request.body, headers.get("Content-Encoding")),
                account=account,
                range=headers.get("Range"),
            )
            answer = await asyncio.get_running_loop().run_in_executor(
                self._pool, self._answer, route, request
            )
        except ApiError as e:
            answer = error_answer(e, f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f}")
        self._send(answer, ids_as_text=query.get("int64_as_str", "").lower() in ("1", "true"))

    def _route(self) -> tuple[Route, dict[str, Any]] | Answer:
        allowed: set[str] = set()
        for route in self._routes:
            match = re.fullmatch(route.pattern, self.request.path)
            if match is None:
                continue
            if self.request.method in route.methods:
                return route, match.groupdict()
            allowed.update(route.methods)
        if allowed:
            return Answer(b"", 405, "text/plain", {"Allow": ", ".join(sorted(allowed))})
        return Answer(b"", 404, "text/plain")

    def _answer(self, route: Route, request: Request) -> Answer:
        table = request.match.get("table")
        if table not in (None, self._at.names.table) and "/api/" in request.path:
            raise ApiError(500, f'404 table "projects/p/instances/i/tables/{table}" not found')
        if route.free:
            return route.answer(self._at, request)
        with self._at.lock:
            return route.answer(self._at, request)

    def _send(self, answer: Answer, *, ids_as_text: bool = False) -> None:
        content = answer.content(ids_as_text=ids_as_text)
        self.set_status(answer.status)
        self.set_header("Content-Type", answer.content_type if content else "text/plain")
        for name, value in answer.headers.items():
            self.set_header(name, value)
        if self.request.method == "HEAD":
            self.set_header("Content-Length", str(len(content)))
            return
        self.write(content)
