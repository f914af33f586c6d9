"""Which labels train and which validate, so that one neuron is not in both."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

SPLITS = ("train", "val")
_VAL_IN = 10
"""One group in so many validates."""


class Sample(NamedTuple):
    """What the split must know of a label."""

    key: str
    """Its hash: the order within a split."""
    segments: tuple[str, ...]
    """``dataset/id`` of every segment that it shows, the one that was asked about first."""


class Split(NamedTuple):
    """Positions of the samples in each split, in the order in which they are written."""

    train: list[int]
    val: list[int]
    rule: str
    """How it was made, in words."""


def split_samples(samples: Sequence[Sample]) -> Split:
    """Deal labels to train and val; the same labels are always dealt alike.

    Labels that share a segment stay together, whatever dataset version they are from. The largest
    such group trains; of the others those whose hash says so validate, one in ten, or the one with
    the least hash when that is none. Where all labels hang together, they are dealt by the segment
    that was asked about, and where that is one, by label. A single label is in both: a loader
    needs a row in each.
    """
    if len(samples) < 2:
        both = list(range(len(samples)))
        return Split(both, both, "one label: it is in train and in val" if both else "no labels")
    for rule, names in (
        ("labels that share a segment stay together", _connected(samples)),
        (
            "all labels hang together: by the segment that was asked about",
            [s.segments[0] for s in samples],
        ),
        ("all labels are about one segment: by label", [s.key for s in samples]),
    ):
        if len(set(names)) > 1:
            return _deal(samples, names, rule)
    raise ValueError("two samples have the same key")


def _deal(samples: Sequence[Sample], names: Sequence[str], rule: str) -> Split:
    sizes = Counter(names)
    largest = max(sizes, key=lambda name: (sizes[name], _hash(name)))
    others = sorted((name for name in sizes if name != largest), key=_hash)
    chosen = {name for name in others if _hash(name) % _VAL_IN == 0} or {others[0]}
    order = sorted(range(len(samples)), key=lambda i: samples[i].key)
    val = [i for i in order if names[i] in chosen]
    return Split([i for i in order if names[i] not in chosen], val, rule)


def _connected(samples: Sequence[Sample]) -> list[str]:
    """For each sample, the least segment that it is connected with through shared segments."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        at = parent.setdefault(name, name)
        while parent[at] != at:
            parent[at] = parent[parent[at]]
            at = parent[at]
        return at

    for sample in samples:
        first, *others = map(root, sample.segments)
        for other in map(root, others):
            a, b = sorted((root(first), other))
            parent[b] = a
    return [root(sample.segments[0]) for sample in samples]


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
