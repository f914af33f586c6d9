"""Edits that people made, as decisions: each is what was done, whatever goes wrong meanwhile."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from beads import bead_dataset
from cave_worlds import own_home
from histories import ADA, BEN, History, history, middle

from cb2_assist.core.errors import DatasetError, NoAnswerError, UsageError
from cb2_assist.core.geometry import PointNm
from cb2_assist.datasets.cave.history import History as CaveHistory
from cb2_assist.datasets.local import open_dataset_file
from cb2_assist.learning import harvest_edits
from cb2_assist.learning.export_rows import pseudonym
from cb2_assist.learning.harvest import NOT_READ, Harvest, Progress, Report, Wanted
from cb2_assist.standin.faults import Fault
from cb2_assist.standin.served import Served, make_served

SALT = b"salt"


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory) -> Iterator[pytest.MonkeyPatch]:
    with own_home(tmp_path_factory.mktemp("home")) as patch:
        yield patch


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("beads")
    local = open_dataset_file(bead_dataset(folder / "d"))
    yield make_served(local, folder / "ws")
    local.close()


@pytest.fixture
def world(served, tmp_path) -> Iterator[History]:
    with history(served, tmp_path) as made:
        yield made


def run(
    world: History, out: Path, *beads: tuple[int, int, int], **options: object
) -> tuple[Report, list[dict]]:
    """Harvest the past of the objects that hold some beads; the report and the decisions."""
    work = begin(world, out, *beads, **options)
    try:
        return work.run(), list(work.rows())
    finally:
        work.close()


def begin(world: History, out: Path, *beads: tuple[int, int, int], **options) -> Harvest:
    near_nm, controls = options.pop("near_nm", 20.0), options.pop("controls", 3)
    since = options.pop("since", None)
    roots = options.pop("roots", None) or tuple(dict.fromkeys(world.root(b) for b in beads))
    wanted = Wanted(roots, since, near_nm, controls, SALT)
    until = datetime.fromisoformat(world.source.timestamp)
    pauses = options.pop("pauses_s", (0.0, 0.0))
    return Harvest(world.source.history, world.source.info, wanted, out, until, pauses_s=pauses)


def of_type(rows: list[dict], name: str) -> list[dict]:
    return [r for r in rows if r["sample_type"] == name]


def test_a_merge_is_two_objects_as_they_were_before_it(world, tmp_path) -> None:
    a, b = (0, 0, 2), (1, 0, 2)
    before = world.root(a), world.root(b)
    number = world.merge(a, b, by=BEN)
    report, rows = run(world, tmp_path / "h", a)
    (edit,) = of_type(rows, "merge_edit")
    assert (edit["kind"], edit["verdict"], edit["label"]) == ("join", "accept", 1)
    assert (int(edit["segment"]), int(edit["partner"])) == before
    assert edit["operation_id"] == str(number)
    assert PointNm.of(edit["point_nm"]).distance_nm(PointNm(200.0, 105.0, 505.0)) < 60.0
    assert edit["touching"]
    assert [int(s) for s in edit["supervoxels"]] == [world.part(a), world.part(b)]
    assert edit["user"] == pseudonym(BEN.user_id, SALT) != pseudonym(ADA.user_id, SALT)
    assert (edit["dataset"], edit["species"], edit["licence"]) == ("beads", "fly", "CC0 1.0")
    state = datetime.fromisoformat(edit["timestamp"])
    assert datetime.fromisoformat(edit["edited_at"]) - state == timedelta(milliseconds=1)
    world.source.read_at(state)
    assert world.source.segment_at(middle(a)) == before[0]
    assert (report.edits, report.used) == (1, 1)


def test_the_seam_of_a_merge_is_no_place_to_cut_right_after_it(world, tmp_path) -> None:
    a, b = (0, 0, 2), (1, 0, 2)
    world.merge(a, b)
    made = world.root(a)
    _, rows = run(world, tmp_path / "h", a)
    (control,) = of_type(rows, "junction_control")
    assert (control["kind"], control["verdict"], control["partner"]) == ("cut", "reject", None)
    assert int(control["segment"]) == made
    assert control["point_nm"] == of_type(rows, "merge_edit")[0]["point_nm"]
    world.source.read_at(datetime.fromisoformat(control["timestamp"]))
    assert world.source.segment_at(middle(b)) == made


def test_a_split_is_one_object_before_it_and_two_sides_after(world, tmp_path) -> None:
    a, b = (0, 0, 2), (1, 0, 2)
    world.merge(a, b)
    whole = world.root(a)
    number = world.split(a, b, by=BEN)
    sides = world.root(a), world.root(b)
    report, rows = run(world, tmp_path / "h", a, b)
    (edit,) = rows
    assert edit["sample_type"] == "split_edit"
    assert (edit["kind"], edit["verdict"], edit["partner"]) == ("cut", "accept", None)
    assert (int(edit["segment"]), edit["operation_id"]) == (whole, str(number))
    assert tuple(map(int, edit["sides"])) == sides
    assert PointNm.of(edit["point_nm"]).distance_nm(PointNm(200.0, 105.0, 505.0)) < 60.0
    assert edit["sources_nm"] == [middle(a).to_json()]
    assert edit["sinks_nm"] == [middle(b).to_json()]
    world.source.read_at(datetime.fromisoformat(edit["timestamp"]))
    assert world.source.segment_at(middle(b)) == whole
    # the merge was contradicted, and so no control beside it counts either
    assert report.left_out == {harvest_edits.CUT_APART: 1}


def test_controls_touch_one_of_the_two_and_are_still_apart(world, tmp_path) -> None:
    a, b = (0, 0, 2), (1, 0, 2)
    before = {world.root(a), world.root(b)}
    world.merge(a, b)
    _, rows = run(world, tmp_path / "h", a)
    controls = of_type(rows, "adjacent_control")
    assert len(controls) == 3
    touching = {
        world.root(bead): bead
        for bead in ((0, 1, 2), (1, 1, 2), (2, 0, 2), (0, 0, 1), (1, 0, 1), (0, 0, 3), (1, 0, 3))
    }
    for control in controls:
        assert (control["kind"], control["verdict"]) == ("join", "reject")
        assert int(control["segment"]) in before
        bead = touching[int(control["partner"])]
        assert middle(bead).distance_nm(PointNm.of(control["point_nm"])) < 150.0
    assert len({c["id"] for c in rows}) == len(rows)


def test_a_neighbour_that_was_joined_later_is_no_control(world, tmp_path) -> None:
    a, b = (0, 0, 2), (1, 0, 2)
    first = world.merge(a, b)
    neighbours = [(0, 1, 2), (1, 1, 2), (2, 0, 2), (0, 0, 1), (1, 0, 1), (0, 0, 3), (1, 0, 3)]
    roots = {bead: world.root(bead) for bead in neighbours}
    for bead in neighbours[:3]:
        world.merge(a if bead[0] == 0 else b, bead)
    report, rows = run(world, tmp_path / "h", a, controls=16)
    partners = {
        int(r["partner"])
        for r in of_type(rows, "adjacent_control")
        if r["operation_id"] == str(first)
    }
    assert partners == {roots[bead] for bead in neighbours[3:]}
    assert report.left_out[harvest_edits.CONTROL_JOINED] >= 3
    assert report.by_type["merge_edit"] == 4


def test_a_neighbour_that_was_cut_later_is_no_clean_control(world, tmp_path) -> None:
    a, b, c, far = (0, 0, 2), (1, 0, 2), (2, 0, 2), (2, 1, 2)
    world.merge(c, far)
    neighbour = world.root(c)
    world.merge(a, b)
    world.split(c, far)
    report, rows = run(world, tmp_path / "h", a, controls=16)
    found = {int(r["partner"]) for r in of_type(rows, "adjacent_control")}
    assert len(found) > 3
    assert neighbour not in found
    assert report.left_out[harvest_edits.CONTROL_CUT] == 1


def test_what_is_cut_near_a_merge_later_casts_doubt_on_it(world, tmp_path) -> None:
    a, b, c = (0, 0, 2), (1, 0, 2), (2, 0, 2)
    number = world.merge(a, b)
    world.merge(b, c)
    world.split(b, c)
    _, rows = run(world, tmp_path / "far", a)
    assert [r["operation_id"] for r in of_type(rows, "merge_edit")] == [str(number)]
    report, rows = run(world, tmp_path / "near", a, near_nm=2500.0)
    assert not of_type(rows, "merge_edit") + of_type(rows, "junction_control")
    assert report.left_out[harvest_edits.CUT_NEAR] == 1


def test_what_was_undone_is_no_answer_and_what_was_redone_is_one(world, tmp_path) -> None:
    undone, redone, again = (0, 0, 0), (0, 0, 2), (0, 0, 4)
    beside = {bead: (1, *bead[1:]) for bead in (undone, redone, again)}
    gone = world.merge(undone, beside[undone])
    world.undo(gone, by=BEN)
    kept = world.merge(redone, beside[redone])
    world.undo(kept)
    world.redo(kept, by=BEN)
    # undone, then made once more by hand: the first stays undone
    first = world.merge(again, beside[again])
    world.undo(first)
    second = world.merge(again, beside[again], by=BEN)
    report, rows = run(world, tmp_path / "h", undone, beside[undone], redone, again)
    assert {r["operation_id"] for r in of_type(rows, "merge_edit")} == {str(kept), str(second)}
    assert not {str(gone), str(first)} & {r["operation_id"] for r in rows}
    assert report.left_out[harvest_edits.UNDONE] == 2
    assert report.left_out[harvest_edits.UNDOING] == 4
    assert report.edits == 8


def test_an_undone_split_and_a_split_that_was_joined_again_are_no_answers(world, tmp_path) -> None:
    a, b, c, d = (0, 0, 2), (1, 0, 2), (0, 0, 4), (1, 0, 4)
    world.merge(a, b)
    world.undo(world.split(a, b), by=BEN)
    world.merge(c, d)
    world.split(c, d)
    world.merge(c, d)
    report, rows = run(world, tmp_path / "h", a, c)
    assert report.left_out[harvest_edits.UNDONE] == 1
    assert report.left_out[harvest_edits.REJOINED] == 1
    assert not of_type(rows, "split_edit")


def test_a_chain_of_edits_gives_each_in_its_own_state(world, tmp_path) -> None:
    chain = [(0, 0, z) for z in range(5)]
    expected = {}
    for one, next_ in itertools.pairwise(chain):
        before = world.root(one), world.root(next_)
        expected[world.merge(one, next_, by=BEN if one[2] % 2 else ADA)] = before
    report, rows = run(world, tmp_path / "h", chain[0])
    found = {
        int(r["operation_id"]): (int(r["segment"]), int(r["partner"]))
        for r in of_type(rows, "merge_edit")
    }
    assert found == expected
    assert len({r["timestamp"] for r in of_type(rows, "merge_edit")}) == 4
    assert len({r["user"] for r in rows}) == 2
    assert {r["root_id"] for r in rows} == {str(world.root(chain[0]))}
    assert report.edits == 4


def test_edits_of_two_roots_come_once_and_since_leaves_old_ones_out(world, tmp_path) -> None:
    a, b, c = (0, 0, 2), (1, 0, 2), (2, 0, 2)
    world.merge(a, b)
    world.merge(b, c)
    late = world.split(b, c)
    report, _ = run(world, tmp_path / "h", a, c)
    assert report.edits == 3
    at = world.cave.deployment.editor.operations[late].at
    since = datetime.fromtimestamp(at - 0.0005).astimezone()
    report, rows = run(world, tmp_path / "late", a, c, since=since)
    assert [r["operation_id"] for r in rows] == [str(late)]
    assert report.edits == 1


def test_an_id_that_is_no_object_is_told_and_the_others_are_read(world, tmp_path) -> None:
    world.merge((0, 0, 2), (1, 0, 2))
    wanted = Wanted((world.part((0, 0, 2)), world.root((0, 0, 2))), None, 20.0, 3, SALT)
    until = datetime.fromisoformat(world.source.timestamp)
    work = Harvest(world.source.history, world.source.info, wanted, tmp_path / "h", until)
    try:
        report = work.run()
    finally:
        work.close()
    assert list(report.unread) == [str(world.part((0, 0, 2)))]
    assert "is not a root" in report.unread[str(world.part((0, 0, 2)))]
    assert report.by_type["merge_edit"] == 1


def many_edits(world: History) -> list[tuple[int, int, int]]:
    """Two neurons with edits of two people, some contradicted; a bead of each."""
    for x, y in ((0, 0), (2, 1)):
        for z in range(3):
            world.merge((x, y, z), (x, y, z + 1), by=BEN if z % 2 else ADA)
    world.split((0, 0, 1), (0, 0, 2), by=BEN)
    world.undo(world.merge((0, 0, 0), (1, 0, 0)))
    return [(0, 0, 0), (0, 0, 3), (2, 1, 0)]


class TestGoingOn:
    """A harvest that was broken off anywhere ends as one that was not."""

    @pytest.fixture(scope="class")
    @classmethod
    def world(cls, served, tmp_path_factory) -> Iterator[History]:
        with history(served, tmp_path_factory.mktemp("world")) as made:
            made.beads = many_edits(made)
            yield made

    @pytest.fixture(scope="class")
    @classmethod
    def whole(cls, world, tmp_path_factory) -> tuple[Report, list[dict]]:
        return run(world, tmp_path_factory.mktemp("whole"), *world.beads)

    def test_after_every_edit(self, world, whole, tmp_path) -> None:
        class KilledError(BaseException):
            pass

        def die(_progress: Progress) -> None:
            raise KilledError

        for _ in range(whole[0].edits):
            work = begin(world, tmp_path / "h", *world.beads)
            with pytest.raises(KilledError):
                work.run(die)
            work.close()
        assert run(world, tmp_path / "h", *world.beads) == whole

    def test_in_the_middle_of_a_line(self, world, whole, tmp_path) -> None:
        out = tmp_path / "h"
        run(world, out, *world.beads)
        for name in ("edits.jsonl", "answers.jsonl"):
            text = (out / name).read_bytes()
            last = text[:-1].rfind(b"\n") + 1
            for size in {last + 1, (last + len(text)) // 2, len(text) - 1}:
                (out / name).write_bytes(text[:size])
                assert run(world, out, *world.beads) == whole
        lines = (out / "edits.jsonl").read_text().splitlines()
        assert len(lines) == whole[0].edits

    def test_in_a_folder_whose_operations_are_numbers(self, world, whole, tmp_path) -> None:
        """As earlier versions wrote them; the decisions keep their names."""
        out = tmp_path / "h"
        run(world, out, *world.beads)
        path = out / "edits.jsonl"
        text = path.read_text()
        older = re.sub(r'"operation_id":"(\d+)"', r'"operation_id":\1', text)
        assert older != text
        path.write_text(older)
        assert run(world, out, *world.beads) == whole

    def test_kept_answers_are_not_asked_for_again(self, world, whole, tmp_path) -> None:
        run(world, tmp_path / "h", *world.beads)
        (tmp_path / "h" / "edits.jsonl").unlink()
        world.cave.faults.forget()
        assert run(world, tmp_path / "h", *world.beads) == whole
        asked = [s.path for s in world.cave.faults.requests()]
        assert asked
        assert not [p for p in asked if "change_log" in p or "operation_details" in p]

    @pytest.mark.parametrize(
        "fault",
        [
            Fault("refused", "/table/", times=40, skip=3, status=429, seconds=0.0),
            Fault("refused", "/table/", times=40, skip=9, status=502),
            Fault("truncated", "/table/", times=40, skip=5, share=0.5),
        ],
        ids=["429", "502", "truncated"],
    )
    def test_through_an_outage(self, world, whole, tmp_path, fault, monkeypatch) -> None:
        monkeypatch.setattr("cb2_assist.datasets.cave.wire._pause", lambda *_: None)
        roots = tuple(world.root(bead) for bead in world.beads)
        world.cave.faults.add(fault)
        broken_off = 0
        try:
            while True:
                work = begin(world, tmp_path / "h", roots=roots, pauses_s=())
                try:
                    work.run()
                    break
                except NoAnswerError:
                    broken_off += 1
                finally:
                    work.close()
        finally:
            world.cave.faults.clear()
        assert broken_off > 1
        assert run(world, tmp_path / "h", *world.beads) == whole

    def test_a_question_that_never_gets_an_answer_costs_only_what_it_is_about(
        self, world, whole, tmp_path, monkeypatch
    ) -> None:
        monkeypatch.setattr("cb2_assist.datasets.cave.wire._pause", lambda *_: None)
        world.cave.faults.add(Fault("refused", "lineage_graph_multiple", status=504))
        try:
            report, rows = run(world, tmp_path / "h", *world.beads)
        finally:
            world.cave.faults.clear()
        assert report.waiting == report.edits - report.left_out.get(harvest_edits.UNDOING, 0)
        assert rows == []
        # asked once more, it answers
        assert run(world, tmp_path / "h", *world.beads)[0] == whole[0]

    def test_controls_wait_where_only_their_later_edits_are_not_told(
        self, world, whole, tmp_path, monkeypatch
    ) -> None:
        later = CaveHistory.later

        def refuse(history: CaveHistory, roots: Sequence[int], until: datetime) -> object:
            if isinstance(roots, list) and len(roots) == 2:  # of a split they are a tuple
                raise NoAnswerError("too long")
            return later(history, roots, until)

        monkeypatch.setattr(CaveHistory, "later", refuse)
        report, rows = run(world, tmp_path / "h", *world.beads)
        assert report.left_out[harvest_edits.CONTROL_UNKNOWN] >= report.waiting > 0
        assert of_type(rows, "merge_edit") == of_type(whole[1], "merge_edit")
        assert not of_type(rows, "adjacent_control")
        monkeypatch.undo()
        assert run(world, tmp_path / "h", *world.beads) == whole

    def test_an_edit_whose_voxels_cannot_be_read_is_looked_at_again(
        self, world, whole, tmp_path, monkeypatch
    ) -> None:
        def refuse(*_asked: object) -> object:
            raise DatasetError("no such block")

        monkeypatch.setattr(CaveHistory, "parts", refuse)
        report, rows = run(world, tmp_path / "h", *world.beads)
        assert (rows, report.waiting) == ([], report.left_out[NOT_READ])
        monkeypatch.undo()
        assert run(world, tmp_path / "h", *world.beads) == whole

    def test_another_harvest_in_the_same_folder_is_refused(self, world, tmp_path) -> None:
        run(world, tmp_path / "h", *world.beads)
        with pytest.raises(UsageError, match="another near_nm"):
            begin(world, tmp_path / "h", *world.beads, near_nm=99.0)
        first = begin(world, tmp_path / "h", *world.beads)
        try:
            with pytest.raises(UsageError, match="Another process"):
                begin(world, tmp_path / "h", *world.beads)
        finally:
            first.close()
        assert json.loads((tmp_path / "h" / "harvest.json").read_text())["near_nm"] == 20.0

    def test_no_name_of_a_person_is_written(self, world, tmp_path) -> None:
        run(world, tmp_path / "h", *world.beads)
        for path in (tmp_path / "h").iterdir():
            text = path.read_text()
            assert '"user":"17"' not in text.replace(" ", "")
            assert "Ben" not in text
