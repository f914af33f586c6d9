"""Edits over real HTTP by two people on the beads, for tests of what a harvest makes of them.

A bead is named by its place (x, y, z) in the lattice; at first each is an object of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from beads import PITCH
from cave_worlds import EDITOR

from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import SegmentId
from cb2_assist.datasets.cave.source import CaveSource
from cb2_assist.datasets.registry import open_dataset
from cb2_assist.standin.deployment import Account
from cb2_assist.standin.served import Served
from cb2_assist.standin.server import StandIn

BEN = Account("c4" * 16, user_id="17", name="Ben", affiliation="Lab B")
ADA = EDITOR
NM = 10.0
Bead = tuple[int, int, int]


def middle(bead: Bead) -> PointNm:
    """A point inside a bead."""
    return PointNm.of((PITCH * c + PITCH / 2) * NM + NM / 2 for c in bead)


@dataclass
class History:
    """A stand-in whose graph people edit."""

    cave: StandIn
    file: Path
    source: CaveSource

    def merge(self, a: Bead, b: Bead, by: Account = ADA) -> int:
        """Join two beads that touch; the operation."""
        return self._edit("merge", [self._end(a), self._end(b)], by)

    def split(self, a: Bead, b: Bead, by: Account = ADA) -> int:
        """Cut between two beads of one object; the operation."""
        return self._edit("split", {"sources": [self._end(a)], "sinks": [self._end(b)]}, by)

    def undo(self, operation: int, by: Account = ADA) -> int:
        """Take an edit back; the operation."""
        return self._edit("undo", {"operation_id": operation}, by)

    def redo(self, operation: int, by: Account = ADA) -> int:
        """Repeat an edit that was taken back; the operation."""
        return self._edit("redo", {"operation_id": operation}, by)

    def part(self, bead: Bead) -> SegmentId:
        """The supervoxel in the middle of a bead."""
        return self.source._voxels.segment_at(middle(bead))

    def root(self, bead: Bead) -> SegmentId:
        """What a bead belongs to now."""
        self.source.refresh()
        return self.source.segment_at(middle(bead))

    def _end(self, bead: Bead) -> list[Any]:
        return [str(self.part(bead)), *middle(bead)]

    def _edit(self, what: str, body: object, by: Account) -> int:
        table = self.cave.deployment.names.table
        answer = requests.post(
            f"{self.cave.url}/segmentation/api/v1/table/{table}/{what}",
            headers={"Authorization": f"Bearer {by.token}"},
            json=body,
            timeout=30,
        )
        assert answer.ok, answer.text
        return int(answer.json()["operation_id"])


@contextmanager
def history(served: Served, folder: Path) -> Iterator[History]:
    """A new graph of the beads, and a dataset file that opens it."""
    with StandIn(served, accounts=[ADA, BEN]) as cave:
        file = folder / "beads.toml"
        about = '[dataset]\nname = "beads"\nspecies = "fly"\nlicence = "CC0 1.0"\n'
        file.write_text(f'{about}citation = "nobody"\n{cave.dataset_file()}')
        source = open_dataset(None, file)
        assert isinstance(source, CaveSource)
        try:
            yield History(cave, file, source)
        finally:
            source.close()
