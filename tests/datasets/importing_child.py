"""Imports a volume that is larger than the memory it may use, and prints what it used.

    python importing_child.py FOLDER

FOLDER/em.h5 and FOLDER/seg.h5 are made here, plane by plane. The last line printed is JSON: the
peak of resident memory before the import and after it, in bytes, and the bytes of the volume.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

import h5py
import numpy as np

SHAPE_ZYX = (192, 384, 384)
CELL = 48
MOST_VX = 2**20


def write_volume(folder: Path) -> None:
    """EM of stripes and segments of cells, compressed page by page: the worst case for boxes."""
    nz, ny, nx = SHAPE_ZYX
    y, x = np.mgrid[0:ny, 0:nx]
    chunks = (1, ny, nx)
    with h5py.File(folder / "em.h5", "w") as em, h5py.File(folder / "seg.h5", "w") as seg:
        e = em.create_dataset("v", SHAPE_ZYX, "u1", chunks=chunks, compression="lzf")
        s = seg.create_dataset("v", SHAPE_ZYX, "u8", chunks=chunks, compression="lzf")
        for z in range(nz):
            e[z] = (x + y + z) % 256
            s[z] = 2**60 + 1 + x // CELL + 10 * (y // CELL) + 100 * (z // CELL)


def peak_bytes() -> int:
    """Most memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(folder: Path) -> None:
    """Warm up with a tiny import, so that libraries do not count, then import the large volume."""
    from cb2_assist.datasets.importer import import_volume

    small = np.ones((70, 70, 70), np.uint8)
    np.save(folder / "small.npy", small)
    name = str(folder / "small.npy")
    import_volume(em=name, segmentation=name, voxel_nm=(8, 8, 8), out=folder / "small")
    write_volume(folder)
    before = peak_bytes()
    import_volume(
        em=str(folder / "em.h5"),
        segmentation=str(folder / "seg.h5"),
        voxel_nm=(8, 8, 40),
        out=folder / "large",
        most_vx=MOST_VX,
        progress=lambda line: print(line, file=sys.stderr, flush=True),
        every_s=0.2,
    )
    volume = 9 * int(np.prod(SHAPE_ZYX))
    print(json.dumps({"before": before, "after": peak_bytes(), "volume": volume}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
