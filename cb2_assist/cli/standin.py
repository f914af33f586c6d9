"""`cb2-assist standin`: a CAVE server on this machine."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import click

from cb2_assist.cli.options import UserName, chosen, dataset_options
from cb2_assist.cli.progress import ProgressLine
from cb2_assist.cli.serve import Stopped
from cb2_assist.core.ending import set_by_signals, wait_for
from cb2_assist.core.errors import DatasetError


@click.command()
@dataset_options
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default=True,
    help="Port of 127.0.0.1; 0 is any free one.",
)
@click.option("--user", type=UserName(), help="Name that the edit history shows.")
@click.option(
    "--anonymous",
    is_flag=True,
    help="Let in requests without a token, such as Neuroglancer alone sends. Any web page that "
    "you open can then read the volume and edit its graph.",
)
@click.option(
    "--write",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write a dataset file that opens it, and print the command that does.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout when ready.")
def standin(
    dataset: str | None,
    dataset_file: Path | None,
    port: int,
    user: str | None,
    anonymous: bool,
    write: Path | None,
    as_json: bool,
) -> None:
    """Serve a local dataset as a CAVE server whose objects can be merged and cut.

    caveclient, cloud-volume and Neuroglancer talk to it as to a real one. Supervoxels are made from
    the segmentation the first time, and kept; edits last until it stops. Failures on purpose are
    set at URL/standin/faults, what was asked is at URL/standin/requests.

    The demo as a graph in the browser: cb2-assist standin --dataset demo --write demo-graph.toml,
    then, in another terminal, the command that it prints.
    """
    choice = chosen(dataset, dataset_file)
    from cb2_assist.datasets.meter import Meter
    from cb2_assist.datasets.registry import open_dataset
    from cb2_assist.resources import cache_folder
    from cb2_assist.settings import login_name
    from cb2_assist.standin.deployment import Account, Names
    from cb2_assist.standin.served import kept_served
    from cb2_assist.standin.server import StandIn, new_token

    source = open_dataset(choice.name, choice.file)
    try:
        with ProgressLine() as line:
            served = kept_served(source, cache_folder(), Meter(line, every_s=line.every_s))
        info = source.info
    finally:
        source.close()
    name = info.name
    cave = StandIn(
        served,
        names=Names(name, name, f"{name}_image"),
        accounts=[Account(new_token(), name=user or login_name())],
        port=port,
        anonymous=anonymous,
    )
    ended = threading.Event()
    with set_by_signals(ended), cave:
        about = {"name": f"{name}-graph", "species": info.species, "licence": info.licence}
        lines = [f"{key} = {json.dumps(value)}\n" for key, value in about.items()]
        file = f"[dataset]\n{''.join(lines)}\n{cave.dataset_file()}"
        if write is not None:
            _write(write, file)
        if as_json:
            click.echo(
                json.dumps(
                    {
                        "datastack": cave.datastack,
                        "server": cave.url,
                        "token": cave.token,
                        "dataset_file": file,
                    }
                )
            )
        else:
            click.echo(f"cb2-assist: serving the datastack {name} at {cave.url}")
            click.echo(f"token: {cave.token}\n\n# a dataset file for it\n{file}")
            if write is not None:
                click.echo(f"CAVE_TOKEN={cave.token} cb2-assist --dataset-file {write}")
        wait_for(ended)
    raise Stopped


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as e:
        raise DatasetError(f"Cannot write {path}: {e.strerror}. Choose another place.") from e


COMMANDS = (standin,)
