"""What the queue of a label store can do: sites that wait for a verdict, and who has which.

The queue lives in the label database. Whether a site is decided, implied or skipped is not kept
here: it follows from the events, whoever decided and however they got there, so that undo reopens
a site and the two can never disagree. Backends share the contract tests in
`tests/contracts/queue_store.py`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Protocol

from cb2_assist.core.errors import AssistError, LabelError
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import (
    Draw,
    Kind,
    SegmentId,
    Site,
    Suggestion,
    Verdict,
    segment_id,
)

NO_ENDS: Mapping[str, str] = MappingProxyType({})
ONE_SEGMENT_NOW = "both sides are one segment now"
"""Why a join is stale of which there is nothing left to ask; it counts as implied."""
LEASE_S = 600.0
"""How long a site that was drawn is kept from others after its page was last seen."""


class QueueState(StrEnum):
    """What became of a site."""

    OPEN = "open"
    LEASED = "leased"
    """On somebody's screen."""
    AGAIN = "again"
    """Has an answer, and waits for that of another person; see `Ask`."""
    DECIDED = "decided"
    """Someone's answer is in force."""
    IMPLIED = "implied"
    """Closed without an answer of its own: a rival at the same end was accepted, or edits have made
    one segment of the two."""
    SKIPPED = "skipped"
    """Passed over; comes back after the others."""
    FLAGGED = "flagged"
    """Set aside with a note, until the flag is undone or somebody answers."""
    STALE = "stale"
    """Was not found any more where it had been."""


@dataclass(frozen=True, slots=True)
class Scope:
    """A part of the queue: around segments, in a box, or all of one segmentation version."""

    dataset: str
    version: str
    segments: tuple[SegmentId, ...] = ()
    """Sites with one of these on either side; empty: any."""
    box_nm: tuple[PointNm, PointNm] | None = None
    """Sites whose point lies in ``[lo, hi)``; None: anywhere."""
    source: str = ""
    """Sites that are asked again for this reason, a name of `Ask.source`; empty: any."""

    @property
    def text(self) -> str:
        """The same for the same part, dataset and version aside."""
        document: dict[str, object] = {}
        if self.segments:
            document["segments"] = [str(s) for s in sorted(self.segments)]
        if self.box_nm is not None:
            document["box_nm"] = [[float(v) for v in p] for p in self.box_nm]
        if self.source:
            document["source"] = self.source
        return json.dumps(document, separators=(",", ":"), sort_keys=True)

    @classmethod
    def of_text(cls, dataset: str, version: str, text: str) -> Scope:
        """Read what `text` wrote.

        Raises:
            LabelError: It is damaged.
        """
        try:
            got = json.loads(text)
            box = got.get("box_nm")
            return cls(
                dataset,
                version,
                tuple(segment_id(s) for s in got.get("segments", ())),
                None if box is None else (PointNm.of(box[0]), PointNm.of(box[1])),
                str(got.get("source", "")),
            )
        except (ValueError, TypeError, LookupError, AttributeError, AssistError) as e:
            raise LabelError(
                f"A part of the queue cannot be read, got {text!r} ({e}). Fill the queue again."
            ) from None

    @property
    def words(self) -> str:
        """For the status line."""
        if self.source:
            return f"the {self.source}"
        if len(self.segments) == 1:
            return f"segment …{str(self.segments[0])[-6:]}"
        if self.segments:
            return f"{len(self.segments)} segments"
        return "this dataset" if self.box_nm is None else "the box"


@dataclass(frozen=True, slots=True)
class QueueItem:
    """A site as a fill found and judged it."""

    dataset: str
    version: str
    suggestion: Suggestion
    """Without its views' scores."""
    base_rate: float
    """At which `Suggestion.confidence` holds."""
    model_sha256: str
    calibrator: str

    @property
    def judge(self) -> str:
        """Names model and calibrator: the same text, the same score."""
        return f"{self.model_sha256} {self.calibrator}"

    @property
    def site(self) -> Site:
        """The question."""
        return self.suggestion.site


@dataclass(frozen=True, slots=True)
class Ask:
    """A site that wants the answers of several people, whatever it has already.

    Earlier answers stay as they are: it is only drawn for people who have none in force on it.
    """

    dataset: str
    version: str
    site: str
    source: str
    """Why, as a name for `Scope.source`."""
    people: int
    """How many must have answered after `after_event`."""
    after_event: int = 0
    """Id of an event in the same file: answers up to it do not count."""
    not_of: tuple[str, ...] = ()
    """People who answered elsewhere and are not asked either."""


@dataclass(frozen=True, slots=True)
class Fill:
    """One filling of a part of the queue, under way or done."""

    id: int
    scope: Scope
    kind: Kind | None
    """Only this question was asked; None: both."""
    judge: str
    """Names model and calibrator."""
    done: int
    total: int
    """Cursor points looked at, and to look at."""
    updated_at: float
    """Unix time."""

    @property
    def is_done(self) -> bool:
        """Whether it has been everywhere."""
        return self.done >= self.total


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a strategy may know of a site that could be drawn."""

    site: str
    kind: Kind
    score: float
    confidence: float
    skips: int
    """How often it was passed over."""
    ood: bool = False
    """`Ood.flag`: its numbers are not reliable."""


@dataclass(frozen=True, slots=True)
class SiteSignals:
    """What strategies look at, whatever became of the site."""

    score: float
    contact: float
    """Area of the contact or the neck, in a unit that is the same for all sites."""
    small: float
    big: float
    """Volumes of the two sides within the model's window."""
    views: tuple[float, ...]
    """What each view says alone."""
    embedding: bytes | None
    """float16, little-endian; None: the model has none."""


@dataclass(frozen=True, slots=True)
class DrawnAtRandom:
    """A draw that took any waiting site with the same probability."""

    site: str
    at: float
    """Unix time."""
    n_open: int


@dataclass(frozen=True, slots=True)
class Answered:
    """A site of the queue whose answer is in force."""

    site: str
    kind: Kind
    verdict: Verdict
    """Accept or reject."""
    at: float
    """Unix time."""


@dataclass(frozen=True, slots=True)
class NewDraw:
    """A draw that is to be recorded, and its site leased."""

    scope: Scope
    user: str
    number: int
    """Draws of this person in this version before it."""
    seed: int
    """Below 2**63; gives `explore` and `place` again."""
    strategy: str
    floor: float
    n_open: int
    place: int
    """In the order of the strategy, 0 first."""
    explore: bool
    probability: float
    site: str


@dataclass(frozen=True, slots=True)
class Lease:
    """Who has a site."""

    site: str
    user: str
    until: float
    """Unix time."""


@dataclass(frozen=True, slots=True)
class Tally:
    """How many sites of one dataset, version and kind are in one state."""

    dataset: str
    version: str
    kind: Kind
    state: QueueState
    n: int
    oldest: float
    """Unix time at which the first of them was judged."""


@dataclass(frozen=True, slots=True)
class Added:
    """What became of a batch."""

    new: int
    updated: int
    """Of the sites that were there, those whose numbers are others now."""


class QueueStore(Protocol):
    """Sites that wait. Every method may be called from any thread and beside other processes.

    What a method recorded survives a kill and a power cut once it returns. Writers raise
    `LabelError` when nothing was recorded.
    """

    def begin_fill(
        self, scope: Scope, kind: Kind | None, judge: str, total: int, *, now: float
    ) -> Fill:
        """Start a fill, or go on with one that was broken off with the same arguments."""

    def put(
        self,
        fill_id: int,
        items: Sequence[QueueItem],
        *,
        done: int,
        now: float,
        ends: Mapping[str, str] = NO_ENDS,
    ) -> Added:
        """Keep a batch, and that the fill has come so far: both or neither.

        ``ends`` has joint sets of sites that were seen again, from another side maybe: a join
        belongs to one at either of its segments.

        A site is there once. Numbers of undecided ones are replaced, decided ones stay as they
        are, and stale ones that are found again are open again.
        """

    def fills(self, dataset: str, version: str) -> list[Fill]:
        """Fills, the one that was written last first."""

    def known(self, dataset: str, version: str, sites: Sequence[str], judge: str) -> set[str]:
        """Those of the sites that are there and were judged so, stale ones left out."""

    def ask_again(self, asks: Sequence[Ask], *, now: float) -> int:
        """Have sites of the queue answered by more people; returns how many asks are new.

        One that waits already for the same reason is not asked twice, and sites that are not in
        the queue are not asked.
        """

    def waiting(self, scope: Scope, *, now: float, user: str | None = None) -> list[Waiting]:
        """Sites that can be drawn: undecided, not implied, stale or flagged, on nobody's screen.

        With a user, those that are asked again are left out where this person has answered.
        """

    def scores(
        self, dataset: str, kind: Kind, *, model_sha256: str, calibrator: str
    ) -> list[float]:
        """`Suggestion.score` of every site of a kind, decided or not, stale ones left out.

        Only of sites that this model judged with a calibrator whose id begins so.
        """

    def judged_by(self, dataset: str, version: str) -> Counter[str]:
        """How many sites each model, by SHA-256, judged last; stale ones left out."""

    def put_signals(self, dataset: str, version: str, signals: Mapping[str, SiteSignals]) -> None:
        """Keep what strategies look at, by site; newer signals replace older ones."""

    def signals(self, scope: Scope) -> dict[str, SiteSignals]:
        """Of every site of a scope that has some, whatever its state, stale ones left out."""

    def set_order(self, scope: Scope, strategy: str, *, now: float) -> None:
        """Have a scope asked by this strategy from now on."""

    def order(self, scope: Scope) -> str | None:
        """The strategy of exactly this scope; None: nobody has set one."""

    def drawn_at_random(self, scope: Scope) -> list[DrawnAtRandom]:
        """Draws from exactly this scope that took any site alike, the first one first."""

    def answered(self, scope: Scope) -> list[Answered]:
        """Sites that were accepted or rejected, by whomever, stale ones left out."""

    def last_added(self, scope: Scope) -> float | None:
        """Unix time at which a site was last new to a scope; None: it has none."""

    def draws_made(self, dataset: str, version: str, user: str) -> int:
        """How many draws a person has had in a version."""

    def take(self, draw: NewDraw, *, now: float, lease_s: float = LEASE_S) -> Draw | None:
        """Record a draw, lease its site to the person and release what they had before.

        Returns:
            None when the site has been decided, leased or lost meanwhile, or the person drew
            elsewhere: look again. Nothing is recorded then.
        """

    def item(self, dataset: str, version: str, site: str) -> QueueItem | None:
        """A site of the queue, whatever its state."""

    def last_draw(self, dataset: str, version: str, user: str) -> Draw | None:
        """The last draw of a person, whatever became of its site."""

    def held(self, dataset: str, version: str, user: str) -> Draw | None:
        """The draw whose site this person has on lease, also a lapsed one that nobody took over.

        None when it is decided, implied, flagged or stale.
        """

    def renew(self, draw: Draw, *, now: float, lease_s: float = LEASE_S) -> None:
        """Keep a site on lease, unless someone else has it by now."""

    def release(self, dataset: str, version: str, user: str, *, now: float) -> None:
        """Let others have what this person had."""

    def mark_stale(
        self,
        dataset: str,
        version: str,
        site: str,
        reason: str,
        *,
        user: str,
        now: float,
        instead: QueueItem | None = None,
    ) -> None:
        """Say that a site was not found any more, and why.

        Where edits have made another question of it, that one is kept ``instead``, as the same
        fill would have: both are recorded or neither.
        """

    def tally(
        self, scope: Scope | None = None, *, now: float, user: str | None = None
    ) -> list[Tally]:
        """Counts by dataset, version, kind and state; None: of everything.

        With a user, what is asked again of others only counts as decided.
        """

    def leases(self, dataset: str, version: str, *, now: float) -> list[Lease]:
        """Leases that have not run out, on sites that are not decided, implied or flagged."""
