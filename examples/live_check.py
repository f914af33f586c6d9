"""One neuron of a public graph, step by step: does this machine see what others saw?

For the first person with internet and a CAVE token; no machine of ours reaches those servers. What
you will see: a line for each step with what matched, what differed from what is known and what
failed, and at the end what to send us. It takes some minutes, reads some tens of megabytes, edits
nothing, and prints no token.

    CAVE_TOKEN=… python examples/live_check.py
    python examples/live_check.py mine.toml --facts facts.json

What is known of minnie65 is in `MINNIE65` below, each with its source; `--facts` gives the same
for another dataset (any of the keys of `Facts`). Without facts a segment in the middle is taken.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from cb2_assist import PointNm, __version__, open_assistant, open_dataset
from cb2_assist.core.errors import AssistError, UsageError
from cb2_assist.core.geometry import BoxVx
from cb2_assist.core.records import SegmentId
from cb2_assist.datasets.source import GraphSource, MeshSource, Source
from cb2_assist.learning.harvest_edits import Rules, decisions_of

NEAR_NM = 1500.0


@dataclass(frozen=True)
class Facts:
    """What is known; None: not.

    Attributes:
        viewer_nm, segment_nm: Voxel sizes of the viewer and of the finest segmentation.
        shared_seg: How the segmentation's address ends.
        root: An object that existed at some time.
        point_nm: A point inside it.
        supervoxel: The part there.
        l2_nodes, l2_edges: Size of the object's graph of layer 2.
        place_nm: A point that the l2cache gives for one of its parts.
        em_mean: Range in which the mean grey value round the point lies.
    """

    viewer_nm: tuple[float, float, float] | None = None
    segment_nm: tuple[float, float, float] | None = None
    shared_seg: str | None = None
    root: int | None = None
    point_nm: tuple[float, float, float] | None = None
    supervoxel: int | None = None
    l2_nodes: int | None = None
    l2_edges: int | None = None
    place_nm: tuple[float, float, float] | None = None
    em_mean: tuple[float, float] | None = None


MINNIE65 = Facts(
    # CAVE's info service and cloud-volume issue 544: shown at 4, 4, 40, stored at 8, 8, 40
    viewer_nm=(4.0, 4.0, 40.0),
    segment_nm=(8.0, 8.0, 40.0),
    shared_seg="segmentation/table/minnie65_public",
    # a neuron in the tests of MeshParty (CAVEconnectome/MeshParty, commit 012cbda, Apache-2.0;
    # data of the MICrONS Consortium, Nature 2025): its level-2 graph, and synapse 157350497 on it
    root=864691135101289504,
    point_nm=(712680.0, 581392.0, 922600.0),
    supervoxel=89238907404734094,
    l2_nodes=25889,
    l2_edges=30352,
    place_nm=(571472.0, 514480.0, 866880.0),
    em_mean=(40.0, 215.0),
)
KNOWN = {"minnie65": MINNIE65}


class Check:
    """Runs steps and remembers how they went."""

    def __init__(self) -> None:
        self.bad = 0

    def step(self, name: str, look: Callable[[], Iterator[tuple[str, object, object]]]) -> bool:
        """Run one step; each of its findings is a name, a value and what is known of it."""
        begun = time.monotonic()
        try:
            found = list(look())
        except AssistError as e:
            self.bad += 1
            print(f"FAILED   {name}: {e}", flush=True)
            return False
        spent = f"{time.monotonic() - begun:.1f} s"
        for what, value, known in found:
            word = "seen    " if known is None else "matched " if value == known else "DIFFERS "
            self.bad += word.startswith("DIFFERS")
            more = f", known: {known}" if word.startswith("DIFFERS") else ""
            print(f"{word} {name}: {what}: {value}{more}", flush=True)
        print(f"         {name} took {spent}", flush=True)
        return True


class Walk:
    """The steps, on one open dataset."""

    def __init__(self, dataset: str | Path, facts: Facts) -> None:
        self.dataset, self.facts = dataset, facts
        self.source: Source
        self.root = SegmentId(facts.root or 0)
        self.point = None if facts.point_nm is None else PointNm.of(facts.point_nm)

    def info(self) -> Iterator[tuple[str, object, object]]:
        """Open it: info service, graph, volumes."""
        f = self.facts
        self.source = open_dataset(self.dataset)
        if not isinstance(self.source, GraphSource):
            self.source.close()
            raise UsageError(f"{self.source.info.name} is no graph; this walks a CAVE dataset.")
        yield "version", self.source.info.version, None
        yield "viewer voxel, nm", tuple(self.source.layers.resolution), f.viewer_nm
        yield "segmentation voxel, nm", tuple(self.source.resolution), f.segment_nm
        end = self.source.layers.shared_seg
        known = f.shared_seg and end[: -len(f.shared_seg)] + f.shared_seg
        yield "segmentation", end, known
        yield "size, voxels", self.source.bounds.shape, None

    def objects(self) -> Iterator[tuple[str, object, object]]:
        """Point to supervoxel to object, at the time at which the object was new."""
        f, source = self.facts, self.source
        if self.point is None:
            self.point = _somewhere(source)
        cut = source.history.parts(self.point, 100.0)
        voxel = self.point.to_voxel(source.resolution)
        here = tuple(a - b for a, b in zip(voxel, cut.box.lo, strict=True))
        part = int(cut.seg[here])
        yield "supervoxel at the point", part, f.supervoxel
        now = source.segment_at(self.point)
        yield "object now", int(now), None
        if not self.root:
            self.root = now
        edits = source.history.edits(self.root)
        yield "edits in its change log", len(edits), None
        born = [e.at for e in edits if self.root in e.after]
        if born:
            then = source.history.owners(np.array([part], np.uint64), born[-1])
            yield f"object at {born[-1]:%Y-%m-%d %H:%M:%S}", int(then[0]), int(self.root)

    def level2(self) -> Iterator[tuple[str, object, object]]:
        """The object's parts, how they hang together, and where they are."""
        f = self.facts
        arbour = self.source.arbour(self.root)
        edges = len({tuple(sorted(e)) for e in arbour.edges.tolist()})
        yield "parts of layer 2", len(arbour.points), f.l2_nodes
        yield "edges between them", edges, f.l2_edges
        yield "parts with a known radius", int(np.isfinite(arbour.radius).sum()), None
        if f.place_nm is not None:
            off = np.abs(arbour.points - np.array(f.place_nm)).max(1).min()
            yield "a part lies where it is known to", bool(off < 1.0), True

    def subgraph(self) -> Iterator[tuple[str, object, object]]:
        """Edges of the watershed to other objects near the point."""
        assert self.point is not None
        found = self.source.neighbours(self.source.segment_at(self.point), self.point, NEAR_NM)
        yield "the server tells neighbours", found is not None, True
        for n in (found or [])[:3]:
            yield f"neighbour {n.segment}", f"affinity {n.affinity:.3g}, area {n.area:.3g}", None

    def mesh(self) -> Iterator[tuple[str, object, object]]:
        """Fragments of the object's mesh near the point."""
        assert self.point is not None
        source = self.source
        if not isinstance(source, MeshSource):
            return
        mesh = source.mesh(source.segment_at(self.point), self.point, NEAR_NM)
        yield "there is a mesh", mesh is not None, True
        if mesh is not None:
            near = np.abs(mesh.vertices - np.array(tuple(self.point))).max(1).min()
            yield "triangles", len(mesh.faces), None
            yield "its surface comes near the point", bool(near < 5 * NEAR_NM), True

    def em(self) -> Iterator[tuple[str, object, object]]:
        """A cutout of EM and objects."""
        assert self.point is not None
        box = BoxVx.around(self.point, 500.0, self.source.resolution).clip(self.source.bounds)
        cut = self.source.cutout(box)
        mean, low_high = float(cut.em.mean()), self.facts.em_mean or (0.0, 255.0)
        yield "mean grey value", round(mean, 1), None
        yield "it is in the usual range", low_high[0] <= mean <= low_high[1], True
        yield "objects there", len(np.unique(cut.seg)), None

    def log(self) -> Iterator[tuple[str, object, object]]:
        """The latest edit of the object as `harvest` understands it."""
        history = self.source.history
        edits = history.edits(self.root)
        if not edits:
            yield "latest edit", "none: nobody has edited this object", None
            return
        told = history.operations([edits[-1].number])
        yield "details of the latest edit", edits[-1].number in told, True
        rules = Rules(datetime.now(UTC))
        found = decisions_of(edits[-1], history, history, rules)
        yield "decisions from it", [d["sample_type"] for d in found.decisions], None
        yield "left out", list(found.left_out), None

    def suggest(self) -> Iterator[tuple[str, object, object]]:
        """What the assistant offers at the point."""
        assert self.point is not None
        with open_assistant(self.dataset, device="cpu") as assistant:
            found = assistant.suggest(self.point)
        yield "suggestions", len(found.suggestions), None
        numbers = [s.confidence for s in found.suggestions]
        yield "each has a confidence", all(map(math.isfinite, numbers)), True
        yield "milliseconds", {k: round(v) for k, v in found.timing_ms.items()}, None


def _somewhere(source: Source) -> PointNm:
    """A point in some object near the middle."""
    box, voxel = source.bounds, source.resolution
    ends = zip(box.lo, box.hi, voxel, strict=True)
    x, y, z = ((lo + hi) / 2 * nm for lo, hi, nm in ends)
    for k in range(60):
        at = PointNm(x + k * voxel.x, y, z)
        if source.segment_at(at):
            return at
    raise UsageError("There is no segment near the middle: give a point with --facts.")


def read_facts(path: Path) -> Facts:
    """Facts from a JSON object; lists become tuples."""
    known = {f.name for f in fields(Facts)}
    got = json.loads(path.read_text(encoding="utf-8"))
    unknown = sorted(got.keys() - known)
    if unknown:
        sys.exit(f"{path}: no fact is called {', '.join(unknown)}; known: {', '.join(known)}")
    return Facts(**{k: tuple(v) if isinstance(v, list) else v for k, v in got.items()})


def main(arguments: list[str]) -> None:
    """Walk, and say at the end what to do."""
    options = argparse.ArgumentParser(description="Walk one neuron of a CAVE dataset.")
    options.add_argument("dataset", nargs="?", default="minnie65", help="a name or a dataset.toml")
    options.add_argument("--facts", type=Path, help="JSON with what is known")
    given = options.parse_args(arguments)
    facts = read_facts(given.facts) if given.facts else KNOWN.get(given.dataset, Facts())
    print(f"cb2-assist {__version__}, {given.dataset}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    check, walk = Check(), Walk(given.dataset, facts)
    if check.step("info", walk.info):
        try:
            if check.step("objects", walk.objects):
                for name in ("level2", "subgraph", "mesh", "em", "log", "suggest"):
                    check.step(name, getattr(walk, name))
        finally:
            walk.source.close()
    if not check.bad:
        print("Everything that could be compared matched. Please send us this text all the same.")
        return
    print(
        f"{check.bad} findings differ or failed. Please send us all of this text in an issue: it "
        "holds no token. If a step FAILED, do first what its line says, then run this again."
    )
    sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
