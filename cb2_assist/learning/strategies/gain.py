"""What an accepted edit is worth, for `Pool.gain`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def split_bits(a: Floats, b: Floats) -> Floats:
    """Entropy that joining two pieces of one body takes away, in bits times the unit of size.

    (a + b) log2(a + b) - a log2 a - b log2 b: what a true join of pure pieces takes off
    H(segmentation | truth), times the volume (variation of information, Meila 2007,
    doi:10.1016/j.jmva.2006.11.013); a right cut takes as much off H(truth | segmentation).

    Args:
        a: Size of one side, in any unit, (n,).
        b: Size of the other.
    """
    return x_log_x(a + b) - x_log_x(a) - x_log_x(b)


def x_log_x(x: Floats) -> Floats:
    """The function x log2 x, which is 0 at 0."""
    out: Floats = x * np.log2(np.where(x > 0, x, 1.0))
    return out
