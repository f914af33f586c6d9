"""The base rate in force: part of a dataset's saved state, never guessed within a batch."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cb2_assist.core.errors import AssistError, ModelError
from cb2_assist.core.records import BaseRate, Kind

FORMAT = 1


def state_file(folder: Path, dataset: str) -> Path:
    """Where a dataset's base rates are kept below the user's data folder."""
    return folder / "base_rates" / (re.sub(r"[^A-Za-z0-9_.-]", "_", dataset) + ".json")


def read_base_rates(path: Path, card: Mapping[str, Any]) -> dict[Kind, BaseRate]:
    """The dataset's saved rates, else the card's defaults.

    Raises:
        AssistError: The saved state is damaged.
        ModelError: The card has no defaults.
    """
    rates = defaults(card)
    if not path.is_file():
        return rates
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        if saved["format"] != FORMAT:
            raise ValueError(f"format {saved['format']!r}, known is {FORMAT}")  # noqa: TRY301
        for name, rate in saved["rates"].items():
            rates[Kind(name)] = _checked(rate["value"], str(rate["source"]), int(rate["n"]))
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise AssistError(
            f"The saved base rate {path} cannot be read ({e}). Delete the file to go back to the "
            "model's default."
        ) from e
    return rates


def write_base_rates(path: Path, rates: Mapping[Kind, BaseRate]) -> None:
    """Replace a dataset's saved rates, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    body = {"format": FORMAT, "rates": {k.value: r.to_json() for k, r in rates.items()}}
    temporary.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


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
