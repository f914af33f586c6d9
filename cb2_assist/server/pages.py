"""Plain HTTP: the page, its files, the dataset's files."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tornado import web

from cb2_assist.core.channels import VIEW_NAMES
from cb2_assist.core.keys import KeyBinding
from cb2_assist.datasets.serving import ServedFile, resolve
from cb2_assist.datasets.source import Route
from cb2_assist.review.ports import Assistant
from cb2_assist.server.forward import FORWARD_POLICY, forwarding_page
from cb2_assist.server.guard import Secrets

# 'unsafe-eval' lets browser automation wait for conditions; our modules never evaluate text, and
# inline scripts stay forbidden.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-eval'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; frame-src 'self'; frame-ancestors 'self'; base-uri 'none'; "
    "form-action 'none'"
)


class OwnHandler(web.RequestHandler):
    """Headers and error pages that all our routes share."""

    def set_default_headers(self) -> None:
        """Nobody may frame our pages, guess types or keep stale modules."""
        self.set_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")
        # a page that opens ours by a link gets no hold of its window
        self.set_header("Cross-Origin-Opener-Policy", "same-origin")
        # a module imported by another carries no version in its URL, so it must be asked for anew
        self.set_header("Cache-Control", "no-cache")
        self.clear_header("Server")

    def write_error(self, status_code: int, **kwargs: object) -> None:  # noqa: ARG002
        """One line in place of tornado's page."""
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{status_code}: {self._reason}\n")


class PageHandler(OwnHandler):
    """The page. The token in its address is exchanged for a cookie and a key.

    The cookie alone gets neither: the browser shows it to every port of this host.

    A document that forwards takes the token out of the address bar. The key follows in the
    fragment, which no server is ever sent; the page moves it into its origin's storage before
    anything else (`static/js/page_key.js`).
    """

    def initialize(self, *, static: Path, secrets: Secrets, on_arrival: Callable[[], None]) -> None:
        """Take what the handler needs."""
        self._static = static
        self._secrets = secrets
        self._on_arrival = on_arrival

    def get(self) -> None:
        """Send the page, or set the cookie and forward the browser to the bare address."""
        if "token" not in self.request.query_arguments:
            self.set_header("Content-Type", "text/html; charset=utf-8")
            self.finish(self._page())
            return
        self.set_header("Cache-Control", "no-store")
        if not self._secrets.are_known_to(self.request.query):
            self.redirect("./", status=303)
            return
        self.set_cookie(
            self._secrets.cookie_name,
            self._secrets.cookie_value,
            httponly=True,
            samesite="Strict",
            path="/",
        )
        self._on_arrival()
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Content-Security-Policy", FORWARD_POLICY)
        self.finish(forwarding_page(self._secrets.page_key))

    def _page(self) -> bytes:
        """It is told which server this is: one port may have several in turn, each with its key."""
        named = f'name="cb2-server" content="{self._secrets.server_id}"'.encode()
        page = (self._static / "index.html").read_bytes()
        return page.replace(b'name="cb2-server" content=""', named, 1)


class ModuleHandler(web.StaticFileHandler):
    """The page's modules and styles, with an ETag and asked for anew each time."""

    def parse_url_path(self, url_path: str) -> str:
        """Refuse what no file system takes, which tornado would trip over."""
        if "\0" in url_path:
            raise web.HTTPError(404)
        return super().parse_url_path(url_path)

    def set_extra_headers(self, path: str) -> None:  # noqa: ARG002
        """Let no browser run last week's module against today's server."""
        self.set_header("Cache-Control", "no-cache")
        self.set_header("X-Content-Type-Options", "nosniff")


class KeysHandler(OwnHandler):
    """The key table."""

    def initialize(self, *, keys: tuple[KeyBinding, ...]) -> None:
        """Take what the handler needs."""
        self._keys = keys

    def get(self) -> None:
        """Send the table as JSON."""
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps({"bindings": [k.to_json() for k in self._keys]}))


class DataHandler(OwnHandler):
    """Files of a dataset on this machine, read off the loop."""

    def initialize(self, *, roots: dict[str, Path]) -> None:
        """Take what the handler needs."""
        self._roots = roots

    async def get(self, prefix: str, relative: str) -> None:
        """Send a file, encoded as it lies on disk; a chunk that is not there is all zeros."""
        loop = asyncio.get_running_loop()
        got = await loop.run_in_executor(None, self._read, prefix, relative)
        if got is None:
            raise web.HTTPError(404)
        served, data = got
        self.set_header("Content-Type", served.content_type)
        if served.content_encoding:
            self.set_header("Content-Encoding", served.content_encoding)
        self.set_header("Etag", f'"{hashlib.sha1(data, usedforsecurity=False).hexdigest()}"')
        if self.check_etag_header():
            self.set_status(304)
            return
        self.finish(data)

    def _read(self, prefix: str, relative: str) -> tuple[ServedFile, bytes] | None:
        root = self._roots.get(prefix)
        served = resolve(root, relative) if root is not None else None
        if served is None:
            return None
        try:
            return served, served.path.read_bytes()
        except (FileNotFoundError, IsADirectoryError, PermissionError):
            return None


class GraphHandler(OwnHandler):
    """A graph on a server, asked off the loop; the token is added where it is asked."""

    def initialize(self, *, route: Route, pool: ThreadPoolExecutor) -> None:
        """Take what the handler needs."""
        self._route = route
        self._pool = pool

    async def get(self, path: str) -> None:
        """Pass a question on."""
        await self._pass_on("GET", path)

    async def post(self, path: str) -> None:
        """Pass a question with a body on."""
        await self._pass_on("POST", path)

    async def _pass_on(self, method: str, path: str) -> None:
        query = {k: self.get_query_argument(k) for k in self.request.query_arguments}
        loop = asyncio.get_running_loop()
        ask = partial(self._route.answer, method, path, query, self.request.body)
        got = await loop.run_in_executor(self._pool, ask)
        self.set_status(got.status)
        self.set_header("Content-Type", got.content_type)
        # what a graph says of an object changes with every edit
        self.set_header("Cache-Control", "no-store")
        self.finish(got.body)


class PictureHandler(OwnHandler):
    """Views that the model saw, as PNG, made off the loop."""

    def initialize(self, *, assistant: Assistant) -> None:
        """Take what the handler needs."""
        self._assistant = assistant

    async def get(self, suggestion: str, view: str) -> None:
        """Send one view. With ``?sha256=`` of the views it may be kept for ever."""
        loop = asyncio.get_running_loop()
        got = None
        if view in VIEW_NAMES:
            got = await loop.run_in_executor(None, self._assistant.picture_of, suggestion, view)
        if got is None:
            self.set_status(404)
            self.set_header("Content-Type", "text/plain; charset=utf-8")
            known = f"Views are {', '.join(VIEW_NAMES)}."
            forgotten = "The views of that suggestion are not in memory. Press p on its segment."
            self.finish(f"404: {forgotten if view in VIEW_NAMES else known}\n")
            return
        sha256, png = got
        self.set_header("Content-Type", "image/png")
        self.set_header("Etag", f'"{sha256}-{view}"')
        if self.get_query_argument("sha256", "") == sha256:
            self.set_header("Cache-Control", "private, max-age=31536000, immutable")
        if self.check_etag_header():
            self.set_status(304)
            return
        self.finish(png)


class NothingHereHandler(OwnHandler):
    """Any address that is neither ours nor the viewer's."""

    def prepare(self) -> None:
        """Say so."""
        raise web.HTTPError(404)
