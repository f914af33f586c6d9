"""Which object of a graph is meant by an id, in the state that is read.

The state that is read has a time. A pinned dataset keeps it, so that labels stay comparable. On an
editable graph it moves on when a segment turns out to be newer or to have been replaced, after an
edit of one's own, and on `refresh`; ids of objects never change their meaning, so suggestions made
earlier stay true of the objects that they name.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

from cb2_assist.core.errors import SegmentNotFoundError
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import BACKGROUND, SegmentId
from cb2_assist.datasets.cave.connection import is_root
from cb2_assist.datasets.cave.graph import Graph
from cb2_assist.datasets.cave.times import iso, now

_HEIRS_NAMED = 8


class Objects:
    """Objects of one dataset. Methods may be called from any thread.

    Args:
        graph: The graph.
        at: The state to read first.
        name: Of the dataset.
        pinned: Whether it keeps that state.
        there: The object at a point in the state that is read; background outside.
    """

    def __init__(
        self,
        graph: Graph,
        at: datetime,
        *,
        name: str,
        pinned: bool,
        there: Callable[[PointNm], SegmentId],
    ) -> None:
        self._graph, self._at = graph, at
        self._name, self._pinned, self._there = name, pinned, there
        self._lock = threading.Lock()

    @property
    def time(self) -> datetime:
        """Of the state that is read now."""
        with self._lock:
            return self._at

    def refresh(self) -> None:
        """Read the present state from now on; a pinned one stays."""
        if self._pinned:
            return
        with self._lock:
            self._at = now()

    def read_at(self, at: datetime) -> None:
        """Read the state of a time from now on, whatever state the dataset keeps."""
        with self._lock:
            self._at = at

    def advance(self, at: datetime) -> None:
        """Read a state that has all edits up to a time of the server's clock."""
        if not self._pinned:
            with self._lock:
                # edits are recorded in whole milliseconds, and times go over the wire as floats
                self._at = max(self._at, now(), at + timedelta(milliseconds=1))

    def current(self, segment: SegmentId, point: PointNm) -> tuple[SegmentId, str]:
        """The object that is meant by an id that came from outside: the viewer, a link, a person.

        A part (supervoxel) means the object that it belongs to. An object that is newer than the
        state that is read, or that edits have replaced, moves an editable graph's state on to now;
        a replaced one then means what came of it: if that is several objects, the one at the point.

        Returns:
            The object, and what to tell when another one has taken its place; else empty.

        Raises:
            SegmentNotFoundError: That id is no object of this graph, or several have replaced it
                and none of them is at the point.
            DatasetError: The graph cannot be asked.
        """
        root, is_current = self._found(segment)
        if is_current:
            return root, ""
        heirs = self._graph.successors(root, self.kept_time())
        here = self._there(point)
        if here != BACKGROUND and (here in heirs or not heirs):
            by = f" by {len(heirs)} objects" if len(heirs) > 1 else ""
            return (
                here,
                f"Edits have replaced {root}{by}; this is about {here}, which is there now.",
            )
        return self._only_heir(root, heirs)

    def latest(self, segment: SegmentId) -> tuple[SegmentId, str]:
        """As `current`, where no point is known."""
        root, is_current = self._found(segment)
        if is_current:
            return root, ""
        return self._only_heir(root, self._graph.successors(root, self.kept_time()))

    def _found(self, segment: SegmentId) -> tuple[SegmentId, bool]:
        """An object, or the one that a part belongs to, and whether it is current."""
        if not self.is_node(segment):
            raise self.no_object(segment)
        if is_root(self._graph.shape, segment):
            return segment, self._is_current(segment)
        root, is_current = self._owner(segment), False
        if root != BACKGROUND and not (is_current := self._is_current(root)):
            # the state has moved on, and the part belongs to something in it
            root = self._owner(segment)
            is_current = root != BACKGROUND and self._is_current(root)
        if root == BACKGROUND:
            raise self.no_object(segment)
        return root, is_current

    def _owner(self, part: SegmentId) -> SegmentId:
        return self._graph.root_of(part, self.time)

    def _is_current(self, root: SegmentId) -> bool:
        """Whether an object exists in the state that is read, which moves on if it may."""
        at = self.kept_time()
        born, latest = self._graph.life_of(root, at)
        if born is None:
            raise self.no_object(root)
        if at is not None:
            if born > at:
                raise SegmentNotFoundError(
                    f"Segment {root} was made by an edit of {iso(born)}, and {self._name} "
                    f"keeps the state of {iso(at)}. Point at what is there in that state and "
                    "press p."
                )
        elif born > self.time or not latest:
            self.refresh()
        return latest

    def kept_time(self) -> datetime | None:
        """The state that is kept for good; None where it moves on."""
        return self.time if self._pinned else None

    def _only_heir(self, root: SegmentId, heirs: list[SegmentId]) -> tuple[SegmentId, str]:
        if len(heirs) == 1:
            return heirs[0], f"Edits have replaced {root}; this is about {heirs[0]}."
        raise self.replaced(root, heirs)

    def is_node(self, segment: SegmentId) -> bool:
        """Whether an id is that of an object or a part of one."""
        layer = self._graph.shape.layer(segment)
        return 1 <= layer <= self._graph.shape.n_layers

    def no_object(self, segment: SegmentId) -> SegmentNotFoundError:
        """To be raised for an id of nothing."""
        return SegmentNotFoundError(
            f"{segment} is the id of no object of {self._name}. Point at a segment and press "
            "p, or give an id from this dataset."
        )

    def replaced(
        self, segment: SegmentId, heirs: list[SegmentId] | None = None
    ) -> SegmentNotFoundError:
        """To be raised for an object that is no more; names by what edits have replaced it."""
        if heirs is None:
            heirs = self._graph.successors(segment, self.kept_time())
        text = f"Segment {segment} is no object of {self._name} any more"
        names = ", ".join(map(str, heirs[:_HEIRS_NAMED]))
        if len(heirs) > 1:
            more = f" and {len(heirs) - _HEIRS_NAMED} more" if len(heirs) > _HEIRS_NAMED else ""
            return SegmentNotFoundError(
                f"{text}: edits have cut it into {len(heirs)} objects, {names}{more}. Which one is "
                "meant? Point at it and press p."
            )
        if heirs:
            return SegmentNotFoundError(
                f"{text}: edits have replaced it by {names}. Ask about that one."
            )
        return SegmentNotFoundError(f"{text}. Point at what is there now and press p.")
