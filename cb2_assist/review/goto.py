"""Reads a place that a person typed or pasted: coordinates, a segment id, a link.

Pure text work; whether a segment exists, and where, is for the session to find out.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from cb2_assist.core.errors import BadIdError, BadRequestError, OutOfBoundsError
from cb2_assist.core.geometry import BoxVx, PointNm, Resolution
from cb2_assist.core.records import BACKGROUND, SegmentId, segment_id
from cb2_assist.review.links import read_own_link
from cb2_assist.review.neuroglancer_links import read_link, read_state

MAX_CHARS = 500_000
"""Links that carry hundreds of annotations are long."""

_LARGEST_COORDINATE = 2**32
"""Unmarked whole numbers from here on are ids: no volume is four metres long."""
_MOST_DIGITS = 20
"""Of a number of 64 bits."""
_UNITS = {
    **dict.fromkeys(("nm", "nanometer", "nanometers", "nanometre", "nanometres"), 1.0),
    **dict.fromkeys(("um", "μm", "micron", "microns", "micrometer", "micrometers"), 1e3),
    **dict.fromkeys(("micrometre", "micrometres"), 1e3),
    "mm": 1e6,
}
_VOXELS = {"vx", "voxel", "voxels", "vox"}
_FILLERS = {"at", "position", "pos", "point", "coordinate", "coordinates", "coords", "array", "and"}
_IDS = {"segment", "segments", "seg", "id", "root", "rootid", "root_id", "segid", "body", "neuron"}
_TOKEN = re.compile(
    r"(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)|(?P<word>[a-zμ_]+)|(?P<at>@)"
    r"|(?P<gap>[\s,;:=|/()\[\]{}<>#*\"'`.]+)",
    re.IGNORECASE,
)
_EXAMPLES = (
    "Known forms: `x, y, z` (voxels as the viewer shows them), `x, y, z nm`, a segment id, "
    "`x, y, z segment ID`, a Neuroglancer link, a link of this page."
)


@dataclass(frozen=True, slots=True)
class Extent:
    """What a place must lie in, and the voxels that the viewer counts in.

    Attributes:
        name: Of the dataset.
        voxel: Voxel size that the viewer shows.
        grid: Voxel size that ``bounds`` counts in.
        bounds: Voxels that exist.
    """

    name: str
    voxel: Resolution
    grid: Resolution
    bounds: BoxVx

    def holds(self, point: PointNm) -> bool:
        """Whether the point lies in the volume."""
        return self.bounds.contains(point.to_voxel(self.grid))

    def edges(self, unit: Sequence[float]) -> str:
        """From where to where it reaches, in multiples of ``unit`` nm."""
        lo, hi = (
            ", ".join(f"{v * g / u:.0f}" for v, g, u in zip(corner, self.grid, unit, strict=True))
            for corner in (self.bounds.lo, self.bounds.hi)
        )
        return f"({lo}) to ({hi})"


@dataclass(frozen=True, slots=True)
class Target:
    """Where to go.

    Attributes:
        point: The place; None when only a segment is known.
        segments: What may be asked about there: one, several that a link had selected, or none.
        site: The suggestion that a link is about, or None.
        words: What the text was taken as, for the status line.
    """

    point: PointNm | None
    segments: tuple[SegmentId, ...]
    site: str | None
    words: str


def read_target(text: str, extent: Extent) -> Target:
    """Understand what was typed or pasted.

    Raises:
        BadRequestError: It names no place, or more than one.
        BadIdError: A segment id that has not 64 bits.
        OutOfBoundsError: The place lies outside the volume; says so if it lies inside in the
            other unit.
    """
    text = text.strip().strip("<>\"'`\u201c\u201d").strip()
    if not text:
        raise BadRequestError(f"There is nothing to go to. {_EXAMPLES}")
    if len(text) > MAX_CHARS:
        raise BadRequestError(
            f"That is {len(text)} characters long; a place has at most {MAX_CHARS}."
        )
    link = _read_link(text, extent)
    if link is None:
        return _read_words(unicodedata.normalize("NFKC", text).replace("\u2212", "-"), extent)
    if link.point is not None and not extent.holds(link.point):
        raise _outside(link.point, extent, f"The place of {link.words}", "")
    return link


def viewer_point(values: Sequence[float], voxel: Resolution) -> PointNm:
    """A point counted in voxels of the viewer.

    Whole numbers name a voxel and mean its centre; with a fraction they are the viewer's own
    continuous coordinates, whose voxel v begins at v.

    Raises:
        BadPointError: There are not three finite numbers.
    """
    whole = all(float(v).is_integer() for v in values)
    return PointNm.of((v + 0.5 * whole) * r for v, r in zip(values, voxel, strict=True))


def _read_link(text: str, extent: Extent) -> Target | None:
    if own := read_own_link(text):
        if own.dataset not in (None, extent.name):
            raise BadRequestError(
                f"That link is about the dataset {own.dataset!r}; this is {extent.name!r}. Serve "
                "the other one to open it."
            )
        segments = () if own.segment is None else (own.segment,)
        return Target(own.at, segments, own.site, "a link of this page")
    state = read_link(text, extent.voxel) or read_state(text, extent.voxel)
    if state is not None:
        return Target(state.at, state.segments, state.site, state.words)
    if re.match(r"[a-z][a-z0-9+.-]*://", text, re.IGNORECASE):
        raise BadRequestError(
            "That link names no place: it has neither a Neuroglancer state (#!{…}) nor #at=…. "
            "Copy it again from the address bar of the viewer."
        )
    return None


# -- words and numbers


@dataclass(frozen=True, slots=True)
class _Number:
    text: str
    axis: str
    """``x``, ``y`` or ``z`` when the number stands behind that letter."""
    unit: str
    """The word right behind it when that is a unit."""

    @property
    def is_whole(self) -> bool:
        return self.text.isdigit()


@dataclass(slots=True)
class _Parts:
    numbers: list[_Number]
    ids: list[str]
    """Numbers that are marked as segment ids."""
    units: set[str]


def _read_words(text: str, extent: Extent) -> Target:
    parts = _parts(text)
    numbers, ids = parts.numbers, parts.ids
    if not ids:
        numbers, ids = _split_unmarked(numbers, extent)
    if len(ids) > 1:
        raise BadRequestError(f"{len(ids)} segment ids are named; give one. {_EXAMPLES}")
    if any(len(i) > _MOST_DIGITS for i in ids):
        raise BadIdError(f"A segment id has at most {_MOST_DIGITS} digits, got {ids[0][:30]}….")
    segments = tuple(segment_id(i) for i in ids)
    if BACKGROUND in segments:
        raise BadRequestError("0 is background, not a segment. Give the id of a segment.")
    if not numbers and segments:
        return Target(None, segments, None, f"segment {segments[0]}")
    point, words = _read_point(numbers, parts.units, extent)
    if segments:
        words += f", segment {segments[0]}"
    return Target(point, segments, None, words)


def _parts(text: str) -> _Parts:
    parts = _Parts([], [], set())
    axis, is_id, position = "", False, 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise BadRequestError(f"{text[position : position + 20]!r} is no place. {_EXAMPLES}")
        position = match.end()
        token = match.group().lower()
        if match.lastgroup == "number":
            if is_id:
                parts.ids.append(token)
            else:
                parts.numbers.append(_Number(token, axis, ""))
            is_id = False
        elif match.lastgroup == "word":
            axis, is_id = _take_word(token, parts, axis, is_id)
        elif match.lastgroup == "at":
            _take_word("at", parts, axis, is_id)
    return parts


def _take_word(word: str, parts: _Parts, axis: str, is_id: bool) -> tuple[str, bool]:
    """What a word says of the number before it, or after it: (axis, whether an id follows)."""
    if word in ("x", "y", "z"):
        return word, False
    if word in _IDS:
        return "", True
    if word in _UNITS or word in _VOXELS:
        if parts.numbers:
            last = parts.numbers[-1]
            parts.numbers[-1] = _Number(last.text, last.axis, word)
        parts.units.add(word)
    elif word == "at" and not parts.ids and len(parts.numbers) == 1 and parts.numbers[0].is_whole:
        parts.ids.append(parts.numbers.pop().text)
    elif word not in _FILLERS:
        raise BadRequestError(f"The word {word[:30]!r} is not understood. {_EXAMPLES}")
    return axis, is_id


def _split_unmarked(numbers: list[_Number], extent: Extent) -> tuple[list[_Number], list[str]]:
    """Which of the numbers is a segment id, when no word says so."""
    n = len(numbers)
    if n == 1 and numbers[0].is_whole and not (numbers[0].unit or numbers[0].axis):
        return [], [numbers[0].text]
    if n != 4:
        return numbers, []
    large = [i for i in (0, 3) if _is_id(numbers[i])]
    if len(large) != 1:
        raise BadRequestError(
            "There are four numbers. Mark the segment: `x, y, z segment ID`, with coordinates of "
            f"{extent.name}."
        )
    number = numbers[large[0]]
    return [v for v in numbers if v is not number], [number.text]


def _is_id(number: _Number) -> bool:
    return (
        number.is_whole
        and len(number.text) <= _MOST_DIGITS
        and int(number.text) >= _LARGEST_COORDINATE
    )


def _read_point(numbers: list[_Number], units: set[str], extent: Extent) -> tuple[PointNm, str]:
    numbers, scale = _in_order(numbers)
    if len(numbers) != 3:
        raise BadRequestError(
            f"A place has three numbers, {len(numbers) or 'none'} found. {_EXAMPLES}"
        )
    values = [float(v.text) for v in numbers]
    if scale is not None:
        point = viewer_point(values, scale)
        return _checked(point, values, "voxels", extent), f"voxels of {_size(scale)}"
    kinds = {_UNITS.get(u) for u in units}
    if len(kinds) > 1:
        raise BadRequestError(
            f"The units {', '.join(sorted(units))} do not go together. Give one for all three."
        )
    nm = kinds.pop() if kinds else None
    if nm is None:
        point = viewer_point(values, extent.voxel)
        return _checked(point, values, "voxels", extent), f"voxels of {_size(extent.voxel)}"
    point = PointNm.of(v * nm for v in values)
    unit = {1.0: "nm", 1e3: "µm", 1e6: "mm"}[nm]
    return _checked(point, values, unit, extent), unit


def _in_order(numbers: list[_Number]) -> tuple[list[_Number], Resolution | None]:
    """Sorted by the letters in front; with the voxel size when one stands behind each number."""
    axes = [v.axis for v in numbers]
    if not any(axes):
        return numbers, None
    groups = [[v for v in numbers if v.axis == letter] for letter in "xyz"]
    sizes = {len(g) for g in groups}
    if len(numbers) == sum(map(len, groups)) and sizes == {1}:
        return [g[0] for g in groups], None
    # "x (8nm) 1203 y (8nm) 407 z (40nm) 96": the viewer's position line with its voxel sizes
    pairs = [sorted(g, key=lambda v: bool(v.unit)) for g in groups]
    if sizes == {2} and all(not a.unit and b.unit in _UNITS for a, b in pairs):
        scale = Resolution(*(float(b.text) * _UNITS[b.unit] for _, b in pairs))
        return [a for a, _ in pairs], scale
    raise BadRequestError(f"Give one number each for x, y and z. {_EXAMPLES}")


def _checked(point: PointNm, values: list[float], unit: str, extent: Extent) -> PointNm:
    if extent.holds(point):
        return point
    text = ", ".join(f"{v:.12g}" for v in values)
    if unit == "voxels":
        other, name = PointNm.of(values), "nm"
    else:
        other, name = viewer_point(values, extent.voxel), "voxel"
    hint = f" As {name} it lies inside: write `{text} {name}`." if extent.holds(other) else ""
    raise _outside(point, extent, f"{text} as {unit}", hint, in_nm=unit != "voxels")


def _outside(
    point: PointNm, extent: Extent, what: str, hint: str, *, in_nm: bool = False
) -> OutOfBoundsError:
    if not in_nm:
        reach = f"{extent.edges(tuple(extent.voxel))} voxels of {_size(extent.voxel)}"
    else:
        reach = f"{extent.edges((1, 1, 1))} nm"
    at = ", ".join(f"{v:.12g}" for v in point)
    return OutOfBoundsError(
        f"{what} ({at} nm) lies outside {extent.name}, which reaches from {reach}.{hint}"
    )


def _size(voxel: Resolution) -> str:
    return " × ".join(f"{v:g}" for v in voxel) + " nm"
