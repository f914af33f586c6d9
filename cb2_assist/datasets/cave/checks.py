"""Looks at a graph's servers one by one, for `doctor`: each check is one cheap question."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cb2_assist.core.errors import AssistError, DatasetError, LoginError
from cb2_assist.core.geometry import BoxVx, PointVoxel
from cb2_assist.core.records import BACKGROUND, SegmentId
from cb2_assist.datasets.cave.connection import Connection, Datastack
from cb2_assist.datasets.cave.login import find_token, missing
from cb2_assist.datasets.cave.opening import connect
from cb2_assist.datasets.cave.source import CaveSource
from cb2_assist.datasets.cave.states import state_of

_PROBE_VX = 16
_ACCOUNT = ("terms", "permission")
"""Refusals in which the server, the dataset and the token are in order."""


def parts_of_graph(stack: Datastack) -> Iterator[tuple[str, Callable[[], str]]]:
    """Name of each part, and what looks at it: returns a line, raises AssistError.

    A part that cannot be looked at because an earlier one failed is left out.
    """
    found = _Examination(stack)
    yield "login", found.login
    yield "info", found.info
    if found.refused_at != "info" or found.is_account:
        yield "graph", found.graph
    if found.is_account or found.connection is not None:
        yield "terms", found.terms
    if found.connection is None:
        return
    yield "em", found.em
    yield "segmentation", found.segmentation
    yield "meshes", found.meshes
    found.close()


class _Examination:
    """What was found out so far."""

    def __init__(self, stack: Datastack) -> None:
        self._stack = stack
        self.connection: Connection | None = None
        self._source: CaveSource | None = None
        self._root: SegmentId | None = None
        self.refused_at = ""
        self._error: AssistError | None = None

    @property
    def is_account(self) -> bool:
        """Whether only the account is not what it should be."""
        return isinstance(self._error, LoginError) and self._error.reason in _ACCOUNT

    def login(self) -> str:
        """Find a token."""
        token = find_token(self._stack.server)
        if token is None:
            raise missing(self._stack.server, self._stack.name, self._stack.mirror)
        return f"a token from {token.found}"

    def info(self) -> str:
        """Ask the info service, and the graph at once."""
        steps: list[str] = []
        try:
            self.connection = connect(self._stack, steps.append)
        except AssistError as e:
            self._error, self.refused_at = e, steps[-1] if steps else "info"
            if self.refused_at == "info" and not self.is_account:
                raise
        where = self._stack.graph or f"datastack {self._stack.datastack}"
        return f"{where} on {self._stack.server}"

    def graph(self) -> str:
        """What the graph's server said."""
        if self._error is not None and not self.is_account:
            raise self._error
        if self.connection is None:
            return "the server answers"
        shape = self.connection.shape
        return f"{self.connection.table}, {shape.n_layers} layers, on {self.connection.local}"

    def terms(self) -> str:
        """Whether the account may read it."""
        if self._error is not None:
            raise self._error
        return "accepted, and the account may view this dataset"

    def em(self) -> str:
        """Read some voxels in the middle."""
        em = self._opened().cutout(self._middle()).em
        return f"grey values {em.min()} to {em.max()} in the middle"

    def segmentation(self) -> str:
        """Read some voxels in the middle and ask whose they are."""
        source = self._opened()
        ids = {int(i) for i in source.cutout(self._middle()).seg.ravel()} - {BACKGROUND}
        self._root = SegmentId(min(ids)) if ids else None
        size = " x ".join(map(str, source.bounds.shape))
        nm = ", ".join(f"{r:g}" for r in source.resolution)
        return f"{size} voxels of {nm} nm, segments in the middle: {len(ids)}"

    def meshes(self) -> str:
        """Read what of a mesh lies in the middle."""
        if self._root is None:
            return "not tried: no segment in the middle"
        source, box = self._opened(), self._middle()
        middle = PointVoxel(*((a + b) // 2 for a, b in zip(box.lo, box.hi, strict=True)))
        mesh = source.mesh(self._root, middle.to_nm(source.resolution), 1000.0)
        if mesh is None:
            raise DatasetError(
                f"Segment {self._root} has no mesh in the middle of {self._stack.name}. After an "
                "edit that lasts minutes; else the 3-D panel stays empty, and the rest works."
            )
        return f"{len(mesh.faces)} triangles of {self._root} in the middle"

    def close(self) -> None:
        """Let go of connections."""
        if self._source is not None:
            self._source.close()

    def _opened(self) -> CaveSource:
        assert self.connection is not None
        if self._source is None:
            self._source = CaveSource(self.connection, state_of(self.connection))
        return self._source

    def _middle(self) -> BoxVx:
        bounds = self._opened().bounds
        corner = [(a + b - _PROBE_VX) // 2 for a, b in zip(bounds.lo, bounds.hi, strict=True)]
        return BoxVx(PointVoxel(*corner), PointVoxel(*(v + _PROBE_VX for v in corner))).clip(bounds)
