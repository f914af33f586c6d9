"""The queue in a SQLite file: the contract, what only grows, other processes, kills."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from contracts.queue_store import ALL, NOW, QueueStoreContract, put, take
from contracts.reopening import reopening
from label_makers import DATASET, USER, VERSION, queue_item, suggestion
from nursery import Nursery

from cb2_assist.core.errors import LabelError, LabelFileReadOnlyError
from cb2_assist.labels import filesystem
from cb2_assist.labels.schema import MIGRATIONS, migrate
from cb2_assist.labels.sqlite import SqliteLabelStore
from cb2_assist.labels.store import open_store

CHILD = Path(__file__).with_name("queueing_child.py")
KILLS = int(os.environ.get("CB2_QUEUE_KILLS", "25"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "labels.sqlite"


@pytest.fixture
def store(path: Path):
    with SqliteLabelStore(path) as opened:
        yield opened


@pytest.fixture
def reopen(store, path: Path):
    with reopening(lambda: SqliteLabelStore(path), store) as again:
        yield again


class TestSqliteQueue(QueueStoreContract):
    """In a SQLite file."""


class TestSqliteQueueWithoutLog(TestSqliteQueue):
    """The same on a file system where the write-ahead log is not safe."""

    @pytest.fixture(autouse=True)
    def _network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(filesystem, "file_system_of", lambda _path: "nfs4")


def test_draws_and_the_trail_only_grow(store, path: Path) -> None:
    put(store, 1, 2)
    take(store, 1)
    take(store, 2)
    store.queue.mark_stale(DATASET, VERSION, suggestion(2).id, "gone", user=USER, now=NOW)
    put(store, 2)
    conn = sqlite3.connect(path)
    trail = conn.execute("SELECT what, user FROM queue_trail ORDER BY id").fetchall()
    assert trail == [
        ("leased", USER),
        ("released", USER),
        ("leased", USER),
        ("stale", USER),
        ("found", None),
    ]
    for table in ("queue_trail", "queue_draws"):
        for change in (f"DELETE FROM {table}", f"UPDATE {table} SET at = 0"):
            with pytest.raises(sqlite3.IntegrityError, match="only grows"):
                conn.execute(change)
    conn.close()


def test_a_label_file_from_before_the_queue_gets_one(path: Path) -> None:
    before = next(n for n, m in enumerate(MIGRATIONS) if m.name == "queue")
    conn = sqlite3.connect(path, isolation_level=None)
    migrate(conn, MIGRATIONS[:before])
    conn.close()
    with (
        SqliteLabelStore(path, read_only=True) as reader,
        pytest.raises(LabelError, match="has no queue"),
    ):
        assert reader.queue
    with SqliteLabelStore(path) as store:
        put(store, 1)
        assert len(store.queue.waiting(ALL, now=NOW)) == 1


def test_a_reader_sees_the_queue_and_cannot_change_it(store) -> None:
    put(store, 1)
    with open_store(store.url, read_only=True) as reader:
        assert len(reader.queue.waiting(ALL, now=NOW)) == 1
        with pytest.raises(LabelFileReadOnlyError):
            take(reader, 1)


def test_of_many_threads_that_want_one_site_one_gets_it(store) -> None:
    put(store, 1)
    together, got = threading.Barrier(8), []

    def want(n: int) -> None:
        together.wait(10)
        got.append(take(store, 1, f"user-{n}"))

    threads = [threading.Thread(target=want, args=(n,)) for n in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(30)
    assert len([g for g in got if g is not None]) == 1
    assert len(got) == 8


def start(path: Path, user: str, first: int, count: int) -> subprocess.Popen[bytes]:
    words = [sys.executable, str(CHILD), str(path), user, str(first), str(count)]
    return subprocess.Popen(words, stdout=subprocess.PIPE)


def test_two_processes_fill_and_draw_at_once(path: Path) -> None:
    each = 40
    children = [start(path, user, n * each, each) for n, user in enumerate(("ada", "bob"))]
    said = [c.communicate(timeout=120)[0].decode().splitlines() for c in children]
    assert [c.returncode for c in children] == [0, 0]
    with SqliteLabelStore(path) as store:
        for n in range(2 * each):
            assert store.queue.item(DATASET, VERSION, suggestion(n).id) == queue_item(n)
        assert store.verify() == []
    draws = [line.split()[1] for lines in said for line in lines if line.startswith("draw")]
    assert len(draws) == len(set(draws)) >= 2 * each - 4
    conn = sqlite3.connect(path)
    # at every moment a site was on lease to one person: leased and released take turns
    for (item,) in conn.execute("SELECT DISTINCT item FROM queue_trail").fetchall():
        rows = conn.execute(
            "SELECT what, user FROM queue_trail WHERE item = ? ORDER BY id", (item,)
        )
        holder = None
        for what, user in rows:
            assert holder is None if what == "leased" else holder == user
            holder = user if what == "leased" else None
    conn.close()


def test_kills_in_the_middle_lose_nothing_that_was_acknowledged(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(5)
    first, total = 0, 0
    with Nursery("queueing_child", path.parent) as nursery:
        for life in range(KILLS):
            child = nursery.start(path, "ada", first, 0)
            assert child.prints(within_s=60), "the child did nothing"
            threading.Event().wait(rng.uniform(0, 0.05))
            text = child.kill()
            lines = [line.split() for line in text.splitlines(keepends=True) if line.endswith("\n")]
            conn = sqlite3.connect(path)
            held = {s for (s,) in conn.execute("SELECT site FROM queue_items")}
            draws = dict(conn.execute("SELECT id, site FROM queue_draws"))
            skips = [
                s for (s,) in conn.execute("SELECT site FROM event_sites WHERE verdict = 'skip'")
            ]
            conn.close()
            for what, *rest in lines:
                if what == "put":
                    first = max(first, int(rest[0]) + 1)
                    assert suggestion(int(rest[0])).id in held, f"lost at kill {life}"
                elif what == "draw":
                    assert draws[int(rest[0])] == rest[1], f"lost at kill {life}"
                else:
                    assert suggestion(int(rest[0])).id in skips, f"lost at kill {life}"
            total += len(lines)
            assert len(held) in (first, first + 1), "only the step under way may not have been told"
            first = len(held)
    with SqliteLabelStore(path) as store:
        assert store.verify() == []
    with capsys.disabled():
        print(f"\n{KILLS} kills: {total} fills, draws and skips acknowledged and all there")
