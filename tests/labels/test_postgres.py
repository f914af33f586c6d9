"""The PostgreSQL store: the contract, the tables themselves, passwords, and other programs."""

from __future__ import annotations

import builtins
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from contracts.label_store import LabelStoreContract, states
from contracts.queue_store import ALL, NOW, QueueStoreContract, new_draw, put, take
from contracts.reopening import reopening
from label_makers import DATASET, USER, VERSION, decision, queue_item, suggestion

from cb2_assist.core.errors import (
    DecisionError,
    LabelError,
    LabelFileReadOnlyError,
    LabelsUnreachableError,
    UsageError,
)
from cb2_assist.core.records import Verdict
from cb2_assist.decisions.log import DecisionLog
from cb2_assist.labels.copying import copy_labels
from cb2_assist.labels.postgres import PostgresLabelStore
from cb2_assist.labels.postgres_schema import columns, parts
from cb2_assist.labels.postgres_sql import to_postgres
from cb2_assist.labels.queue_store import LEASE_S, Ask, SiteSignals
from cb2_assist.labels.schema import MIGRATIONS, Migration
from cb2_assist.labels.sqlite import SqliteLabelStore
from cb2_assist.labels.store import NewEvent, labels_url, open_store
from cb2_assist.labels.views_store import ViewsStore

VARIABLES = ("CB2_LABELS_PASSWORD", "CB2_LABELS_PASSWORD_FILE", "PGPASSWORD", "PGPASSFILE")


@pytest.fixture
def schema(postgres) -> str:
    return postgres.new_schema()


@pytest.fixture
def url(postgres, schema: str) -> str:
    return postgres.url(schema)


@pytest.fixture
def store(url: str):
    with PostgresLabelStore(url) as opened:
        yield opened


@pytest.fixture
def reopen(store, url: str):
    with reopening(lambda: PostgresLabelStore(url), store) as again:
        yield again


class TestPostgresStore(LabelStoreContract):
    """In a team's database."""


class TestPostgresQueue(QueueStoreContract):
    """In a team's database."""


class TestTables:
    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE events SET verdict = 'reject'",
            "DELETE FROM events",
            "TRUNCATE events CASCADE",
            "UPDATE event_sites SET verdict = 'reject'",
            "DELETE FROM event_sites",
            "UPDATE queue_draws SET at = 0",
        ],
    )
    def test_nothing_that_was_written_can_be_changed(
        self, store, postgres, schema: str, statement: str
    ) -> None:
        import psycopg

        put(store, 1)
        take(store, 1)
        store.append(NewEvent.of(decision()))
        with pytest.raises(psycopg.errors.IntegrityError, match="only grows"):
            postgres.sql(statement, schema)
        assert len(list(store.events())) == 1

    @pytest.mark.parametrize(
        ("statements", "says"),
        [
            ("DELETE FROM event_sites; DELETE FROM events", "1 of 1 events are missing"),
            ("UPDATE events SET verdict = 'reject'", "event 1: verdict not as"),
            ("DROP TRIGGER events_no_update ON events", "trigger events_no_update is missing"),
            ("ALTER TABLE events DROP COLUMN score CASCADE", "has lost its column score"),
        ],
    )
    def test_what_was_changed_behind_our_back_is_found(
        self, store, postgres, schema: str, statements: str, says: str
    ) -> None:
        store.append(NewEvent.of(decision()))
        # triggers do not stop who turns them off
        postgres.script(
            f"SET search_path = {schema}; SET session_replication_role = replica; {statements}"
        )
        assert any(says in problem for problem in store.verify())

    def test_a_later_step_comes_to_a_database_as_to_a_file(
        self, url, postgres, schema, monkeypatch
    ) -> None:
        with PostgresLabelStore(url) as store:
            store.append(NewEvent.of(decision()))
        step = Migration(
            "notes",
            (
                "CREATE TABLE notes (id INTEGER PRIMARY KEY AUTOINCREMENT, user TEXT NOT NULL,"
                " event INTEGER REFERENCES events (id), weight REAL, data BLOB)",
                "CREATE INDEX notes_by_user ON notes (user)",
                "CREATE TRIGGER notes_no_delete BEFORE DELETE ON notes BEGIN SELECT RAISE(ABORT,"
                " 'notes only grows'); END",
            ),
        )
        for module in ("schema", "postgres", "postgres_schema", "postgres_connections"):
            monkeypatch.setattr(f"cb2_assist.labels.{module}.MIGRATIONS", (*MIGRATIONS, step))
        with PostgresLabelStore(url, read_only=False) as store:
            assert store.verify() == []
            assert len(list(store.events())) == 1
        postgres.sql("INSERT INTO notes (\"user\", event, weight) VALUES ('ada', 1, 0.5)", schema)
        assert postgres.sql("SELECT id, weight FROM notes", schema) == [(1, 0.5)]
        monkeypatch.undo()
        for cached in (columns, parts):
            cached.cache_clear()
        with pytest.raises(LabelError, match=r"newer cb2-assist .*Upgrade"):
            PostgresLabelStore(url)

    def test_a_database_that_becomes_newer_meanwhile_is_written_no_more(
        self, store, postgres, schema
    ) -> None:
        store.append(NewEvent.of(decision(1)))
        n = len(MIGRATIONS) + 1
        postgres.sql(f"INSERT INTO migrations (version, name) VALUES ({n}, 'later')", schema)
        with pytest.raises(LabelError, match=r"newer cb2-assist .*Nothing was changed"):
            store.append(NewEvent.of(decision(2)))
        assert len(list(store.events())) == 1

    def test_tables_of_another_program_are_left_alone(self, url, postgres, schema) -> None:
        postgres.sql("CREATE TABLE events (id INT)", schema)
        with pytest.raises(LabelError, match="another program"):
            PostgresLabelStore(url)

    def test_an_empty_database_is_not_made_ours_by_a_reader(self, url) -> None:
        with pytest.raises(LabelError, match="are empty"):
            PostgresLabelStore(url, read_only=True)

    def test_a_reader_cannot_write(self, store, url) -> None:
        put(store, 1)
        with open_store(url, read_only=True) as reader:
            assert len(reader.queue.waiting(ALL, now=NOW)) == 1
            with pytest.raises(LabelFileReadOnlyError, match="for reading"):
                reader.append(NewEvent.of(decision()))

    def test_a_program_that_may_not_write_is_told(self, store, postgres, schema) -> None:
        name = f"reader_{schema}"
        postgres.script(
            f"CREATE ROLE {name} LOGIN PASSWORD 'x'; GRANT USAGE ON SCHEMA {schema} TO {name};"
            f" GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {name}"
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PGPASSWORD", "x")
            with PostgresLabelStore(postgres.url(schema, name)) as theirs:
                with pytest.raises(LabelFileReadOnlyError, match="cannot be written by you"):
                    theirs.append(NewEvent.of(decision()))
                assert list(theirs.events()) == []
        assert list(store.events()) == []


def test_words_are_exchanged_outside_of_quotes_only() -> None:
    sql = "SELECT user, e.user, '? :now user %' FROM e, json_each(?) WHERE a = :now AND b LIKE 'x%'"
    assert to_postgres(sql) == (
        "SELECT \"user\", e.user, '? :now user %%' FROM e, text_items(%s)"
        " WHERE a = %(now)s AND b LIKE 'x%%'"
    )


class TestPassword:
    @pytest.fixture(autouse=True)
    def _clean(self, monkeypatch, tmp_path) -> None:
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", str(tmp_path))

    @pytest.fixture
    def closed(self, postgres, schema: str) -> str:
        """A URL that needs the password ``s3cret``."""
        name = f"ada_{schema}"
        postgres.script(
            f"CREATE ROLE {name} LOGIN PASSWORD 's3cret'; GRANT ALL ON SCHEMA {schema} TO {name}"
        )
        return postgres.url(schema, name)

    @pytest.mark.parametrize(
        "url",
        [
            "postgresql://ada:s3cret@host/labels",
            "postgres://ada:s3cret@host/labels",
            "postgresql://host/labels?password=s3cret",
            "postgresql://host/labels?user=ada&sslpassword=s3cret",
            "postgresql://ada:s3cret/x@host/labels",
            "postgresql://ada:s3cret?x@host/labels",
            "postgresql://ada:s3cret#x@host/labels",
        ],
    )
    def test_a_password_in_the_url_is_refused_and_not_repeated(self, url: str) -> None:
        with pytest.raises(UsageError, match="PGPASSWORD") as refused:
            open_store(url)
        assert "s3cret" not in str(refused.value)
        assert "change that password" in str(refused.value)

    @pytest.mark.parametrize(
        "url", ["postgresql://host:s3cret/labels", "postgresql://host/labels?s3cret=1"]
    )
    def test_a_url_that_cannot_be_understood_is_not_repeated(self, url: str) -> None:
        with pytest.raises(UsageError, match="cannot be understood") as refused:
            open_store(url)
        assert "s3cret" not in str(refused.value)

    def test_another_scheme_with_a_password_is_not_repeated(self) -> None:
        with pytest.raises(UsageError, match="starts with sqlite:///") as refused:
            open_store("postgresql+psycopg://ada:s3cret@host/labels")
        assert "s3cret" not in str(refused.value)

    @pytest.mark.parametrize("variable", ["CB2_LABELS_PASSWORD", "PGPASSWORD"])
    def test_it_comes_from_the_environment(self, closed, monkeypatch, variable) -> None:
        monkeypatch.setenv(variable, "s3cret")
        with open_store(closed) as store:
            assert store.append(NewEvent.of(decision())).id == 1
            assert "s3cret" not in store.url + store.place + "".join(store.notices)

    def test_it_comes_from_a_file(self, closed, monkeypatch, tmp_path) -> None:
        plain, passes = tmp_path / "secret", tmp_path / "passes"
        plain.write_text("s3cret\n")
        passes.write_text("*:*:*:*:s3cret\n")
        passes.chmod(0o600)
        monkeypatch.setenv("CB2_LABELS_PASSWORD_FILE", str(plain))
        open_store(closed).close()
        monkeypatch.setenv("CB2_LABELS_PASSWORD_FILE", str(tmp_path / "none"))
        with pytest.raises(LabelError, match=r"none, which cannot be read"):
            open_store(closed)
        monkeypatch.delenv("CB2_LABELS_PASSWORD_FILE")
        monkeypatch.setenv("PGPASSFILE", str(passes))
        open_store(closed, read_only=True).close()

    def test_a_wrong_or_missing_one_is_told_and_not_repeated(
        self, closed, monkeypatch, caplog
    ) -> None:
        with pytest.raises(LabelError, match=r"did not let you in .*CB2_LABELS_PASSWORD"):
            open_store(closed)
        monkeypatch.setenv("CB2_LABELS_PASSWORD", "gue55ed")
        with pytest.raises(LabelError, match="did not let you in") as refused:
            open_store(closed)
        assert "gue55ed" not in str(refused.value) + caplog.text

    def test_without_the_driver_it_is_said_what_to_install(self, monkeypatch) -> None:
        really = builtins.__import__

        def without(name, *rest, **more):
            if name == "psycopg":
                raise ImportError("No module named 'psycopg'")
            return really(name, *rest, **more)

        monkeypatch.setattr(builtins, "__import__", without)
        with pytest.raises(LabelError, match=r"pip install 'cb2-assist\[team\]'"):
            open_store("postgresql://ada@host/labels")


def test_a_database_or_server_that_is_not_there_is_told(postgres) -> None:
    with pytest.raises(LabelError, match="createdb"):
        open_store(f"postgresql://owner@/nothing?host={postgres.folder}")
    with pytest.raises(LabelsUnreachableError, match="cannot be reached"):
        open_store(f"postgresql://owner@/labels?host={postgres.folder}&port=1")


class TestPeople:
    def test_two_people_on_one_site_at_once_are_both_recorded(self, store, url) -> None:
        put(store, 1)
        together = threading.Barrier(2)

        def one(user: str) -> int:
            with PostgresLabelStore(url) as mine:
                log = DecisionLog(mine, user=user, dataset=DATASET, version=VERSION)
                together.wait(200)
                verdict = Verdict.ACCEPT if user == "ada" else Verdict.REJECT
                return log.decide(decision(1, verdict, user=user, key=f"{user}-1")).id

        with ThreadPoolExecutor(2) as pool:
            assert sorted(pool.map(one, ("ada", "bob"))) == [1, 2]
        site = suggestion(1).id
        assert sorted(states(store)) == [
            (site, "accept", "in force"),
            (site, "reject", "in force"),
        ]
        (tally,) = store.queue.tally(now=NOW)
        assert (tally.state.value, tally.n) == ("decided", 1)
        assert len(store.queue.answered(ALL)) == 1, "counted once"

    def test_labels_of_another_version_or_dataset_are_refused_and_kept_apart(self, store) -> None:
        log = DecisionLog(store, user=USER, dataset=DATASET, version="v2")
        with pytest.raises(DecisionError, match="This session records ada on demo v2"):
            log.decide(decision(1))
        store.append(NewEvent.of(decision(1)))
        log.refresh()
        assert log.verdict(suggestion(1).id) is None

    def test_of_many_workers_none_gets_what_another_has(self, store, url) -> None:
        """As examples/team_leases.py does for 10,000 sites and 20 processes."""
        workers, sites = 6, 30
        put(store, *range(sites))

        def work(number: int) -> list[str]:
            got = []
            with PostgresLabelStore(url) as mine:
                for n in [*range(number, sites), *range(number)]:
                    draw = new_draw(mine.queue, n, f"user-{number}")
                    if mine.queue.take(draw, now=NOW) is not None:
                        got.append(draw.site)
                        done = decision(n, user=f"user-{number}", key=f"{number}-{n}")
                        mine.append(NewEvent.of(done))
            return got

        with ThreadPoolExecutor(workers) as pool:
            got = [site for sites_of in pool.map(work, range(workers)) for site in sites_of]
        assert Counter(got) == Counter(suggestion(n).id for n in range(sites))
        assert [t.state.value for t in store.queue.tally(now=NOW)] == ["decided"]
        assert [e.id for e in store.events()] == list(range(1, sites + 1))
        assert store.verify() == []

    def test_a_clock_that_is_wrong_ends_nobody_s_lease(self, store, url, monkeypatch) -> None:
        put(store, 1, now=time.time())
        assert take(store, 1, "ada", now=time.time()) is not None
        really = time.time
        for wrong in (+7200.0, -7200.0):
            monkeypatch.setattr(time, "time", lambda by=wrong: really() + by)
            with PostgresLabelStore(url) as fast:
                assert any("Set it right" in text for text in fast.notices)
                assert take(fast, 1, "bob", now=time.time()) is None
                (lease,) = fast.queue.leases(DATASET, VERSION, now=time.time())
                assert abs(lease.until - time.time() - LEASE_S) < 300
                event = fast.append(NewEvent.of(decision(5, key=f"clock {wrong}", user="bob")))
                assert event.recorded_at[:4] == time.strftime("%Y", time.gmtime(really()))
            monkeypatch.undo()
        recorded = [e.recorded_at for e in store.events()]
        assert recorded == sorted(recorded)


class TestCopy:
    def filled(self, folder: Path) -> str:
        """A file with everything that a file can hold."""
        url = labels_url(folder / "mine.sqlite")
        with SqliteLabelStore(folder / "mine.sqlite") as store:
            put(store, 1, 2, 3, joint="7@1,2,3")
            take(store, 1)
            take(store, 2)
            store.queue.mark_stale(DATASET, VERSION, suggestion(3).id, "gone", user="b", now=NOW)
            signals = SiteSignals(0.4, 12.5, 1.0, 9.0, (0.1 + 0.2,), b"\x00\x3c\xff")
            store.queue.put_signals(DATASET, VERSION, {suggestion(1).id: signals})
            store.queue.set_order(ALL, "margin", now=NOW)
            store.queue.ask_again([Ask(DATASET, VERSION, suggestion(1).id, "s", 2)], now=NOW)
            log = DecisionLog(store, user=USER, dataset=DATASET, version=VERSION)
            log.decide(decision(1, Verdict.REJECT, reason="µ — ≥ \x00", views_sha256="ab" * 32))
            log.give_reason(suggestion(1).id, "artefact", idempotency_key="r")
            log.undo(idempotency_key="u")
            log.redo(idempotency_key="v")
            ViewsStore(store.views_folder).put(b"no picture", "ab" * 32)
        return url

    @staticmethod
    def rows(url: str) -> dict[str, list[tuple]]:
        opener = PostgresLabelStore if url.startswith("postgresql") else None
        store = opener(url, read_only=True) if opener else open_store(url, read_only=True)
        with store, store.snapshot() as rows:
            found = {
                table: list(rows(f"SELECT {', '.join(names)} FROM {table} ORDER BY 1, 2"))
                for table, names in columns(len(MIGRATIONS)).items()
                if table != "migrations"
            }
            kinds = {t: [[type(v) for v in row] for row in r] for t, r in found.items()}
        return {"rows": found, "types": kinds}

    def test_nothing_is_lost_on_the_way_to_a_team_and_back(
        self, tmp_path, url, own_data_home
    ) -> None:
        here = self.filled(tmp_path)
        there = copy_labels(here, url)
        assert there.rows["events"] == there.found.events == 4
        assert self.rows(url) == self.rows(here)
        back = labels_url(tmp_path / "back.sqlite")
        again = copy_labels(url, back)
        assert self.rows(back) == self.rows(here)
        assert again.found.views == 1
        assert "hold what" not in " ".join(again.found.problems)
        with open_store(url) as team, open_store(back) as file:
            assert team.salt == file.salt
            for store in (team, file):
                assert store.append(NewEvent.of(decision(9, key="next"))).id == 5
                put(store, 8)
                assert take(store, 8).id == 3
                assert store.verify() == []
        assert list(own_data_home.rglob("*.cb2v"))

    def test_a_copy_never_goes_into_something(self, tmp_path, url, store) -> None:
        here = self.filled(tmp_path)
        store.append(NewEvent.of(decision(7)))
        with pytest.raises(LabelError, match=r"hold something already \(in events\)"):
            copy_labels(here, url)
        assert len(list(store.events())) == 1
        with pytest.raises(UsageError, match="never overwrites"):
            copy_labels(url, here)
        with pytest.raises(UsageError, match="where the labels are"):
            copy_labels(url, url)
        assert [p.name for p in tmp_path.iterdir() if ".part" in p.name] == []

    def test_a_queue_item_of_a_copy_is_the_same(self, tmp_path, url, own_data_home) -> None:
        copy_labels(self.filled(tmp_path), url)
        assert own_data_home
        with open_store(url, read_only=True) as team:
            kept = team.queue.item(DATASET, VERSION, suggestion(2).id)
            assert kept == queue_item(2, joint="7@1,2,3")
