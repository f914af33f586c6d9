"""`report`: what has been done with a label file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from cb2_assist.cli.options import json_option, names_option
from cb2_assist.core.errors import AssistError


@click.command()
@click.option("--labels", metavar="URL", required=True, help="Label file.")
@click.option("--dataset", metavar="NAME", help="Only this dataset.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for report.json, report.md and SVG plots.",
)
@names_option
@json_option
def report(
    labels: str, dataset: str | None, out: Path | None, with_names: bool, as_json: bool
) -> None:
    """Tell what has been decided, how fast, and how well; works beside a running server.

    Throughput and seconds per decision without idle time, whether the confidence holds on sites
    that the queue drew, acceptance and agreement with the model over time and by model version,
    agreement with and without the score on screen, how many errors are left, flags and their
    notes, and a paragraph for a paper's methods.

    The page of a running server is /report; it tells your own speed and how many suggestions that
    were known to be wrong you caught, and nobody else's.
    """
    from cb2_assist.labels.store import open_store
    from cb2_assist.learning.report import report as make
    from cb2_assist.learning.report_text import markdown

    with open_store(labels, read_only=True) as store:
        document = make(store, dataset=dataset, with_names=with_names)
    text = markdown(document)
    files = [] if out is None else _write(out, document, text)
    if as_json:
        click.echo(json.dumps({**document, "files": files}, allow_nan=False))
        return
    click.echo(text)
    for file in files:
        click.echo(f"  {file}")


def _write(out: Path, document: dict[str, Any], text: str) -> list[str]:
    from cb2_assist.learning.report_text import pictures

    whole = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    files = {"report.json": whole, "report.md": text}
    files |= {f"{name}.svg": picture for name, picture in pictures(document).items()}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (out / name).write_text(content, encoding="utf-8")
    except OSError as e:
        raise AssistError(f"{out} cannot be written: {e.strerror or e}. Name another --out.") from e
    return [str(out / name) for name in files]


COMMANDS = (report,)
