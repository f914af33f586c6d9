"""A volume of your own: files in, scores out.

What you will see: the import's progress; then the model's answer on each place where two segments
touch, one line each with score and confidence, highest first. On top are segments 5 and 10, the two
halves of a tube that the segmentation has cut in two by mistake; no membrane lies between them.

Here the files are made first, EM in HDF5 and segments in TIFF; put your own in their place. A
dataset that was imported before is opened as it is.

    python examples/import_and_score.py OUT
    cb2-assist --dataset-file OUT/mydata/dataset.toml
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import h5py
import numpy as np
import tifffile

from cb2_assist import Kind, PointNm, Site, import_volume, open_assistant
from cb2_assist.core.records import SegmentId

VOXEL_NM = (10.0, 10.0, 20.0)
SHAPE_ZYX = (80, 120, 120)
LEAST_FACES = 30


def main(arguments: list[str]) -> None:
    """Make files, import them, score every contact."""
    ask = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    ask.add_argument("out", type=Path, metavar="OUT", help="folder for files and the dataset")
    out = ask.parse_args(arguments).out
    dataset = out / "mydata" / "dataset.toml"
    if not dataset.is_file():
        out.mkdir(parents=True, exist_ok=True)
        make_files(out)
        import_volume(
            em=f"{out / 'em.h5'}:/volumes/raw",
            segmentation=str(out / "segments.tif"),
            voxel_nm=VOXEL_NM,
            out=dataset.parent,
            species="other",
            licence="CC0-1.0",
            citation="made by examples/import_and_score.py",
            mesh_min_voxels=500,
            progress=lambda line: print(line, file=sys.stderr),
        )
    with open_assistant(dataset) as assistant:
        sites = contacts(assistant.source.cutout(assistant.source.bounds).seg)
        answers = list(assistant.score(sites))
    judged = [a.suggestion for a in answers if a.suggestion is not None]
    for s in sorted(judged, key=lambda s: -s.score):
        note = "  not reliable here" if s.ood.flag else ""
        print(
            f"score {s.score:.3f}  confidence {s.confidence:5.1%}  "
            f"{s.site.segment} + {s.site.partner}{note}"
        )
    for a in answers:
        if a.error:
            print(f"{a.site.segment} + {a.site.partner}: {a.error}")
    print(f"{len(judged)} of {len(answers)} contacts scored")


def make_files(folder: Path) -> None:
    """Nine tubes along z with dark membranes between; the middle one is two segments."""
    z, y, x = np.indices(SHAPE_ZYX)
    column, row = x // 40, y // 40
    near = np.hypot(x % 40 - 20, y % 40 - 20)
    segments = 1 + column + 3 * row
    segments[(segments == 5) & (z >= 40)] = 10
    grey = np.where(near < 17, 170, 70) + np.random.default_rng(0).normal(0, 12, SHAPE_ZYX)
    with h5py.File(folder / "em.h5", "w") as file:
        em = file.create_dataset("volumes/raw", data=grey.clip(0, 255).astype("u1"), chunks=True)
        em.attrs["resolution"] = VOXEL_NM[::-1]
    tifffile.imwrite(folder / "segments.tif", segments.astype("u2"), metadata={"axes": "ZYX"})


def contacts(seg: np.ndarray) -> list[Site]:
    """One join for each pair of segments that touch, at the middle of their contact."""
    where: dict[tuple[int, int], list[np.ndarray]] = {}
    for axis in range(3):
        a = np.moveaxis(seg, axis, 0)
        touching = (a[1:] != a[:-1]) & (a[1:] > 0) & (a[:-1] > 0)
        for at in np.argwhere(touching):
            pair = sorted((int(a[:-1][tuple(at)]), int(a[1:][tuple(at)])))
            voxel = np.insert(at[1:], axis, at[0]).astype(float) + 0.5
            voxel[axis] += 0.5
            where.setdefault((pair[0], pair[1]), []).append(voxel)
    return [
        Site(
            Kind.JOIN,
            SegmentId(first),
            SegmentId(second),
            PointNm.of(np.mean(faces, axis=0) * np.array(VOXEL_NM)),
        )
        for (first, second), faces in sorted(where.items())
        if len(faces) >= LEAST_FACES
    ]


if __name__ == "__main__":
    main(sys.argv[1:])
