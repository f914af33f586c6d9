"""What every dataset offers: EM and segments on one voxel grid, and layers for the viewer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.edits import Anchors, EditDone, EditKind, SplitPreview
from cb2_assist.core.errors import BadVolumeError
from cb2_assist.core.geometry import BoxVx, PointNm, Resolution
from cb2_assist.core.records import SegmentId, Site


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """What a person should know about a dataset, and what every label carries."""

    name: str
    version: str
    """Segmentation version or timestamp; labels are only comparable within one."""
    species: str
    """mouse, fly, human, zebrafish or other."""
    licence: str
    citation: str


@dataclass(frozen=True, slots=True)
class EmStatistics:
    """Grey level of the whole EM, for normalisation; computed once, the same on every open."""

    mean: float
    std: float


@dataclass(frozen=True, slots=True)
class Cutout:
    """EM and segments of one box on the segmentation's grid.

    Attributes:
        box: Absolute voxels; never larger than the dataset's bounds.
        em: uint8, shape ``box.shape``, axes x, y, z, Fortran order.
        seg: uint64, same shape and order; 0 is background.
    """

    box: BoxVx
    resolution: Resolution
    em: NDArray[np.uint8]
    seg: NDArray[np.uint64]

    def crop(self, box: BoxVx) -> Cutout:
        """The part inside ``box`` (clipped to this cutout), as views on the same memory."""
        b = box.clip(self.box)
        s = tuple(slice(lo - o, hi - o) for lo, hi, o in zip(b.lo, b.hi, self.box.lo, strict=True))
        return Cutout(b, self.resolution, self.em[s], self.seg[s])


@dataclass(frozen=True, slots=True, eq=False)
class Mesh:
    """Triangles of one segment's surface.

    The arrays are kept in one layout and read-only, so that compiled code needs one version.

    Attributes:
        vertices: float32, (n, 3), nm in the dataset's frame, finite.
        faces: uint32, (m, 3), rows of `vertices`, counter-clockwise seen from outside.

    Raises:
        BadVolumeError: A vertex is not finite, or a face names none.
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.uint32]

    def __post_init__(self) -> None:
        vertices, faces = np.asarray(self.vertices), np.asarray(self.faces)
        if vertices.ndim != 2 or vertices.shape[1] != 3 or faces.ndim != 2 or faces.shape[1] != 3:
            raise BadVolumeError(
                f"A mesh needs vertices (n, 3) and faces (m, 3), got {vertices.shape} and "
                f"{faces.shape}."
            )
        if faces.size and not 0 <= int(faces.min()) <= int(faces.max()) < len(vertices):
            raise BadVolumeError(
                f"A mesh of {len(vertices)} vertices has a face with vertex {int(faces.max())}: it "
                "is damaged. Make the meshes again."
            )
        with np.errstate(over="ignore"):
            corners = np.ascontiguousarray(vertices, np.float32).view()
        triangles = np.ascontiguousarray(faces, np.uint32).view()
        for name, array in (("vertices", corners), ("faces", triangles)):
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        # a sum is finite only if every part is; it needs no array of flags
        if not np.isfinite(self.vertices.sum(dtype=np.float64)):
            raise BadVolumeError(
                "A mesh has vertices that are not finite numbers: it is damaged. Make the meshes "
                "again."
            )

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self.vertices.nbytes + self.faces.nbytes


@dataclass(frozen=True, slots=True)
class ViewerLayers:
    """What the viewer needs to show the dataset.

    Attributes:
        em: Path below ``/data/`` on our port, or a full Neuroglancer source URL.
        seg: The same for the segmentation.
        roots: ``{prefix: folder}`` that the server must serve below ``/data/prefix/``.
        resolution: Voxel size that the viewer shows, nm.
        shared_seg: Source of the segmentation for other people's viewers; empty: the same.
    """

    em: str
    seg: str
    resolution: Resolution
    roots: dict[str, Path] = field(default_factory=dict)
    shared_seg: str = ""


class Source(Protocol):
    """A dataset that is open. Methods may be called from several threads at once."""

    @property
    def info(self) -> DatasetInfo:
        """Name, version, licence."""

    @property
    def resolution(self) -> Resolution:
        """Voxel size of cutouts, nm."""

    @property
    def bounds(self) -> BoxVx:
        """Voxels that exist, absolute, at `resolution`."""

    @property
    def em_statistics(self) -> EmStatistics:
        """Grey level of the whole EM."""

    @property
    def layers(self) -> ViewerLayers:
        """What the viewer shows."""

    def segment_at(self, point: PointNm) -> SegmentId:
        """Segment that holds the point; 0 on background.

        Raises:
            OutOfBoundsError: The point lies outside the volume.
        """

    def locate(self, segment: SegmentId) -> PointNm | None:
        """A point inside a segment, wherever it is; None when it was not found in some seconds.

        Raises:
            DatasetError: The data cannot be read.
        """

    def cutout(self, box: BoxVx) -> Cutout:
        """EM and segments of ``box`` clipped to the bounds.

        Raises:
            DatasetError: The data cannot be read.
        """

    def close(self) -> None:
        """Let go of files and connections."""


@runtime_checkable
class MeshSource(Protocol):
    """What a `Source` has besides when it holds meshes of its segments."""

    @property
    def geometry(self) -> str:
        """What geometry views are made from: ``labels`` or ``meshes``; the dataset's choice."""

    def mesh(self, segment: SegmentId, point: PointNm, reach_nm: float) -> Mesh | None:
        """Surface of a segment: at least what comes within reach of the point along each axis.

        Returns:
            None when the segment has no mesh, or one too large to be read.

        Raises:
            DatasetError: There is one, but it cannot be read.
        """


@dataclass(frozen=True, slots=True, eq=False)
class Arbour:
    """A whole object as a graph of its parts, one a connected piece in a chunk.

    Attributes:
        points: float64, (n, 3), nm: a point inside each part, else the middle of its chunk.
        radius: float64, (n,), nm: of the part where it is thickest; NaN where not known.
        edges: int64, (m, 2), rows of `points`: which parts touch. Not a tree.
        chunk_nm: Edges of a chunk.
    """

    points: NDArray[np.float64]
    radius: NDArray[np.float64]
    edges: NDArray[np.int64]
    chunk_nm: tuple[float, float, float]


class GraphEdge(Protocol):
    """An edge of the automatic segmentation between two objects."""

    @property
    def segment(self) -> SegmentId:
        """The object at its other end."""

    @property
    def affinity(self) -> float:
        """How strongly the automatic segmentation holds the two together: 0 or more, no unit."""


class Route(Protocol):
    """Answers the viewer's questions where they may not go to a server themselves."""

    def answer(
        self, method: str, path: str, query: Mapping[str, str], body: bytes = b""
    ) -> RouteAnswer:
        """Status, type and body; blocks."""


class RouteAnswer(Protocol):
    """An answer over HTTP."""

    @property
    def status(self) -> int:
        """HTTP status."""

    @property
    def content_type(self) -> str:
        """Of the body."""

    @property
    def body(self) -> bytes:
        """What is sent."""


@runtime_checkable
class NearSource(Protocol):
    """What a `Source` has besides when the viewer draws large segments only near one place."""

    def look_at(self, point: PointNm) -> bool:
        """Draw them round that place from now on; cheap.

        Returns:
            Whether something that was drawn already ends too near to it, so that the viewer is to
            ask for surfaces again.
        """


@runtime_checkable
class PastSource(Protocol):
    """What a `Source` has besides when it can show its segments as they were at a time."""

    def read_at(self, at: datetime) -> None:
        """Read that state from now on."""


@runtime_checkable
class GraphSource(Protocol):
    """What a `Source` has besides when its segments are objects of a graph that edits change."""

    @property
    def timestamp(self) -> str:
        """Time of the state that is read now, ISO 8601 UTC."""

    @property
    def route(self) -> Route:
        """The graph for the viewer, below ``/graph/`` on our port."""

    def refresh(self) -> None:
        """Read the present state from now on, unless the dataset keeps one."""

    def current(self, segment: SegmentId, point: PointNm) -> tuple[SegmentId, str]:
        """The object that is meant by an id from outside, at a point.

        Returns:
            The object, and what to tell when another one has taken its place; else empty.

        Raises:
            SegmentNotFoundError: That id is no object of this graph (any more).
            DatasetError: The graph cannot be asked.
        """

    def latest(self, segment: SegmentId) -> tuple[SegmentId, str]:
        """The same where no point is known.

        Raises:
            SegmentNotFoundError: As for `current`.
            DatasetError: The graph cannot be asked.
        """

    def supervoxels(self, site: Site) -> tuple[SegmentId, SegmentId | None]:
        """The parts of a site's two sides nearest to it: they never change.

        Raises:
            DatasetError: The data cannot be read.
        """

    def arbour(self, segment: SegmentId) -> Arbour:
        """The whole object, as the graph knows it.

        Raises:
            SegmentNotFoundError: There is no such object.
            DatasetError: The graph cannot be asked.
        """

    def extent_vx(self, segment: SegmentId) -> int:
        """Voxels, as cutouts have them, of the chunks that an object goes through.

        Raises:
            DatasetError: The graph cannot be asked.
        """

    def neighbours(
        self, segment: SegmentId, point: PointNm, reach_nm: float
    ) -> Sequence[GraphEdge] | None:
        """Edges to other objects near a point, strongest first; None when that is not known."""


class GraphEditor(Protocol):
    """Edits of a graph over the wire. Every method blocks; safe to use from several threads."""

    def roots(self, supervoxels: Sequence[SegmentId]) -> tuple[SegmentId, ...]:
        """The objects that parts belong to at this moment.

        Raises:
            DatasetError: The graph cannot be asked.
        """

    def anchors(
        self,
        kind: EditKind,
        point: PointNm,
        segments: Sequence[SegmentId | None],
        supervoxels: tuple[SegmentId, SegmentId | None] | None,
        sides: tuple[Sequence[PointNm], Sequence[PointNm]],
    ) -> Anchors:
        """Where an edit takes hold of the graph.

        Raises:
            SegmentNotFoundError: There is nothing there that could be joined or parted.
            DatasetError: The data cannot be read.
        """

    def preview(self, anchors: Anchors, root: SegmentId, point: PointNm) -> SplitPreview:
        """What a cut would do.

        Raises:
            EditRefusedError: There is no such cut.
            DatasetError: The graph cannot be asked.
        """

    def send(self, kind: EditKind, anchors: Anchors, operation: int | None) -> EditDone:
        """Make an edit, with one request.

        Raises:
            EditRefusedError: It was not made.
            LoginError: It was not made: the token does not allow it.
            NoAnswerError: Whether it was made is not known.
        """

    def find(
        self,
        kind: EditKind,
        anchors: Anchors,
        operation: int | None,
        roots: Sequence[SegmentId],
        since: datetime,
    ) -> EditDone | None:
        """An edit in the server's records, by what it retired and what it was asked for.

        Raises:
            DatasetError: The records cannot be read.
        """

    def settle(self, new_roots: Iterable[SegmentId]) -> None:
        """Let later reads of the dataset see an edit."""


@runtime_checkable
class EditableSource(Protocol):
    """A `Source` whose segments may be edited."""

    @property
    def editor(self) -> GraphEditor | None:
        """Makes edits; None where the state is kept as it is."""
