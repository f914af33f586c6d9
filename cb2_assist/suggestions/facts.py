"""What a pipeline must know of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cb2_assist.core.records import Kind


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the pipeline must know of a model besides its answers."""

    name: str
    sha256: str
    profile: str
    extent_nm: float
    ood_percentile: Callable[[Kind, float], float]
    """Question and distance of a decision embedding to percent of held-out decisions that lie
    nearer."""
    em_oblique: bool = False
    """Whether joins also get the best tilted EM plane."""
    em_extent_nm: float | None = None
    """Half width of EM planes; None: `extent_nm`."""
    site_nm: float | None = None
    """`model.card.ViewSpec.site_nm`; None: `extent_nm`."""
    uncalibrated: str = ""
    """`SuggestionList.uncalibrated`."""
    reads_neighbours: bool = False
    """Whether the model also wants `views.surroundings`."""
    reads_passage: bool = False
    """Whether the model also wants `views.passage`."""
