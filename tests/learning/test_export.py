"""Labels as files."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from label_makers import BIG, DATASET, USER, VERSION, decision, suggestion

from cb2_assist.core.edits import Edit, EditKind, EditRecord, EditState, EditStep
from cb2_assist.core.errors import AssistError, UsageError
from cb2_assist.core.records import Kind, Verdict
from cb2_assist.decisions.log import DecisionLog, alternative
from cb2_assist.labels.store import NewEvent, open_store
from cb2_assist.learning import export
from cb2_assist.learning.export import export_formats, export_labels
from cb2_assist.learning.export_rows import COLUMNS, label_rows, pseudonym


@pytest.fixture
def store(tmp_path: Path):
    with open_store(f"sqlite:///{tmp_path}/labels.sqlite") as opened:
        yield opened


@pytest.fixture
def log(store) -> DecisionLog:
    return DecisionLog(store, user=USER, dataset=DATASET, version=VERSION)


def rows_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "labels.jsonl").read_text().splitlines()]


def test_a_row_says_what_was_answered_and_on_what_evidence(store, log, tmp_path: Path) -> None:
    event = log.decide(decision(2, views_sha256="cd" * 32, rank=1))
    report = export_labels(store, out=tmp_path / "new" / "out")
    (row,) = rows_of(tmp_path / "new" / "out")
    s = suggestion(2)
    assert row == {
        "event_id": event.id,
        "label_id": row["label_id"],
        "suggestion_id": s.id,
        "kind": "join",
        "segment": str(BIG),
        "partner": str(BIG + 3),
        "point_nm": [102.5, 200.0, 300.0],
        "score": 0.8,
        "confidence": 0.6,
        "interval": [0.5, 0.7],
        "ood": {"percentile": 12.5, "flag": False},
        "rank": 1,
        "supervoxels": [str(BIG + 500), str(BIG + 501)],
        "views_sha256": "cd" * 32,
        "verdict": "accept",
        "label": 1,
        "reject_reason": None,
        "joint": False,
        "base_rate": {"value": 0.2, "source": "default", "n": 0},
        "dataset": DATASET,
        "version": VERSION,
        "species": "fly",
        "licence": "CC-BY-4.0",
        "model": {"name": "cb2a-tiny", "sha256": "ab" * 32},
        "calibrator": "cal-1",
        "user": pseudonym(USER, store.salt),
        "propensity": {"how": "cursor"},
        "score_hidden": False,
        "shown_at": "2026-01-02T03:04:05.000Z",
        "decided_at": "2026-01-02T03:04:06.000Z",
        "idle_ms": 250,
        "n_alternatives": 0,
        "timestamp": None,
        "cb2_split": "unknown",
        "note": None,
        "operation_id": None,
        "operations": [],
    }
    assert report.to_json() == {
        "rows": 1,
        "skipped": {},
        "files": [str(tmp_path / "new" / "out" / n) for n in ("labels.jsonl", "datasheet.md")],
        "notes": [],
    }
    assert tuple(row) == COLUMNS


def test_only_accept_and_reject_in_force_become_rows(store, log, tmp_path: Path) -> None:
    log.decide(decision(1, Verdict.ACCEPT))
    log.decide(decision(2, Verdict.REJECT, kind=Kind.CUT))
    log.decide(decision(3, Verdict.UNSURE))
    log.decide(decision(4, Verdict.SKIP))
    log.decide(decision(5, Verdict.ACCEPT))
    log.decide(decision(5, Verdict.REJECT))
    log.decide(decision(6, Verdict.ACCEPT))
    log.undo(idempotency_key="u")
    report = export_labels(store, out=tmp_path)
    assert [(r["verdict"], r["label"], r["kind"]) for r in rows_of(tmp_path)] == [
        ("accept", 1, "join"),
        ("reject", 0, "cut"),
        ("reject", 0, "join"),
    ]
    assert report.rows == 3
    assert report.skipped == {"skip": 1, "superseded": 1, "undone": 1, "unsure": 1}
    assert rows_of(tmp_path)[1]["partner"] is None


def test_what_was_applied_to_the_graph_leaves_with_its_numbers(store, log, tmp_path: Path) -> None:
    """Also what was taken back, once the person has answered again."""
    big = 2**53 + 1
    for n in (1, 2, 3):
        log.decide(decision(n, Verdict.ACCEPT))
    applied = applied_join(store, 1, big), applied_join(store, 2, big + 2)
    undo = replace(applied[1].edit, key="undo", kind=EditKind.UNDO, turns="join-2", operation=big)
    step = replace(applied[1].step, operation=7)
    taken_back = store.edits.advance(store.edits.add(undo), step)
    store.edits.advance(applied[1], replace(applied[1].step, state=EditState.UNDONE))
    log.decide(decision(2, Verdict.REJECT))
    export_labels(store, out=tmp_path)
    one, without, other = rows_of(tmp_path)
    at = applied[0].step.at
    ours = {"operation_id": str(big), "kind": "join", "turned": None, "at": at, "new_roots": []}
    assert (one["operation_id"], one["operations"]) == (str(big), [ours])
    assert (without["operation_id"], without["operations"]) == (None, [])
    assert (other["label"], other["operation_id"]) == (0, None)
    assert [(o["operation_id"], o["kind"], o["turned"]) for o in other["operations"]] == [
        (str(big + 2), "join", None),
        ("7", "undo", str(big)),
    ]
    assert other["operations"][1]["at"] == taken_back.step.at
    export_labels(store, out=tmp_path, format="csv")
    with (tmp_path / "labels.csv").open(encoding="utf-8", newline="") as file:
        cells = list(csv.DictReader(file))
    assert [c["operation_id"] for c in cells] == [str(big), "", ""]
    assert json.loads(cells[0]["operations"]) == [ours]


def applied_join(store, n: int, operation: int) -> EditRecord:
    """The edit of the n-th accept, made by the graph's server."""
    d = decision(n, Verdict.ACCEPT)
    site = d.suggestion.site
    edit = Edit(
        key=f"join-{n}",
        kind=EditKind.JOIN,
        user=d.user,
        dataset=d.dataset,
        version=d.version,
        site=d.suggestion.id,
        decision_key=d.idempotency_key,
        made_at=d.decided_at,
        point=site.point,
        segment=site.segment,
        partner=site.partner,
    )
    return store.edits.advance(
        store.edits.add(edit), EditStep(EditState.APPLIED, operation=operation)
    )


def test_a_flag_is_no_label_and_its_note_goes_with_the_person_s_answer(
    store, log, tmp_path: Path
) -> None:
    log.decide(decision(1, Verdict.FLAG, note="soma?"))
    log.decide(decision(2, Verdict.FLAG, note="=1+1"))
    log.decide(decision(2, Verdict.REJECT))
    store.append(NewEvent.of(decision(2, user="bob", key="bob")))
    assert export_labels(store, out=tmp_path).skipped == {"flag": 1, "superseded": 1}
    assert [(r["label"], r["note"]) for r in rows_of(tmp_path)] == [(0, "=1+1"), (1, None)]
    export_labels(store, out=tmp_path, format="csv")
    lines = (tmp_path / "labels.csv").read_text(encoding="utf-8").splitlines()
    assert lines[1].endswith(",'=1+1,,[]"), "no formula"


def test_none_is_a_reject_of_each_open_join_on_screen(store, log, tmp_path: Path) -> None:
    shown = (
        alternative(suggestion(0)),
        alternative(suggestion(1), views_sha256="ef" * 32, supervoxels=(BIG + 7, BIG + 8)),
        alternative(suggestion(2, Kind.CUT)),
        alternative(suggestion(3), verdict=Verdict.ACCEPT),
    )
    event = log.decide(decision(0, Verdict.NONE, joint=True, alternatives=shown))
    assert export_labels(store, out=tmp_path).rows == 2
    own, other = rows_of(tmp_path)
    assert own["suggestion_id"] == suggestion(0).id
    assert own["ood"] is not None
    assert other["suggestion_id"] == suggestion(1).id
    assert (other["segment"], other["partner"]) == (str(BIG), str(BIG + 2))
    assert other["point_nm"] == [101.5, 200.0, 300.0]
    assert (other["score"], other["confidence"], other["rank"]) == (0.8, 0.6, 1)
    assert (other["views_sha256"], other["supervoxels"][0]) == ("ef" * 32, str(BIG + 7))
    for row in (own, other):
        assert (row["verdict"], row["label"], row["joint"]) == ("reject", 0, True)
        assert (row["event_id"], row["n_alternatives"]) == (event.id, 4)


def test_joins_that_none_rejects_keep_how_each_came_to_be_asked(store, log, tmp_path: Path) -> None:
    drawn, came_along = {"how": "queue", "probability": 0.9}, {"how": "queue_list"}
    shown = (
        alternative(suggestion(0), propensity=drawn),
        alternative(suggestion(1), propensity=came_along),
    )
    answer = decision(0, Verdict.NONE, joint=True, alternatives=shown, propensity=drawn)
    log.decide(answer)
    export_labels(store, out=tmp_path)
    rows = rows_of(tmp_path)
    assert [r["propensity"] for r in rows] == [drawn, came_along]
    assert [r["ood"] for r in rows] == [{"percentile": 12.5, "flag": False}] * 2


def test_rivals_of_an_accepted_join_are_never_exported(store, log, tmp_path: Path) -> None:
    at = f"{BIG}@1,2,3"
    rivals = [replace(suggestion(n), joint=at) for n in range(3)]
    log.decide(decision(0, suggestion=rivals[0], alternatives=tuple(map(alternative, rivals))))
    shown = (
        alternative(rivals[0], verdict=Verdict.ACCEPT),
        *(alternative(s, implied=True) for s in rivals[1:]),
    )
    log.decide(decision(1, Verdict.REJECT, suggestion=rivals[1], alternatives=shown))
    assert export_labels(store, out=tmp_path).rows == 2
    assert {r["suggestion_id"]: r["label"] for r in rows_of(tmp_path)} == {
        rivals[0].id: 1,
        rivals[1].id: 0,
    }


def test_a_later_answer_takes_one_join_out_of_none(store, log, tmp_path: Path) -> None:
    shown = (alternative(suggestion(0)), alternative(suggestion(1)))
    log.decide(decision(0, Verdict.NONE, joint=True, alternatives=shown))
    log.decide(decision(1, Verdict.ACCEPT))
    report = export_labels(store, out=tmp_path)
    assert {r["suggestion_id"]: r["label"] for r in rows_of(tmp_path)} == {
        suggestion(0).id: 0,
        suggestion(1).id: 1,
    }
    assert report.skipped == {"superseded": 1}


def test_people_are_pseudonyms_unless_asked(store, log, tmp_path: Path) -> None:
    log.decide(decision(1))
    log.decide(decision(2))
    store.append(NewEvent.of(decision(1, key="b", user="bob")))
    export_labels(store, out=tmp_path)
    text = (tmp_path / "labels.jsonl").read_text()
    assert USER not in text
    assert "bob" not in text
    names = [r["user"] for r in rows_of(tmp_path)]
    assert names[0] == names[1] != names[2]
    export_labels(store, out=tmp_path, with_names=True)
    assert [r["user"] for r in rows_of(tmp_path)] == [USER, USER, "bob"]
    assert pseudonym(USER, b"another file") != pseudonym(USER, store.salt)


def test_one_dataset_can_be_chosen(store, tmp_path: Path) -> None:
    store.append(NewEvent.of(decision(1)))
    store.append(NewEvent.of(decision(2, dataset="other")))
    assert export_labels(store, out=tmp_path, dataset="other").rows == 1
    assert rows_of(tmp_path)[0]["dataset"] == "other"


def test_it_reads_beside_a_writer(store, log, tmp_path: Path) -> None:
    log.decide(decision(1))
    with open_store(store.url, read_only=True) as reader:
        rows = label_rows(reader, skipped=Counter())
        assert next(rows)["label"] == 1
        log.decide(decision(2))
        assert list(rows) == []
        assert export_labels(reader, out=tmp_path).rows == 2


def test_an_empty_log_makes_an_empty_file(store, tmp_path: Path) -> None:
    assert export_labels(store, out=tmp_path).rows == 0
    assert (tmp_path / "labels.jsonl").read_bytes() == b""


def test_a_failed_export_leaves_the_earlier_one(store, log, tmp_path, monkeypatch) -> None:
    out = tmp_path / "out"
    log.decide(decision(1))
    export_labels(store, out=out)
    before = (out / "labels.jsonl").read_bytes()
    log.decide(decision(2))

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export.os, "fsync", full)
    with pytest.raises(AssistError, match="No space left on device"):
        export_labels(store, out=out)
    assert (out / "labels.jsonl").read_bytes() == before
    assert sorted(path.name for path in out.iterdir()) == ["datasheet.md", "labels.jsonl"]


def test_a_file_in_place_of_the_folder_is_told(store, tmp_path: Path) -> None:
    (tmp_path / "labels.jsonl").touch()
    with pytest.raises(UsageError, match="names a folder"):
        export_labels(store, out=tmp_path / "labels.jsonl")


def test_an_unknown_format_is_told(store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Known: .*jsonl"):
        export_labels(store, out=tmp_path, format="parquet")


def test_two_formats_cannot_share_a_name() -> None:
    with pytest.raises(ValueError, match="already"):
        export.export_format("jsonl")(export.write_jsonl)


@pytest.mark.parametrize("name", export_formats())
def test_every_format_writes_what_it_says(store, log, tmp_path: Path, name: str) -> None:
    log.decide(decision(1))
    report = export_labels(store, out=tmp_path, format=name)
    # no views of it were kept, and one format is made of them
    left_out = {"no views kept": 1} if name.startswith("cb2-") else {}
    assert (report.rows, report.skipped) == (0 if left_out else 1, left_out)
    assert report.files
    assert all(path.stat().st_size > 0 for path in report.files)


def test_a_row_says_why_it_was_rejected(store, log, tmp_path: Path) -> None:
    log.decide(decision(1, Verdict.REJECT))
    log.give_reason(suggestion(1).id, "artefact", idempotency_key="r1")
    log.give_reason(suggestion(1).id, "other_neuron", idempotency_key="r2")
    log.decide(decision(2, Verdict.REJECT))
    export_labels(store, out=tmp_path)
    assert [r["reject_reason"] for r in rows_of(tmp_path)] == ["other_neuron", None]


def test_a_label_keeps_its_id_and_no_other_has_it(store, log, tmp_path: Path) -> None:
    log.decide(decision(1))
    log.decide(decision(2))
    store.append(NewEvent.of(decision(1, key="b", user="bob")))
    export_labels(store, out=tmp_path)
    ids = [r["label_id"] for r in rows_of(tmp_path)]
    assert len(set(ids)) == 3
    log.decide(decision(1, Verdict.REJECT))
    export_labels(store, out=tmp_path, with_names=True)
    again = {(r["user"], r["suggestion_id"]): r["label_id"] for r in rows_of(tmp_path)}
    assert again[USER, suggestion(1).id] == ids[0]


class TestCsv:
    @staticmethod
    def read(out: Path) -> tuple[list[str], list[dict[str, str]]]:
        """As the documentation says: one apostrophe off the front of every cell that has one."""
        with (out / "labels.csv").open(encoding="utf-8", newline="") as file:
            lines = [[cell.removeprefix("'") for cell in line] for line in csv.reader(file)]
        return lines[0], [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]

    def test_every_value_comes_back(self, store, log, tmp_path: Path) -> None:
        log.decide(decision(1, licence='CC-BY 4.0, "as is"\n(µ)', views_sha256="cd" * 32))
        log.decide(decision(2, Verdict.REJECT, kind=Kind.CUT))
        export_labels(store, out=tmp_path, format="csv")
        export_labels(store, out=tmp_path, format="jsonl")
        header, lines = self.read(tmp_path)
        assert tuple(header) == COLUMNS
        for line, row in zip(lines, rows_of(tmp_path), strict=True):
            for name, value in row.items():
                if isinstance(value, str):
                    assert line[name] == value
                else:
                    assert (json.loads(line[name]) if line[name] else None) == value
        assert lines[0]["segment"] == str(BIG)
        assert (tmp_path / "labels.csv").read_bytes().endswith(b"\r\n")

    @pytest.mark.parametrize(
        "evil", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "'=1", "＝1", '="a,b\n"']
    )
    def test_no_cell_is_a_formula(self, store, log, tmp_path: Path, evil: str) -> None:
        log.decide(decision(1, licence=evil, calibrator="plain"))
        export_labels(store, out=tmp_path, format="csv")
        with (tmp_path / "labels.csv").open(encoding="utf-8", newline="") as file:
            cells = [cell for line in csv.reader(file) for cell in line]
        assert f"'{evil}" in cells
        assert not [c for c in cells if c.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))]
        assert self.read(tmp_path)[1][0]["licence"] == evil
        assert "plain" in cells

    def test_no_labels_are_a_header(self, store, tmp_path: Path) -> None:
        assert export_labels(store, out=tmp_path, format="csv").rows == 0
        assert self.read(tmp_path) == (list(COLUMNS), [])
