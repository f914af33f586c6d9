"""Decisions like none in training, made of training's own parts.

To choose a distance one needs decisions that are strange, and the shifts on which a model is
reported must not be the ones on which anything of it was chosen. A chimera takes its geometry from
one held-out decision, its EM from another, and each contact feature from yet another: every number
in it is usual, no two of them belong together.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from cb2_assist.learning.prepare import Part

_KEPT = {"name", "task", "answer", "group", "point_nm", "z", "segment", "partner"}
"""What a chimera has of the decision whose place it takes; the rest is what a network sees."""


def chimeras(part: Part, *, seed: int) -> Part:
    """As many chimeras as the part has decisions.

    Args:
        part: Held-out decisions of one question.
        seed: Of the shuffles.
    """
    rng = np.random.default_rng(seed)
    seen = [f.name for f in fields(part) if f.name not in _KEPT]
    mixed: dict[str, Any] = {}
    for name in seen:
        array = np.array(getattr(part, name))
        if array.ndim == 2:
            # numbers, not pictures: each column is a measurement of its own
            mixed[name] = np.stack(
                [array[rng.permutation(len(array)), k] for k in range(array.shape[1])], 1
            )
        else:
            mixed[name] = array[rng.permutation(len(array))]
    return Part(**{f.name: mixed.get(f.name, getattr(part, f.name)) for f in fields(part)})
