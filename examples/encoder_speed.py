"""What each way of running the network costs and changes, on decisions with a known answer.

    python examples/encoder_speed.py mydata/dataset.toml OUT --from-z 140 --to-z 165

You will see one table a question: milliseconds a decision, their ratio to torch's float32 and that
of processor time, with all ways run in turn on the same decisions; how far the log-odds move at
most, and in how many decisions the score crosses 0.5; and the figures that this gives. The last
rows leave out patches that hold nothing (geometry without a hit; EM of one grey without a mask):
less to compute, but the network has learnt to look at them too, and its numbers move. OUT keeps the
rendered views, so that a second run starts at once. Choose a slab the model did not learn from.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cb2_assist.core.channels import EmChannel
from cb2_assist.core.errors import AssistError, ModelError
from cb2_assist.core.records import Kind
from cb2_assist.datasets.local import open_dataset_file
from cb2_assist.learning.metrics import auroc, balanced_accuracy, ece15, figures
from cb2_assist.learning.prepare import (
    Part,
    grey_statistics,
    load_volume,
    open_part,
    prepare,
    volume_examples,
)
from cb2_assist.model.checkpoint import load_model
from cb2_assist.model.encoders import BACKENDS, CompiledEncoder
from cb2_assist.model.inputs import NetworkInput
from cb2_assist.model.network import N_TOKENS, N_VIEWS, MultiTaskViT
from cb2_assist.model.predictor import Predictor
from cb2_assist.resources import resource_dir
from cb2_assist.settings import DEFAULT_MODEL
from cb2_assist.suggestions.calibration import Calibrator, calibrator_from_card

AT_ONCE = 16
"""Decisions in one turn, as many as one `p` asks for."""


class WithoutEmptyPatches:
    """Torch, float32, each image for itself with those of its patches that hold something."""

    backend = "torch"

    def __init__(self, network: MultiTaskViT, *, geometry_only: bool) -> None:
        self._net, self._geometry_only = network, geometry_only

    def __call__(self, geometry: Tensor, em: Tensor) -> Tensor:
        """As `model.encoders.Encoder`."""
        net, encoder = self._net, self._net.encoder
        size = encoder.patch_embed.proj.kernel_size[0]
        embedded = [
            encoder.patch_embed(geometry),
            net.em_patches(em).flatten(2).transpose(1, 2),
        ]
        hit = _patches(geometry, size).any(-1)
        planes = _patches(em, size).unflatten(-1, (len(EmChannel), -1))
        grey, masks = planes[:, :, EmChannel.EM], planes[:, :, EmChannel.MASK_A :]
        seen = (grey.amax(-1) > grey.amin(-1)) | masks.flatten(2).any(-1)
        seen = torch.ones_like(seen) if self._geometry_only else seen
        x, kept = torch.cat(embedded) + encoder.pos_embed[:, 1:], torch.cat([hit, seen])
        first = encoder.cls_token + encoder.pos_embed[:, :1]
        out = []
        for n in range(len(x)):
            one = torch.cat([first, x[n : n + 1, kept[n]]], 1) + net.view_embedding[_view(n, x)]
            out.append(encoder.norm(encoder.blocks(one))[:, 0])
        return torch.cat(out)


def _view(image: int, images: Tensor) -> int:
    """Which view an image is: half of the images are geometry, in turns of three."""
    each = N_VIEWS // 2
    return image % each + (each if image >= len(images) // 2 else 0)


def _patches(images: Tensor, size: int) -> Tensor:
    """(N, C, H, W) as (N, patch, C * size * size)."""
    cut = images.unflatten(3, (-1, size)).unflatten(2, (-1, size))
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def ways(model: Path, threads: int, *, compiled: bool) -> Iterator[tuple[str, Predictor]]:
    """Each way by name; those whose package is not installed are left out, and said."""
    for backend in BACKENDS:
        if backend == CompiledEncoder.backend and not compiled:
            continue
        try:
            yield backend, Predictor.open(model, "cpu", threads, backend)
        except ModelError as e:
            print(e)
    network = load_model(model).network
    if not isinstance(network, MultiTaskViT):
        return
    for name, geometry_only in (
        ("torch, no empty geometry", True),
        ("torch, nothing empty", False),
    ):
        made = Predictor.open(model, "cpu", threads, "torch")
        made.encoder = WithoutEmptyPatches(network, geometry_only=geometry_only)
        yield name, made


def measured(
    part: Part, kind: Kind, predictors: dict[str, Predictor], most: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Log-odds of every decision, and each turn's seconds and processor seconds, by way."""
    n = min(most, len(part))
    # spread over the slab
    chosen = np.linspace(0, len(part) - 1, n).astype(int)
    logits: dict[str, list[np.ndarray]] = {name: [] for name in predictors}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in predictors}

    def ask(predictor: Predictor, some: np.ndarray) -> np.ndarray:
        inputs = [
            NetworkInput(np.array(part.geometry[i]), np.array(part.em[i]), part.features[i])
            for i in some
        ]
        present = np.ones((len(some), N_TOKENS), bool)
        began = time.perf_counter(), time.process_time()
        found = predictor.subset_logits(inputs, present, [kind] * len(some), [range(N_TOKENS)])
        took.append((time.perf_counter() - began[0], time.process_time() - began[1]))
        return found[:, 0]

    for turn, start in enumerate(range(0, n, AT_ONCE)):
        some = chosen[start : start + AT_ONCE]
        names = list(predictors)
        # nobody is always the first one, which finds the data cold
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            took: list[tuple[float, float]] = []
            logits[name].append(ask(predictors[name], some))
            seconds[name].append((took[0][0] / len(some), took[0][1] / len(some)))
    return (
        {k: np.concatenate(v) for k, v in logits.items()},
        {k: np.array(v) for k, v in seconds.items()},
    )


def report(
    kind: Kind,
    answer: np.ndarray,
    group: np.ndarray,
    logits: dict[str, np.ndarray],
    seconds: dict[str, np.ndarray],
    calibrator: Calibrator,
) -> None:
    """Print the table of one question."""
    score = np.vectorize(lambda z: calibrator.score(kind, float(z)))
    rate = float(answer.mean())
    p = {name: score(z) for name, z in logits.items()}
    of = figures(answer, p["torch"], group)
    print(
        f"\n{kind}: n {len(answer)}, {answer.sum()} true; torch float32, 95 % intervals over "
        f"bodies: balanced accuracy {of['balanced_accuracy']}, AUROC {of['auroc']}"
    )
    print(
        f"{'':26}{'ms':>7}{'ratio':>7}{'95 %':>14}{'CPU':>7}{'max |d|':>10}{'crossed':>9}"
        f"{'bal.acc.':>10}{'AUROC':>9}{'ECE-15':>9}"
    )
    for name, z in logits.items():
        times, work = (seconds[name] / seconds["torch"]).T
        low, high = _interval(times)
        odds = p[name] / (1 - p[name]) * rate / (1 - rate)
        print(
            f"{name:26}{1000 * np.median(seconds[name][:, 0]):7.1f}{np.median(times):7.2f}"
            f"{f'{low:.2f}-{high:.2f}':>14}{np.median(work):7.2f}"
            f"{np.abs(z - logits['torch']).max():10.1e}"
            f"{int(((p[name] > 0.5) != (p['torch'] > 0.5)).sum()):9d}"
            f"{balanced_accuracy(answer, p[name]):10.4f}{auroc(answer, p[name]):9.4f}"
            f"{ece15(answer, odds / (1 + odds)):9.4f}"
        )


def _interval(values: np.ndarray) -> tuple[float, float]:
    """Of a median, by resampling turns."""
    rng = np.random.default_rng(0)
    drawn = np.median(rng.choice(values, (1000, len(values))), axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(low), float(high)


def parts(dataset: Path, out: Path, model: Path, z: tuple[int, int]) -> Iterator[tuple[Kind, Part]]:
    """Rendered decisions of a slab: pure touching pairs, and synthetic cuts."""
    view = load_model(model).views
    say: Callable[[str], None] = print
    for kind, merges in ((Kind.JOIN, 0), (Kind.CUT, 150)):
        folder = out / f"{kind}-{z[0]}-{z[1]}"
        if not (folder / "part.json").is_file():
            volume = load_volume(open_dataset_file(dataset)).below_z(z[1])
            examples = volume_examples(
                volume, view, kinds=(kind,), z_range=z, seed=0, merges=merges
            )
            prepare(examples, folder, str(kind), view, grey_statistics(volume), say=say)
        yield kind, open_part(folder)


def main() -> None:
    """Render, run and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("dataset", type=Path, help="dataset.toml with truth")
    parser.add_argument("out", type=Path, help="folder for rendered views")
    parser.add_argument("--from-z", type=int, default=0)
    parser.add_argument("--to-z", type=int, default=10**6)
    parser.add_argument("--model", type=Path, default=resource_dir("models") / DEFAULT_MODEL)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--most", type=int, default=10**6, help="decisions of each question")
    parser.add_argument("--compiled", action="store_true", help="torch-compiled, too: minutes more")
    given = parser.parse_args()
    try:
        asked = list(parts(given.dataset, given.out, given.model, (given.from_z, given.to_z)))
        predictors = dict(ways(given.model, given.threads, compiled=given.compiled))
        calibrator = calibrator_from_card(next(iter(predictors.values())).model.card)
        for kind, part in asked:
            logits, seconds = measured(part, kind, predictors, given.most)
            chosen = np.linspace(0, len(part) - 1, len(logits["torch"])).astype(int)
            answers = part.answer[chosen], part.group[chosen]
            report(kind, *answers, logits, seconds, calibrator)
    except AssistError as e:
        raise SystemExit(str(e)) from e


if __name__ == "__main__":
    main()
