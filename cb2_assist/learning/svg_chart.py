"""Square charts from 0 to 1 as SVG text: no plotting library is needed for three of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_SIDE, _LEFT, _TOP, _BELOW, _RIGHT = 300, 62, 40, 78, 22
_COLOURS = ("#0b5fa5", "#b3470b", "#4a4a4a")
_MOST_POINTS = 400
_TICKS = ("0", "0.2", "0.4", "0.6", "0.8", "1")


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """One line.

    Attributes:
        label: In the legend.
        x, y: Points, 0..1, in order.
        low, high: Ends of a bar through each point, e.g. an interval; None draws none.
        dots: Whether each point has a dot.
        line: Whether points are joined.
        marks: A short word beside each point; none draws none.
        steps: Whether the line is level up to each point from the x of the one before.
    """

    label: str
    x: Floats
    y: Floats
    low: Floats | None = None
    high: Floats | None = None
    dots: bool = False
    steps: bool = False
    line: bool = True
    marks: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart of curves.

    Attributes:
        diagonal: Draw the line from corner to corner: chance in a ROC, perfect calibration in a
            reliability diagram.
        level: Draw a level line at this height, e.g. chance in precision and recall.
        note: Below the chart.
        x_ticks, y_ticks: What stands at 0, 0.2 ... 1 where the axis is a scaled quantity.
    """

    title: str
    x_label: str
    y_label: str
    curves: Sequence[Curve]
    diagonal: bool = False
    level: float | None = None
    note: str = ""
    x_ticks: Sequence[str] = _TICKS
    y_ticks: Sequence[str] = _TICKS


def svg(chart: Chart) -> str:
    """The chart as an SVG document, white behind, readable without colours."""
    width, height = _LEFT + _SIDE + _RIGHT, _TOP + _SIDE + _BELOW
    body = "\n".join(_parts(chart))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" font-family="sans-serif" font-size="12">\n'
        f"<title>{escape(chart.title)}</title>\n"
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


def _parts(chart: Chart) -> Iterator[str]:
    yield _text(_LEFT + _SIDE / 2, 22, chart.title, "middle", 'font-size="14"')
    for k, (below, beside) in enumerate(zip(chart.x_ticks, chart.y_ticks, strict=True)):
        x, y = _x(k / 5), _y(k / 5)
        yield _line(x, _y(0), x, _y(1), "#dddddd")
        yield _line(_x(0), y, _x(1), y, "#dddddd")
        yield _text(x, _y(0) + 16, below, "middle")
        yield _text(_x(0) - 7, y + 4, beside, "end")
    size = f'width="{_SIDE}" height="{_SIDE}"'
    yield f'<rect x="{_LEFT}" y="{_TOP}" {size} fill="none" stroke="#000000"/>'
    if chart.diagonal:
        yield _line(_x(0), _y(0), _x(1), _y(1), "#888888", "4 4")
    if chart.level is not None:
        yield _line(_x(0), _y(chart.level), _x(1), _y(chart.level), "#888888", "4 4")
    for number, curve in enumerate(chart.curves):
        yield from _curve(curve, _COLOURS[number % len(_COLOURS)], ("", "7 3", "2 3")[number % 3])
    yield _text(_LEFT + _SIDE / 2, _y(0) + 34, chart.x_label, "middle")
    middle = _TOP + _SIDE / 2
    yield _text(16, middle, chart.y_label, "middle", f'transform="rotate(-90 16 {middle:g})"')
    names = "   ".join(c.label for c in chart.curves)
    yield _text(_LEFT, _y(0) + 53, names, "start", 'font-size="11"')
    yield _text(_LEFT, _y(0) + 69, chart.note, "start", 'font-size="11" fill="#555"')


def _curve(curve: Curve, colour: str, dash: str) -> Iterator[str]:
    x, y = curve.x, curve.y
    if len(x) > _MOST_POINTS:
        some = np.unique(np.linspace(0, len(x) - 1, _MOST_POINTS).round().astype(int))
        x, y = x[some], y[some]
    points = [f"{_x(a):.1f},{_y(b):.1f}" for a, b in zip(x, y, strict=True)]
    if curve.steps:
        between = (f"{_x(a):.1f},{_y(b):.1f}" for a, b in zip(x[:-1], y[1:], strict=True))
        points = [points[0], *(p for pair in zip(between, points[1:], strict=True) for p in pair)]
    if curve.line:
        yield (
            f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="2"'
            + (f' stroke-dasharray="{dash}"/>' if dash else "/>")
        )
    if curve.low is not None and curve.high is not None:
        for a, low, high in zip(x, curve.low, curve.high, strict=True):
            yield _line(_x(a), _y(low), _x(a), _y(high), colour)
    if curve.dots:
        for a, b in zip(x, y, strict=True):
            yield f'<circle cx="{_x(a):.1f}" cy="{_y(b):.1f}" r="3.5" fill="{colour}"/>'
    for a, b, mark in zip(x, y, curve.marks, strict=False):
        yield _text(round(_x(a) + 5, 1), round(_y(b) - 4, 1), mark, "start", 'font-size="9"')


def _x(value: float) -> float:
    return _LEFT + _SIDE * float(value)


def _y(value: float) -> float:
    return _TOP + _SIDE * (1 - float(value))


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, dash: str = "") -> str:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{dashed}/>'
    )


def _text(x: float, y: float, text: str, anchor: str, more: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" {more}>{escape(text)}</text>'
