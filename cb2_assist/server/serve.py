"""Starts and stops the one server of a session."""

from __future__ import annotations

import asyncio
import logging
import secrets as random_secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from tornado.routing import Router

from cb2_assist.core.ending import set_by_signals, wait_for
from cb2_assist.core.errors import PortBusyError, ServerError, UsageError
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.keys import KeyBinding, keys_named
from cb2_assist.datasets.source import EditableSource, GraphSource, NearSource
from cb2_assist.labels.queue_store import QueueStore
from cb2_assist.learning.seeded import Seeds
from cb2_assist.resources import resource_dir
from cb2_assist.review.applying import Applying
from cb2_assist.review.following import begin_following
from cb2_assist.review.freshness import Freshness
from cb2_assist.review.ports import Assistant, Log, Models, Views
from cb2_assist.review.session import ReviewSession
from cb2_assist.review.state import Cursor, StateFile
from cb2_assist.review.walk import QueueWalk
from cb2_assist.server.guard import LOOPBACK, Guard, GuardedRouter, Secrets, host_name
from cb2_assist.server.report_page import Report
from cb2_assist.server.routes import Route, build_routes
from cb2_assist.server.socket import Hub

log = logging.getLogger(__name__)

_ALL_ADDRESSES = ("0.0.0.0", "::")  # noqa: S104 - refused unless asked for twice


@dataclass(frozen=True, slots=True)
class Options:
    """How to serve."""

    user: str = ""
    """Goes into every label."""
    host: str = "127.0.0.1"
    """A loopback name; with ``expose`` any address of this machine."""
    expose: bool = False
    """Listen where others can reach it; ``host`` alone does not."""
    allow_hosts: tuple[str, ...] = ()
    """Names besides the loopback ones under which a browser may reach it."""
    port: int | None = None
    """None: the one last used with this state file, or any free one if it is taken; 0: any."""
    token: str | None = None
    """Secret of the address; None: the last one of this state file, or a new one."""
    state_path: Path | None = None
    """Where to remember port, token and cursor, beside the label file; None forgets them."""
    keys: str = "default"
    """Name of the key preset."""
    blind_share: float = 0.0
    """Of the sites, whose numbers the page gets after the answer."""


class Mount(Protocol):
    """The listening server, as `cb2_assist.viewer.mount.ViewerMount` makes it."""

    port: int
    loop: asyncio.AbstractEventLoop

    def viewer_for(self, origin: str) -> str:
        """Token of the viewer for pages of this origin."""

    def stop(self) -> None:
        """Close the port."""


class MountFactory(Protocol):
    """Opens the port; the composition root passes the viewer's."""

    def __call__(
        self,
        *,
        host: str,
        port: int,
        routes: Sequence[tuple[Any, ...]],
        guard: Callable[[Router], Router],
        viewer_token: Callable[[str], str],
        server_id: str,
    ) -> Mount:
        """Listen."""


class RunningServer:
    """A server that answers, until `stop`."""

    def __init__(
        self,
        assistant: Assistant,
        decisions: Log,
        views: Views | None,
        mount: MountFactory,
        *,
        options: Options,
        start_at: Cursor | None = None,
        queue: QueueStore | None = None,
        seeds: Seeds | None = None,
        report: Report | None = None,
        models: Models | None = None,
        on_arrival: Callable[[], None] = lambda: None,
        applying: Applying | None = None,
    ) -> None:
        """Listen and take up the last session.

        Args:
            assistant: Makes suggestions.
            decisions: Records verdicts.
            views: Keeps what the model saw; None keeps nothing.
            mount: Opens the port.
            options: Address, user, keys, memory.
            start_at: Where to begin. With a segment, suggestions are made there at once; None
                resumes where the last session stopped.
            queue: Sites that wait, for `q`; None: there is no queue.
            seeds: What `q` shows although it is known to be wrong; None: nothing.
            report: Makes what ``/report`` shows; None: there is no such page.
            models: Changes which model answers; None: it stays the same.
            on_arrival: Called whenever a browser has brought the token, on the server's loop.
            applying: Applies accepted edits; None applies nothing. Closed with the server.

        Raises:
            PortBusyError: The given port is taken.
            ServerError: Not a loopback host and not asked for twice, or the port cannot be opened.
            UsageError: No such key preset, or it conflicts with the viewer's keys; a wrong name to
                be allowed.
        """
        host = options.host
        allowed = _allowed_hosts(options)
        bindings = keys_named(options.keys)
        self._state = StateFile(options.state_path)
        saved = self._state.saved
        self.token = options.token or saved.token or random_secrets.token_hex(20)
        secrets = Secrets(self.token)
        self.session = ReviewSession(
            assistant,
            decisions,
            views,
            user=options.user,
            state=self._state,
            blind_share=options.blind_share,
            applying=applying,
            freshness=_freshness(assistant.source),
        )
        self._applying = applying
        self._walk = None
        if queue is not None:
            self._walk = QueueWalk(
                self.session, assistant, decisions, queue, user=options.user, seeds=seeds
            )
        self._hub = Hub(
            self.session,
            bindings,
            secrets.server_id,
            self._walk,
            models,
            applying,
            partial(begin_following, self.session, assistant),
            source.look_at if isinstance(source := assistant.source, NearSource) else None,
        )
        routes = self._routes(assistant, secrets, bindings, on_arrival, report)

        def open_at(number: int) -> Mount:
            return mount(
                host="127.0.0.1" if host == "localhost" else host,
                port=number,
                routes=routes,
                guard=lambda inner: GuardedRouter(Guard(secrets, allowed), inner),
                viewer_token=lambda origin: secrets.derived(f"viewer {origin}"),
                server_id=secrets.server_id,
            )

        if start_at is None:
            self.session.proposals.expect_resume()
        try:
            self._mount = self._open(open_at, options.port, saved.port)
        except BaseException:
            self._hub.close()
            raise
        self._hub.attach(self._mount.loop, self._mount.viewer_for)
        self.url = f"http://{_shown_host(host)}:{self._mount.port}/?token={self.token}"
        self._state.update(token=self.token)
        if options.port is not None or saved.port is None:
            # one that only stood in for it is not remembered: forwarded ports lead to the old one
            self._state.update(port=self._mount.port)
        self._begin(start_at)

    @property
    def port(self) -> int:
        """What it listens on."""
        return self._mount.port

    def stop(self) -> None:
        """Close the port, finish what was begun and end, within five seconds."""
        self._mount.stop()
        if not self._hub.close():
            log.info("A suggestion was still being made; it is left unfinished.")

    def _routes(
        self,
        assistant: Assistant,
        secrets: Secrets,
        bindings: tuple[KeyBinding, ...],
        on_arrival: Callable[[], None],
        report: Report | None,
    ) -> list[Route]:
        return build_routes(
            hub=self._hub,
            secrets=secrets,
            static=resource_dir("static"),
            roots=assistant.source.layers.roots,
            keys=bindings,
            on_arrival=on_arrival,
            assistant=assistant,
            graph=source.route if isinstance(source := assistant.source, GraphSource) else None,
            report=report,
        )

    @staticmethod
    def _open(open_at: Callable[[int], Mount], port: int | None, last: int | None) -> Mount:
        if port is not None:
            return open_at(port)
        try:
            return open_at(last or 0)
        except (PortBusyError, ServerError):
            if last is None:
                raise
            instead = open_at(0)
            log.warning(
                "Port %d, used last time with these labels, is taken; this time it is %d. Stop "
                "what listens there, or choose another one for good with --port N.",
                last,
                instead.port,
            )
            return instead

    def _begin(self, start_at: Cursor | None) -> None:
        session = self.session
        if self._applying is not None:
            self._applying.start()
        if start_at is None:
            self._hub.propose_unasked(self._walk.resume if self._walk else session.proposals.resume)
        elif start_at.segment is not None:
            number = session.proposals.begin(start_at)
            self._hub.propose_unasked(lambda: session.proposals.propose(number, start_at))


def _freshness(source: object) -> Freshness | None:
    """Asks a graph that can be edited whether it has changed; None where nothing can."""
    editor = source.editor if isinstance(source, EditableSource) else None
    return None if editor is None else Freshness(editor)


def _allowed_hosts(options: Options) -> tuple[str, ...]:
    """Host names besides the loopback ones.

    Raises:
        ServerError: Others could reach the host, and that was not asked for twice.
        UsageError: A name that is none.
    """
    allowed = tuple(map(host_name, options.allow_hosts))
    host = options.host
    if host in LOOPBACK:
        return allowed
    if not options.expose:
        raise ServerError(
            f"cb2-assist listens on this machine only (--host 127.0.0.1), not on {host!r}. To use "
            "it from another one, forward the port: ssh -L PORT:127.0.0.1:PORT HOST. If others "
            f"shall reach it all the same, say it twice: --host {host} --expose."
        )
    if host not in _ALL_ADDRESSES:
        return (*allowed, host_name(host))
    if not allowed:
        raise UsageError(
            f"--host {host} --expose needs the name that stands in the others' address bar: "
            "--allow-host NAME, once for each."
        )
    return allowed


def _shown_host(host: str) -> str:
    """What stands for it in an address that a browser of this machine opens."""
    host = {"localhost": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"[{host}]" if ":" in host else host


def start_position(state_path: Path | None, at: PointNm | None, centre: PointNm) -> PointNm:
    """Where the camera starts: as asked, else where the last session stopped, else the centre."""
    if at is not None:
        return at
    saved = StateFile(state_path).saved.cursor
    return saved.at if saved is not None else centre


def serve(
    assistant: Assistant,
    decisions: Log,
    views: Views | None,
    mount: MountFactory,
    *,
    on_ready: Callable[[str], None],
    on_arrival: Callable[[], None] = lambda: None,
    stop: threading.Event | None = None,
    start_at: Cursor | None = None,
    queue: QueueStore | None = None,
    seeds: Seeds | None = None,
    report: Report | None = None,
    models: Models | None = None,
    applying: Applying | None = None,
    options: Options,
) -> None:
    """Serve until Ctrl-C or SIGTERM, then stop cleanly within five seconds.

    Args:
        assistant: Makes suggestions.
        decisions: Records verdicts.
        views: Keeps what the model saw; None keeps nothing.
        mount: Opens the port.
        on_ready: Called with the address, token included, once it answers.
        on_arrival: Called whenever a browser has brought the token, on the server's loop.
        stop: Ends the server when set; signals set it too when this is the main thread.
        start_at: Where to begin, as for `RunningServer`.
        queue: Sites that wait, for `q`.
        seeds: What `q` shows although it is known to be wrong.
        report: Makes what ``/report`` shows.
        models: Changes which model answers.
        applying: Applies accepted edits, as for `RunningServer`.
        options: Address, user, keys, memory.

    Raises:
        PortBusyError: The given port is taken.
        ServerError: Not a loopback host and not asked for twice, or the port cannot be opened.
        UsageError: No such key preset, or a wrong name to be allowed.
    """
    ended = stop or threading.Event()
    with set_by_signals(ended):
        running = RunningServer(
            assistant,
            decisions,
            views,
            mount,
            options=options,
            start_at=start_at,
            queue=queue,
            seeds=seeds,
            report=report,
            models=models,
            on_arrival=on_arrival,
            applying=applying,
        )
        try:
            on_ready(running.url)
            wait_for(ended)
        finally:
            running.stop()
