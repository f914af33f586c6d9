"""Label files of earlier versions: read as they are, and brought up to date without loss."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from label_makers import DATASET, USER, VERSION, suggestion

from cb2_assist.core.errors import LabelError
from cb2_assist.core.records import Verdict
from cb2_assist.decisions.log import DecisionLog
from cb2_assist.labels import schema
from cb2_assist.labels.schema import MIGRATIONS, migrate
from cb2_assist.labels.sqlite import SqliteLabelStore

VERSION_1 = Path(__file__).with_name("version-1.sql")
"""Dump of a file that the first version of this program wrote."""
EVENTS = (
    "SELECT id, event, target, recorded_at, idempotency_key, user, dataset, version, suggestion,"
    " kind, segment, partner, verdict, score, confidence, model_sha256, views_sha256, decided_at,"
    " body, typeof(segment), typeof(score), typeof(target) FROM events ORDER BY id"
)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "labels.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.executescript(VERSION_1.read_text(encoding="utf-8"))
    return path


def read(path: Path, *queries: str) -> list[list[tuple]]:
    with closing(sqlite3.connect(path)) as conn:
        return [conn.execute(query).fetchall() for query in queries]


EVERYTHING = (
    EVENTS,
    "SELECT * FROM event_sites ORDER BY event_id, place",
    "SELECT * FROM about",
    "SELECT * FROM site_states ORDER BY event_id, place",
    "SELECT seq FROM sqlite_sequence WHERE name = 'events'",
)


def test_the_dump_is_what_the_first_step_makes(old: Path, tmp_path: Path) -> None:
    """A released step must not change: this compares it with a file that it made then."""
    with closing(sqlite3.connect(tmp_path / "now.sqlite", isolation_level=None)) as conn:
        migrate(conn, MIGRATIONS[:1])
    layout = "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"
    assert read(old, layout) == read(tmp_path / "now.sqlite", layout)


def test_every_row_survives_bit_for_bit(old: Path) -> None:
    before = read(old, *EVERYTHING)
    assert len(before[0]) == 10
    with SqliteLabelStore(old) as store:
        assert store.verify() == []
    assert read(old, *EVERYTHING) == before
    assert read(old, "PRAGMA user_version", "PRAGMA foreign_key_check") == [
        [(len(MIGRATIONS),)],
        [],
    ]


def test_an_old_file_is_read_without_being_changed(old: Path) -> None:
    before = old.read_bytes()
    with SqliteLabelStore(old, read_only=True) as store:
        states = [(label.verdict.value, label.state.value) for label in store.labels()]
        assert ("accept", "in force") in states
        assert ("accept", "undone") in states
        assert [step.id for step in store.steps(dataset=DATASET, user=USER)] == [*range(1, 9), 10]
        assert store.verify() == []
    assert old.read_bytes() == before


def test_old_events_go_on_as_before(old: Path) -> None:
    with SqliteLabelStore(old) as store:
        log = DecisionLog(store, user=USER, dataset=DATASET, version=VERSION)
        assert log.verdict(suggestion(1).id) is Verdict.ACCEPT
        with pytest.raises(LabelError, match="no event 11"):
            store.get(11)
        log.undo(idempotency_key="new")
        assert store.get(11).target == 10
        assert store.find("undo-2").id == 8


@pytest.mark.parametrize(
    "statement", ["DELETE FROM events", "UPDATE events SET user = 'eve'", "DELETE FROM event_sites"]
)
def test_a_migrated_file_only_grows(old: Path, statement: str) -> None:
    SqliteLabelStore(old).close()
    with (
        closing(sqlite3.connect(old)) as conn,
        pytest.raises(sqlite3.IntegrityError, match="only grows"),
    ):
        conn.execute(statement)


def test_a_migrated_file_has_the_layout_of_a_new_one(old: Path, tmp_path: Path) -> None:
    SqliteLabelStore(old).close()
    SqliteLabelStore(tmp_path / "new.sqlite").close()
    layout = "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"
    assert read(old, layout) == read(tmp_path / "new.sqlite", layout)


def test_ids_that_were_given_once_are_not_given_again(old: Path) -> None:
    with closing(sqlite3.connect(old)) as conn:
        conn.execute("UPDATE sqlite_sequence SET seq = 40")
        conn.commit()
    with SqliteLabelStore(old) as store:
        log = DecisionLog(store, user=USER, dataset=DATASET, version=VERSION)
        assert log.undo(idempotency_key="new").id == 41


def test_a_file_with_a_dangling_reference_is_not_migrated(old: Path) -> None:
    with closing(sqlite3.connect(old)) as conn:
        conn.execute("DROP TRIGGER events_no_delete")
        conn.execute("DELETE FROM events WHERE id = 5")
        conn.commit()
    before = read(old, EVENTS)
    with pytest.raises(LabelError, match="missing row"):
        SqliteLabelStore(old)
    assert read(old, EVENTS, "PRAGMA user_version") == [*before, [(1,)]]


def test_references_are_enforced_after_a_migration(old: Path) -> None:
    with closing(sqlite3.connect(old, isolation_level=None)) as conn:
        conn.execute("PRAGMA foreign_keys = ON")
        migrate(conn)
        assert conn.execute("PRAGMA foreign_keys").fetchone() == (1,)
        assert schema.schema_version(conn) == len(MIGRATIONS)
