"""A proofreader who knows the truth goes through touching pairs in some order.

Accepted joins are made at once, wrong ones too. What follows from earlier answers is not asked any
more, whatever the order: pairs that have become one segment through others, and pairs between two
joined groups that were told apart at another of their contacts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cb2_assist.learning.ground import Ground
from cb2_assist.learning.overlaps import JoinedSegments
from cb2_assist.learning.run_length import Runs
from cb2_assist.learning.strategies.gain import split_bits
from cb2_assist.learning.strategies.pool import Floats, Pool, Rows
from cb2_assist.learning.strategies.registry import Strategy

BATCH = 10
"""Sites that a strategy which spreads a batch chooses at once."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One decision."""

    pair: int
    """Row of the pair table."""
    is_true: bool
    accepted: bool
    propensity: float
    """Probability that this pair was next, given what had been asked; NaN within a batch that is
    drawn at random as a whole."""
    change: float
    """Of the VOI, bits."""


@dataclass(slots=True)
class Curve:
    """What came of one order; every list begins before the first decision."""

    voi_split: list[float] = field(default_factory=list)
    voi_merge: list[float] = field(default_factory=list)
    erl_nm: list[float] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    seconds: float = 0.0

    def note(self, joined: JoinedSegments, runs: Runs) -> None:
        """Where things stand."""
        self.voi_split.append(joined.voi_split)
        self.voi_merge.append(joined.voi_merge)
        self.erl_nm.append(runs.expected_nm)

    @property
    def voi(self) -> Floats:
        """Split and merge together, (decisions + 1,)."""
        out: Floats = np.array(self.voi_split) + np.array(self.voi_merge)
        return out

    def to_json(self, name: str, ground: Ground) -> dict[str, Any]:
        """The document of ``curve.json``."""
        found = np.cumsum([0] + [a.is_true for a in self.asked])
        right = np.cumsum([0] + [a.is_true and a.accepted for a in self.asked])
        wrong = np.cumsum([0] + [a.accepted and not a.is_true for a in self.asked])
        n = np.arange(len(found))
        return {
            "strategy": name,
            "decisions": n.tolist(),
            "voi_split": self.voi_split,
            "voi_merge": self.voi_merge,
            "erl_nm": self.erl_nm,
            "precision": [1.0, *(found[1:] / n[1:]).tolist()],
            "true_joins_found": found.tolist(),
            "right_edits": right.tolist(),
            "wrong_edits": wrong.tolist(),
            "seconds": self.seconds,
            "asked": [
                {
                    "segment": str(int(ground.pairs.a[a.pair])),
                    "partner": str(int(ground.pairs.b[a.pair])),
                    "point_nm": ground.pairs.point_nm[a.pair].tolist(),
                    "true": a.is_true,
                    "accepted": a.accepted,
                    "propensity": None if np.isnan(a.propensity) else a.propensity,
                }
                for a in self.asked
            ],
        }


class _State:
    """How far one run has come."""

    def __init__(
        self, joined: JoinedSegments, runs: Runs, voxels: Floats, a: Rows, b: Rows
    ) -> None:
        self.joined, self.runs, self._size = joined.copy(), runs.copy(), voxels.copy()
        self._a, self._b = a, b
        self.closed = np.zeros(len(a), bool)
        """Pairs that were asked, or of which the answer follows."""
        self._apart: dict[int, set[int]] = {}

    @property
    def gain(self) -> Floats:
        """What each pair's groups would lose in entropy, if it is a true join."""
        group = self.joined.group
        return split_bits(self._size[group[self._a]], self._size[group[self._b]])

    def accept(self, row: int) -> None:
        """Join a pair."""
        self.closed[row] = True
        groups = self.joined.join(int(self._a[row]), int(self._b[row]))
        if groups is None:
            return
        kept, gone = groups
        self.runs.join(kept, gone)
        self._size[kept] += self._size[gone]
        others = self._apart.pop(gone, set()) - {kept}
        for other in others:
            self._apart[other] = (self._apart[other] - {gone}) | {kept}
        self._apart[kept] = (self._apart.get(kept, set()) | others) - {gone}
        self._close(kept, self._apart[kept] | {kept})

    def reject(self, row: int) -> None:
        """Keep a pair apart."""
        self.closed[row] = True
        group = self.joined.group
        i, j = int(group[self._a[row]]), int(group[self._b[row]])
        self._apart.setdefault(i, set()).add(j)
        self._apart.setdefault(j, set()).add(i)
        self._close(i, {j})

    def _close(self, group: int, others: set[int]) -> None:
        """No more questions between a group and some others."""
        i, j = self.joined.group[self._a], self.joined.group[self._b]
        there = np.array(sorted(others))
        self.closed |= ((i == group) & np.isin(j, there)) | ((j == group) & np.isin(i, there))


class Simulation:
    """A volume whose pairs wait for decisions; every run starts from the same state."""

    def __init__(self, ground: Ground, pool: Pool) -> None:
        """Nothing is decided.

        Args:
            ground: The volume.
            pool: One row a pair; gain is worked out anew while segments grow, and taken from
                their sizes.
        """
        self.ground, self.pool = ground, pool
        segments = ground.segments
        self._joined = JoinedSegments(ground.overlaps, segments)
        self._runs = Runs(ground.skeletons, segments)
        self._a = np.searchsorted(segments, ground.pairs.a)
        self._b = np.searchsorted(segments, ground.pairs.b)
        self._voxels = np.zeros(len(segments))
        self._voxels[self._a] = ground.pairs.voxels_a
        self._voxels[self._b] = ground.pairs.voxels_b

    def with_pool(self, pool: Pool) -> Simulation:
        """The same volume with other numbers."""
        return Simulation(self.ground, pool)

    def run(
        self, strategy: Strategy, decisions: int, *, seed: int, error_rate: float = 0.0
    ) -> Curve:
        """Decide so many pairs, or all there are.

        Args:
            strategy: Chooses.
            decisions: Most to make.
            seed: Of what is random in the strategy and of the proofreader's errors.
            error_rate: Share of answers that are wrong, each independent of the others.

        Raises:
            UsageError: The strategy needs a number that is not known.
        """
        start = time.perf_counter()
        rng = np.random.default_rng(seed)
        errs = np.random.default_rng([seed, 1]).random(len(self._a)) < error_rate
        state, curve, is_true = self._begin(), Curve(), self.ground.is_true
        curve.note(state.joined, state.runs)
        while len(curve.asked) < decisions:
            pool = replace(self.pool, labelled=state.closed, gain=state.gain)
            k = 1 if strategy.is_sorted or strategy.first else BATCH
            rows = strategy.order(pool, min(k, decisions - len(curve.asked)), rng)
            if not len(rows):
                break
            chances = strategy.chances(pool) if strategy.first else None
            for row in rows.tolist():
                if state.closed[row]:  # by another of this batch
                    continue
                accepted = bool(is_true[row] != errs[row])
                before = state.joined.voi
                (state.accept if accepted else state.reject)(row)
                chance = 1.0 if chances is None else float(chances[row])
                change = state.joined.voi - before
                curve.asked.append(Asked(row, bool(is_true[row]), accepted, chance, change))
                curve.note(state.joined, state.runs)
        curve.seconds = time.perf_counter() - start
        return curve

    def oracle(self, decisions: int) -> Curve:
        """Who knows the truth and asks, each time, the true join that mends most.

        Greedy by the change of the VOI; ends when no true join makes it smaller. No order of the
        same answers is known to be better, though greedy is not proved to be best.
        """
        start = time.perf_counter()
        state, curve = self._begin(), Curve()
        joined = state.joined
        left = np.flatnonzero(self.ground.is_true)
        change = np.array([joined.change(self._a[r], self._b[r]) for r in left])
        curve.note(joined, state.runs)
        while len(curve.asked) < decisions and len(left) and change.min() < 0:
            best = int(change.argmin())
            row = int(left[best])
            curve.asked.append(Asked(row, True, True, 1.0, float(change[best])))
            state.accept(row)
            curve.note(joined, state.runs)
            group = joined.group[self._a[row]]
            ends = joined.group[self._a[left]], joined.group[self._b[left]]
            for k in np.flatnonzero((ends[0] == group) | (ends[1] == group)):
                change[k] = joined.change(self._a[left[k]], self._b[left[k]])
        curve.seconds = time.perf_counter() - start
        return curve

    def _begin(self) -> _State:
        return _State(self._joined, self._runs, self._voxels, self._a, self._b)


@dataclass(frozen=True, slots=True)
class Share:
    """A strategy's share of the oracle's area, with its 95 % interval."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, Any]:
        """As in ``summary.json``."""
        return {"value": self.value, "ci95": [self.low, self.high]}


class Shares:
    """Areas under VOI curves, from random order (0) to the oracle's (1).

    (random - s) / (random - oracle), each the sum of the VOI after 0, 1, ... decisions; the random
    one is the mean of several orders. A curve that ends early stays where it is. Intervals
    resample the true bodies that the pairs' smaller sides belong to: each join's change of the VOI
    counts as often as its body is drawn, while orders and answers stay as they are.
    """

    def __init__(
        self, ground: Ground, random: list[Curve], oracle: Curve, decisions: int, draws: int
    ) -> None:
        """Prepare the resampling.

        Args:
            ground: The volume.
            random: Curves of random orders.
            oracle: The oracle's curve.
            decisions: Over so many.
            draws: Resamples.
        """
        p = ground.pairs
        small = np.where(p.voxels_a <= p.voxels_b, p.truth_a, p.truth_b)
        self._body: NDArray[np.intp] = np.unique(small, return_inverse=True)[1].ravel()
        n = int(self._body.max()) + 1
        self._n, self._decisions = n, decisions
        rng = np.random.default_rng(0)
        drawn = rng.multinomial(n, np.full(n, 1 / n), draws)
        self._weights = np.concatenate([np.ones((1, n)), drawn])
        self._random = np.mean([self._by_body(c) for c in random], axis=0)
        self._reach = self._weights @ (self._by_body(oracle) - self._random)

    @property
    def clusters(self) -> int:
        """Bodies that are resampled."""
        return self._n

    def of(self, curve: Curve) -> Share:
        """A strategy's share."""
        return self._share(self._by_body(curve) - self._random)

    def above(self, curve: Curve, other: Curve) -> Share:
        """How far a strategy's share lies above another's, on the same draws."""
        return self._share(self._by_body(curve) - self._by_body(other))

    def _by_body(self, curve: Curve) -> Floats:
        """What each body's joins took off the area."""
        out = np.zeros(self._n)
        for k, a in enumerate(curve.asked[: self._decisions]):
            out[self._body[a.pair]] -= a.change * (self._decisions - k)
        return out

    def _share(self, taken: Floats) -> Share:
        with np.errstate(divide="ignore", invalid="ignore"):
            found = self._weights @ taken / self._reach
        drawn = found[1:][np.isfinite(found[1:])]
        low, high = np.quantile(drawn, (0.025, 0.975)) if len(drawn) else (np.nan, np.nan)
        return Share(float(found[0]), float(low), float(high))


def summary_lines(summary: dict[str, Any]) -> Iterator[str]:
    """``summary.json`` in words."""
    yield (
        f"{summary['dataset']}: {summary['candidates']} pairs, {summary['true_joins']} true joins; "
        f"VOI split {summary['start']['voi_split']:.3f}, merge {summary['start']['voi_merge']:.3f}"
    )
    for name, found in summary["strategies"].items():
        share = found["share"]
        told = "no share"
        if share is not None:
            low, high = share["ci95"]
            told = f"share of the oracle's area {share['value']:.3f} [{low:.3f}, {high:.3f}]"
        yield (
            f"{name}: {told}, {found['true_joins_found']} true joins in {found['decisions']} "
            f"decisions, VOI {found['voi']:.3f}, run length {found['erl_nm']:.0f} nm"
        )
