"""A datastack as a `Source`: voxels of the watershed, mapped to the graph's objects at one time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.errors import DatasetError, SupersededError
from cb2_assist.core.geometry import BoxVx, PointNm, Resolution
from cb2_assist.core.records import BACKGROUND, SegmentId, Site
from cb2_assist.datasets.cave.connection import Connection, Datastack, is_root
from cb2_assist.datasets.cave.drawn import Drawn
from cb2_assist.datasets.cave.edits import CaveEditor
from cb2_assist.datasets.cave.graph import Graph, Neighbour
from cb2_assist.datasets.cave.history import History
from cb2_assist.datasets.cave.meshes import GraphMeshes
from cb2_assist.datasets.cave.objects import Objects
from cb2_assist.datasets.cave.places import Places
from cb2_assist.datasets.cave.route import GraphRoute
from cb2_assist.datasets.cave.times import iso
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
from cb2_assist.settings import SNAP_NM

_VOLUME_KEYS = ("@type", "type", "data_type", "num_channels", "scales")
_PARTS_TRIED = 12
"""Parts of a segment in which a voxel of it is looked for."""


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
        finest = Resolution(*map(float, connection.graph_info["scales"][0]["resolution"]))
        self._places = Places(self._graph.shape, finest, self.resolution, self.bounds)
        self._objects = Objects(
            self._graph, at, name=stack.name, pinned=stack.pinned, there=self._there
        )
        self._drawn = Drawn(self._graph, self._places)
        self._editor = CaveEditor(
            connection, self._graph, self._parts_in, self._voxels.resolution, self._objects.advance
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
        return self._graph.root_of(supervoxel, self._objects.time)

    def locate(self, segment: SegmentId) -> PointNm | None:
        """A point inside an object, found by its parts.

        Returns:
            None when it is not there.

        Raises:
            SegmentNotFoundError: Edits have replaced it; the message names by what.
            DatasetError: The data cannot be read.
        """
        if not self._objects.is_node(segment):
            return None
        parts = self._graph.parts(segment)
        # from the middle of the list: an object's first parts lie where it enters the volume
        order = sorted(range(len(parts)), key=lambda i: abs(2 * i - len(parts)))
        step = max(1, len(order) // _PARTS_TRIED)
        for i in order[::step][:_PARTS_TRIED]:
            point = point_in(self.cutout(self._places.box_of(int(parts[i]))), segment)
            if point is not None:
                return point
        if len(parts) and is_root(self._graph.shape, segment):
            raise self._objects.replaced(segment)
        return None

    def cutout(self, box: BoxVx) -> Cutout:
        """EM and objects of ``box`` clipped to the bounds; the caller owns the arrays.

        Raises:
            DatasetError: The data cannot be read, or the box is too large.
        """
        cut = self._voxels.cutout(box)
        return replace(cut, seg=self._mapped(cut.seg, self._objects.time))

    def mesh(self, segment: SegmentId, point: PointNm, reach_nm: float) -> Mesh | None:
        """Surface of an object near a point, from the fragments there.

        Returns:
            None when it has no mesh there yet, or more than may be read.

        Raises:
            DatasetError: There is one, but it cannot be read.
        """
        return self._meshes.near(segment, self._places.nm_box(point, reach_nm))

    def close(self) -> None:
        """Let go of memory and connections."""
        self._voxels.close()
        self._meshes.close()
        self._graph.close()

    # -- what a graph does besides

    @property
    def timestamp(self) -> str:
        """Time of the state that is read now, ISO 8601 UTC."""
        return iso(self._objects.time)

    @property
    def route(self) -> GraphRoute:
        """What the viewer asks the graph, through our port."""
        return GraphRoute(self._connection, self._objects.kept_time(), self._drawn.box_of)

    @property
    def editor(self) -> CaveEditor | None:
        """Makes edits; None for a state that is kept, where there are none."""
        return None if self._stack.pinned else self._editor

    def refresh(self) -> None:
        """Read the present state from now on; a pinned one stays."""
        self._objects.refresh()

    def read_at(self, at: datetime) -> None:
        """Read the state of a time from now on, whatever state the dataset keeps."""
        self._objects.read_at(at)

    @property
    def history(self) -> History:
        """The graph's edits."""
        return History(self._connection, self._graph, self._voxels)

    def current(self, segment: SegmentId, point: PointNm) -> tuple[SegmentId, str]:
        """The object that is meant by an id that came from outside; see `Objects.current`."""
        self._drawn.ask_at(point)
        return self._objects.current(segment, point)

    def latest(self, segment: SegmentId) -> tuple[SegmentId, str]:
        """As `current`, where no point is known."""
        return self._objects.latest(segment)

    def supervoxels(self, site: Site) -> tuple[SegmentId, SegmentId | None]:
        """The parts of the two sides nearest to a site: they stay what they are for ever.

        A side that is not near the site keeps the object's own id.
        """
        box = BoxVx.around(site.point, SNAP_NM, self.resolution).clip(self.bounds)
        parts = self._voxels.cutout(box).seg
        owners = self._mapped(parts, self._objects.time)
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
        if not self._objects.is_node(segment):
            raise self._objects.no_object(segment)
        found, edges = graph.whole(segment)
        parts = found.tolist()
        if not parts:
            raise self._objects.no_object(segment)
        row = {part: i for i, part in enumerate(parts)}
        pairs = [(row[a], row[b]) for a, b in edges if a in row and b in row]
        known = graph.places(parts)
        rows = [known.get(part) or (self._places.middle_of(part), math.nan) for part in parts]
        x, y, z = (c * v for c, v in zip(graph.shape.chunk, self._places.finest, strict=True))
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
        scale = zip(self._places.finest, self.resolution, strict=True)
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
        self._drawn.ask_at(point)
        box = self._places.nm_box(point, reach_nm)
        try:
            return self._graph.neighbours(segment, box, self._objects.time)
        except SupersededError:
            raise
        except DatasetError:
            return None

    def look_at(self, point: PointNm) -> bool:
        """See `Drawn.look_at`."""
        return self._drawn.look_at(point)

    def _there(self, point: PointNm) -> SegmentId:
        is_inside = self.bounds.contains(point.to_voxel(self.resolution))
        return self.segment_at(point) if is_inside else BACKGROUND

    def _parts_in(self, box: BoxVx) -> tuple[BoxVx, NDArray[np.uint64]]:
        box = box.clip(self.bounds)
        return box, self._voxels.cutout(box).seg

    def _mapped(self, parts: NDArray[np.uint64], at: datetime) -> NDArray[np.uint64]:
        import fastremap

        ids = fastremap.unique(parts)
        roots = self._graph.roots(ids, at)
        table = dict(zip(ids.tolist(), roots.tolist(), strict=True))
        if not parts.size:
            return parts
        mapped: NDArray[np.uint64] = fastremap.remap(parts, table, in_place=False)
        return np.asfortranarray(mapped)


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
