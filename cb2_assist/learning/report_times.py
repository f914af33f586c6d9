"""How long answers took: what the clock says, without the time in which nobody was there.

A person's own speed is that person's business: figures of one person are only made for them and
for the owner of the label file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

import numpy as np

from cb2_assist.core.records import Decision, Kind, Verdict
from cb2_assist.learning.export_filter import utc

PAUSE_S = 120.0
"""Without a decision for so long, a session has ended."""
HASTY_S = 1.0
LEAST_TIMED = 5
"""Fewer answers have no quartiles worth printing."""
ODD_RUN = 0.01
"""A run is odd that so few series of as many answers, dealt at random, would have."""

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Timed:
    """One decision, in the order in which they were recorded."""

    user: str
    kind: Kind
    verdict: Verdict
    seconds: float
    """On screen until the answer, idle time taken off; NaN where no person sat there or the clock
    ran backwards."""
    decided: float
    """Unix time; NaN where it cannot be read."""
    idle_s: float
    is_backwards: bool


def timed(user: str, d: Decision) -> Timed:
    """The times of a decision."""
    idle_s = max(d.idle_ms, 0) / 1000
    try:
        shown = utc(datetime.fromisoformat(d.shown_at)).timestamp()
        decided = utc(datetime.fromisoformat(d.decided_at)).timestamp()
    except ValueError:
        shown = decided = math.nan
    is_backwards = decided < shown
    by_hand = bool(d.key)
    seconds = max(decided - shown - idle_s, 0.0) if by_hand and not is_backwards else math.nan
    return Timed(user, d.suggestion.site.kind, d.verdict, seconds, decided, idle_s, is_backwards)


def times(decisions: Sequence[Timed]) -> Entry:
    """Seconds per decision, by kind, and decisions per hour."""
    by_hand = [t for t in decisions if math.isfinite(t.seconds)]
    return {
        "n": len(decisions),
        "n_timed": len(by_hand),
        "n_clock_backwards": sum(t.is_backwards for t in decisions),
        "seconds": _quartiles(by_hand),
        "by_kind": {k.value: _quartiles([t for t in by_hand if t.kind is k]) for k in Kind},
        "per_hour": _per_hour(by_hand),
    }


def _quartiles(some: Sequence[Timed]) -> Entry | None:
    if len(some) < LEAST_TIMED:
        return None
    low, median, high = np.quantile([t.seconds for t in some], (0.25, 0.5, 0.75)).tolist()
    return {"n": len(some), "q25": low, "median": median, "q75": high}


def _per_hour(by_hand: Sequence[Timed]) -> Entry | None:
    """While deciding alone, and from one decision to the next within a session."""
    deciding = sum(t.seconds for t in by_hand)
    n, between = 0, 0.0
    for _, own in groupby(sorted(by_hand, key=lambda t: t.user), key=lambda t: t.user):
        last = math.nan
        for t in own:
            gap = t.decided - last
            if 0 <= gap <= PAUSE_S:
                n += 1
                between += max(gap - t.idle_s, 0.0)
            last = t.decided
    if len(by_hand) < LEAST_TIMED or deciding <= 0:
        return None
    return {
        "deciding": 3600 * len(by_hand) / deciding,
        "hours_deciding": deciding / 3600,
        "in_sessions": 3600 * n / between if n and between > 0 else None,
        "hours_in_sessions": between / 3600,
        "pause_s": PAUSE_S,
    }


def habits(decisions: Sequence[Timed]) -> Entry:
    """What might show that somebody no longer looks: very fast answers, long runs of one answer.

    A run is odd where fewer than one in a hundred series of as many answers with the same share
    would have one so long if their order were chance. Sites at one end come one after another and
    are often alike, so an odd run is a question, not a finding.
    """
    by_hand = [t for t in decisions if math.isfinite(t.seconds)]
    answers = [t.verdict for t in decisions if t.verdict.is_label]
    runs = [(v, sum(1 for _ in same)) for v, same in groupby(answers)]
    verdict, longest = max(runs, key=lambda run: run[1], default=(None, 0))
    share = answers.count(verdict) / len(answers) if verdict else 0.0
    # at most so many runs of that length are expected; 1 of 1 would be no run but all there is
    expected = len(answers) * (1 - share) * share**longest + share ** len(answers)
    hasty = sum(t.seconds < HASTY_S for t in by_hand)
    return {
        "under_1_s": hasty / len(by_hand) if by_hand else None,
        "longest_run": {
            "verdict": verdict.value if verdict else None,
            "n": longest,
            "is_odd": bool(answers) and share < 1 and expected < ODD_RUN,
        },
    }
