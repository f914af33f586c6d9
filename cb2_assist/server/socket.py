"""The page's WebSocket: one message in, one answer out, and a snapshot to everybody on a change."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from tornado import websocket

from cb2_assist.core.errors import AssistError, DecisionError
from cb2_assist.core.keys import KeyBinding
from cb2_assist.review.lanes import Lane
from cb2_assist.review.session import Answer, ReviewSession
from cb2_assist.review.walk import QueueWalk
from cb2_assist.server.guard import SUBPROTOCOL
from cb2_assist.server.messages import (
    Decide,
    GiveReason,
    Message,
    Ping,
    Preview,
    Propose,
    Queue,
    Redo,
    Select,
    Undo,
    message_id,
    read_json,
    read_message,
)

log = logging.getLogger(__name__)

_OUR_FAULT = (
    "NOT done: something went wrong inside cb2-assist. The terminal says what; please report it."
)


@dataclass(eq=False)
class Hub:
    """Connects the open pages with the session.

    Its methods run on the server's loop, except `session_changed` and `close`.
    """

    session: ReviewSession
    keys: tuple[KeyBinding, ...]
    server_id: str
    walk: QueueWalk | None = None
    """None: there is no queue to go through."""
    pages: set[PageSocket] = field(default_factory=set)

    def __post_init__(self) -> None:
        # verdicts and moves in the order of the keys; proposals beside them, two at most, so that
        # a newer one does not wait for an older one
        self._in_order = Lane("cb2-in-order")
        self._proposals = (Lane("cb2-propose-0"), Lane("cb2-propose-1"))
        self._next_lane = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._viewer_for: Callable[[str], str] | None = None
        self._announced = False
        self.is_closing = False
        self.session.on_change = self.session_changed

    def attach(self, loop: asyncio.AbstractEventLoop, viewer_for: Callable[[str], str]) -> None:
        """Take the server's loop, and what gives the token of the viewer for an origin."""
        self._loop = loop
        self._viewer_for = viewer_for

    def hello(self, origin: str) -> dict[str, Any]:
        """What a page of this origin must know before anything else."""
        assert self._viewer_for is not None
        return {
            "type": "hello",
            "server_id": self.server_id,
            "viewer": f"/v/{self._viewer_for(origin)}/",
            "keys": [k.to_json() for k in self.keys],
        }

    def session_changed(self) -> None:
        """Send a snapshot soon; several changes at once make one. Any thread."""
        if self._loop is None or self._announced:
            return
        self._announced = True
        try:
            self._loop.call_soon_threadsafe(self._broadcast)
        except RuntimeError:  # the loop has ended: nobody is left to tell
            self._loop = None

    def start(self, message: Message) -> Future[str | None]:
        """Begin what a page asks for, off the loop."""
        session = self.session
        match message:
            case Propose(cursor):
                number = session.begin_proposal(cursor)
                return self.propose(lambda: session.propose(number, cursor))
            case Decide(answer):
                return self._in_order.submit(session.decide, answer)
            case GiveReason(given):
                return self._in_order.submit(session.give_reason, given)
            case Select(suggestion_id):
                return self._in_order.submit(session.select, suggestion_id)
            case Preview(shown):
                return self._in_order.submit(session.set_preview, shown)
            case Undo(key):
                return self._in_order.submit(session.undo, key)
            case Redo(key):
                return self._in_order.submit(session.redo, key)
            case Queue(leave):
                return self._walk(leave)
            case Ping():
                if self.walk is not None:
                    self.walk.seen()
                done: Future[str | None] = Future()
                done.set_result(None)
                return done

    def _walk(self, leave: Answer | None) -> Future[str | None]:
        """The skip among the verdicts, in their order; the list beside them."""
        walk = self.walk
        if walk is None:
            raise DecisionError("This server has no queue.")
        number = self.session.begin_move()
        begun = self._in_order.submit(walk.begin, leave)
        return self.propose(lambda: walk.show(number, begun))

    def propose(self, call: Callable[[], str | None]) -> Future[str | None]:
        """Run a proposal beside the verdicts."""
        self._next_lane = (self._next_lane + 1) % len(self._proposals)
        return self._proposals[self._next_lane].submit(call)

    def propose_unasked(self, call: Callable[[], str | None]) -> None:
        """Run a proposal that no page waits for, at start; a failure goes to the log."""
        self.propose(call).add_done_callback(self._log_failure)

    def close(self) -> bool:
        """Finish the verdicts that were begun, in two seconds; whether all else was done too.

        To be called after the loop has ended.
        """
        self._loop = None
        done = self._in_order.close(2.0)
        # a suggestion is made again as easily; what it runs into from now on is nobody's concern
        self.is_closing = True
        done &= self._proposals[0].close(0.1)
        done &= self._proposals[1].close(0.1)
        done &= self.walk is None or self.walk.close(0.1)
        return self.session.close(0.1) and done

    def _log_failure(self, done: Future[str | None]) -> None:
        error = None if done.cancelled() or self.is_closing else done.exception()
        if isinstance(error, AssistError):
            log.warning("No suggestions at the start: %s", error)
        elif error is not None:
            log.error("No suggestions at the start", exc_info=error)

    def _broadcast(self) -> None:
        self._announced = False
        for page in tuple(self.pages):
            page.send_snapshot()


class PageSocket(websocket.WebSocketHandler):
    """One open page. The guard has checked token, Host and Origin before it gets here."""

    def initialize(self, *, hub: Hub) -> None:
        """Take what the handler needs."""
        self._hub = hub
        self._running: set[asyncio.Task[None]] = set()
        self._painted = -1

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        """Name the one that carries no secret; a browser that offered some wants one back."""
        return SUBPROTOCOL if SUBPROTOCOL in subprotocols else None

    def open(self, *args: str, **kwargs: str) -> None:  # noqa: ARG002
        """Greet the page and paint it."""
        self.set_nodelay(True)
        self._hub.pages.add(self)
        self.send_text(json.dumps(self._hub.hello(self.request.headers["Origin"])))
        self.send_snapshot()

    def on_close(self) -> None:
        """Forget the page; what it asked for is finished all the same."""
        self._hub.pages.discard(self)

    def on_message(self, message: str | bytes) -> None:
        """Answer one message; nothing that arrives here ends the connection."""
        name: str | None = None
        try:
            fields = read_json(message)
            name = message_id(fields)
            started = self._hub.start(read_message(fields))
        except AssistError as error:
            self._answer(name, error=str(error))
            return
        except Exception:
            log.exception("A message from the page failed")
            self._answer(name, error=_OUR_FAULT)
            return
        task = asyncio.create_task(self._finish(name, started))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _finish(self, name: str, started: Future[str | None]) -> None:
        try:
            text = await asyncio.wrap_future(started)
        except AssistError as error:
            self._answer(name, error=str(error))
        except asyncio.CancelledError:
            self._answer(name, error="The server is stopping; nothing was recorded.")
        except Exception:
            log.exception("A message from the page failed")
            self._answer(name, error=_OUR_FAULT)
        else:
            self._answer(name, text=text)

    def _answer(
        self, name: str | None, *, text: str | None = None, error: str | None = None
    ) -> None:
        # the page drops its guess of the effect at the answer, so the effect itself goes first
        self.send_snapshot()
        self.send_text(
            json.dumps(
                {"type": "ack", "id": name, "ok": error is None, "text": text, "error": error}
            )
        )

    def send_snapshot(self) -> None:
        """Paint the page, unless it shows the newest state already."""
        snapshot = self._hub.session.snapshot()
        if snapshot["revision"] != self._painted:
            self._painted = snapshot["revision"]
            self.send_text(json.dumps({"type": "snapshot", "snapshot": snapshot}))

    def send_text(self, text: str) -> None:
        """Write, unless the page has gone."""
        try:
            future = self.write_message(text)
        except websocket.WebSocketClosedError:
            return
        future.add_done_callback(lambda done: done.exception())
