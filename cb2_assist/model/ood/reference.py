"""Where the training decisions of each question lie, and what was usual on held-out ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.records import Kind
from cb2_assist.model.ood.distances import DISTANCES, Floats, Space

Tensor = NDArray[np.floating[Any]]

PREFIX, _PERCENTILES = "ood", "percentiles"
_STEPS = 101
_SHAPES = {
    "means": (None, "D"),
    "whiten": ("D", "D"),
    "background_mean": (1, "D"),
    "background_whiten": ("D", "D"),
    "sample": (None, "D"),
    "seen_means": (None, "A"),
    "seen_whiten": ("A", "A"),
    "scales": (2,),
}
"""Of each tensor that a distance may need; None is any length above 0, D and A are the widths of
the decision embedding and of appearance."""
_WIDTH_OF = {"means": "D", "sample": "D", "seen_means": "A"}


@dataclass(frozen=True, slots=True, eq=False)
class TaskReference:
    """One question's training decisions.

    Attributes:
        tensors: What the distances need, by name; shapes are those of `distances`.
        percentiles: By distance: float32, (101,), distances below which 0..100 % of held-out
            decisions lie.
    """

    tensors: Mapping[str, Tensor]
    percentiles: Mapping[str, NDArray[np.float32]]

    def __post_init__(self) -> None:
        """Refuse what cannot be used.

        Raises:
            ValueError: A shape is wrong, or a distance lacks what it needs.
        """
        width = {
            _WIDTH_OF[name]: t.shape[-1]
            for name, t in self.tensors.items()
            if name in _WIDTH_OF and t.ndim
        }
        for name, tensor in self.tensors.items():
            known = _SHAPES.get(name, ())
            wanted = tuple(width.get(s, -1) if isinstance(s, str) else s for s in known)
            shape = tensor.shape
            if len(shape) != len(wanted) or not all(
                got == want or (want is None and got > 0)
                for got, want in zip(shape, wanted, strict=True)
            ):
                raise ValueError(f"{name} has shape {shape}")
        for method, at in self.percentiles.items():
            if method not in DISTANCES or at.shape != (_STEPS,):
                raise ValueError(f"percentiles of {method} have shape {at.shape}")
            lacking = set(DISTANCES[method].needs) - set(self.tensors)
            if lacking:
                raise ValueError(f"{method} lacks {', '.join(sorted(lacking))}")

    @property
    def width(self) -> int:
        """Of the decision embedding; 0 where no distance reads it."""
        return next(
            (self.tensors[k].shape[-1] for k in ("means", "sample") if k in self.tensors), 0
        )

    @property
    def seen_width(self) -> int:
        """Of appearance; 0 where no distance reads it."""
        return self.tensors["seen_means"].shape[-1] if "seen_means" in self.tensors else 0

    def distance(self, method: str, vectors: Tensor) -> Floats:
        """Distances, (n,).

        Args:
            method: One of `percentiles`.
            vectors: Decision embeddings (n, D), followed by appearance where the method reads it,
                (n, D + A).
        """
        of, D = DISTANCES[method], self.width
        x = {
            Space.DECISION: vectors[:, :D],
            Space.APPEARANCE: vectors[:, D:],
            Space.BOTH: vectors,
        }[of.space]
        return of.of(x, *(self.tensors[name] for name in of.needs))


@dataclass(frozen=True, slots=True, eq=False)
class OodReference:
    """Where the training decisions lie, in the decision embedding.

    Attributes:
        default: The distance behind `core.records.Ood`; one of `distances.DISTANCES`.
        tasks: By question; one that was never trained has none.
    """

    default: str
    tasks: Mapping[Kind, TaskReference]

    def __post_init__(self) -> None:
        """Refuse a default that a question does not have.

        Raises:
            ValueError: It has not, or there is no question.
        """
        if not self.tasks or any(self.default not in t.percentiles for t in self.tasks.values()):
            raise ValueError(f"there is no reference for the distance {self.default!r}")

    @property
    def widths(self) -> set[int]:
        """Of the decision embeddings that it can be asked about: one, unless it is damaged."""
        return {task.width for task in self.tasks.values()}

    @property
    def seen_widths(self) -> set[int]:
        """Of appearance: one, 0 where it is not read, unless the reference is damaged."""
        return {task.seen_width for task in self.tasks.values()}

    @property
    def reads_appearance(self) -> bool:
        """Whether vectors must have appearance behind the embedding."""
        return any(self.seen_widths)

    @property
    def methods(self) -> tuple[str, ...]:
        """The distances that every question has."""
        return tuple(m for m in DISTANCES if all(m in t.percentiles for t in self.tasks.values()))

    def distance(
        self, embeddings: Tensor, kinds: Sequence[Kind], method: str | None = None
    ) -> Floats:
        """Distances, (n,), of n decisions; NaN for a question without a reference.

        Args:
            embeddings: As for `TaskReference.distance`.
            kinds: Which question each is.
            method: One of `methods`; None is the default.
        """
        out = np.full(len(embeddings), np.nan)
        for kind, task in self.tasks.items():
            rows = np.array([k is kind for k in kinds], bool)
            if rows.any():
                out[rows] = task.distance(method or self.default, embeddings[rows])
        return out

    def percentile(self, kind: Kind, distance: float, method: str | None = None) -> float:
        """Share in percent of held-out decisions that lie nearer; 100 where nothing is known."""
        task = self.tasks.get(kind)
        if task is None or not math.isfinite(distance):
            return 100.0
        at = task.percentiles[method or self.default]
        return float(np.interp(distance, at, np.arange(float(_STEPS))))

    def to_tensors(self) -> dict[str, Tensor]:
        """By name in a weights file: ``ood.join.means``, ``ood.join.percentiles.neighbour``."""
        out: dict[str, Tensor] = {}
        for kind, task in self.tasks.items():
            out |= {f"{PREFIX}.{kind.value}.{name}": t for name, t in task.tensors.items()}
            out |= {
                f"{PREFIX}.{kind.value}.{_PERCENTILES}.{method}": at
                for method, at in task.percentiles.items()
            }
        return out


def from_tensors(default: str, tensors: Mapping[str, Tensor]) -> OodReference:
    """Undo `OodReference.to_tensors`; tensors of other names are passed over.

    Raises:
        ValueError: They are not a reference.
    """
    tasks = {}
    for kind in Kind:
        start = f"{PREFIX}.{kind.value}."
        mine = {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
        at = f"{_PERCENTILES}."
        percentiles = {k.removeprefix(at): v for k, v in mine.items() if k.startswith(at)}
        if mine:
            tasks[kind] = TaskReference(
                {k: v for k, v in mine.items() if not k.startswith(at)},
                {k: v.astype(np.float32) for k, v in percentiles.items()},
            )
    return OodReference(default, tasks)


def of_one_gaussian(mean: Tensor, whiten: Tensor, percentiles: Tensor) -> OodReference:
    """A reference of card format 1: one Gaussian of all training decisions of all questions.

    Args:
        mean: (D,).
        whiten: (D, D).
        percentiles: (101,).

    Raises:
        ValueError: The shapes do not fit.
    """
    task = TaskReference(
        {"means": np.atleast_2d(mean), "whiten": whiten},
        {"mahalanobis": percentiles.astype(np.float32)},
    )
    return OodReference("mahalanobis", dict.fromkeys(Kind, task))
