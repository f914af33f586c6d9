"""What `q` does: one site of the queue after another, each leased, shown and logged as drawn.

The queue is in the label store; this keeps nothing that a restart would miss. `begin` is meant to
be called in the order of the keys, together with verdicts; `show` beside them, as proposals are.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby

from cb2_assist.core.errors import (
    AssistError,
    BackgroundError,
    DecisionError,
    LabelError,
    OutOfBoundsError,
    SegmentNotFoundError,
)
from cb2_assist.core.records import Candidate, Draw, Suggestion, SuggestionList, Verdict
from cb2_assist.labels.queue_store import (
    ONE_SEGMENT_NOW,
    QueueItem,
    QueueState,
    QueueStore,
    Scope,
    Tally,
)
from cb2_assist.learning.fill import items_of, signals_of
from cb2_assist.learning.queue import draw, next_draw
from cb2_assist.learning.queue_status import default_scope
from cb2_assist.learning.seeded import Seeds
from cb2_assist.review.answers import Answer
from cb2_assist.review.lanes import Lane
from cb2_assist.review.moved import MovedError, check_moved
from cb2_assist.review.ports import Assistant, Log
from cb2_assist.review.screen import QueueMark
from cb2_assist.review.search import Search
from cb2_assist.review.seeded_walk import Seeded, SeededWalk
from cb2_assist.review.session import ReviewSession
from cb2_assist.review.state import Cursor

log = logging.getLogger(__name__)

_GONE = (BackgroundError, OutOfBoundsError, SegmentNotFoundError)
"""A site that cannot be shown for one of these is not there any more."""
_RENEW_S = 60.0
"""A lease of ten minutes is renewed so often at most."""
_AHEAD_WAIT_S = 60.0
_MOST_AHEAD = 2
"""Lists that are made ahead and kept: the next one's is still wanted when the one after is begun
between a draw and the showing of what was drawn."""


@dataclass(frozen=True, slots=True)
class Step:
    """Where `q` leads."""

    scope: Scope | None = None
    """None: nowhere, and `text` says why."""
    draw: Draw | None = None
    """None: the first site that the search in this scope finds."""
    text: str = ""
    seeded: Seeded | None = None
    """In place of a draw."""


class QueueWalk:
    """Leads one person through the queue of one dataset."""

    def __init__(
        self,
        session: ReviewSession,
        assistant: Assistant,
        decisions: Log,
        queue: QueueStore,
        *,
        user: str,
        seeds: Seeds | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Starts nothing but idle threads.

        Args:
            session: Shows lists and records skips.
            assistant: Makes lists.
            decisions: Says what is decided.
            queue: Sites that wait.
            user: Who has the leases.
            seeds: What is shown although it is known to be wrong; None: nothing is.
            clock: Unix time.
        """
        self._seeds = None if seeds is None else SeededWalk(seeds, assistant, queue, decisions)
        self._session, self._assistant, self._decisions = session, assistant, decisions
        self._queue, self._user, self._clock = queue, user, clock
        self._lane = Lane("cb2-queue-ahead")
        self._lock = threading.Lock()
        self._ahead: OrderedDict[str, Future[SuggestionList]] = OrderedDict()
        self._scope: Scope | None = None
        self._put_there: str | None = None
        """The known wrong one that is, or will be, on screen."""
        self._renewed = 0.0
        self._is_closing = False
        self._search = Search(session, assistant, queue, on_found=self._found_more, clock=clock)
        session.on_event = self._look_soon
        if self._seeds is not None:
            self._lane.submit(self._seeds.refresh, now=clock()).add_done_callback(self._told)

    @property
    def _at(self) -> tuple[str, str]:
        """Dataset and version."""
        info = self._assistant.info
        return info.name, info.version

    def close(self, timeout_s: float) -> bool:
        """Stop background work; returns whether it ended in time."""
        self._is_closing = True
        done = self._search.close(timeout_s)
        return self._lane.close(timeout_s) and done

    # -- the key

    def begin(self, leave: Answer | None) -> Step:
        """Skip the site on screen if it has no answer, and draw the next one.

        Args:
            leave: About the queue's site that was on screen at keydown; None if there was none.

        Raises:
            DecisionError: Nothing is queued, and nothing is on screen to look for.
            LabelError: The label file cannot be written; nothing has changed.
        """
        shown = self._session.screen.list
        drawn = shown.drawn if shown else None
        if drawn is not None:
            if leave is None or leave.suggestion_id != drawn.site:
                # pressed before the site on screen was there, or sent again
                return Step(text="This is the next site.")
            if self._is_open(drawn.site):
                self._session.decide(leave)
        return self._next(shown)

    def show(self, number: int, begun: Future[Step]) -> str | None:
        """Put the site on screen that `begin` came to; see `Proposals.show`."""
        try:
            step = begun.result()
        except AssistError as error:
            self._session.proposals.end_move(number, str(error), "warn")
            raise
        except BaseException:
            self._session.proposals.end_move(number, "The queue failed.", "error")
            raise
        scope = step.scope
        if scope is None:
            return self._session.proposals.end_move(number, step.text)
        self._put_there = None if step.seeded is None else step.seeded.name
        self._enter(scope)
        text = self._session.proposals.show(number, lambda: self._find(number, scope, step))
        self._look_soon()
        return text

    def resume(self) -> str | None:
        """Take up the last session, at the site of the queue if that was on screen."""
        return self._session.proposals.resume(self._propose_again)

    def seen(self) -> None:
        """A page is there: keep the site that it shows from others."""
        shown, now = self._session.screen.list, self._clock()
        drawn = shown.drawn if shown else None
        if drawn is not None and now - self._renewed > _RENEW_S:
            self._renewed = now
            self._lane.submit(self._queue.renew, drawn, now=now)

    # -- where to go

    def _next(self, shown: SuggestionList | None) -> Step:
        now = self._clock()
        drawn = shown.drawn if shown else None
        held = None if drawn else self._queue.held(*self._at, self._user)
        scopes = self._scopes(shown)
        for scope in scopes:
            if held is not None and self._is_within(held, scope):
                self._queue.renew(held, now=now)
                return Step(scope, held)
            if (seeded := self._seeded(scope)) is not None:
                return Step(scope, seeded=seeded)
            taken = draw(self._queue, scope, self._user, now=now)
            if taken is not None:
                self._go_on_searching(scope, shown)
                return Step(scope, taken)
        if held is not None:
            self._queue.renew(held, now=now)
            return Step(self._scope_of(held), held)
        self._queue.release(*self._at, self._user, now=now)
        if shown is None:
            raise DecisionError(
                "Nothing is queued yet. Point at a segment and press p, then q; or run cb2-assist "
                "queue fill."
            )
        return self._search_here(scopes[0], shown)

    def _scopes(self, shown: SuggestionList | None) -> list[Scope]:
        """Parts of the queue, the one to look into first first."""
        fills = [f.scope for f in self._queue.fills(*self._at)]
        again = [s for s in fills if s.source]
        wide = [s for s in fills if not s.source and (s.box_nm or len(s.segments) != 1)]
        then = again[:1] + wide[:1]
        if shown is None:
            return fills[:1] + then
        if shown.drawn is not None:
            return [self._scope_of(shown.drawn), *then]
        return [Scope(*self._at, (shown.segment,)), *then]

    def _scope_of(self, drawn: Draw) -> Scope:
        return Scope.of_text(*self._at, drawn.scope)

    def _is_within(self, held: Draw, scope: Scope) -> bool:
        if held.scope == scope.text:
            return True
        item = self._queue.item(*self._at, held.site)
        ids = set(scope.segments)
        return item is not None and bool(ids & {item.site.segment, item.site.partner})

    def _is_open(self, site: str) -> bool:
        return self._decisions.verdict(site) in (None, Verdict.SKIP)  # flagged: set aside

    # -- what nobody has filled yet

    def _search_here(self, scope: Scope, shown: SuggestionList) -> Step:
        """Queue what the list has, search for more, and go to the first site there is."""
        if not self._search.start(scope, shown):
            return Step(text=self._done_text(scope))
        return Step(scope, draw(self._queue, scope, self._user, now=self._clock()))

    def _go_on_searching(self, scope: Scope, shown: SuggestionList | None) -> None:
        if shown is not None and len(scope.segments) == 1:
            self._search.start(scope, shown, only_unfinished=True)

    def _done_text(self, scope: Scope) -> str:
        counts = {
            state: sum(t.n for t in found)
            for state, found in groupby(
                sorted(
                    self._queue.tally(scope, now=self._clock(), user=self._user),
                    key=lambda t: t.state,
                ),
                key=lambda t: t.state,
            )
        }
        told = ", ".join(f"{n} {state.value}" for state, n in counts.items()) or "no sites found"
        return f"The queue of {scope.words} is done: {told}. Point elsewhere and press p, then q."

    # -- lists

    def _seeded(self, scope: Scope) -> Seeded | None:
        """What comes in place of this person's next draw, if anything does."""
        if self._seeds is None:
            return None
        found = self._seeds.following(self._queue.draws_made(*self._at, self._user))
        # the queue ends for everybody alike
        if found and self._queue.waiting(scope, now=self._clock(), user=self._user):
            return found
        return None

    def _find(self, number: int, scope: Scope, step: Step) -> SuggestionList:
        """The list at a drawn site, or at the next one that is still there."""
        drawn = step.draw
        if step.seeded is not None and self._seeds is not None:
            shown = self._seeds.list_of(step.seeded, scope, self._taken_ahead, now=self._clock())
            if shown is not None:
                return shown
            self._put_there = None
            drawn = draw(self._queue, scope, self._user, now=self._clock())
        drawn = drawn or self._first_found(number, scope)
        while drawn is not None:
            try:
                return self._list_at(drawn)
            except MovedError as moved:
                self._session.say(self._move(drawn.site, moved), "warn")
            except _GONE as error:
                self._queue.mark_stale(
                    *self._at, drawn.site, str(error), user=self._user, now=self._clock()
                )
                self._session.say(
                    f"A site of the queue is not there any more and was marked stale: {error}",
                    "warn",
                )
            drawn = draw(self._queue, scope, self._user, now=self._clock())
        raise DecisionError(self._done_text(scope))

    def _first_found(self, number: int, scope: Scope) -> Draw | None:
        """Wait until the search has found something, and say how far it is."""
        while self._session.proposals.is_newest(number):
            ended = not self._search.wait_for_news(scope)
            taken = draw(self._queue, scope, self._user, now=self._clock())
            if taken is not None or ended:
                return taken
            done, total = self._search.progress or (0, 0)
            place = f"{done} of {total} places" if total else "finding its places"
            self._session.say(f"Searching {scope.words} for sites: {place} …")
        return None

    def _list_at(self, drawn: Draw) -> SuggestionList:
        item = self._queue.item(*self._at, drawn.site)
        if item is None:
            raise LabelError(f"The site {drawn.site} is not in the queue. Fill it again.")
        return replace(self._taken_ahead(item), drawn=drawn)

    def _taken_ahead(self, item: QueueItem) -> SuggestionList:
        """The list at a site, which may have been made while the person looked at another."""
        with self._lock:
            ahead = self._ahead.pop(item.suggestion.id, None)
        if ahead is None:
            return self._suggest(item)
        found = ahead.result(_AHEAD_WAIT_S)
        if f"{found.model_sha256} {found.calibrator}" != self._assistant.judge:
            # another model was taken up since
            return self._suggest(item)
        return found

    def _move(self, old: str, moved: MovedError) -> str:
        """Record what edits have made of a site; it is asked again as what it is now."""
        user, now = self._user, self._clock()
        if moved.site is None:
            self._queue.mark_stale(*self._at, old, ONE_SEGMENT_NOW, user=user, now=now)
            return "Edits have joined what a site of the queue asked about; it is closed."
        item = self._queue.item(*self._at, old)
        assert item is not None
        name, items = moved.site.key(*self._at), []
        with suppress(*_GONE):
            found = self._suggest_at(replace(item.suggestion, site=moved.site))
            items = [i for i in items_of(found, Scope(*self._at)) if i.suggestion.id == name]
        self._queue.put_signals(*self._at, signals_of(self._assistant, items))
        instead = next(iter(items), None)
        self._queue.mark_stale(*self._at, old, str(moved), user=user, now=now, instead=instead)
        return f"A site of the queue was looked up again: {moved}."

    def _suggest(self, item: QueueItem) -> SuggestionList:
        """The list at a site.

        Raises:
            MovedError: Edits of the graph have made another question of it.
        """
        check_moved(item, self._assistant.source)
        return self._suggest_at(item.suggestion)

    def _suggest_at(self, found: Suggestion) -> SuggestionList:
        site = found.site
        prior = math.nan if found.prior is None else found.prior
        asked = Candidate(site, found.reason, prior, found.joint)
        return self._assistant.suggest(site.point, site.segment, include=asked)

    def _propose_again(self, number: int, cursor: Cursor) -> str | None:
        """As `Proposals.propose`, but a site of the queue stays one."""
        if (seeded := self._seeded_at(cursor)) is not None:
            scope = default_scope(self._queue.fills(*self._at), *self._at)
            self._put_there = None if seeded.seeded is None else seeded.seeded.name
            self._enter(scope)
            text = self._session.proposals.show(number, lambda: self._find(number, scope, seeded))
            self._look_soon()
            return text
        drawn = self._queue.last_draw(*self._at, self._user)
        item = None if drawn is None else self._queue.item(*self._at, drawn.site)
        if drawn is None or item is None or cursor != Cursor(item.site.point, item.site.segment):
            return self._session.proposals.propose(number, cursor)
        if self._is_open(drawn.site):
            if self._queue.held(*self._at, self._user) != drawn:
                return self._session.proposals.propose(number, cursor)
            self._queue.renew(drawn, now=self._clock())
        self._enter(self._scope_of(drawn))
        text = self._session.proposals.show(number, lambda: self._list_at(drawn))
        self._look_soon()
        return text

    def _seeded_at(self, cursor: Cursor) -> Step | None:
        """Whether the last session stopped at what comes in place of the next draw."""
        if self._seeds is None:
            return None
        self._seeds.refresh(now=self._clock())
        found = self._seeds.following(self._queue.draws_made(*self._at, self._user))
        if found is None or cursor != Cursor(found.item.site.point, found.item.site.segment):
            return None
        return Step(seeded=found)

    # -- ahead of the person

    def _enter(self, scope: Scope) -> None:
        self._scope = scope
        self._mark()

    def _found_more(self) -> None:
        self._lane.submit(self._mark)

    def _look_soon(self) -> None:
        """Count again and make the next list, in the background."""
        if self._scope is not None:
            self._lane.submit(self._look_ahead, self._scope).add_done_callback(self._told)

    def _look_ahead(self, scope: Scope) -> None:
        self._mark()
        now = self._clock()
        if self._seeds is not None:
            self._seeds.keep_up(self._decisions.newest_event, now=now)
        seeded = self._seeded(scope)
        following = next_draw(self._queue, scope, self._user, now=now)
        item = None if seeded is None else seeded.item
        if item is None and following is not None:
            item = self._queue.item(*self._at, following.site)
        if item is None:
            return
        made: Future[SuggestionList] = Future()
        with self._lock:
            if item.suggestion.id in self._ahead:
                return
            self._ahead[item.suggestion.id] = made
            while len(self._ahead) > _MOST_AHEAD:
                self._ahead.popitem(last=False)
        try:
            made.set_result(self._suggest(item))
        except BaseException as error:  # noqa: BLE001  the future carries it to whoever asks
            made.set_exception(error)

    def _mark(self) -> None:
        scope = self._scope
        if scope is None:
            return
        waiting = (QueueState.OPEN, QueueState.SKIPPED, QueueState.AGAIN)
        tally: list[Tally] = self._queue.tally(scope, now=self._clock(), user=self._user)
        n = sum(t.n for t in tally if t.state in waiting)
        if self._put_there is not None:
            # a draw would have taken one of them
            n -= self._is_open(self._put_there)
        self._session.set_queue(QueueMark(scope.words, n, self._search.progress))

    def _told(self, done: Future[None]) -> None:
        if done.cancelled() or self._is_closing:
            return
        if (error := done.exception()) is not None:
            log.warning("The queue could not be looked through ahead: %s", error)
