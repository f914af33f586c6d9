"""`cb2-assist simulate`: orders of asking, compared on a volume with truth."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.errors import AssistError, DatasetError, UsageError
from cb2_assist.datasets.local import LocalSource, open_dataset_file
from cb2_assist.learning.examples import PairTable, Volume, touching_pairs
from cb2_assist.learning.ground import Ground, boil_down, load, save
from cb2_assist.learning.judge_volume import fit_trees, simple_of, simple_rows
from cb2_assist.learning.prepare import load_volume
from cb2_assist.learning.scored_pairs import Judge, ScoredPairs, score_pairs
from cb2_assist.learning.simulated import Curve, Shares, Simulation
from cb2_assist.learning.strategies.pool import Floats, Pool
from cb2_assist.learning.strategies.registry import STRATEGIES, Strategy
from cb2_assist.learning.svg_lines import Line, line_chart
from cb2_assist.learning.truth_input import read_truth

Say = Callable[[str], None]

CURVE, SUMMARY, PLOT = "curve.json", "summary.json", "voi.svg"
BOOSTED, BOOSTED_VALUE = "boosted", "boosted value"
"""Orders by boosted trees, which stand beside the strategies when there is something to learn."""
_CHEAP = ("contact", "size")
"""Orders without a model, which stand beside every strategy."""


class Answering(Judge, Protocol):
    """The assistant, opened when its numbers are needed."""

    def close(self) -> None:
        """Let go of threads and files."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to simulate.

    Attributes:
        strategies: Names in the registry.
        decisions: Most of each order.
        out: Folder for curves and for what runs share.
        truth: Instead of the dataset's own; see `truth_input.read_truth`.
        error_rate: Share of the proofreader's answers that are wrong.
        z_range: Only contacts with lo <= z < hi, absolute voxels; run length and VOI are of that
            part too.
        candidates: Most pairs, drawn at random; None: all.
        training: Dataset file that boosted trees learn from, with contacts below ``below_z``.
        orders: Random ones, whose mean is the share 0.
        draws: Resamples behind the intervals.
        seed: Of everything random.
    """

    strategies: tuple[str, ...]
    decisions: int
    out: Path
    truth: str | None = None
    error_rate: float = 0.0
    z_range: tuple[int, int] = (0, 2**31)
    candidates: int | None = None
    training: Path | None = None
    below_z: int = 0
    orders: int = 20
    draws: int = 1000
    seed: int = 0


def simulate(
    request: Request,
    source: LocalSource,
    card: Mapping[str, Any],
    open_judge: Callable[[], Answering],
    say: Say,
) -> dict[str, Any]:
    """Run every order; writes curves, a summary and a plot into the request's folder.

    Args:
        request: What is wanted.
        source: The dataset.
        card: Of the model that judges.
        open_judge: Opens the assistant on that dataset; not called when no order needs a model.
        say: Told about progress.

    Returns:
        What is in ``summary.json``.

    Raises:
        DatasetError: There is no truth, or nothing to ask.
        UsageError: A strategy does not exist.
        AssistError: The folder cannot be written.
    """
    wanted = {name: STRATEGIES.find(name) for name in request.strategies}
    seen = seen_of(card, source)
    if seen is not None and seen > request.z_range[0]:
        say(
            f"{card['name']} learnt from z < {seen} of {source.info.name}: its numbers there are "
            f"better than on anything new. --from-z {seen} leaves that part out."
        )
    ground = _ground(request, source, say)
    needs_model = any(set(s.needs) - {"contact", "size", "gain"} for s in wanted.values())
    scored = None
    if needs_model or request.training is not None:
        judge = open_judge()
        try:
            about = {"dataset": source.info.name, "version": source.info.version}
            scored = score_pairs(judge, ground.pairs, request.out / "scores", about, say)
        finally:
            judge.close()
    simulation = Simulation(ground, pool_of(ground, scored))
    runs: dict[str, tuple[Simulation, Strategy]] = {n: (simulation, s) for n, s in wanted.items()}
    for name in _CHEAP:
        runs.setdefault(name, (simulation, STRATEGIES[name]))
    if request.training is not None and scored is not None:
        p = _boosted(request, scored, say)
        boosted = simulation.with_pool(replace(simulation.pool, score=p, confidence=p))
        runs[BOOSTED] = boosted, STRATEGIES["confidence"]
        runs[BOOSTED_VALUE] = boosted, STRATEGIES["value"]
    curves = {}
    for name, (on, strategy) in runs.items():
        curves[name] = on.run(
            strategy, request.decisions, seed=request.seed, error_rate=request.error_rate
        )
        say(f"{name}: {len(curves[name].asked)} decisions in {curves[name].seconds:.1f} s")
    random = [
        simulation.run(
            STRATEGIES["random"],
            request.decisions,
            seed=request.seed + 1 + k,
            error_rate=request.error_rate,
        )
        for k in range(request.orders)
    ]
    oracle = simulation.oracle(request.decisions)
    summary = _summary(request, source, card, seen, ground, curves, random, oracle)
    _write(request, ground, summary, curves, random, oracle)
    return summary


def seen_of(card: Mapping[str, Any], source: LocalSource) -> int | None:
    """The plane below which a model learnt from a dataset or was calibrated on it.

    Datasets are told by name or version as the card has them; None: the card names neither.
    """
    info = source.info
    known = [d for d in card.get("data", ()) if info.name == d.get("name")]
    known += [d for d in card.get("data", ()) if info.version == d.get("version")]
    if not known:
        return None
    split = card.get("split") or {}
    ends = [split.get("train_below_z_vx") or 0, *(split.get("validation_z_vx") or ())]
    return int(max(ends))


def pool_of(ground: Ground, scored: ScoredPairs | None) -> Pool:
    """What strategies may know of the pairs; all take the same time."""
    p = ground.pairs
    pool = Pool(
        labelled=np.zeros(len(p), bool),
        contact=p.faces.astype(np.float64),
        size=np.minimum(p.voxels_a, p.voxels_b).astype(np.float64),
        seconds=np.ones(len(p)),
    )
    if scored is None:
        return pool
    return replace(
        pool,
        score=scored.score,
        confidence=scored.confidence,
        views=scored.views,
        embedding=scored.embedding if scored.embedding.shape[1] else None,
    )


def _ground(request: Request, source: LocalSource, say: Say) -> Ground:
    """The volume boiled down; kept beside the curves, since that takes minutes."""
    low, high = request.z_range
    info = source.info
    of = [info.name, info.version, request.truth, low, high, tuple(source.bounds.lo)]
    name = hashlib.sha256(json.dumps(of).encode()).hexdigest()[:12]
    path = request.out / f"ground-{name}.npz"
    if path.is_file():
        ground = load(path)
    else:
        ground = boil_down(_volume(request, source), (low, high), say)
        save(ground, path)
    if request.candidates is None or request.candidates >= len(ground.pairs):
        return ground
    rows = np.random.default_rng(request.seed).permutation(len(ground.pairs))
    return replace(ground, pairs=ground.pairs.take(np.sort(rows[: request.candidates])))


def _volume(request: Request, source: LocalSource) -> Volume:
    if request.truth is None:
        return load_volume(source)
    cutout = source.cutout(source.bounds)
    truth = read_truth(request.truth, cutout.box, cutout.resolution)
    return Volume(source.info.name, cutout.box, cutout.resolution, cutout.em, cutout.seg, truth)


def _boosted(request: Request, scored: ScoredPairs, say: Say) -> Floats:
    """What boosted trees on simple features say of the pairs, at equal priors."""
    assert request.training is not None
    learnt, table = _training(request.training, request.below_z)
    path = request.out / "scores" / "boosted.npy"
    digest = hashlib.sha256(np.ascontiguousarray(table.point_nm).tobytes()).hexdigest()[:12]
    path = path.with_name(f"boosted-{digest}.npy")
    if path.is_file():
        rows: NDArray[np.float32] = np.load(path, allow_pickle=False)
    else:
        say(f"boosted trees: measuring {len(table)} pairs of {request.training}")
        rows = simple_rows(learnt, table, _EXTENT_NM)
        np.save(path, rows, allow_pickle=False)
    p: Floats = fit_trees(rows, table.same).predict_proba(simple_of(scored.features))[:, 1]
    return np.where(np.isfinite(scored.score), p, np.nan)


_EXTENT_NM = 640.0
"""Half width of the window in which the simple features are measured, as the shipped model's."""


def _training(path: Path, below_z: int) -> tuple[Volume, PairTable]:
    source = open_dataset_file(path)
    try:
        volume = load_volume(source).below_z(below_z)
    finally:
        source.close()
    table = touching_pairs(volume)
    table = table.take(table.pure() & (table.contact_z < below_z))
    if table.same.all() or not table.same.any():
        raise DatasetError(f"{path} has no pairs of both answers below z {below_z}.")
    return volume, table


def _summary(
    request: Request,
    source: LocalSource,
    card: Mapping[str, Any],
    seen: int | None,
    ground: Ground,
    curves: Mapping[str, Curve],
    random: list[Curve],
    oracle: Curve,
) -> dict[str, Any]:
    shares = Shares(ground, random, oracle, request.decisions, request.draws)
    baselines = [n for n in (*_CHEAP, BOOSTED) if n in curves]
    best = max(baselines, key=lambda n: shares.of(curves[n]).value)
    has_room = random[0].voi[0] - oracle.voi[-1] > 0
    told: dict[str, Any] = {}
    for name, curve in {**curves, "oracle": oracle}.items():
        told[name] = {
            "share": shares.of(curve).to_json() if has_room else None,
            "above_best_baseline": shares.above(curve, curves[best]).to_json()
            if has_room
            else None,
            "decisions": len(curve.asked),
            "true_joins_found": sum(a.is_true for a in curve.asked),
            "wrong_edits": sum(a.accepted and not a.is_true for a in curve.asked),
            "voi_split": curve.voi_split[-1],
            "voi_merge": curve.voi_merge[-1],
            "voi": float(curve.voi[-1]),
            "erl_nm": curve.erl_nm[-1],
            "seconds": curve.seconds,
        }
    return {
        "dataset": source.info.name,
        "version": source.info.version,
        "z_vx": [request.z_range[0], min(request.z_range[1], source.bounds.hi.z)],
        "model": str(card.get("name")),
        "model_learnt_below_z": seen,
        "model_has_seen": seen is not None and seen > request.z_range[0],
        "candidates": len(ground.pairs),
        "true_joins": int(ground.is_true.sum()),
        "decisions": request.decisions,
        "error_rate": request.error_rate,
        "start": {
            "voi_split": random[0].voi_split[0],
            "voi_merge": random[0].voi_merge[0],
            "erl_nm": random[0].erl_nm[0],
        },
        "best_baseline": best,
        "random": {
            "orders": len(random),
            "voi": float(np.mean([c.voi[-1] for c in random])),
            "true_joins_found": float(np.mean([sum(a.is_true for a in c.asked) for c in random])),
        },
        "interval": {
            "level": 0.95,
            "draws": request.draws,
            "method": "percentiles of a bootstrap over the true bodies of the pairs' smaller "
            "sides; orders and answers stay as they are",
            "clusters": shares.clusters,
        },
        "strategies": told,
    }


def _write(
    request: Request,
    ground: Ground,
    summary: Mapping[str, Any],
    curves: Mapping[str, Curve],
    random: list[Curve],
    oracle: Curve,
) -> None:
    """One curve lies in the folder itself, several each in one of its own."""
    out = request.out
    try:
        for name in {**curves, "oracle": oracle}:
            curve = oracle if name == "oracle" else curves[name]
            folder = out / name.replace(" ", "-")
            folder.mkdir(parents=True, exist_ok=True)
            text = json.dumps(curve.to_json(name, ground), allow_nan=False)
            (folder / CURVE).write_text(text + "\n", encoding="utf-8")
            if name == request.strategies[0]:
                (out / CURVE).write_text(text + "\n", encoding="utf-8")
        text = json.dumps(summary, indent=1, allow_nan=False, ensure_ascii=False)
        (out / SUMMARY).write_text(text + "\n", encoding="utf-8")
        (out / PLOT).write_text(_plot(request, summary, curves, random, oracle), encoding="utf-8")
    except OSError as e:
        raise AssistError(f"The results cannot be written to {out}: {e.strerror or e}.") from e


def _plot(
    request: Request,
    summary: Mapping[str, Any],
    curves: Mapping[str, Curve],
    random: list[Curve],
    oracle: Curve,
) -> str:
    length = request.decisions + 1
    mean = np.mean([_drawn_out(c.voi, length) for c in random], axis=0)
    lines = [Line("random, mean", mean), Line("oracle", _drawn_out(oracle.voi, length))]
    lines += [Line(name, _drawn_out(c.voi, length)) for name, c in curves.items()]
    return line_chart(
        f"{summary['dataset']}: VOI, {summary['candidates']} pairs",
        "decisions",
        "VOI split + merge, bits",
        lines,
    )


def _drawn_out(values: Floats, length: int) -> Floats:
    return np.concatenate([values, np.full(max(0, length - len(values)), values[-1])])[:length]


def z_range_of(from_z: int, to_z: int | None) -> tuple[int, int]:
    """What ``--from-z`` and ``--to-z`` mean.

    Raises:
        UsageError: Nothing lies between them.
    """
    high = 2**31 if to_z is None else to_z
    if from_z >= high:
        raise UsageError(f"--from-z {from_z} must lie below --to-z {high}.")
    return from_z, high
