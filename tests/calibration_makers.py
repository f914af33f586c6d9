"""Decisions whose truth is known, as the queue would have had them made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from label_makers import BIG, decision, suggestion

from cb2_assist.core.records import Decision, Draw, Kind, Verdict, ViewScore, segment_id
from cb2_assist.suggestions.recalibration import sigmoid


def scored_sites(n: int, seed: int = 0, spread: float = 2.0) -> np.ndarray:
    """Log-odds of the scores of n sites."""
    return np.random.default_rng(seed).normal(0, spread, n)


def drawn_decisions(
    z: np.ndarray,
    accepted: np.ndarray,
    *,
    kind: Kind = Kind.JOIN,
    views: tuple[str, ...] = ("front", "features"),
    explore: bool = True,
    **changes: Any,
) -> list[Decision]:
    """An answer on each site, all drawn at random out of many more; `changes` are of each."""
    out = []
    for n, (logit, yes) in enumerate(zip(z.tolist(), accepted.tolist(), strict=True)):
        plain = suggestion(n, kind)
        site = replace(plain.site, segment=segment_id(BIG + 10_000 + n // 2))
        key = site.key(changes.get("dataset", "demo"), changes.get("version", "v1"))
        shown = replace(
            plain,
            id=key,
            site=site,
            score=float(sigmoid(np.array(logit))),
            views=tuple(ViewScore(v, 0.5) for v in views),
        )
        probability = 0.1 / 100_000 if explore else 0.9
        propensity = Draw(n + 1, key, "{}", "margin", explore, 0.1, probability, 100_000)
        out.append(
            decision(
                n,
                Verdict.ACCEPT if yes else Verdict.REJECT,
                key=f"{kind.value}-{n}-{explore}",
                suggestion=shown,
                propensity=propensity.propensity(),
                **changes,
            )
        )
    return out
