"""All our routes on one page; the viewer adds its own behind them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cb2_assist.core.keys import KeyBinding
from cb2_assist.datasets.source import Route as GraphRoute
from cb2_assist.review.ports import Assistant
from cb2_assist.server.guard import Secrets
from cb2_assist.server.pages import (
    DataHandler,
    GraphHandler,
    KeysHandler,
    ModuleHandler,
    NothingHereHandler,
    PageHandler,
    PictureHandler,
)
from cb2_assist.server.report_page import Report, ReportHandler
from cb2_assist.server.socket import Hub, PageSocket

Route = tuple[str, Any, dict[str, Any]]

_NOTHING = r"/(?:favicon\.ico|static|api/.*|graph(?:/.*)?|views(?:/.*)?|data(?:/.*)?)"
"""Addresses of ours at which there is nothing, and none of the viewer's."""
_GRAPH_THREADS = 8
"""Questions of the viewer to a graph at once; a browser asks no more of one port either."""


def build_routes(
    *,
    hub: Hub,
    secrets: Secrets,
    static: Path,
    roots: dict[str, Path],
    keys: tuple[KeyBinding, ...],
    on_arrival: Callable[[], None],
    assistant: Assistant,
    report: Report | None,
    graph: GraphRoute | None = None,
) -> list[Route]:
    """Rows of (pattern, handler, arguments)."""
    through: list[Route] = []
    if graph is not None:
        pool = ThreadPoolExecutor(_GRAPH_THREADS, "viewer")
        through = [(r"/graph/(.*)", GraphHandler, {"route": graph, "pool": pool})]
    return [
        *through,
        (r"/", PageHandler, {"static": static, "secrets": secrets, "on_arrival": on_arrival}),
        (r"/static/(.*)", ModuleHandler, {"path": str(static)}),
        (r"/ws", PageSocket, {"hub": hub}),
        (r"/api/keys", KeysHandler, {"keys": keys}),
        (r"/views/([^/]+)/([^/]+)\.png", PictureHandler, {"assistant": assistant}),
        (r"/data/([^/]+)/(.*)", DataHandler, {"roots": roots}),
        (r"/report(\.json)?", ReportHandler, {"report": report, "lock": asyncio.Lock()}),
        (
            r"/(?:favicon\.ico|static|api/.*|graph(?:/.*)?|views(?:/.*)?|data(?:/.*)?)",
            NothingHereHandler,
            {},
        ),
    ]
