"""One person's decisions on one dataset: decide, undo, redo, and what is in force.

Everything follows from the store's events, so it is the same after a restart. This module knows
the store's protocol only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from threading import RLock
from typing import Any

from cb2_assist.core.errors import DecisionError
from cb2_assist.core.records import Decision, LabelEvent, SegmentId, Suggestion, Verdict
from cb2_assist.labels.codec import answered_sites
from cb2_assist.labels.store import EventKind, EventStep, LabelStore, NewEvent, StaleEventError

_MOST_TRIES = 20


@dataclass(frozen=True, slots=True)
class Seen:
    """What a person had before them when they asked to undo or redo, so that it hits nothing else.

    Attributes:
        after: `DecisionLog.newest_event` as it was on screen.
        own: Idempotency keys of what they had asked for since.
        needs: The key among them of the last verdict, which has to be recorded first.
    """

    after: int
    own: tuple[str, ...] = ()
    needs: str | None = None


class DecisionLog:
    """Undo is a stack over this person's decisions in the dataset, whatever the version.

    A new decision clears what could be redone. Every method may be called from any thread.
    `decide`, `undo`, `redo` and `give_reason` wait for the disk; `can_undo`, `can_redo`, `current`,
    `reason`, `flag` and `was_answered` never wait.
    """

    def __init__(self, store: LabelStore, *, user: str, dataset: str, version: str) -> None:
        """Read this person's events once; later calls read on from there."""
        self._store = store
        self._user, self._dataset, self._version = user, dataset, version
        self._lock = RLock()
        self._forget()
        self._catch_up()

    def _forget(self) -> None:
        self._epoch = 0 if self._store.delivery is None else self._store.delivery.epoch
        self._last_id = 0
        self._steps: dict[int, EventStep] = {}
        self._done: list[int] = []
        self._undone: list[int] = []
        self._sites: dict[str, list[int]] = {}
        self._current: dict[str, int] = {}
        self._reasons: dict[int, str] = {}
        self._notes: dict[int, str] = {}
        self._answered: set[str] = set()

    @property
    def can_undo(self) -> bool:
        """Whether a decision of this person is in force."""
        return bool(self._done)

    @property
    def can_redo(self) -> bool:
        """Whether the last thing done was to undo."""
        return bool(self._undone)

    @property
    def newest_event(self) -> int:
        """Id of this person's latest event that was read; 0 before the first."""
        return self._last_id

    @property
    def undelivered(self) -> int:
        """Events that wait on this machine until a team's labels can be reached again."""
        return 0 if self._store.delivery is None else self._store.delivery.waiting

    def listen(self, on_news: Callable[[str, bool], None]) -> None:
        """Have a sentence told, in another thread, when that changes, and whether it is good."""
        if self._store.delivery is not None:
            self._store.delivery.listen(on_news)

    def refresh(self) -> None:
        """Read what others wrote in this person's name, and what was delivered."""
        with self._lock:
            self._catch_up()

    def decide(self, decision: Decision) -> LabelEvent:
        """Record an answer; the same idempotency key again returns the first event.

        Another answer on a site takes the place of the earlier one, which stays in the log.

        Raises:
            DecisionError: Not for this log, nothing to answer, or a key with another meaning.
            LabelFileReadOnlyError: Read-only or full; nothing was recorded.
            LabelError: Any other failure; nothing was recorded.
        """
        given = (decision.user, decision.dataset, decision.version)
        if given != (self._user, self._dataset, self._version):
            raise DecisionError(
                f"This session records {self._user} on {self._dataset} {self._version}, but the "
                f"decision is {given[0]}'s on {given[1]} {given[2]}. Nothing was recorded; reload "
                "the page."
            )
        # sent again, it finds everything closed by its own first arrival
        if not answered_sites(decision) and self._store.find(decision.idempotency_key) is None:
            raise DecisionError(
                "'None of these' closes the open joins on screen at one end, and there are none. "
                "Nothing was recorded."
            )
        with self._lock:
            event = self._store.append(NewEvent.of(decision))
            self._catch_up()
        return event

    def undo(self, *, idempotency_key: str, seen: Seen | None = None) -> LabelEvent:
        """Take back this person's latest decision that is in force.

        Args:
            idempotency_key: As for decisions.
            seen: What was known when this was asked for; None: whatever is the latest is meant.

        Returns:
            The event; its ``target`` is the decision's id.

        Raises:
            DecisionError: There is none, or the latest is not what was meant.
            LabelError: As for `decide`.
        """
        return self._turn(EventKind.UNDO, idempotency_key, seen)

    def redo(self, *, idempotency_key: str, seen: Seen | None = None) -> LabelEvent:
        """Put back the decision that was undone last, unless one was made since.

        Args:
            idempotency_key: As for decisions.
            seen: As for `undo`.

        Raises:
            DecisionError: There is none, or the latest is not what was meant.
            LabelError: As for `decide`.
        """
        return self._turn(EventKind.REDO, idempotency_key, seen)

    def current(self) -> Mapping[str, LabelEvent]:
        """The decision in force for each answered site of this version, by suggestion id.

        A snapshot; each event is read when it is asked for. Sites that *none of these* closed
        lead to that decision.
        """
        return _Events(self._store, self._current.copy())

    def verdict(self, suggestion_id: str) -> Verdict | None:
        """The answer in force on a site; None where there is none."""
        at = self._current.get(suggestion_id)
        step = None if at is None else self._steps.get(at)
        return None if step is None else step.verdict

    def was_answered(self, suggestion_id: str) -> bool:
        """Whether this person has ever answered a site of this version, undone or not."""
        return suggestion_id in self._answered

    def give_reason(
        self,
        suggestion_id: str,
        reason: str,
        *,
        idempotency_key: str,
        decision_key: str | None = None,
    ) -> LabelEvent:
        """Say why a reject or unsure that is in force was given; takes the place of an earlier one.

        Args:
            suggestion_id: What the decision is about.
            reason: A name of `core.reasons.REASONS`.
            idempotency_key: As for decisions.
            decision_key: Idempotency key of the decision; None is the one in force on the site.

        Raises:
            DecisionError: There is no such decision, or it is neither reject nor unsure.
            LabelError: As for `decide`.
        """
        with self._lock:
            stored = self._store.find(idempotency_key)
            if stored is not None and stored.reason == reason:
                return stored  # sent again: what is in force may have changed since
            self._catch_up()
            target = self._target_of_reason(suggestion_id, decision_key)
            version = self._steps[target].version
            event = self._store.append(
                NewEvent(
                    EventKind.REASON,
                    self._user,
                    self._dataset,
                    version,
                    idempotency_key,
                    target=target,
                    reason=reason,
                )
            )
            self._catch_up()
        return event

    def reason(self, suggestion_id: str) -> str | None:
        """The reason given for the answer in force on a site; None where there is none."""
        at = self._current.get(suggestion_id)
        return None if at is None else self._reasons.get(at)

    def flag(self, suggestion_id: str) -> str | None:
        """The note of the last flag in force on a site; None where there is none."""
        flags = [i for i in self._sites.get(suggestion_id, ()) if i in self._notes]
        return self._notes[max(flags)] if flags else None

    def event(self, event_id: int) -> LabelEvent:
        """The event of this id, e.g. the target of an undo."""
        return self._store.get(event_id)

    def history(self) -> Iterator[LabelEvent]:
        """Every event of this person in the dataset, oldest first."""
        return self._store.events(dataset=self._dataset, user=self._user)

    def _turn(self, kind: EventKind, key: str, seen: Seen | None) -> LabelEvent:
        with self._lock:
            for _ in range(_MOST_TRIES):
                try:
                    event = self._store.append(self._turn_event(kind, key, seen))
                except StaleEventError:
                    self._catch_up()
                    continue
                self._catch_up()
                return event
        raise DecisionError(
            f"Other programs keep writing decisions of {self._user}. Nothing was recorded; try "
            "again."
        )

    def _turn_event(self, kind: EventKind, key: str, seen: Seen | None) -> NewEvent:
        """What to append; for a key that was used before, the store returns what it has."""
        self._catch_up()
        # what was sent again has been judged when it first arrived
        if seen is not None and self._store.find(key) is None:
            self._check_seen(kind, seen)
        stack = self._done if kind is EventKind.UNDO else self._undone
        if stack:
            target = stack[-1]
        else:
            stored = self._store.find(key)
            if stored is None or stored.event != kind.value or stored.target is None:
                raise DecisionError(
                    f"There is no decision of {self._user} in {self._dataset} to {kind.value}."
                )
            target = stored.target
        version = self._steps[target].version if target in self._steps else self._version
        return NewEvent(
            kind,
            self._user,
            self._dataset,
            version,
            key,
            target=target,
            after=self._last_id,
        )

    def _check_seen(self, kind: EventKind, seen: Seen) -> None:
        """Refuse to hit another decision than the one that was meant.

        Raises:
            DecisionError: The latest event is neither on screen nor the person's own.
        """
        if seen.needs is not None and self._store.find(seen.needs) is None:
            raise DecisionError(
                f"NOT done: the verdict before this {kind.value} was not recorded. Look at the "
                "list and press the key again."
            )
        if seen.after > self._last_id:
            raise DecisionError(
                f"NOT done: what {self._user} had decided while the labels could not be reached "
                "has been delivered meanwhile. Look at the list and press the key again."
            )
        known = {event.id for key in seen.own if (event := self._store.find(key)) is not None}
        newer = self._store.steps(dataset=self._dataset, user=self._user, after=seen.after)
        if any(s.event is not EventKind.REASON and s.id not in known for s in newer):
            raise DecisionError(
                f"NOT done: {self._user} has decided something else since this {kind.value} was "
                "asked for, in another tab or program. Look at the list and press the key again."
            )

    def _target_of_reason(self, suggestion_id: str, decision_key: str | None) -> int:
        if decision_key is None:
            target = self._current.get(suggestion_id)
        else:
            stored = self._store.find(decision_key)
            decision = None if stored is None else stored.decision
            is_it = decision is not None and decision.suggestion.id == suggestion_id
            target = stored.id if stored is not None and is_it else None
        if target is None or target not in self._steps:
            raise DecisionError(
                f"There is no verdict of {self._user} on that suggestion to give a reason for. "
                "Nothing was recorded; reject it or say unsure first."
            )
        return target

    def _catch_up(self) -> None:
        """Read on: our own event and whatever others wrote in this person's name."""
        delivery = self._store.delivery
        if delivery is not None and delivery.epoch != self._epoch:
            self._forget()
        newer = self._store.steps(dataset=self._dataset, user=self._user, after=self._last_id)
        for step in newer:
            self._apply(step)
            self._last_id = step.id

    def _apply(self, step: EventStep) -> None:
        if step.event is EventKind.DECISION:
            self._steps[step.id] = step
            if step.is_answer and step.version == self._version:
                self._answered.update(step.sites)
            if step.note is not None:
                self._notes[step.id] = step.note
            self._done.append(step.id)
            self._undone.clear()
            self._put(step)
            return
        target = step.target or 0
        if step.event is EventKind.REASON:
            if step.reason is not None:
                self._reasons[target] = step.reason
        elif step.event is EventKind.UNDO:
            _drop(self._done, target)
            self._undone.append(target)
            self._take(self._steps[target])
        else:
            _drop(self._undone, target)
            self._done.append(target)
            self._put(self._steps[target])

    def _put(self, step: EventStep) -> None:
        if step.version == self._version:
            for site in step.sites:
                self._sites.setdefault(site, []).append(step.id)
                self._choose(site)

    def _take(self, step: EventStep) -> None:
        if step.version == self._version:
            for site in step.sites:
                self._sites[site].remove(step.id)
                self._choose(site)

    def _choose(self, site: str) -> None:
        """The decision that counts: the latest answer, else the latest skip or flag."""
        ids = self._sites[site]
        if len(ids) == 1:
            self._current[site] = ids[0]
        elif ids:
            self._current[site] = max(ids, key=lambda i: (self._steps[i].is_answer, i))
        else:
            del self._sites[site], self._current[site]


def _drop(stack: list[int], target: int) -> None:
    """Our undo and redo take the top; a script may have written ones that do not."""
    if stack and stack[-1] == target:
        stack.pop()
    elif target in stack:
        stack.remove(target)


class _Events(Mapping[str, LabelEvent]):
    """Events by suggestion id, read from the store one by one and kept."""

    def __init__(self, store: LabelStore, ids: dict[str, int]) -> None:
        self._store, self._ids = store, ids
        self._read: dict[int, LabelEvent] = {}

    def __getitem__(self, suggestion_id: str) -> LabelEvent:
        event_id = self._ids[suggestion_id]
        if event_id not in self._read:
            self._read[event_id] = self._store.get(event_id)
        return self._read[event_id]

    def __contains__(self, suggestion_id: object) -> bool:
        return suggestion_id in self._ids

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)


def alternative(
    suggestion: Suggestion,
    *,
    verdict: Verdict | None = None,
    implied: bool = False,
    views_sha256: str | None = None,
    supervoxels: tuple[SegmentId, SegmentId | None] | None = None,
    propensity: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """What a decision keeps of each suggestion that was on screen.

    Args:
        suggestion: As it was shown.
        verdict: Its answer in force when the decision was made. *None of these* leaves accepted
            and rejected ones as they are.
        implied: It was closed because a rival at its end was accepted.
        views_sha256: Content address of its views, when they were kept.
        supervoxels: Under the two sides of its point, when known.
        propensity: How it came to be asked, when it is answered together with another.
    """
    shown = suggestion.to_json()
    place = ("id", "kind", "segment", "partner", "point_nm")
    numbers = ("score", "confidence", "interval", "ood")
    kept = (*place, *numbers, "reason", "prior", "joint", "affinity")
    document: dict[str, Any] = {name: shown[name] for name in kept}
    if verdict is not None:
        document["verdict"] = verdict.value
    if implied:
        document["implied"] = True
    if views_sha256 is not None:
        document["views_sha256"] = views_sha256
    if supervoxels is not None:
        a, b = supervoxels
        document["supervoxels"] = [str(a), None if b is None else str(b)]
    if propensity is not None:
        document["propensity"] = propensity
    return document
