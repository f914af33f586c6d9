"""`doctor`: what works here and what to do about what does not."""

from __future__ import annotations

import json
from pathlib import Path

import click

from cb2_assist.cli.options import dataset_options, json_option, model_option
from cb2_assist.cli.output import tell
from cb2_assist.core.errors import AssistError, UsageError

_MARKS = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}


class UnwellError(AssistError):
    """Something does not work; the report says what."""


@click.command()
@dataset_options
@click.option("--labels", metavar="URL", help="Label file. Default: the dataset's.")
@model_option
@json_option
@click.option(
    "--trust",
    metavar="HOST",
    help="Let the CAVE token go to this host from now on, and nothing else.",
)
def doctor(
    dataset: str | None,
    dataset_file: Path | None,
    labels: str | None,
    model: Path | None,
    as_json: bool,
    trust: str | None,
) -> None:
    """Say what works here and what to do about what does not. Changes nothing but with --trust.

    With a dataset its volumes and label file are looked at too, and for one on a CAVE server
    login, terms, graph, EM and meshes one by one. Exit status 1 if anything fails.
    """
    if trust is not None:
        from cb2_assist.datasets.cave.trust import approve

        path = approve(trust)
        tell(f"{trust} may have your CAVE token from now on ({path})")
        if dataset is None and dataset_file is None:
            return
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
