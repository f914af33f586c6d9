"""A report in words, tables and charts, made from ``report.json`` alone.

`blocks` says what comes after what; Markdown and the server's page are two ways to write it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from cb2_assist.learning.evaluation_report import cell, table
from cb2_assist.learning.report_blocks import (
    Block,
    Heading,
    Paragraph,
    Picture,
    Table,
    figure,
)
from cb2_assist.learning.report_learning import (
    curve_blocks,
    flag_blocks,
    learning_charts,
    left_blocks,
    methods_of_learning,
    seeded_blocks,
)
from cb2_assist.learning.svg_chart import Chart, Curve, svg

Entry = dict[str, Any]

_ASKED = {
    "random": "drawn by the queue at random",
    "queue": "drawn by the queue by rank",
    "cursor": "asked where a person pointed",
    "queue_list": "on the list beside a drawn site",
}


def blocks(result: Entry) -> Iterator[Block]:
    """The report, part by part."""
    pictures = charts(result)
    yield Heading(f"Report on {result['dataset'] or 'all datasets'}", 1)
    yield Paragraph(f"{result['labels']}, {result['made_at']}, {result['program']}.")
    yield from _labels(result)
    yield from _times(result)
    yield from _reliability(result, pictures)
    yield from _over_time(result, pictures)
    yield from _hidden(result)
    yield from seeded_blocks(result)
    yield from curve_blocks(result, pictures)
    yield from left_blocks(result, pictures)
    yield from flag_blocks(result)
    yield Heading("Methods, for a paper")
    yield Paragraph(methods(result))


def markdown(result: Entry) -> str:
    """``report.md``."""
    return "\n".join(line for block in blocks(result) for line in _lines(block)) + "\n"


def _lines(block: Block) -> Iterator[str]:
    if isinstance(block, Heading):
        yield from (f"{'#' * block.level} {cell(block.text)}", "")
    elif isinstance(block, Paragraph):
        yield from (cell(block.text), "")
    elif isinstance(block, Picture):
        yield from (f"![{cell(block.title)}]({block.name}.svg)", "")
    else:
        yield from table(list(map(cell, block.head)), [list(map(cell, r)) for r in block.rows])


def _labels(result: Entry) -> Iterator[Block]:
    found = result["label_counts"]
    yield Heading("Labels")
    if not found["n"]:
        yield Paragraph("There is no accept or reject in force yet.")
        return
    rows = [
        (kind, str(e["n"]), str(e["accept"]), str(e["reject"]))
        for kind, e in found["by_kind"].items()
    ]
    yield Table(("kind", "labels", "accept", "reject"), rows)
    asked = ", ".join(f"{n} {_ASKED.get(how, how)}" for how, n in found["asked"].items())
    others = ", ".join(f"{n} {name}" for name, n in found["other_answers"].items())
    yield Paragraph(f"Of the labels {asked}. Other answers: {others or 'none'}.")


def _times(result: Entry) -> Iterator[Block]:
    found = result["times"]
    yield Heading("Time")
    backwards = found["n_clock_backwards"]
    if backwards:
        yield Paragraph(
            f"In {backwards} decisions the clock ran backwards; their times are left out."
        )
    if found["seconds"] is None:
        yield Paragraph(
            f"Not enough evidence yet: {found['n_timed']} decisions with a time. Those of scripts "
            "have none."
        )
        return
    rows = [
        (what, str(e["n"]), *(f"{e[k]:.1f}" for k in ("median", "q25", "q75")))
        for what, e in {"all": found["seconds"], **found["by_kind"]}.items()
        if e is not None
    ]
    yield Table(("seconds per decision", "n", "median", "25 %", "75 %"), rows)
    yield Paragraph(_pace(found["per_hour"]))
    if result["people"]:
        yield Table(
            ("person", "decisions", "median s", "per hour", "under 1 s", "longest run", "odd"),
            [_person(p) for p in result["people"]],
        )


def _pace(per_hour: Entry | None) -> str:
    if per_hour is None:
        return "No throughput: the times add up to nothing."
    sessions = per_hour["in_sessions"]
    told = "" if sessions is None else f"; {sessions:.0f} per hour from one decision to the next"
    return (
        f"{per_hour['deciding']:.0f} decisions per hour on screen{told}. Time without any key, "
        f"click or movement is taken off, and {per_hour['pause_s']:.0f} s without a decision end a "
        "session."
    )


def _person(p: Entry) -> tuple[str, ...]:
    run, hasty = p["longest_run"], p["under_1_s"]
    return (
        p["person"],
        str(p["n"]),
        "–" if p["seconds"] is None else f"{p['seconds']['median']:.1f}",
        "–" if p["per_hour"] is None else f"{p['per_hour']['deciding']:.0f}",
        "–" if hasty is None else f"{100 * hasty:.0f} %",
        f"{run['n']} {run['verdict'] or ''}".strip(),
        "yes" if run["is_odd"] else "no",
    )


def _reliability(result: Entry, pictures: dict[str, Chart]) -> Iterator[Block]:
    found = result["reliability"]
    yield Heading("Does the confidence hold?")
    if not found:
        yield Paragraph("Not enough evidence yet: nothing has been decided.")
        return
    yield Paragraph(
        f"Model {found['model']['name']}, on {found['dataset']}: what was shown against what "
        "people answered, on sites that the queue drew, each weighted by its chance of being drawn."
    )
    for kind, entry in found["by_kind"].items():
        if entry["bins"] is None:
            yield Paragraph(f"{kind}s: {entry['reason']}.")
            continue
        yield Table(
            (f"{kind}s: said", "accepted (95 %)", "n"),
            [
                (f"{b['said']:.3f}", figure({"value": b["seen"], "ci95": b["ci95"]}), str(b["n"]))
                for b in entry["bins"]
            ],
        )
        yield Picture(f"reliability-{kind}", pictures[f"reliability-{kind}"].title)


def _over_time(result: Entry, pictures: dict[str, Chart]) -> Iterator[Block]:
    found = result["over_time"]
    if not found:
        return
    yield Heading("Over time")
    rows = [
        (
            e["from"][:16],
            e["to"][:16],
            str(e["n"]),
            figure(e["accepted"]),
            figure(e["with_model"]),
        )
        for e in found
    ]
    yield Table(("from", "to", "labels", "accepted (95 %)", "as the model (95 %)"), rows)
    if "over-time" in pictures:
        yield Picture("over-time", pictures["over-time"].title)


def _hidden(result: Entry) -> Iterator[Block]:
    found = result["score_hidden"]
    yield Heading("With and without the score on screen")
    if not found["hidden"]["n"]:
        yield Paragraph(
            "No answer in force was given with the score hidden, so it cannot be told whether "
            "people follow the model."
        )
        return
    rows = [
        (f"score {name}", str(e["n"]), figure(e["with_model"]), figure(e["accepted"]))
        for name, e in found.items()
    ]
    yield Table(("", "labels", "as the model (95 %)", "accepted (95 %)"), rows)


def methods(result: Entry) -> str:
    """What a paper must say of these labels."""
    found = result["label_counts"]
    if not found["n"]:
        return "There are no labels to describe yet."
    places = "; ".join(
        f"{p['dataset']} (segmentation version {p['version']}, {p['licence']}; {p['n']} labels)"
        for p in found["places"]
    )
    models = "; ".join(
        f"{m['name']} (weights SHA-256 {m['sha256']}, calibrator {m['calibrator']}; {m['n']} "
        "labels)"
        for m in found["models"]
    )
    kinds = ", ".join(
        f"{e['n']} {kind}s ({e['accept']} accepted)" for kind, e in found["by_kind"].items()
    )
    asked = ", ".join(f"{n} were {_ASKED.get(how, how)}" for how, n in found["asked"].items())
    seconds = result["times"]["seconds"]
    took = (
        ""
        if seconds is None
        else (
            f" A decision took a median of {seconds['median']:.1f} s (quartiles "
            f"{seconds['q25']:.1f} to {seconds['q75']:.1f} s, n = {seconds['n']}, idle time "
            "excluded)."
        )
    )
    return (
        f"Edits were proposed with {result['program']} on {places}. Suggestions were scored by "
        f"{models}. Between {found['first'][:10]} and {found['last'][:10]} {result['n_people']} "
        f"people gave {found['n']} labels that are in force: {kinds}. Of the sites {asked}. The "
        f"score was hidden until the answer in {result['score_hidden']['hidden']['n']} of them."
        f"{took}{methods_of_learning(result)}"
    )


def charts(result: Entry) -> dict[str, Chart]:
    """Charts by the name of their file."""
    made: dict[str, Chart] = {}
    for kind, entry in result["reliability"].get("by_kind", {}).items():
        if entry["bins"] is None:
            continue
        said, seen = (np.array([b[k] for b in entry["bins"]]) for k in ("said", "seen"))
        low, high = (np.array([b["ci95"][k] for b in entry["bins"]]) for k in (0, 1))
        made[f"reliability-{kind}"] = Chart(
            f"{kind}: confidence as shown",
            "confidence",
            "share that people accept",
            [Curve(f"{kind}s", said, seen, low, high, dots=True)],
            diagonal=True,
            note=f"{entry['n']} drawn labels, {entry['n_random']} at random; bars: 95 % (Wilson)",
        )
    parts = [e for e in result["over_time"] if e["with_model"]["value"] is not None]
    if len(parts) > 1:
        made["over-time"] = Chart(
            "Acceptance and agreement with the model",
            "share of the labels so far",
            "share",
            [_curve(parts, "accepted", "accepted"), _curve(parts, "with_model", "as the model")],
            note=f"{len(parts)} parts of about {parts[0]['n']} labels; bars: 95 % (Wilson)",
        )
    return {**made, **learning_charts(result)}


def _curve(parts: Sequence[Entry], key: str, label: str) -> Curve:
    x = np.array([e["upto"] for e in parts])
    y = np.array([e[key]["value"] for e in parts])
    low, high = (np.array([e[key]["ci95"][k] for e in parts]) for k in (0, 1))
    return Curve(label, x, y, low, high, dots=True)


def pictures(result: Entry) -> dict[str, str]:
    """SVG by the name of its file."""
    return {name: svg(chart) for name, chart in charts(result).items()}
