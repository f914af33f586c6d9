"""People against people and against the model, as one document."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from cb2_assist.core.records import Kind
from cb2_assist.learning.agreement_stats import (
    DRAWS,
    Bools,
    cohen_kappa,
    fleiss_kappa,
    krippendorff_alpha,
    marginal_homogeneity,
    raw_agreement,
)
from cb2_assist.learning.ratings import (
    ACCEPT,
    REJECT,
    TIE,
    Item,
    Rating,
    Ratings,
    consensus_of,
    disagreements,
)

Entry = dict[str, Any]
Answers = Mapping[Item, Mapping[str, Rating]]

CONSENSUS_RULE = "majority of the people, desk included; a tie stays a tie"
_MOST_PAIRS = 60


def agreement(
    ratings: Ratings,
    *,
    name: Callable[[str], str],
    labels: Sequence[str] = (),
    draws: int = DRAWS,
) -> Entry:
    """The document of ``agreement --json``.

    Args:
        ratings: From `ratings.read_ratings`.
        name: What a person is called in it.
        labels: Where they are from.
        draws: Resamples of items behind the intervals.
    """
    answers: Answers = ratings.independent
    kinds = [k for k in Kind if any(item.kind is k for item in answers)]
    of_kind = {k.value: {i: a for i, a in answers.items() if i.kind is k} for k in kinds}
    consensus = [consensus_of(of_item) for of_item in ratings.everything.values()]
    return {
        "labels": list(labels),
        "people": [name(p) for p in ratings.people],
        "versions": ratings.versions,
        "n_items": len(answers),
        "left_out": dict(sorted(ratings.left_out.items())),
        "notes": list(_notes(ratings)),
        "interval": {"draws": draws, "what": "95 %, items resampled with replacement"},
        "all": compared(answers, name, draws),
        "by_kind": {kind: compared(some, name, draws) for kind, some in of_kind.items()},
        "disagreements": sum(1 for _ in disagreements(ratings)),
        "consensus": {
            "rule": CONSENSUS_RULE,
            "n": len(consensus),
            **{verdict: consensus.count(verdict) for verdict in (ACCEPT, REJECT, TIE)},
        },
    }


def compared(answers: Answers, name: Callable[[str], str], draws: int) -> Entry:
    """All figures of some items."""
    people = sorted({person for of_item in answers.values() for person in of_item})
    counts = np.array(
        [
            [sum(not r.accepts for r in a.values()), sum(r.accepts for r in a.values())]
            for a in answers.values()
        ],
        np.int64,
    ).reshape(-1, 2)
    pairs = [_pair(answers, a, b, name, draws) for a, b in combinations(people, 2)]
    pairs.sort(key=lambda p: -p["n"])
    overlapping = counts[counts.sum(1) >= 2]
    return {
        "n_items": len(counts),
        "n_ratings": int(counts.sum()),
        "n_overlapping": len(overlapping),
        "n_disagree": int((overlapping > 0).all(1).sum()),
        "agreement": raw_agreement(counts, draws=draws).to_json(),
        "fleiss_kappa": fleiss_kappa(counts, draws=draws).to_json(),
        "krippendorff_alpha": krippendorff_alpha(counts, draws=draws).to_json(),
        "pairs": [p for p in pairs if p["n"]][:_MOST_PAIRS],
        "with_model": with_model(answers, people, name, draws),
    }


def _pair(
    answers: Answers, first: str, second: str, name: Callable[[str], str], draws: int
) -> Entry:
    both = [a for a in answers.values() if first in a and second in a]
    one = np.array([a[first].accepts for a in both], bool)
    two = np.array([a[second].accepts for a in both], bool)
    return {"first": name(first), "second": name(second), **two_raters(one, two, draws)}


def two_raters(first: Bools, second: Bools, draws: int) -> Entry:
    """Agreement, kappa and McNemar's test of two raters on the same items."""
    accept = first.astype(np.int64) + second
    return {
        "n": len(first),
        "agreement": raw_agreement(np.column_stack([2 - accept, accept]), draws=draws).to_json(),
        "cohen_kappa": cohen_kappa(first, second, draws=draws).to_json(),
        "mcnemar": marginal_homogeneity(first, second),
    }


def with_model(
    answers: Answers, people: Sequence[str], name: Callable[[str], str], draws: int
) -> list[Entry]:
    """Each person against the model, which accepts where its score is above one half.

    Besides all of a person's answers, those with the score on screen and those without: if people
    follow the model, the first agree more with it.
    """
    return [
        {
            "person": name(person),
            **{part: two_raters(*said, draws) for part, said in _parts(answers, person)},
        }
        for person in people
    ]


def _parts(answers: Answers, person: str) -> Iterator[tuple[str, tuple[Bools, Bools]]]:
    own = [a[person] for a in answers.values() if person in a]
    for part, kept in (
        ("all", own),
        ("score_shown", [r for r in own if not r.score_hidden]),
        ("score_hidden", [r for r in own if r.score_hidden]),
    ):
        known = [(r.accepts, r.score > 0.5) for r in kept if r.score is not None]
        said = np.array(known, bool).reshape(-1, 2)
        yield part, (said[:, 0], said[:, 1])


def _notes(ratings: Ratings) -> Iterator[str]:
    for dataset, versions in ratings.versions.items():
        if len(versions) > 1:
            yield (
                f"{dataset} has labels of {len(versions)} segmentation versions "
                f"({', '.join(versions)}): a site is compared within its own version only."
            )
    if not any(len(of_item) > 1 for of_item in ratings.independent.values()):
        who = len(ratings.people)
        yield (
            f"No site was answered by two people ({who} answered any), so there is no agreement "
            "between people yet. `cb2-assist queue overlap` has a share of the queue asked of "
            "several; with files of each person, name all of them: --labels URL --labels URL."
        )
