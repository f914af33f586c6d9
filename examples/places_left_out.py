"""Do the page's intervals hold in a place that the calibration has not seen? On training decisions.

    python examples/places_left_out.py RUN OUT.npz

RUN is the folder of a finished `cb2-assist train --cross-fit`: each of its decisions is judged by
the network that has not seen its slab, which takes about 6 minutes of one core and is kept in OUT.
Then the volume is cut into slabs, quadrants, octants or twelve blocks. Each block in turn is left
out, temperature, bias and intervals are fitted on the others, and the block's observed shares are
held against the mean interval of their bin. You will see how many bins of at least 100 decisions
lie inside, how wide the intervals are, and the same for intervals of the calibration set alone,
which know nothing of how much places differ.
"""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

import numpy as np
from confidence_on_truth import Bin, bins, coverage
from cuts_measured import averaged_network
from numpy.typing import NDArray

from cb2_assist.core.records import Kind
from cb2_assist.learning.calibrate import fit_scale
from cb2_assist.learning.cross_fit import Held, joined, judged, slabs
from cb2_assist.learning.elsewhere import elsewhere, places
from cb2_assist.learning.prepare import open_part
from cb2_assist.suggestions.calibration import calibrator_from_card

CUTS = {
    "slabs": (1, 1, 3),
    "quadrants": (2, 2, 1),
    "octants": (2, 2, 2),
    "twelve blocks": (2, 2, 3),
}
"""Into how many along x, y, z."""
CHUNK = 256
Floats = NDArray[np.float64]


def unseen(run: Path) -> Held:
    """Every decision of a run, by the network that has not seen its slab."""
    parts = [open_part(folder) for folder in sorted((run / "parts").iterdir())]
    folds = sorted(run.glob("without-slab-*"))
    found = []
    for folder, slab in zip(folds, slabs(parts, len(folds)), strict=True):
        net = averaged_network(folder)
        for part in parts:
            rows = np.flatnonzero(slab.held(part))
            # a bounded number at a time: their views would not fit into memory together
            some = (rows[i : i + CHUNK] for i in range(0, len(rows), CHUNK))
            found += [judged(net, [part.take(r)]) for r in some]
        print(f"{folder.name}: judged", flush=True)
    return joined(found)


def keep(path: Path, held: Held) -> None:
    """Write what `kept` reads."""
    columns = {f.name: getattr(held, f.name) for f in fields(held) if f.name != "logits"}
    np.savez_compressed(path, logit=held.logits["all"], **columns)


def kept(path: Path) -> Held:
    """What `keep` wrote."""
    with np.load(path) as file:
        columns = {k: file[k] for k in file.files if k != "logit"}
        return Held({"all": file["logit"]}, **columns)


def blocks(point_nm: Floats, count: tuple[int, int, int]) -> NDArray[np.int64]:
    """Block of each decision; as many of them in each along every axis."""
    out = np.zeros(len(point_nm), np.int64)
    for axis, n in enumerate(count):
        edges = np.quantile(point_nm[:, axis], np.arange(1, n) / n)
        out = out * n + np.searchsorted(edges, point_nm[:, axis], side="right")
    return out


def left_out(
    logit: Floats,
    answer: NDArray[np.bool_],
    group: NDArray[np.int64],
    source: NDArray[np.str_],
    point_nm: Floats,
    block: NDArray[np.int64],
) -> list[Bin]:
    """Bins of every block, with what the other blocks say."""
    found: list[Bin] = []
    for k in np.unique(block):
        own, rest = block == k, block != k
        scale = fit_scale(logit[rest], answer[rest], group[rest])
        place = places(source[rest], point_nm[rest], answer[rest])
        scale["elsewhere"] = elsewhere(logit[rest], answer[rest], place, scale)
        # the question does not matter: `bins` asks for joins
        calibration = {kind.value: scale for kind in Kind}
        calibrator = calibrator_from_card({"name": "left out", "calibration": calibration})
        z = np.array([calibrator.scales[Kind.JOIN].apply(v) for v in logit[own]])
        found += bins(calibrator, z, answer[own], float(answer[own].mean()))
    return found


def main() -> None:
    """Judge, leave out, print."""
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("run", type=Path)
    ask.add_argument("out", type=Path)
    given = ask.parse_args()
    if not given.out.is_file():
        keep(given.out, unseen(given.run))
    held = kept(given.out)
    for index, kind in enumerate(Kind):
        m = held.task == index
        columns = (held.logits["all"], held.answer, held.group, held.source, held.point_nm)
        rows = [c[m] for c in columns]
        print(f"{kind}s: n {int(m.sum())}, {int(rows[1].sum())} true")
        for name, count in CUTS.items():
            found = left_out(*rows, blocks(held.point_nm[m], count))
            page, alone = (
                coverage(found, [getattr(b, k) for b in found]) for k in ("interval", "alone")
            )
            print(f"  {name}: {page} (calibration set alone: {alone})", flush=True)


if __name__ == "__main__":
    main()
