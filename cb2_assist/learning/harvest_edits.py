"""One edit of a graph as decisions, in the state before it, in ConnectomeBench2's sample types.

================ ======= ======= ================================================================
sample type      kind    answer  what is shown, and when
================ ======= ======= ================================================================
merge_edit       join    accept  the two objects that a person joined, just before
adjacent_control join    reject  one of the two and a third that touches it there, just before
split_edit       cut     accept  the object that a person cut, just before
junction_control cut     reject  the object that a merge made, at the seam, just after
================ ======= ======= ================================================================

History is full of second thoughts, so each answer is held against what became of the parts under
it. A merge counts while the two parts are still one object and nobody has cut near it since; a
split while its sides are still apart; a control while its two parts are still apart and nobody has
cut either object near it. What was undone, and undoing itself, is no answer.

Sample types and the 500 nm box follow ConnectomeBench2's code, which checks no control against
later edits. Its controls for junctions come from a program that is not public; ours are the seams
of merges.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.errors import NoAnswerError
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import Kind, Verdict
from cb2_assist.datasets.source import Cutout
from cb2_assist.learning.harvest_contacts import Seam, contacts_of, neighbours

if TYPE_CHECKING:
    from cb2_assist.datasets.cave.history import Edit, Lineage, Operation, Voxel

Row = dict[str, Any]
Ids = NDArray[np.uint64]

BOX_NM = 500.0
"""Neighbours are looked for within this distance of an edit along each axis."""
NEAR_NM = 2500.0
"""A later cut within this distance casts doubt on an answer (ConnectomeBench2's chain filter)."""
CONTROLS = 3
"""Most adjacent controls of a merge, as in ConnectomeBench2."""
_MOST_LATER = 2_000
"""Later edits of an object beyond which they are not looked through."""
_MOMENT = timedelta(milliseconds=1)

UNDONE = "undone later"
UNDOING = "takes back or repeats another edit"
FAILED = "came to nothing"
NO_DETAILS = "details are missing"
NO_STATE = "the state before it cannot be made out"
OUTSIDE = "outside the volume"
CUT_APART = "merge, cut apart later"
REJOINED = "split, joined again later"
CUT_NEAR = "merge, later cut near it"
CONTROL_JOINED = "control, joined later"
CONTROL_CUT = "control, later cut near it"
CONTROL_UNKNOWN = "control, later edits cannot be read"


class Past(Protocol):
    """What is asked of a graph's history; `datasets.cave.history.History`."""

    def owners(self, parts: Ids, at: datetime) -> Ids:
        """Objects of supervoxels at a time; 0: none."""

    def parts(self, point: PointNm, half_width_nm: float) -> Cutout:
        """Supervoxels round a point."""

    def place(self, voxel: Voxel) -> PointNm:
        """Middle of a voxel of the finest scale."""

    def is_inside(self, point: PointNm) -> bool:
        """Whether a point lies in the volume."""

    def is_near(self, voxel: Voxel, supervoxel: int) -> bool:
        """Whether a point can belong to a supervoxel."""

    def later(self, roots: Iterable[int], until: datetime) -> Lineage:
        """What became of objects."""


class Details(Protocol):
    """Details of operations; kept ones first."""

    def operations(self, numbers: Iterable[int]) -> Mapping[int, Operation]:
        """Details by number; unknown ones are left out."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What counts.

    Attributes:
        until: Later edits are looked at up to then.
        near_nm: See `NEAR_NM`.
        controls: See `CONTROLS`.
        lenient: Leave out a control whose later edits the server does not tell, in place of
            raising: for a server that answers everything else.
    """

    until: datetime
    near_nm: float = NEAR_NM
    controls: int = CONTROLS
    lenient: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """What came of one edit.

    Attributes:
        decisions: Each as `sites.jsonl` has it, without what is the same for all.
        left_out: Why something is no decision, by thing.
    """

    decisions: tuple[Row, ...]
    left_out: tuple[str, ...] = ()


class _NotUsableError(Exception):
    """An edit is no answer; its text is the reason. Never reaches a person."""


def decisions_of(edit: Edit, past: Past, details: Details, rules: Rules) -> Found:
    """Turn an edit into decisions.

    Args:
        edit: From a change log; its user as it may be written.
        past: The graph.
        details: Of its operations.
        rules: What counts.

    Raises:
        DatasetError: The servers do not answer, or not this.
    """
    try:
        told = _told(edit, details)
        return (
            _merge(edit, told, past, details, rules)
            if edit.is_merge
            else _split(edit, told, past, details, rules)
        )
    except _NotUsableError as e:
        return Found((), (str(e),))


def _told(edit: Edit, details: Details) -> Operation:
    told = details.operations([edit.number]).get(edit.number)
    if told is None:
        raise _NotUsableError(NO_DETAILS)
    if told.failed:
        raise _NotUsableError(FAILED)
    if told.undoes is not None or told.redoes is not None:
        raise _NotUsableError(UNDOING)
    complete = told.pair if edit.is_merge else (told.source_ids and told.sink_ids)
    if not complete or not told.sources or not told.sinks:
        raise _NotUsableError(NO_DETAILS)
    return told


def _merge(edit: Edit, told: Operation, past: Past, details: Details, rules: Rules) -> Found:
    assert told.pair is not None
    pair = np.array(told.pair, np.uint64)
    middle = _middle(told, told.pair[:1], told.pair[1:], past)
    at, roots = _before(edit, told, pair, past)
    a, b = roots.tolist()
    after_at, after = _after(edit, told, pair, past)
    if len(set(after.tolist())) != 1:
        raise _NotUsableError(NO_STATE)
    made = int(after[0])
    lineage = past.later([made], rules.until)
    _check_in_force(edit, lineage.operations(made), details)
    now = past.owners(pair, rules.until)
    if now[0] != now[1] or 0 in now:
        raise _NotUsableError(CUT_APART)
    cut = past.parts(middle, BOX_NM)
    owners = past.owners(cut.seg, at)
    contacts = contacts_of(cut, owners, {a, b})
    seam = contacts.of(a, b).nearest(middle)
    point = middle if seam is None else seam.point
    common = _common(edit, told, past, touching=seam is not None)
    left_out: list[str] = []
    decisions = []
    if _cut_near(lineage, [made], point, past, details, rules):
        left_out.append(CUT_NEAR)
    else:
        decisions.append(
            _row(common, "merge_edit", (a, b), point, at, _texts(told.pair), sides=(a, b))
        )
        if seam is not None:
            parts: Sequence[str | None] = [str(told.pair[0]), None]
            decisions.append(
                _row(common, "junction_control", (made, None), point, after_at, parts, sides=(a, b))
            )
    taken = {a, b, made, *edit.before, *edit.after, 0}
    for own, other, seam in neighbours(contacts, taken, middle, edit.number, rules.controls):
        why = _control_refused(own, other, seam, cut, past, details, rules, owners)
        if why is None:
            parts = _texts((seam.own_part, seam.other_part))
            decisions.append(
                _row(common, "adjacent_control", (own, other), seam.point, at, parts, sides=None)
            )
        else:
            left_out.append(why)
    return Found(tuple(decisions), tuple(left_out))


def _split(edit: Edit, told: Operation, past: Past, details: Details, rules: Rules) -> Found:
    sources, sinks = told.source_ids, told.sink_ids
    ids = np.array([*sources, *sinks], np.uint64)
    n = len(sources)
    middle = _middle(told, sources, sinks, past)
    at, before = _before(edit, told, ids, past)
    parent = int(before[0])
    after_at, after = _after(edit, told, ids, past)
    first, second = set(after[:n].tolist()), set(after[n:].tolist())
    if len(first) != 1 or len(second) != 1 or first == second:
        raise _NotUsableError(NO_STATE)
    sides = (first.pop(), second.pop())
    lineage = past.later(sides, rules.until)
    later = {o for side in sides for o in lineage.operations(side)}
    _check_in_force(edit, sorted(later), details)
    now = past.owners(ids, rules.until)
    if 0 in now or set(now[:n].tolist()) & set(now[n:].tolist()):
        raise _NotUsableError(REJOINED)
    cut = past.parts(middle, BOX_NM)
    contacts = contacts_of(cut, past.owners(cut.seg, after_at), {sides[0]})
    seam = contacts.of(*sides).nearest(middle)
    point = middle if seam is None else seam.point
    common = _common(edit, told, past, touching=seam is not None)
    row = _row(common, "split_edit", (parent, None), point, at, [str(sources[0]), None], sides)
    return Found((row,))


def _times(edit: Edit, told: Operation) -> list[datetime]:
    """When the edit may have taken place: a log may give the moment at which it was written."""
    return sorted({edit.at} if told.at is None else {edit.at, told.at})


def _before(edit: Edit, told: Operation, ids: Ids, past: Past) -> tuple[datetime, Ids]:
    """The last moment before an edit, and the objects of its supervoxels then.

    Raises:
        _NotUsableError: At no such moment are they what the log says.
    """
    for at in _times(edit, told):
        roots = past.owners(ids, at - _MOMENT)
        kinds = set(roots.tolist())
        wanted = 2 if edit.is_merge else 1
        if len(kinds) == wanted and 0 not in kinds and kinds & set(edit.before):
            return at - _MOMENT, roots
    raise _NotUsableError(NO_STATE)


def _after(edit: Edit, told: Operation, ids: Ids, past: Past) -> tuple[datetime, Ids]:
    for at in _times(edit, told):
        roots = past.owners(ids, at)
        if set(roots.tolist()) & set(edit.after):
            return at, roots
    raise _NotUsableError(NO_STATE)


def _middle(told: Operation, sources: Sequence[int], sinks: Sequence[int], past: Past) -> PointNm:
    """Midpoint of the two sides' points.

    Raises:
        _NotUsableError: They lie where their supervoxels are not, or outside.
    """
    sides = [(told.sources, sources), (told.sinks, sinks)]
    for voxels, ids in sides:
        if not any(past.is_near(v, i) for v in voxels for i in ids):
            raise _NotUsableError(NO_DETAILS)
    centres = [np.mean([tuple(past.place(v)) for v in voxels], axis=0) for voxels, _ in sides]
    middle = PointNm.of(np.mean(centres, axis=0))
    if not past.is_inside(middle):
        raise _NotUsableError(OUTSIDE)
    return middle


def _check_in_force(edit: Edit, later: Iterable[int], details: Details) -> None:
    """Refuse an edit that was taken back and not repeated.

    Raises:
        _NotUsableError: It was.
    """
    known = dict(details.operations(later))
    done = True
    for number in sorted(known):
        target, does = _turned(known, number)
        if target == edit.number:
            done = does
    if not done:
        raise _NotUsableError(UNDONE)


def _turned(known: Mapping[int, Operation], number: int) -> tuple[int | None, bool]:
    """Which edit an undo or redo is about in the end, and whether that is done after it."""
    done, at = True, known[number]
    if at.undoes is None and at.redoes is None:
        return None, True
    while True:
        if at.undoes is not None:
            done, target = not done, at.undoes
        elif at.redoes is not None:
            target = at.redoes
        else:
            return at.number, done
        if target not in known:
            return target, done
        at = known[target]


def _cut_near(
    lineage: Lineage,
    roots: Sequence[int],
    point: PointNm,
    past: Past,
    details: Details,
    rules: Rules,
) -> bool:
    """Whether somebody cut one of the objects, or what came of it, near a point.

    Also where that was cut too often to look through.
    """
    numbers = {o for root in roots for o in lineage.operations(root, splits=True)}
    if len(numbers) > _MOST_LATER:
        return True
    return any(
        past.place(voxel).distance_nm(point) <= rules.near_nm
        for told in details.operations(numbers).values()
        for voxel in (*told.sources, *told.sinks)
    )


def _control_refused(
    own: int,
    other: int,
    seam: Seam,
    cut: Cutout,
    past: Past,
    details: Details,
    rules: Rules,
    owners: Ids,
) -> str | None:
    """Why two touching objects are no clean reject; None where they are one."""
    sides = np.array([seam.own_part, seam.other_part], np.uint64)
    now = past.owners(sides, rules.until)
    if now[0] == now[1] or 0 in now:
        return CONTROL_JOINED
    there = np.unique(cut.seg[owners == np.uint64(other)])
    if len(np.unique(past.owners(there, rules.until))) > 1:
        return CONTROL_CUT
    try:
        lineage = past.later([own, other], rules.until)
        near = _cut_near(lineage, [own, other], seam.point, past, details, rules)
    except NoAnswerError:
        if not rules.lenient:
            raise
        return CONTROL_UNKNOWN
    return CONTROL_CUT if near else None


def _common(edit: Edit, told: Operation, past: Past, *, touching: bool) -> Row:
    """What all decisions of an edit share."""
    return {
        "operation_id": str(edit.number),
        "edited_at": _iso(edit.at if told.at is None else told.at),
        "user": edit.user,
        "before": _texts(edit.before),
        "after": _texts(edit.after),
        "sources_nm": [past.place(v).to_json() for v in told.sources],
        "sinks_nm": [past.place(v).to_json() for v in told.sinks],
        "touching": touching,
    }


_ANSWERS = {
    "merge_edit": (Kind.JOIN, Verdict.ACCEPT),
    "adjacent_control": (Kind.JOIN, Verdict.REJECT),
    "split_edit": (Kind.CUT, Verdict.ACCEPT),
    "junction_control": (Kind.CUT, Verdict.REJECT),
}


def _row(
    common: Row,
    sample_type: str,
    segments: tuple[int, int | None],
    point: PointNm,
    at: datetime,
    supervoxels: Sequence[str | None],
    sides: tuple[int, int] | None,
) -> Row:
    kind, verdict = _ANSWERS[sample_type]
    segment, partner = segments
    return {
        "kind": kind.value,
        "segment": str(segment),
        "partner": None if partner is None else str(partner),
        "point_nm": point.to_json(),
        "timestamp": _iso(at),
        "verdict": verdict.value,
        "sample_type": sample_type,
        "supervoxels": list(supervoxels),
        "sides": None if sides is None else _texts(sides),
        **common,
    }


def _texts(ids: Iterable[int]) -> Sequence[str]:
    return [str(i) for i in ids]


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
