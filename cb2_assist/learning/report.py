"""What has been done with a label file, as one document; reads beside a running server.

`SECTIONS` is the list of what is in it; each is made from what `_read` collects in one pass.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby, pairwise
from typing import Any

import numpy as np

from cb2_assist import __version__
from cb2_assist.core.errors import LabelError
from cb2_assist.core.records import Decision, Kind
from cb2_assist.labels.store import LabelState, LabelStore
from cb2_assist.learning.calibration_labels import calibration_labels
from cb2_assist.learning.calibration_metrics import reliability, wilson
from cb2_assist.learning.calibrators import effective_n
from cb2_assist.learning.export_rows import pseudonym, site_columns
from cb2_assist.learning.learning_curve import Judged, learning_curve
from cb2_assist.learning.missed_in_queue import missed_in
from cb2_assist.learning.queue import DEFAULT_STRATEGY
from cb2_assist.learning.queue_status import default_scope
from cb2_assist.learning.report_times import Timed, habits, timed, times
from cb2_assist.learning.seeded import catches
from cb2_assist.suggestions.calibration import STATE_MARK

Entry = dict[str, Any]

LEAST_EFFECTIVE = 30
LEAST_OF_EITHER = 5
"""Labels of either answer, below which a reliability diagram says nothing."""
BATCHES, LEAST_BATCH = 12, 20
"""Over time: at most so many parts, of at least so many labels."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """A label in force."""

    kind: Kind
    accepted: bool
    score: float | None
    hidden: bool
    decided_at: str
    model: tuple[str, str] = ("", "")
    """Name and SHA-256."""
    at_random: bool = False

    @property
    def agrees(self) -> bool | None:
        """With the model, which accepts above one half; None without a score."""
        return None if self.score is None else (self.score > 0.5) is self.accepted


@dataclass(slots=True)
class _Read:
    dataset: str | None
    decisions: list[Timed] = field(default_factory=list)
    answers: list[_Answer] = field(default_factory=list)
    states: Counter[str] = field(default_factory=Counter)
    places: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    models: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    seeded: dict[str, Counter[str]] = field(default_factory=dict)
    """By person: verdicts on what was known to be wrong."""
    last: Decision | None = None


def report(
    store: LabelStore,
    *,
    dataset: str | None = None,
    only: str | None = None,
    with_names: bool = False,
    now: datetime | None = None,
) -> Entry:
    """The document of ``report --json``.

    Args:
        store: May be in use by a server.
        dataset: Only this one.
        only: Tell the speed of this person alone; None tells everybody's, to the file's owner.
        with_names: Real user names in place of pseudonyms.
        now: When it is made.

    Raises:
        LabelError: The labels cannot be read.
    """
    read = _read(store, dataset)
    people = sorted({t.user for t in read.decisions})

    def name(user: str) -> str:
        return user if with_names or user == only else pseudonym(user, store.salt)

    out: Entry = {
        "program": f"cb2-assist {__version__}",
        "made_at": (now or datetime.now(UTC)).isoformat(timespec="seconds"),
        "labels": store.url,
        "dataset": dataset,
        "n_people": len(people),
        "people": [
            {
                "person": name(user),
                **_of_person(read.decisions, user),
                "seeded": catches(read.seeded.get(user, {})),
            }
            for user in people
            if only in (None, user)
        ],
    }
    answers = sum((found for found in read.seeded.values()), Counter[str]())
    out["seeded"] = {
        "n": answers.total(),
        # with few people, the rate of all tells that of the others
        "all": catches(answers) if only is None else None,
    }
    out["flags"] = [
        {
            "at": d.decided_at,
            "person": name(f.event.user),
            "dataset": d.dataset,
            "version": d.version,
            **{k: d.suggestion.to_json()[k] for k in ("id", "kind", "segment", "partner")},
            "point_nm": d.suggestion.site.point.to_json(),
            "note": d.note,
            "answered": f.is_answered,
        }
        for f in store.flags(dataset=dataset)
        if (d := f.event.decision) is not None
    ]
    for title, section in SECTIONS.items():
        out[title] = section(store, read)
    return out


def _read(store: LabelStore, dataset: str | None) -> _Read:
    out = _Read(dataset)
    found = store.labels(dataset=dataset)
    for _, group in groupby(found, key=lambda label: label.event.id):
        labels = list(group)
        event, d = labels[0].event, labels[0].event.decision
        if d is None:
            continue
        out.last = d
        if labels[0].verdict.is_answer:
            out.decisions.append(timed(event.user, d))
        for label in labels:
            in_force = label.state is LabelState.IN_FORCE
            if label.state is LabelState.SEEDED and label.verdict.is_answer:
                out.seeded.setdefault(event.user, Counter())[label.verdict.value] += 1
            out.states[label.verdict.value if in_force else label.state.value] += 1
            if not in_force or not label.verdict.is_label:
                continue
            site = site_columns(label, d)
            how = site["propensity"]
            at_random = how.get("how") == "queue" and bool(how.get("explore"))
            out.answers.append(
                _Answer(
                    Kind(site["kind"]),
                    label.verdict.value == "accept",
                    site["score"],
                    d.score_hidden,
                    d.decided_at,
                    (d.model_name, d.model_sha256),
                    at_random,
                )
            )
            out.places[d.dataset, d.version, d.licence] += 1
            out.models[d.model_name, d.model_sha256, d.calibrator.partition(STATE_MARK)[0]] += 1
            out.asked["random" if at_random else str(how.get("how"))] += 1
    return out


def _of_person(decisions: Sequence[Timed], user: str) -> Entry:
    own = [t for t in decisions if t.user == user]
    return {**times(own), **habits(own)}


def _times(_store: LabelStore, read: _Read) -> Entry:
    return times(read.decisions)


def _labels(_store: LabelStore, read: _Read) -> Entry:
    of_kind = {k: [a.accepted for a in read.answers if a.kind is k] for k in Kind}
    dates = [a.decided_at for a in read.answers]
    return {
        "n": len(read.answers),
        "by_kind": {
            k.value: {"n": len(said), "accept": sum(said), "reject": len(said) - sum(said)}
            for k, said in of_kind.items()
        },
        "other_answers": {
            name: n for name, n in sorted(read.states.items()) if name not in ("accept", "reject")
        },
        "places": [
            {"dataset": d, "version": v, "licence": x, "n": n}
            for (d, v, x), n in read.places.most_common()
        ],
        "models": [
            {"name": m, "sha256": s, "calibrator": c, "n": n}
            for (m, s, c), n in read.models.most_common()
        ],
        "asked": dict(read.asked.most_common()),
        "first": min(dates, default=None),
        "last": max(dates, default=None),
    }


def _reliability(store: LabelStore, read: _Read) -> Entry:
    """Of the confidence as it was shown, on sites that the queue drew, weighted by their chance.

    Only of the model and calibrator of the last decision: a diagram over several says nothing of
    any.
    """
    d = read.last
    if d is None:
        return {}
    own = d.calibrator.partition(STATE_MARK)[0]
    found = calibration_labels(
        store.labels(dataset=d.dataset), model_sha256=d.model_sha256, calibrator=own
    )
    out: Entry = {}
    for kind in Kind:
        i = [n for n, x in enumerate(found.drawn) if x.kind is kind and np.isfinite(x.confidence)]
        answer = np.array([found.drawn[n].accepted for n in i], bool)
        weight = found.weight[i]
        n_effective = effective_n(weight) if i else 0.0
        rarer = int(min(answer.sum(), (~answer).sum()))
        entry: Entry = {
            "n": len(i),
            "n_random": sum(found.drawn[n].explore for n in i),
            "n_effective": n_effective,
            "n_rarer": rarer,
            "left_out": dict(found.left_out[kind]),
            "bins": None,
            "reason": None,
        }
        if n_effective < LEAST_EFFECTIVE or rarer < LEAST_OF_EITHER:
            entry["reason"] = (
                f"not enough evidence yet: the drawn labels are worth {n_effective:.0f} equal ones "
                f"({LEAST_EFFECTIVE} needed), {rarer} of the rarer answer ({LEAST_OF_EITHER} "
                "needed); q on the page draws sites"
            )
        else:
            p = np.array([found.drawn[n].confidence for n in i])
            entry["bins"] = [
                {
                    "said": b.said,
                    "seen": b.seen,
                    "ci95": list(b.interval),
                    "n": b.n,
                    "n_effective": b.n_effective,
                }
                for b in reliability(answer, p, weight)
            ]
        out[kind.value] = entry
    return {
        "dataset": d.dataset,
        "model": {"name": d.model_name, "sha256": d.model_sha256, "calibrator": own},
        "by_kind": out,
    }


def _over_time(_store: LabelStore, read: _Read) -> list[Entry]:
    n = len(read.answers)
    parts = max(1, min(BATCHES, n // LEAST_BATCH))
    ends = [round(n * k / parts) for k in range(parts + 1)]
    return [
        {
            "from": some[0].decided_at,
            "to": some[-1].decided_at,
            "upto": end / n,
            **_shares(some),
        }
        for start, end in pairwise(ends)
        if (some := read.answers[start:end])
    ]


def _learning_curve(_store: LabelStore, read: _Read) -> Entry:
    return learning_curve(
        [Judged(a.model, a.agrees, a.at_random, a.decided_at) for a in read.answers]
    )


def _remaining(store: LabelStore, read: _Read) -> Entry:
    """Of what was filled last in each dataset and version; see `missed_in_queue`."""
    now = time.time()
    try:
        queue = store.queue
        tally = queue.tally(now=now)
    except LabelError as e:
        return {"parts": [], "reason": str(e)}
    parts = []
    for place in sorted({(t.dataset, t.version) for t in tally}):
        if read.dataset not in (None, place[0]):
            continue
        kinds = {t.kind.value for t in tally if (t.dataset, t.version) == place}
        scope = default_scope(queue.fills(*place), *place)
        found = missed_in(queue, scope, now=now, with_history=True)
        parts.append(
            {
                "dataset": place[0],
                "version": place[1],
                "scope": scope.words,
                "strategy": queue.order(scope) or DEFAULT_STRATEGY,
                "kinds": {kind: e for kind, e in found.items() if kind in kinds},
            }
        )
    reason = "" if parts else "Nothing was queued, so there is nothing to estimate from."
    return {"parts": parts, "reason": reason}


def _score_hidden(_store: LabelStore, read: _Read) -> Entry:
    """Whether people agree more with a score that they see."""
    return {
        name: _shares([a for a in read.answers if a.hidden is hidden])
        for name, hidden in (("shown", False), ("hidden", True))
    }


def _shares(some: Sequence[_Answer]) -> Entry:
    agreed = [a.agrees for a in some if a.agrees is not None]
    return {
        "n": len(some),
        "accepted": _share([a.accepted for a in some]),
        "with_model": _share([bool(x) for x in agreed]),
    }


def _share(said: Sequence[bool]) -> Entry:
    if not said:
        return {"value": None, "ci95": None, "n": 0}
    share = sum(said) / len(said)
    return {"value": share, "ci95": list(wilson(share, len(said))), "n": len(said)}


SECTIONS: dict[str, Callable[[LabelStore, _Read], Any]] = {
    "label_counts": _labels,
    "times": _times,
    "reliability": _reliability,
    "over_time": _over_time,
    "score_hidden": _score_hidden,
    "learning_curve": _learning_curve,
    "remaining": _remaining,
}
"""Keys of the document and what makes each."""
