"""Neuroglancer's own server on our port, with our routes before its own and our check before both.

Everything that reaches into neuroglancer 2.41.2 beyond its public names is here:
`neuroglancer.server.Server`, its `_attempt_to_start_server`, `_thread`, `app`, `http_server` and
`viewers`, and `StaticPathHandler`.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from asyncio import Future
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import neuroglancer.server
from neuroglancer import viewer_base
from tornado import httputil, web
from tornado.routing import Router

from cb2_assist.core.errors import PortBusyError, ServerError
from cb2_assist.viewer.scene import Scene, fill

log = logging.getLogger(__name__)

_VIEWERS = 8
"""Addresses under which one server is looked at (localhost, 127.0.0.1, forwarded ports)."""
_STOP_S = 2.0
_MAX_BODY_BYTES = 16 * 2**20
"""Of a request; a state with thousands of annotations has one."""

# The client compiles WebAssembly and its annotations' readers, starts workers from blobs and writes
# style attributes; its data may lie on any server. Scripts in markup, as a name or a note could
# bring them, stay forbidden.
_VIEWER_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-eval'; worker-src 'self' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src * data: blob:; frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _VIEWER_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_KEY_SCRIPT = (
    '<meta name="cb2-server" content="{server_id}">'
    '<script src="../../static/js/viewer_key.js"></script>'
)


class _SafeHeaders(web.OutputTransform):
    """Gives every answer the headers that its handler did not set, Neuroglancer's answers too."""

    def transform_first_chunk(
        self, status_code: int, headers: httputil.HTTPHeaders, chunk: bytes, finishing: bool
    ) -> tuple[int, httputil.HTTPHeaders, bytes]:
        """Add what is missing."""
        for name, value in _HEADERS.items():
            headers.setdefault(name, value)
        headers.pop("Server", None)
        return super().transform_first_chunk(status_code, headers, chunk, finishing)


class _ClientFile(neuroglancer.server.StaticPathHandler):
    """A file of the client; its document runs our script first, so that changes carry our key."""

    def finish(self, chunk: str | bytes | dict[str, Any] | None = None) -> Future[None]:
        if isinstance(chunk, bytes) and self.path_kwargs["path"] in ("", "index.html"):
            script = _KEY_SCRIPT.format(server_id=self.server.server_id)
            chunk = chunk.replace(b"<head>", b"<head>" + script.encode(), 1)
        sent: Future[None] = super().finish(chunk)
        return sent


class _OneLine(logging.Filter):
    """A malformed request to one of Neuroglancer's routes is a line in the log, not a traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        trace = error.__traceback__ if error else None
        while trace is not None:
            if trace.tb_frame.f_globals.get("__name__") == neuroglancer.server.__name__:
                record.msg = f"A malformed request to the viewer was refused: {error!r:.200}"
                record.args, record.exc_info = (), None
                break
            trace = trace.tb_next
        return True


class _Server(neuroglancer.server.Server):
    def __init__(
        self,
        host: str,
        port: int,
        routes: Sequence[tuple[Any, ...]],
        guard: Callable[[Router], Router],
        server_id: str,
    ) -> None:
        self.server_id = server_id
        self._own_routes = list(routes)
        self._guard = guard
        super().__init__(bind_address=host, bind_port=port)

    def _attempt_to_start_server(self) -> None:
        # The sockets listen once super() returns, but nothing is answered before this method has
        # ended: it runs on the server's loop.
        super()._attempt_to_start_server()
        client = (neuroglancer.server.STATIC_PATH_REGEX, _ClientFile, {"server": self})
        self.app.add_handlers(r".*", [*self._own_routes, client])
        self.app.add_transform(_SafeHeaders)
        self.http_server.max_buffer_size = _MAX_BODY_BYTES
        self.http_server.conn_params.max_body_size = _MAX_BODY_BYTES
        self.http_server.request_callback = self._guard(self.app)
        logger = logging.getLogger("tornado.application")
        if not any(isinstance(kept, _OneLine) for kept in logger.filters):
            logger.addFilter(_OneLine())

    def stop_within(self, seconds: float) -> bool:
        """Stop; its own `stop` waits for ever where a request hangs in someone else's library."""
        self.request_stop()
        self._thread.join(seconds)
        return not self._thread.is_alive()


class _Viewer(viewer_base.ViewerBase):
    def __init__(self, token: str, server: _Server) -> None:
        self._server = server
        # no credentials: our data lie on our own port
        super().__init__(token=token, allow_credentials=False)
        # The page drives the client itself. An action that arrives all the same would run Python
        # on the server's loop with whatever the request says.
        self.actions.invoke = lambda _action, _state: None

    def defer_callback(self, callback: Callable[..., None], *args: object) -> None:
        self._server.loop.call_soon_threadsafe(lambda: callback(*args))


class ViewerMount:
    """A running server with one viewer for each address that a browser uses.

    Attributes:
        port: What it listens on.
        loop: The asyncio loop that all handlers run on.
    """

    def __init__(
        self,
        scene: Scene,
        *,
        host: str,
        port: int,
        routes: Sequence[tuple[Any, ...]],
        guard: Callable[[Router], Router],
        viewer_token: Callable[[str], str],
        server_id: str,
    ) -> None:
        """Listen.

        Args:
            scene: What every viewer shows first.
            host: Address of this machine.
            port: 0 for any free one.
            routes: Tornado's rows, matched before Neuroglancer's.
            guard: Wraps the routes; sees every request first.
            viewer_token: Secret name of the viewer for an origin.
            server_id: Under which the page keeps its key; no secret.

        Raises:
            PortBusyError: Something else listens there.
            ServerError: The port cannot be opened.
        """
        self._scene = scene
        self._viewer_token = viewer_token
        self._viewers: OrderedDict[str, _Viewer] = OrderedDict()
        try:
            _see_if_free(host, port)
            self._server = _Server(host, port, routes, guard, server_id)
        except OSError as error:
            raise _listening_failed(host, port, error) from None
        self.port: int = self._server.port
        self.loop = self._server.loop

    def viewer_for(self, origin: str) -> str:
        """Token of the viewer for a browser that reached us as ``origin``; runs on the loop."""
        token = self._viewer_token(origin)
        if token not in self._viewers:
            viewer = _Viewer(token, self._server)
            fill(viewer, self._scene, origin)
            self._viewers[token] = viewer  # neuroglancer itself holds viewers weakly
            self._server.viewers[token] = viewer
        self._viewers.move_to_end(token)
        while len(self._viewers) > _VIEWERS:
            self._viewers.popitem(last=False)
        return token

    def stop(self) -> None:
        """Close every connection and the port, in `_STOP_S` or else say so."""
        if not self._server.stop_within(_STOP_S):
            log.warning("A request is still being answered; it is left unfinished.")


def _see_if_free(host: str, port: int) -> None:
    """Tornado leaves its socket open when it cannot bind, so a busy port is found out first."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if os.name != "nt":  # as tornado does: a port is free again right after a restart
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))


def _listening_failed(host: str, port: int, error: OSError) -> ServerError:
    if error.errno == errno.EADDRINUSE:
        return PortBusyError(
            f"Port {port} on {host} is taken by another program, perhaps another cb2-assist. Stop "
            "that one, or choose with --port N; --port 0 takes any free one."
        )
    return ServerError(
        f"Cannot listen on port {port} of {host}: {error.strerror}. Choose a port from 1024 to "
        "65535 with --port, or 0 for any free one."
    )
