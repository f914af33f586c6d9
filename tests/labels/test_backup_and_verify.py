"""A copy of the labels that can be opened, and checks that find what is wrong."""

from __future__ import annotations

import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from label_makers import BIG, DATASET, USER, VERSION, decision, suggestion

from cb2_assist.core.errors import LabelError, UsageError
from cb2_assist.core.records import Kind, Verdict
from cb2_assist.decisions.log import DecisionLog, alternative
from cb2_assist.labels.backup import COPY_NAME, back_up
from cb2_assist.labels.sqlite import SqliteLabelStore
from cb2_assist.labels.store import labels_url, open_store
from cb2_assist.labels.verify import verify_labels
from cb2_assist.labels.views_store import ViewsStore
from cb2_assist.views.hitmap import EMPTY, HitMap
from cb2_assist.views.stack import ViewStack, content_sha256, to_bytes

CHILD = Path(__file__).with_name("deciding_child.py")
OLD = Path(__file__).with_name("version-1.sql")


def stack(n: int) -> ViewStack:
    depth = np.full((3, 2, 224, 224), EMPTY, np.int16)
    depth[:, :, : 10 + n] = n
    hits = HitMap(depth, np.zeros((3, 2, 3, 224, 224), np.int8))
    return ViewStack(
        hits, np.full((3, 3, 224, 224), n, np.uint8), np.zeros(4, np.float32), 9.0, "clean"
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mine.sqlite"


@pytest.fixture
def log(path: Path):
    """Three decisions with views, one of them undone; a reason; none of these."""
    with SqliteLabelStore(path) as store:
        views = ViewsStore(store.views_folder)
        made = DecisionLog(store, user=USER, dataset=DATASET, version=VERSION)
        for n in range(3):
            address = content_sha256(stack(n))
            views.put(to_bytes(stack(n)), address)
            made.decide(decision(n, Verdict.REJECT, views_sha256=address))
        made.undo(idempotency_key="u")
        made.give_reason(suggestion(1).id, "artefact", idempotency_key="r")
        shown = (alternative(suggestion(5)), alternative(suggestion(6, Kind.CUT)))
        made.decide(decision(5, Verdict.NONE, joint=True, alternatives=shown))
        yield made


def everything(path: Path) -> list[tuple]:
    with closing(sqlite3.connect(path)) as conn:
        events = conn.execute("SELECT * FROM events ORDER BY id").fetchall()
        return events + conn.execute("SELECT * FROM event_sites ORDER BY 1, 2").fetchall()


class TestBackup:
    def test_the_copy_holds_everything_and_can_be_opened(self, log, path, tmp_path) -> None:
        made = back_up(labels_url(path), tmp_path / "safe" / "monday")
        assert (made.events, made.views, made.problems) == (6, 3, ())
        copy = tmp_path / "safe" / "monday" / COPY_NAME
        assert everything(copy) == everything(path)
        with open_store(made.url) as store:
            again = DecisionLog(store, user=USER, dataset=DATASET, version=VERSION)
            assert again.reason(suggestion(1).id) == "artefact"
            assert again.can_undo
            again.undo(idempotency_key="later")
            kept = ViewsStore(store.views_folder)
            for event in store.events():
                if event.decision and event.decision.views_sha256:
                    assert kept.get(event.decision.views_sha256) == ViewsStore(
                        path.with_name("mine.sqlite.views")
                    ).get(event.decision.views_sha256)
        assert len(list(log.history())) == 6, "the labels themselves have not changed"

    @pytest.mark.usefixtures("log")
    def test_the_copy_is_one_private_file_and_its_views(self, path, tmp_path) -> None:
        back_up(labels_url(path), tmp_path / "copy")
        names = [p.name for p in sorted((tmp_path / "copy").iterdir())]
        assert names == [COPY_NAME, f"{COPY_NAME}.views"]
        files = [p for p in (tmp_path / "copy").rglob("*") if p.is_file()]
        assert {stat.S_IMODE(p.stat().st_mode) for p in files} == {0o600}
        assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []

    @pytest.mark.usefixtures("log")
    def test_nothing_is_overwritten(self, path, tmp_path) -> None:
        (tmp_path / "there").mkdir()
        (tmp_path / "there" / "thesis.txt").write_text("precious")
        for out in (tmp_path / "there", tmp_path / "there" / "thesis.txt"):
            with pytest.raises(UsageError, match="never overwrites"):
                back_up(labels_url(path), out)
        assert (tmp_path / "there" / "thesis.txt").read_text() == "precious"
        back_up(labels_url(path), tmp_path / "copy")
        with pytest.raises(UsageError, match="never overwrites"):
            back_up(labels_url(path), tmp_path / "copy")

    def test_beside_a_program_that_keeps_writing_the_copy_is_of_one_moment(self, path, tmp_path):
        child = subprocess.Popen(
            [sys.executable, str(CHILD), str(path), "ada", "0", "0"], stdout=subprocess.PIPE
        )
        try:
            made = []
            for n in range(3):
                for _ in range(20):
                    assert child.stdout.readline()
                made.append(back_up(labels_url(path), tmp_path / f"copy-{n}"))
        finally:
            child.kill()
            child.wait(30)
            child.stdout.close()
        assert made[0].events < made[1].events < made[2].events
        for each in made:
            with open_store(each.url, read_only=True) as copy:
                assert copy.verify() == []
                kept = ViewsStore(copy.views_folder)
                named = [e.decision.views_sha256 for e in copy.events() if e.decision]
                assert all(kept.has(address) for address in named)
            # the child keeps bytes that are no views, of which the check tells
            assert all("views" in problem for problem in each.problems)

    def test_a_file_of_an_earlier_version_is_copied_as_it_is(self, path, tmp_path) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as conn:
            conn.executescript(OLD.read_text(encoding="utf-8"))
        made = back_up(labels_url(path), tmp_path / "copy")
        assert made.events == 10
        assert everything(tmp_path / "copy" / COPY_NAME) == everything(path)
        with closing(sqlite3.connect(tmp_path / "copy" / COPY_NAME)) as conn:
            assert conn.execute("PRAGMA user_version").fetchone() == (1,)
        with open_store(made.url) as store:
            assert store.verify() == []

    @pytest.mark.usefixtures("log")
    def test_damage_is_copied_and_told(self, path, tmp_path) -> None:
        address = content_sha256(stack(1))
        kept = path.with_name("mine.sqlite.views") / address[:2] / f"{address}.cb2v"
        kept.write_bytes(kept.read_bytes()[:-1])
        made = back_up(labels_url(path), tmp_path / "copy")
        (problem,) = made.problems
        assert address[:12] in problem

    @pytest.mark.parametrize("content", [None, b"", b"not a database at all" * 100])
    def test_what_is_no_label_file_is_refused(self, path, tmp_path, content) -> None:
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(LabelError):
            back_up(labels_url(path), tmp_path / "copy")
        assert not (tmp_path / "copy").exists()


class TestVerify:
    @pytest.fixture
    def closed(self, log, path: Path) -> Path:
        """The file without its triggers, as a tool that means no good would open it."""
        log._store.close()
        return path

    @staticmethod
    def problems(path: Path) -> tuple[str, ...]:
        with SqliteLabelStore(path, read_only=True) as store:
            return verify_labels(store).problems

    @pytest.mark.usefixtures("log")
    def test_nothing_is_wrong_with_good_labels(self, path) -> None:
        with SqliteLabelStore(path, read_only=True) as store:
            found = verify_labels(store)
        assert (found.events, found.views, found.problems) == (6, 3, ())
        assert found.to_json()["ok"] is True

    @pytest.mark.parametrize(
        ("statements", "says"),
        [
            (
                ["DELETE FROM event_sites WHERE event_id = 6", "DELETE FROM events WHERE id = 6"],
                "1 of 6 events are missing",
            ),
            (["UPDATE events SET verdict = 'accept' WHERE id = 1"], "event 1: verdict not as"),
            (["UPDATE events SET user = 'eve' WHERE id = 1"], "event 1: user not as"),
            (["UPDATE events SET segment = '5' WHERE id = 1"], "event 1: segment not as"),
            (["UPDATE event_sites SET verdict = 'accept' WHERE event_id = 1"], "answered sites"),
            (["DELETE FROM event_sites WHERE event_id = 6"], "event 6: answered sites"),
            (["UPDATE events SET body = '{' WHERE id = 3"], "event 3: A stored decision cannot"),
            (["UPDATE events SET body = '{' WHERE id = 5"], "event 5: A stored reason cannot"),
            (["UPDATE events SET target = 5 WHERE id = 4"], "event 4 (undo) names event 5"),
            (
                ["UPDATE events SET event = 'redo' WHERE id = 4"],
                "event 4 (redo of event 3) has no",
            ),
            (["UPDATE events SET target = 6 WHERE id = 5"], "event 5 (reason) names event 6"),
        ],
    )
    def test_what_was_changed_behind_our_back_is_found(self, closed, statements, says) -> None:
        with closing(sqlite3.connect(closed, isolation_level=None)) as conn:
            triggers = conn.execute(
                "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
            ).fetchall()
            for name, _ in triggers:
                conn.execute(f"DROP TRIGGER {name}")
            for statement in statements:
                conn.execute(statement)
            for _, sql in triggers:
                conn.execute(sql)
        (problem,) = self.problems(closed)
        assert says in problem

    def test_a_guard_that_was_taken_away_is_found(self, closed) -> None:
        with closing(sqlite3.connect(closed)) as conn:
            conn.execute("DROP TRIGGER events_no_update")
        assert self.problems(closed) == ("the trigger events_no_update is missing",)

    def test_lost_and_exchanged_views_are_found(self, closed) -> None:
        kept = ViewsStore(closed.with_name("mine.sqlite.views"))
        lost, other = content_sha256(stack(0)), content_sha256(stack(1))
        (kept.folder / lost[:2] / f"{lost}.cb2v").unlink()
        (kept.folder / other[:2] / f"{other}.cb2v").unlink()
        kept.put(to_bytes(stack(2)), other)
        first, second = self.problems(closed)
        assert first.startswith(f"event 1 names the views {lost[:12]}")
        assert f"hold what belongs to {content_sha256(stack(2))[:12]}" in second

    def test_views_of_members_of_none_must_be_there_too(self, path) -> None:
        shown = (alternative(suggestion(0), views_sha256="ab" * 32, supervoxels=(BIG, None)),)
        with SqliteLabelStore(path) as store:
            log = DecisionLog(store, user=USER, dataset=DATASET, version=VERSION)
            log.decide(decision(0, Verdict.NONE, joint=True, alternatives=shown))
            (problem,) = verify_labels(store).problems
        assert "event 1 names the views abab" in problem

    def test_labels_without_views_are_good_labels(self, path) -> None:
        with SqliteLabelStore(path) as store:
            log = DecisionLog(store, user=USER, dataset=DATASET, version=VERSION)
            log.decide(decision(0))
            assert verify_labels(store).problems == ()

    def test_a_damaged_page_is_found(self, closed) -> None:
        shutil.copy(closed, closed.with_suffix(".copy"))
        data = bytearray(closed.read_bytes())
        data[3 * 4096 : 3 * 4096 + 200] = bytes(200)
        closed.write_bytes(data)
        try:
            found = self.problems(closed)
        except LabelError as e:
            found = (str(e),)
        assert found
