"""The SQLite store: the contract, the file itself, and other processes."""

from __future__ import annotations

import errno
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from contracts.label_store import LabelStoreContract
from contracts.reopening import reopening
from label_makers import DATASET, USER, decision

from cb2_assist.core.errors import LabelError, LabelFileReadOnlyError, UsageError
from cb2_assist.core.records import Verdict
from cb2_assist.labels import filesystem
from cb2_assist.labels.schema import APPLICATION_ID, MIGRATIONS, Migration, migrate
from cb2_assist.labels.sqlite import SqliteLabelStore
from cb2_assist.labels.store import NewEvent, default_labels_url, label_file, open_store

TESTS = Path(__file__).resolve().parent.parent


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "made for it" / "labels #1%.sqlite"


@pytest.fixture
def store(path: Path):
    with SqliteLabelStore(path) as opened:
        yield opened


@pytest.fixture
def raw(store):
    """A connection of another program to the same file."""
    conn = sqlite3.connect(label_file(store.url), isolation_level=None)
    yield conn
    conn.close()


@pytest.fixture
def reopen(store, path: Path):
    with reopening(lambda: SqliteLabelStore(path), store) as again:
        yield again


class TestSqliteStore(LabelStoreContract):
    """In a SQLite file."""


class TestSqliteStoreWithoutLog(TestSqliteStore):
    """The same on a file system where the write-ahead log is not safe."""

    @pytest.fixture(autouse=True)
    def _network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(filesystem, "file_system_of", lambda _path: "nfs4")

    def test_it_says_so_and_keeps_a_rollback_journal(self, store, path: Path) -> None:
        (notice,) = store.notices
        assert "nfs4" in notice
        assert "rollback journal" in notice
        assert not path.with_name(path.name + "-wal").exists()
        assert store._on_writer(lambda c: c.execute("PRAGMA synchronous").fetchone()[0]) == 3


def test_a_commit_is_synced_and_the_log_is_in_use(store) -> None:
    def settings(conn):
        names = ("journal_mode", "synchronous", "fullfsync", "checkpoint_fullfsync")
        return [conn.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    assert store._on_writer(settings) == ["wal", 2, 1, 1]
    assert store.notices == ()


def test_a_file_with_a_log_that_moved_to_a_network_loses_nothing(path, monkeypatch) -> None:
    with SqliteLabelStore(path) as store:
        store.append(NewEvent.of(decision(1)))
    monkeypatch.setattr(filesystem, "file_system_of", lambda _path: "cifs")
    with SqliteLabelStore(path) as store:
        store.append(NewEvent.of(decision(2)))
        assert len(list(store.events())) == 2
        assert store._on_writer(lambda c: c.execute("PRAGMA journal_mode").fetchone()[0]) == (
            "delete"
        )


def test_only_the_owner_can_read_the_files(store, path: Path) -> None:
    store.append(NewEvent.of(decision()))
    files = sorted(path.parent.iterdir())
    assert [f.name for f in files] == [path.name + end for end in ("", "-shm", "-wal")]
    assert {stat.S_IMODE(f.stat().st_mode) for f in files} == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_closed_store_is_one_file(store, path: Path) -> None:
    """A reader that closes last would leave the log beside the file."""
    store.append(NewEvent.of(decision()))
    assert len(list(store.events())) == 1
    store.close()
    assert [f.name for f in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET verdict = 'reject'",
        "UPDATE events SET id = 9",
        "DELETE FROM events",
        "INSERT OR REPLACE INTO events SELECT * FROM events WHERE id = 1",
        "REPLACE INTO events (event, target, recorded_at, idempotency_key, user, dataset, version)"
        " SELECT 'undo', 1, '', idempotency_key, '', '', '' FROM events",
        "INSERT INTO events (id, event, target, recorded_at, idempotency_key, user, dataset,"
        " version) VALUES (0, 'undo', 1, '', 'x', '', '', '')",
        "UPDATE event_sites SET verdict = 'reject'",
        "DELETE FROM event_sites",
        "INSERT OR REPLACE INTO event_sites SELECT * FROM event_sites",
    ],
)
def test_nothing_that_was_written_can_be_changed(store, raw, statement: str) -> None:
    store.append(NewEvent.of(decision()))
    before = list(store.events())
    with pytest.raises(sqlite3.IntegrityError, match="only grows"):
        raw.execute(statement)
    assert list(store.events()) == before


def test_an_id_is_never_used_again(store, raw) -> None:
    """Plain SQLite row ids are reused after the last row goes; ours must not be."""
    store.append(NewEvent.of(decision()))
    raw.execute("DROP TRIGGER event_sites_no_delete")
    raw.execute("DROP TRIGGER events_no_delete")
    raw.execute("DELETE FROM event_sites")
    raw.execute("DELETE FROM events")
    assert store.append(NewEvent.of(decision())).id == 2


def test_current_labels_are_a_view_over_the_events(store, raw) -> None:
    store.append(NewEvent.of(decision(1)))
    store.append(NewEvent.of(decision(1, Verdict.REJECT)))
    rows = raw.execute("SELECT event_id, user, dataset, verdict FROM current_labels").fetchall()
    assert rows == [(2, USER, DATASET, "reject")]


def test_segment_ids_are_text(store, raw) -> None:
    store.append(NewEvent.of(decision()))
    types = raw.execute("SELECT typeof(segment), typeof(partner) FROM events").fetchone()
    assert types == ("text", "text")


def test_a_read_only_store_reads_beside_a_writer_and_cannot_write(store) -> None:
    with open_store(store.url, read_only=True) as reader:
        store.append(NewEvent.of(decision()))
        assert len(list(reader.events())) == 1
        with pytest.raises(LabelFileReadOnlyError, match="for reading"):
            reader.append(NewEvent.of(decision(2)))


def test_a_missing_file_is_not_made_by_a_reader(path: Path) -> None:
    with pytest.raises(LabelError, match="There is no label file"):
        SqliteLabelStore(path, read_only=True)
    assert not path.parent.exists()


def test_an_empty_file_becomes_a_label_file(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    with pytest.raises(LabelError, match="is empty"):
        SqliteLabelStore(path, read_only=True)
    with SqliteLabelStore(path) as store:
        assert store.append(NewEvent.of(decision())).id == 1


class TestSchema:
    def test_the_steps_are_recorded(self, raw) -> None:
        rows = raw.execute("SELECT version, name FROM migrations").fetchall()
        assert rows == [(n, m.name) for n, m in enumerate(MIGRATIONS, 1)]
        assert raw.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)

    def test_a_later_step_keeps_the_events(self, path: Path) -> None:
        with SqliteLabelStore(path) as store:
            store.append(NewEvent.of(decision()))
        steps = (*MIGRATIONS, Migration("notes", ("CREATE TABLE notes (text TEXT)",)))
        conn = sqlite3.connect(path, isolation_level=None)
        migrate(conn, steps)
        migrate(conn, steps)
        assert conn.execute("SELECT count(*) FROM events").fetchone() == (1,)
        n = len(steps)
        assert conn.execute("SELECT max(version), count(*) FROM migrations").fetchone() == (n, n)
        conn.close()

    def test_a_step_that_fails_leaves_no_trace(self, path: Path) -> None:
        SqliteLabelStore(path).close()
        broken = Migration("broken", ("CREATE TABLE half (text TEXT)", "SELECT nonsense"))
        conn = sqlite3.connect(path, isolation_level=None)
        with pytest.raises(sqlite3.OperationalError):
            migrate(conn, (*MIGRATIONS, broken))
        assert not conn.in_transaction
        names = [n for (n,) in conn.execute("SELECT name FROM sqlite_master")]
        assert "half" not in names
        assert conn.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        conn.close()

    @pytest.mark.parametrize("read_only", [False, True])
    def test_a_newer_file_is_refused_and_left_alone(self, path: Path, read_only: bool) -> None:
        SqliteLabelStore(path).close()
        with sqlite3.connect(path) as conn:
            conn.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 4}")
        conn.close()
        with pytest.raises(LabelError, match=r"newer cb2-assist .*Upgrade"):
            SqliteLabelStore(path, read_only=read_only)

    def test_a_file_too_old_to_read_needs_a_writer_once(self, path: Path, monkeypatch) -> None:
        SqliteLabelStore(path).close()
        oldest = len(MIGRATIONS) + 1
        monkeypatch.setattr("cb2_assist.labels.sqlite.OLDEST_READABLE", oldest)
        with pytest.raises(LabelError, match="older cb2-assist"):
            SqliteLabelStore(path, read_only=True)

    @pytest.mark.parametrize("read_only", [False, True])
    def test_a_database_of_another_program_is_left_alone(self, path, read_only: bool) -> None:
        path.parent.mkdir()
        with sqlite3.connect(path) as conn:
            conn.execute("CREATE TABLE places (url TEXT)")
        conn.close()
        before = path.read_bytes()
        with pytest.raises(LabelError, match="another program"):
            SqliteLabelStore(path, read_only=read_only)
        assert path.read_bytes() == before


class TestUrl:
    def test_a_path_after_three_slashes_is_relative_and_after_four_absolute(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert label_file("sqlite:///x/y.sqlite") == tmp_path / "x/y.sqlite"
        assert label_file(f"sqlite:///{tmp_path}/y.sqlite") == tmp_path / "y.sqlite"
        with open_store("sqlite:///here.sqlite") as store:
            assert store.url == f"sqlite:///{tmp_path}/here.sqlite"

    @pytest.mark.parametrize(
        "path", ["x" * 300, "/tmp/" + "x" * 300, "~nosuchuser/x.sqlite", "\udcff.sqlite"]
    )
    def test_a_path_that_cannot_be_looked_at_is_wrong_usage(self, path: str) -> None:
        with pytest.raises(UsageError, match="cannot be looked at: ") as refused:
            open_store(f"sqlite:///{path}")
        str(refused.value).encode()

    def test_a_folder_that_is_closed_to_us_is_wrong_usage(self, tmp_path, monkeypatch) -> None:
        def closed(_path: Path) -> bool:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(Path, "is_dir", closed)
        with pytest.raises(UsageError, match="Permission denied"):
            label_file(f"sqlite:///{tmp_path}/labels.sqlite")

    @pytest.mark.parametrize(
        ("url", "says"),
        [
            ("postgresql://u:secret@h/db", "holds a password"),
            ("mysql://u:secret@h/db", "starts with sqlite:///"),
            ("mysql://h/db", "starts with sqlite:///"),
            ("labels.sqlite", "starts with sqlite:///"),
            ("sqlite://labels.sqlite", "names no file"),
            ("sqlite:///", "names no file"),
            ("sqlite:///:memory:", "names no file"),
            ("sqlite:////", "names no file"),
            ("sqlite:////tmp/", "folder"),
            ("sqlite:////tmp", "folder"),
        ],
    )
    def test_other_urls_are_refused(self, url: str, says: str) -> None:
        with pytest.raises(UsageError, match=says) as e:
            open_store(url)
        assert "secret" not in str(e.value)

    def test_each_dataset_has_a_file_of_its_own(self, tmp_path, monkeypatch) -> None:
        monkeypatch.setattr("platformdirs.user_data_path", lambda *_a, **_k: tmp_path / "data")
        names = ["demo", "Demo", "a/b", "a-b", "../../etc", "con", "µ", "", "x" * 300, "y.z"]
        files = [label_file(default_labels_url(name)) for name in names]
        assert files[0] == tmp_path / "data" / "labels" / "demo.sqlite"
        assert {f.parent for f in files} == {files[0].parent}
        assert len({f.name.lower() for f in files}) == len(names)
        assert max(len(f.name) for f in files) < 100
        with open_store(default_labels_url("demo")):
            assert stat.S_IMODE(files[0].parent.stat().st_mode) == 0o700


def test_two_processes_write_at_once(path: Path) -> None:
    """Both open a file that does not exist yet, and write as fast as they can."""
    each = 60
    command = [sys.executable, str(TESTS / "labels" / "deciding_child.py"), str(path)]
    children = [
        subprocess.Popen([*command, name, "0", str(each)], stdout=subprocess.PIPE, text=True)
        for name in ("ada", "bob")
    ]
    acknowledged = [child.communicate(timeout=60)[0].split() for child in children]
    assert [child.returncode for child in children] == [0, 0]
    with SqliteLabelStore(path) as store:
        stored = [e.idempotency_key for e in store.events()]
        ids = [e.id for e in store.events()]
        assert store.verify() == []
    assert sorted(stored) == sorted(acknowledged[0] + acknowledged[1])
    assert len(stored) == 2 * each
    assert ids == sorted(ids)
