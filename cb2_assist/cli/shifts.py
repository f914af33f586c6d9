"""`shifts`: does a model know when it does not know?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from cb2_assist.cli.learn import slab
from cb2_assist.cli.options import device_option
from cb2_assist.cli.output import show, tell


@click.command()
@click.option(
    "--data", type=click.Path(path_type=Path), required=True, help="dataset.toml with truth."
)
@click.option("--model", type=click.Path(path_type=Path), help="Default: the shipped one.")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Folder for the results."
)
@click.option(
    "--other",
    "others",
    type=click.Path(path_type=Path),
    multiple=True,
    help="dataset.toml of another volume that the shifts name; give it again for more.",
)
@click.option("--z", metavar="LO:HI", help="Only contacts in this range; nothing beyond is read.")
@click.option(
    "--n", type=click.IntRange(4), default=200, show_default=True, help="Joins of each cell."
)
@click.option(
    "--shifts",
    "file",
    type=click.Path(path_type=Path),
    help="File of shifts. Default: the shipped one, 8 families at 4 severities.",
)
@device_option
@click.option(
    "--draws",
    type=click.IntRange(20),
    default=300,
    show_default=True,
    help="Resamples behind the intervals.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="shifts.json on stdout, too.")
def shifts(
    data: Path,
    model: Path | None,
    out: Path,
    others: tuple[Path, ...],
    z: str | None,
    n: int,
    file: Path | None,
    device: str,
    draws: int,
    seed: int,
    as_json: bool,
) -> None:
    """Try whether a model knows when it does not know.

    Joins of a dataset with truth are judged as they are, and under blur, noise, contrast, coarser
    mips, other voxel sizes, missing EM, missing geometry, and in other volumes. For each shift:
    balanced accuracy, calibration, and how far the model's distances say the joins are from
    training; over all shifts, whether those distances rank the damage.

    --out gets shifts.json, report.md and plots (SVG). The same command again goes on where it
    stopped.
    """
    from cb2_assist.app import dataset_choice, model_for
    from cb2_assist.learning.shift_run import Request, run_shifts
    from cb2_assist.learning.shifts import SHIPPED

    data = data if data.suffix == ".toml" else data / "dataset.toml"
    result = run_shifts(
        Request(
            data=data,
            model=model or model_for(dataset_choice(data)),
            out=out,
            others=tuple(o if o.suffix == ".toml" else o / "dataset.toml" for o in others),
            z=slab(z, "--z"),
            n=n,
            shifts=file or SHIPPED,
            device=device,
            draws=draws,
            seed=seed,
        ),
        tell,
    )
    show(result, _lines(result), as_json=as_json)


def _lines(result: dict[str, Any]) -> Iterator[str]:
    from cb2_assist.learning.evaluation_report import figure

    summary = result["summary"]
    default = summary["default"]
    yield f"distance {default}, {summary['n_cells']} cells, {summary['n_far']} of them far"
    yield f"AUROC of far cells against unshifted: {figure(summary['far_auroc'][default])}"
    for name, words in (("drop", "drop in balanced accuracy"), ("ece15_score", "ECE-15")):
        found = summary[f"spearman_{name}"][default]
        yield f"Spearman of distance and {words}: {figure(found)}"
    for missing in result["not_run"]:
        yield f"not run: {missing['cell']}: {missing['why']}"


COMMANDS = (shifts,)
