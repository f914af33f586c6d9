"""A dataset's saved state: base rates and recalibrations in force, never guessed within a batch.

One JSON file a dataset in the user's data folder, beside the labels. `calibrate` alone writes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cb2_assist.core.errors import AssistError, ModelError
from cb2_assist.core.records import BaseRate, Kind
from cb2_assist.suggestions.recalibration import Recalibration

FORMAT = 2
_READABLE = (1, 2)
"""Format 1 had base rates alone."""


@dataclass(frozen=True, slots=True)
class SavedState:
    """What `calibrate` found out about a dataset."""

    rates: Mapping[Kind, BaseRate]
    maps: Mapping[Kind, tuple[Recalibration, ...]] = field(default_factory=dict)
    """One for each set of views that answers rested on."""
    model_sha256: str = ""
    """Of the weights whose scores the maps take."""
    calibrator: str = ""
    """What of its calibrator's id names those scores, see `Calibrator.scores_id`."""
    version: int = 0
    """Grows with every change."""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    """Label file and figures behind it, as `calibrate --json` showed them."""

    def to_json(self) -> dict[str, Any]:
        """The document of the file."""
        return {
            "format": FORMAT,
            "version": self.version,
            "rates": {k.value: r.to_json() for k, r in self.rates.items()},
            "maps": {k.value: [m.to_json() for m in maps] for k, maps in self.maps.items()},
            "model_sha256": self.model_sha256,
            "calibrator": self.calibrator,
            "evidence": dict(self.evidence),
        }


NOTHING_SAVED = SavedState({})


def state_file(folder: Path, dataset: str) -> Path:
    """Where a dataset's state is kept below the user's data folder.

    Two names never share a file: one that had to be changed has a part of its SHA-256 behind it.
    """
    safe = re.sub(r"[^a-z0-9_.-]", "_", dataset)
    if safe != dataset:
        safe = f"{safe}-{hashlib.sha256(dataset.encode()).hexdigest()[:8]}"
    return folder / "base_rates" / f"{safe}.json"


def read_state(path: Path) -> SavedState:
    """The dataset's saved state; `NOTHING_SAVED` when there is no file.

    Raises:
        AssistError: It is damaged, or of a later version.
    """
    if not path.is_file():
        return NOTHING_SAVED
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        if saved["format"] not in _READABLE:
            raise ValueError(f"format {saved['format']!r}, known is {FORMAT}")  # noqa: TRY301
        return SavedState(
            {
                Kind(name): _checked(r["value"], str(r["source"]), int(r["n"]))
                for name, r in saved["rates"].items()
            },
            {
                Kind(name): tuple(Recalibration.from_json(m) for m in maps)
                for name, maps in saved.get("maps", {}).items()
            },
            str(saved.get("model_sha256", "")),
            str(saved.get("calibrator", "")),
            int(saved.get("version", 0)),
            dict(saved.get("evidence", {})),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise AssistError(
            f"The saved base rate {path} cannot be read ({e}). Delete the file to go back to the "
            "model's default, or write it anew: cb2-assist calibrate."
        ) from e


def write_state(path: Path, state: SavedState) -> None:
    """Replace a dataset's saved state, atomically.

    Raises:
        AssistError: It cannot be written; the earlier one is still there.
    """
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(state.to_json(), indent=1, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as e:
        raise AssistError(
            f"The calibration cannot be kept in {path}: {e.strerror or e}. Free some space or give "
            "yourself write access there, and run the command again."
        ) from e


def base_rates(state: SavedState, card: Mapping[str, Any]) -> dict[Kind, BaseRate]:
    """The dataset's saved rates, else the card's defaults.

    Raises:
        ModelError: The card has no defaults.
    """
    return {**defaults(card), **state.rates}


def defaults(card: Mapping[str, Any]) -> dict[Kind, BaseRate]:
    """The card's rates: the share of true sites among proposals on its training data.

    Raises:
        ModelError: The card has none.
    """
    try:
        return {k: _checked(card["base_rates"][k.value], "default", 0) for k in Kind}
    except (KeyError, TypeError, ValueError) as e:
        raise ModelError(
            f"The card of {card.get('name')!r} has no usable base rates ({e}). Train again, or "
            "restore the card."
        ) from e


def _checked(value: str | float, source: str, n: int) -> BaseRate:
    rate = float(value)
    if not 0 < rate < 1:
        raise ValueError(f"a base rate lies between 0 and 1, got {rate}")
    return BaseRate(rate, source, n)
