"""The one tornado handler: finds the route, checks the token, runs the answer on a thread."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import tornado.iostream
import tornado.web

from cb2_assist.standin import access, control
from cb2_assist.standin.deployment import Deployment
from cb2_assist.standin.errors import ApiError
from cb2_assist.standin.faults import Fault, Seen
from cb2_assist.standin.web import (
    Answer,
    Request,
    Route,
    error_answer,
    read_body,
    read_query,
)

_METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS")
_YES = ("1", "true", "True")


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

    async def delete(self) -> None:
        """Answer."""
        await self._serve()

    async def _serve(self) -> None:
        started, path = time.perf_counter(), self.request.path
        apart = path.startswith(control.PREFIX)
        faults = {} if apart else self._at.faults.take(path)
        if "latency" in faults:
            await asyncio.sleep(faults["latency"].seconds)
        if (refused := faults.get("refused")) is not None:
            answer = access.refusal(self._at, refused.status, refused.seconds)
        else:
            answer = await self._obtain(faults)
        if (lost := faults.get("lost")) is not None:
            answer = access.refusal(self._at, lost.status, lost.seconds)
        content = answer.content(ids_as_text=self.get_query_argument("int64_as_str", "0") in _YES)
        if (cut := faults.get("truncated")) is not None and content:
            await self._send_part(answer, content, cut.share)
        else:
            self._send(answer, content)
        if not apart:
            self._at.faults.log(
                Seen(
                    method=str(self.request.method),
                    path=path,
                    query=self.request.query,
                    status=0 if cut is not None and content else answer.status,
                    ms=(time.perf_counter() - started) * 1000,
                    faults=tuple(sorted(faults)),
                )
            )

    async def _obtain(self, faults: dict[str, Fault]) -> Answer:
        """The answer that the services give."""
        headers = self.request.headers
        found = self._route()
        if isinstance(found, Answer):
            return found
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
                return checked
            account = checked
        query = read_query(self.request.query)
        if "stale" in faults:
            query["timestamp"] = self._before_edits(faults["stale"].edits, query.get("timestamp"))
        try:
            request = Request(
                method=str(self.request.method),
                path=self.request.path,
                match={k: v for k, v in match.items() if v is not None},
                query=query,
                body=read_body(self.request.body, headers.get("Content-Encoding")),
                account=account,
                range=headers.get("Range"),
                faults=faults,
            )
            return await asyncio.get_running_loop().run_in_executor(
                self._pool, self._answer, route, request
            )
        except ApiError as e:
            return error_answer(e, f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f}")

    def _before_edits(self, count: int, asked: str | None) -> str:
        """A time before the latest edits, or the one that was asked for if that is earlier."""
        with self._at.lock:
            times = [o.at for o in self._at.editor.operations.values()][-count:]
        now = float(asked) if asked else time.time()
        return repr(min(now, times[0] - 0.001)) if times else repr(now)

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

    def _send(self, answer: Answer, content: bytes) -> None:
        self._head(answer, content)
        if self.request.method == "HEAD":
            self.set_header("Content-Length", str(len(content)))
        else:
            self.write(content)

    async def _send_part(self, answer: Answer, content: bytes, share: float) -> None:
        """Announce the whole, send a part, hang up."""
        self._head(answer, content)
        lines = [f"HTTP/1.1 {self.get_status()} {answer.status}"]
        lines += [f"{k}: {v}" for k, v in self._headers.get_all()]
        lines += [f"Content-Length: {len(content)}", "", ""]
        stream = self.detach()
        with contextlib.suppress(tornado.iostream.StreamClosedError):
            await stream.write("\r\n".join(lines).encode() + content[: int(len(content) * share)])
        stream.close()

    def _head(self, answer: Answer, content: bytes) -> None:
        self.set_status(answer.status)
        self.set_header("Content-Type", answer.content_type if content else "text/plain")
        for name, value in answer.headers.items():
            self.set_header(name, value)
