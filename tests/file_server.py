"""Serves a folder over HTTP as a public bucket does: ranges, gzipped chunks, 404."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

from cb2_assist.datasets.serving import resolve

S = TypeVar("S", bound=ThreadingHTTPServer)


class FileServer(ThreadingHTTPServer):
    """Counts what was asked for."""

    request_queue_size = 64

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self):
        path = unquote(self.path).lstrip("/")
        self.server.asked.append(path)
        found = resolve(self.server.root, path)
        body = found.path.read_bytes() if found else b""
        status, wanted = 200 if found else 404, self.headers.get("Range")
        if found and wanted:
            first, last = re.match(r"bytes=(\d+)-(\d+)", wanted).groups()
            body, status = body[int(first) : int(last) + 1], 206
        self.send_response(status)
        if found:
            self.send_header("Content-Type", found.content_type)
            if found.content_encoding:
                self.send_header("Content-Encoding", found.content_encoding)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_HEAD(self):
        self.do_GET()

    def log_message(self, *_):
        pass


@contextmanager
def running(server: S) -> Iterator[S]:
    """Answers, in a thread of its own, until the block ends."""
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def served(root: Path) -> Iterator[FileServer]:
    with running(FileServer(root)) as server:
        yield server
