"""A datastack as a `Source`: voxels of the watershed, mapped to the graph's objects at one time.

The state that is read has a time. A pinned dataset keeps it, so that labels stay comparable. On an
editable graph it moves on when a segment turns out to be newer or to have been replaced, after an
edit of one's own, and on `refresh`; ids of objects never change their meaning, so suggestions made
earlier stay true of the objects that they name.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.errors import DatasetError, SegmentNotFoundError, SupersededError
from cb2_assist.core.geometry import BoxVx, PointNm, PointVoxel, Resolution
from cb2_assist.core.records import BACKGROUND, SegmentId, Site
from cb2_assist.datasets.cave.connection import Connection, Datastack, chunk_voxels, is_root
from cb2_assist.datasets.cave.edits import CaveEditor
from cb2_assist.datasets.cave.graph import Graph, Neighbour
from cb2_assist.datasets.cave.history import History
from cb2_assist.datasets.cave.meshes import GraphMeshes
from cb2_assist.datasets.cave.route import GraphRoute
from cb2_assist.datasets.chunk_cache import DEFAULT_BYTES
from cb2_assist.datasets.dataset_file import DatasetFile
from cb2_assist.datasets.local import LocalSource
from cb2_assist.datasets.locate import point_in
from cb2_assist.datasets.source import (
    Arbour,
    Cutout,
    DatasetInfo,
    EmStatistics,
    Mesh,
    ViewerLayers,
)
from cb2_assist.settings import MOST_DRAWN_PARTS, SNAP_NM

_VOLUME_KEYS = ("@type", "type", "data_type", "num_channels", "scales")
_PARTS_TRIED = 12
"""Parts of a segment in which a voxel of it is looked for."""
_HEIRS_NAMED = 8
_DRAWN_KEPT = 64
"""Large objects of which it is remembered where they are drawn."""


class CaveSource:
    """EM and objects of one datastack on the watershed's grid.

    Args:
        connection: An open one; closed with the source.
        at: The state to read first.
        cache_bytes: Decoded voxels that may be kept in memory.

    Raises:
        DatasetError: The volumes cannot be opened, or do not fit.
    """

    def __init__(
        self, connection: Connection, at: datetime, *, cache_bytes: int = DEFAULT_BYTES
    ) -> None:
        stack = connection.stack
        self._connection, self._stack = connection, stack
        self._voxels = LocalSource(
            DatasetFile(
                name=stack.name,
                em=connection.em,
                segmentation=connection.data_dir,
                species=stack.species,
                mip=stack.mip,
            ),
            cache_bytes=cache_bytes,
            # the graph's own info file counts; what is not about voxels would mislead cloud-volume
            seg_info={k: v for k, v in connection.graph_info.items() if k in _VOLUME_KEYS},
        )
        self._graph = Graph(connection)
        self._meshes = GraphMeshes(connection, self._graph)
        self._finest = Resolution(*map(float, connection.graph_info["scales"][0]["resolution"]))
        self._at = at
        self._asked_at: PointNm | None = None
        self._drawn_in: OrderedDict[SegmentId, BoxVx] = OrderedDict()
        self._lock = threading.Lock()
        self._editor = CaveEditor(
            connection, self._graph, self._parts_in, self._voxels.resolution, self._advance
        )
        self._info = DatasetInfo(
            name=stack.name,
            # a state that is kept is a version; on an editable graph the ids themselves say which
            # state of an object is meant, and each decision carries its time
            version=f"{connection.table}@{iso(at)}" if stack.pinned else connection.table,
            species=stack.species,
            licence=stack.licence,
            citation=stack.citation,
        )

    # -- what every source does

    @property
    def info(self) -> DatasetInfo:
        """Name, version, licence."""
        return self._info

    @property
    def resolution(self) -> Resolution:
        """Voxel size of cutouts."""
        return self._voxels.resolution

    @property
    def bounds(self) -> BoxVx:
        """Voxels that have both EM and segments."""
        return self._voxels.bounds

    @property
    def em_statistics(self) -> EmStatistics:
        """Grey level of up to 64 blocks spread over the volume."""
        return self._voxels.em_statistics

    @property
    def layers(self) -> ViewerLayers:
        """EM at its own address; the graph through our port, which adds the token."""
        em = self._voxels.layers
        return ViewerLayers(
            em.em,
            f"graphene:///{GraphRoute.PREFIX}/segmentation/table/{self._connection.table}",
            self._connection.viewer_voxel,
            {prefix: folder for prefix, folder in em.roots.items() if prefix == em.em},
            shared_seg=self._connection.segmentation.replace(
                "graphene://https://", "graphene://middleauth+https://"
            ),
        )

    @property
    def geometry(self) -> str:
        """What geometry views are made from."""
        return self._stack.geometry

    def segment_at(self, point: PointNm) -> SegmentId:
        """Object that holds the point; 0 on background.

        Raises:
            OutOfBoundsError: The point lies outside the volume.
            DatasetError: The data cannot be read.
        """
        supervoxel = self._voxels.segment_at(point)
        if supervoxel == BACKGROUND:
            return BACKGROUND
        return self._graph.root_of(supervoxel, self._time())

    def locate(self, segment: SegmentId) -> PointNm | None:
        """A point inside an object, found by its parts.

        Returns:
            None when it is not there.

        Raises:
            SegmentNotFoundError: Edits have replaced it; the message names by what.
            DatasetError: The data cannot be read.
        """
        if not self._is_node(segment):
            return None
        parts = self._graph.parts(segment)
        # from the middle of the list: an object's first parts lie where it enters the volume
        order = sorted(range(len(parts)), key=lambda i: abs(2 * i - len(parts)))
        step = max(1, len(order) // _PARTS_TRIED)
        for i in order[::step][:_PARTS_TRIED]:
            point = point_in(self.cutout(self._box_of(int(parts[i]))), segment)
            if point is not None:
                return point
        if len(parts) and is_root(self._graph.shape, segment):
            raise self._replaced(segment)
        return None

    def cutout(self, box: BoxVx) -> Cutout:
        """EM and objects of ``box`` clipped to the bounds; the caller owns the arrays.

        Raises:
            DatasetError: The data cannot be read, or the box is too large.
        """
        cut = self._voxels.cutout(box)
        return replace(cut, seg=self._mapped(cut.seg, self._time()))

    def mesh(self, segment: SegmentId, point: PointNm, reach_nm: float) -> Mesh | None:
        """Surface of an object near a point, from the fragments there.

        Returns:
            None when it has no mesh there yet, or more than may be read.

        Raises:
            DatasetError: There is one, but it cannot be read.
        """
        return self._meshes.near(segment, self._nm_box(point, reach_nm))

    def close(self) -> None:
        """Let go of memory and connections."""
        self._voxels.close()
        self._meshes.close()
        self._graph.close()

    # -- what a graph does besides

    @property
    def timestamp(self) -> str:
        """Time of the state that is read now, ISO 8601 UTC."""
        return iso(self._time())

    @property
    def route(self) -> GraphRoute:
        """What the viewer asks the graph, through our port."""
        return GraphRoute(self._connection, self._kept_time(), self._drawn)

    @property
    def editor(self) -> CaveEditor | None:
        """Makes edits; None for a state that is kept, where there are none."""
        return None if self._stack.pinned else self._editor

    def refresh(self) -> None:
        """Read the present state from now on; a pinned one stays."""
        if self._stack.pinned:
            return
        with self._lock:
            self._at = now()

    def read_at(self, at: datetime) -> None:
        """Read the state of a time from now on, whatever state the dataset keeps."""
        with self._lock:
            self._at = at

    @property
    def history(self) -> History:
        """The graph's edits."""
        return History(self._connection, self._graph, self._voxels)

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
        self._asked_at = point
        root, is_current = self._found(segment)
        if is_current:
            return root, ""
        heirs = self._graph.successors(root, self._kept_time())
        here = self.segment_at(point) if self._is_inside(point) else BACKGROUND
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
        return self._only_heir(root, self._graph.successors(root, self._kept_time()))

    def _found(self, segment: SegmentId) -> tuple[SegmentId, bool]:
        """An object, or the one that a part belongs to, and whether it is current."""
        if not self._is_node(segment):
            raise self._no_object(segment)
        if is_root(self._graph.shape, segment):
            return segment, self._is_current(segment)
        root, is_current = self._owner(segment), False
        if root != BACKGROUND and not (is_current := self._is_current(root)):
            # the state has moved on, and the part belongs to something in it
            root = self._owner(segment)
            is_current = root != BACKGROUND and self._is_current(root)
        if root == BACKGROUND:
            raise self._no_object(segment)
        return root, is_current

    def _owner(self, part: SegmentId) -> SegmentId:
        return self._graph.root_of(part, self._time())

    def _is_current(self, root: SegmentId) -> bool:
        """Whether an object exists in the state that is read, which moves on if it may."""
        at = self._kept_time()
        born, latest = self._graph.life_of(root, at)
        if born is None:
            raise self._no_object(root)
        if at is not None:
            if born > at:
                raise SegmentNotFoundError(
                    f"Segment {root} was made by an edit of {iso(born)}, and {self._info.name} "
                    f"keeps the state of {iso(at)}. Point at what is there in that state and "
                    "press p."
                )
        elif born > self._time() or not latest:
            self.refresh()
        return latest

    def _kept_time(self) -> datetime | None:
        """The state that is kept for good; None where it moves on."""
        return self._time() if self._stack.pinned else None

    def _only_heir(self, root: SegmentId, heirs: list[SegmentId]) -> tuple[SegmentId, str]:
        if len(heirs) == 1:
            return heirs[0], f"Edits have replaced {root}; this is about {heirs[0]}."
        raise self._replaced(root, heirs)

    def supervoxels(self, site: Site) -> tuple[SegmentId, SegmentId | None]:
        """The parts of the two sides nearest to a site: they stay what they are for ever.

        A side that is not near the site keeps the object's own id.
        """
        box = BoxVx.around(site.point, SNAP_NM, self.resolution).clip(self.bounds)
        parts = self._voxels.cutout(box).seg
        owners = self._mapped(parts, self._time())
        nearest = _nearest(parts, owners, box, site.point, self.resolution)
        own = nearest(site.segment)
        return own, None if site.partner is None else nearest(site.partner)

    def arbour(self, segment: SegmentId) -> Arbour:
        """The whole object, as the graph knows it: three questions, whatever its size.

        Raises:
            SegmentNotFoundError: There is no such object.
            DatasetError: The graph cannot be asked.
        """
        graph = self._graph
        if not self._is_node(segment):
            raise self._no_object(segment)
        found, edges = graph.whole(segment)
        parts = found.tolist()
        if not parts:
            raise self._no_object(segment)
        row = {part: i for i, part in enumerate(parts)}
        pairs = [(row[a], row[b]) for a, b in edges if a in row and b in row]
        known = graph.places(parts)
        rows = [known.get(part) or (self._middle_of(part), math.nan) for part in parts]
        x, y, z = (c * v for c, v in zip(graph.shape.chunk, self._finest, strict=True))
        return Arbour(
            np.array([tuple(point) for point, _ in rows], np.float64).reshape(-1, 3),
            np.array([radius for _, radius in rows], np.float64),
            np.array(pairs, np.int64).reshape(-1, 2),
            (x, y, z),
        )

    def extent_vx(self, segment: SegmentId) -> int:
        """Voxels, as cutouts have them, of the chunks that an object goes through.

        Raises:
            DatasetError: The graph cannot be asked.
        """
        shape = self._graph.shape
        chunks = {shape.chunk_of(int(part)) for part in self._graph.parts(segment)}
        scale = zip(self._finest, self.resolution, strict=True)
        return round(len(chunks) * math.prod(shape.chunk) * math.prod(f / r for f, r in scale))

    def neighbours(
        self, segment: SegmentId, point: PointNm, reach_nm: float
    ) -> list[Neighbour] | None:
        """Edges of the watershed from an object to others near a point, strongest first.

        Returns:
            None when the server cannot tell; contacts between voxels remain.

        Raises:
            SupersededError: Nobody waits any more.
        """
        self._asked_at = point
        box = self._nm_box(point, reach_nm)
        try:
            return self._graph.neighbours(segment, box, self._time())
        except SupersededError:
            raise
        except DatasetError:
            return None

    def look_at(self, point: PointNm) -> bool:
        """See `NearSource`: within the middle half of what is drawn nothing needs to change."""
        self._asked_at = point
        at = point.to_voxel(self._finest)
        with self._lock:
            drawn = self._drawn_in.items()
            outside = [s for s, box in drawn if not _middle_half(box).contains(at)]
            for segment in outside:  # what is still shown is asked for again
                del self._drawn_in[segment]
        return bool(outside)

    def _drawn(self, segment: SegmentId) -> BoxVx | None:
        """Where the viewer draws the surface of a large object; None is everywhere.

        Around the place that was looked at or asked about last, as much as `MOST_DRAWN_PARTS`
        allow.
        """
        parts = self._graph.parts(segment)
        if len(parts) <= MOST_DRAWN_PARTS:
            return None
        at = self._asked_at or self._middle_of(int(parts[len(parts) // 2]))
        shape = self._graph.shape
        box = wider = self._nm_box(at, 1.0)
        while int(shape.touch(parts, wider).sum()) <= MOST_DRAWN_PARTS:
            box = wider
            sides = zip(wider.lo, wider.hi, shape.chunk, strict=True)
            lo, hi = zip(*((a - c, b + c) for a, b, c in sides), strict=True)
            wider = BoxVx(PointVoxel(*lo), PointVoxel(*hi))
        with self._lock:
            self._drawn_in[segment] = box
            self._drawn_in.move_to_end(segment)
            while len(self._drawn_in) > _DRAWN_KEPT:
                self._drawn_in.popitem(last=False)
        return box.clip(_scaled(self.bounds, self.resolution, self._finest))

    def _time(self) -> datetime:
        with self._lock:
            return self._at

    def _advance(self, at: datetime) -> None:
        """Read a state that has all edits up to a time of the server's clock."""
        if not self._stack.pinned:
            with self._lock:
                # edits are recorded in whole milliseconds, and times go over the wire as floats
                self._at = max(self._at, now(), at + timedelta(milliseconds=1))

    def _parts_in(self, box: BoxVx) -> tuple[BoxVx, NDArray[np.uint64]]:
        box = box.clip(self.bounds)
        return box, self._voxels.cutout(box).seg

    def _is_node(self, segment: SegmentId) -> bool:
        layer = self._graph.shape.layer(segment)
        return 1 <= layer <= self._graph.shape.n_layers

    def _is_inside(self, point: PointNm) -> bool:
        return self.bounds.contains(point.to_voxel(self.resolution))

    def _no_object(self, segment: SegmentId) -> SegmentNotFoundError:
        return SegmentNotFoundError(
            f"{segment} is the id of no object of {self._info.name}. Point at a segment and press "
            "p, or give an id from this dataset."
        )

    def _replaced(
        self, segment: SegmentId, heirs: list[SegmentId] | None = None
    ) -> SegmentNotFoundError:
        if heirs is None:
            heirs = self._graph.successors(segment, self._kept_time())
        text = f"Segment {segment} is no object of {self._info.name} any more"
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

    def _mapped(self, parts: NDArray[np.uint64], at: datetime) -> NDArray[np.uint64]:
        import fastremap

        ids = fastremap.unique(parts)
        roots = self._graph.roots(ids, at)
        table = dict(zip(ids.tolist(), roots.tolist(), strict=True))
        if not parts.size:
            return parts
        mapped: NDArray[np.uint64] = fastremap.remap(parts, table, in_place=False)
        return np.asfortranarray(mapped)

    def _box_of(self, part: int) -> BoxVx:
        lo, hi = chunk_voxels(self._graph.shape, part)
        return _scaled(BoxVx(PointVoxel(*lo), PointVoxel(*hi)), self._finest, self.resolution)

    def _middle_of(self, part: int) -> PointNm:
        lo, hi = chunk_voxels(self._graph.shape, part)
        return PointNm.of((a + b) / 2 * v for a, b, v in zip(lo, hi, self._finest, strict=True))

    def _nm_box(self, point: PointNm, reach_nm: float) -> BoxVx:
        """In voxels of the finest scale, as the graph counts."""
        box = BoxVx.around(point, reach_nm, self._finest)
        whole = _scaled(self.bounds, self.resolution, self._finest)
        return box.clip(whole)


def open_cave(
    stack: Datastack,
    connect: Callable[[Datastack], Connection],
    choose_time: Callable[[Connection], datetime],
) -> CaveSource:
    """Open a datastack.

    Args:
        stack: Which one.
        connect: Opens the connection.
        choose_time: Says which state to read.

    Raises:
        DatasetError: It cannot be opened.
    """
    connection = connect(stack)
    try:
        return CaveSource(connection, choose_time(connection))
    except BaseException:
        connection.close()
        raise


def now() -> datetime:
    """This moment in whole milliseconds, as edits are recorded."""
    at = datetime.now(UTC)
    return at - timedelta(microseconds=at.microsecond % 1000)


def iso(at: datetime) -> str:
    """A time as labels keep it."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _scaled(box: BoxVx, have: Resolution, want: Resolution) -> BoxVx:
    """The voxels of another scale that a box touches."""
    lo = [int(np.floor(a * h / w + 1e-6)) for a, h, w in zip(box.lo, have, want, strict=True)]
    hi = [int(np.ceil(b * h / w - 1e-6)) for b, h, w in zip(box.hi, have, want, strict=True)]
    return BoxVx(PointVoxel(*lo), PointVoxel(*hi))


def _middle_half(box: BoxVx) -> BoxVx:
    """Half of a box along each axis, about its middle; at least one voxel."""
    sides = list(zip(box.lo, box.hi, strict=True))
    lo = PointVoxel(*(a + (b - a) // 4 for a, b in sides))
    hi = PointVoxel(*(max(b - (b - a) // 4, a + (b - a) // 4 + 1) for a, b in sides))
    return BoxVx(lo, hi)


def _nearest(
    parts: NDArray[np.uint64],
    owners: NDArray[np.uint64],
    box: BoxVx,
    point: PointNm,
    resolution: Resolution,
) -> Callable[[SegmentId], SegmentId]:
    size, at = np.array(tuple(resolution)), np.array(tuple(point))

    def of(segment: SegmentId) -> SegmentId:
        where = np.argwhere(owners == np.uint64(segment))
        if not len(where):
            return segment
        centres = (where + np.array(tuple(box.lo)) + 0.5) * size
        best = where[int(((centres - at) ** 2).sum(1).argmin())]
        return SegmentId(int(parts[tuple(best)]))

    return of
