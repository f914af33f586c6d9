"""Figures that others published, to stand beside ours; each with where it is from.

ConnectomeBench2, arXiv 2606.21116: a ViT-B on geometry and EM, and people who proofread, on the
test split of its 716,485-row release; balanced accuracy. Its EM-only ViT-B is as quoted in the
benchmark of vision-language models on the same data (Li et al., table 2). That paper's accuracy by
species was not available to us.
"""

from __future__ import annotations

from typing import Any

from cb2_assist.core.records import Kind

CAVEAT = (
    "Published by others (ConnectomeBench2, arXiv 2606.21116) on other data than the rows above, "
    "with other segmentations, species and views: for orientation, not a comparison. Only a run on "
    "the same test split, with that release's views, can be compared."
)
PUBLISHED: dict[Kind, dict[str, float]] = {
    Kind.JOIN: {"ViT-B, geometry and EM": 0.970, "ViT-B, EM only": 0.942, "people": 0.930},
    Kind.CUT: {"ViT-B, geometry and EM": 0.930, "ViT-B, EM only": 0.911, "people": 0.841},
}
"""Balanced accuracy by task."""


def published() -> dict[str, Any]:
    """For ``metrics.json``."""
    return {
        "figure": "balanced_accuracy",
        "source": "arXiv 2606.21116; EM only: as quoted by Li et al., table 2",
        "caveat": CAVEAT,
        "tasks": {kind.value: lines for kind, lines in PUBLISHED.items()},
    }
