"""Accuracy of images against training-set size and kind of image, with and without pretraining.

    python examples/scaling.py DATA OUT [--parts DIR] [--pretrained DIR] [--budget-minutes M]

What you will see: a table and plots of balanced accuracy and AUROC on a held-out part against the
number of joins that were learnt from, for geometry alone, EM alone and both, from random weights
and from the encoder in DIR that `cb2-assist pretrain` has left, and what pretraining changes.

The network reads images only, no measured feature and no neighbour graph, so that the worth of the
images is seen; trees on ten simple features stand beside it. Every run takes the same number of
steps of the same number of images. Learnt is FIB-25's watershed segmentation with z < 120, which
is also what DIR may have seen (without truth); held out is 140 <= z < 165. The test part z >= 185
is not opened. DATA holds fib25-ws as `cb2-assist import-volume` makes it. Small sizes come first,
seeds in turn; runs that are there are not made again, so it can be stopped at any time.
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
from accuracy_ablation import joined, load, resamples, say, sigmoid, take, ten_features
from numpy.typing import NDArray
from torch.nn.functional import binary_cross_entropy_with_logits

from cb2_assist.learning.metrics import auroc, balanced_accuracy
from cb2_assist.learning.optimise import Average, make_optimizer, rate_at, set_rate
from cb2_assist.learning.prepare import Part
from cb2_assist.learning.recipe import Recipe
from cb2_assist.learning.svg_lines import Line, line_chart
from cb2_assist.learning.train import Examples, Rows, per_of, step_draws, step_rows
from cb2_assist.model.inputs import scale_em
from cb2_assist.model.network import N_GEOMETRY, N_TOKENS, N_VIEWS, MultiTaskViT, NetworkSpec
from cb2_assist.model.start import Start, read_start

SIZES = (250, 1000, 4000)
"""The last one is everything where there is less."""
SEEDS = (0, 1, 2)
KINDS = ("geometry", "em", "both")
RANDOM, PRETRAINED, TREES = "random weights", "pretrained", "trees, 10 features"
LEARNT_Z, HELD_Z = 120, (140, 165)
MOST_HELD = 500
"""Held-out joins that are judged, the same ones by every run."""
STEPS, BATCH = 150, 32
DRAWS = 1000
METRICS = {"balanced_accuracy": balanced_accuracy, "auroc": auroc}
RECIPE = Recipe(
    batch=BATCH, teacher=0.0, drop_images=0.0, hide_partner=0.0, mask_weight=0.0, amp="bf16"
)


@dataclass(frozen=True, slots=True)
class Run:
    """One network, or trees: what it may see, how it starts, and how many joins it learns from."""

    size: int
    kind: str
    start: str
    seed: int

    @property
    def slug(self) -> str:
        """For a file name."""
        words = f"{self.size}-{self.kind}-{self.start}-{self.seed}"
        return "".join(c if c.isalnum() else "-" for c in words).replace("--", "-")


def jobs(sizes: list[int], starts: list[str]) -> Iterator[Run]:
    """Every run, those of the small sizes first, seeds in turn."""
    for seed in SEEDS:
        for size in sizes:
            yield Run(size, "features", TREES, seed)
            for kind in KINDS:
                for start in starts:
                    yield Run(size, kind, start, seed)


def learnt_rows(part: Part, size: int, seed: int) -> NDArray[np.bool_]:
    """Joins of the learnt part; the smaller set of a seed is part of the greater one."""
    pool = np.flatnonzero(part.z < LEARNT_Z)
    rows = np.zeros(len(part), bool)
    rows[np.random.default_rng((seed, 5)).permutation(pool)[:size]] = True
    return rows


def held_rows(part: Part) -> NDArray[np.int64]:
    """Joins that judge."""
    pool = np.flatnonzero((part.z >= HELD_Z[0]) & (part.z < HELD_Z[1]))
    return np.sort(np.random.default_rng(0).permutation(pool)[:MOST_HELD])


def of_kind(rows: Rows, kind: str) -> Rows:
    """A step's images without those of the other kind."""
    if kind == "geometry":
        return replace(rows, em=rows.em[:0], em_of=rows.em_of[:0], em_view=rows.em_view[:0])
    if kind == "em":
        return replace(
            rows,
            geometry=rows.geometry[:0],
            geometry_of=rows.geometry_of[:0],
            geometry_view=rows.geometry_view[:0],
        )
    return rows


def learn(data: Examples, run: Run, steps: int, start: Start | None) -> MultiTaskViT:
    """A network that has seen two images a decision and step."""
    recipe = replace(RECIPE, seed=run.seed, views_per_decision=2 if run.kind == "both" else 4)
    torch.manual_seed(run.seed)
    net = MultiTaskViT(NetworkSpec())
    if start is not None:
        start.apply(net)
    optimizer, average = make_optimizer(net, recipe), Average(net, recipe.ema)
    per_epoch = -(-len(data) // BATCH)
    net.train()
    for step in range(steps):
        epoch, k = divmod(step, per_epoch)
        order = np.random.default_rng((run.seed, epoch)).permutation(len(data))
        chosen = order[k * BATCH : (k + 1) * BATCH]
        torch.manual_seed(run.seed * 1_000_003 + step)
        draws = step_draws(len(chosen), step, recipe)
        rows = of_kind(step_rows(data, chosen, draws, per_of(draws, 1)), run.kind)
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.amp == "bf16"):
            cls, _ = net.encode_views(
                torch.from_numpy(rows.geometry),
                torch.from_numpy(rows.geometry_view),
                torch.from_numpy(rows.em),
                torch.from_numpy(rows.em_view),
                keep=recipe.keep_patches,
            )
            of = torch.from_numpy(np.concatenate([rows.geometry_of, rows.em_of]))
            view = torch.from_numpy(np.concatenate([rows.geometry_view, rows.em_view]))
            logit = decided(net, cls, of, view, torch.from_numpy(rows.task))
        loss = binary_cross_entropy_with_logits(
            logit.float(), torch.from_numpy(rows.target), weight=torch.from_numpy(rows.weight)
        )
        set_rate(optimizer, rate_at(step, steps, recipe.warmup))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        average.update(net, step + 1)
    net.load_state_dict(average.weights)
    return net.eval()


def decided(
    net: MultiTaskViT, cls: torch.Tensor, of: torch.Tensor, view: torch.Tensor, task: torch.Tensor
) -> torch.Tensor:
    """Log-odds of each decision from its images alone."""
    tokens = torch.zeros(len(task), N_TOKENS, cls.shape[1])
    tokens = tokens.index_put((of, view), cls.to(tokens.dtype))
    absent = torch.ones(len(task), N_TOKENS, dtype=torch.bool)
    absent[of, view] = False
    return net.decide(tokens, absent, task)[0]


def judge(net: MultiTaskViT, part: Part, at: NDArray[np.int64], kind: str) -> NDArray[np.float64]:
    """Probabilities of some decisions from all images of a kind, a few at a time."""
    out = []
    for i in range(0, len(at), 16):
        rows = at[i : i + 16]
        n = len(rows)
        geometry, em = (np.zeros((0, *x.shape[2:]), np.float32) for x in (part.geometry, part.em))
        views: list[int] = []
        if kind != "em":
            geometry = np.array(part.geometry[rows], np.float32).reshape(-1, *geometry.shape[1:])
            views += list(range(N_GEOMETRY)) * n
        if kind != "geometry":
            em = scale_em(np.array(part.em[rows])).reshape(-1, *em.shape[1:])
            views += list(range(N_GEOMETRY, N_VIEWS)) * n
        each = np.repeat(np.arange(n), 3)
        of = torch.from_numpy(np.concatenate([each] * (2 if kind == "both" else 1)))
        view = torch.tensor(views)
        with (
            torch.inference_mode(),
            torch.autocast("cpu", torch.bfloat16, enabled=RECIPE.amp == "bf16"),
        ):
            cls, _ = net.encode_views(
                torch.from_numpy(geometry),
                view[: len(geometry)],
                torch.from_numpy(em),
                view[len(geometry) :],
            )
            logit = decided(net, cls, of, view, torch.from_numpy(part.task[rows]))
        out.append(logit.double().numpy())
    return sigmoid(np.concatenate(out))


def one_run(
    part: Part, run: Run, held: NDArray[np.int64], steps: int, start: Start | None
) -> dict[str, Any]:
    """Learn, judge, and say what it took."""
    cpu, wall = time.process_time(), time.monotonic()
    rows = learnt_rows(part, run.size, run.seed)
    if run.start == TREES:
        measured = joined([part])
        p = ten_features(take(measured, rows), run.seed, Path())(take(measured, held))
    else:
        net = learn(Examples([part], rows=[rows]), run, steps, start)
        p = judge(net, part, held, run.kind)
    return {
        "size": run.size,
        "kind": run.kind,
        "start": run.start,
        "seed": run.seed,
        "steps": 0 if run.start == TREES else steps,
        "encoder_sha256": "" if start is None else start.sha256,
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "seconds": round(time.monotonic() - wall, 1),
        "p": [round(float(v), 5) for v in p],
    }


def is_there(path: Path, run: Run, steps: int, start: Start | None) -> bool:
    """Whether a run was made, with as many steps and from the same encoder."""
    if not path.is_file():
        return False
    before = json.loads(path.read_text())
    if run.start == PRETRAINED and start is not None and before["encoder_sha256"] != start.sha256:
        return False
    return run.start == TREES or before["steps"] == steps


# --- what came of it


def interval(values: NDArray[np.float64]) -> dict[str, Any]:
    """The whole's value and the 95 % interval of the resamples after it."""
    low, high = np.quantile(values[1:], (0.025, 0.975))
    return {"value": round(float(values[0]), 4), "ci95": [round(float(v), 4) for v in (low, high)]}


def summary(
    found: list[dict[str, Any]], answer: NDArray[np.bool_], body: NDArray[np.int64]
) -> dict[str, Any]:
    """Mean over seeds by size, kind and start; what pretraining changes, over seeds that have both.

    Args:
        found: Runs, as `one_run` gives them.
        answer: Of the held-out joins.
        body: Their truth bodies, which the intervals resample.
    """
    picks = resamples(answer, body, DRAWS)
    drawn: dict[tuple[Any, ...], dict[str, NDArray[np.float64]]] = {}
    for r in found:
        p = np.array(r["p"])
        drawn[r["size"], r["kind"], r["start"], r["seed"]] = {
            m: np.array([call(answer[i], p[i]) for i in picks]) for m, call in METRICS.items()
        }
    points, changes = [], []
    for size, kind, start in sorted({k[:3] for k in drawn}):
        seeds = sorted(k[3] for k in drawn if k[:3] == (size, kind, start))
        spent = [
            r["cpu_seconds"]
            for r in found
            if (r["size"], r["kind"], r["start"]) == (size, kind, start)
        ]
        point: dict[str, Any] = {"size": size, "kind": kind, "start": start, "seeds": len(seeds)}
        for m in METRICS:
            each = np.array([drawn[size, kind, start, s][m] for s in seeds])
            point[m] = interval(each.mean(0)) | {"by_seed": each[:, 0].round(4).tolist()}
        points.append(point | {"cpu_seconds": round(float(np.mean(spent)), 1)})
        both = [s for s in seeds if (size, kind, RANDOM, s) in drawn]
        if start == PRETRAINED and both:
            change: dict[str, Any] = {"size": size, "kind": kind, "seeds": len(both)}
            for m in METRICS:
                more = [
                    drawn[size, kind, start, s][m] - drawn[size, kind, RANDOM, s][m] for s in both
                ]
                change[m] = interval(np.mean(more, 0))
            changes.append(change)
    return {
        "n_held_out": len(answer),
        "n_bodies": len(np.unique(body)),
        "positive": int(answer.sum()),
        "steps": max((r["steps"] for r in found), default=0),
        "batch": BATCH,
        "points": points,
        "pretraining": changes,
    }


def cell(f: dict[str, Any], sign: str = "") -> str:
    """A figure with its interval."""
    low, high = f["ci95"]
    return f"{f['value']:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def table(s: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        f"Held out: {s['n_held_out']} joins of {s['n_bodies']} bodies, {s['positive']} of them "
        f"true; every network takes {s['steps']} steps of {s['batch']} decisions with two images "
        "each. Mean over seeds, 95 % intervals resample truth bodies.",
        "",
        "| joins | sees | starts from | seeds | balanced accuracy | AUROC | CPU s |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {p['size']} | {p['kind']} | {p['start']} | {p['seeds']} | "
        f"{cell(p['balanced_accuracy'])} | {cell(p['auroc'])} | {p['cpu_seconds']:.0f} |"
        for p in s["points"]
    ]
    if s["pretraining"]:
        lines += [
            "",
            "What pretraining changes, same joins and seeds:",
            "",
            "| joins | sees | seeds | balanced accuracy | AUROC |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {c['size']} | {c['kind']} | {c['seeds']} | {cell(c['balanced_accuracy'], '+')} | "
            f"{cell(c['auroc'], '+')} |"
            for c in s["pretraining"]
        ]
    return "\n".join(lines) + "\n"


def charts(s: dict[str, Any]) -> dict[str, str]:
    """A plot a metric; a line ends at the first size that has not been run."""
    sizes = sorted({p["size"] for p in s["points"]})
    at = {(p["kind"], p["start"], p["size"]): p for p in s["points"]}
    out = {}
    for m in METRICS:
        lines = []
        for kind, start in sorted({k[:2] for k in at}):
            values = []
            for size in sizes:
                if (kind, start, size) not in at:
                    break
                values.append(at[kind, start, size][m]["value"])
            if values:
                # short: the legend has no room for more
                named = {TREES: TREES, RANDOM: kind, PRETRAINED: f"{kind}, pretr."}
                label = named[start]
                lines.append(Line(label, np.array(values)))
        out[m] = line_chart(
            f"Images against training-set size, n = {s['n_held_out']}",
            "joins learnt from",
            "AUROC" if m == "auroc" else m.replace("_", " "),
            lines,
            [str(size) for size in sizes],
        )
    return out


def write(out: Path, part: Part, held: NDArray[np.int64]) -> None:
    """`scaling.json`, `table.md` and a plot a metric, of the runs that are there."""
    found = [json.loads(p.read_text()) for p in sorted((out / "runs").glob("*.json"))]
    if not found:
        say("no run is there yet")
        return
    s = summary(found, part.answer[held], part.group[held])
    (out / "scaling.json").write_text(json.dumps(s, indent=1) + "\n")
    (out / "table.md").write_text(table(s))
    for name, chart in charts(s).items():
        (out / f"{name.replace('_', '-')}.svg").write_text(chart)
    print(table(s))


def main() -> None:
    """Run what has not been run, within the budget, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--parts", type=Path, help="Where rendered joins are; default OUT.")
    parser.add_argument("--pretrained", type=Path, help="OUT of cb2-assist pretrain.")
    parser.add_argument("--budget-minutes", type=float, default=240.0)
    parser.add_argument("--steps", type=int, default=STEPS, help="Of every network.")
    given = parser.parse_args()
    torch.set_num_threads(1)
    start = None if given.pretrained is None else read_start(given.pretrained)
    part = load(given.data, given.parts or given.out, "fib25-ws")
    held, most = held_rows(part), int((part.z < LEARNT_Z).sum())
    sizes = sorted({min(n, most) for n in SIZES})
    (given.out / "runs").mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + 60 * given.budget_minutes
    for run in jobs(sizes, [RANDOM, *([] if start is None else [PRETRAINED])]):
        path = given.out / "runs" / f"{run.slug}.json"
        if is_there(path, run, given.steps, start):
            continue
        if time.monotonic() > until:
            say(f"{given.budget_minutes:g} minutes are used up; the same command goes on")
            break
        found = one_run(part, run, held, given.steps, start if run.start == PRETRAINED else None)
        path.write_text(json.dumps(found))
        p, answer = np.array(found["p"]), part.answer[held]
        say(
            f"{run.size} joins, {run.kind}, {run.start}, seed {run.seed}: balanced accuracy "
            f"{balanced_accuracy(answer, p):.3f}, AUROC {auroc(answer, p):.3f}, "
            f"{found['cpu_seconds']:g} CPU s"
        )
    write(given.out, part, held)


if __name__ == "__main__":
    main()
