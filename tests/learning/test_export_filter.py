"""Which labels an export takes, and what its datasheet says of them."""

from __future__ import annotations

import json
import random
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from label_makers import DATASET, USER, VERSION, decision, suggestion

from cb2_assist.core.errors import UsageError
from cb2_assist.core.records import Kind, LabelEvent, Verdict
from cb2_assist.labels.store import Label, LabelState, NewEvent, open_store
from cb2_assist.learning.cb2_cubes import read_cubes
from cb2_assist.learning.cb2_files import write_cb2_files
from cb2_assist.learning.cb2_layout import CB2_V1
from cb2_assist.learning.cb2_split import Sample
from cb2_assist.learning.export import export_labels
from cb2_assist.learning.export_filter import TEST_CUBE, Wanted, read_time
from cb2_assist.learning.export_rows import pseudonym


@pytest.fixture
def store(tmp_path: Path):
    """Ada, early and free; bob, late, not commercial and of another model."""
    with open_store(f"sqlite:///{tmp_path}/labels.sqlite") as opened:
        opened.append(NewEvent.of(decision(1)))
        opened.append(
            NewEvent.of(
                decision(
                    1,
                    Verdict.REJECT,
                    key="b",
                    user="bob",
                    licence="CC-BY-NC-4.0",
                    model_name="other",
                    model_sha256="cd" * 32,
                    shown_at="2026-05-02T00:00:09+02:00",
                    decided_at="2026-05-02T00:00:00+02:00",
                    score_hidden=True,
                    propensity={"how": "queue", "explore": True, "probability": 0.1, "draw": 1},
                )
            )
        )
        yield opened


def taken(store, tmp_path: Path, **wanted) -> tuple[list[str], dict[str, int]]:
    report = export_labels(store, out=tmp_path / "out", wanted=Wanted(**wanted), with_names=True)
    lines = (tmp_path / "out" / "labels.jsonl").read_text().splitlines()
    return [json.loads(line)["user"] for line in lines], report.skipped


@pytest.mark.parametrize(
    ("wanted", "who", "why"),
    [
        ({"users": ("bob",)}, ["bob"], "of another person"),
        ({"licences": ("cc-by-4.0",)}, [USER], "of another licence"),
        ({"licences": ("CC-BY*",), "not_licences": ("*nc*",)}, [USER], "of a licence that"),
        ({"models": ("other",)}, ["bob"], "of another model"),
        ({"models": ("ABABAB",)}, [USER], "of another model"),
        ({"since": read_time("2026-05-01", "--since")}, ["bob"], "decided before --since"),
        # 22:00 UTC the day before
        ({"until": read_time("2026-05-01T22:00", "--until")}, [USER], "decided at --until"),
    ],
)
def test_what_was_not_asked_for_is_left_out_and_counted(store, tmp_path, wanted, who, why) -> None:
    users, skipped = taken(store, tmp_path, **wanted)
    assert users == who
    ((reason, n),) = skipped.items()
    assert reason.startswith(why)
    assert n == 1


def test_a_person_can_be_named_by_the_pseudonym(store, tmp_path) -> None:
    assert taken(store, tmp_path, users=(pseudonym("bob", store.salt),))[0] == ["bob"]


def test_a_row_in_a_test_cube_never_leaves_and_others_say_where_they_are(store, tmp_path) -> None:
    store.append(NewEvent.of(decision(900)))
    table = tmp_path / "cubes.csv"
    table.write_text(
        f"dataset,x0_nm,y0_nm,z0_nm,x1_nm,y1_nm,z1_nm,split\n{DATASET},0,0,0,500,500,500,test\n"
    )
    report = export_labels(store, out=tmp_path, wanted=Wanted(cubes=read_cubes(table)))
    assert report.skipped == {TEST_CUBE: 2}
    (row,) = (json.loads(x) for x in (tmp_path / "labels.jsonl").read_text().splitlines())
    assert row["cb2_split"] == "unknown"
    sheet = (tmp_path / "datasheet.md").read_text()
    assert f"| {TEST_CUBE} | 2 |" in sheet
    assert "For 1 it is not known in which part" in sheet


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "", "1767225600"])
def test_a_time_that_is_none_is_told(text) -> None:
    with pytest.raises(UsageError, match=r"--since takes a date"):
        read_time(text, "--since")


def test_a_dataset_without_labels_is_told_with_those_that_there_are(store, tmp_path) -> None:
    report = export_labels(store, out=tmp_path, dataset="hemibrain")
    (note,) = report.notes
    assert "no labels of a dataset 'hemibrain'; it has those of demo" in note
    assert export_labels(store, out=tmp_path, dataset=DATASET).notes == ()


class TestDatasheet:
    def test_it_says_who_decided_what_and_how_it_was_asked(self, store, tmp_path) -> None:
        store.append(NewEvent.of(decision(2, Verdict.UNSURE)))
        export_labels(store, out=tmp_path)
        sheet = (tmp_path / "datasheet.md").read_text()
        assert "2 labels in the format `jsonl`" in sheet
        for line in (
            "| join | 1 | 1 | 50.0 % |",
            f"| {pseudonym('bob', store.salt)} | 1 | 50.0 % |",
            f"| {DATASET}, {VERSION} | 2 | 100.0 % |",
            "| CC-BY-NC-4.0 | 1 | 50.0 % |",
            "| where a person pointed | 1 | 50.0 % |",
            "| drawn by the queue, at random | 1 | 50.0 % |",
            "| hidden until the answer | 1 | 50.0 % |",
            "| unsure | 1 |",
            "- decided: 2026-01-02 to 2026-05-01",
        ):
            assert line in sheet.splitlines() or f"{line} (UTC" in sheet, line
        assert "Not for commercial use: CC-BY-NC-4.0" in sheet
        assert "In 1 the clock ran backwards" in sheet
        assert "bob" not in sheet
        assert USER not in sheet

    def test_text_from_labels_is_no_markup(self, store, tmp_path) -> None:
        store.append(NewEvent.of(decision(3, species="fly", licence="a|b\n# <b>c")))
        export_labels(store, out=tmp_path)
        assert r"| a\|b # \<b>c | 1 |" in (tmp_path / "datasheet.md").read_text()

    def test_one_that_another_program_made_is_never_replaced(self, store, tmp_path) -> None:
        (tmp_path / "datasheet.md").write_text("# mine\n")
        with pytest.raises(UsageError, match=r"datasheet\.md was not made by this program"):
            export_labels(store, out=tmp_path)
        assert (tmp_path / "datasheet.md").read_text() == "# mine\n"
        assert not (tmp_path / "labels.jsonl").exists()

    def test_no_labels_make_a_sheet_too(self, tmp_path) -> None:
        with open_store(f"sqlite:///{tmp_path}/none.sqlite") as empty:
            export_labels(empty, out=tmp_path, format="csv")
        assert "0 labels in the format `csv`" in (tmp_path / "datasheet.md").read_text()


class Endless:
    """As much of a store as an export reads, without a file."""

    salt, url = b"salt", "memory"

    def __init__(self, n: int, folder: Path) -> None:
        self.views_folder, self._n = folder, n

    @property
    def edits(self) -> Endless:
        return self

    def flags(self, *, dataset=None):  # noqa: ARG002
        return iter(())

    def operations(self, dataset=None):  # noqa: ARG002
        return {}

    def labels(self, *, dataset=None):  # noqa: ARG002
        """Every label is made when it is asked for."""
        plain = decision(1)
        for n in range(self._n):
            s = replace(suggestion(1, Kind.CUT), id=f"{n:016x}")
            d = replace(plain, suggestion=s, idempotency_key=str(n))
            event = LabelEvent(n, "decision", None, plain.decided_at, USER, str(n), d)
            yield Label(event, s.id, Verdict.ACCEPT, LabelState.IN_FORCE)


def test_memory_does_not_grow_with_the_number_of_rows_with_views(tmp_path) -> None:
    """Images go through a spool on disk; `examples/export_many.py` measures 5,000 rows."""

    def peak(n: int) -> int:
        rng = random.Random(n)
        rows = (
            ({"geometry": rng.randbytes(100_000)}, Sample(f"{k:016x}", (f"d/{k}",)))
            for k in range(n)
        )
        plain, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
        out = tmp_path / str(n)
        out.mkdir()
        pa.set_memory_pool(pool)
        try:
            _, split = write_cb2_files(rows, out, {}, CB2_V1)
        finally:
            pa.set_memory_pool(plain)
        assert len(split.train) + len(split.val) == n
        return pool.max_memory()

    fewer, more = peak(40), peak(400)
    assert more < fewer + 2_000_000, "twenty more rows would show, these are 360"


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_memory_does_not_grow_with_the_number_of_labels(tmp_path, form) -> None:
    """Ten times as many need no more. `examples/export_many.py` measures a million."""

    def peak(n: int) -> int:
        tracemalloc.start()
        try:
            assert export_labels(Endless(n, tmp_path), out=tmp_path, format=form).rows == n
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(50)
    fewer, more = peak(300), peak(3000)
    assert more < fewer + 60_000, "22 bytes a label would show"
    lines = (tmp_path / f"labels.{form}").read_text().splitlines()
    assert len(lines) == 3000 + (form == "csv")
