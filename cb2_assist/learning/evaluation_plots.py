"""Reliability diagram, ROC and precision-recall curve of an evaluation, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.records import Kind
from cb2_assist.learning.calibration_metrics import wilson
from cb2_assist.learning.contract_figures import Ranked
from cb2_assist.learning.judged import Judged
from cb2_assist.learning.metrics import at_base_rate
from cb2_assist.learning.svg_chart import Chart, Curve, svg

Floats = NDArray[np.float64]
PLOTS = ("reliability", "roc", "precision-recall")
BINS = 10


def write_plots(sets: Sequence[Judged], name: str, out: Path) -> list[str]:
    """Write ``join-roc.svg`` and so on; those of an earlier run that are not made again go.

    Args:
        sets: One a task. A task with one answer only has no curves.
        name: Of the model.
        out: An existing folder.

    Returns:
        The names of the files.
    """
    made = {
        f"{judged.kind.value}-{plot}.svg": svg(chart)
        for judged in sets
        if judged.answer.any() and not judged.answer.all()
        for plot, chart in zip(PLOTS, charts(judged, name), strict=True)
    }
    for file in (f"{kind.value}-{plot}.svg" for kind in Kind for plot in PLOTS):
        (out / file).unlink(missing_ok=True)
    for file, text in made.items():
        (out / file).write_text(text, encoding="utf-8")
    return list(made)


def charts(judged: Judged, name: str) -> tuple[Chart, Chart, Chart]:
    """One of each of `PLOTS`."""
    task = judged.kind.value
    n, positive = len(judged), int(judged.answer.sum())
    note = f"{n} decisions, {positive} true"
    fpr, tpr = roc(judged)
    recall, precision = precision_recall(judged)
    return (
        Chart(
            f"{task}: reliability",
            "confidence at the set's base rate",
            "share that is true",
            [reliability(judged, name)],
            diagonal=True,
            note=f"{note}; bars: 95 % (Wilson)",
        ),
        Chart(
            f"{task}: ROC",
            "false positive rate",
            "true positive rate",
            [Curve(name, fpr, tpr)],
            diagonal=True,
            note=f"{note}; dashes: chance",
        ),
        Chart(
            f"{task}: precision and recall",
            "recall",
            "precision",
            [Curve(name, recall, precision, steps=True)],
            level=positive / n,
            note=f"{note}; dashes: chance",
        ),
    )


def reliability(judged: Judged, name: str) -> Curve:
    """Share of true sites against mean confidence, in `BINS` equal-width bins that hold any.

    Decisions without a score have no confidence and are left out.
    """
    known = np.isfinite(judged.score)
    answer = judged.answer[known]
    p = at_base_rate(judged.score[known], float(judged.answer.mean()))
    bins = np.minimum((p * BINS).astype(int), BINS - 1)
    n = np.bincount(bins, minlength=BINS)
    filled = n > 0
    share = np.bincount(bins, answer, BINS)[filled] / n[filled]
    mean = np.bincount(bins, p, BINS)[filled] / n[filled]
    ends = [wilson(s, k) for s, k in zip(share, n[filled], strict=True)]
    low, high = np.array(ends).reshape(-1, 2).T
    return Curve(name, mean, share, low, high, dots=True)


def roc(judged: Judged) -> tuple[Floats, Floats]:
    """False and true positive rate at each threshold, from none to all said yes."""
    true, false = Ranked(judged.answer, judged.score).by_level(np.ones(len(judged)))
    hits, alarms = np.cumsum(true[::-1]), np.cumsum(false[::-1])
    return np.insert(alarms / alarms[-1], 0, 0.0), np.insert(hits / hits[-1], 0, 0.0)


def precision_recall(judged: Judged) -> tuple[Floats, Floats]:
    """Recall and precision at each threshold, by rising recall; the area is average precision."""
    true, false = Ranked(judged.answer, judged.score).by_level(np.ones(len(judged)))
    hits, seen = np.cumsum(true[::-1]), np.cumsum((true + false)[::-1])
    precision = hits / seen
    return np.insert(hits / hits[-1], 0, 0.0), np.insert(precision, 0, precision[0])
