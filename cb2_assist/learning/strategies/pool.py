"""What a strategy may know of the sites."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """n sites; every column has a row a site, NaN where a number is not known, or is absent.

    Attributes:
        labelled: Sites that have been asked, (n,): never asked again, but strategies that spread
            over the data keep away from them.
        score: The model at a 50:50 prior, 0..1, (n,).
        confidence: Probability at the base rate in force, 0..1, (n,).
        views: What each view says alone, 0..1, (n, V).
        embedding: What the decision head sees, (n, D).
        contact: Area of the contact, (n,); any unit.
        size: Volume of the smaller side, (n,); any unit.
        gain: What an accepted site is worth, (n,); any unit. See `gain`.
        seconds: What the answer takes, (n,).
    """

    labelled: Bools
    score: Floats | None = None
    confidence: Floats | None = None
    views: Floats | None = None
    embedding: NDArray[np.float32] | None = None
    contact: Floats | None = None
    size: Floats | None = None
    gain: Floats | None = None
    seconds: Floats | None = None

    def __len__(self) -> int:
        return len(self.labelled)

    @property
    def open(self) -> Rows:
        """Rows that may be asked."""
        return np.flatnonzero(~self.labelled)

    def take(self, rows: Rows) -> Pool:
        """Some of the sites."""
        rest = {f.name: getattr(self, f.name) for f in fields(self)[1:]}
        some = {name: None if v is None else v[rows] for name, v in rest.items()}
        return Pool(self.labelled[rows], **some)

    def without(self, rows: Rows) -> Pool:
        """The same pool after some of its sites have been asked."""
        labelled = self.labelled.copy()
        labelled[rows] = True
        return replace(self, labelled=labelled)

    def column(self, name: str) -> NDArray[np.floating]:
        """A column that is there; the registry has made sure of it."""
        values: NDArray[np.floating] | None = getattr(self, name)
        assert values is not None, name
        return values

    def usable(self, needs: tuple[str, ...]) -> Bools:
        """Rows in which the named columns hold numbers; of the views one is enough."""
        good = np.ones(len(self), bool)
        for name in needs:
            known = np.isfinite(self.column(name))
            wide = known.any(axis=1) if name == "views" else known.reshape(len(self), -1).all(1)
            good &= wide
        return good
