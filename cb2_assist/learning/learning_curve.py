"""How often answers were as the model in force said, while labels came in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from cb2_assist.learning.calibration_metrics import wilson

POINTS, LEAST = 12, 20
"""Of each model: at most so many parts, of at least so many labels."""

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Judged:
    """A label in force and what the model said of its site."""

    model: tuple[str, str]
    """Name and SHA-256."""
    agrees: bool | None
    """Whether the score lies on the label's side of one half; None without a score."""
    at_random: bool
    """The queue drew the site at random."""
    decided_at: str


def learning_curve(labels: Sequence[Judged]) -> Entry:
    """Agreement by model version against the number of labels, as in ``report --json``.

    Args:
        labels: In the order in which they were recorded.
    """
    place: dict[tuple[str, str], list[int]] = {}
    for number, label in enumerate(labels):
        place.setdefault(label.model, []).append(number)
    return {"models": [_of_model(labels, *found) for found in place.items()]}


def _of_model(labels: Sequence[Judged], model: tuple[str, str], places: list[int]) -> Entry:
    own = [labels[k] for k in places]
    parts = max(1, min(POINTS, len(own) // LEAST))
    ends = [round(len(own) * k / parts) for k in range(parts + 1)]
    return {
        "name": model[0],
        "sha256": model[1],
        "n": len(own),
        "agreement": _share(own),
        "random": _share([x for x in own if x.at_random]),
        "points": [
            {
                "labels": places[end - 1] + 1,
                "n": end - start,
                "from": own[start].decided_at,
                "to": own[end - 1].decided_at,
                "agreement": _share(own[start:end]),
                "random": _share([x for x in own[start:end] if x.at_random]),
            }
            for start, end in pairwise(ends)
        ],
    }


def _share(some: Sequence[Judged]) -> Entry:
    said = [x.agrees for x in some if x.agrees is not None]
    if not said:
        return {"value": None, "ci95": None, "n": 0}
    share = sum(said) / len(said)
    return {"value": share, "ci95": list(wilson(share, len(said))), "n": len(said)}
