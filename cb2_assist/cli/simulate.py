"""`simulate`: which order of asking mends most."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cb2_assist.cli.options import chosen, dataset_options, model_options
from cb2_assist.cli.output import show, tell
from cb2_assist.core.errors import UsageError

if TYPE_CHECKING:
    from cb2_assist.assistant import Assistant


@click.command()
@dataset_options
@model_options
@click.option(
    "--truth",
    metavar="PATH",
    help="Precomputed volume or file with the true segments. Default: the dataset's.",
)
@click.option(
    "--strategy",
    "strategies",
    metavar="NAME",
    multiple=True,
    required=True,
    help="Order of asking; give it again for more, which share the scores: random, contact, size, "
    "confidence, margin, entropy, disagreement, badge, coreset, bait, facility, typicality, value, "
    "mixture.",
)
@click.option("--decisions", type=click.IntRange(1), default=400, show_default=True)
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder."
)
@click.option(
    "--error-rate",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of the answers that are wrong.",
)
@click.option("--from-z", type=click.IntRange(0), default=0, help="Only contacts from this plane.")
@click.option("--to-z", type=click.IntRange(1), help="Only contacts below this plane.")
@click.option(
    "--candidates", type=click.IntRange(1), help="At most so many pairs, drawn. Default: all."
)
@click.option(
    "--training",
    type=click.Path(path_type=Path),
    help="Dataset file for a baseline of boosted trees.",
)
@click.option("--below-z", type=click.IntRange(0), default=0, help="It learns below this plane.")
@click.option("--orders", type=click.IntRange(1), default=20, show_default=True, help="At random.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="summary.json on stdout, too.")
def simulate(
    dataset: str | None,
    dataset_file: Path | None,
    model: Path | None,
    device: str,
    backend: str,
    truth: str | None,
    strategies: tuple[str, ...],
    decisions: int,
    out: Path,
    error_rate: float,
    from_z: int,
    to_z: int | None,
    candidates: int | None,
    training: Path | None,
    below_z: int,
    orders: int,
    seed: int,
    as_json: bool,
) -> None:
    """Let a proofreader who knows the truth answer in some order, and see what it mends.

    Asked are the touching pairs of a segmentation; accepted ones are joined at once. Beside every
    order stand those by contact and by size, the mean of random ones, and the oracle's, which asks
    the join that mends most; a share of 1 is the oracle's area under the curve, 0 the random one.

    --out gets curve.json of the first order, a folder with one for each, summary.json and a plot.
    Scores are kept there, and a run that was broken off goes on where it stopped.
    """
    from cb2_assist.app import build_assistant, open_dataset
    from cb2_assist.datasets.local import LocalSource
    from cb2_assist.learning.simulate import Request, z_range_of
    from cb2_assist.learning.simulate import simulate as run
    from cb2_assist.learning.simulated import summary_lines
    from cb2_assist.model.card import read_card
    from cb2_assist.model.shipped import shipped_model

    if (training is None) != (below_z == 0):
        raise UsageError("--training and --below-z go together.")
    choice = chosen(dataset, dataset_file)
    request = Request(
        strategies=tuple(dict.fromkeys(strategies)),
        decisions=decisions,
        out=out,
        truth=truth,
        error_rate=error_rate,
        z_range=z_range_of(from_z, to_z),
        candidates=candidates,
        training=training,
        below_z=below_z,
        orders=orders,
        seed=seed,
    )

    def judge() -> Assistant:
        return build_assistant(choice, model=model, device=device, backend=backend)

    source = open_dataset(choice.file or str(choice.name))
    try:
        if not isinstance(source, LocalSource):
            raise UsageError("simulate needs a dataset on this machine: demo, or --dataset-file.")
        summary = run(
            request,
            source,
            read_card(model or shipped_model(source.resolution)),
            judge,
            tell,
        )
    finally:
        source.close()
    show(summary, summary_lines(summary), as_json=as_json)


COMMANDS = (simulate,)
