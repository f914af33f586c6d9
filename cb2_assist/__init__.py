"""Proofreading assistant for connectomics.

One decision flows through the packages in this order:

    cursor -> candidates -> views -> model -> suggestions -> decisions -> labels -> learning

`datasets` feeds the first half, `review` holds one person's session, `server`, `viewer` and the
page in `static/` show it. Points are nanometres in x, y, z order; segment ids are `int` in Python
and decimal text everywhere else.

For scripts, imported when first used:

    from cb2_assist import PointNm, open_assistant, open_labels

    with open_assistant("demo") as assistant, open_labels("sqlite:///labels.sqlite") as labels:
        found = assistant.suggest(PointNm(3000, 3000, 2000))
        assistant.decide(found.suggestions[0], "accept", labels=labels)
        assistant.undo(labels=labels)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cb2_assist.app import open_assistant, open_dataset
    from cb2_assist.assistant import Assistant
    from cb2_assist.core.errors import AssistError
    from cb2_assist.core.geometry import PointNm
    from cb2_assist.core.records import Kind, Site, Suggestion, SuggestionList, Verdict
    from cb2_assist.datasets.importer import import_volume
    from cb2_assist.decisions.labels import Labels, open_labels
    from cb2_assist.learning.export import export_labels

__version__ = "0.1.0"

__all__ = [
    "AssistError",
    "Assistant",
    "Kind",
    "Labels",
    "PointNm",
    "Site",
    "Suggestion",
    "SuggestionList",
    "Verdict",
    "export_labels",
    "import_volume",
    "open_assistant",
    "open_dataset",
    "open_labels",
]

_HOMES = {
    "app": ("open_assistant", "open_dataset"),
    "assistant": ("Assistant",),
    "core.errors": ("AssistError",),
    "core.geometry": ("PointNm",),
    "core.records": ("Kind", "Site", "Suggestion", "SuggestionList", "Verdict"),
    "datasets.importer": ("import_volume",),
    "decisions.labels": ("Labels", "open_labels"),
    "learning.export": ("export_labels",),
}


def __getattr__(name: str) -> object:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
