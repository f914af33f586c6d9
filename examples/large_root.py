"""What `p` costs on a neuron of 20,000 parts behind a CAVE server 40 ms away.

A generated arbour (a trunk with 324 branches, 10 mm in all) is served by a stand-in on this
machine, in a process of its own, that delays every answer. A list is asked for in the middle of a
branch, again there, and at a tip, then at places all along the object.

What you will see: a table of milliseconds, of processor time without the server's, of requests by
route, and of the most memory that this process took; `--json` prints the same as one document. The
volume is made the first time, in a minute, and kept in the cache folder, where it takes 75 MB.

    python examples/large_root.py [--delay-ms 40] [--places 20] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import requests
from numpy.typing import NDArray

from cb2_assist.app import open_assistant, warm_up
from cb2_assist.assistant import Assistant
from cb2_assist.core.errors import AssistError
from cb2_assist.core.geometry import BoxVx, PointNm, PointVoxel, Resolution
from cb2_assist.datasets.precomputed import Grid, write_em, write_segmentation
from cb2_assist.datasets.voxels import Layout
from cb2_assist.resources import cache_folder
from cb2_assist.standin.deployment import Account
from cb2_assist.standin.faults import Fault
from cb2_assist.standin.graph import Watershed
from cb2_assist.standin.node_ids import LEVEL2, SUPERVOXEL, NodeIds
from cb2_assist.standin.served import Served
from cb2_assist.standin.server import StandIn, new_token
from cb2_assist.standin.volume import SupervoxelVolume

VOXEL_NM = 64.0
CHUNK_VX = 8
ROWS, PITCH = 18, 3
"""Branches along y and z, and chunks from one to the next."""
TRUNK, TIP = 1, 61
"""Chunks along x where branches begin and where they have ended."""
SHAPE_VX = (64 * CHUNK_VX, ROWS * PITCH * CHUNK_VX, ROWS * PITCH * CHUNK_VX)
RADIUS_VX = 2.3
BRANCH = ROWS // 2
"""The branch along y and z that is asked about."""
DENSE = (44, 64), (BRANCH - 1, BRANCH + 2)
"""Where other segments lie: chunks along x, branches along y and z."""
SEED = 5
PATIENCE_S = 600.0

Ids = NDArray[np.uint64]


def at_chunk(x: float) -> PointNm:
    """The axis of the branch that is asked about."""
    y = (BRANCH * PITCH + 1.5) * CHUNK_VX
    return PointNm.of(v * VOXEL_NM for v in (x * CHUNK_VX, y, y))


# -- the volume


def _tube(x: NDArray[Any], y: NDArray[Any], z: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether voxels are of the arbour."""
    edge, half = PITCH * CHUNK_VX, CHUNK_VX / 2
    # from the axes that run in the middle of every third chunk
    off = [(v - CHUNK_VX) % edge - half + 0.5 for v in (y, z)]
    branch = np.hypot(*off) < RADIUS_VX
    branch = branch & (x >= TRUNK * CHUNK_VX) & (x < TIP * CHUNK_VX - half)
    from_trunk = x - (TRUNK + 0.5) * CHUNK_VX + 0.5
    within = (y < (ROWS - 1) * edge + 2 * CHUNK_VX) & (y >= CHUNK_VX)
    row = (np.hypot(from_trunk, off[1]) < RADIUS_VX) & within
    within = (z < (ROWS - 1) * edge + 2 * CHUNK_VX) & (z >= CHUNK_VX)
    first = np.hypot(from_trunk, y - 1.5 * CHUNK_VX + 0.5)
    return branch | row | ((first < RADIUS_VX) & within)


def _number(x: NDArray[Any], y: NDArray[Any], z: NDArray[Any]) -> NDArray[np.uint64]:
    """Number of a voxel's supervoxel within its chunk: 1 is the arbour, 0 background."""
    (x0, x1), (b0, b1) = DENSE
    lo, hi = b0 * PITCH * CHUNK_VX, b1 * PITCH * CHUNK_VX
    near = (x >= x0 * CHUNK_VX) & (x < x1 * CHUNK_VX)
    for v in (y, z):
        near = near & (v >= lo) & (v < hi)
    # four fibres run through each chunk
    fibre = 2 + (y % CHUNK_VX >= CHUNK_VX // 2) + 2 * (z % CHUNK_VX >= CHUNK_VX // 2)
    return np.where(_tube(x, y, z), 1, np.where(near, fibre, 0)).astype(np.uint64)


class _Supervoxels:
    """The segmentation, made where it is read."""

    layout, shape = Layout(), SHAPE_VX

    def __init__(self, ids: NodeIds) -> None:
        self._ids = ids

    def read(self, box: BoxVx) -> Ids:
        """Ids of a box."""
        ranges = [np.arange(a, b) for a, b in zip(box.lo, box.hi, strict=True)]
        x, y, z = np.meshgrid(*ranges, indexing="ij", sparse=True)
        number = _number(x, y, z)
        if not number.any():
            return number
        chunks = [np.unique(r // CHUNK_VX) for r in ranges]
        grid = np.stack(np.meshgrid(*chunks, indexing="ij"), axis=-1)
        base = self._ids.bases(SUPERVOXEL, grid.reshape(-1, 3)).reshape(grid.shape[:3])
        of = [r // CHUNK_VX - c[0] for r, c in zip(ranges, chunks, strict=True)]
        return np.asfortranarray(np.where(number > 0, base[np.ix_(*of)] | number, 0))


class _Grey:
    """EM: cytoplasm with dark borders where there are segments, and noise."""

    layout, shape = Layout(), SHAPE_VX

    def read(self, box: BoxVx) -> NDArray[np.uint8]:
        """Grey values of a box."""
        ranges = [np.arange(a, b) for a, b in zip(box.lo, box.hi, strict=True)]
        x, y, z = np.meshgrid(*ranges, indexing="ij", sparse=True)
        chance = np.random.default_rng((SEED, *box.lo))
        grey = chance.integers(130, 170, box.shape, np.uint8)
        other = _tube(x, y, z)
        wall = other ^ _tube(x, y + 1, z) | other ^ _tube(x, y, z + 1)
        wall |= (y % CHUNK_VX == 0) | (z % CHUNK_VX == 0)
        grey[wall & (_number(x, y, z) > 0)] //= 3
        return np.asfortranarray(grey)


def _watershed(ids: NodeIds) -> tuple[Watershed, Ids]:
    """Supervoxels and edges; also those of the arbour, in order."""
    axis = np.arange(ROWS) * PITCH + 1
    y, z = (v.ravel() for v in np.meshgrid(axis, axis, indexing="ij"))
    links = []

    def line(start: tuple[int, int, int], stop: tuple[int, int, int]) -> None:
        n = max(abs(b - a) for a, b in zip(start, stop, strict=True))
        way = np.linspace(start, stop, n + 1).round().astype(np.int64)
        links.append(np.stack([way[:-1], way[1:]], axis=1))

    last = int(axis[-1])
    for j, k in zip(y.tolist(), z.tolist(), strict=True):
        line((TRUNK, j, k), (TIP - 1, j, k))
    for k in axis.tolist():
        line((TRUNK, 1, k), (TRUNK, last, k))
    line((TRUNK, 1, 1), (TRUNK, 1, last))
    pairs = np.concatenate(links)
    own = np.unique(ids.bases(SUPERVOXEL, pairs.reshape(-1, 3))) | np.uint64(1)
    inner = ids.bases(SUPERVOXEL, pairs.reshape(-1, 3)).reshape(-1, 2) | np.uint64(1)

    # fibres beside it: two by two through every chunk of the dense part
    (x0, x1), (b0, b1) = DENSE
    side = np.arange(2 * b0 * PITCH, 2 * b1 * PITCH)
    x, y, z = np.meshgrid(np.arange(x0, x1), side, side, indexing="ij")
    base = ids.bases(SUPERVOXEL, np.stack([x, y // 2, z // 2], axis=-1).reshape(-1, 3))
    other = base.reshape(x.shape) | (2 + y % 2 + 2 * (z % 2)).astype(np.uint64)
    along = np.stack([other[:-1], other[1:]], axis=-1).reshape(-1, 2)
    beside = [np.stack([other[:, :-1], other[:, 1:]], axis=-1).reshape(-1, 2)]
    beside.append(np.stack([other[:, :, :-1], other[:, :, 1:]], axis=-1).reshape(-1, 2))
    tube = (base & ~np.uint64(7)) | np.uint64(1)
    touches = np.isin(tube, own)
    beside.append(np.stack([tube[touches], other.ravel()[touches]], axis=1))
    outer = np.concatenate(beside)
    every = np.concatenate([inner, along, outer])
    on = np.arange(len(every)) < len(inner) + len(along)
    supervoxels = np.unique(np.concatenate([own, other.ravel()]))
    chance = np.random.default_rng(SEED)
    affinity = np.where(on, 0.95, chance.uniform(0.0, 0.6, len(every))).astype(np.float32)
    area = np.where(on, 16, 64).astype(np.int64)
    ends = np.searchsorted(supervoxels, every).astype(np.int64)
    return Watershed(supervoxels, ends, affinity, area, on), own


def make(folder: Path) -> None:
    """Write EM and supervoxels."""
    ids = NodeIds.for_chunks([n // CHUNK_VX for n in SHAPE_VX])
    grid = Grid(Resolution(VOXEL_NM, VOXEL_NM, VOXEL_NM), PointVoxel(0, 0, 0))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        new = Path(work) / "new"
        print(f"making the volume in {folder}", file=sys.stderr)
        write_segmentation(new / "supervoxels", _Supervoxels(ids), grid, mesh=False)
        write_em(new / "em", _Grey(), grid)
        new.rename(folder)


# -- the server


def serve(folder: Path, delay_ms: float) -> None:
    """Serve it until the input ends; says where on a line of output."""
    ids = NodeIds.for_chunks([n // CHUNK_VX for n in SHAPE_VX])
    watershed, own = _watershed(ids)
    volume = SupervoxelVolume(folder / "supervoxels", (CHUNK_VX,) * 3)
    served = Served(volume, watershed, folder / "em", volume.resolution)
    delay = [Fault("latency", seconds=delay_ms / 1000)] if delay_ms else []
    with StandIn(served, accounts=[Account(new_token())], faults=delay) as cave:
        graph, rows = cave.deployment.graph, cave.deployment.rows
        # the real service has worked these out long ago
        for supervoxel in own.tolist():
            part = graph.ancestor(supervoxel, LEVEL2)
            middle = (np.array(graph.ids.chunk(part)) + 0.5) * CHUNK_VX * VOXEL_NM
            rows[part] = {
                "rep_coord_nm": middle.astype(int).tolist(),
                "max_dt_nm": round(RADIUS_VX * VOXEL_NM),
            }
        told = {"url": cave.url, "token": cave.token, "file": cave.dataset_file()}
        print(json.dumps({**told, "parts": len(rows)}), flush=True)
        sys.stdin.read()


@contextmanager
def served_beside(folder: Path, delay_ms: float) -> Iterator[dict[str, Any]]:
    """The server in a process of its own."""
    command = [sys.executable, __file__, "--serve", str(folder), "--delay-ms", str(delay_ms)]
    with subprocess.Popen(  # noqa: S603 - this very program
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        try:
            yield json.loads(child.stdout.readline())
        finally:
            child.terminate()


# -- what is measured


class Log:
    """What the server was asked."""

    def __init__(self, told: dict[str, Any]) -> None:
        self._url = f"{told['url']}/standin/requests"
        self._headers = {"Authorization": f"Bearer {told['token']}"}

    def clear(self) -> None:
        """Forget it."""
        requests.delete(self._url, headers=self._headers, timeout=60)

    def by_route(self) -> dict[str, int]:
        """How often each route was asked since."""
        got = requests.get(self._url, headers=self._headers, timeout=60).json()
        return dict(Counter(_route(r["path"]) for r in got).most_common())


def _route(path: str) -> str:
    if path.startswith("/data/"):
        return path.split("/")[2]
    return re.sub(r"/\d+(:\d+)?", "", path).rstrip("/").split("/")[-1]


def measure(told: dict[str, Any], places: int) -> dict[str, Any]:
    """Ask for lists, and count."""
    os.environ["CAVE_TOKEN"] = told["token"]
    log, steps = Log(told), []
    with tempfile.TemporaryDirectory() as work:
        file = Path(work) / "cave.toml"
        file.write_text(f'[dataset]\nname = "large"\nspecies = "fly"\n{told["file"]}')
        began = time.perf_counter()
        with open_assistant(file, device="cpu") as assistant:
            opened = time.perf_counter() - began
            at_open = log.by_route()
            warm_up(assistant, at_chunk(62.5))
            began = time.perf_counter()
            steps.append(_step("cold, in a branch", assistant, at_chunk(53), log))
            while "still being read" in assistant.suggest(at_chunk(53)).note:
                if time.perf_counter() - began > PATIENCE_S:
                    sys.exit("the graph of the whole object was not read in time")
            whole = time.perf_counter() - began
            steps.append(_step("the same again", assistant, at_chunk(53), log))
            steps.append(_step("at its tip", assistant, at_chunk(TIP - 0.7), log))
            began, met = time.perf_counter(), 0
            for x in np.linspace(3, TIP - 1, places):
                try:
                    met += len(assistant.suggest(at_chunk(float(x))).suggestions)
                except AssistError:
                    continue
            browsing = time.perf_counter() - began
    return {
        "parts": told["parts"],
        "open_ms": round(1000 * opened),
        "open_requests": at_open,
        "steps": steps,
        "whole_object_ms": round(1000 * whole),
        "browsing": {
            "places": places,
            "suggestions": met,
            "ms_each": round(1000 * browsing / max(1, places)),
            "max_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        },
    }


def _step(name: str, assistant: Assistant, at: PointNm, log: Log) -> dict[str, Any]:
    log.clear()
    began, worked = time.perf_counter(), time.process_time()
    found = assistant.suggest(at)
    spent, worked = time.perf_counter() - began, time.process_time() - worked
    asked = log.by_route()
    return {
        "what": name,
        "ms": round(1000 * spent),
        "cpu_ms": round(1000 * worked),
        "timing_ms": {k: round(v) for k, v in found.timing_ms.items()},
        "suggestions": len(found.suggestions),
        "requests": sum(asked.values()),
        "by_route": asked,
        "note": found.note,
    }


def main() -> None:
    """Make what is needed, serve it, ask, print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--delay-ms", type=float, default=40.0)
    options.add_argument("--places", type=int, default=20)
    options.add_argument("--json", action="store_true")
    options.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.serve is not None:
        serve(given.serve, given.delay_ms)
        return
    folder = cache_folder() / "large-root-2"
    if not folder.is_dir():
        make(folder)
    with served_beside(folder, given.delay_ms) as told:
        found = {"delay_ms": given.delay_ms, **measure(told, given.places)}
    if given.json:
        print(json.dumps(found))
        return
    print(f"{found['parts']} parts, {given.delay_ms:.0f} ms added to every answer")
    print(f"{'opened':22}{found['open_ms']:7} ms  {found['open_requests']}")
    for step in found["steps"]:
        print(
            f"{step['what']:22}{step['ms']:7} ms{step['cpu_ms']:7} ms of processor"
            f"{step['requests']:5} requests "
            f"{step['suggestions']:3} suggestions  {step['by_route']}  {step['note']}"
        )
    browsing = found["browsing"]
    print(f"the graph of the whole object was known after {found['whole_object_ms']} ms")
    print(
        f"{browsing['places']} places along it: {browsing['ms_each']} ms each, most memory "
        f"{browsing['max_rss_mb']} MB"
    )


if __name__ == "__main__":
    main()
