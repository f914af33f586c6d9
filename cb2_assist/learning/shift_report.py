"""A run over shifts in words, tables and plots, made from ``shifts.json`` alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

from cb2_assist.learning.evaluation_report import cell as text_cell
from cb2_assist.learning.evaluation_report import figure, table
from cb2_assist.learning.shift_figures import SETS, WORDS
from cb2_assist.learning.svg_chart import Chart, Curve, svg

Entry = dict[str, Any]
PLOTS = ("distance-accuracy.svg", "distance-ece.svg")
_BAD = {
    "drop": "drop in balanced accuracy",
    "ece15_score": "ECE-15 of the score",
}


def report(result: Entry) -> str:
    """Markdown of a ``shifts.json``."""
    lines = [*_head(result), *_summary(result), *_cells(result), *_tail(result)]
    return "\n".join(lines) + "\n"


def _head(result: Entry) -> Iterator[str]:
    model, summary = result["model"], result["summary"]
    yield f"# {text_cell(model['name'])}: does it know when it does not know?"
    yield ""
    where = "" if result["z_vx"] is None else f", z {result['z_vx'][0]} to {result['z_vx'][1]}"
    yield (
        f"Touching pairs of {text_cell(result['data'])}{where}, shifted in {summary['n_cells']} "
        f"ways (version {result['shifts_version']} of the shifts). Model weights SHA-256 "
        f"`{model['sha256'][:16]}…`; its own distance is {WORDS[summary['default']]}, chosen "
        "without any of these shifts."
    )
    yield ""
    yield f"Intervals: 95 %, {result['interval']['draws']} draws; {result['interval']['method']}."
    yield ""


def _summary(result: Entry) -> Iterator[str]:
    summary = result["summary"]
    targets = summary["targets"]
    yield from ("## Against the targets", "")
    far, default = summary["far_auroc"], summary["default"]
    rows = [
        (
            f"AUROC of {summary['n_far']} far cells against unshifted, mean",
            f">= {targets['far_auroc']}",
            figure(far[default]),
            _met(far[default]["value"], targets["far_auroc"]),
        )
    ]
    for bad, words in _BAD.items():
        found = summary[f"spearman_{bad}"][default]
        rows.append(
            (
                f"Spearman of distance and {words}, {summary['n_cells']} cells",
                f">= {targets['spearman']}, interval above {targets['spearman_excludes']}",
                figure(found),
                _met(
                    found["value"], targets["spearman"], found["ci95"], targets["spearman_excludes"]
                ),
            )
        )
    yield from table(("what", "target", "value [95 %]", "met"), rows)
    yield from ("## Distances compared", "")
    names = list(summary["spearman_drop"])
    head = ["distance", "AUROC, far cells", *(f"Spearman with {w}" for w in _BAD.values())]
    head += [f"the same, families resampled: {w}" for w in _BAD.values()]
    rows_ = []
    for name in names:
        both = [summary[f"spearman_{bad}"][name] for bad in _BAD]
        mark = " (the model's own)" if name == default else ""
        rows_.append(
            (
                WORDS[name] + mark,
                figure(far[name]) if name in far else "–",
                *(figure(f) for f in both),
                *(_ends(f["ci95_families"]) for f in both),
            )
        )
    yield from table(head, rows_)
    yield from (
        f"![{words} by distance]({name})" for name, words in zip(PLOTS, _BAD.values(), strict=True)
    )
    yield ""


def _cells(result: Entry) -> Iterator[str]:
    yield from ("## Cells", "")
    default = result["summary"]["default"]
    yield (
        "`n`: joins that were judged, of those asked; where a shift leaves too little of a "
        "segment, a join cannot be. Distance and AUROC: the model's own, against unshifted joins. "
        "Flagged: the share that the page calls not reliable here."
    )
    yield ""
    rows = [_row("", "unshifted", result["unshifted"], default)]
    rows += [
        _row(
            c["code"], f"{c['family']} {c['severity']}" + (", far" if c["far"] else ""), c, default
        )
        for c in result["cells"]
    ]
    head = ("", "shift", "n", "balanced accuracy", "ECE-15 of score", "distance", WORDS[SETS])
    yield from table((*head, "AUROC", "flagged"), rows)
    yield from ("## AUROC by distance", "")
    methods = list(result["unshifted"]["auroc"])
    rows = [
        (c["code"], f"{c['family']} {c['severity']}", *(figure(c["auroc"][m]) for m in methods))
        for c in result["cells"]
    ]
    yield from table(("", "shift", *(WORDS[m] for m in methods)), rows)


def _row(code: str, name: str, c: Entry, default: str) -> tuple[str, ...]:
    return (
        code,
        text_cell(name),
        f"{c['n']} of {c['n_asked']} ({c['n_clusters']} bodies)",
        figure(c["balanced_accuracy"]),
        figure(c["ece15_score"]),
        figure(c["distance"][default]),
        figure(c["distance"][SETS]),
        figure(c["auroc"][default]) if code else "–",
        figure(c["flagged"]),
    )


def _tail(result: Entry) -> Iterator[str]:
    if result["not_run"]:
        yield from ("## Not run", "")
        yield from (f"- {text_cell(m['cell'])}: {text_cell(m['why'])}" for m in result["not_run"])


def plots(result: Entry) -> tuple[str, ...]:
    """One of each of `PLOTS`: cells by rank of their mean distance, nearest first.

    By rank, as Spearman's coefficient has it: distances span many orders of magnitude.
    """
    default = result["summary"]["default"]
    cells = [c for c in result["cells"] if c["distance"][default]["value"] is not None]
    d = np.array([c["distance"][default]["value"] for c in cells], np.float64)
    x = (rankdata(d) - 1) / max(len(d) - 1, 1)
    out = []
    for bad, words in _BAD.items():
        y = np.array([np.nan if c[bad]["value"] is None else c[bad]["value"] for c in cells])
        known = np.isfinite(y)
        codes = [c["code"] for c, k in zip(cells, known, strict=True) if k]
        rank = result["summary"][f"spearman_{bad}"][default]
        chart = Chart(
            f"{words} by distance",
            "rank of mean distance, nearest to farthest cell",
            words,
            [
                Curve(
                    f"Spearman {figure(rank)}",
                    x[known],
                    y[known].clip(0, 1),
                    dots=True,
                    line=False,
                    marks=codes,
                )
            ],
            note="A letter is a family, a number a severity: see report.md",
        )
        out.append(svg(chart))
    return tuple(out)


def _met(
    value: float | None,
    least: float,
    ends: Sequence[float] | None = None,
    above: float | None = None,
) -> str:
    if value is None:
        return "–"
    enough = value >= least and (above is None or (ends is not None and ends[0] > above))
    return "yes" if enough else "no"


def _ends(ends: Sequence[float] | None) -> str:
    return "–" if ends is None else f"[{ends[0]:.3f}, {ends[1]:.3f}]"
