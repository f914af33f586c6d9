"""`finetune`: a model that has learnt from collected labels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from cb2_assist.cli.output import show, tell


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Folder that export has written: jsonl (--with-views, or with --labels), cb2-v1, cb2-v2.",
)
@click.option("--labels", metavar="URL", help="A label file itself, with the views beside it.")
@click.option("--dataset", metavar="NAME", help="Whose labels, where there are several.")
@click.option("--version", metavar="VERSION", help="Only labels on this segmentation version.")
@click.option(
    "--init",
    type=click.Path(path_type=Path),
    help="The model to begin with. Default: the shipped one.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the run.")
@click.option(
    "--replay",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Base data, so that it is not forgotten: OUT of train, a folder of prepared decisions, or "
    "a dataset.toml with truth. Repeatable.",
)
@click.option(
    "--replay-below-z",
    type=click.IntRange(1),
    help="Of a dataset.toml: only contacts below this voxel plane.",
)
@click.option(
    "--replay-share",
    type=click.FloatRange(0.1, 0.9),
    default=0.5,
    show_default=True,
    help="Of every batch.",
)
@click.option(
    "--fit",
    "level",
    type=click.Choice(["auto", "head", "decision", "measured"]),
    default="auto",
    show_default=True,
    help="How much of the network; auto goes by the number of labels.",
)
@click.option(
    "--hold-out",
    type=click.FloatRange(0.05, 0.5),
    default=0.25,
    show_default=True,
    help="Share of the labels for the figures before and after.",
)
@click.option("--name", default="", help="On the card. Default: the model's, + the dataset's.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The report on stdout.")
def finetune(
    data: Path | None,
    labels: str | None,
    dataset: str | None,
    version: str | None,
    init: Path | None,
    out: Path,
    replay: tuple[Path, ...],
    replay_below_z: int | None,
    replay_share: float,
    level: str,
    hold_out: float,
    name: str,
    seed: int,
    as_json: bool,
) -> None:
    """Make a model from another one and the labels that people gave.

    Few labels fit few weights. Without --replay, or with fewer than 20 labels of a question, the
    last linear layer of each labelled question is fitted; with --replay what combines views and
    measures, too, and from 400 on the layers behind the measures. The image encoder stays as it is.
    Labels that the queue chose by rank teach, but do not calibrate.

    A part of the labels is held out, whole segments or places together, for the figures before and
    after. --out gets model/, report.json and report.md. A model that is not better on the held-out
    part is marked so on its card, and the one before stays the one to use. Stopped, the same
    command goes on; the same labels and options give the same weights.

    A server takes the new model up on its page: model, use another.
    """
    from cb2_assist.learning.finetune import Plan, run_finetune
    from cb2_assist.learning.finetune_labels import Source

    document = run_finetune(
        Plan(
            source=Source(data, labels, dataset, version),
            init=init,
            out=out,
            replay=replay,
            replay_below_z=replay_below_z,
            replay_share=replay_share,
            level=level,
            held_out=hold_out,
            name=name,
            seed=seed,
        ),
        tell,
    )
    show(document, _lines(document), as_json=as_json)


def _lines(document: dict[str, Any]) -> Iterator[str]:
    from cb2_assist.learning.finetune_report import BETTER

    labels, said = document["labels"], document["verdict"]
    yield (
        f"{labels['n_learnt']} labels of {labels['dataset']} learnt from, {labels['n_held_out']} "
        f"held out by {labels['by']}, fitted: {document['fit']['level']}"
    )
    for why, n in labels["left_out"].items():
        yield f"  left out: {n}: {why}"
    for title, sets in (("held out", document["held_out"]), ("base data", document["base"])):
        for kind, f in sets.items():
            figures = ", ".join(
                f"{name} {_figure(f['before'][name])} -> {_figure(f['after'][name])}"
                for name in ("balanced_accuracy", "log_loss", "ece15")
                if name in f["before"]
            )
            yield f"{kind}s, {title}, n {f['n']}: {figures}"
    folder = document["model"]["folder"]
    yield f"{said['is']}: {said['why']}"
    if said["is"] == BETTER:
        yield f"use it with --model {folder}, or from the page: model, use another"
    else:
        yield f"{document['parent']['name']} stays the one to use; this one is in {folder}"


def _figure(f: dict[str, Any]) -> str:
    return "none" if f["value"] is None else f"{f['value']:.3f}"


COMMANDS = (finetune,)
