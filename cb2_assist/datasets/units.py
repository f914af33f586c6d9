"""Units of length as files write them."""

from __future__ import annotations

import math

UNITS_NM: dict[str, float] = {
    "nm": 1.0,
    "nanometer": 1.0,
    "nanometre": 1.0,
    "um": 1000.0,
    "µm": 1000.0,
    "μm": 1000.0,
    "micron": 1000.0,
    "micrometer": 1000.0,
    "micrometre": 1000.0,
    "mm": 1e6,
    "millimeter": 1e6,
    "å": 0.1,
    "angstrom": 0.1,
}
"""Nanometres in one unit, by its lower-case name."""


def nm_of(value: object, unit: object) -> float | None:
    """A length in nm; None when it is no positive number or the unit is not known."""
    try:
        nm = float(str(value)) * UNITS_NM[str(unit).lower()]
    except (KeyError, ValueError):
        return None
    return nm if math.isfinite(nm) and nm > 0 else None
