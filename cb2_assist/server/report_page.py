"""The report as a page of the server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from html import escape
from typing import Any

from tornado import web

from cb2_assist.core.errors import AssistError
from cb2_assist.learning.report_blocks import Block, Heading, Paragraph, Picture
from cb2_assist.learning.report_text import blocks, pictures
from cb2_assist.server.pages import OwnHandler

Report = Callable[[], dict[str, Any]]
"""Makes the document of `learning.report.report` for the person whose server it is."""


class ReportHandler(OwnHandler):
    """``/report`` for reading, ``/report.json`` for programs; made off the loop, one at a time."""

    def initialize(self, *, report: Report | None, lock: asyncio.Lock) -> None:
        """Take what the handler needs."""
        self._report, self._lock = report, lock

    async def get(self, form: str | None) -> None:
        """Send it."""
        if self._report is None:
            raise web.HTTPError(404)
        loop = asyncio.get_running_loop()
        try:
            async with self._lock:
                document = await loop.run_in_executor(None, self._report)
        except AssistError as e:
            self.set_status(500)
            self.set_header("Content-Type", "text/plain; charset=utf-8")
            self.finish(f"500: {e}\n")
            return
        self.set_header("Cache-Control", "no-store")
        if form == ".json":
            self.set_header("Content-Type", "application/json")
            self.finish(json.dumps(document, allow_nan=False))
            return
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish(page(document))


def page(document: dict[str, Any]) -> str:
    """HTML of a report; nothing in it runs, and text from labels is no markup."""
    drawn = pictures(document)
    body = "\n".join(part for block in blocks(document) for part in _html(block, drawn))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<title>cb2-assist: report</title>\n"
        '<link rel="stylesheet" href="/static/css/report.css">\n</head>\n'
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _html(block: Block, drawn: dict[str, str]) -> Iterator[str]:
    if isinstance(block, Heading):
        yield f"<h{block.level}>{escape(block.text)}</h{block.level}>"
    elif isinstance(block, Paragraph):
        yield f"<p>{escape(block.text)}</p>"
    elif isinstance(block, Picture):
        yield f"<figure>{drawn[block.name]}</figure>"
    else:
        head = "".join(f'<th scope="col">{escape(name)}</th>' for name in block.head)
        yield f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>"
        for first, *rest in block.rows:
            cells = "".join(f"<td>{escape(text)}</td>" for text in rest)
            yield f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>'
        yield "</tbody>\n</table>"
