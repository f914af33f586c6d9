"""Two models on the same decisions: exact McNemar test and paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cb2_assist.learning.contract_figures import (
    Bools,
    Floats,
    Ranked,
    cluster_weights,
    interval,
)
from cb2_assist.learning.judged import Judged

DIFFERENCES = (
    "balanced_accuracy",
    "accuracy",
    "auroc",
    "average_precision",
    "ece15",
    "brier",
    "nll",
)
NOTE = (
    "first minus second. McNemar's test takes decisions as independent; those of one neuron are "
    "not, so where the two disagree go by the interval, which resamples neurons or blocks."
)


def compare(
    first: Sequence[Judged], second: Sequence[Judged], draws: int
) -> dict[str, dict[str, Any]]:
    """By task: what the two models differ in, on the decisions that both were asked.

    Args:
        first: Of one model.
        second: Of the other.
        draws: Resamples behind the intervals; both models are resampled alike.
    """
    others = {j.kind: j for j in second}
    return {a.kind.value: compare_task(a, others[a.kind], draws) for a in first if a.kind in others}


def compare_task(first: Judged, second: Judged, draws: int) -> dict[str, Any]:
    """One task of `compare`; ``n`` 0 where the two share no decision."""
    _, at, also = np.intersect1d(first.key, second.key, return_indices=True)
    same = first.answer[at] == second.answer[also]
    a, b = first.take(at[same]), second.take(also[same])
    out: dict[str, Any] = {
        "n": len(a),
        "only_first": len(first) - len(at),
        "only_second": len(second) - len(also),
        "other_answer": int((~same).sum()),
    }
    if not len(a):
        return out
    out["mcnemar"] = mcnemar(_right(a.answer, a.score), _right(b.answer, b.score))
    one, two = Ranked(a.answer, a.score), Ranked(b.answer, b.score)
    whole = np.ones(len(a))
    values = (one.figures(whole), two.figures(whole))
    drawn: list[dict[str, float]] = []
    for w in cluster_weights(a.cluster, draws, 0):
        x, y = one.figures(w), two.figures(w)
        drawn.append({k: x[k] - y[k] for k in DIFFERENCES})
    out["difference"] = {}
    for name in DIFFERENCES:
        value = values[0][name] - values[1][name]
        known = bool(np.isfinite(value))
        ends = interval(np.array([d[name] for d in drawn]))
        out["difference"][name] = {
            "first": values[0][name] if known else None,
            "second": values[1][name] if known else None,
            "value": value if known else None,
            "ci95": ends if known else None,
        }
    return out


def mcnemar(first: Bools, second: Bools) -> dict[str, Any]:
    """McNemar's exact test (1947): are the decisions that one model alone gets right split evenly?

    Two-sided binomial test of the discordant decisions against 1/2.

    Args:
        first: Which decisions one model gets right, (n,).
        second: The same of the other.
    """
    from scipy.special import bdtr

    only_first = int((first & ~second).sum())
    only_second = int((second & ~first).sum())
    n = only_first + only_second
    # both tails, which are alike at one half
    p = min(1.0, 2 * float(bdtr(min(only_first, only_second), n, 0.5))) if n else 1.0
    return {
        "only_first_right": only_first,
        "only_second_right": only_second,
        "both_right": int((first & second).sum()),
        "both_wrong": int((~first & ~second).sum()),
        "p": p,
    }


def _right(answer: Bools, score: Floats) -> Bools:
    """At score > 0.5; a decision without a score is wrong."""
    out: Bools = np.isfinite(score) & ((score > 0.5) == answer)
    return out
