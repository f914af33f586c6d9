"""Edits of a graph over the wire: where one takes hold, what it would do, making it, finding it.

An edit is sent at most once by each call, and nothing here sends one again. What becomes of one
whose answer was lost is read from the graph's own records: which operations retired the objects
that were there before, and what each of those was asked for (``lineage_graph_multiple`` and
``operation_details`` of PyChunkedGraph).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.edits import Anchor, Anchors, EditDone, EditKind, SplitPreview
from cb2_assist.core.errors import (
    AssistError,
    DatasetError,
    EditRefusedError,
    LoginError,
    NoAnswerError,
    SegmentNotFoundError,
)
from cb2_assist.core.geometry import BoxVx, PointNm, Resolution
from cb2_assist.core.records import BACKGROUND, SegmentId
from cb2_assist.datasets.cave.connection import Connection
from cb2_assist.datasets.cave.graph import Graph

EDIT_S = 120.0
"""Longest wait for the answer to an edit; then it counts as lost and is looked up."""
_REACHES_NM = (300.0, 800.0, 2000.0)
"""How far round a site its two sides are looked for, one after the other."""
_MOST_ANCHORS = 4
"""Supervoxels that hold one side of a cut."""
_MOSTLY = 4
"""So many times as many points of a supervoxel must lie on one side of a cut as on the other."""
_SHOWN_NM, _MOST_SHOWN = 1200.0, 120
_SKEW = timedelta(minutes=10)
"""By how much the server's clock and ours may differ."""

Cut = Callable[[BoxVx], tuple[BoxVx, NDArray[np.uint64]]]


class CaveEditor:
    """Makes edits of one graph and finds out about them. Safe to use from several threads.

    Args:
        connection: An open one.
        graph: Reads the same graph.
        parts: Supervoxels of a box, with the box that they fill.
        resolution: Of those voxels.
        advance: Told the time of an edit, so that later reads see it.
        deadline_s: Longest wait for the answer to an edit.
    """

    def __init__(
        self,
        connection: Connection,
        graph: Graph,
        parts: Cut,
        resolution: Resolution,
        advance: Callable[[datetime], None],
        *,
        deadline_s: float = EDIT_S,
    ) -> None:
        self._connection, self._graph = connection, graph
        self._parts, self._resolution = parts, resolution
        self._advance, self.deadline_s = advance, deadline_s
        self._lock = threading.Lock()
        self._user: str | None = None

    # -- looking

    def roots(self, supervoxels: Sequence[SegmentId]) -> tuple[SegmentId, ...]:
        """The objects that parts belong to at this moment, by the server's clock.

        Raises:
            DatasetError: The graph cannot be asked.
        """
        session = self._graph.client("graph").session
        url, ids = f"{self._connection.api}/roots_binary", np.array(supervoxels, "<u8")

        def ask() -> tuple[SegmentId, ...]:
            # without a time the server takes its own; ours may be behind
            got = np.frombuffer(session.post(url, data=ids.tobytes()).content, "<u8")
            if len(got) != len(ids):
                raise ValueError(f"{len(got)} roots of {len(ids)} supervoxels")
            return tuple(SegmentId(i) for i in got.tolist())

        return self._graph.ask("what the two sides are now", ask)

    def anchors(
        self,
        kind: EditKind,
        point: PointNm,
        segments: Sequence[SegmentId | None],
        supervoxels: tuple[SegmentId, SegmentId | None] | None,
        sides: tuple[Sequence[PointNm], Sequence[PointNm]],
    ) -> Anchors:
        """Where an edit takes hold of the graph.

        Args:
            kind: Join or cut.
            point: The site.
            segments: The two objects as they were shown; of a cut the second is None.
            supervoxels: The parts of the two sides nearest to the site, where they are known.
            sides: Of a cut, points that are to come apart.

        Raises:
            SegmentNotFoundError: The graph has nothing there that could be joined or parted.
            DatasetError: The data cannot be read.
        """
        if kind is EditKind.CUT:
            return self._anchors_of_cut(point, self._now(segments[0], supervoxels), sides)
        wanted = [s if s is not None and self._is_part(s) else None for s in supervoxels or ()]
        return self._anchors_of_join(point, segments, wanted or [None, None])

    def _now(
        self, segment: SegmentId | None, supervoxels: tuple[SegmentId, SegmentId | None] | None
    ) -> SegmentId | None:
        """The object of a cut at this moment: edits may have replaced the one that was shown."""
        if supervoxels is None or not self._is_part(supervoxels[0]):
            return segment
        return self.roots([supervoxels[0]])[0]

    def preview(self, anchors: Anchors, root: SegmentId, point: PointNm) -> SplitPreview:
        """What a cut would do; nothing is changed.

        Raises:
            EditRefusedError: The server says that there is no such cut.
            DatasetError: It cannot be asked.
        """
        client, (sources, sinks) = self._graph.client("graph"), anchors

        def ask() -> SplitPreview:
            near, far, separates, others = client.preview_split(
                *_points(sources, sinks), int(root), *_ids(sources, sinks), True
            )
            shown = self._shown(point, near, far)
            return SplitPreview(
                root, (len(near), len(far)), len(others), bool(separates and near and far), shown
            )

        try:
            return self._graph.ask("a preview of the cut", ask, self.deadline_s)
        except AssistError as e:
            raise self._refusal(e) from None

    # -- changing

    def send(self, kind: EditKind, anchors: Anchors, operation: int | None) -> EditDone:
        """Make an edit: one request, never a second one.

        Args:
            kind: What to do.
            anchors: Where, of a join or cut.
            operation: Which one to turn, of an undo or redo.

        Raises:
            EditRefusedError: The server refuses it and has not made it.
            LoginError: The token does not allow it; it was not made.
            NoAnswerError: Whether it was made is not known.
        """
        try:
            client = self._graph.client("graph")
        except NoAnswerError as e:
            raise EditRefusedError(f"Nothing was sent: {e}", is_final=False) from None
        asking = {
            EditKind.JOIN: lambda: self._merge(client, anchors),
            EditKind.CUT: lambda: self._split(client, anchors),
            EditKind.UNDO: lambda: client.undo_operation(int(operation or 0)),
            EditKind.REDO: lambda: self._redo(client, int(operation or 0)),
        }[kind]
        try:
            got = self._graph.ask(f"the answer to an edit ({kind.value})", asking, self.deadline_s)
        except AssistError as e:
            raise self._refusal(e) from None
        number = got.get("operation_id") if isinstance(got, dict) else None
        new = got.get("new_root_ids") if isinstance(got, dict) else None
        if not isinstance(new, list) or (number is None and new):
            raise NoAnswerError(f"The answer to an edit ({kind.value}) makes no sense.")
        roots = tuple(SegmentId(int(i)) for i in new)
        return EditDone(None if number is None else int(number), roots)

    def find(
        self,
        kind: EditKind,
        anchors: Anchors,
        operation: int | None,
        roots: Sequence[SegmentId],
        since: datetime,
    ) -> EditDone | None:
        """The edit in the server's records, if it was made.

        Args:
            kind: What was asked for.
            anchors: Where.
            operation: Which one was to be turned.
            roots: The objects of the two sides before it was sent.
            since: When it was sent.

        Returns:
            The first one that fits, one of ours before anybody else's; None: there is none.

        Raises:
            DatasetError: The records cannot be read.
        """
        numbers = self._operations_after(roots, since)
        if not numbers:
            return None
        client = self._graph.client("graph")
        details = self._graph.ask(
            "what was asked for meanwhile", lambda: client.get_operation_details(numbers)
        )
        mine = self._user_id()
        fits = []
        for number in numbers:
            row = details.get(str(number))
            if not isinstance(row, dict) or not _is_it(row, kind, anchors, operation):
                continue
            is_ours = None if mine is None else str(row.get("user")) == mine
            made = tuple(SegmentId(int(i)) for i in row.get("roots", ()))
            fits.append(EditDone(number, made, is_ours))
        return next((f for f in fits if f.is_ours), fits[0] if fits else None)

    def settle(self, new_roots: Iterable[SegmentId]) -> None:
        """Let later reads see an edit, also where the server's clock is ahead of ours."""
        times = []
        for root in new_roots:
            try:
                born = self._graph.born(root)
            except DatasetError:
                continue
            if born is not None:
                times.append(born)
        self._advance(max(times, default=datetime.now(UTC)))

    # -- the requests

    def _merge(self, client: Any, anchors: Anchors) -> Any:  # noqa: ANN401 - caveclient has no types
        rows = [side[0] for side in anchors]
        ids = [int(a.supervoxel) for a in rows]
        return client.do_merge(ids, [list(a.point) for a in rows], resolution=(1.0, 1.0, 1.0))

    def _split(self, client: Any, anchors: Anchors) -> Any:  # noqa: ANN401
        sources, sinks = anchors
        # it uses the root for points without a supervoxel only, and each of ours has one
        number, new = client.execute_split(
            *_points(sources, sinks), int(sources[0].supervoxel), *_ids(sources, sinks)
        )
        return {"operation_id": number, "new_root_ids": new}

    def _redo(self, client: Any, operation: int) -> Any:  # noqa: ANN401
        # caveclient has no call for it
        return client.session.post(
            f"{self._connection.api}/redo", json={"operation_id": operation}
        ).json()

    def _refusal(self, error: AssistError) -> AssistError:
        """What an error says about whether the edit was made."""
        text = str(error)
        if "root lock" in text:
            return EditRefusedError(
                "Somebody else is editing this neuron at this moment (it is locked). Nothing was "
                "changed; press y again in a minute.",
                is_final=False,
            )
        if "too many requests" in text:
            return EditRefusedError(text, is_final=False)
        if isinstance(error, NoAnswerError | LoginError | EditRefusedError):
            return error
        return EditRefusedError(f"{_WORDS.get(_known(text), text)}", is_final=True)

    def _user_id(self) -> str | None:
        """Our number in the server's records; None where it does not tell."""
        with self._lock:
            if self._user is not None:
                return self._user
        url = f"{self._connection.stack.server}/auth/api/v1/user/me"
        try:
            got = self._connection.session.get(url).json()
            user = str(int(got["id"]))
        except (AssistError, ValueError, TypeError, LookupError):
            return None
        with self._lock:
            self._user = user
        return user

    def _operations_after(self, roots: Sequence[SegmentId], since: datetime) -> list[int]:
        """Edits that retired the given objects or what came of them, oldest first."""
        client, start = self._graph.client("graph"), sorted({int(r) for r in roots})
        got = self._graph.ask(
            "what became of the two sides",
            lambda: client.get_lineage_graph(
                np.array(start, np.uint64),
                timestamp_past=since - _SKEW,
                timestamp_future=datetime.now(UTC) + 6 * _SKEW,
            ),
        )
        try:
            retired = {int(n["id"]): int(n["operation_id"]) for n in got["nodes"] if _has(n)}
            # networkx 3.4 and later write edges in place of links
            links = got.get("links", got.get("edges", ()))
            after: dict[int, list[int]] = {}
            for link in links:
                after.setdefault(int(link["source"]), []).append(int(link["target"]))
        except (LookupError, TypeError, ValueError, AttributeError) as e:
            raise NoAnswerError(f"The graph's history makes no sense ({type(e).__name__}).") from e
        seen: set[int] = set()
        waiting = [*start]
        while waiting:
            root = waiting.pop()
            if root not in seen:
                seen.add(root)
                waiting += after.get(root, [])
        return sorted({retired[r] for r in seen if r in retired})

    # -- where it takes hold

    def _is_part(self, node: SegmentId) -> bool:
        return self._graph.shape.layer(node) == 1

    def _anchors_of_join(
        self,
        point: PointNm,
        segments: Sequence[SegmentId | None],
        wanted: Sequence[SegmentId | None],
    ) -> Anchors:
        for reach in _REACHES_NM:
            box, parts = self._parts(BoxVx.around(point, reach, self._resolution))
            owners = self._owners(parts) if None in wanted else None
            found = []
            for segment, part in zip(segments, wanted, strict=True):
                if part is not None:
                    where = np.argwhere(parts == np.uint64(part))
                else:
                    assert owners is not None
                    where = np.argwhere(owners == np.uint64(segment or 0))
                found.append(self._nearest(parts, box, where, point))
            a, b = found
            if a is not None and b is not None:
                return (a,), (b,)
        raise SegmentNotFoundError(
            f"The two sides of the join are not within {_REACHES_NM[-1]:.0f} nm of its point in "
            "the graph, so it cannot be applied there. The answer is kept as a label."
        )

    def _anchors_of_cut(
        self,
        point: PointNm,
        segment: SegmentId | None,
        sides: tuple[Sequence[PointNm], Sequence[PointNm]],
    ) -> Anchors:
        if not all(sides):
            raise SegmentNotFoundError(
                "It is not known what this cut is to part, so that it cannot be applied. The "
                "answer is kept as a label."
            )
        places = np.array([tuple(p) for side in sides for p in side])
        reach = float(np.abs(places - np.array(tuple(point))).max()) + max(self._resolution)
        box, parts = self._parts(BoxVx.around(point, reach, self._resolution))
        owner = self._graph_owner(parts)
        found: list[dict[int, list[PointNm]]] = [{}, {}]
        for side, points in zip(found, sides, strict=True):
            # what lies nearest to the cut holds it best
            for at in sorted(points, key=point.distance_nm):
                v, lo = at.to_voxel(self._resolution), box.lo
                index = (v.x - lo.x, v.y - lo.y, v.z - lo.z)
                if any(i < 0 or i >= n for i, n in zip(index, parts.shape, strict=True)):
                    continue
                part = int(parts[index])
                if part != BACKGROUND and owner.get(part) == segment:
                    side.setdefault(part, []).append(at)
        anchors = _held_by(found[0], found[1]), _held_by(found[1], found[0])
        if not all(anchors):
            raise SegmentNotFoundError(
                "The graph cannot be cut there: the two sides share one supervoxel, its smallest "
                "part. The answer is kept as a label."
            )
        return anchors

    def _graph_owner(self, parts: NDArray[np.uint64]) -> dict[int, SegmentId]:
        ids = [int(i) for i in np.unique(parts) if i]
        return dict(zip(ids, self.roots([SegmentId(i) for i in ids]), strict=True)) if ids else {}

    def _owners(self, parts: NDArray[np.uint64]) -> NDArray[np.uint64]:
        ids, back = np.unique(parts, return_inverse=True)
        owner = self._graph_owner(parts)
        table = np.array([owner.get(int(i), 0) for i in ids], np.uint64)
        mapped: NDArray[np.uint64] = table[back].reshape(parts.shape)
        return mapped

    def _nearest(
        self, parts: NDArray[np.uint64], box: BoxVx, where: NDArray[np.int64], point: PointNm
    ) -> Anchor | None:
        if not len(where):
            return None
        centres = self._centres(where, box)
        best = int(((centres - np.array(tuple(point))) ** 2).sum(1).argmin())
        return Anchor(SegmentId(int(parts[tuple(where[best])])), PointNm.of(centres[best]))

    def _centres(self, where: NDArray[np.int64], box: BoxVx) -> NDArray[np.float64]:
        centres: NDArray[np.float64] = (where + np.array(tuple(box.lo)) + 0.5) * np.array(
            tuple(self._resolution)
        )
        return centres

    def _shown(
        self, point: PointNm, near: Sequence[int], far: Sequence[int]
    ) -> tuple[tuple[PointNm, ...], tuple[PointNm, ...]]:
        box, parts = self._parts(BoxVx.around(point, _SHOWN_NM, self._resolution))
        out = []
        for ids in (near, far):
            where = np.argwhere(np.isin(parts, np.array(ids, np.uint64)))
            # spread over what there is, the same ones each time
            where = where[:: max(1, len(where) // _MOST_SHOWN)][:_MOST_SHOWN]
            out.append(tuple(PointNm.of(c) for c in self._centres(where, box)))
        return out[0], out[1]


_WORDS = {
    "different objects": "The two sides are one neuron already.",
    "same object": "The two sides are separate neurons already.",
    "Chebyshev distance": "The two sides are too far apart for a join: at most 3 chunks.",
    "Failed to find a cut": "The server finds no cut there that parts the two sides.",
    "not connected through the local graph": (
        "The two sides hang together only far from here, so the server cannot cut them there."
    ),
    "cut off only the labeled points": (
        "The server's cut would take off nothing but the points themselves."
    ),
    "overlapped": "The ways between the points of one side pass the other side's.",
    "could not find any edges": "The server finds no edges to cut there.",
    "No edits allowed": "This graph cannot be edited: it is a frozen version.",
}


def _known(text: str) -> str:
    return next((part for part in _WORDS if part in text), "")


def _held_by(
    side: Mapping[int, list[PointNm]], other: Mapping[int, list[PointNm]]
) -> tuple[Anchor, ...]:
    """Supervoxels that hold one side of a cut, the nearest to it first.

    Args:
        side: Points of this side by the supervoxel that they lie in, nearest first.
        other: Those of the other side.
    """
    own = [part for part in side if part not in other]
    if not own:
        # a supervoxel seldom ends right where the cut does: one that is nearly all here will do
        own = [p for p, points in side.items() if len(points) >= _MOSTLY * len(other[p])]
    return tuple(Anchor(SegmentId(part), side[part][0]) for part in own[:_MOST_ANCHORS])


def _has(node: dict[str, Any]) -> bool:
    return node.get("operation_id") is not None


def _is_it(row: dict[str, Any], kind: EditKind, anchors: Anchors, operation: int | None) -> bool:
    """Whether an operation's details are those of an edit that was asked for."""
    if kind is EditKind.UNDO:
        return row.get("undo_operation_id") == operation
    if kind is EditKind.REDO:
        return row.get("redo_operation_id") == operation
    if row.get("undo_operation_id") is not None or row.get("redo_operation_id") is not None:
        return False
    sides = [{int(a.supervoxel) for a in side} for side in anchors]
    if kind is EditKind.JOIN:
        wanted = sides[0] | sides[1]
        return any({int(v) for v in edge} == wanted for edge in row.get("added_edges") or ())
    if "removed_edges" not in row:
        return False
    cut = [{int(v) for v in row.get(name) or ()} for name in ("source_ids", "sink_ids")]
    return cut in (sides, sides[::-1])


def _points(*sides: Sequence[Anchor]) -> list[list[list[float]]]:
    return [[list(a.point) for a in side] for side in sides]


def _ids(*sides: Sequence[Anchor]) -> list[list[int]]:
    return [[int(a.supervoxel) for a in side] for side in sides]
