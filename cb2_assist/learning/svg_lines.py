"""Line charts with any range as SVG text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_WIDTH, _HEIGHT, _LEFT, _TOP, _BELOW, _LEGEND = 460, 300, 62, 40, 48, 150
_COLOURS = ("#4a4a4a", "#1a7f37", "#0b5fa5", "#b3470b", "#7a3aa8", "#a6810c", "#0a8a8a", "#c2255c")
_DASHES = ("", "7 3", "2 3", "9 3 2 3")
_MOST_POINTS = 400


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """One line: a value at 0, 1, 2, ..."""

    label: str
    values: Floats


def line_chart(
    title: str, x_label: str, y_label: str, lines: Sequence[Line], names: Sequence[str] = ()
) -> str:
    """The chart as an SVG document, white behind, readable without colours.

    Args:
        title: Above it.
        x_label: Below it.
        y_label: Beside it.
        lines: What it shows.
        names: What stands at 0, 1, 2, ... below it, where those are not numbers to read.
    """
    width, height = _LEFT + _WIDTH + _LEGEND, _TOP + _HEIGHT + _BELOW
    body = "\n".join(_parts(title, x_label, y_label, lines, names))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" font-family="sans-serif" font-size="12">\n'
        f"<title>{escape(title)}</title>\n"
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


def _parts(
    title: str, x_label: str, y_label: str, lines: Sequence[Line], names: Sequence[str]
) -> Iterator[str]:
    last = max(1, *(len(line.values) - 1 for line in lines))
    low = min(float(line.values.min()) for line in lines)
    high = max(float(line.values.max()) for line in lines)
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)

    def x(value: float) -> float:
        return _LEFT + _WIDTH * value / last

    def y(value: float) -> float:
        return _TOP + _HEIGHT * (high - value) / (high - low)

    yield _text(_LEFT + _WIDTH / 2, 22, title, "middle", 'font-size="14"')
    below = dict(enumerate(names)) if names else {t: f"{t:g}" for t in _ticks(0, last)}
    for tick, name in below.items():
        yield f'<path d="M{x(tick):.1f},{_TOP}v{_HEIGHT}" stroke="#dddddd"/>'
        yield _text(x(tick), _TOP + _HEIGHT + 16, name, "middle")
    for tick in _ticks(low, high):
        yield f'<path d="M{_LEFT},{y(tick):.1f}h{_WIDTH}" stroke="#dddddd"/>'
        yield _text(_LEFT - 7, y(tick) + 4, f"{tick:g}", "end")
    yield (
        f'<rect x="{_LEFT}" y="{_TOP}" width="{_WIDTH}" height="{_HEIGHT}" fill="none" '
        'stroke="#000000"/>'
    )
    for number, line in enumerate(lines):
        at = np.arange(len(line.values))
        if len(at) > _MOST_POINTS:
            at = np.unique(np.linspace(0, len(at) - 1, _MOST_POINTS).round().astype(int))
        points = " ".join(f"{x(a):.1f},{y(line.values[a]):.1f}" for a in at.tolist())
        dash = _DASHES[number // len(_COLOURS) % len(_DASHES)] or _DASHES[number % len(_DASHES)]
        stroke = f'stroke="{_COLOURS[number % len(_COLOURS)]}" stroke-width="2"'
        stroke += f' stroke-dasharray="{dash}"' if dash else ""
        yield f'<polyline points="{points}" fill="none" {stroke}/>'
        row = _TOP + 10 + 17 * number
        yield f'<path d="M{_LEFT + _WIDTH + 10},{row}h26" {stroke}/>'
        yield _text(_LEFT + _WIDTH + 42, row + 4, line.label, "start")
    yield _text(_LEFT + _WIDTH / 2, _TOP + _HEIGHT + 36, x_label, "middle")
    middle = _TOP + _HEIGHT / 2
    yield _text(16, middle, y_label, "middle", f'transform="rotate(-90 16 {middle:g})"')


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers."""
    rough = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= rough)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _text(x: float, y: float, text: str, anchor: str, more: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" {more}>{escape(text)}</text>'
