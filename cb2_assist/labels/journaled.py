"""A team's labels for one who works on while the server cannot be reached.

What is decided meanwhile is kept in the journal and counts at once for the person who decided it;
it is delivered in the same order when the server is back. Until then it has ids of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event, Lock, RLock, Thread, current_thread

from cb2_assist.core.closing import Closing
from cb2_assist.core.errors import DecisionError, LabelError, LabelsUnreachableError
from cb2_assist.core.records import LabelEvent
from cb2_assist.labels.codec import answered_sites
from cb2_assist.labels.edit_store import EditStore
from cb2_assist.labels.journal import Journal, Kept
from cb2_assist.labels.postgres import PostgresLabelStore
from cb2_assist.labels.queue_store import QueueStore
from cb2_assist.labels.rows import body_of, check_same
from cb2_assist.labels.store import EventKind, EventStep, Flagged, Label, NewEvent

FIRST_OWN_ID = 2**52
"""Ids from here on are of the journal; a browser can still count so far."""

_RETRY_S = 5.0
_MOST_KNOWN = 500
_PATIENCE_S = 2.0
"""A server that does not answer must not keep a program from ending."""


class JournaledStore(Closing):
    """A `LabelStore` whose `append` works without the server, and which is its own `Delivery`."""

    def __init__(
        self, store: PostgresLabelStore, journal: Journal, *, retry_s: float = _RETRY_S
    ) -> None:
        """Delivers what waits from an earlier time.

        Args:
            store: Closed with this one.
            journal: Of this machine.
            retry_s: How often the server is tried while it is away.
        """
        self._store, self._journal, self._retry_s = store, journal, retry_s
        self._lock, self._telling = RLock(), Lock()
        self._is_away, self._is_closed = False, Event()
        self._own: list[LabelEvent] = []
        self._keys: dict[int, str] = {}
        self._places: dict[int, tuple[str, str]] = {}
        self._known: OrderedDict[str, LabelEvent] = OrderedDict()
        self._told: tuple[str, ...] = ()
        self._on_news: Callable[[str, bool], None] | None = None
        self._thread: Thread | None = None
        self.epoch = 0
        if self._journal.waiting():
            try:
                self._told = (self._deliver(),)
            except LabelError as error:
                self._go_away(error)

    # -- delivery

    @property
    def delivery(self) -> JournaledStore:
        """Itself."""
        return self

    @property
    def waiting(self) -> int:
        """See `Delivery.waiting`."""
        return len(self._own) if self._is_away else 0

    def listen(self, on_news: Callable[[str, bool], None]) -> None:
        """See `Delivery.listen`."""
        self._on_news = on_news

    def deliver(self) -> bool:
        """Try to deliver now; returns whether nothing waits any more."""
        try:
            self._store.reach()
            text = self._deliver()
        except LabelError:
            return False
        self._tell(text, is_good=not self._journal.refused(), while_away=False)
        return True

    def _deliver(self) -> str:
        """What to tell the person.

        Raises:
            LabelError: Some are left, which wait on.
        """
        delivered, refused = 0, list[str]()
        with self._lock:
            for kept in self._journal.waiting():
                try:
                    event = self._deliver_one(kept)
                except DecisionError as error:
                    self._journal.refuse(kept.number, str(error))
                    refused.append(str(error))
                else:
                    self._know(event)
                    self._journal.delivered(kept.number)
                    delivered += 1
            was_away, self._is_away = self._is_away, False
            self._own.clear()
            self.epoch += 1
        text = f"{self._store.place} can be reached again." if was_away else ""
        if delivered:
            text += f" {_count(delivered)} from meanwhile recorded there."
        if refused:
            text += (
                f" NOT recorded: {_count(len(refused))} ({refused[0]}), kept in "
                f"{self._journal.path}."
            )
        return text.strip()

    def _deliver_one(self, kept: Kept) -> LabelEvent:
        event = kept.event
        if kept.target_key is not None:
            target = self._store.find(kept.target_key)
            if target is None:
                raise DecisionError(f"The decision {kept.target_key!r} was not recorded.")
            event = replace(event, target=target.id)
        return self._store.append(event)

    def _go_away(self, error: LabelError) -> None:
        """Keep what comes, tell the person once, and try again and again."""
        with self._lock:
            if self._is_away or self._is_closed.is_set():
                return
            self._is_away = True
            self._thread = Thread(
                target=self._try_again, args=(error,), name="labels-journal", daemon=True
            )
            self._thread.start()

    def _try_again(self, error: LabelError) -> None:
        self._tell(
            f"{error} Verdicts are kept on this computer and delivered when it is back; q has to "
            "wait for it.",
            is_good=False,
            while_away=True,
        )
        while not self._is_closed.wait(self._retry_s):
            if self.deliver():
                return

    def _tell(self, text: str, *, is_good: bool, while_away: bool) -> None:
        """One after the other, and nothing that does not hold any more."""
        with self._telling:
            if text and self._on_news is not None and self._is_away is while_away:
                self._on_news(text, is_good)

    # -- writing

    def append(self, event: NewEvent) -> LabelEvent:
        """See `LabelStore.append`."""
        return self.append_all([event])[0]

    def append_all(self, events: Sequence[NewEvent]) -> list[LabelEvent]:
        """See `LabelStore.append_all`."""
        for event in events:
            body_of(event)
        with self._lock:
            if self._is_away:
                return self._keep(events)
            try:
                done = self._store.append_all(events)
            except LabelsUnreachableError as error:
                # the server may have them: then it keeps the first
                done = self._keep(events)
                self._go_away(error)
            else:
                for made in done:
                    self._know(made)
        return done

    def _keep(self, events: Sequence[NewEvent]) -> list[LabelEvent]:
        """Into the journal, each once.

        Raises:
            LabelsUnreachableError: About a decision that is not known here; nothing was recorded.
            LabelError: The journal cannot be written; nothing was recorded.
        """
        found: list[LabelEvent | None] = []
        fresh: list[tuple[NewEvent, str | None]] = []
        for event in events:
            known = self._known_by_key(event.idempotency_key)
            if known is not None:
                check_same(event, known, self._place_of(known, event))
            else:
                fresh.append((event, self._key_of(event.target)))
            found.append(known)
        made = iter(self._journal.add(fresh))
        out = []
        for event, known in zip(events, found, strict=True):
            if known is None:
                kept = next(made)
                known = LabelEvent(
                    FIRST_OWN_ID + kept.number,
                    event.event.value,
                    event.target,
                    kept.kept_at,
                    event.user,
                    event.idempotency_key,
                    event.decision,
                    event.reason,
                )
                self._own.append(known)
                self._keys[known.id] = known.idempotency_key
                self._places[known.id] = (event.dataset, event.version)
            out.append(known)
        return out

    def _place_of(self, known: LabelEvent, new: NewEvent) -> tuple[str, str]:
        """Dataset and version; what is not known here is left for the server to compare."""
        if known.id in self._places:
            return self._places[known.id]
        decision = known.decision
        return (
            (new.dataset, new.version) if decision is None else (decision.dataset, decision.version)
        )

    def _key_of(self, target: int | None) -> str | None:
        if target is None:
            return None
        try:
            return self.get(target).idempotency_key
        except LabelsUnreachableError as error:
            raise LabelsUnreachableError(
                f"{error} What this is about was recorded long ago and has to be read first. "
                "Nothing was recorded; try again when the server is back."
            ) from None

    # -- reading

    def find(self, idempotency_key: str) -> LabelEvent | None:
        """See `LabelStore.find`; without the server, among what was made or read here."""
        with self._lock:
            known = self._known_by_key(idempotency_key)
            if known is not None or self._is_away:
                return known
        try:
            return self._store.find(idempotency_key)
        except LabelsUnreachableError as error:
            self._go_away(error)
            return None

    def get(self, event_id: int) -> LabelEvent:
        """See `LabelStore.get`."""
        with self._lock:
            for event in self._own:
                if event.id == event_id:
                    return event
            key = self._keys.get(event_id)
            known = None if key is None else self._known.get(key)
        if known is not None:
            return known
        if key is not None:
            found = self._store.find(key)
            if found is None:
                raise LabelError(f"There is no event {event_id} in {self._store.place}.")
        else:
            found = self._store.get(event_id)
        with self._lock:
            self._know(found)
        return found

    def _know(self, event: LabelEvent) -> None:
        self._known[event.idempotency_key] = event
        self._known.move_to_end(event.idempotency_key)
        self._keys[event.id] = event.idempotency_key
        while len(self._known) > _MOST_KNOWN:
            _, old = self._known.popitem(last=False)
            self._keys.pop(old.id, None)

    def _known_by_key(self, key: str) -> LabelEvent | None:
        own = next((e for e in self._own if e.idempotency_key == key), None)
        return own or self._known.get(key)

    def steps(self, *, dataset: str, user: str, after: int = 0) -> Iterator[EventStep]:
        """See `LabelStore.steps`; without the server, what was made since."""
        if not self._is_away:
            try:
                yield from self._store.steps(dataset=dataset, user=user, after=after)
            except LabelsUnreachableError as error:
                self._go_away(error)
            else:
                return
        with self._lock:
            own = [e for e in self._own if e.id > after and e.user == user]
            places = [(e, *self._places[e.id]) for e in own]
        steps = [_step(e, version) for e, of, version in places if of == dataset]
        yield from steps

    def events(
        self, *, dataset: str | None = None, user: str | None = None, after: int = 0
    ) -> Iterator[LabelEvent]:
        """See `LabelStore.events`; of the server alone."""
        return self._store.events(dataset=dataset, user=user, after=after)

    def labels(self, *, dataset: str | None = None) -> Iterator[Label]:
        """See `LabelStore.labels`; of the server alone."""
        return self._store.labels(dataset=dataset)

    def flags(self, *, dataset: str | None = None) -> Iterator[Flagged]:
        """See `LabelStore.flags`; of the server alone."""
        return self._store.flags(dataset=dataset)

    def verify(self) -> list[str]:
        """See `LabelStore.verify`."""
        return self._store.verify()

    @property
    def url(self) -> str:
        """As it was given; there is no password in it."""
        return self._store.url

    @property
    def place(self) -> str:
        """Database and server."""
        return self._store.place

    @property
    def notices(self) -> tuple[str, ...]:
        """Those of the server, what was delivered at the start, and what it would not have."""
        return (*self._store.notices, *filter(None, self._told))

    @property
    def views_folder(self) -> Path:
        """Where the environment says, else on this machine."""
        return self._store.views_folder

    @property
    def salt(self) -> bytes:
        """Made with the tables."""
        return self._store.salt

    @property
    def queue(self) -> QueueStore:
        """On the server alone: a lease that the server does not know is none."""
        return self._store.queue

    @property
    def edits(self) -> EditStore:
        """On the server alone: what is sent to a graph must be known to everybody first."""
        return self._store.edits

    def close(self) -> None:
        """See `LabelStore.close`; what waits stays in the journal."""
        self._is_closed.set()
        thread = self._thread
        if thread is not None and thread is not current_thread():
            thread.join(_PATIENCE_S)
        self._store.close()


def _step(event: LabelEvent, version: str) -> EventStep:
    sites = () if event.decision is None else answered_sites(event.decision)
    return EventStep(
        event.id,
        EventKind(event.event),
        event.target,
        version,
        tuple(s.id for s in sites),
        any(s.verdict.is_answer for s in sites),
        event.reason,
        None if event.decision is None else event.decision.note,
        sites[0].verdict if sites else None,
    )


def _count(n: int) -> str:
    return "1 event" if n == 1 else f"{n} events"
