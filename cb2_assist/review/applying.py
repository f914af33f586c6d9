"""Applies accepted edits to an editable graph: at once after a grace, or from a list, key by key.

What is to be applied follows from the verdicts in force and from what is stored of each edit, never
from memory: after a kill the same rule finds the same things to do. Requests to the graph run on a
lane of their own, one after another, so that a verdict never waits for a server.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from cb2_assist.core.edits import Edit, EditKind, EditRecord, EditState
from cb2_assist.core.errors import AssistError, DecisionError, LabelError
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import Decision, Kind, SegmentId, Verdict
from cb2_assist.decisions.edit_facts import words_of
from cb2_assist.decisions.edits import EditFlow
from cb2_assist.labels.edit_store import EditStore, StaleEditError
from cb2_assist.review.edit_list import EditList
from cb2_assist.review.edit_sides import EditSides, Later
from cb2_assist.review.evidence import CutSides
from cb2_assist.review.lanes import Lane

log = logging.getLogger(__name__)

GRACE_S = 3.0
"""How long an accepted join can be taken back before it is sent, with ``--apply live``."""
_LOOK_AGAIN_S = (2.0, 5.0, 10.0, 20.0, 60.0)
"""Pauses between look-ups of an edit whose answer was lost; the last one goes on."""
_SIDES_END_S = 0.1
_MOST_TRIES = 5


class Verdicts(Protocol):
    """The part of the log that says what is in force."""

    def verdict(self, suggestion_id: str) -> Verdict | None:
        """The answer in force on a suggestion."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the page does about edits."""

    say: Callable[[str, str], object] = lambda _text, _level: None
    """A status line and its level."""
    changed: Callable[[], object] = lambda: None
    """The list of edits is another one."""
    moved: Callable[[frozenset[SegmentId], frozenset[SegmentId], str], object] = (
        lambda _retired, _pieces, _text: None
    )
    """Objects were retired by an edit that was made; the pieces of a cut; and what to tell."""


class Applying:
    """Edits of one person in one graph. Methods may be called from any thread."""

    def __init__(
        self,
        flow: EditFlow,
        store: EditStore,
        verdicts: Verdicts,
        sides: CutSides,
        *,
        user: str,
        dataset: str,
        is_live: bool,
        grace_s: float = GRACE_S,
        later: Later | None = None,
    ) -> None:
        """Nothing is done before `start`.

        Args:
            flow: Takes an edit from one step to the next.
            store: Keeps edits.
            verdicts: What is in force.
            sides: Makes those of cuts; closed with this.
            user: Whose edits.
            dataset: Of which dataset.
            is_live: Whether joins are applied after the grace, without a key.
            grace_s: See `GRACE_S`.
            later: In place of threads that wait.
        """
        self._flow, self._store, self._verdicts = flow, store, verdicts
        self._user, self._dataset, self._is_live = user, dataset, is_live
        self._grace_s, self._later = grace_s, later or _later
        self.sides = sides
        self._edit_sides = EditSides(flow, store, sides, self._later, self._tell_sides)
        self._lane = Lane("cb2-edits")
        self._lock = threading.RLock()
        self._due: dict[str, tuple[float, Callable[[], None]]] = {}
        self._looks: dict[str, tuple[int, Callable[[], None]]] = {}
        self._list = EditList(store, user=user, dataset=dataset, is_live=is_live)
        self._closed = False
        self.hooks = Hooks()
        self._refresh()

    # -- from the session

    def expect(self, decision: Decision, sides: Iterable[Iterable[Iterable[float]]] | None) -> str:
        """Keep the edit of an accept that is about to be recorded, so that it cannot get lost.

        Args:
            decision: Not recorded yet.
            sides: Of a cut: points in nm that are to come apart; None: they arrive later.

        Returns:
            Words where it could not be kept; the verdict is worth more, and is recorded all the
            same.
        """
        seeded = decision.is_seeded(decision.suggestion.id)
        if decision.verdict is not Verdict.ACCEPT or seeded:
            # what was only shown to see whether people look is known to be wrong
            return ""
        try:
            self._keep(decision, sides)
        except LabelError as e:
            log.warning("An edit is not kept: %s", e)
            return "Its edit could not be kept, so that it will not be applied."
        return ""

    def _keep(self, decision: Decision, sides: Iterable[Iterable[Iterable[float]]] | None) -> None:
        suggestion = decision.suggestion
        kept = (EditState.APPLIED, EditState.ALREADY)
        if any(
            r.edit.turns is None and (r.is_open or r.state in kept)
            for r in self._of_site(suggestion.id)
        ):
            return
        a, b = sides or ((), ())
        self._store.add(
            Edit(
                key=decision.idempotency_key,
                kind=EditKind.JOIN if suggestion.site.kind is Kind.JOIN else EditKind.CUT,
                user=decision.user,
                dataset=decision.dataset,
                version=decision.version,
                site=suggestion.id,
                decision_key=decision.idempotency_key,
                made_at=datetime.now(UTC).isoformat(),
                point=suggestion.site.point,
                segment=suggestion.site.segment,
                partner=suggestion.site.partner,
                supervoxels=suggestion.supervoxels,
                sides=(tuple(map(PointNm.of, a)), tuple(map(PointNm.of, b))),
            )
        )

    def follow(self, sites: Iterable[str], *, by_person: bool = True) -> str:
        """Do what the verdicts in force on some sites mean for their edits.

        Args:
            sites: By `Suggestion.id`.
            by_person: Whether a key was pressed just now; else nothing is sent.

        Returns:
            What that is, in words for the status line.
        """
        try:
            words = [self._follow_one(site, by_person) for site in sites]
        except (LabelError, StaleEditError) as e:
            log.warning("Edits could not be brought in line with the verdicts: %s", e)
            words = ["What it means for the graph could not be recorded; see the list of edits."]
        self._refresh()
        return " ".join(w for w in words if w)

    # -- from the keys

    def apply(self, key: str, number: int) -> Future[Any]:
        """Take an edit one step further, as it was shown.

        Args:
            key: Of the edit.
            number: Of its step that was on screen; if another one came since, nothing is done.

        Returns:
            What became of it, in words; or `DecisionError`, when nothing was applied.
        """
        self._cancel(key)
        return self._lane.submit(self._apply_shown, key, number)

    def drop(self, key: str) -> str:
        """Take a staged edit off the list; the verdict stands.

        Raises:
            DecisionError: It is not waiting.
        """
        self._cancel(key)
        record = self._store.get(key)
        if record is None or record.state is not EditState.STAGED:
            raise DecisionError("That edit does not wait any more. Look at the list again.")
        self._flow.withdraw(record, "Taken off the list.", by_hand=True)
        self._refresh()
        return f"Taken off the list: {words_of(record)}. Your answer stays recorded."

    # -- begin, end, show

    def start(self) -> Future[None]:
        """Take up what an earlier session left: look up what was sent, send nothing."""
        return self._lane.submit(self._take_up)

    def close(self, timeout_s: float) -> bool:
        """Stop; what waits stays stored. Returns whether a request in progress ended in time."""
        with self._lock:
            self._closed = True
            waits = [*self._due.values(), *self._looks.values()]
            self._due, self._looks = {}, {}
        for _, cancel in waits:
            cancel()
        self._edit_sides.close()
        # sides are computed anew as easily; a request in progress is not sent again
        done = self.sides.close(_SIDES_END_S)
        return self._lane.close(timeout_s) and done

    @property
    def n_waiting(self) -> int:
        """Edits that wait for something."""
        return self._list.n_waiting

    def to_json(self) -> dict[str, Any]:
        """The list, as the page reads it."""
        with self._lock:
            due = {key: at for key, (at, _) in self._due.items()}
        return self._list.to_json(due)

    # -- what verdicts mean

    def _follow_one(self, site: str, by_person: bool) -> str:
        for _ in range(_MOST_TRIES):
            with contextlib.suppress(StaleEditError):  # the lane was faster: look again
                return self._try_to_follow(site, by_person)
        raise StaleEditError

    def _try_to_follow(self, site: str, by_person: bool) -> str:
        records = self._of_site(site)
        originals = [r for r in records if r.edit.turns is None]
        if not originals:
            return ""
        original, open_ones = originals[-1], [r for r in records if r.is_open]
        if self._verdicts.verdict(site) is Verdict.ACCEPT:
            return self._forward(original, open_ones, by_person)
        return self._backward(original, open_ones, by_person)

    def _forward(self, original: EditRecord, open_ones: list[EditRecord], by_person: bool) -> str:
        back = [r for r in open_ones if not r.is_forward]
        for record in back:
            self._flow.withdraw(record, "Accepted again.")
        if any(r.state is not EditState.STAGED for r in back):
            return "Taking it back is under way already; press Ctrl+Shift+Z again once it is known."
        ahead = next((r for r in open_ones if r.is_forward), None)
        if ahead is None and original.state in (EditState.WITHDRAWN, EditState.UNDONE):
            ahead = self._flow.make_again(original)
        if ahead is None:
            return "" if original.state is not EditState.APPLIED else "It is applied already."
        is_join = ahead.edit.kind in (EditKind.JOIN, EditKind.REDO)
        if by_person and self._is_live and is_join and ahead.state is EditState.STAGED:
            self._apply_after_grace(ahead.edit.key)
            return f"It is applied in {self._grace_s:.0f} s; u cancels."
        if ahead.needs_sides:
            self._edit_sides.wait_for(ahead)
            return "Its edit waits in the list; y applies it once its two sides are computed."
        return "Its edit waits in the list; y applies." if by_person else ""

    def _backward(self, original: EditRecord, open_ones: list[EditRecord], by_person: bool) -> str:
        withdrawn = False
        for record in open_ones:
            self._cancel(record.edit.key)
            if record.is_forward and record.state is EditState.STAGED:
                ended = self._flow.withdraw(record, "Taken back before it was applied.")
                withdrawn |= ended.state is EditState.WITHDRAWN
        original = self._store.get(original.edit.key) or original
        sent = (EditState.APPLIED, EditState.SENT, EditState.UNKNOWN)
        if original.state not in sent:
            return "Its edit was not applied." if withdrawn else ""
        if any(not r.is_forward and r.edit.kind is not EditKind.UNDO for r in open_ones):
            return ""  # the opposite edit is proposed already
        undo = self._flow.take_back(original)
        if not by_person:
            return ""
        self._lane.submit(self._apply_quietly, undo.edit.key)
        if original.step.operation is None:
            return "Its edit is taken back once it is known whether it was made."
        return f"Taking operation {original.step.operation} back …"

    # -- on the lane

    def _apply_shown(self, key: str, number: int) -> str:
        record = self._store.get(key)
        if record is None or record.step.number != number or not record.is_open:
            raise DecisionError(
                "NOT applied: that edit has moved on since it was shown. Look at the list and "
                "press y again."
            )
        if record.needs_sides:
            why = record.step.note or "The two sides of this cut are being computed."
            raise DecisionError(f"NOT applied: {why} Press y once they are there.")
        return self._apply(record)

    def _apply_quietly(self, key: str) -> None:
        record = self._store.get(key)
        if record is None or not record.is_open:
            return
        try:
            self._apply(record)
        except (AssistError, StaleEditError) as e:
            log.warning("An edit waits: %s", e)

    def _apply(self, record: EditRecord) -> str:
        is_wanted = self._verdicts.verdict(record.edit.site) is Verdict.ACCEPT
        if record.state is EditState.STAGED and record.is_forward != is_wanted:
            after = self._flow.withdraw(record, "The answer it follows from is another one by now.")
            return self._tell(record, after)
        try:
            return self._tell(record, self._flow.apply(record))
        except StaleEditError:
            raise DecisionError("That edit has moved on. Look at the list again.") from None
        except AssistError as e:
            text = f"Not applied, it goes on waiting: {e}"
            self.hooks.say(text, "warn")
            raise DecisionError(text) from e

    def _look_again(self, key: str) -> None:
        record = self._store.get(key)
        if record is None or record.state not in (EditState.SENT, EditState.UNKNOWN):
            return
        try:
            self._tell(record, self._flow.look_up(record))
        except (AssistError, StaleEditError) as e:
            log.warning("An edit could not be looked up: %s", e)
            self._look_later(key)

    def _take_up(self) -> None:
        for record in self._flow.recover():
            self._tell(record, record)
        sites = {r.edit.site: None for r in self._records()}
        self.follow(sites, by_person=False)
        if n := self.n_waiting:
            self.hooks.say(f"{n} edit{'s wait' if n > 1 else ' waits'} in the list.", "info")

    def _tell(self, before: EditRecord, after: EditRecord) -> str:
        """Say what became of an edit, and go on where something follows from it."""
        words, note, state = words_of(after), after.step.note, after.state
        level = "warn"
        number = "" if after.step.operation is None else f" (operation {after.step.operation})"
        if state is EditState.APPLIED:
            text, level = f"Applied: {words}{number}.", "good"
        elif state is EditState.STAGED and after.step.preview is not None:
            text, level = f"{_capital(words)}: {note}", "info"
        elif state is EditState.STAGED:
            text = f"Not applied: {words}. {note}"
        else:
            text = f"{_capital(words)}: {note or state.value}"
        if not after.is_open:
            self._list.end(after.edit.key)
        with self._lock:
            pending = self._looks.pop(after.edit.key, None)
        if pending is not None:
            pending[1]()
        if state in (EditState.SENT, EditState.UNKNOWN):
            self._look_later(after.edit.key, 0 if pending is None else pending[0] + 1)
        self._refresh()
        self.hooks.say(text, level)
        if state in (EditState.APPLIED, EditState.ALREADY):
            ends = (after.edit.segment, after.edit.partner, *after.step.roots)
            is_cut = state is EditState.APPLIED and after.edit.kind is EditKind.CUT
            pieces = frozenset(after.step.new_roots if is_cut else ())
            self.hooks.moved(frozenset(r for r in ends if r is not None), pieces, text)
        if not after.is_open and after.edit.key == before.edit.key:
            # the verdict may have been turned while the request was under way
            self.follow([after.edit.site], by_person=after.is_forward)
        return text

    def _tell_sides(self, after: EditRecord) -> None:
        """The sides of a cut are there, or it is known why not."""
        if after.is_open:
            self._refresh()
        else:
            self._tell(after, after)

    def _apply_after_grace(self, key: str) -> None:
        def act() -> None:
            with self._lock:
                due = self._due.pop(key, None)
            if due is not None:
                self._lane.submit(self._apply_quietly, key)

        with self._lock:
            if key in self._due or self._closed:
                return
            self._due[key] = (time.monotonic() + self._grace_s, self._later(self._grace_s, act))

    def _look_later(self, key: str, turn: int = 0) -> None:
        pause = _LOOK_AGAIN_S[min(turn, len(_LOOK_AGAIN_S) - 1)]

        def act() -> None:
            self._lane.submit(self._look_again, key)

        with self._lock:
            if not self._closed:
                self._looks[key] = (turn, self._later(pause, act))

    def _cancel(self, key: str) -> None:
        with self._lock:
            due = self._due.pop(key, None)
        if due is not None:
            due[1]()

    # -- what is stored, and shown

    def _records(self) -> list[EditRecord]:
        return self._store.records(dataset=self._dataset, user=self._user)

    def _of_site(self, site: str) -> list[EditRecord]:
        return self._store.records(dataset=self._dataset, user=self._user, site=site)

    def _refresh(self) -> None:
        self._list.refresh()
        self.hooks.changed()


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _later(seconds: float, call: Callable[[], object]) -> Callable[[], None]:
    timer = threading.Timer(seconds, call)
    timer.daemon = True
    timer.start()
    return timer.cancel
