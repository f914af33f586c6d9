"""Edits in a SQLite label file: the contract, and tables that only grow."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from contracts.edit_store import FULL, EditStoreContract, edit
from contracts.reopening import reopening

from cb2_assist.core.errors import LabelError
from cb2_assist.labels.edit_store import step_from_row, step_to_text
from cb2_assist.labels.schema import EDITS_SINCE, MIGRATIONS, migrate
from cb2_assist.labels.sqlite import SqliteLabelStore


class TestSqliteEdits(EditStoreContract):
    @pytest.fixture
    def reopen(self, tmp_path: Path):
        with reopening(lambda: SqliteLabelStore(tmp_path / "labels.sqlite")) as again:
            yield again


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE edits SET kind = 'cut'",
        "DELETE FROM edits",
        "UPDATE edit_steps SET state = 'applied'",
        "DELETE FROM edit_steps",
        "INSERT OR REPLACE INTO edit_steps (edit_key, number, state, body)"
        " VALUES ('edit-0', 1, 'applied', '{}')",
        "INSERT OR REPLACE INTO edits"
        " (key, kind, user, dataset, version, site, decision_key, body)"
        " VALUES ('edit-0', 'cut', 'a', 'b', 'c', 'd', 'e', '{}')",
    ],
)
def test_what_was_written_stays(tmp_path: Path, change: str) -> None:
    path = tmp_path / "labels.sqlite"
    with SqliteLabelStore(path) as store:
        store.edits.add(edit())
    conn = sqlite3.connect(path)
    try:
        with pytest.raises(sqlite3.IntegrityError, match="only grows"):
            conn.execute(change)
    finally:
        conn.close()


def test_a_file_of_before_there_were_edits_says_so_and_is_brought_up_to_date(
    tmp_path: Path,
) -> None:
    path = tmp_path / "labels.sqlite"
    conn = sqlite3.connect(path, isolation_level=None)
    migrate(conn, MIGRATIONS[: EDITS_SINCE - 1])
    conn.close()
    with (
        SqliteLabelStore(path, read_only=True) as old,
        pytest.raises(LabelError, match="keeps no edits"),
    ):
        _ = old.edits
    with SqliteLabelStore(path) as store:
        assert store.edits.add(edit()).edit == edit()


def test_damaged_text_is_said_to_be_damaged(tmp_path: Path) -> None:
    path = tmp_path / "labels.sqlite"
    with SqliteLabelStore(path) as store:
        store.edits.add(edit())
    conn = sqlite3.connect(path)
    conn.execute("DROP TRIGGER edit_steps_no_update")
    conn.execute("UPDATE edit_steps SET body = '{'")
    conn.commit()
    conn.close()
    with SqliteLabelStore(path) as store:
        with pytest.raises(LabelError, match="cannot be read"):
            store.edits.get("edit-0")
        assert any("The stored edit edit-0" in problem for problem in store.verify())


def test_a_step_of_before_sides_could_come_later_is_read() -> None:
    body = json.loads(step_to_text(FULL))
    del body["sides_nm"]
    read = step_from_row("edit-0", 1, "applied", None, json.dumps(body))
    assert (read.sides, read.anchors) == (None, FULL.anchors)
