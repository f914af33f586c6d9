"""`export`: labels leave for fine-tuning."""

from __future__ import annotations

import json
from pathlib import Path

import click

from cb2_assist.core.errors import UsageError


@click.command()
@click.option("--labels", metavar="URL", help="Label file, e.g. sqlite:///labels.sqlite.")
@click.option("--dataset", metavar="NAME", help="Only this dataset; also finds its default file.")
@click.option("--format", "format_", default="jsonl", show_default=True, help="Of the rows.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder.")
@click.option("--with-names", is_flag=True, help="User names instead of pseudonyms.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def export(
    labels: str | None,
    dataset: str | None,
    format_: str,
    out: Path,
    with_names: bool,
    as_json: bool,
) -> None:
    """Write the labels in force, one row each; works beside a running server."""
    from cb2_assist.labels.store import default_labels_url, open_store
    from cb2_assist.learning.export import export_labels

    if labels is None and dataset is None:
        raise UsageError("Say which labels: --labels URL, or --dataset NAME for its default file.")
    with open_store(labels or default_labels_url(str(dataset)), read_only=True) as store:
        report = export_labels(
            store, out=out, format=format_, dataset=dataset, with_names=with_names
        )
    if as_json:
        click.echo(json.dumps(report.to_json()))
        return
    click.echo(f"{report.rows} labels written")
    for path in report.files:
        click.echo(f"  {path}")
    for why, n in report.skipped.items():
        click.echo(f"  {n} answers left out: {why}")


COMMANDS = (export,)
