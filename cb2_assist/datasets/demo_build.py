"""Makes the shipped demo again: ``python -m cb2_assist.datasets.demo_build [FILE.zip]``.

Takes about ten minutes of one core and 6 GB of memory, and gives the same volumes bit for bit.
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from cb2_assist.datasets.demo_make import SHIPPED, make
from cb2_assist.datasets.demo_pack import write_pack

PACK = Path(__file__).parent / "demo_data" / "demo.zip"


@click.command()
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False), default=PACK)
def main(out: Path) -> None:
    """Make the demo's tissue, EM, truth and segmentation, and pack them into OUT."""
    manifest = write_pack(out, make(SHIPPED), SHIPPED)
    click.echo(json.dumps(manifest, indent=1))
    click.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
