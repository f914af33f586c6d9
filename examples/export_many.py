"""How long an export of many labels takes, and how much memory.

What you will see: one line a format with rows, seconds and the peak resident memory of the export's
own process, for N labels in jsonl and csv and M labels with views in cb2-v1 and cb2-v2. The labels
are made up, in OUT, first; a million need about 3 GB there and some minutes.

    python examples/export_many.py OUT [N [M]]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from cb2_assist import Kind, PointNm, Site, Suggestion, Verdict
from cb2_assist.core.records import BaseRate, Decision, Ood, segment_id
from cb2_assist.labels.store import LabelStore, NewEvent, labels_url, open_store
from cb2_assist.labels.views_store import ViewsStore
from cb2_assist.views.hitmap import EMPTY, HitMap
from cb2_assist.views.stack import ViewStack, content_sha256, to_bytes

BATCH = 2000
DISTINCT_VIEWS = 16
BIG = 720575940600000000


def main(arguments: list[str]) -> None:
    """Make labels, export them, print what it took."""
    ask = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    ask.add_argument("out", type=Path, metavar="OUT", help="folder for labels and exports")
    ask.add_argument("n", type=int, nargs="?", default=1_000_000, help="labels (1,000,000)")
    ask.add_argument("m", type=int, nargs="?", default=5_000, help="labels with views (5,000)")
    given = ask.parse_args(arguments)
    out = given.out
    for name, count, with_views, forms in (
        ("many", given.n, False, ("jsonl", "csv")),
        ("seen", given.m, True, ("cb2-v1", "cb2-v2")),
    ):
        path = out / f"{name}.sqlite"
        if not path.exists():
            out.mkdir(parents=True, exist_ok=True)
            with open_store(labels_url(path)) as store:
                make_labels(store, count, with_views)
        for form in forms:
            print(measure(path, form, out / form, count))


def make_labels(store: LabelStore, n: int, with_views: bool) -> None:
    """Answers of three people on n sites; with views a few of them share the pictures."""
    addresses = keep_views(store, min(n, DISTINCT_VIEWS)) if with_views else [None]
    for start in range(0, n, BATCH):
        store.append_all(
            [
                NewEvent.of(made_up(i, addresses[i % len(addresses)]))
                for i in range(start, min(start + BATCH, n))
            ]
        )


def keep_views(store: LabelStore, n: int) -> list[str]:
    """Blobs of noise on a plane: they pack about as badly as real views."""
    rng, kept, found = np.random.default_rng(0), ViewsStore(store.views_folder), []
    for _ in range(n):
        depth = np.full((3, 2, 224, 224), EMPTY, np.int16)
        depth[:, 0, 20:200, 20:130] = rng.integers(-900, 900, (3, 180, 110))
        depth[:, 1, 20:200, 100:200] = rng.integers(-900, 900, (3, 180, 100))
        normal = rng.integers(-127, 128, (3, 2, 3, 224, 224)).astype(np.int8)
        em = rng.integers(0, 256, (3, 3, 224, 224)).astype(np.uint8)
        features = np.zeros(8, np.float32)
        stack = ViewStack(HitMap(depth, normal), em, features, 1000.0, "clean")
        found.append(content_sha256(stack))
        kept.put(to_bytes(stack), found[-1])
    return found


def made_up(n: int, views_sha256: str | None) -> Decision:
    """The n-th answer."""
    kind = Kind.CUT if n % 5 == 0 else Kind.JOIN
    segment = segment_id(BIG + n // 7)
    partner = None if kind is Kind.CUT else segment_id(BIG + 10**12 + n)
    site = Site(kind, segment, partner, PointNm(float(n), 2000.0, 3000.0))
    score = (n * 37 % 1000) / 1000
    shown = Suggestion(
        site.key("made-up", "1"), site, "made up", score, score, (0.0, 1.0), Ood(50.0, False), ()
    )
    plain = Decision(
        suggestion=shown,
        verdict=Verdict.ACCEPT if n % 3 else Verdict.REJECT,
        dataset="made-up",
        version="1",
        model_name="none",
        model_sha256="ab" * 32,
        calibrator="none",
        base_rate=BaseRate(0.5, "default", 0),
        rank=0,
        alternatives=(),
        user=("ada", "bob", "cy")[n % 3],
        key="f",
        idempotency_key=f"made-up-{n}",
        shown_at="2026-01-02T03:04:05+00:00",
        decided_at="2026-01-02T03:04:09+00:00",
        idle_ms=0,
        licence="CC0 1.0",
        species="mouse",
        supervoxels=(segment, partner),
    )
    return replace(plain, views_sha256=views_sha256)


def measure(path: Path, form: str, out: Path, n: int) -> str:
    """Export in a process of its own."""
    words = ["export", "--labels", labels_url(path), "--format", form, "--out", str(out)]
    began = time.monotonic()
    command = [sys.executable, "-m", "cb2_assist", *words]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:  # noqa: S603
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if status:
        sys.exit(f"export --format {form} failed")
    seconds = time.monotonic() - began
    # KiB on Linux, bytes on macOS
    peak = used.ru_maxrss / (1 if sys.platform == "darwin" else 1 / 1024) / 1e6
    return f"{form}: {n} labels in {seconds:.1f} s, peak {peak:.0f} MB"


if __name__ == "__main__":
    main(sys.argv[1:])
