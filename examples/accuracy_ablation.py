"""What each part of the model is worth on joins, on data with truth. You will see a table.

    python examples/accuracy_ablation.py DATA OUT [--only NAME ...] [--budget-hours H]

DATA holds fib25-ws, fib25-ffn, tiny_fib and gala_train as `cb2-assist import-volume` makes them
(`models/cb2-vit-tiny/recipe.toml` says from what). OUT keeps rendered views, one JSON file a run
and `table.md`; runs that are there are not made again, so it can be stopped at any time.

Learning and every choice is FIB-25 watershed below z 150; the fixed test is z >= 185; five blocks
of 50 sections are each judged by models that learnt from the rest, 20 sections away. The two other
volumes take no part in learning. Intervals resample truth bodies.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from cb2_assist.core.records import Kind
from cb2_assist.datasets.local import open_dataset_file
from cb2_assist.learning.distributed import Team
from cb2_assist.learning.examples import pure_bodies
from cb2_assist.learning.first_stage import FOLDS, GUARD_VX
from cb2_assist.learning.judge_volume import SIMPLE_FEATURES
from cb2_assist.learning.metrics import average_precision, balanced_accuracy, figures
from cb2_assist.learning.optimise import rate_at
from cb2_assist.learning.prepare import (
    Part,
    grey_statistics,
    load_volume,
    open_part,
    prepare,
    volume_examples,
)
from cb2_assist.learning.recipe import Recipe
from cb2_assist.learning.score_parts import part_logits
from cb2_assist.learning.train import Examples, per_of, step_draws, step_rows
from cb2_assist.learning.trainer import Trainer
from cb2_assist.model.card import ViewSpec
from cb2_assist.model.graph import graph_values
from cb2_assist.model.inputs import scale_em
from cb2_assist.model.network import N_GEOMETRY, N_VIEWS, NetworkSpec, import_timm
from cb2_assist.views.features import FEATURE_NAMES
from cb2_assist.views.surroundings import CONTACT_NAMES

SETS = ("fib25-ws", "fib25-ffn", "tiny_fib", "gala_train")
SEEDS = (0, 1, 2)
TEST_Z, TRAIN_Z = 185, 150
BLOCK, GAP = 50, 20
MOST_SEEN = 300
"""Decisions of tiny_fib that image networks judge; all would take longer than learning."""
IMAGES = Recipe(batch=32, teacher=0.0, drop_images=0.0, hide_partner=0.0, mask_weight=0.0)
MEASURED = Recipe(batch=64, teacher=0.0, epochs=12, drop_images=1.0, drop_features=0.15)
TAUGHT = replace(MEASURED, teacher=0.5)

Probabilities = NDArray[np.float64]
Ask = Callable[[Part], Probabilities]


@dataclass(frozen=True, slots=True)
class Run:
    """One model: a name, what fits it, and how often (by seed)."""

    name: str
    fit: Callable[[Part, int, Path], Ask]
    seeds: tuple[int, ...]
    images: bool


def take(part: Part, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Part:
    """Some decisions of a part."""
    columns = {k: getattr(part, k) for k in Part.__dataclass_fields__}
    at = np.flatnonzero(rows) if rows.dtype == bool else rows
    return Part(**{k: v if k == "name" else v[at] for k, v in columns.items()})


def of_joins(part: Part) -> NDArray[np.float32]:
    """What is measured of joins, without what only cuts have."""
    return part.features[:, : len(FEATURE_NAMES)]


# --- trees


class Trees:
    """Boosted and extremely randomised trees, averaged."""

    def __init__(self, x: NDArray[Any], y: NDArray[np.bool_], seed: int) -> None:
        boosted = HistGradientBoostingClassifier(
            max_iter=300, learning_rate=0.05, max_leaf_nodes=15, min_samples_leaf=20,
            l2_regularization=5, max_features=0.25, random_state=seed,
        )  # fmt: skip
        random = ExtraTreesClassifier(150, min_samples_leaf=2, max_features=0.3, random_state=seed)
        self._models = [boosted.fit(x, y), random.fit(x, y)]

    def __call__(self, x: NDArray[Any]) -> Probabilities:
        """Probability of each row."""
        out: Probabilities = np.mean([m.predict_proba(x)[:, 1] for m in self._models], 0)
        return out


def ten_features(part: Part, seed: int, _work: Path) -> Ask:
    """Boosted trees on what anybody would measure first."""
    at = [FEATURE_NAMES.index(n) for n in SIMPLE_FEATURES]
    model = HistGradientBoostingClassifier(
        max_iter=300, learning_rate=0.05, max_leaf_nodes=15, class_weight="balanced",
        random_state=seed,
    ).fit(part.features[:, at], part.answer)  # fmt: skip
    return lambda p: model.predict_proba(p.features[:, at])[:, 1]


def all_features(part: Part, seed: int, _work: Path) -> Ask:
    """Trees on all contact and membrane features."""
    model = Trees(of_joins(part), part.answer, seed)
    return lambda p: model(of_joins(p))


def two_stage(part: Part, seed: int, _work: Path) -> Ask:
    """Trees on features and on what a first stage of trees says of the neighbour graph."""

    def first(p: Part) -> tuple[Trees, HistGradientBoostingClassifier]:
        known = p.contacts >= 0
        rows = np.random.default_rng(seed).permutation(int(known.sum()))[:40_000]
        contact = HistGradientBoostingClassifier(
            max_iter=300, learning_rate=0.05, max_leaf_nodes=15, l2_regularization=5,
            random_state=seed,
        ).fit(p.neighbours[known][rows], p.contacts[known][rows])  # fmt: skip
        return Trees(of_joins(p), p.answer, seed), contact

    def values(p: Part, models: tuple[Trees, HistGradientBoostingClassifier]) -> NDArray[Any]:
        there = p.neighbours[..., 0] > 0
        each = np.zeros(there.shape)
        if there.any():
            each[there] = models[1].predict_proba(p.neighbours[there])[:, 1]
        own = torch.from_numpy(models[0](of_joins(p)))
        found: NDArray[Any] = graph_values(
            own, torch.from_numpy(each), torch.from_numpy(there)
        ).numpy()
        return found

    edges = np.quantile(part.z, np.linspace(0, 1, FOLDS + 1))
    edges[0], edges[-1] = -np.inf, np.inf
    honest = np.zeros((len(part), values(take(part, np.arange(1)), first(part)).shape[1]))
    for low, high in pairwise(edges):
        held = (part.z > low) & (part.z <= high)
        near = (part.z > low - GUARD_VX) & (part.z <= high + GUARD_VX)
        honest[held] = values(take(part, held), first(take(part, ~near)))
    second = Trees(np.c_[of_joins(part), honest], part.answer, seed)
    kept = first(part)
    return lambda p: second(np.c_[of_joins(p), values(p, kept)])


# --- the shipped network, with and without its parts


def network(
    part: Part, seed: int, work: Path, recipe: Recipe, *, graph: bool, mode: str, epochs: int
) -> Ask:
    """MultiTaskViT as `cb2-assist train` trains it."""
    spec = NetworkSpec(contact_measures=len(CONTACT_NAMES) if graph else 0)
    recipe = replace(recipe, seed=seed, epochs=epochs)
    work.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(work, spec, recipe, Team(0, 1, torch.device("cpu")), say)
    data = Examples([part])
    if not trainer.resume():
        trainer.fit_scale(data)
    trainer.fit_graph(data)
    trainer.fit_teacher(data)
    trainer.run(data, minutes=1e6)
    net = trainer.averaged()
    return lambda p: sigmoid(part_logits(net, p, modes=(mode,))[0][mode])


# --- other image networks, by the same draws of views


class PerView(nn.Module):
    """An image network for both kinds of views, one number a view."""

    def __init__(self, name: str) -> None:
        super().__init__()
        timm = import_timm()
        sizes = {"img_size": 112} if name.startswith("vit") else {}
        self.trunk = timm.create_model(name, pretrained=False, num_classes=1, in_chans=7, **sizes)
        # EM gets seven channels by a learnt mixture, so that both kinds share every other weight
        self.mix = nn.Conv2d(3, 7, 1)

    def forward(self, geometry: torch.Tensor, em: torch.Tensor) -> torch.Tensor:
        """Log-odds of each view, geometry first."""
        x = [v for v in (geometry, self.mix(em) if len(em) else None) if v is not None and len(v)]
        out: torch.Tensor = self.trunk(torch.cat(x))[:, 0]
        return out


def per_view(part: Part, seed: int, work: Path, name: str, epochs: int) -> Ask:
    """Views answer independently and are averaged, as in ConnectomeBench2 (arXiv 2606.21116).

    Sees every patch, so that an epoch costs twice as much as one of `network`: half of the epochs.
    """
    torch.manual_seed(seed)
    net, recipe = PerView(name), replace(IMAGES, seed=seed, epochs=epochs)
    data = Examples([part])
    optimizer = torch.optim.AdamW(net.parameters(), recipe.lr, weight_decay=recipe.weight_decay)
    per_epoch = -(-len(data) // recipe.batch)
    total = per_epoch * epochs // 2
    net.train()
    for step in range(total):
        epoch, k = divmod(step, per_epoch)
        order = np.random.default_rng((seed, epoch)).permutation(len(data))
        chosen = order[k * recipe.batch : (k + 1) * recipe.batch]
        draws = step_draws(len(chosen), step, recipe)
        rows = step_rows(data, chosen, draws, per_of(draws, 1))
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * rate_at(step, total, recipe.warmup)
        logit = net(torch.from_numpy(rows.geometry), torch.from_numpy(rows.em))
        of = np.concatenate([rows.geometry_of, rows.em_of])
        target = torch.from_numpy(rows.answer[of].astype(np.float32))
        weight = torch.from_numpy(rows.weight[of])
        loss = binary_cross_entropy_with_logits(logit, target, weight=weight)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0:
            say(f"{work.name}: step {step} of {total}, loss {loss.item():.3f}")
    net.eval()

    def ask(p: Part) -> Probabilities:
        out = []
        for i in range(0, len(p), 16):
            g = torch.from_numpy(np.array(p.geometry[i : i + 16], np.float32))
            e = torch.from_numpy(scale_em(np.array(p.em[i : i + 16])))
            with torch.inference_mode():
                each = torch.sigmoid(net(g.flatten(0, 1), e.flatten(0, 1)))
            n = len(g) * N_GEOMETRY
            views = [each[:n].view(len(g), -1), each[n:].view(len(g), N_VIEWS - N_GEOMETRY)]
            out.append(torch.cat(views, 1).mean(1).double().numpy())
        return np.concatenate(out)

    return ask


def runs(epochs: int) -> list[Run]:
    """Every model of the table; those with images see the views ``epochs`` times."""

    def net(graph: bool, mode: str, recipe: Recipe, n: int) -> Callable[[Part, int, Path], Ask]:
        return lambda p, s, w: network(p, s, w, recipe, graph=graph, mode=mode, epochs=n)

    lean = replace(IMAGES, drop_images=0.0, drop_features=1.0)
    joint = replace(IMAGES, drop_images=0.1, drop_features=0.2)
    return [
        Run("trees, 10 features", ten_features, (0,), images=False),
        Run("trees, 115 features", all_features, (0,), images=False),
        Run("trees, two stages", two_stage, (0,), images=False),
        Run("network, features", net(False, "features", MEASURED, 12), SEEDS, images=False),
        Run("network, features and graph", net(True, "measured", MEASURED, 12), SEEDS, False),
        Run("network, features, graph and second opinion", net(True, "measured", TAUGHT, 12),
            SEEDS, images=False),
        Run("ResNet-18, views averaged", lambda p, s, w: per_view(p, s, w, "resnet18", epochs),
            SEEDS, images=True),
        Run("ViT-Tiny, views averaged", lambda p, s, w: per_view(
            p, s, w, "vit_tiny_patch16_224", epochs), SEEDS, images=True),
        Run("ViT-Tiny, images", net(False, "images", lean, epochs), SEEDS, images=True),
        Run("ViT-Tiny, images and features", net(False, "all", joint, epochs), SEEDS, images=True),
        Run("ViT-Tiny, images, features and graph", net(True, "all", joint, epochs), SEEDS, True),
    ]  # fmt: skip


# --- what is measured


def figures_of(part: Part, p: Probabilities) -> dict[str, Any]:
    """Figures of a set with intervals, and the probabilities themselves."""
    found = figures(part.answer, p, part.group, draws=500)
    out = {k: [round(v, 4) for v in (f.value, f.low, f.high)] for k, f in found.items()}
    ap = round(average_precision(part.answer, p), 4)
    return {"n": len(part), **out, "ap": ap, "p": [round(float(v), 5) for v in p]}


def one_run(run: Run, seed: int, parts: dict[str, Part], work: Path) -> dict[str, Any]:
    """Fit below `TRAIN_Z`, judge the fixed test and the two other volumes."""
    ws = parts["fib25-ws"]
    start, cpu = time.monotonic(), time.process_time()
    ask = run.fit(take(ws, ws.z < TRAIN_Z), seed, work)
    fitted, used = time.monotonic() - start, time.process_time() - cpu
    out: dict[str, Any] = {"seconds": round(fitted, 1), "cpu_seconds": round(used, 1)}
    tests = {"fib25-ws z >= 185": take(ws, ws.z >= TEST_Z)}
    for name in ("tiny_fib", "gala_train"):
        p = parts[name]
        if run.images and len(p) > MOST_SEEN:
            p = take(p, np.sort(np.random.default_rng(0).permutation(len(p))[:MOST_SEEN]))
        tests[name] = p
    for name, part in tests.items():
        out[name] = figures_of(part, ask(part))
        say(f"{run.name}, seed {seed}, {name}: {out[name]['balanced_accuracy']}")
    return out


def five_blocks(run: Run, parts: dict[str, Part], work: Path) -> dict[str, Any]:
    """Every block of `BLOCK` sections, judged by a model of the rest."""
    ws = parts["fib25-ws"]
    p = np.zeros(len(ws))
    for low in range(0, 250, BLOCK):
        held = (ws.z >= low) & (ws.z < low + BLOCK)
        rest = (ws.z < low - GAP) | (ws.z >= low + BLOCK + GAP)
        p[held] = run.fit(take(ws, rest), 0, work / f"block-{low}")(take(ws, held))
    by_block = {
        str(low): round(balanced_accuracy(ws.answer[m], p[m]), 4)
        for low in range(0, 250, BLOCK)
        for m in [(ws.z >= low) & (ws.z < low + BLOCK)]
    }
    return {"fib25-ws, five blocks": {**figures_of(ws, p), "blocks": by_block}}


def flood_filling(run: Run, parts: dict[str, Part], work: Path) -> dict[str, Any]:
    """Pairs of the flood-filling segmentation, out of fold by slab; learns from both."""
    ffn, ws = parts["fib25-ffn"], parts["fib25-ws"]
    p = np.zeros(len(ffn))
    edges = np.quantile(ffn.z, np.linspace(0, 1, 6))
    edges[0], edges[-1] = -np.inf, np.inf
    for k, (low, high) in enumerate(pairwise(edges)):
        held = (ffn.z > low) & (ffn.z <= high)
        outside = [take(q, (q.z <= low - GAP) | (q.z > high + GAP)) for q in (ffn, ws)]
        p[held] = run.fit(joined(outside), 0, work / f"ffn-{k}")(take(ffn, held))
    return {"fib25-ffn, five folds": figures_of(ffn, p)}


def joined(parts: list[Part]) -> Part:
    """Parts as one, without their images: measured models alone learn from it."""
    columns = [k for k in Part.__dataclass_fields__ if k not in ("name", "geometry", "em")]
    n = sum(len(p) for p in parts)
    none = np.zeros((n, 0), np.uint8)
    both = {k: np.concatenate([getattr(p, k) for p in parts]) for k in columns}
    return Part(name="joined", geometry=none.astype(np.float16), em=none, **both)


# --- the program


def main() -> None:
    """Fit and judge what is missing, then print the table."""
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("data", type=Path)
    ask.add_argument("out", type=Path)
    ask.add_argument("--only", nargs="*", default=[], help="runs whose name contains one of these")
    ask.add_argument("--epochs", type=int, default=3, help="passes over the views")
    ask.add_argument("--budget-hours", type=float, default=6.0)
    given = ask.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    parts = {name: load(given.data, given.out, name) for name in SETS}
    until = time.monotonic() + 3600 * given.budget_hours
    for run, job, fit in jobs(given.epochs, parts, given.out):
        path = given.out / "runs" / f"{job}.json"
        wanted = not given.only or any(o in run.name for o in given.only)
        if path.is_file() or not wanted:
            continue
        if time.monotonic() > until:
            say(f"the budget of {given.budget_hours:g} hours is used up; the same command goes on")
            break
        path.parent.mkdir(exist_ok=True)
        say(job)
        found = {"run": run.name, **fit()}
        path.write_text(json.dumps(found))
    write_table(given.out)


def jobs(
    epochs: int, parts: dict[str, Part], out: Path
) -> Iterator[tuple[Run, str, Callable[[], dict[str, Any]]]]:
    """Everything there is to do, cheap runs first, seeds in turn."""
    every = runs(epochs)
    for run in every:
        if not run.images:
            work = out / "work" / slug(run.name)
            yield run, f"{slug(run.name)}-blocks", lambda r=run, w=work: five_blocks(r, parts, w)
            yield run, f"{slug(run.name)}-ffn", lambda r=run, w=work: flood_filling(r, parts, w)
    for seed in SEEDS:
        for run in every:
            if seed in run.seeds:
                work = out / "work" / f"{slug(run.name)}-{seed}"
                yield (
                    run,
                    f"{slug(run.name)}-seed{seed}",
                    lambda r=run, s=seed, w=work: one_run(r, s, parts, w),
                )


def load(data: Path, out: Path, name: str) -> Part:
    """The decisions of one dataset, rendered once."""
    folder = out / "parts" / name
    if not (folder / "part.json").is_file():
        volume = load_volume(open_dataset_file(data / name / "dataset.toml"))
        view = ViewSpec()
        rows = volume_examples(
            volume, view, kinds=(Kind.JOIN,), z_range=(0, 1 << 30), seed=0, merges=0
        )
        prepare(
            rows, folder, name, view, grey_statistics(volume), say=say, bodies=pure_bodies(volume)
        )
    return open_part(folder)


def write_table(out: Path) -> None:
    """`table.md`: mean over seeds with their range, and the interval of the first."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for path in sorted((out / "runs").glob("*.json")):
        whole = json.loads(path.read_text())
        of = found.setdefault(whole.pop("run"), {})
        seconds = whole.pop("cpu_seconds", None)
        whole.pop("seconds", None)
        for name, f in whole.items():
            of.setdefault(name, []).append({**f, "cpu_seconds": seconds})
    names = sorted({n for of in found.values() for n in of})
    lines = []
    for name in names:
        head = "| model | seeds | n | balanced accuracy | AUROC | ECE-15 | AP | CPU min a seed |"
        lines += [f"## {name}", "", head, "|---|---|---|---|---|---|---|---|"]
        for run, of in found.items():
            if name in of:
                lines.append(row(run, of[name]))
        lines.append("")
    (out / "table.md").write_text("\n".join(lines) + "\n")
    say((out / "table.md").read_text())


def row(run: str, of: list[dict[str, Any]]) -> str:
    """One line of a table."""

    def cell(key: str) -> str:
        values = [f[key][0] for f in of]
        low, high = of[0][key][1:]
        spread = "" if len(of) == 1 else f" ({min(values):.3f}-{max(values):.3f})"
        return f"{np.mean(values):.3f}{spread} [{low:.3f}, {high:.3f}]"

    ap = np.mean([f["ap"] for f in of])
    cells = " | ".join(cell(k) for k in ("balanced_accuracy", "auroc", "ece15"))
    spent = [f["cpu_seconds"] / 60 for f in of if f["cpu_seconds"] is not None]
    cost = f"{np.mean(spent):.1f}" if spent else "-"
    return f"| {run} | {len(of)} | {of[0]['n']} | {cells} | {ap:.3f} | {cost} |"


def slug(name: str) -> str:
    """For file names."""
    return "".join(c if c.isalnum() else "-" for c in name.lower()).replace("--", "-").strip("-")


def resamples(
    answer: NDArray[np.bool_], body: NDArray[np.int64], draws: int
) -> list[NDArray[np.int64]]:
    """Everything, then draws of truth bodies with what belongs to them."""
    _, inverse = np.unique(body, return_inverse=True)
    rows = [np.flatnonzero(inverse == k) for k in range(inverse.max() + 1)]
    rng = np.random.default_rng(0)
    picks = [np.arange(len(answer))]
    while len(picks) <= draws:
        pick = np.concatenate([rows[k] for k in rng.integers(0, len(rows), len(rows))])
        if answer[pick].any() and not answer[pick].all():
            picks.append(pick)
    return picks


def sigmoid(v: NDArray[np.float64]) -> Probabilities:
    """Log-odds to probability."""
    p: Probabilities = 1 / (1 + np.exp(-v))
    return p


def say(text: str) -> None:
    """Progress goes to stderr."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
