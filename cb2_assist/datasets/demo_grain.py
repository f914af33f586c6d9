"""The noise of the demo's micrographs, added when it is unpacked.

A section is shipped as few grey levels without noise, which compress well. The 8-bit image is made
from them with integers only, the same on every machine; that image is the demo's EM: what was
segmented and what is shown are the same bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

STEP = 6
"""Grey levels (of 256) in one stored level."""

_RIM = 3
"""Pixels of noise beyond each edge that the blurs use up."""

Whole = NDArray[np.signedinteger[Any]]


def _mixed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64 finaliser of each word (Steele, Lea & Flood 2014, OOPSLA)."""
    z = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _binomial(w: Whole) -> Whole:
    """Sum with weights (1, 2, 1) along both axes; 2 smaller along each; 16 times the range."""
    row = w[:-2] + w[2:] + 2 * w[1:-1]
    out: Whole = row[:, :-2] + row[:, 2:] + 2 * row[:, 1:-1]
    return out


def add_noise(levels: NDArray[np.uint8], index: int, seed: int) -> NDArray[np.uint8]:
    """The 8-bit micrograph of one whole section.

    Shot noise, slightly blurred as by a detector, and grains of a few pixels that stand out more
    where the section is bright.

    Args:
        levels: Stored levels ``[y, x]`` of the whole section; 0 means that it is missing.
        index: Section, which chooses the noise.
        seed: Seed of the demo.
    """
    height, width = levels.shape
    count = (height + 2 * _RIM) * (width + 2 * _RIM)
    first = np.array([(seed << 32) + (index << 20)], np.uint64)
    words = _mixed(_mixed(first) + np.arange((count + 7) // 8, dtype=np.uint64))
    white = words.astype("<u8").view(np.uint8)[:count].reshape(height + 2 * _RIM, -1)
    # 8 bits and two times a factor of 16 fit into 16 bits, which halves the time
    w = white.astype(np.int16) - np.int16(128)
    fine = _binomial(w)
    grain = _binomial(_binomial(fine).astype(np.int32))[:, ::-1]
    shot = fine[2:-2, 2:-2] * 2 + w[3:-3, 3:-3] * 8
    grey = levels * np.int16(STEP) + (shot >> 7) + ((grain * levels) >> 18).astype(np.int16)
    grey[levels == 0] = 0
    image: NDArray[np.uint8] = np.clip(grey, 0, 255).astype(np.uint8)
    return image


def micrographs(levels: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """The EM ``[z, y, x]`` of stored levels."""
    return np.stack([add_noise(section, k, seed) for k, section in enumerate(levels)])
