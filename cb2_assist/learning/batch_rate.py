"""A base rate from a batch of sites without answers: `score --base-rate auto`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cb2_assist.core.records import BaseRate, Kind
from cb2_assist.learning.prior_shift import estimate_rate
from cb2_assist.learning.recalibrate import Model, reference_of
from cb2_assist.suggestions.recalibration import logit


def rates_from_scores(
    scores: Mapping[Kind, Sequence[float]], model: Model, now: Mapping[Kind, BaseRate]
) -> tuple[dict[Kind, BaseRate], list[str]]:
    """The rate of each question as its sites' scores tell it, where they tell it.

    Args:
        scores: Probabilities at a 50:50 prior of the sites, by question.
        model: Whose scores they are.
        now: Rates in force, kept where an estimate is refused.

    Returns:
        Rates, and a line for each question that has sites: what its rate is and why.
    """
    rates, words = dict(now), []
    for kind, some in scores.items():
        if not len(some):
            continue
        reference = reference_of(model, kind)
        if reference is None:
            why = "the model's card has no scores of known sites to compare with"
        else:
            found = estimate_rate(logit(np.asarray(some, float)), reference)
            if found.rate is not None and found.interval is not None:
                rates[kind] = BaseRate(round(found.rate, 6), "estimated", found.n)
                low, high = found.interval
                words.append(
                    f"{kind.value}: base rate {found.rate:.3f}, 95 % [{low:.3f}, {high:.3f}], "
                    f"estimated from the scores of these {found.n} sites"
                )
                continue
            why = found.refused
        words.append(
            f"{kind.value}: no estimate from these sites, {why}; the base rate stays "
            f"{now[kind].value:g} ({now[kind].source})"
        )
    return rates, words
