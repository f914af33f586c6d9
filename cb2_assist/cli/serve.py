"""`cb2-assist serve`: the main job."""

from __future__ import annotations

from pathlib import Path

import click

from cb2_assist.cli.options import (
    SegmentIdType,
    Triple,
    UserName,
    dataset_options,
    model_options,
    open_assistant,
    point_nm,
    unit_option,
)
from cb2_assist.cli.output import tell
from cb2_assist.core.records import SegmentId
from cb2_assist.server.browser import BrowserOpening
from cb2_assist.settings import login_name


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """The server ran, was told to stop, and everything it held is closed."""


@click.command()
@dataset_options
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; another than this machine's own also needs --expose.",
)
@click.option(
    "--expose",
    is_flag=True,
    help="Let others reach --host. Nothing is encrypted; ssh -L is the safe way from elsewhere.",
)
@click.option(
    "--allow-host",
    "allow_hosts",
    metavar="NAME",
    multiple=True,
    help="Answer to this name too, e.g. of a reverse proxy that passes Host on. Repeatable.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Default: the port last used with this label file, any free one if taken.",
)
@click.option("--no-browser", is_flag=True, help="Do not open the browser.")
@click.option(
    "--labels",
    metavar="URL",
    help="Default: one sqlite file per dataset and user. A team: postgresql://USER@HOST/DATABASE; "
    "the password from the environment (CB2_LABELS_PASSWORD, PGPASSWORD) or ~/.pgpass.",
)
@model_options
@click.option("--user", type=UserName(), help="Name on the labels. Default: your login name.")
@click.option("--keys", default="default", show_default=True, metavar="PRESET", help="Key preset.")
@click.option("--at", type=Triple(), help="Where to start; default: where you stopped.")
@unit_option("--at")
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
    "--blind-share",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Of the sites, whose numbers are hidden until your answer; `report` compares them.",
)
@click.option(
    "--seeded-share",
    type=click.FloatRange(0, 0.5),
    default=0.0,
    show_default=True,
    help="Of the sites that q leads to, known to be wrong and shown like any other; never a label. "
    "`report` tells you how many you caught.",
)
@click.option(
    "--apply",
    type=click.Choice(["off", "stage", "live"]),
    default="off",
    show_default=True,
    help="Of accepted edits, on a graph that can be edited: off keeps labels only; stage lists "
    "them, and y applies one by one; live applies joins after 3 s (u cancels), cuts with y.",
)
def serve(
    dataset: str | None,
    dataset_file: Path | None,
    host: str,
    expose: bool,
    allow_hosts: tuple[str, ...],
    port: int | None,
    no_browser: bool,
    labels: str | None,
    model: Path | None,
    device: str,
    backend: str,
    user: str | None,
    keys: str,
    at: tuple[float, float, float] | None,
    unit: str,
    segment: SegmentId | None,
    keep_views: str,
    blind_share: float,
    seeded_share: float,
    apply: str,
) -> None:
    """Open a dataset in the browser and suggest joins and cuts under the cursor (p)."""
    assistant = open_assistant(dataset, dataset_file, model, device, backend, soon=True)
    import platformdirs

    from cb2_assist.app_server import ServeOptions, run_server
    from cb2_assist.server.guard import LOOPBACK

    name = assistant.info.name
    folder = platformdirs.user_data_path("cb2-assist", appauthor=False)
    browser = BrowserOpening(folder / "open", tell)

    def ready(address: str) -> None:
        click.echo(f"cb2-assist: serving {name} at {address}")
        if host not in LOOPBACK:
            tell(
                f"WARNING: listening on {host}, where others can reach it. Nothing is encrypted: "
                "whoever sees the traffic or the address can read the data and write labels."
            )
        if not no_browser:
            browser.start(address)

    try:
        run_server(
            assistant,
            ServeOptions(
                user=user or login_name(),
                labels=labels,
                host=host,
                expose=expose,
                allow_hosts=allow_hosts,
                port=port,
                keys=keys,
                keep_views=keep_views == "on",
                blind_share=blind_share,
                seeded_share=seeded_share,
                at=None if at is None else point_nm(at, unit, assistant.source),
                segment=segment,
                apply=apply,
            ),
            on_ready=ready,
            on_arrival=browser.arrived,
            say=tell,
        )
    finally:
        browser.close()
        assistant.close()
    raise Stopped


COMMANDS = (serve,)
