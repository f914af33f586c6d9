"""`agreement`, `queue overlap`, `report` and the filters of `export` on the command line."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from label_makers import DATASET, USER, VERSION, decision, queue_item, suggestion

from cb2_assist.core.records import Verdict
from cb2_assist.labels.queue_store import Scope
from cb2_assist.labels.schema import MIGRATIONS
from cb2_assist.labels.store import NewEvent, labels_url, open_store

pytestmark = pytest.mark.usefixtures("own_data_home")

COMMANDS = {
    "agreement": ("agreement",),
    "report": ("report",),
    "export": ("export", "--out", "{out}"),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Two people, who differ on one of three sites."""
    made = tmp_path / "mine.sqlite"
    with open_store(labels_url(made)) as store:
        for n in range(3):
            store.append(NewEvent.of(decision(n)))
            verdict = Verdict.REJECT if n == 1 else Verdict.ACCEPT
            store.append(NewEvent.of(decision(n, verdict, user="bob", key=f"b{n}")))
    return made


def test_agreement_queues_what_people_disagree_on_and_q_finds_it(call, path, tmp_path) -> None:
    url = labels_url(path)
    code, out, err = call(
        "agreement", "--labels", url, "--queue", "--json", "--out", tmp_path / "out"
    )
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert (document["all"]["n_disagree"], document["queued"]) == (1, 1)
    assert USER not in json.dumps(document["people"])
    lines = (tmp_path / "out" / "consensus.jsonl").read_text().splitlines()
    assert sorted(json.loads(x)["consensus"] for x in lines) == ["accept", "accept", "tie"]
    assert (tmp_path / "out" / "agreement.md").read_text().startswith("# Agreement")

    code, out, _ = call("queue", "next", "--labels", url, "--user", "cy", "--json")
    found = json.loads(out)["next"]
    assert found["id"] == suggestion(1).id
    assert json.loads(found["propensity"]["scope"]) == {"source": "disagreements"}
    assert "nothing waits" in call("queue", "next", "--labels", url, "--user", "bob")[1]
    assert "again         1 joins" in call("queue", "status", "--labels", url)[1]


def test_agreement_of_two_files_reads_both_and_refuses_one_twice(call, path, tmp_path) -> None:
    other = labels_url(tmp_path / "other.sqlite")
    with open_store(other) as store:
        store.append(NewEvent.of(decision(0, Verdict.REJECT, user="cy")))
    code, out, _ = call(
        "agreement", "--labels", labels_url(path), "--labels", other, "--with-names"
    )
    assert code == 0
    assert "7 answers of 3 people on 3 sites" in out
    assert "ada / cy" in out
    code, _, err = call("agreement", "--labels", other, "--labels", other)
    assert code == 2
    assert "named twice" in err


def test_overlap_asks_a_share_of_the_queue_of_two(call, path) -> None:
    url = labels_url(path)
    code, _, err = call("queue", "overlap", "--labels", url)
    assert code == 2
    assert "has nothing" in err
    with open_store(url) as store:
        scope = Scope(DATASET, VERSION)
        fill = store.queue.begin_fill(scope, None, "j", 1, now=1.0)
        store.queue.put(fill.id, [queue_item(n) for n in range(10, 40)], done=1, now=1.0)
    code, out, _ = call("queue", "overlap", "--labels", url, "--share", "0.5", "--json")
    assert code == 0
    assert 5 <= json.loads(out)["new"] <= 25


def test_a_report_is_one_document_and_files(call, path, tmp_path) -> None:
    code, out, err = call("report", "--labels", labels_url(path), "--out", tmp_path / "r", "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["label_counts"]["n"] == 6
    assert {Path(f).name for f in document["files"]} >= {"report.json", "report.md"}
    assert json.loads((tmp_path / "r" / "report.json").read_text())["n_people"] == 2
    code, out, _ = call("report", "--labels", labels_url(path))
    assert out.startswith("# Report on all datasets")


def test_export_takes_filters_and_says_what_they_left_out(call, path, tmp_path) -> None:
    base = ("export", "--labels", labels_url(path), "--out", tmp_path / "e")
    code, out, _ = call(*base, "--user", "bob", "--licence", "cc-*", "--since", "2026-01-01")
    assert code == 0
    assert "3 labels written" in out
    assert "3 answers left out: of another person" in out
    assert "datasheet.md" in out
    code, _, err = call(*base, "--until", "soon")
    assert (code, err.count("\n")) == (2, 1)
    assert "--until takes a date" in err
    code, _, err = call(*base, "--cb2-cubes", tmp_path / "none.csv")
    assert code == 2


@pytest.mark.parametrize("name", COMMANDS)
class TestBadInput:
    def words(self, name: str, path: Path, tmp_path: Path) -> list[str]:
        given = [w.format(out=tmp_path / "out") for w in COMMANDS[name]]
        return [*given, "--labels", labels_url(path)]

    def refused(self, call, name, path, tmp_path, reason) -> None:
        code, out, err = call(*self.words(name, path, tmp_path))
        assert (code, out) == (1, "")
        assert err.count("\n") == 1
        assert reason in err
        assert "Traceback" not in err

    def test_a_truncated_database_is_told_and_left_as_it_is(
        self, call, name, path, tmp_path
    ) -> None:
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        self.refused(call, name, path, tmp_path, "is damaged")
        assert path.read_bytes() == whole[: len(whole) // 2]

    def test_a_database_newer_than_the_program_is_told(self, call, name, path, tmp_path) -> None:
        with closing(sqlite3.connect(path)) as conn:
            conn.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
        self.refused(call, name, path, tmp_path, "newer cb2-assist")

    def test_no_file_is_told_and_none_is_made(self, call, name, tmp_path) -> None:
        self.refused(call, name, tmp_path / "none.sqlite", tmp_path, "There is no label file")
        assert not (tmp_path / "none.sqlite").exists()


def test_labels_of_another_dataset_are_told(call, path, tmp_path) -> None:
    url = labels_url(path)
    _, out, _ = call("export", "--labels", url, "--dataset", "other", "--out", tmp_path / "e")
    assert f"no labels of a dataset 'other'; it has those of {DATASET}" in out
    _, out, _ = call("agreement", "--labels", url, "--dataset", "other")
    assert "No site was answered by two people (0 answered any)" in out
    _, out, _ = call("report", "--labels", url, "--dataset", "other")
    assert "There is no accept or reject in force yet." in out
