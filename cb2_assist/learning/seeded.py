"""Suggestions that are known to be wrong, shown among the others: do people still look?

Whoever accepts what the model proposes without looking is right most of the time, and nobody sees
it. A share of the sites that `q` leads to (`serve --seeded-share`) is therefore known to be wrong,
and looks like any other: a rejected site looks rejected by its low score alone, so it is shown
with the numbers of a site of the queue that the model takes for right, drawn by chance, unless the
model itself takes it for right. What is answered is recorded with what was shown and with what the
model says (`Decision.seeded`), under an id of its own: it is no answer on the site, so it does
not count in exports, calibration, agreement, estimates or the queue, and no edit follows from it.

Known to be wrong is a site

- of which a truth says so: the two sides of a join lie in two true bodies, with `SURE` of each
  side's voxels near the site, or a segment that is to be cut lies in one, with `SURE_ALL` of them;
- or that everybody who answered it rejected, two people at least, or one whom the model agrees
  with (a score below `AGREED_SCORE`).

When one is shown follows from names alone, so that a restart changes nothing. Each is shown to a
person once, those that the person has answered themself last.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.errors import AssistError
from cb2_assist.core.geometry import BoxVx, Resolution
from cb2_assist.core.records import (
    Draw,
    Kind,
    Site,
    Suggestion,
    SuggestionList,
    Verdict,
    ViewScore,
)
from cb2_assist.datasets.source import Cutout
from cb2_assist.labels.queue_store import QueueItem, Scope
from cb2_assist.labels.store import LabelState, LabelStore
from cb2_assist.learning.asks import item_of
from cb2_assist.learning.calibration_metrics import wilson
from cb2_assist.suggestions.recalibration import logit, sigmoid

TRUTH, PEOPLE = "truth", "people"
AGREED_SCORE = 0.1
NEAR_NM = 300.0
"""A site is judged by the true bodies within this distance."""
SURE, SURE_ALL = 0.9, 0.99
_TRIED = 40
"""Sites of the queue that are held against the truth before one is wanted."""


class Truth(Protocol):
    """A dataset whose true bodies are known."""

    @property
    def resolution(self) -> Resolution:
        """Voxel size, nm."""

    @property
    def bounds(self) -> BoxVx:
        """Voxels that exist."""

    def cutout(self, box: BoxVx) -> Cutout:
        """EM and segments of a box."""

    def truth_cutout(self, box: BoxVx) -> NDArray[np.uint64]:
        """True bodies of a box."""


@dataclass(frozen=True, slots=True)
class KnownWrong:
    """A site at which the answer is no."""

    item: QueueItem
    known_from: str
    """`TRUTH` or `PEOPLE`."""

    @property
    def site(self) -> str:
        """`Suggestion.id` of its own."""
        return self.item.suggestion.id


@dataclass(slots=True)
class _Said:
    """What people said of a site."""

    rejected_by: set[str] = field(default_factory=set)
    others: bool = False
    """Somebody accepted it or was unsure."""
    event: int = 0
    score: float = 1.0

    @property
    def is_wrong(self) -> bool:
        """Whether it is known to be."""
        n = len(self.rejected_by)
        return not self.others and (n > 1 or (n == 1 and self.score < AGREED_SCORE))


class Seeds:
    """Chooses what is shown in place of one person's draws. Keeps nothing that labels do not."""

    def __init__(
        self,
        store: LabelStore,
        share: float,
        user: str,
        dataset: str,
        version: str,
        truth: Truth | None = None,
    ) -> None:
        """Nothing is read yet.

        Args:
            store: Where labels and queue are.
            share: Of the sites that `q` leads to, 0..1.
            user: Who is shown them.
            dataset: Name of the dataset.
            version: Of its segmentation.
            truth: The dataset itself, where it has one.
        """
        self._store, self._share, self._user = store, share, user
        self._at = (dataset, version)
        self._truth = truth
        self._wrong: dict[str, KnownWrong] = {}
        self._of_own: set[str] = set()
        self._used: set[str] = set()

    def is_next(self, number: int) -> bool:
        """Whether one is to be shown before the person's draw of this number."""
        return _chance("seeded", *self._at, self._user, number) < self._share

    def name(self, number: int) -> str:
        """The id under which it is shown."""
        text = "|".join(("seeded name", *self._at, self._user, str(number)))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def refresh(self, *, now: float) -> None:
        """Find out anew what is known to be wrong; reads all labels of the dataset.

        Raises:
            LabelError: The labels cannot be read.
        """
        said: dict[str, _Said] = {}
        for label in self._store.labels(dataset=self._at[0]):
            d = label.event.decision
            if d is None or d.version != self._at[1]:
                continue
            if d.is_seeded(label.site):
                if label.event.user == self._user and d.seeded is not None:
                    self._used.add(d.seeded["site"])
            elif label.state is LabelState.IN_FORCE and label.verdict.is_answer:
                of_site = said.setdefault(label.site, _Said())
                if label.verdict is Verdict.REJECT:
                    of_site.rejected_by.add(label.event.user)
                    of_site.event = label.event.id
                    if d.suggestion.id == label.site:
                        of_site.score = min(of_site.score, d.suggestion.score)
                else:
                    of_site.others = True
        wrong = {}
        for site, of_site in said.items():
            if of_site.is_wrong and site not in self._used:
                decision = self._store.get(of_site.event).decision
                assert decision is not None
                wrong[site] = KnownWrong(item_of(decision, site), PEOPLE)
        self._of_own = {s for s in wrong if self._user in said[s].rejected_by}
        wrong |= {known.site: known for known in self._of_truth(set(said) | self._used, now)}
        self._wrong = wrong

    def pick(self, number: int) -> KnownWrong | None:
        """The one for this draw; None: nothing is known to be wrong that was not shown yet."""
        return min(
            self._wrong.values(),
            key=lambda k: (k.site in self._of_own, _chance(k.site, number)),
            default=None,
        )

    def drop(self, site: str) -> None:
        """Do not show one (again)."""
        self._used.add(site)
        self._wrong.pop(site, None)

    def numbers_of(self, kind: Kind, scope: Scope, number: int, *, now: float) -> QueueItem | None:
        """A site of the queue whose numbers are borrowed; None: the model takes none for right."""
        queue = self._store.queue
        right = [
            w.site
            for w in queue.waiting(scope, now=now)
            if w.kind is kind and w.score > 0.5 and not w.ood
        ]
        if not right:
            return None
        return queue.item(*self._at, min(right, key=lambda s: _chance("numbers", s, number)))

    def _of_truth(self, without: set[str], now: float) -> Iterator[KnownWrong]:
        """Some sites of the queue that the truth says are wrong."""
        truth, queue = self._truth, self._store.queue
        if truth is None:
            return
        sites = [w.site for w in queue.waiting(Scope(*self._at), now=now) if w.site not in without]
        for site in sorted(sites, key=lambda s: _chance("truth", self._user, s))[:_TRIED]:
            item = queue.item(*self._at, site)
            if item is not None and is_wrong(item.site, truth):
                yield KnownWrong(item, TRUTH)


def is_wrong(site: Site, truth: Truth) -> bool:
    """Whether the truth near a site says no; False where it says yes or nothing."""
    try:
        box = BoxVx.around(site.point, NEAR_NM, truth.resolution).clip(truth.bounds)
        seg, bodies = truth.cutout(box).seg, truth.truth_cutout(box)
    except AssistError:
        return False
    ids = [site.segment] if site.partner is None else [site.segment, site.partner]
    share = SURE if len(ids) == 2 else SURE_ALL
    sides = [_body(bodies[seg == np.uint64(i)], share) for i in ids]
    if None in sides:
        return False
    return site.partner is None or sides[0] != sides[1]


def _body(side: NDArray[np.uint64], share: float) -> int | None:
    bodies, counts = np.unique(side, return_counts=True)
    if not len(counts) or counts.max() < share * side.size:
        return None
    return int(bodies[counts.argmax()]) or None


def disguised(
    found: SuggestionList, known: KnownWrong, name: str, scope: Scope, numbers: QueueItem | None
) -> SuggestionList | None:
    """A list with the known wrong one as if the queue had drawn it.

    Args:
        found: The list at its place, with it.
        known: Which one.
        name: The id under which it is shown.
        scope: Of the queue.
        numbers: Whose numbers are borrowed where the model itself says no.

    Returns:
        None where it cannot look like any other: the model is not reliable there.
    """
    own = next((s for s in found.suggestions if s.id == known.site), None)
    if own is None or own.ood.flag:
        return None
    shown = replace(own, id=name)
    if numbers is not None and own.score <= 0.5:
        shown = _with_numbers(shown, numbers.suggestion)
    others = [s for s in found.suggestions if s.id != known.site]
    by_rank = sorted((*others, shown), key=lambda s: (s.ood.flag, -s.confidence, s.id))
    seeded = {"site": known.site, "known_from": known.known_from, "score": own.score}
    drawn = Draw(0, name, scope.text, "seeded", False, 0.0, 0.0, 0, seeded)
    return replace(found, suggestions=tuple(by_rank), drawn=drawn)


def _with_numbers(own: Suggestion, other: Suggestion) -> Suggestion:
    """What each view says is moved along, by as many log-odds as the score."""
    moved = logit(np.array([other.score])) - logit(np.array([own.score]))
    views = tuple(
        ViewScore(v.name, float(sigmoid(logit(np.array([v.score])) + moved)[0])) for v in own.views
    )
    return replace(
        own,
        score=other.score,
        confidence=other.confidence,
        interval=other.interval,
        ood=other.ood,
        views=views,
    )


def _chance(*words: object) -> float:
    digest = hashlib.sha256("|".join(map(str, words)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def catches(verdicts: Mapping[str, int]) -> dict[str, Any]:
    """How one person answered what was known to be wrong, as in ``report --json``.

    Args:
        verdicts: How often each was given; a skip is no answer, and *unsure* neither a catch nor a
            miss.
    """
    caught, missed = verdicts.get("reject", 0), verdicts.get("accept", 0)
    n = caught + missed
    return {
        "n": n,
        "caught": caught,
        "missed": missed,
        "unsure": verdicts.get("unsure", 0),
        "rate": caught / n if n else None,
        "ci95": list(wilson(caught / n, n)) if n else None,
    }
