"""`doctor`: what works here and what to do about what does not."""

from __future__ import annotations

import json
from pathlib import Path

import click

from cb2_assist.cli.options import dataset_options
from cb2_assist.core.errors import AssistError, UsageError

_MARKS = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}


class UnwellError(AssistError):
    """Something does not work; the report says what."""


@click.command()
@dataset_options
@click.option("--labels", metavar="URL", help="Label file. Default: the dataset's.")
@click.option(
    "--model", type=click.Path(path_type=Path), help="Model folder instead of the shipped one."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def doctor(
    dataset: str | None,
    dataset_file: Path | None,
    labels: str | None,
    model: Path | None,
    as_json: bool,
) -> None:
    """Say what works here and what to do about what does not. Changes nothing.

    With a dataset its volumes and label file are looked at too. Exit status 1 if anything fails.
    """
    from cb2_assist.doctor.run import Patient, diagnose

    if dataset is not None and dataset_file is not None:
        raise UsageError("Name one dataset: --dataset NAME or --dataset-file FILE.toml, not both.")
    found = []
    for check in diagnose(Patient(dataset, dataset_file, labels, model)):
        found.append(check)
        if not as_json:
            click.echo(f"{_MARKS[check.state.value]}  {check.name}: {check.text}")
            if check.advice:
                click.echo(f"      {check.advice}")
    failed = [check.name for check in found if check.state.value == "fail"]
    if as_json:
        click.echo(json.dumps({"ok": not failed, "checks": [c.to_json() for c in found]}))
    if failed:
        raise UnwellError(f"{len(failed)} of {len(found)} checks failed: {', '.join(failed)}.")


COMMANDS = (doctor,)
