"""A dataset with truth as a microscope with other voxels would give it, e.g. thick sections.

    python examples/thick_sections.py DATASET.toml OUT [--voxel-nm 8,8,40]
    cb2-assist evaluate --data OUT/dataset.toml --model models/cb2-vit-tiny --from-z 47 --out EVAL

EM is averaged over each new voxel, labels are those of its middle. What you will see: the sizes
before and after. With 10 nm voxels before and sections of 40 nm after, plane 185 becomes 46.25: 47
is the first plane that lies wholly in the part that the shipped model was not trained on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from cb2_assist.datasets.importer import grid_of
from cb2_assist.datasets.local import open_dataset_file
from cb2_assist.datasets.writer import Description, Volume, write_dataset
from cb2_assist.learning.prepare import load_volume
from cb2_assist.learning.shifts import sections


def main() -> None:
    """Read, resample, write."""
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("dataset", type=Path)
    ask.add_argument("out", type=Path)
    ask.add_argument("--voxel-nm", default="8,8,40", help="X,Y,Z")
    given = ask.parse_args()
    voxel_nm = tuple(float(v) for v in given.voxel_nm.split(","))
    if len(voxel_nm) != 3 or min(voxel_nm) <= 0:
        ask.error(f"--voxel-nm takes three sizes X,Y,Z above 0, got {given.voxel_nm!r}")
    source = open_dataset_file(given.dataset)
    try:
        info, volume = source.info, load_volume(source)
    finally:
        source.close()
    thick = sections(volume, voxel_nm=voxel_nm)
    corner = [i * r for i, r in zip(thick.box.lo, thick.resolution, strict=True)]
    file = write_dataset(
        given.out,
        Volume(
            grid_of(voxel_nm, corner),
            np.asfortranarray(thick.em),
            np.asfortranarray(thick.seg),
            np.asfortranarray(thick.truth),
        ),
        Description(
            f"{info.name}-{'x'.join(f'{v:g}' for v in voxel_nm)}nm",
            info.species,
            info.licence,
            info.citation,
        ),
        # decisions are judged from voxels; meshes are for the page
        mesh_min_voxels=100_000_000,
    )
    print(f"{volume.em.shape} voxels of {tuple(volume.resolution)} nm")
    print(f"{thick.em.shape} voxels of {voxel_nm} nm in {file}")


if __name__ == "__main__":
    main()
