"""A real server on a free port in this process, with fakes behind it, and a client that speaks
as the page does.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from page_fakes import INFO, MemoryLog, MemoryViews, ToyAssistant
from tornado.httpclient import HTTPRequest
from tornado.ioloop import IOLoop
from tornado.websocket import WebSocketClientConnection, websocket_connect

from cb2_assist.core.geometry import PointNm
from cb2_assist.decisions.log import DecisionLog
from cb2_assist.labels.queue_store import QueueStore
from cb2_assist.labels.store import LabelStore
from cb2_assist.learning.report import report
from cb2_assist.server.guard import KEY_HEADER, KEY_PROTOCOL, SUBPROTOCOL, Secrets
from cb2_assist.server.serve import Options, RunningServer
from cb2_assist.viewer.mount import ViewerMount
from cb2_assist.viewer.scene import Scene


@dataclass
class Served:
    """A running server and what lies behind it."""

    server: RunningServer
    assistant: ToyAssistant
    log: MemoryLog
    views: MemoryViews
    queue: QueueStore | None = None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    @property
    def reading(self) -> dict[str, str]:
        """What a page of ours sends with whatever it only reads."""
        secrets = Secrets(self.server.token)
        return {
            "Cookie": f"{secrets.cookie_name}={secrets.cookie_value}",
            "Sec-Fetch-Site": "same-origin",
        }

    @property
    def changing(self) -> dict[str, str]:
        """What it sends with whatever changes something."""
        key = Secrets(self.server.token).page_key
        return {**self.reading, "Origin": f"http://{self.host}", KEY_HEADER: key}

    @property
    def upgrading(self) -> dict[str, str]:
        """What it opens its WebSocket with."""
        key = Secrets(self.server.token).page_key
        return {
            **self.reading,
            "Origin": f"http://{self.host}",
            "Sec-WebSocket-Protocol": f"{SUBPROTOCOL}, {KEY_PROTOCOL}{key}",
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        }

    def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        body: bytes = b"",
    ):
        """Status, headers and body of one request; Host may be overridden, or given twice."""
        given = list(headers.items() if isinstance(headers, Mapping) else headers)
        if not any(name == "Host" for name, _ in given):
            given.insert(0, ("Host", self.host))
        if body or method == "POST":
            given.append(("Content-Length", str(len(body))))
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given)]
        head = "".join(f"{line}\r\n" for line in lines) + "\r\n"
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=60) as connection:
            # in one piece: a server that refuses before the body has come resets the connection,
            # and the answer may be lost with it
            connection.sendall(head.encode("latin-1") + body)
            answer = http.client.HTTPResponse(connection, method=method)
            answer.begin()
            # an event stream never ends; its headers are enough
            is_stream = answer.getheader("content-type") == "text/event-stream"
            data = b"" if is_stream or answer.status == 101 else answer.read()
        return answer.status, dict(answer.getheaders()), data


class Page:
    """A WebSocket client that speaks as the page does."""

    def __init__(self, served: Served, loop: IOLoop, tab: str = "") -> None:
        """Connect; ``tab`` is the query of a tab that says who it is."""
        self.loop = loop
        request = HTTPRequest(
            f"ws://{served.host}/ws?token={served.server.token}&{tab}",
            headers={"Origin": f"http://{served.host}"},
        )
        self.socket: WebSocketClientConnection = loop.run_sync(
            lambda: websocket_connect(request), timeout=60
        )
        self.seen: list[dict] = []
        self.hello = self.read()
        assert self.hello["type"] == "hello"
        self.snapshot = self.until("snapshot")["snapshot"]

    def read(self) -> dict:
        text = self.loop.run_sync(self.socket.read_message, timeout=60)
        assert text is not None, "the server closed the connection"
        message = json.loads(text)
        if message["type"] == "snapshot":
            self.snapshot = message["snapshot"]
        self.seen.append(message)
        return message

    def until(self, kind: str, holds=lambda message: True) -> dict:  # noqa: ARG005
        while True:
            message = self.read()
            if message["type"] == kind and holds(message):
                return message

    def write(self, message: str | bytes, *, binary: bool = False) -> None:
        async def go() -> None:
            await self.socket.write_message(message, binary=binary)

        self.loop.run_sync(go, timeout=60)

    def ask(self, kind: str, **fields) -> dict:
        """Send a request and wait for its answer."""
        name = os.urandom(8).hex()
        self.write(json.dumps({"type": kind, "id": name, **fields}))
        return self.until("ack", lambda ack: ack["id"] == name)

    def decide(
        self, suggestion: str, verdict: str = "accept", key: str | None = None, **more
    ) -> dict:
        return self.ask(
            "decide",
            suggestion=suggestion,
            verdict=verdict,
            key="f",
            idempotency_key=key or os.urandom(8).hex(),
            shown_ms=1500.5,
            age_ms=2,
            idle_ms=100,
            **more,
        )

    def close(self) -> None:
        self.socket.close()


def start(
    folder: Path,
    store: LabelStore | None = None,
    *,
    on_arrival: Callable[[], None] = lambda: None,
    **options,
) -> Served:
    """A server whose decisions are kept in memory, or in a store together with its queue."""
    assistant, log, views = ToyAssistant(folder), MemoryLog(), MemoryViews()
    if store is not None:
        log = DecisionLog(store, user="tester", dataset=INFO.name, version=INFO.version)
    queue = store and store.queue
    scene = Scene(assistant.source.layers, PointNm(480, 480, 480))
    server = RunningServer(
        assistant,
        log,
        views,
        partial(ViewerMount, scene),
        queue=queue,
        report=store and (lambda: report(store, only="tester")),
        models=assistant,
        options=Options(user="tester", **{"port": 0, **options}),
        on_arrival=on_arrival,
    )
    return Served(server, assistant, log, views, queue)
