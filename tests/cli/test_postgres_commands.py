"""Every command that reads labels, on a team's database."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from label_makers import DATASET, USER, VERSION, decision, queue_item, suggestion

from cb2_assist.core.records import Verdict
from cb2_assist.decisions.labels import open_labels
from cb2_assist.labels.queue_store import Scope
from cb2_assist.labels.store import NewEvent, labels_url, open_store
from cb2_assist.labels.team import journal_of
from cb2_assist.labels.team_url import team_url

pytestmark = pytest.mark.usefixtures("own_data_home")


@pytest.fixture
def url(postgres) -> str:
    """Two people, who differ on one of three sites; two more wait."""
    made = postgres.url(postgres.new_schema())
    with open_store(made) as store:
        scope = Scope(DATASET, VERSION)
        fill = store.queue.begin_fill(scope, None, "judge", 1, now=1e9)
        store.queue.put(fill.id, [queue_item(n) for n in range(5)], done=1, now=1e9)
        for n in range(3):
            store.append(NewEvent.of(decision(n)))
            verdict = Verdict.REJECT if n == 1 else Verdict.ACCEPT
            store.append(NewEvent.of(decision(n, verdict, user="bob", key=f"b{n}")))
    return made


def test_what_reads_labels_reads_a_team_s(call, url, tmp_path: Path) -> None:
    def document(*words: object) -> dict:
        code, out, err = call(*words, "--labels", url, "--json")
        assert (code, err) == (0, ""), words
        return json.loads(out)

    assert document("labels", "verify")["events"] == 6
    exported = document("export", "--out", tmp_path / "e", "--format", "jsonl")
    assert exported["rows"] == 6
    assert document("agreement")["all"]["n_disagree"] == 1
    assert document("report", "--out", tmp_path / "r")
    (part,) = document("queue", "status")["queues"]
    assert part["counts"]["open"]["join"] == 2
    assert document("queue", "overlap", "--share", "1")["new"] >= 2
    leased = document("queue", "next", "--lease", "--user", "cy")["next"]
    assert leased["id"] in {suggestion(n).id for n in range(5)}
    assert document("agreement", "--queue")["queued"] >= 0
    code, _, err = call("calibrate", "--dataset", DATASET, "--labels", url)
    assert code == 1
    assert "Not enough evidence" in err


def test_the_same_team_s_labels_are_not_compared_with_themselves(call, url) -> None:
    other = url.replace("postgresql://", "postgres://")
    code, _, err = call("agreement", "--labels", url, "--labels", other)
    assert code == 2
    assert "named twice" in err


def test_labels_go_to_a_team_and_come_back(call, postgres, url, tmp_path: Path) -> None:
    back = labels_url(tmp_path / "back.sqlite")
    code, out, err = call("labels", "copy", "--labels", url, "--to", back)
    assert (code, err) == (0, "")
    assert "6 events, 5 sites of the queue" in out
    there = postgres.url(postgres.new_schema())
    code, out, _ = call("labels", "copy", "--labels", back, "--to", there, "--json")
    assert (code, json.loads(out)["rows"]["events"]) == (0, 6)
    code, _, err = call("labels", "copy", "--labels", back, "--to", there)
    assert code == 1
    assert "hold something already" in err
    code, out, _ = call("labels", "backup", "--labels", url, "--out", tmp_path / "safe", "--json")
    assert (code, json.loads(out)["events"]) == (0, 6)
    with open_store(json.loads(out)["url"], read_only=True) as copy:
        assert len(list(copy.events())) == 6


def test_doctor_looks_at_a_team_s_labels(call, postgres, url) -> None:
    def labels(of: str) -> dict:
        _, out, _ = call("doctor", "--labels", of, "--json")
        return next(c for c in json.loads(out)["checks"] if c["name"] == "labels")

    found = labels(url)
    assert "6 events" in found["text"]
    assert "fsync" in found["advice"], "the test's server is as careless as it says"
    assert "first start" in labels(postgres.url(postgres.new_schema()))["text"]
    assert labels("postgresql://ada:s3cret@host/labels")["state"] == "fail"
    journal_of(team_url(url)).add([(NewEvent.of(decision(8)), None)])
    assert "1 verdicts wait" in labels(url)["text"]


@pytest.mark.parametrize("words", [("labels", "verify"), ("report",), ("queue", "status")])
def test_a_password_on_the_command_line_is_wrong_usage_and_not_repeated(call, words) -> None:
    code, out, err = call(*words, "--labels", "postgresql://ada:s3cret@host/labels")
    assert code == 2
    assert "CB2_LABELS_PASSWORD" in err
    assert "s3cret" not in out + err


def test_a_script_decides_beside_the_servers_of_a_team(url) -> None:
    with open_labels(url) as mine, open_labels(url) as other:
        assert mine.url == url
        assert [label.event.user for label in other].count(USER) == 3
