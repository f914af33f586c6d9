"""The edits of a graph as its server tells them: change logs, details of operations, lineage.

What an answer means never changes, save for what becomes of an object later: roots are immutable,
so the log of one is complete, and so are the details of an operation. Times are aware, UTC, whole
milliseconds. Sources: PyChunkedGraph 2.21 as recorded in the golden exchanges, and caveclient's
own test literals.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.geometry import BoxVx, PointNm, Resolution
from cb2_assist.core.records import SegmentId
from cb2_assist.datasets.cave.connection import Connection, GraphShape, chunk_voxels
from cb2_assist.datasets.cave.graph import Graph
from cb2_assist.datasets.local import LocalSource
from cb2_assist.datasets.source import Cutout

Voxel = tuple[float, float, float]
Ids = NDArray[np.uint64]

_DETAILS_AT_ONCE = 50
"""Operations in one address: longer ones are refused by proxies."""
_LONG_S = 180.0
"""Longest wait for what is about a whole neuron."""


@dataclass(frozen=True, slots=True)
class Edit:
    """A line of a change log.

    Attributes:
        before: Objects of the log's family that it retired.
        after: Objects of the family that it made.
    """

    number: int
    at: datetime
    user: str
    is_merge: bool
    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Operation:
    """Details of one edit.

    Attributes:
        at: When its objects came to be; None: not told.
        failed: Why it came to nothing; empty when it took place.
        pair: Supervoxels of the first edge that a merge added.
        sources, sinks: Points as they were set, voxels of the finest scale.
        source_ids, sink_ids: Supervoxels under a split's points.
        undoes: Operation that this one takes back.
        redoes: Operation that this one repeats.
    """

    number: int
    at: datetime | None = None
    failed: str = ""
    pair: tuple[int, int] | None = None
    sources: tuple[Voxel, ...] = ()
    sinks: tuple[Voxel, ...] = ()
    source_ids: tuple[int, ...] = ()
    sink_ids: tuple[int, ...] = ()
    undoes: int | None = None
    redoes: int | None = None

    def to_json(self) -> dict[str, Any]:
        """For a cache; `of_json` reads it."""
        return {**asdict(self), "at": None if self.at is None else self.at.isoformat()}

    @classmethod
    def of_json(cls, document: Mapping[str, Any]) -> Operation:
        """Read what `to_json` wrote."""
        d = dict(document)
        d["at"] = None if d["at"] is None else datetime.fromisoformat(d["at"])
        d["pair"] = None if d["pair"] is None else (int(d["pair"][0]), int(d["pair"][1]))
        for name in ("sources", "sinks"):
            d[name] = tuple(map(_voxel, d[name]))
        for name in ("source_ids", "sink_ids"):
            d[name] = tuple(d[name])
        return cls(**d)


@dataclass(frozen=True, slots=True)
class Lineage:
    """What became of objects.

    Attributes:
        then: What took the place of an object, for each that was replaced.
        by: Operation that replaced it.
    """

    then: Mapping[int, tuple[int, ...]]
    by: Mapping[int, int]

    def later(self, root: int) -> Iterator[int]:
        """The object and all that came from it."""
        seen, waiting = {root}, [root]
        while waiting:
            at = waiting.pop()
            yield at
            new = [n for n in self.then.get(at, ()) if n not in seen]
            seen.update(new)
            waiting += new

    def operations(self, root: int, *, splits: bool = False) -> list[int]:
        """Operations that changed an object or what came from it, in order of number.

        Args:
            root: The object.
            splits: Only those that left several objects in the place of one.
        """
        return sorted(
            {
                self.by[n]
                for n in self.later(root)
                if n in self.by and (not splits or len(self.then.get(n, ())) > 1)
            }
        )


class History:
    """The edits of one graph. Safe to use from several threads.

    Args:
        connection: An open one.
        graph: Its questions.
        voxels: Its watershed.
    """

    def __init__(self, connection: Connection, graph: Graph, voxels: LocalSource) -> None:
        self._connection, self._graph, self._voxels = connection, graph, voxels
        self._finest = Resolution(*map(float, connection.graph_info["scales"][0]["resolution"]))

    @property
    def table(self) -> str:
        """Name of the graph."""
        return self._connection.table

    def limit(self, per_s: float) -> None:
        """Send at most so many requests a second to the graph's server, repeated ones included."""
        self._connection.account.pace.per_s = per_s

    def check_server(self, root: int) -> None:
        """Ask something cheap about an object.

        Raises:
            DatasetError: The server does not answer.
        """
        self._graph.life_of(SegmentId(root))

    def edits(self, root: int) -> list[Edit]:
        """Every edit in the past of an object, oldest first.

        Raises:
            DatasetError: The id is no object, or no answer.
        """
        url = f"{self._connection.api}/root/{root}/tabular_change_log"
        session = self._connection.session
        return self._graph.ask(
            f"the change log of {root}",
            lambda: read_change_log(session.get(url, params={"filtered": "False"}).content),
            _LONG_S,
        )

    def operations(self, numbers: Iterable[int]) -> dict[int, Operation]:
        """Details of operations; those that the server does not know are left out.

        Raises:
            DatasetError: No answer.
        """
        url, session = f"{self._connection.api}/operation_details", self._connection.session

        def ask(some: list[int]) -> dict[int, Operation]:
            query = {"operation_ids": json.dumps(some)}
            return read_operations(session.get(url, params=query).content)

        wanted = sorted(set(numbers))
        found: dict[int, Operation] = {}
        for i in range(0, len(wanted), _DETAILS_AT_ONCE):
            batch = wanted[i : i + _DETAILS_AT_ONCE]
            found |= self._graph.ask("details of edits", partial(ask, batch), _LONG_S)
        return found

    def later(self, roots: Iterable[int], until: datetime) -> Lineage:
        """What became of objects.

        Raises:
            DatasetError: No answer; of objects that were part of a huge one that is usual.
        """
        url, session = f"{self._connection.api}/lineage_graph_multiple", self._connection.session
        asked = sorted(set(roots))
        born = [at for at in (self._graph.born(SegmentId(root)) for root in asked) if at]
        query = {"timestamp_future": str(until.timestamp())}
        if born:  # nothing of their own past is wanted
            query["timestamp_past"] = str(min(born).timestamp())
        body = {"root_ids": asked}
        return self._graph.ask(
            "what became of segments",
            lambda: read_lineage(session.post(url, params=query, json=body).content),
            _LONG_S,
        )

    def owners(self, parts: Ids, at: datetime) -> Ids:
        """Objects of supervoxels at a time; 0 for background and for what did not exist.

        Raises:
            DatasetError: No answer.
        """
        return self._graph.roots(parts, at)

    def parts(self, point: PointNm, half_width_nm: float) -> Cutout:
        """EM and supervoxels round a point, clipped to the bounds.

        Raises:
            DatasetError: They cannot be read.
        """
        voxels = self._voxels
        box = BoxVx.around(point, half_width_nm, voxels.resolution).clip(voxels.bounds)
        return voxels.cutout(box)

    def place(self, voxel: Voxel) -> PointNm:
        """Middle of a voxel of the finest scale."""
        return PointNm.of((v + 0.5) * r for v, r in zip(voxel, self._finest, strict=True))

    def is_inside(self, point: PointNm) -> bool:
        """Whether a point lies in the volume."""
        return self._voxels.bounds.contains(point.to_voxel(self._voxels.resolution))

    def is_near(self, voxel: Voxel, supervoxel: int) -> bool:
        """Whether a point lies in the chunk of a supervoxel or in one beside it."""
        return is_near_chunk(self._graph.shape, voxel, supervoxel)


def is_near_chunk(shape: GraphShape, voxel: Voxel, supervoxel: int) -> bool:
    """Whether a voxel of the finest scale lies in the chunk of a supervoxel or in one beside it.

    It would not if the voxel counted in another resolution than the graph does.
    """
    lo, hi = chunk_voxels(shape, supervoxel)
    ends = zip(voxel, lo, hi, shape.chunk, strict=True)
    return all(a - size <= v < b + size for v, a, b, size in ends)


def read_change_log(body: bytes | str) -> list[Edit]:
    """Lines of a change log, oldest first, as pandas writes a frame: a column is a JSON object.

    Raises:
        ValueError: That is none.
        LookupError: A column is missing.
    """
    table = json.loads(body)
    if isinstance(table, str):  # the route for several roots writes each as text
        table = json.loads(table)
    found = [
        Edit(
            int(number),
            moment(table["timestamp"][row]),
            str(table["user_id"][row]),
            bool(table["is_merge"][row]),
            tuple(map(int, table["before_root_ids"][row])),
            tuple(map(int, table["after_root_ids"][row])),
        )
        for row, number in table["operation_id"].items()
    ]
    return sorted(found, key=lambda e: (e.at, e.number))


def read_operations(body: bytes | str) -> dict[int, Operation]:
    """Details of operations, by number.

    Raises:
        ValueError: That is none.
        LookupError: A part is missing.
    """
    return {int(n): _operation(int(n), d) for n, d in json.loads(body).items()}


def _operation(number: int, d: Mapping[str, Any]) -> Operation:
    status, text = d.get("operation_status", 0), str(d.get("operation_exception") or "")
    added: Sequence[Any] = d.get("added_edges") or ()
    at = d.get("operation_ts") or d.get("timestamp")
    return Operation(
        number,
        None if at is None else moment(at),
        # 0 is done; 1 to 5 are under way, refused or broken off
        "" if status in (0, None) and not text else text or f"status {status}",
        (int(added[0][0]), int(added[0][1])) if len(added) else None,
        tuple(map(_voxel, d.get("source_coords") or ())),
        tuple(map(_voxel, d.get("sink_coords") or ())),
        tuple(map(int, d.get("source_ids") or ())),
        tuple(map(int, d.get("sink_ids") or ())),
        _number(d.get("undo_operation_id")),
        _number(d.get("redo_operation_id")),
    )


def read_lineage(body: bytes | str) -> Lineage:
    """A graph of objects, as networkx writes it.

    Raises:
        ValueError: That is none.
        LookupError: A part is missing.
    """
    got = json.loads(body)
    then: dict[int, list[int]] = {}
    for link in got["links"] if "links" in got else got["edges"]:
        then.setdefault(int(link["source"]), []).append(int(link["target"]))
    by = {int(n["id"]): int(n["operation_id"]) for n in got["nodes"] if n.get("operation_id")}
    return Lineage({root: tuple(sorted(after)) for root, after in then.items()}, by)


def moment(value: object) -> datetime:
    """A time from milliseconds since 1970 or ISO text; UTC where it has no zone.

    Raises:
        ValueError: Neither.
    """
    if isinstance(value, int | float):
        seconds, ms = divmod(round(value), 1000)
        return datetime.fromtimestamp(seconds, UTC).replace(microsecond=1000 * ms)
    at = datetime.fromisoformat(str(value))
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def _voxel(row: Iterable[float]) -> Voxel:
    x, y, z = (float(v) for v in row)
    return x, y, z


def _number(value: object) -> int | None:
    return None if value in (None, "") else int(str(value))
