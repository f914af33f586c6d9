"""What a label store can do, and how to open one.

A store is an append-only log of events. Backends share the contract tests in
`tests/contracts/label_store.py`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from cb2_assist.core.errors import UsageError
from cb2_assist.core.records import Decision, LabelEvent, Verdict
from cb2_assist.labels.edit_store import EditStore
from cb2_assist.labels.queue_store import QueueStore
from cb2_assist.labels.team_url import is_team_url, scheme_of, team_url, without_secrets


class EventKind(StrEnum):
    """What an event says."""

    DECISION = "decision"
    UNDO = "undo"
    REDO = "redo"
    REASON = "reason"
    """Why a decision was a reject or unsure; a later one takes the place of an earlier one."""


class LabelState(StrEnum):
    """What became of an answer."""

    IN_FORCE = "in force"
    UNDONE = "undone"
    SUPERSEDED = "superseded"
    """The same person answered the same site again."""
    SEEDED = "seeded"
    """In force, but of a suggestion that was known to be wrong: never a label."""


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event that is to be appended."""

    event: EventKind
    user: str
    dataset: str
    version: str
    idempotency_key: str
    """Unique in the file. Appending the same key again returns the first event."""
    decision: Decision | None = None
    """Present on decisions."""
    target: int | None = None
    """Of an undo, redo or reason: the decision event that it is about."""
    after: int | None = None
    """Refuse with `StaleEventError` if this user has a newer event than this in the dataset."""
    reason: str | None = None
    """Present on reasons: a name of `core.reasons.REASONS`."""

    @classmethod
    def of(cls, decision: Decision) -> NewEvent:
        """The event that records a decision."""
        return cls(
            EventKind.DECISION,
            decision.user,
            decision.dataset,
            decision.version,
            decision.idempotency_key,
            decision,
        )


class StaleEventError(Exception):
    """Another writer was faster: read on and choose again. Never reaches a person."""


class EventStep(NamedTuple):
    """What undo and redo need to know of an event; cheap to read and make in bulk."""

    id: int
    event: EventKind
    target: int | None
    version: str
    sites: tuple[str, ...]
    """`Suggestion.id` of every site that a decision answers."""
    is_answer: bool
    """False for a skip or a flag, which never displace an answer."""
    reason: str | None = None
    """Of a reason."""
    note: str | None = None
    """Of a flag."""
    verdict: Verdict | None = None
    """Of a decision, on each of its sites: for *none* a reject."""


@dataclass(frozen=True, slots=True)
class Label:
    """One person's answer on one site."""

    event: LabelEvent
    site: str
    """`Suggestion.id`; one of the alternatives when *none* closed it."""
    verdict: Verdict
    state: LabelState
    reason: str | None = None
    """The last one that was given for the decision."""


@dataclass(frozen=True, slots=True)
class Flagged:
    """A flag that was not undone."""

    event: LabelEvent
    is_answered: bool
    """Whether anybody's accept, reject or unsure on the site is in force."""


def label_state(event: LabelEvent, site: str, state: str) -> LabelState:
    """What became of an answer, from what the tables say of it."""
    found = LabelState(state)
    is_seeded = event.decision is not None and event.decision.is_seeded(site)
    return LabelState.SEEDED if is_seeded and found is LabelState.IN_FORCE else found


class Delivery(Protocol):
    """How events reach labels that may be out of reach for a while."""

    epoch: int
    """Another one after ids that `LabelStore.append` had returned were replaced: read anew."""

    @property
    def waiting(self) -> int:
        """Events of this program that are kept on this machine until the labels are back."""

    def listen(self, on_news: Callable[[str, bool], None]) -> None:
        """Have a sentence told whenever that changes, and whether it is good news."""


class LabelStore(Protocol):
    """An append-only log of events. Every method may be called from any thread."""

    @property
    def url(self) -> str:
        """What `open_store` was given, made absolute."""

    @property
    def place(self) -> str:
        """Where the labels go, for the person."""

    @property
    def notices(self) -> tuple[str, ...]:
        """Sentences for the person about how this store works here; usually none."""

    @property
    def views_folder(self) -> Path:
        """Where the views that belong to these labels are kept."""

    @property
    def salt(self) -> bytes:
        """Random bytes of this log, for pseudonyms that stay the same from export to export."""

    @property
    def delivery(self) -> Delivery | None:
        """None: they cannot be out of reach."""

    @property
    def queue(self) -> QueueStore:
        """Sites that wait for a verdict."""

    @property
    def edits(self) -> EditStore:
        """Edits of a graph that wait or were applied."""

    def append(self, event: NewEvent) -> LabelEvent:
        """Make an event durable. On return it survives a kill and a power cut.

        Raises:
            DecisionError: The key belongs to a different event, or the target cannot be undone,
                redone or given a reason now.
            StaleEventError: See `NewEvent.after`.
            LabelFileReadOnlyError: Read-only or full; nothing was recorded.
            LabelError: Any other failure; nothing was recorded.
        """

    def append_all(self, events: Sequence[NewEvent]) -> list[LabelEvent]:
        """Like `append` for many at once: all of them or none."""

    def find(self, idempotency_key: str) -> LabelEvent | None:
        """The event that was appended with this key."""

    def get(self, event_id: int) -> LabelEvent:
        """The event of this id.

        Raises:
            LabelError: There is none.
        """

    def events(
        self, *, dataset: str | None = None, user: str | None = None, after: int = 0
    ) -> Iterator[LabelEvent]:
        """Events with a larger id than ``after``, oldest first, in bounded memory."""

    def steps(self, *, dataset: str, user: str, after: int = 0) -> Iterator[EventStep]:
        """The same events in short, oldest first."""

    def labels(self, *, dataset: str | None = None) -> Iterator[Label]:
        """Every answer with its state, oldest first, in bounded memory."""

    def flags(self, *, dataset: str | None = None) -> Iterator[Flagged]:
        """Decisions with the verdict *flag* in force, oldest first."""

    def verify(self) -> list[str]:
        """What is wrong with the stored data, in words; empty when nothing is."""

    def close(self) -> None:
        """Wait for writes in progress and let go of the file. May be called twice."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


def open_store(url: str, *, read_only: bool = False) -> LabelStore:
    """Open the labels at a URL; a missing file is created unless ``read_only``.

    Args:
        url: ``sqlite:///relative/path``, ``sqlite:////absolute/path``, or for a team
            ``postgresql://USER@HOST/DATABASE``, the password elsewhere.
        read_only: For readers beside a running server; `LabelStore.append` is then refused.

    Raises:
        UsageError: Not such a URL.
        LabelsUnreachableError: The server of a team does not answer.
        LabelError: The labels cannot be used; says why and what to do.
    """
    if is_team_url(url):
        from cb2_assist.labels.team import open_team_store

        return open_team_store(url, read_only=read_only)
    from cb2_assist.labels.sqlite import SqliteLabelStore

    return SqliteLabelStore(label_file(url), read_only=read_only)


def label_file(url: str) -> Path:
    """The absolute path that a ``sqlite:///`` URL names.

    Raises:
        UsageError: Another scheme, no path, or one that cannot be looked at.
    """
    _, _, rest = url.partition("://")
    how = "Write sqlite:///labels.sqlite or sqlite:////absolute/path/labels.sqlite."
    if is_team_url(url):
        raise UsageError(f"A label file is needed here, and postgresql://… names none. {how}")
    if scheme_of(url) != "sqlite":
        raise UsageError(
            "Labels are named by a URL that starts with sqlite:/// or postgresql://, got "
            f"{without_secrets(url)!r}. {how}"
        )
    if not rest.startswith("/") or rest.strip("/") in ("", ":memory:") or "\0" in rest:
        raise UsageError(f"The labels URL {url!r} names no file. {how}")
    try:
        rest.encode()  # bytes that are no text are refused here, and not where they are printed
        path = Path(rest[1:]).expanduser()
        is_folder = rest.endswith("/") or path.is_dir()
        path = path.resolve()
    except (OSError, RuntimeError, ValueError) as e:
        why = (isinstance(e, OSError) and e.strerror) or e
        raise UsageError(
            f"The label file {url!r} cannot be looked at: {why}. Name one with a short name in a "
            f"folder of yours. {how}"
        ) from e
    if is_folder:
        raise UsageError(f"The labels URL {url!r} names a folder, not a file. {how}")
    return path


def server_file(url: str, *, dataset: str, user: str) -> Path:
    """What the lock and the memory of a server are named after: the label file, or one that is not.

    Of a team's labels every person has a server, and one for each dataset.

    Raises:
        UsageError: Not a labels URL.
        LabelError: PostgreSQL's driver is not installed.
    """
    if not is_team_url(url):
        return label_file(url)
    return team_url(url).home / f"{_safe_name(dataset)}--{_safe_name(user)}"


def same_labels(url: str) -> str:
    """The same text for two URLs that name the same labels.

    Raises:
        UsageError: Not a labels URL.
        LabelError: PostgreSQL's driver is not installed.
    """
    return team_url(url).place if is_team_url(url) else str(label_file(url))


def labels_url(path: Path) -> str:
    """The URL of a label file."""
    return f"sqlite:///{path.resolve().as_posix()}"


def default_labels_url(dataset_name: str) -> str:
    """One file per dataset in the user's data folder; nothing is created yet."""
    import platformdirs

    folder = platformdirs.user_data_path("cb2-assist", appauthor=False) / "labels"
    return labels_url(folder / f"{_safe_name(dataset_name)}.sqlite")


def _safe_name(name: str) -> str:
    """A file name for every system; two different names never share one."""
    safe = re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-")[:60]
    reserved = re.fullmatch(r"con|prn|aux|nul|com\d|lpt\d", safe)
    if safe == name and not reserved:
        return safe
    return f"{safe or 'dataset'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
