"""`cb2-assist serve`: the main job."""

from __future__ import annotations

import contextlib
import getpass
import os
import webbrowser
from pathlib import Path

import click

from cb2_assist.cli.options import (
    SegmentIdType,
    Triple,
    dataset_options,
    model_options,
    open_assistant,
    point_nm,
)
from cb2_assist.core.records import SegmentId


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """The server ran, was told to stop, and everything it held is closed."""


def _user() -> str:
    with contextlib.suppress(OSError, KeyError, ImportError):
        return getpass.getuser()
    return f"uid-{os.getuid()}" if hasattr(os, "getuid") else "someone"


@click.command()
@dataset_options
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Loopback address to listen on."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Default: the port last used with this label file, any free one if taken.",
)
@click.option("--no-browser", is_flag=True, help="Do not open the browser.")
@click.option("--labels", metavar="URL", help="Default: one sqlite file per dataset and user.")
@model_options
@click.option("--user", help="Name on the labels. Default: your login name.")
@click.option("--keys", default="default", show_default=True, metavar="PRESET", help="Key preset.")
@click.option("--at", type=Triple(), help="Where to start; default: where you stopped.")
@click.option(
    "--unit", type=click.Choice(["nm", "voxel"]), default="nm", show_default=True, help="Of --at."
)
@click.option(
    "--segment", type=SegmentIdType(), help="Propose on this segment, at --at or wherever it is."
)
@click.option(
    "--keep-views",
    type=click.Choice(["on", "off"]),
    default="on",
    show_default=True,
    help="Keep what the model saw beside the labels, about 0.25 MB a decision.",
)
@click.option(
    "--apply",
    type=click.Choice(["off"]),
    default="off",
    show_default=True,
    help="Edits are logged as labels, never sent to a server.",
)
def serve(
    dataset: str | None,
    dataset_file: Path | None,
    host: str,
    port: int | None,
    no_browser: bool,
    labels: str | None,
    model: Path | None,
    device: str,
    user: str | None,
    keys: str,
    at: tuple[float, float, float] | None,
    unit: str,
    segment: SegmentId | None,
    keep_views: str,
    apply: str,  # noqa: ARG001 - the only choice is off
) -> None:
    """Open a dataset in the browser and suggest joins and cuts under the cursor (p)."""
    assistant = open_assistant(dataset, dataset_file, model, device, soon=True)
    from cb2_assist.app import ServeOptions, run_server

    name = assistant.info.name

    def ready(address: str) -> None:
        click.echo(f"cb2-assist: serving {name} at {address}")
        if not no_browser and not webbrowser.open(address):
            click.echo("cb2-assist: no browser could be opened; open the address above", err=True)

    try:
        run_server(
            assistant,
            ServeOptions(
                user=user or _user(),
                labels=labels,
                host=host,
                port=port,
                keys=keys,
                keep_views=keep_views == "on",
                at=None if at is None else point_nm(at, unit, assistant.source),
                segment=segment,
            ),
            on_ready=ready,
            say=lambda text: click.echo(f"cb2-assist: {text}", err=True),
        )
    finally:
        assistant.close()
    raise Stopped


COMMANDS = (serve,)
