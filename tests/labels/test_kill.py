"""Every acknowledged decision is there exactly once, however often the process is killed.

SIGKILL takes the process at once; what the system has not yet written stays in its cache. That a
commit reaches the disk is the business of the settings that `test_sqlite` checks.
"""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections import Counter
from pathlib import Path

import pytest
from label_makers import suggestion
from nursery import Nursery

from cb2_assist.labels.sqlite import SqliteLabelStore
from cb2_assist.labels.views_store import ViewsStore

KILLS = int(os.environ.get("CB2_KILLS", "300"))
# one in ten dies at any moment from its start on, also while it opens the file
SHARE_KILLED_EARLY = 0.1
LONGEST_WAIT_S = 0.05
LONGEST_OPENING_S = 0.03
# Drawn, not waited for: no state is expected after these times. They choose the moment of the kill,
# which is what is tested, and any moment is as good a case as any other.


def one_life(nursery: Nursery, path: Path, first: int, rng: random.Random) -> list[str]:
    """Start a child, kill it in the middle of its decisions; returns the keys it acknowledged."""
    child = nursery.start(path, "ada", first, 0)
    if rng.random() >= SHARE_KILLED_EARLY:
        assert child.prints(within_s=60), "the child made no decision"
        time.sleep(rng.uniform(0, LONGEST_WAIT_S))
    else:
        time.sleep(rng.uniform(0, LONGEST_OPENING_S))
    text = child.kill()
    # a key counts once its line is complete: the child writes it in one go
    return [line[:-1] for line in text.splitlines(keepends=True) if line.endswith("\n")]


def keys_in(path: Path) -> list[str]:
    """What the file holds, in the order in which it was recorded; read as any program would."""
    if not path.exists() or not path.stat().st_size:
        return []
    conn = sqlite3.connect(path)
    try:
        if not conn.execute("SELECT 1 FROM sqlite_master WHERE name = 'events'").fetchone():
            return []
        return [k for (k,) in conn.execute("SELECT idempotency_key FROM events ORDER BY id")]
    finally:
        conn.close()


@pytest.mark.timeout(240 + KILLS)
def test_kills_in_the_middle_of_decisions_lose_and_double_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "labels.sqlite"
    rng = random.Random(8)
    acknowledged: dict[str, int] = {}
    retried = untold = lives_with_decisions = 0
    started = time.monotonic()
    with Nursery("deciding_child", tmp_path) as nursery:
        for life in range(KILLS):
            # like a page that lost its server: the last acknowledged key and the one after it,
            # which may have been recorded, are sent again
            keys = one_life(nursery, path, max(0, len(acknowledged) - 1), rng)
            # looked up before the next life, which would make good what this one lost
            held = keys_in(path)
            assert set(keys) <= set(held), f"lost at kill {life}"
            retried += sum(key in acknowledged for key in keys)
            acknowledged |= dict.fromkeys(keys, life)
            untold += len(set(held) - acknowledged.keys())
            lives_with_decisions += bool(keys)
    seconds = time.monotonic() - started

    stored = Counter(keys_in(path))
    with sqlite3.connect(path) as conn:
        ids = [i for (i,) in conn.execute("SELECT id FROM events ORDER BY rowid")]
        assert conn.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    conn.close()
    assert acknowledged.keys() - stored.keys() == set()
    assert set(stored.values()) == {1}
    assert ids == sorted(set(ids))
    # only the step on which the last life was killed can be there without having been told
    assert len(stored.keys() - acknowledged.keys()) <= 1
    assert lives_with_decisions >= KILLS // 2

    with SqliteLabelStore(path) as store:
        views = ViewsStore(store.views_folder)
        events = list(store.events())
        decided = [e for e in events if e.decision is not None]
        kinds = ["decision"] * 8 + ["undo", "redo"]
        assert [e.event for e in events] == [kinds[n % 10] for n in range(len(events))]
        kept = [e.decision.views_sha256 for e in decided]
        for e in decided:
            n = int(e.idempotency_key.rpartition("-")[2])
            assert e.decision.suggestion == suggestion(n)
        assert store.verify() == []
        assert views.verify() == []
        assert all(views.has(sha) for sha in kept)
    with capsys.disabled():
        print(
            f"\n{KILLS} kills in {seconds:.0f} s, {lives_with_decisions} of them after a decision: "
            f"{len(acknowledged)} decisions, undos and redos acknowledged and all there once; "
            f"{retried} sent again and not recorded again; "
            f"{untold} recorded at a kill but not yet acknowledged"
        )
