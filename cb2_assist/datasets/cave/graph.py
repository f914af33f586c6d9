"""Questions to a chunked graph: roots, what replaced them, their parts, their neighbours.

Every question runs in a thread of its own, with a deadline, and can be given up (`core.patience`).
At most four run at once: the servers are shared by everybody (`reference`: PyChunkedGraph serves a
handful of workers). Of these only two may be about whole objects, so that a question about the
place on screen never waits behind a neuron. Ids of supervoxels and roots never change their
meaning, so what a supervoxel belonged to at a time is asked once.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.errors import AssistError, DatasetError, NoAnswerError
from cb2_assist.core.geometry import BoxVx, PointNm
from cb2_assist.core.patience import wait_for
from cb2_assist.core.records import BACKGROUND, SegmentId
from cb2_assist.datasets.cave.connection import Connection, bounds_text, is_root
from cb2_assist.datasets.layer import first_line

T = TypeVar("T")
Ids = NDArray[np.uint64]

ANSWER_S = 45.0
"""Longest wait for one question."""
_LONG_S = 180.0
"""The same for one about a whole neuron."""
_AT_ONCE, _LONG_AT_ONCE = 2, 2
_BATCH, _L2_BATCH = 50_000, 5_000
_MOST_KEPT = 2_000_000
_MOST_PARTS_KEPT = 1_000_000


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An edge of the watershed between a supervoxel of one object and one of another.

    Attributes:
        segment: The other object.
        own: Supervoxel of the object that was asked about.
        other: Supervoxel of the other object.
        affinity: 0..1, how strongly the automatic segmentation holds the two together.
        area: Size of the contact, in the unit in which the graph was made.
    """

    segment: SegmentId
    own: SegmentId
    other: SegmentId
    affinity: float
    area: float


class Graph:
    """One chunked graph. Safe to use from several threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.shape = connection.shape
        self._host = connection.local.partition("://")[2]
        self._pool = ThreadPoolExecutor(_AT_ONCE, "graph")
        self._long = ThreadPoolExecutor(_LONG_AT_ONCE, "graph-whole")
        self._lock = threading.Lock()
        self._making = threading.Lock()
        self._clients: dict[str, Any] = {}
        self._roots: dict[datetime, dict[int, int]] = {}
        self._born: dict[int, datetime] = {}
        self._parts: dict[int, Ids] = {}

    def roots(self, nodes: Ids, at: datetime) -> Ids:
        """Objects that supervoxels (or other nodes) belonged to at a time; 0 stays 0.

        Raises:
            DatasetError: The time lies before the graph's first state, or no answer.
        """
        wanted = np.unique(nodes)
        wanted = wanted[wanted != 0]
        with self._lock:
            known = self._roots.setdefault(at, {})
            unknown = [n for n in wanted.tolist() if n not in known]
        if unknown:
            found = self._ask_roots(unknown, at)
            with self._lock:
                if sum(map(len, self._roots.values())) > _MOST_KEPT:
                    self._roots.clear()
                known = self._roots.setdefault(at, known)
                known.update(found)
        with self._lock:
            table = np.array([known[n] for n in wanted.tolist()], np.uint64)
        out: Ids = np.zeros(nodes.shape, np.uint64)
        inside = nodes != 0
        out[inside] = table[np.searchsorted(wanted, nodes[inside])]
        return out

    def root_of(self, node: SegmentId, at: datetime) -> SegmentId:
        """The object of one node at a time."""
        return SegmentId(int(self.roots(np.array([node], np.uint64), at)[0]))

    def born(self, root: SegmentId) -> datetime | None:
        """When an object came to be; None for one that the graph does not know."""
        if root in self._born:
            return self._born[root]
        return self.ask("the age of the segment", self._birth_of(root))

    def life_of(self, root: SegmentId, at: datetime | None = None) -> tuple[datetime | None, bool]:
        """When an object came to be, and whether no edit had replaced it at a time; None is now.

        Returns:
            None and False for an id that the graph does not know.
        """
        client, ids = self._client("graph"), np.array([root], np.uint64)
        latest = self.submit(lambda: client.is_latest_roots(ids, timestamp=at))
        if root not in self._born:
            wait_for([self.submit(self._birth_of(root))], f"{self._host}: its age", ANSWER_S)
        words = f"{self._host}: whether the segment is still current"
        (got,) = wait_for([latest], words, ANSWER_S)
        return self._born.get(root), bool(got[0])

    def _birth_of(self, root: SegmentId) -> Callable[[], datetime | None]:
        client = self._client("graph")

        def ask() -> datetime | None:
            got = client.get_root_timestamps(root, latest=False)
            # ids that the server does not know are left out of its answer
            if not len(got):
                return None
            at: datetime = got[0]
            self._born[root] = at.replace(tzinfo=UTC) if at.tzinfo is None else at
            return self._born[root]

        return ask

    def successors(self, root: SegmentId, at: datetime | None = None) -> list[SegmentId]:
        """What stands in the place of an object that edits had replaced at a time; None is now.

        Returns:
            Empty when it is not known.
        """
        client = self._client("graph")
        try:
            got = self.ask(
                "what replaced the segment", lambda: client.get_latest_roots(root, timestamp=at)
            )
            heirs = [SegmentId(int(i)) for i in got if int(i) != root]
            # its lineage may end in objects that are not the latest either
            return [
                h for h, is_good in zip(heirs, self._are_latest(heirs, at), strict=True) if is_good
            ]
        except AssistError:
            return []

    def _are_latest(self, roots: list[SegmentId], at: datetime | None) -> list[bool]:
        if not roots:
            return []
        client, ids = self._client("graph"), np.array(roots, np.uint64)
        got = self.ask(
            "whether the segment is still current",
            lambda: client.is_latest_roots(ids, timestamp=at),
        )
        return [bool(v) for v in got]

    def parts(self, root: SegmentId, box: BoxVx | None = None) -> Ids:
        """Nodes of layer 2 of an object, one a connected piece in a chunk.

        Args:
            root: The object; an old one still has its parts.
            box: In voxels of the finest scale; widened to whole chunks. None is everywhere.
        """
        with self._lock:
            known = self._parts.get(root)
        if known is not None:
            return known if box is None else known[self.shape.touch(known, box)]
        words = f"{self._host}: the parts of the segment"
        if box is not None:
            return wait_for([self.submit(self._leaves(root, box))], words, ANSWER_S)[0]
        (found,) = wait_for([self._submit_long(self._leaves(root))], words, _LONG_S)
        self._keep_parts(root, found)
        return found

    def whole(self, root: SegmentId) -> tuple[Ids, list[tuple[int, int]]]:
        """All parts of an object, and which of them hang together."""
        with self._lock:
            known = self._parts.get(root)
        client = self._client("graph")
        edges = self._submit_long(lambda: client.level2_chunk_graph(root))
        parts = self.parts(root) if known is None else known
        (pairs,) = wait_for([edges], f"{self._host}: how the segment hangs together", _LONG_S)
        return parts, [(int(a), int(b)) for a, b in pairs]

    def _leaves(self, root: SegmentId, box: BoxVx | None = None) -> Callable[[], Ids]:
        client, bounds = self._client("graph"), _bounds(box)

        def ask() -> Ids:
            got = client.get_leaves(root, bounds=bounds, stop_layer=2)
            return np.asarray(got).astype(np.uint64)

        return ask

    def _keep_parts(self, root: SegmentId, parts: Ids) -> None:
        # an id names exactly the parts that it had when it was new
        if not len(parts):
            return
        with self._lock:
            self._parts[root] = parts
            while len(self._parts) > 1 and sum(map(len, self._parts.values())) > _MOST_PARTS_KEPT:
                self._parts.pop(next(iter(self._parts)))

    def places(self, parts: Iterable[int]) -> dict[int, tuple[PointNm, float]]:
        """A point inside each part and its radius in nm, where the server has computed them.

        It does that minutes to hours after an edit, so some may be missing.
        """
        client, ids = self._client("l2"), [int(p) for p in parts]
        wanted = ["rep_coord_nm", "max_dt_nm"]
        futures = [
            self._submit_long(partial(client.get_l2data, ids[i : i + _L2_BATCH], attributes=wanted))
            for i in range(0, len(ids), _L2_BATCH)
        ]
        words = f"{self._host}: where {len(ids)} parts of the segment are"
        places = {}
        for rows in wait_for(futures, words, _LONG_S):
            for key, row in rows.items():
                at = row.get("rep_coord_nm") if isinstance(row, dict) else None
                if at is not None and len(at) == 3:
                    radius = row.get("max_dt_nm")
                    places[int(key)] = PointNm.of(at), math.nan if radius is None else float(radius)
        return places

    def neighbours(self, root: SegmentId, box: BoxVx, at: datetime) -> list[Neighbour]:
        """Other objects that the watershed has an edge to, strongest first.

        caveclient has no parameter for it. Edges that were cut are among them.

        Raises:
            DatasetError: This server cannot tell.
        """
        session = self._client("graph").session
        url = f"{self._connection.api}/node/{int(root)}/subgraph"
        query = {"bounds": bounds_text(box), "only_internal_edges": "false"}
        got = self.ask(
            "the neighbours of the segment", lambda: session.get(url, params=query).json()
        )
        try:
            pairs = np.array(got["nodes"], np.uint64).reshape(-1, 2)
            affinities, areas = list(got["affinities"]), list(got["areas"])
        except (LookupError, TypeError, ValueError, OverflowError) as e:
            raise self._odd(e) from None
        owners = self.roots(pairs, at)
        best: dict[tuple[int, int], Neighbour] = {}
        for (a, b), (of_a, of_b), affinity, area in zip(
            pairs.tolist(), owners.tolist(), affinities, areas, strict=False
        ):
            if (of_a == root) == (of_b == root) or BACKGROUND in (of_a, of_b):
                continue
            if not math.isfinite(affinity):
                continue  # a person's edge, which says nothing of the automatic segmentation
            own, other, segment = (a, b, of_b) if of_a == root else (b, a, of_a)
            best[own, other] = Neighbour(
                SegmentId(segment), SegmentId(own), SegmentId(other), float(affinity), float(area)
            )
        return sorted(best.values(), key=lambda n: (-n.affinity, -n.area, n.own, n.other))

    def ask(self, what: str, question: Callable[[], T], deadline_s: float = ANSWER_S) -> T:
        """The answer to a question that some thread of ours asks.

        Raises:
            AssistError: There is none, or one that makes no sense.
        """
        (answer,) = wait_for([self.submit(question)], f"{self._host}: {what}", deadline_s)
        return answer

    def submit(self, question: Callable[[], T]) -> Future[T]:
        """Begin to ask; the future raises errors of ours only."""
        return self._pool.submit(self._worded, question)

    def _submit_long(self, question: Callable[[], T]) -> Future[T]:
        """The same for a question about a whole object."""
        return self._long.submit(self._worded, question)

    def close(self) -> None:
        """Stop asking."""
        for pool in (self._pool, self._long):
            pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            client.session.close()
        self._connection.close()

    def _ask_roots(self, nodes: list[int], at: datetime) -> dict[int, int]:
        client = self._client("graph")
        batches = [nodes[i : i + _BATCH] for i in range(0, len(nodes), _BATCH)]

        def ask(batch: list[int]) -> Ids:
            got: Ids = client.get_roots(np.array(batch, np.uint64), timestamp=at)
            if len(got) != len(batch):
                raise ValueError(f"{len(got)} roots of {len(batch)} nodes")
            return got

        futures = [self.submit(partial(ask, b)) for b in batches]
        answers = wait_for(futures, f"{self._host}: roots of {len(nodes)} supervoxels", ANSWER_S)
        found = dict(zip(nodes, np.concatenate(answers).tolist(), strict=True))
        # before the graph's first state the server answers with what it was asked
        lost = [n for n, root in found.items() if not is_root(self.shape, root)]
        if lost and len(lost) == len(found):
            raise DatasetError(
                f"{self._connection.stack.name}: the graph has no objects at {at.isoformat()}. "
                "That time lies before its first state; choose a later timestamp."
            )
        return {n: (root if is_root(self.shape, root) else 0) for n, root in found.items()}

    def _client(self, which: str) -> Any:  # noqa: ANN401 - caveclient has no types
        with self._making:
            if which not in self._clients:
                make = (
                    self._connection.graph_client
                    if which == "graph"
                    else self._connection.l2_client
                )
                client = self.ask("its version", make)
                with self._lock:
                    self._clients[which] = client
            return self._clients[which]

    def _worded(self, question: Callable[[], T]) -> T:
        try:
            return question()
        except AssistError:
            raise
        except Exception as e:  # noqa: BLE001 - caveclient's errors share no base
            raise self._odd(e) from None

    def _odd(self, error: Exception) -> DatasetError:
        return NoAnswerError(
            f"{self._connection.stack.name}: {self._host} gave an answer that makes no sense "
            f"({type(error).__name__}: {first_line(error)[:120]}). Try again; if it stays, the "
            "server and this version do not fit."
        )


def _bounds(box: BoxVx | None) -> NDArray[np.int64] | None:
    if box is None:
        return None
    return np.array([list(box.lo), list(box.hi)], np.int64).T
