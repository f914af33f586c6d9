"""`export`, `labels backup` and `labels verify` on the command line."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from label_makers import DATASET, USER, VERSION, decision, suggestion

from cb2_assist.core.records import Verdict
from cb2_assist.decisions.log import DecisionLog
from cb2_assist.labels.store import labels_url, open_store

pytestmark = pytest.mark.usefixtures("own_data_home")


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = labels_url(tmp_path / "mine.sqlite")
    with open_store(url) as store:
        log = DecisionLog(store, user=USER, dataset=DATASET, version=VERSION)
        log.decide(decision(1, Verdict.REJECT))
        log.give_reason(suggestion(1).id, "artefact", idempotency_key="r")
    return url


def test_a_backup_says_how_to_open_it(call, url, tmp_path) -> None:
    code, out, err = call("labels", "backup", "--labels", url, "--out", tmp_path / "copy")
    assert (code, err) == (0, "")
    copy = labels_url(tmp_path / "copy" / "labels.sqlite")
    assert f"--labels {copy}" in out
    assert call("labels", "verify", "--labels", copy)[0] == 0
    code, out, _ = call("export", "--labels", copy, "--out", tmp_path / "rows", "--json")
    assert (code, json.loads(out)["rows"]) == (0, 1)
    (row,) = (tmp_path / "rows" / "labels.jsonl").read_text().splitlines()
    assert json.loads(row)["reject_reason"] == "artefact"


def test_a_backup_into_something_is_wrong_usage(call, url, tmp_path) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "x").touch()
    code, out, err = call("labels", "backup", "--labels", url, "--out", tmp_path / "copy")
    assert (code, out) == (2, "")
    assert "never overwrites" in err
    assert err.count("\n") == 1


def test_verify_prints_one_document_and_fails_with_a_reason(call, url, tmp_path) -> None:
    code, out, err = call("labels", "verify", "--labels", url, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "url": url,
        "events": 2,
        "views": 0,
        "ok": True,
        "problems": [],
        "notes": [],
    }
    with closing(sqlite3.connect(tmp_path / "mine.sqlite")) as conn:
        conn.execute("DROP TRIGGER events_no_update")
        conn.execute("DROP TRIGGER events_no_delete")
    code, out, err = call("labels", "verify", "--labels", url, "--json")
    assert code == 1
    assert json.loads(out)["ok"] is False
    assert len(json.loads(out)["problems"]) == 2
    assert err == (
        "cb2-assist: Something is wrong with these labels: the trigger events_no_update is missing "
        "(and 1 more)\n"
    )


def test_verify_says_what_it_does_not_see(call, url, tmp_path) -> None:
    with closing(sqlite3.connect(tmp_path / "mine.sqlite")) as conn:
        (guard,) = conn.execute(
            "SELECT sql FROM sqlite_master WHERE name = 'events_no_update'"
        ).fetchone()
        conn.execute("DROP TRIGGER events_no_update")
        conn.execute("UPDATE events SET recorded_at = '1999-01-01T00:00:00.000Z' WHERE id = 1")
        conn.execute(guard)
        conn.commit()
    assert call("labels", "verify", "--labels", url)[0] == 0
    words = " ".join(call("labels", "verify", "--help")[1].split())
    assert "not every change that somebody made on purpose" in words
    assert "a time of recording" in words


@pytest.mark.parametrize("command", [("export", "--out", "x"), ("labels", "verify")])
def test_which_labels_must_be_said(call, command) -> None:
    code, out, err = call(*command)
    assert (code, out) == (2, "")
    assert "Say which labels" in err


def test_a_newer_file_is_refused_in_one_line(call, url, tmp_path) -> None:
    with closing(sqlite3.connect(tmp_path / "mine.sqlite")) as conn:
        conn.execute("PRAGMA user_version = 99")
    for command in (
        ("labels", "verify"),
        ("labels", "backup", "--out", tmp_path / "copy"),
        ("export", "--out", tmp_path / "rows"),
    ):
        code, out, err = call(*command, "--labels", url)
        assert (code, out) == (1, "")
        assert "newer cb2-assist" in err
        assert err.count("\n") == 1


def test_export_makes_views_again_from_a_dataset_file(
    call, tmp_path, neurites_file, tiny_model_folder
) -> None:
    from proofread import Proofreader

    from cb2_assist.app import DatasetChoice, build_assistant
    from cb2_assist.core.records import Kind
    from cb2_assist.labels.store import default_labels_url

    assistant = build_assistant(
        DatasetChoice(file=neurites_file), model=tiny_model_folder, device="cpu", threads=1
    )
    with open_store(default_labels_url("neurites")) as store:
        person = Proofreader(assistant, store)
        person.decide(person.first(Kind.JOIN), Verdict.ACCEPT, keep_views=False)
    assistant.close()
    where = ("--dataset-file", neurites_file, "--model", tiny_model_folder)
    code, out, err = call(
        "export", *where, "--format", "cb2-v1", "--out", tmp_path / "out", "--json"
    )
    assert (code, err) == (0, "")
    assert (json.loads(out)["rows"], json.loads(out)["skipped"]) == (1, {})
    # the model is not the one that the label names, and the name is no known dataset
    code, out, err = call(
        "export", "--dataset-file", neurites_file, "--format", "cb2-v1", "--out", tmp_path / "b"
    )
    assert code == 0
    assert "0 labels written" in out
    assert "1 answers left out: no views kept, and made with another model than --model" in out
    code, out, err = call(
        "export", "--dataset", "neurites", "--model", tiny_model_folder,
        "--format", "cb2-v1", "--out", tmp_path / "c",
    )  # fmt: skip
    assert code == 0
    assert "the dataset cannot be opened" in out
    assert "There is no dataset 'neurites'" in err
