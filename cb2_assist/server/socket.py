"""The page's WebSocket: one message in, one answer out, and a snapshot to everybody on a change."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any

from tornado import websocket

from cb2_assist.core.cameras import CAMERAS
from cb2_assist.core.errors import AssistError, DecisionError
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.keys import KeyBinding
from cb2_assist.core.records import SegmentId
from cb2_assist.review.answers import Answer as Verdict
from cb2_assist.review.applying import Applying, Hooks
from cb2_assist.review.lanes import Lane
from cb2_assist.review.ports import Models
from cb2_assist.review.session import ReviewSession
from cb2_assist.review.walk import QueueWalk
from cb2_assist.server.guard import SUBPROTOCOL
from cb2_assist.server.hold import Hold, TabId
from cb2_assist.server.messages import (
    ApplyEdit,
    Decide,
    DropEdit,
    GiveReason,
    Goto,
    LookAt,
    Message,
    Ping,
    Preview,
    Propose,
    Queue,
    Redo,
    Select,
    Share,
    TakeOver,
    Undo,
    UseModel,
    message_id,
    read_json,
    read_message,
    was_typed_while_held,
)

log = logging.getLogger(__name__)

_GOING_AWAY = 1001
"""WebSocket close code of a page that is left: closed, or loaded again (RFC 6455)."""
_TAKEN_OVER = "NOT done: this session is open in another tab. Take it over here, or go on there."
_OUR_FAULT = (
    "NOT done: something went wrong inside cb2-assist. The terminal says what; please report it."
)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer with more than a sentence."""

    text: str
    data: dict[str, Any]


Follow = Callable[
    [frozenset[SegmentId], frozenset[SegmentId], str], Callable[[], str | None] | None
]
"""Given what an edit retired, the pieces of a cut, and words: see `following.begin_following`."""

_InOrder = Decide | GiveReason | Select | Preview | DropEdit | Undo | Redo

Answer = str | Reply | None


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
    models: Models | None = None
    """None: the model cannot be changed."""
    applying: Applying | None = None
    """None: nothing is applied here."""
    follow: Follow | None = None
    """Begins a new list in place of one that an edit made out of date."""
    look_at: Callable[[PointNm], bool] | None = None
    """See `NearSource`; None: segments are drawn whole."""
    pages: set[PageSocket] = field(default_factory=set)

    def __post_init__(self) -> None:
        # verdicts and moves in the order of the keys; proposals beside them, two at most, so that
        # a newer one does not wait for an older one
        self._in_order = Lane("cb2-in-order")
        self._proposals = (Lane("cb2-propose-0"), Lane("cb2-propose-1"))
        # opening a model takes seconds, in which neither verdicts nor proposals wait
        self._opening = Lane("cb2-open-model")
        self._next_lane = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._viewer_for: Callable[[str], str] | None = None
        self._announced = False
        self.is_closing = False
        self.hold = Hold(self._call_later)
        self.session.on_change = self.session_changed
        if self.applying is not None:
            self.applying.hooks = Hooks(self.session.say, self.session.touch, self._moved)

    def attach(self, loop: asyncio.AbstractEventLoop, viewer_for: Callable[[str], str]) -> None:
        """Take the server's loop, and what gives the token of the viewer for an origin."""
        self._loop = loop
        self._viewer_for = viewer_for

    def hello(self, origin: str, *, holds: bool) -> dict[str, Any]:
        """What a page must know before anything else.

        Args:
            origin: Scheme, host and port under which its browser reaches us.
            holds: Whether the session belongs to it.
        """
        assert self._viewer_for is not None
        return {
            "type": "hello",
            "holds": holds,
            "cameras": [c.to_json() for c in CAMERAS],
            "server_id": self.server_id,
            "viewer": f"/v/{self._viewer_for(origin)}/",
            "keys": [k.to_json() for k in self.keys],
            "models": self.models.known_models() if self.models else [],
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

    def start(self, message: Message, page: PageSocket) -> Future[Answer]:
        """Begin what a page asks for, off the loop."""
        session = self.session
        match message:
            case Propose(cursor):
                number = session.proposals.begin(cursor)
                return self.propose(lambda: session.proposals.propose(number, cursor))
            case Queue(leave):
                return self._walk(leave)
            case Goto(text):
                return self.propose(lambda: self._go(text))
            case Share(link, camera):
                return self._in_order.submit(self._share, link, page, camera)
            case LookAt(camera):
                redraw = self.look_at is not None and self.look_at(camera)
                return _done(Reply("", {"redraw": redraw}))
            case UseModel(folder):
                return self._opening.submit(self._use_model, folder)
            case TakeOver():
                self.hold.take(page)
                return _done("This session is in this tab now.")
            case ApplyEdit(edit, number):
                return self._applies.apply(edit, number)
            case Ping():
                if self.walk is not None:
                    self.walk.seen()
                return _done(None)
            case _:
                return self._in_order.submit(self._turn, message)

    def _turn(self, message: _InOrder) -> str | None:
        """What a key does, in the order of the keys."""
        session = self.session
        match message:
            case Decide(answer):
                return session.decide(answer)
            case GiveReason(given):
                return session.give_reason(given)
            case Select(suggestion_id):
                return session.select(suggestion_id)
            case Preview(shown):
                return session.set_preview(shown)
            case DropEdit(edit):
                return self._applies.drop(edit)
            case Undo(key, seen):
                return session.undo(key, seen)
            case Redo(key, seen):
                return session.redo(key, seen)

    def _walk(self, leave: Verdict | None) -> Future[Answer]:
        """The skip among the verdicts, in their order; the list beside them."""
        walk = self.walk
        if walk is None:
            raise DecisionError("This server has no queue.")
        number = self.session.proposals.begin_move()
        begun = self._in_order.submit(walk.begin, leave)
        return self.propose(lambda: walk.show(number, begun))

    @property
    def _applies(self) -> Applying:
        if self.applying is None:
            raise DecisionError(
                "Edits are not applied here. Start with --apply stage or --apply live on a dataset "
                "that can be edited."
            )
        return self.applying

    def _moved(
        self, retired: frozenset[SegmentId], pieces: frozenset[SegmentId], text: str
    ) -> None:
        """An edit was made: show what has become of the list on screen, if it was about that."""
        show = self.follow and self.follow(retired, pieces, text)
        if show is not None:
            self.propose_unasked(show)

    def _go(self, text: str) -> Reply:
        """Find a place, and propose there once the page has been told."""
        arrival = self.session.go(text)
        cursor, session = arrival.cursor, self.session
        if cursor is not None:
            number = session.proposals.begin(cursor, arrival)
            self.propose_unasked(lambda: session.proposals.propose(number, cursor, arrival))
        return Reply(arrival.text, {"at_nm": arrival.at.to_json(), "proposes": cursor is not None})

    def _use_model(self, folder: str | None) -> Reply:
        """Let another model answer, and ask it about the place on screen."""
        if self.models is None:
            raise DecisionError("This server cannot change its model.")
        session = self.session
        session.say("Opening the model; the one before answers until then …")
        try:
            now = self.models.use_model(folder)
        except AssistError as error:
            session.say(f"The model stays what it was: {error}", "error")
            raise
        mark = f" Its card says: {now['verdict']} than what it was made from."
        told = mark if now["verdict"] not in ("", "better") else ""
        same = "with the calibration that is saved now" if folder is None else "from now on"
        text = f"{now['name']} ({now['sha256'][:8]}) answers {same}.{told}"
        session.say(text, "warn" if told else "good")
        if session.screen.list is not None:
            self.propose_unasked(self.walk.resume if self.walk else session.proposals.resume)
        known = self.models.known_models()
        self._tell_all({"type": "models", "models": known})
        return Reply(text, {"models": known})

    def _tell_all(self, message: dict[str, Any]) -> None:
        loop = self._loop
        if loop is None:
            return

        def tell() -> None:
            for page in tuple(self.pages):
                page.send_text(json.dumps(message))

        try:
            loop.call_soon_threadsafe(tell)
        except RuntimeError:  # the loop has ended: nobody is left to tell
            self._loop = None

    def _share(self, link: str, page: PageSocket, camera: PointNm | None) -> Reply:
        origin = page.origin
        if link == "own":
            made = self.session.share_own(origin, camera)
        else:
            made = self.session.share_neuroglancer(origin, camera)
        return Reply(made.text, {"link": made.link})

    def propose(self, call: Callable[[], Answer]) -> Future[Answer]:
        """Run a proposal beside the verdicts."""
        self._next_lane = (self._next_lane + 1) % len(self._proposals)
        return self._proposals[self._next_lane].submit(call)

    def propose_unasked(self, call: Callable[[], str | None]) -> None:
        """Run a proposal that no page waits for; a failure goes to the log."""
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
        done &= self._opening.close(0.1)
        done &= self.walk is None or self.walk.close(0.1)
        done &= self.applying is None or self.applying.close(1.0)
        return self.session.close(0.1) and done

    def _log_failure(self, done: Future[Answer]) -> None:
        error = None if done.cancelled() or self.is_closing else done.exception()
        if isinstance(error, AssistError):
            log.warning("No suggestions: %s", error)
        elif error is not None:
            log.error("No suggestions", exc_info=error)

    def _call_later(self, seconds: float, call: Callable[[], None]) -> None:
        if self._loop is not None:
            self._loop.call_later(seconds, call)

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
        self.tab = TabId(
            self._word("tab") or token_hex(8),
            self._word("load") or token_hex(8),
            self._word("waits") == "1",
        )

    def _word(self, name: str) -> str:
        """From the query; tornado's own reading of it cannot fail politely at this point."""
        return self.request.query_arguments.get(name, [b""])[-1].decode("utf-8", "replace")

    @property
    def origin(self) -> str:
        """Scheme, host and port under which the browser reaches us; the guard has seen to it."""
        return str(self.request.headers["Origin"])

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        """Name the one that carries no secret; a browser that offered some wants one back."""
        return SUBPROTOCOL if SUBPROTOCOL in subprotocols else None

    def open(self, *args: str, **kwargs: str) -> None:  # noqa: ARG002
        """Greet the page and paint it."""
        self.set_nodelay(True)
        self._hub.pages.add(self)
        self._hub.hold.join(self)
        holds = self._hub.hold.is_holder(self)
        self.send_text(json.dumps(self._hub.hello(self.origin, holds=holds)))
        self.send_snapshot()

    def on_close(self) -> None:
        """Forget the page; what it asked for is finished all the same."""
        if self in self._hub.pages:
            self._hub.pages.discard(self)
            self._hub.hold.leave(self, said_goodbye=self.close_code == _GOING_AWAY)

    def on_message(self, message: str | bytes) -> None:
        """Answer one message; nothing that arrives here ends the connection."""
        name: str | None = None
        try:
            fields = read_json(message)
            name = message_id(fields)
            asked = read_message(fields)
            self._check_hold(asked, fields)
            started = self._hub.start(asked, self)
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

    def _check_hold(self, asked: Message, fields: dict[str, Any]) -> None:
        """Let another tab change nothing.

        What was typed while the tab held the session counts all the same: it was under way when
        another tab took over, or waited for a connection. An undo must say what it was meant for
        then, since the latest verdict may be the other tab's.

        Raises:
            DecisionError: The session belongs to another tab.
        """
        if isinstance(asked, Ping | TakeOver | Share) or self._hub.hold.is_holder(self):
            return
        is_clear = isinstance(asked, Decide | GiveReason) or (
            isinstance(asked, Undo | Redo) and asked.seen is not None
        )
        if is_clear and was_typed_while_held(fields):
            return
        raise DecisionError(_TAKEN_OVER)

    async def _finish(self, name: str, started: Future[Answer]) -> None:
        try:
            answer = await asyncio.wrap_future(started)
        except AssistError as error:
            self._answer(name, error=str(error))
        except asyncio.CancelledError:
            self._answer(name, error="The server is stopping; nothing was recorded.")
        except Exception:
            log.exception("A message from the page failed")
            self._answer(name, error=_OUR_FAULT)
        else:
            reply = answer if isinstance(answer, Reply) else Reply(answer or "", {})
            self._answer(name, text=reply.text or None, data=reply.data)

    def send_hold(self) -> None:
        """Tell the page whether the session is its own."""
        holds = self._hub.hold.is_holder(self)
        self.send_text(json.dumps({"type": "hold", "holds": holds}))

    def _answer(
        self,
        name: str | None,
        *,
        text: str | None = None,
        error: str | None = None,
        data: dict[str, Any] | None = None,
    ) -> None:
        # the page drops its guess of the effect at the answer, so the effect itself goes first
        self.send_snapshot()
        ack = {"type": "ack", "id": name, "ok": error is None, "text": text, "error": error}
        self.send_text(json.dumps({**ack, "data": data or {}}))

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


def _done(answer: Answer) -> Future[Answer]:
    done: Future[Answer] = Future()
    done.set_result(answer)
    return done
