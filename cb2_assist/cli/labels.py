"""`export`, `labels backup`, `copy`, `verify`: labels leave for fine-tuning, and are kept safe."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cb2_assist.cli.options import json_option, names_option
from cb2_assist.cli.output import tell
from cb2_assist.core.errors import LabelError, UsageError

if TYPE_CHECKING:
    from cb2_assist.learning.export_views import SiteRenderer

_labels_option = click.option(
    "--labels",
    metavar="URL",
    help="Labels, e.g. sqlite:///labels.sqlite or postgresql://USER@HOST/DATABASE.",
)
_dataset_option = click.option(
    "--dataset", metavar="NAME", help="Only this dataset; also finds its default file."
)


@click.command()
@_labels_option
@_dataset_option
@click.option(
    "--dataset-file",
    type=click.Path(path_type=Path),
    help="Your own dataset, to make views that were not kept; also finds its default label file.",
)
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="Model folder that labels without views name. Default: the shipped one.",
)
@click.option(
    "--format",
    "format_",
    default="jsonl",
    show_default=True,
    metavar="jsonl|csv|cb2-v1|cb2-v2",
    help="Of the rows.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder.")
@names_option
@click.option(
    "--with-views",
    is_flag=True,
    help="Beside jsonl or csv: also what the model saw, for finetune --data elsewhere.",
)
@click.option(
    "--user", "users", metavar="NAME", multiple=True, help="Only of this person. Repeatable."
)
@click.option("--since", metavar="TIME", help="Decided then or later, e.g. 2026-03-01 (UTC).")
@click.option("--until", metavar="TIME", help="Decided before then.")
@click.option(
    "--licence",
    "licences",
    metavar="PATTERN",
    multiple=True,
    help="Only data under this licence, e.g. 'CC-BY-4.0' or 'CC-BY*'. Repeatable.",
)
@click.option(
    "--not-licence",
    "not_licences",
    metavar="PATTERN",
    multiple=True,
    help="No data under this one, e.g. '*NC*'. Repeatable.",
)
@click.option(
    "--by-model",
    "models",
    metavar="NAME|SHA256",
    multiple=True,
    help="Only suggestions of this model. Repeatable.",
)
@click.option(
    "--cb2-cubes",
    type=click.Path(path_type=Path),
    help="CSV of ConnectomeBench2's cubes; labels in a test cube are left out.",
)
@json_option
def export(
    labels: str | None,
    dataset: str | None,
    dataset_file: Path | None,
    model: Path | None,
    format_: str,
    out: Path,
    with_names: bool,
    with_views: bool,
    users: tuple[str, ...],
    since: str | None,
    until: str | None,
    licences: tuple[str, ...],
    not_licences: tuple[str, ...],
    models: tuple[str, ...],
    cb2_cubes: Path | None,
    as_json: bool,
) -> None:
    """Write the labels in force, one row each; works beside a running server.

    Beside them goes a datasheet: who decided (pseudonyms), how the sites came to be asked, licences
    and limits.

    jsonl has one object a line. csv has nested values as JSON text, and an apostrophe before every
    cell that a spreadsheet could take for a formula: take one off when reading.

    cb2-v1 is parquet that ConnectomeBench2's public loader reads; cb2-v2 has the columns of its
    second release. Both take what the model saw from beside the label file and need no dataset.
    Views that were not kept are made again from the dataset version that the label names (--dataset
    or --dataset-file); labels whose views cannot be had are left out and counted.

    The CSV of --cb2-cubes has the columns dataset, x0_nm, y0_nm, z0_nm, x1_nm, y1_nm, z1_nm, split.
    Rows say in cb2_split where they lie; unknown without a table.
    """
    from cb2_assist.labels.store import open_store
    from cb2_assist.learning.cb2_cubes import NO_CUBES, read_cubes
    from cb2_assist.learning.export import export_labels
    from cb2_assist.learning.export_filter import Wanted, read_time

    wanted = Wanted(
        users=users,
        since=None if since is None else read_time(since, "--since"),
        until=None if until is None else read_time(until, "--until"),
        licences=licences,
        not_licences=not_licences,
        models=models,
        cubes=NO_CUBES if cb2_cubes is None else read_cubes(cb2_cubes),
    )
    url = _url(labels, dataset, dataset_file)
    with ExitStack() as stack:
        store = stack.enter_context(open_store(url, read_only=True))
        renderer = None
        needs_views = with_views or format_.startswith("cb2-")
        if needs_views and (dataset is not None or dataset_file is not None):
            renderer = _renderer(dataset, dataset_file, model)
            stack.callback(renderer.close)
        report = export_labels(
            store,
            out=out,
            format=format_,
            dataset=dataset,
            wanted=wanted,
            with_names=with_names,
            renderer=renderer,
            with_views=with_views,
        )
    if renderer is not None and renderer.failure is not None:
        tell(renderer.failure)
    if as_json:
        click.echo(json.dumps(report.to_json()))
        return
    click.echo(f"{report.rows} labels written")
    for path in report.files:
        click.echo(f"  {path}")
    for note in report.notes:
        click.echo(f"  {note}")
    for why, n in report.skipped.items():
        click.echo(f"  {n} answers left out: {why}")


def _renderer(dataset: str | None, dataset_file: Path | None, model: Path | None) -> SiteRenderer:
    from cb2_assist.app import DatasetChoice, build_assistant, model_for
    from cb2_assist.learning.export_views import SiteRenderer
    from cb2_assist.model.card import check_card

    choice = DatasetChoice(dataset if dataset_file is None else None, dataset_file)
    folder = model or model_for(choice)
    return SiteRenderer(
        lambda: build_assistant(choice, model=folder, network=False), check_card(folder).sha256
    )


def _url(labels: str | None, dataset: str | None, dataset_file: Path | None = None) -> str:
    """The label file that the options name.

    Raises:
        UsageError: They name none.
    """
    from cb2_assist.labels.store import default_labels_url

    if labels is not None:
        return labels
    if dataset is None and dataset_file is not None:
        from cb2_assist.datasets.dataset_file import read_dataset_file

        dataset = read_dataset_file(dataset_file).name
    if dataset is None:
        raise UsageError("Say which labels: --labels URL, or --dataset NAME for its default file.")
    return default_labels_url(dataset)


@click.group()
def labels() -> None:
    """Keep labels safe: copy them, check them, bring them to a team."""


@labels.command()
@_labels_option
@_dataset_option
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Folder for the copy; a new one."
)
@json_option
def backup(labels: str | None, dataset: str | None, out: Path, as_json: bool) -> None:
    """Copy labels and kept views into a new folder, beside a running server too.

    The copy is of one moment and is checked after it was written. To go back to it, open it:
    --labels sqlite:///OUT/labels.sqlite. A team's labels become a file too.
    """
    from cb2_assist.labels.backup import back_up

    made = back_up(_url(labels, dataset), out)
    if as_json:
        click.echo(json.dumps(made.to_json()))
    else:
        click.echo(f"{made.events} events and the views of {made.views} sites are in {made.folder}")
        click.echo(f"  open them with --labels {made.url}")
    _refuse(made.problems, f"The copy in {made.folder} is complete, but")


@labels.command("copy")
@_labels_option
@_dataset_option
@click.option("--to", "target", metavar="URL", required=True, help="Where; nothing is there yet.")
@json_option
def copy_(labels: str | None, dataset: str | None, target: str, as_json: bool) -> None:
    """Bring labels, queue and views from a file to a team's database, or back.

    Every event keeps its number, time and key. The copy is of one moment and is checked; what is
    decided on the old labels afterwards is not in it, so stop the servers first.

    A database is made with `createdb NAME` and named postgresql://USER@HOST/NAME. The password
    comes from the environment (CB2_LABELS_PASSWORD, PGPASSWORD), a file (CB2_LABELS_PASSWORD_FILE,
    PGPASSFILE) or ~/.pgpass.
    """
    from cb2_assist.labels.copying import copy_labels

    made = copy_labels(_url(labels, dataset), target)
    found = made.found
    if as_json:
        click.echo(json.dumps(made.to_json()))
    else:
        click.echo(
            f"{found.events} events, {made.rows['queue_items']} sites of the queue and the views "
            f"of {found.views} sites are in {made.url}"
        )
        for note in found.notes:
            click.echo(f"  {note}")
    _refuse(found.problems, f"The copy in {made.url} is complete, but")


@labels.command()
@_labels_option
@_dataset_option
@json_option
def verify(labels: str | None, dataset: str | None, as_json: bool) -> None:
    """Check every label and every kept view; exit status 1 when something is wrong.

    The database itself and its layout, that the log has no gap, that each event can be read and is
    about one that is there, that each decision agrees with its columns, and that the views it names
    are there and unharmed.

    It finds damage, not every change that somebody made on purpose: a reason, a time of recording,
    or any part of a decision that has no column is not checked against anything, and a log that was
    cut at its end together with SQLite's count of it looks whole. A backup does.
    """
    from cb2_assist.labels.store import open_store
    from cb2_assist.labels.verify import verify_labels

    with open_store(_url(labels, dataset), read_only=True) as store:
        found = verify_labels(store)
    if as_json:
        click.echo(json.dumps(found.to_json()))
    else:
        click.echo(f"{found.url}: {found.events} events, {found.views} kept views")
        for line in (*found.problems, *found.notes):
            click.echo(f"  {line}")
    _refuse(found.problems, "Something is wrong with these labels:")


def _refuse(problems: tuple[str, ...], what: str) -> None:
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise LabelError(f"{what} {problems[0]}{more}")


COMMANDS = (export, labels)
