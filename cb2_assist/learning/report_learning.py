"""The parts of a report about what was learnt, in words and charts, from ``report.json`` alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from cb2_assist.learning.missed import TARGET
from cb2_assist.learning.report_blocks import (
    Block,
    Heading,
    Paragraph,
    Picture,
    Table,
    figure,
)
from cb2_assist.learning.svg_chart import Chart, Curve

Entry = dict[str, Any]
Charts = Mapping[str, Chart]


def seeded_blocks(result: Entry) -> Iterator[Block]:
    """How many of the suggestions that were known to be wrong were caught, person by person."""
    if not result["seeded"]["n"]:
        return
    yield Heading("Suggestions that were known to be wrong")
    yield Paragraph(
        f"{result['seeded']['n']} answers were given on suggestions that were known to be wrong "
        "and looked like any other. They are no labels. A person's own rate is shown to that "
        "person and to whoever owns the label file."
    )
    rows = [
        (
            p["person"],
            str(s["n"]),
            str(s["caught"]),
            str(s["missed"]),
            str(s["unsure"]),
            figure({"value": s["rate"], "ci95": s["ci95"]}),
        )
        for p in result["people"]
        if (s := p["seeded"])["n"] or s["unsure"]
    ]
    if rows:
        yield Table(("person", "answers", "caught", "missed", "unsure", "caught (95 %)"), rows)


def curve_blocks(result: Entry, pictures: Charts) -> Iterator[Block]:
    """Agreement with each model while labels came in."""
    models = result["learning_curve"]["models"]
    if not models:
        return
    yield Heading("Learning curve")
    yield Paragraph(
        "How often the answers were as the model in force said (score above one half), by model, "
        "in the order of the labels. Sites that the queue drew at random stand for all sites of "
        "the queue; the others were picked because the model was unsure or a person pointed there, "
        "so their share is no accuracy."
    )
    rows = [
        (
            m["name"],
            m["sha256"][:8],
            f"{m['points'][0]['labels'] - m['points'][0]['n'] + 1} to {m['points'][-1]['labels']}",
            figure(m["agreement"]),
            figure(m["random"]),
            str(m["random"]["n"]),
        )
        for m in models
    ]
    head = ("model", "weights", "labels", "as the model (95 %)", "at random (95 %)", "n at random")
    yield Table(head, rows)
    if "learning-curve" in pictures:
        yield Picture("learning-curve", pictures["learning-curve"].title)


def left_blocks(result: Entry, pictures: Charts) -> Iterator[Block]:
    """What is still to be found, and whether to stop."""
    found = result["remaining"]
    yield Heading("What is left?")
    if not found["parts"]:
        yield Paragraph(found["reason"])
        return
    for number, part in enumerate(found["parts"]):
        yield Paragraph(
            f"{part['dataset']} (version {part['version']}), {part['scope']}, asked by "
            f"{part['strategy']}: true sites among those that wait, from those that were drawn at "
            "random."
        )
        rows = []
        for kind, e in part["kinds"].items():
            low, high = e["interval"]
            known = bool(e["random_answers"])
            rows.append(
                (
                    f"{kind}s",
                    str(e["found"]),
                    f"{e['value']:.0f}" if known else "–",
                    f"{low} to {high}" if known else "–",
                    str(e["random_answers"]),
                    e["stop"]["text"],
                )
            )
        head = ("", "found", "left", "90 % interval", "random answers", "stop rule")
        yield Table(head, rows)
        for kind in part["kinds"]:
            if (name := f"left-{number}-{kind}") in pictures:
                yield Picture(name, pictures[name].title)


def flag_blocks(result: Entry) -> Iterator[Block]:
    """What people set aside."""
    if not result["flags"]:
        return
    yield Heading("Flags")
    rows = [
        (
            f["at"][:16],
            f["person"],
            f"{f['kind']} at {', '.join(f'{v:.0f}' for v in f['point_nm'])} nm",
            f["note"],
            "answered" if f["answered"] else "open",
        )
        for f in result["flags"]
    ]
    yield Table(("when", "person", "site", "note", "state"), rows)


def methods_of_learning(result: Entry) -> str:
    """What a paper must say of the above; begins with a space, or is empty."""
    told = []
    if n := result["seeded"]["n"]:
        pooled, rate = result["seeded"]["all"], ""
        if pooled and pooled["n"]:
            caught = figure({**pooled, "value": pooled["rate"]})
            rate = f"; a share of {caught} of them was rejected (95 % interval)"
        told.append(
            f"To see whether people still looked, suggestions known to be wrong were shown "
            f"unannounced, answered {n} times and left out of the labels{rate}."
        )
    for m in result["learning_curve"]["models"]:
        at_random = ""
        if m["random"]["n"]:
            at_random = (
                f", on the {m['random']['n']} sites drawn at random with {figure(m['random'])}"
            )
        told.append(
            f"The learning curve of {m['name']} ({m['sha256'][:8]}) rests on {m['agreement']['n']} "
            f"labels, which agreed with the model with a share of {figure(m['agreement'])}"
            f"{at_random} (95 % Wilson intervals)."
        )
    for part in result["remaining"]["parts"]:
        for kind, e in part["kinds"].items():
            if e["random_answers"]:
                low, high = e["interval"]
                told.append(
                    f"Remaining errors in {part['dataset']}, {part['scope']}: {e['value']:.0f} "
                    f"{kind}s (90 % interval {low} to {high}), estimated by inverse probabilities "
                    f"from {e['random_answers']} sites drawn at random, of which "
                    f"{e['of_them_true']} were accepted; the rule was to stop once at least "
                    f"{TARGET:.0%} were found with 90 % probability ({_stopped(e)})."
                )
    return "".join(f" {sentence}" for sentence in told)


def _stopped(entry: Entry) -> str:
    return "reached" if entry["stop"]["stop"] else "not reached"


def learning_charts(result: Entry) -> dict[str, Chart]:
    """Charts by the name of their file."""
    made = {}
    models = result["learning_curve"]["models"]
    points = [p for m in models for p in m["points"]]
    if len(points) > 1:
        top = _round_top(points[-1]["labels"])
        made["learning-curve"] = Chart(
            "Learning curve: answers as the model",
            "labels",
            "share",
            [_model_curve(m, top) for m in models],
            note="All labels; bars: 95 % (Wilson)",
            x_ticks=_ticks(top),
        )
    for number, part in enumerate(result["remaining"]["parts"]):
        for kind, e in part["kinds"].items():
            if len(e["history"]) > 1:
                made[f"left-{number}-{kind}"] = _left_chart(part, kind, e["history"])
    return made


def _model_curve(m: Entry, top: int) -> Curve:
    some = [p for p in m["points"] if p["agreement"]["value"] is not None]
    return Curve(
        f"{m['name']} {m['sha256'][:6]}",
        np.array([(p["labels"] - p["n"] / 2) / top for p in some]),
        np.array([p["agreement"]["value"] for p in some]),
        np.array([p["agreement"]["ci95"][0] for p in some]),
        np.array([p["agreement"]["ci95"][1] for p in some]),
        dots=True,
    )


def _left_chart(part: Entry, kind: str, history: list[Entry]) -> Chart:
    wide = _round_top(history[-1]["random_answers"])
    high = _round_top(max(h["found"] + h["interval"][1] for h in history))
    x = np.array([h["random_answers"] / wide for h in history])
    found = np.array([h["found"] for h in history])
    left = np.array([h["value"] for h in history])
    ends = np.array([h["interval"] for h in history]).T
    return Chart(
        f"True {kind}s in {part['scope']}",
        "sites drawn at random and answered",
        f"{kind}s",
        [
            Curve(
                "found and left",
                x,
                (found + left) / high,
                (found + ends[0]) / high,
                (found + ends[1]) / high,
                dots=True,
            ),
            Curve("found", x, found / high, dots=True),
        ],
        note="Bars: 90 % interval of what is left",
        x_ticks=_ticks(wide),
        y_ticks=_ticks(high),
    )


def _round_top(most: float) -> int:
    """A multiple of 5 that is round and not below."""
    unit = 10 ** max(0, math.floor(math.log10(max(most, 1))) - 1)
    return int(5 * unit * math.ceil(max(most, 1) / (5 * unit)))


def _ticks(top: int) -> tuple[str, ...]:
    return tuple(f"{top * k // 5}" for k in range(6))
