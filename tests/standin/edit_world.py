"""An editable graph over HTTP with a label store beside it, for tests of edits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from crossing import ACROSS, LEFT, RIGHT, crossing_parts

from cb2_assist.core.edits import Anchor, Edit, EditKind
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import SegmentId
from cb2_assist.datasets.cave.source import CaveSource
from cb2_assist.datasets.registry import open_dataset
from cb2_assist.decisions.edits import EditFlow
from cb2_assist.labels.store import LabelStore, labels_url, open_store
from cb2_assist.standin.server import StandIn


@dataclass
class Person:
    """Someone with a token, a store and a flow of edits."""

    cave: StandIn
    source: CaveSource
    store: LabelStore
    user: str
    ahead_s: float = 0.0

    @classmethod
    def of(cls, cave: StandIn, folder: Path, token: str, user: str, monkeypatch) -> Person:
        """Opens the stand-in's dataset under an account."""
        monkeypatch.setenv("CAVE_TOKEN", token)
        file = folder / f"{user}.toml"
        file.write_text(cave.dataset_file())
        source = open_dataset(None, file)
        assert isinstance(source, CaveSource)
        store = open_store(labels_url(folder / f"{user}.sqlite"))
        return cls(cave, source, store, user)

    def close(self) -> None:
        self.source.close()
        self.store.close()

    @property
    def dataset(self) -> str:
        return self.source.info.name

    def flow(self) -> EditFlow:
        """As a program that has just started."""
        return EditFlow(
            self.store.edits,
            self.source.editor,
            user=self.user,
            dataset=self.dataset,
            clock=lambda: datetime.now(UTC) + timedelta(seconds=self.ahead_s),
        )

    def operations(self) -> list[int]:
        with self.cave.deployment.lock:
            return list(self.cave.deployment.editor.operations)

    def anchors(self, one: int, other: int) -> tuple[Anchor, Anchor]:
        """Two supervoxels of two pieces of the crossing that touch."""
        owners = crossing_parts()
        with self.cave.deployment.lock:
            graph = self.cave.deployment.graph
            # also those that hold nothing together
            pairs = graph.supervoxels[graph._edges.pairs].tolist()
        for a, b in pairs:
            if (owners[a][0], owners[b][0]) == (other, one):
                a, b = b, a
            if (owners[a][0], owners[b][0]) == (one, other):
                return tuple(Anchor(SegmentId(s), PointNm.of(owners[s][1])) for s in (a, b))
        raise AssertionError("they do not touch")

    def join(self, key: str = "join", **changes) -> Edit:
        """The two pieces of the first neurite."""
        return replace(self._edit(key, EditKind.JOIN, LEFT, RIGHT), **changes)

    def cut(self, key: str = "cut", **changes) -> Edit:
        """The false merge where two neurites cross."""
        return replace(self._edit(key, EditKind.CUT, RIGHT, ACROSS), **changes)

    def _edit(self, key: str, kind: EditKind, one: int, other: int) -> Edit:
        a, b = self.anchors(one, other)
        left, right = self.source.editor.roots([a.supervoxel, b.supervoxel])
        is_join = kind is EditKind.JOIN
        return Edit(
            key=key,
            kind=kind,
            user=self.user,
            dataset=self.dataset,
            version=self.source.info.version,
            site=key,
            decision_key=key,
            made_at="2026-01-01T00:00:00Z",
            point=a.point,
            segment=left,
            partner=right if is_join else None,
            supervoxels=(a.supervoxel, b.supervoxel if is_join else None),
            sides=((), ()) if is_join else ((a.point,), (b.point,)),
        )
