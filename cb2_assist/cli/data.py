"""`datasets` and `import-volume`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from cb2_assist.cli.options import Pair, Triple, json_option
from cb2_assist.cli.output import tell
from cb2_assist.cli.progress import ProgressLine


@click.command()
@json_option
@click.option(
    "--offline", is_flag=True, help="Do not try the servers, which takes up to five seconds."
)
def datasets(as_json: bool, offline: bool) -> None:
    """List what can be opened, with licence, login need and reachability.

    Every server is asked for anything at all, without a token. That it answers does not say that
    your account may read the dataset: cb2-assist doctor --dataset NAME does.
    """
    from cb2_assist.datasets.registry import known_datasets

    entries = known_datasets(probing=not offline)
    if as_json:
        rows = [
            {
                "name": e.name,
                "title": e.title,
                "licence": e.licence,
                "needs_login": e.needs_login,
                "reachable": e.reachable,
                "unreachable_because": e.unreachable_because or None,
                "how_to_open": e.how_to_open,
                "voxel_nm": e.voxel_nm,
                "note": e.note,
            }
            for e in entries
        ]
        click.echo(json.dumps({"datasets": rows}))
        return
    for e in entries:
        state = {True: "reachable", False: "not reachable", None: "not tried"}[e.reachable]
        if e.unreachable_because:
            state += f" ({e.unreachable_because})"
        login = "login needed" if e.needs_login else "no login"
        click.echo(f"{e.name}: {e.title}\n    {e.licence}; {login}; {state}; {e.how_to_open}")
        if e.note:
            click.echo(f"    {e.note}")
    click.echo("Your own: cb2-assist import-volume --help, then --dataset-file DIR/dataset.toml")
    click.echo('A CAVE datastack: a file with [cave], datastack = "…", server = "https://…"')


@click.command("import-volume")
@click.option(
    "--em",
    required=True,
    metavar="FILE[:KEY]",
    help="uint8 volume: .npy, .npz, .h5, .tif, Zarr, N5, a folder of sections or 'EM*.tif'.",
)
@click.option(
    "--segmentation", required=True, metavar="FILE[:KEY]", help="Whole numbers, 0 = background."
)
@click.option("--truth", metavar="FILE[:KEY]", help="Segments as they should be.")
@click.option("--voxel-nm", type=Triple(), required=True, help="Voxel size.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to make.")
@click.option(
    "--axes",
    type=click.Choice(["zyx", "xyz"]),
    help="Order of the axes in the files. Default: what a file says of itself, else zyx.",
)
@click.option(
    "--em-range",
    type=Pair(),
    help="Values that become black and white, for EM that is not uint8.",
)
@click.option("--name", help="Default: the folder's name.")
@click.option(
    "--species",
    type=click.Choice(["mouse", "fly", "human", "zebrafish", "other"]),
    default="other",
    show_default=True,
)
@click.option("--licence", default="unknown", show_default=True, help="Goes into every label.")
@click.option("--citation", default="", help="What a user of the data must cite.")
@click.option("--offset-nm", type=Triple(), default=(0.0, 0.0, 0.0), help="Corner of voxel 0.")
@click.option("--id-offset", type=click.IntRange(0), default=0, help="Added to every id but 0.")
@click.option(
    "--mesh-min-voxels",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    help="Smaller segments get no mesh.",
)
def import_volume(
    em: str,
    segmentation: str,
    truth: str | None,
    voxel_nm: tuple[float, float, float],
    out: Path,
    axes: str | None,
    em_range: tuple[float, float] | None,
    name: str | None,
    species: str,
    licence: str,
    citation: str,
    offset_nm: tuple[float, float, float],
    id_offset: int,
    mesh_min_voxels: int,
) -> None:
    """Make a local dataset with meshes from volumes in files, which may be larger than memory.

    KEY names an array inside a file: seg.h5:/volumes/labels, seg.npz:labels, em.zarr:0 (a level of
    an OME-Zarr), em.n5:c0/s0.
    """
    from cb2_assist.datasets.importer import import_volume as make

    with ProgressLine() as line:
        path = make(
            em=em,
            segmentation=segmentation,
            truth=truth,
            voxel_nm=voxel_nm,
            out=out,
            axes=axes,
            em_range=em_range,
            name=name,
            species=species,
            licence=licence,
            citation=citation,
            offset_nm=offset_nm,
            id_offset=id_offset,
            mesh_min_voxels=mesh_min_voxels,
            progress=line,
            every_s=line.every_s,
        )
    click.echo(f"{path}")
    tell(f"open it with cb2-assist --dataset-file {path}")


COMMANDS = (datasets, import_volume)
