"""Read-only, full, damaged and busy files: a clear line, nothing half-written, and it goes on."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from label_makers import DATASET, USER, VERSION, decision

from cb2_assist.core.errors import DecisionError, LabelError, LabelFileReadOnlyError
from cb2_assist.decisions.log import DecisionLog
from cb2_assist.labels import connections, sqlite
from cb2_assist.labels.failures import label_error
from cb2_assist.labels.sqlite import SqliteLabelStore
from cb2_assist.labels.store import NewEvent

TESTS = Path(__file__).resolve().parent.parent
NOBODY = 65534


@pytest.fixture
def folder():
    """A folder of our own; where the tests run as root they step down, since root may write all."""
    place = Path(tempfile.mkdtemp(prefix="cb2-labels-"))
    is_root = os.geteuid() == 0
    if is_root:
        os.chown(place, NOBODY, NOBODY)
        os.setegid(NOBODY)
        os.seteuid(NOBODY)
    yield place
    if is_root:
        os.seteuid(0)
        os.setegid(0)
    place.chmod(0o700)
    shutil.rmtree(place)


@pytest.fixture
def store(tmp_path: Path):
    with SqliteLabelStore(tmp_path / "labels.sqlite") as opened:
        yield opened


def filled(path: Path) -> Path:
    with SqliteLabelStore(path) as store:
        store.append(NewEvent.of(decision(1)))
    return path


class TestReadOnly:
    def test_a_folder_that_cannot_be_written(self, folder: Path) -> None:
        folder.chmod(0o500)
        with pytest.raises(LabelFileReadOnlyError, match=r"--labels sqlite:///PATH"):
            SqliteLabelStore(folder / "labels.sqlite")
        with pytest.raises(LabelFileReadOnlyError):
            SqliteLabelStore(folder / "deeper" / "labels.sqlite")

    def test_a_file_that_cannot_be_written_is_told_at_start(self, folder: Path) -> None:
        path = filled(folder / "labels.sqlite")
        path.chmod(0o400)
        with pytest.raises(LabelFileReadOnlyError, match="cannot be written"):
            SqliteLabelStore(path)

    def test_a_closed_file_in_such_a_folder_can_be_read(self, folder: Path) -> None:
        path = filled(folder / "labels.sqlite")
        path.chmod(0o400)
        folder.chmod(0o500)
        with SqliteLabelStore(path, read_only=True) as store:
            assert len(list(store.events())) == 1
            assert store.verify() == []

    def test_recent_events_that_cannot_be_read_are_not_passed_over(self, folder: Path) -> None:
        """An immutable open would leave out the log without a word."""
        copy = folder / "copy"
        copy.mkdir()
        with SqliteLabelStore(folder / "labels.sqlite") as store:
            store.append(NewEvent.of(decision(1)))
            for name in ("labels.sqlite", "labels.sqlite-wal"):
                shutil.copy(folder / name, copy)
        copy.chmod(0o500)
        with pytest.raises(LabelError, match=r"recent events in labels\.sqlite-wal"):
            SqliteLabelStore(copy / "labels.sqlite", read_only=True)
        copy.chmod(0o700)
        with SqliteLabelStore(copy / "labels.sqlite", read_only=True) as reader:
            assert len(list(reader.events())) == 1

    def test_a_file_that_cannot_be_read(self, folder: Path) -> None:
        path = filled(folder / "labels.sqlite")
        path.chmod(0)
        with pytest.raises(LabelFileReadOnlyError, match="cannot be written or opened"):
            SqliteLabelStore(path, read_only=True)


class TestFullDisk:
    def test_a_full_database_records_nothing_and_goes_on(self, store) -> None:
        log = DecisionLog(store, user=USER, dataset=DATASET, version=VERSION)
        log.decide(decision(0))
        pages = store._on_writer(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
        store._on_writer(lambda c: c.execute(f"PRAGMA max_page_count = {pages}"))
        with pytest.raises(LabelFileReadOnlyError, match=r"disk is full.*Nothing was recorded"):
            log.decide(decision(1, reason="x" * 100_000))
        assert len(list(store.events())) == len(log.current()) == 1
        assert store.find(decision(1).idempotency_key) is None
        assert log.decide(decision(1)).id == 2
        assert store.verify() == []

    def test_a_file_size_limit_is_met_by_a_child(self, tmp_path: Path) -> None:
        """The system refuses the write in the middle, as a full disk or a quota does."""
        path = tmp_path / "labels.sqlite"
        filled(path)
        done = subprocess.run(
            [sys.executable, str(TESTS / "labels" / "filling_child.py"), str(path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        *keys, refused, after = done.stdout.split("\n")[:-1]
        assert "Nothing was recorded" in refused
        assert after == "went on"
        with SqliteLabelStore(path) as store:
            stored = [e.idempotency_key for e in store.events()][1:]
            assert store.verify() == []
        assert stored == [*keys, "small"]

    @pytest.mark.skipif(
        sys.platform != "linux" or os.geteuid() != 0, reason="only root may mount a small disk"
    )
    def test_a_disk_that_fills_up(self, tmp_path: Path) -> None:
        mount = shutil.which("mount")
        options = ["-t", "tmpfs", "-o", "size=512k", "tmpfs", str(tmp_path)]
        if not mount or subprocess.run([mount, *options], check=False).returncode:
            pytest.skip("mounting is not allowed here")
        try:
            self._fill(tmp_path)
        finally:
            subprocess.run(["umount", str(tmp_path)], check=True)

    def _fill(self, disk: Path) -> None:
        ballast = disk / "ballast"
        with SqliteLabelStore(disk / "labels.sqlite") as store:
            store.append(NewEvent.of(decision(0)))
            free = shutil.disk_usage(disk).free
            ballast.write_bytes(b"x" * (free - 40_000))
            acknowledged = [decision(0).idempotency_key]

            def append_many() -> None:
                for n in range(1, 1000):
                    store.append(NewEvent.of(decision(n, reason="x" * 2000)))
                    acknowledged.append(decision(n).idempotency_key)

            with pytest.raises(LabelFileReadOnlyError, match="disk is full"):
                append_many()
            assert [e.idempotency_key for e in store.events()] == acknowledged
            ballast.unlink()
            store.append(NewEvent.of(decision(2000)))
            assert len(list(store.events())) == len(acknowledged) + 1
            assert store.verify() == []


class TestDamage:
    @pytest.mark.parametrize("read_only", [False, True])
    def test_what_is_not_a_database(self, tmp_path: Path, read_only: bool) -> None:
        path = tmp_path / "labels.sqlite"
        path.write_bytes(b"kind,segment\n" * 200)
        before = path.read_bytes()
        with pytest.raises(LabelError, match="not a label file"):
            SqliteLabelStore(path, read_only=read_only)
        assert path.read_bytes() == before

    def test_a_damaged_file_is_told(self, tmp_path: Path) -> None:
        path = tmp_path / "labels.sqlite"
        with SqliteLabelStore(path) as store:
            store.append_all([NewEvent.of(decision(n)) for n in range(200)])
        data = bytearray(path.read_bytes())
        data[len(data) // 2 : len(data) // 2 + 20_000] = b"\xff" * 20_000
        path.write_bytes(data)
        with SqliteLabelStore(path, read_only=True) as store:
            assert store.verify()[0].startswith("database: ")
            with pytest.raises(LabelError, match="restore a backup"):
                list(store.events())

    def test_a_decision_with_damaged_text_is_named(self, store, tmp_path: Path) -> None:
        store.append(NewEvent.of(decision()))
        conn = sqlite3.connect(tmp_path / "labels.sqlite", isolation_level=None)
        conn.execute("DROP TRIGGER events_no_update")
        conn.execute("""UPDATE events SET body = '{"verdict": "accept"}'""")
        conn.close()
        guard, problem = store.verify()
        assert guard == "the trigger events_no_update is missing"
        assert problem.startswith("event 1: A stored decision cannot be read")
        with pytest.raises(LabelError, match="labels verify"):
            store.get(1)


class TestBusy:
    def test_a_file_that_stays_locked_is_told_and_recovers(self, tmp_path, monkeypatch) -> None:
        monkeypatch.setattr(connections, "BUSY_S", 0.05)
        with SqliteLabelStore(tmp_path / "labels.sqlite") as store:
            other = sqlite3.connect(tmp_path / "labels.sqlite", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(LabelError, match=r"locked for too long.*Nothing was recorded"):
                store.append(NewEvent.of(decision()))
            other.execute("ROLLBACK")
            other.close()
            assert store.append(NewEvent.of(decision())).id == 1

    def test_a_disk_that_does_not_answer_has_a_deadline(self, store, monkeypatch) -> None:
        import threading

        monkeypatch.setattr(sqlite, "_WRITE_DEADLINE_S", 0.05)
        answer = threading.Event()
        with pytest.raises(LabelError, match="is not known"):
            store._on_writer(lambda _conn: answer.wait(10))
        with pytest.raises(LabelError, match="Nothing was recorded"):
            store.append(NewEvent.of(decision()))
        answer.set()
        monkeypatch.undo()
        assert store.append(NewEvent.of(decision())).id == 1


def test_an_error_inside_a_transaction_rolls_back(store, monkeypatch) -> None:
    def fails(*_a):
        raise DecisionError("no")

    monkeypatch.setattr("cb2_assist.labels.rows._insert_sites", fails)
    with pytest.raises(DecisionError):
        store.append(NewEvent.of(decision()))
    monkeypatch.undo()
    assert list(store.events()) == []
    store.append(NewEvent.of(decision()))


@pytest.mark.parametrize(
    ("cause", "kind", "says"),
    [
        (OSError(errno.ENOSPC, "no space"), LabelFileReadOnlyError, "disk is full"),
        (OSError(errno.EDQUOT, "quota"), LabelFileReadOnlyError, "quota"),
        (OSError(errno.EROFS, "ro"), LabelFileReadOnlyError, "cannot be written"),
        (OSError(errno.EIO, "Input/output error"), LabelError, "Input/output error"),
        (sqlite3.ProgrammingError("odd"), LabelError, "odd"),
    ],
)
def test_each_cause_has_its_words(tmp_path: Path, cause, kind, says: str) -> None:
    error = label_error(tmp_path / "f", cause, "Nothing was recorded.")
    assert type(error) is kind
    assert says in str(error)
    assert str(error).endswith("Nothing was recorded.")


def test_a_disk_error_is_told_apart_from_a_full_disk(tmp_path: Path, monkeypatch) -> None:
    cause = sqlite3.OperationalError("disk I/O error")
    cause.sqlite_errorcode = sqlite3.SQLITE_IOERR_WRITE
    assert "Check the disk" in str(label_error(tmp_path / "f", cause))
    usage = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    assert isinstance(label_error(tmp_path / "f", cause), LabelFileReadOnlyError)
