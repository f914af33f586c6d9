"""How many labels a strategy of asking saves when a model is carried over to another volume.

    python examples/label_efficiency.py DATA OUT [--parts DIR] [--images] [--only WAY]

What you will see: for each way (FIB-25 to gala_train, and back) a table and a plot of balanced
accuracy, AUROC and log loss on a held-out part against the number of labels, random order against
strategies of `learning.strategies`, and how much random order needs N labels for that a strategy
has with N/2.

DATA holds fib25-ws and gala_train as `cb2-assist import-volume` makes them. A network learns from
one volume (`accuracy_ablation.network`'s measured tokens, or all with --images); labels of the
other are then asked for in growing batches, each chosen by the model that learnt from the batches
before, with `finetune`'s own fit (half of a batch is base data, few labels fit few weights). Every
choice was made below z 165 of FIB-25; its test part is not opened. Held out: of gala_train each
half along x in turn, 100 nm apart and with no truth body in common; of FIB-25 95 <= z < 165, with
z < 75 to be asked and no truth body in common. Runs that are there are not made again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy_ablation import MEASURED, joined, load, resamples, say, sigmoid, take
from numpy.typing import NDArray

from cb2_assist.learning.distributed import Team
from cb2_assist.learning.finetune_fit import LEAST, FitPlan, fit, folds_of, level_for, rarer_counts
from cb2_assist.learning.finetune_split import components
from cb2_assist.learning.finetune_tokens import Tokens, answers, measured, tokens_of_part
from cb2_assist.learning.metrics import auroc, balanced_accuracy, nll
from cb2_assist.learning.prepare import Part
from cb2_assist.learning.recipe import Recipe
from cb2_assist.learning.strategies.gain import split_bits
from cb2_assist.learning.strategies.pool import Pool
from cb2_assist.learning.strategies.registry import STRATEGIES
from cb2_assist.learning.svg_lines import Line, line_chart
from cb2_assist.learning.train import Examples
from cb2_assist.learning.trainer import Trainer
from cb2_assist.model.network import MultiTaskViT, NetworkSpec
from cb2_assist.views.features import FEATURE_NAMES
from cb2_assist.views.surroundings import CONTACT_NAMES

SEEDS = (0, 1, 2)
ORDERS = 2
"""Random orders a seed: their mean is what a strategy is compared with."""
NAMES = ("random", "margin", "badge", "typicality", "value")
GAP_NM = 100.0
DRAWS = 1000
IMAGES = Recipe(batch=32, epochs=3, drop_images=0.1, hide_partner=0.0, mask_weight=0.0)
METRICS = {"balanced_accuracy": balanced_accuracy, "auroc": auroc, "log_loss": nll}


@dataclass(frozen=True, slots=True)
class Way:
    """From one volume to another.

    Attributes:
        base: What the network learns from, and is reminded of.
        folds: Pairs of what may be asked and what is held out.
        steps: Numbers of labels.
    """

    name: str
    base: Part
    folds: tuple[tuple[Part, Part], ...]
    steps: tuple[int, ...]


def ways(fib: Part, gala: Part) -> list[Way]:
    """Both ways."""
    x = gala.point_nm[:, 0]
    middle = float(np.median(x))
    left, right = x < middle - GAP_NM / 2, x >= middle + GAP_NM / 2
    halves = (apart(gala, left, right), apart(gala, right, left))
    back = (apart(fib, fib.z < 75, (fib.z >= 95) & (fib.z < 165)),)
    return [
        Way("FIB-25 to gala_train", take(fib, fib.z < 150), halves, (10, 20, 40, 80)),
        Way("gala_train to FIB-25", gala, back, (10, 20, 40, 80, 160, 320)),
    ]


def apart(part: Part, asked: NDArray[np.bool_], held: NDArray[np.bool_]) -> tuple[Part, Part]:
    """What may be asked, and what is held out: pairs whose truth body is not on the other side."""
    return take(part, asked), take(part, held & ~np.isin(part.group, part.group[asked]))


def base_network(way: Way, seed: int, work: Path, *, images: bool) -> MultiTaskViT:
    """A network that knows the base volume alone."""
    recipe = replace(IMAGES if images else MEASURED, seed=seed)
    if len(way.base) < 1000:
        # as many steps as a small volume needs to be learnt at all
        recipe = replace(recipe, epochs=4 * recipe.epochs)
    work.mkdir(parents=True, exist_ok=True)
    spec = NetworkSpec(contact_measures=len(CONTACT_NAMES))
    trainer = Trainer(work, spec, recipe, Team(0, 1, torch.device("cpu")), say)
    data = Examples([way.base])
    if not trainer.resume():
        trainer.fit_scale(data)
    trainer.fit_graph(data)
    trainer.run(data, minutes=1e6)
    return trainer.averaged()


@dataclass(frozen=True, slots=True)
class Told:
    """One fold of a way, as one base network sees it."""

    net: MultiTaskViT
    replay: Tokens
    asked: Tokens
    held: Tokens
    group: NDArray[np.int64]
    """Labels that share a segment."""
    gain: NDArray[np.float64]


def curve(told: Told, name: str, steps: tuple[int, ...], seed: int) -> list[NDArray[np.float64]]:
    """Probabilities of the held-out decisions after 0 and after each number of labels."""
    rng = np.random.default_rng(seed)
    labelled = np.zeros(len(told.asked), bool)
    net = told.net
    out = [sigmoid(answers(net, told.held)[0])]
    for n in steps:
        logit, embedding = answers(net, told.asked)
        pool = Pool(
            labelled,
            score=sigmoid(logit),
            embedding=embedding,
            gain=told.gain,
            seconds=np.ones(len(labelled)),
        )
        more = STRATEGIES[name].order(pool, n - int(labelled.sum()), rng)
        labelled = labelled.copy()
        labelled[more] = True
        labels = told.asked.take(labelled)
        if max(rarer_counts(labels).values()) >= LEAST:
            plan = FitPlan(level_for(labels, told.replay), seed=seed)
            fold = folds_of(told.group[labelled], labels.answer, seed)
            net = fit(told.net, labels, told.replay, plan, fold)
        out.append(sigmoid(answers(net, told.held)[0]))
    return out


def told_of(way: Way, fold: int, net: MultiTaskViT, *, images: bool) -> Told:
    """What the frozen part of a network says of everything, once."""

    def tokens(part: Part) -> Tokens:
        found = tokens_of_part(net, part, images=images)
        return found if images else replace(found, there=measured(len(part)))

    asked, held = way.folds[fold]
    at = [FEATURE_NAMES.index(n) for n in ("log_small", "log_big")]
    small, big = np.expm1(asked.features[:, at].astype(np.float64)).T
    names = np.stack([asked.segment, asked.partner], 1).astype(str)
    return Told(
        net,
        tokens(way.base),
        tokens(asked),
        tokens(held),
        components(names),
        split_bits(np.maximum(small, 0), np.maximum(big, 0)),
    )


def jobs(all_ways: list[Way]) -> Iterator[tuple[Way, int, int, str, int]]:
    """Every run: way, seed of the base network, fold, strategy, order."""
    for seed in SEEDS:
        for way in all_ways:
            for fold in range(len(way.folds)):
                for name in NAMES:
                    for order in range(ORDERS if name == "random" else 1):
                        yield way, seed, fold, name, order


# --- what came of it


Runs = dict[tuple[int, int, str, int], list[list[float]]]
Drawn = dict[str, NDArray[np.float64]]
"""By metric: (the whole and resamples, numbers of labels)."""


def complete(way: Way, runs: Runs) -> dict[str, list[NDArray[np.float64]]]:
    """By strategy: probabilities of all folds together, for each seed and order that has all."""
    whole: dict[str, list[NDArray[np.float64]]] = {}
    for seed, order in sorted({(k[0], k[3]) for k in runs}):
        for name in NAMES:
            folds = [runs.get((seed, f, name, order)) for f in range(len(way.folds))]
            if all(f is not None for f in folds):
                joint = np.concatenate([np.array(f) for f in folds], axis=1)
                whole.setdefault(name, []).append(joint)
    return {name: whole[name] for name in NAMES if name in whole}


def against_random(mine: Drawn, random: Drawn, steps: tuple[int, ...]) -> dict[str, Any]:
    """A strategy beside random order with twice its labels, by metric."""
    out: dict[str, Any] = {}
    for metric in METRICS:
        out[metric] = []
        for k in range(2, len(steps)):
            more = mine[metric][:, k - 1] - random[metric][:, k]
            more = -more if metric == "log_loss" else more
            low, high = np.quantile(more[1:], (0.025, 0.975))
            out[metric].append(
                {
                    "labels": steps[k - 1],
                    "random_labels": steps[k],
                    "better_by": round(float(more[0]), 4),
                    "ci95": [round(float(low), 4), round(float(high), 4)],
                    "reached": bool(more[0] >= 0),
                }
            )
    return out


def summary(way: Way, runs: Runs) -> dict[str, Any]:
    """Figures of a way with intervals that resample truth bodies, folds and seeds pooled."""
    answer = np.concatenate([held.answer for _, held in way.folds])
    body = np.concatenate([held.group for _, held in way.folds])
    steps = (0, *way.steps)
    seeds = sorted({k[0] for k in runs})
    whole = complete(way, runs)
    picks = resamples(answer, body, DRAWS)
    out: dict[str, Any] = {
        "n_held_out": len(answer),
        "n_bodies": len(np.unique(body)),
        "n_asked": [len(asked) for asked, _ in way.folds],
        "labels": list(steps),
        "seeds": seeds,
        "strategies": {},
        "half": {},
    }
    drawn: dict[str, Drawn] = {}
    for name, found in whole.items():
        out["strategies"][name] = {"runs": len(found)}
        drawn[name] = {}
        for metric, call in METRICS.items():
            values = np.array(
                [
                    [np.mean([call(answer[i], p[k][i]) for p in found]) for k in range(len(steps))]
                    for i in picks
                ]
            )
            drawn[name][metric] = values
            low, high = np.quantile(values[1:], (0.025, 0.975), axis=0)
            out["strategies"][name][metric] = {
                "mean": values[0].round(4).tolist(),
                "low": low.round(4).tolist(),
                "high": high.round(4).tolist(),
            }
    for name in whole:
        if name != "random":
            out["half"][name] = against_random(drawn[name], drawn["random"], steps)
    return out


def table(name: str, way: dict[str, Any]) -> str:
    """Markdown of one way."""
    lines = [
        f"## {name}",
        "",
        f"Held out: {way['n_held_out']} joins of {way['n_bodies']} bodies; may be asked: "
        f"{' and '.join(map(str, way['n_asked']))}; seeds: {len(way['seeds'])}.",
    ]
    for metric in METRICS:
        lines += ["", f"**{metric}**", ""]
        lines.append("| order | " + " | ".join(str(n) for n in way["labels"]) + " |")
        lines.append("|---" * (1 + len(way["labels"])) + "|")
        for strategy, f in way["strategies"].items():
            cells = zip(f[metric]["mean"], f[metric]["low"], f[metric]["high"], strict=True)
            row = " | ".join(f"{m:.3f} [{lo:.3f}, {hi:.3f}]" for m, lo, hi in cells)
            lines.append(f"| {strategy} | {row} |")
        lines += ["", f"Better than random with twice the labels, {metric}:", ""]
        for strategy, f in way["half"].items():
            cells = [
                f"{h['labels']} against {h['random_labels']}: {h['better_by']:+.3f} "
                f"[{h['ci95'][0]:+.3f}, {h['ci95'][1]:+.3f}]"
                for h in f[metric]
            ]
            reached = sum(h["reached"] for h in f[metric])
            lines.append(f"- {strategy}, {reached} of {len(cells)}: " + "; ".join(cells))
    return "\n".join(lines) + "\n"


def write(out: Path, all_ways: list[Way]) -> None:
    """`figures.json`, `table.md` and a plot a way and metric."""
    figures, tables = {}, []
    for way in all_ways:
        runs = {}
        for path in sorted((out / "runs" / slug(way.name)).glob("*.json")):
            found = json.loads(path.read_text())
            runs[tuple(found["key"])] = found["p"]
        if not runs:
            continue
        figures[way.name] = summary(way, runs)
        tables.append(table(way.name, figures[way.name]))
        for metric in METRICS:
            lines = [
                Line(n, np.array(f[metric]["mean"]))
                for n, f in figures[way.name]["strategies"].items()
            ]
            names = [str(n) for n in figures[way.name]["labels"]]
            chart = line_chart(way.name, "labels", metric.replace("_", " "), lines, names)
            (out / f"{slug(way.name)}-{metric}.svg").write_text(chart)
    (out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    (out / "table.md").write_text("\n".join(tables))
    print("\n".join(tables))


def slug(name: str) -> str:
    """For file names."""
    return name.lower().replace(" ", "-").replace("_", "-")


def main() -> None:
    """Run what has not been run, within the budget."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--parts", type=Path, help="Where rendered decisions are; default OUT.")
    parser.add_argument("--images", action="store_true", help="All tokens; hours on a CPU.")
    parser.add_argument("--only", default="", help="Ways whose name holds this text.")
    parser.add_argument("--budget-minutes", type=float, default=240.0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    fib, gala = (load(given.data, given.parts or given.out, n) for n in ("fib25-ws", "gala_train"))
    if not given.images:
        # without images: gigabytes that nobody looks at
        fib, gala = joined([fib]), joined([gala])
    all_ways = ways(fib, gala)
    until = time.monotonic() + 60 * given.budget_minutes
    known: dict[tuple[str, int, int], Told] = {}
    wanted = [way for way in all_ways if given.only.lower() in way.name.lower()]
    if not wanted:
        parser.error(f"--only {given.only!r} names none of {[way.name for way in all_ways]}")
    for way, seed, fold, name, order in jobs(wanted):
        path = given.out / "runs" / slug(way.name) / f"{seed}-{fold}-{name}-{order}.json"
        if path.is_file():
            continue
        if time.monotonic() > until:
            say(f"{given.budget_minutes:g} minutes are used up; the same command goes on")
            break
        if (way.name, seed, fold) not in known:
            known.clear()
            work = given.out / "base" / f"{slug(way.name)}-{seed}"
            net = base_network(way, seed, work, images=given.images)
            known[way.name, seed, fold] = told_of(way, fold, net, images=given.images)
        start = time.process_time()
        found = curve(known[way.name, seed, fold], name, way.steps, 100 * seed + order)
        seconds = round(time.process_time() - start, 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        document = {
            "key": [seed, fold, name, order],
            "cpu_seconds": seconds,
            "p": [p.round(5).tolist() for p in found],
        }
        path.write_text(json.dumps(document))
        held = way.folds[fold][1]
        last = balanced_accuracy(held.answer, found[-1])
        say(f"{way.name}, seed {seed}, fold {fold}, {name} {order}: {last:.3f} in {seconds:g} s")
    write(given.out, all_ways)


if __name__ == "__main__":
    main()
