"""Who said what on which site, over one or several label files.

A site is one question in one segmentation version, so labels of other versions are never compared.
Nothing is counted twice: an event that stands in two files (a copy) is one, and of one person's
answers on a site the last one counts.

What somebody answered at the desk of disagreements (`Scope.source`) was not independent of the
others. Those answers count for the consensus, not for the figures of agreement.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cb2_assist.core.records import Kind, Verdict
from cb2_assist.labels.store import Label, LabelState, LabelStore
from cb2_assist.learning.asks import DISAGREEMENTS, source_of
from cb2_assist.learning.export_rows import Row, site_columns


class Item(NamedTuple):
    """One question."""

    dataset: str
    version: str
    site: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Rating:
    """One person's answer on one item."""

    accepts: bool
    score: float | None
    """Of the model whose suggestion it was, as the person had it before them or not."""
    score_hidden: bool
    at_desk: bool
    file: int
    event: int
    """Which label file, and the decision in it."""
    row: Row = field(compare=False, repr=False)
    """What the consensus says of the site: segments, point, licence."""


@dataclass(slots=True)
class Ratings:
    """Answers by item and person."""

    independent: dict[Item, dict[str, Rating]] = field(default_factory=dict)
    everything: dict[Item, dict[str, Rating]] = field(default_factory=dict)
    """With those from the desk, where a person's last answer counts."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Answers that are not in `everything`, by reason."""
    newest: list[int] = field(default_factory=list)
    """Id of the last decision that was read in each file; 0 without one."""

    @property
    def people(self) -> list[str]:
        """Everybody who answered, by name."""
        return sorted({name for found in self.everything.values() for name in found})

    @property
    def versions(self) -> dict[str, list[str]]:
        """Segmentation versions by dataset."""
        found: dict[str, set[str]] = {}
        for item in self.everything:
            found.setdefault(item.dataset, set()).add(item.version)
        return {name: sorted(versions) for name, versions in sorted(found.items())}


def read_ratings(
    stores: Sequence[LabelStore], *, dataset: str | None = None, kind: Kind | None = None
) -> Ratings:
    """All answers that can be compared.

    Args:
        stores: May be in use by servers.
        dataset: Only this one.
        kind: Only this question.
    """
    out = Ratings()
    states: dict[tuple[str, str], LabelState] = {}
    answers: list[_Answer] = []
    for number, store in enumerate(stores):
        when = ""
        out.newest.append(0)
        for label in store.labels(dataset=dataset):
            # within a file the order of events counts, also where the clock ran backwards
            when = max(when, label.event.recorded_at)
            out.newest[number] = label.event.id
            key = (label.event.idempotency_key, label.site)
            if key in states:
                out.left_out["the same event in another file"] += 1
                # undone in one copy is undone
                if label.state is LabelState.UNDONE:
                    states[key] = label.state
                continue
            states[key] = label.state
            found = _answer(label, key, (when, number, label.event.id))
            if found is not None and kind in (None, found.item.kind):
                answers.append(found)
    for answer in sorted(answers, key=lambda a: a.order):
        if states[answer.key] is LabelState.UNDONE:
            out.left_out["undone"] += 1
        else:
            _apply(out, answer)
    return out


@dataclass(frozen=True, slots=True)
class _Answer:
    key: tuple[str, str]
    order: tuple[str, int, int]
    """When it was recorded, which file, which event."""
    item: Item
    user: str
    verdict: Verdict
    rating: Rating


def _answer(label: Label, key: tuple[str, str], order: tuple[str, int, int]) -> _Answer | None:
    d = label.event.decision
    if d is None or not label.verdict.is_answer or d.is_seeded(label.site):
        return None
    row = site_columns(label, d)
    rating = Rating(
        accepts=label.verdict is Verdict.ACCEPT,
        score=row["score"],
        score_hidden=d.score_hidden,
        at_desk=source_of(row["propensity"]) == DISAGREEMENTS,
        file=order[1],
        event=order[2],
        row={**row, "licence": d.licence, "species": d.species},
    )
    item = Item(d.dataset, d.version, label.site, Kind(row["kind"]))
    return _Answer(key, order, item, label.event.user, label.verdict, rating)


def _apply(out: Ratings, answer: _Answer) -> None:
    """A later answer takes the place of an earlier one; after *unsure* there is none."""
    rating = answer.rating
    tables = [out.everything] if rating.at_desk else [out.everything, out.independent]
    for table in tables:
        of_item = table.setdefault(answer.item, {})
        if of_item.pop(answer.user, None) is not None and table is out.everything:
            out.left_out["answered again later by the same person"] += 1
        if answer.verdict.is_label:
            of_item[answer.user] = rating
        if not of_item:
            del table[answer.item]
    if not answer.verdict.is_label:
        out.left_out[answer.verdict.value] += 1


def disagreements(ratings: Ratings) -> Iterator[tuple[Item, dict[str, Rating]]]:
    """Items on which two people gave different independent answers and the majority is no help.

    One that was settled at the desk (more for one answer than for the other) is none any more.
    """
    for item, of_item in ratings.independent.items():
        if len({r.accepts for r in of_item.values()}) < 2:
            continue
        at_desk = [r for r in ratings.everything[item].values() if r.at_desk]
        if not at_desk or consensus_of(ratings.everything[item]) == TIE:
            yield item, ratings.everything[item]


ACCEPT, REJECT, TIE = "accept", "reject", "tie"


def consensus_of(of_item: dict[str, Rating]) -> str:
    """Majority of the people; a tie stays one."""
    yes = sum(r.accepts for r in of_item.values())
    no = len(of_item) - yes
    return TIE if yes == no else ACCEPT if yes > no else REJECT


def about(item: Item, of_item: dict[str, Rating]) -> dict[str, Any]:
    """A line of ``consensus.jsonl``."""
    row = next(iter(of_item.values())).row
    yes = sum(r.accepts for r in of_item.values())
    return {
        "dataset": item.dataset,
        "version": item.version,
        "suggestion_id": item.site,
        "kind": item.kind.value,
        "segment": row["segment"],
        "partner": row["partner"],
        "point_nm": row["point_nm"],
        "consensus": consensus_of(of_item),
        "n_accept": yes,
        "n_reject": len(of_item) - yes,
        "score": row["score"],
        "licence": row["licence"],
        "species": row["species"],
    }
