"""All our routes on one page; the viewer adds its own behind them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cb2_assist.core.keys import KeyBinding
from cb2_assist.review.ports import Assistant
from cb2_assist.server.guard import Secrets
from cb2_assist.server.pages import (
    DataHandler,
    KeysHandler,
    ModuleHandler,
    NothingHereHandler,
    PageHandler,
    PictureHandler,
)
from cb2_assist.server.report_page import Report, ReportHandler
from cb2_assist.server.socket import Hub, PageSocket

Route = tuple[str, Any, dict[str, Any]]


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
) -> list[Route]:
    """Rows of (pattern, handler, arguments)."""
    return [
        (r"/", PageHandler, {"static": static, "secrets": secrets, "on_arrival": on_arrival}),
        (r"/static/(.*)", ModuleHandler, {"path": str(static)}),
        (r"/ws", PageSocket, {"hub": hub}),
        (r"/api/keys", KeysHandler, {"keys": keys}),
        (r"/views/([^/]+)/([^/]+)\.png", PictureHandler, {"assistant": assistant}),
        (r"/data/([^/]+)/(.*)", DataHandler, {"roots": roots}),
        (r"/report(\.json)?", ReportHandler, {"report": report, "lock": asyncio.Lock()}),
        (r"/(?:favicon\.ico|static|api/.*|views(?:/.*)?|data(?:/.*)?)", NothingHereHandler, {}),
    ]
