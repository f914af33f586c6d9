"""A proofreader who knows the answers: decides on the demo from its truth, and exports the labels.

What you will see: a line for each decision with the confidence that the assistant had and the
answer of the truth, one undo, and where the labels went, one JSON object a line. The label file is
the same as a server's: start the page on it afterwards to see the verdicts.

    python examples/proofread_from_truth.py OUT
    cb2-assist --dataset demo --labels sqlite:///OUT/labels.sqlite --user truth
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from cb2_assist import (
    Assistant,
    Kind,
    PointNm,
    Suggestion,
    Verdict,
    export_labels,
    open_assistant,
    open_labels,
)
from cb2_assist.core.errors import BackgroundError
from cb2_assist.core.geometry import BoxVx

POINTS_NM = [(1500, 2500, 1600), (3000, 3000, 2000), (4200, 1800, 2600)]
PER_POINT = 4
NEAR_NM = 300.0
"""A contact or neck is judged by the true bodies within this distance."""
SURE = 0.75
"""Share that the main body must have on each side."""


def main(arguments: list[str]) -> None:
    """Ask at some points, answer from the truth, take one answer back, export."""
    ask = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    ask.add_argument("out", type=Path, metavar="OUT", help="folder for labels and the export")
    out = ask.parse_args(arguments).out
    out.mkdir(parents=True, exist_ok=True)
    with open_assistant("demo") as assistant, open_labels(out / "labels.sqlite") as labels:
        for at in POINTS_NM:
            try:
                found = assistant.suggest(PointNm.of(at))
            except BackgroundError:
                continue
            for suggestion in found.suggestions[:PER_POINT]:
                verdict = true_answer(assistant, suggestion)
                assistant.decide(suggestion, verdict, labels=labels, user="truth")
                print(
                    f"{suggestion.site.kind:4}  {suggestion.confidence:5.1%}  {verdict:6}  "
                    f"{suggestion.reason}"
                )
        undone = assistant.undo(labels=labels, user="truth")
        print(f"took back decision {undone.target}")
        report = export_labels(labels.store, out=out)
    print(f"{report.rows} labels in {report.files[0]}")


def true_answer(assistant: Assistant, suggestion: Suggestion) -> Verdict:
    """Accept, reject, or unsure where a side belongs to no single true body."""
    source, site = assistant.source, suggestion.site
    box = BoxVx.around(site.point, NEAR_NM, source.resolution).clip(source.bounds)
    truth = source.truth_cutout(box)
    if site.kind is Kind.JOIN:
        seg = source.cutout(box).seg
        sides = [truth[seg == np.uint64(i)] for i in (site.segment, site.partner)]
    else:
        lo, size = np.array(tuple(box.lo)), np.array(tuple(source.resolution))
        sides = []
        for points_nm in assistant.sides_of(suggestion.id):
            voxels = np.floor(np.array(points_nm).reshape(-1, 3) / size).astype(int) - lo
            inside = np.all((voxels >= 0) & (voxels < box.shape), axis=1)
            sides.append(truth[tuple(voxels[inside].T)])
    bodies = [main_body(side) for side in sides]
    if None in bodies:
        return Verdict.UNSURE
    same = bodies[0] == bodies[1]
    return Verdict.ACCEPT if same == (site.kind is Kind.JOIN) else Verdict.REJECT


def main_body(side: np.ndarray) -> int | None:
    """The true body that most of a side belongs to."""
    bodies, counts = np.unique(side[side > 0], return_counts=True)
    if not len(bodies) or counts.max() < SURE * side.size:
        return None
    return int(bodies[counts.argmax()])


if __name__ == "__main__":
    main(sys.argv[1:])
