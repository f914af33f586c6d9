"""Joins and cuts sent through failing connections: is any lost, is any made twice?

    python examples/faulted_edits.py [N] [SEED]

A stand-in CAVE server serves a small made-up volume. N edits (500) are made in it over HTTP, each
while something goes wrong: a gateway hides the answer (502, 503, 504) of an edit that was made or
of one that was not, the answer breaks off, it comes after the deadline, the program is killed just
before or just after the request, or the look-up afterwards fails too. In the end the server's own
log is held against what the program believes. Prints how often each fault was met, then

    500 edits (237 joins, 263 cuts), 500 under a fault: lost 0, repeated 0
"""

from __future__ import annotations

import argparse
import os
import random
import re
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
from scipy.spatial import KDTree

from cb2_assist.core.edits import Anchor, Anchors, Edit, EditDone, EditKind, EditRecord, EditState
from cb2_assist.core.errors import AssistError
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import SegmentId
from cb2_assist.datasets.cave.edits import CaveEditor
from cb2_assist.datasets.cave.source import CaveSource
from cb2_assist.datasets.importer import grid_of
from cb2_assist.datasets.local import open_dataset_file
from cb2_assist.datasets.registry import open_dataset
from cb2_assist.datasets.writer import Description, Volume, write_dataset
from cb2_assist.decisions.edits import EditFlow
from cb2_assist.labels.edit_store import EditStore
from cb2_assist.labels.store import labels_url, open_store
from cb2_assist.standin.faults import Fault
from cb2_assist.standin.server import StandIn

DEADLINE_S, LATE_S = 0.4, 0.8
"""How long an answer is waited for, and when one comes that is late."""
EDITS = "/(merge|split)$"
LOOK_UPS = "/(lineage_graph_multiple|operation_details|roots_binary)"

FAULTS: dict[str, tuple[Fault, ...]] = {
    **{f"made, answered {s}": (Fault("lost", EDITS, 1, status=s),) for s in (502, 503, 504)},
    **{f"not made, {s}": (Fault("refused", EDITS, 1, status=s),) for s in (500, 502, 503, 504)},
    "made, answer broken off": (Fault("truncated", EDITS, 1, share=0.5),),
    "made after the deadline": (Fault("latency", EDITS, 1, seconds=LATE_S),),
    "made, look-up fails too": (
        Fault("lost", EDITS, 1, status=504),
        Fault("refused", LOOK_UPS, 4, skip=1, status=500),
    ),
    "killed before it was sent": (),
    "killed before the answer": (),
}


class KilledError(BaseException):
    """The program ends here."""


@dataclass
class Deadly:
    """An editor whose program is killed around the next request, if that was asked for."""

    editor: CaveEditor
    kill: str = ""

    def send(self, kind: EditKind, anchors: Anchors, operation: int | None) -> EditDone:
        """As the editor does."""
        kill, self.kill = self.kill, ""
        if kill == "killed before it was sent":
            raise KilledError
        done = self.editor.send(kind, anchors, operation)
        if kill:
            raise KilledError
        return done

    def __getattr__(self, name: str) -> object:
        return getattr(self.editor, name)


@dataclass
class Result:
    """What was tried and what the server's log says of it."""

    faults: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    repeated: int = 0

    @property
    def words(self) -> str:
        """The last line."""
        n, joins, cuts = self.kinds.total(), self.kinds["join"], self.kinds["cut"]
        return (
            f"{n} edits ({joins} joins, {cuts} cuts), {self.faults.total()} under a fault: "
            f"lost {self.lost}, repeated {self.repeated}"
        )


def run(
    cave: StandIn,
    source: CaveSource,
    store: EditStore,
    n: int,
    seed: int = 0,
    names: Sequence[str] = tuple(FAULTS),
    tell: Callable[[str], None] = lambda _text: None,
) -> Result:
    """Make edits under faults and hold the stand-in's log against the store.

    Args:
        cave: Where they are made.
        source: It, opened as a dataset.
        store: Where they are kept.
        n: How many.
        seed: Of the choice of places and faults.
        names: Faults to choose from.
        tell: Told how far it is.
    """
    chosen, ahead = random.Random(seed), [0.0]  # noqa: S311 - no secret
    assert source.editor is not None
    source.editor.deadline_s = DEADLINE_S
    editor = Deadly(source.editor)

    def start() -> EditFlow:
        """A program that starts, with nothing but what is stored."""
        return EditFlow(
            store,
            editor,  # type: ignore[arg-type]  # it has the rest from the editor inside
            user="ada",
            dataset=source.info.name,
            clock=lambda: datetime.now(UTC) + timedelta(seconds=ahead[0]),
        )

    flow, places, result, made = start(), _places(source), Result(), []
    graph = cave.deployment.graph
    with cave.deployment.lock:
        edges = graph.edges_within(np.arange(len(graph.supervoxels)))
        pairs = graph.supervoxels[graph.pairs(edges)].tolist()
    while len(made) < n:
        a, b = chosen.choice(pairs)
        edit = _edit(source, f"edit-{result.kinds.total()}-{chosen.random()}", a, b, places)
        record = store.add(edit)
        if edit.kind is EditKind.CUT:
            record = _patiently(flow, record)  # the preview
            if record.step.preview is None:
                flow.withdraw(record, "There is no such cut.")
                continue
        name = names[len(made) % len(names)]
        for fault in FAULTS[name]:
            cave.faults.add(fault)
        editor.kill = name if name.startswith("killed") else ""
        try:
            record = flow.apply(record)
        except KilledError:
            flow = start()
            flow.recover()
        tries = 0
        while record.is_open and tries < 200:
            tries += 1
            if name == "made after the deadline":
                # the request is still under way: nothing may be concluded from the log yet
                _wait_for(cave, EDITS)
            elif record.state is EditState.UNKNOWN:
                ahead[0] += 61.0
            record = _patiently(flow, store.get(edit.key) or record)
        cave.faults.clear()
        cave.faults.forget()
        made.append(record)
        result.faults[name] += 1
        result.kinds[edit.kind.value] += 1
        if len(made) % 50 == 0:
            tell(f"{len(made)} of {n}")
    return _held_against(cave, made, result)


def _edit(source: CaveSource, key: str, a: int, b: int, places: dict[int, PointNm]) -> Edit:
    assert source.editor is not None
    left, right = source.editor.roots([SegmentId(a), SegmentId(b)])
    is_join = left != right
    return Edit(
        key=key,
        kind=EditKind.JOIN if is_join else EditKind.CUT,
        user="ada",
        dataset=source.info.name,
        version=source.info.version,
        site=key,
        decision_key=key,
        made_at=datetime.now(UTC).isoformat(),
        point=places[a],
        segment=left,
        partner=right if is_join else None,
        anchors=((Anchor(SegmentId(a), places[a]),), (Anchor(SegmentId(b), places[b]),)),
    )


def _places(source: CaveSource) -> dict[int, PointNm]:
    """A voxel of every supervoxel."""
    parts = source._voxels.cutout(source.bounds).seg  # noqa: SLF001 - supervoxels, not objects
    ids, first = np.unique(parts.ravel("F"), return_index=True)
    index = np.stack(np.unravel_index(first, parts.shape, order="F"), axis=1)
    lo, size = np.array(tuple(source.bounds.lo)), np.array(tuple(source.resolution))
    points = (index + lo + 0.5) * size
    return {int(i): PointNm.of(p) for i, p in zip(ids, points, strict=True)}


def _patiently(flow: EditFlow, record: EditRecord) -> EditRecord:
    try:
        return flow.apply(record)
    except AssistError:
        return record


def _wait_for(cave: StandIn, path: str) -> None:
    """Until the server has finished a request."""
    for _ in range(2000):
        if any(re.search(path, seen.path) for seen in cave.faults.requests()):
            return
        threading.Event().wait(0.01)
    raise AssertionError("the request never ended")


def _held_against(cave: StandIn, made: list[EditRecord], result: Result) -> Result:
    log = dict(cave.deployment.editor.operations)
    for record in made:
        found = log.pop(record.step.operation or 0, None)
        assert record.anchors is not None
        wanted = {a.supervoxel for side in record.anchors for a in side}
        named = {p.supervoxel for p in (*found.sources, *found.sinks)} if found else set()
        is_it = found is not None and found.is_merge == (record.edit.kind is EditKind.JOIN)
        result.lost += not (record.state is EditState.APPLIED and is_it and wanted == named)
    # what nobody believes to have made
    result.repeated = len(log)
    return result


def _tissue(folder: Path) -> Path:
    """60 cells of 16 nm voxels with dark membranes; dataset.toml of it."""
    shape, rng = (96, 96, 64), np.random.default_rng(0)
    seeds = rng.uniform(0, shape, (60, 3))
    voxels = np.stack(np.indices(shape), axis=-1)
    away, cell = KDTree(seeds).query(voxels, k=2)
    em = np.clip(40 + 20 * (away[..., 1] - away[..., 0]), 40, 200) + rng.normal(0, 8, shape)
    volume = Volume(
        grid_of((16.0, 16.0, 16.0), (0.0, 0.0, 0.0)),
        np.asfortranarray(em.clip(1, 255).astype(np.uint8)),
        np.asfortranarray(cell[..., 0].astype(np.uint64) + 1),
    )
    about = Description("cells", "other", "CC0 1.0", "made up")
    return write_dataset(folder, volume, about, mesh_min_voxels=10**9)


def main(words: Sequence[str]) -> int:
    """Run it on a made-up volume."""
    ask = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    ask.add_argument("n", type=int, nargs="?", default=500, help="edits (500)")
    ask.add_argument("seed", type=int, nargs="?", default=0, help="of what goes wrong (0)")
    given = ask.parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        os.environ["XDG_DATA_HOME"] = str(home / "data")
        local = open_dataset_file(_tissue(home / "cells"))
        try:
            with StandIn.of(local) as cave:
                os.environ["CAVE_TOKEN"] = cave.token
                file = home / "cave.toml"
                file.write_text(cave.dataset_file())
                source = open_dataset(None, file)
                assert isinstance(source, CaveSource)
                try:
                    with open_store(labels_url(home / "labels.sqlite")) as store:
                        tell = partial(print, flush=True)
                        made = given.n, given.seed
                        result = run(cave, source, store.edits, *made, tell=tell)
                finally:
                    source.close()
        finally:
            local.close()
    for name, count in result.faults.items():
        print(f"{count:5d}  {name}")
    print(result.words)
    return int(bool(result.lost or result.repeated))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
